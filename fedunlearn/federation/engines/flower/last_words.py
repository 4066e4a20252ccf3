"""A word from whoever is ended by Ray.

Ray leaves the driver's process at once, with exit code 1, when what it asks of its object store fails
(`connection.cc`): sooner than anybody can tell that Ray on this machine is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedunlearn import interrupts

GONE = (
    "error: the Ray cluster or Ray on this machine is gone, and ended this process unless somebody else did; what was "
    "done is kept: `simulate … --resume` goes on with it"
)

_SAY = """
import os, sys
os.setsid()
if os.fork():
    os._exit(0)
if not sys.stdin.buffer.read():
    print(sys.argv[1], file=sys.stderr)
"""
_NEEDED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")


@contextmanager
def last_words(text: str = GONE) -> Iterator[None]:
    """Have a text said on standard error if this process ends while this lasts.

    A small process waits for that. It is nobody's child and of no group of this one's, so that it is not ended with
    them, and of this one's environment it has nothing that others might tell by whose it is.

    Args:
        text: a line.
    """
    read, write = os.pipe()
    with open(read, "rb") as pipe:
        subprocess.run(
            [sys.executable, "-IS", "-c", _SAY, text],
            stdin=pipe,
            stdout=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _NEEDED if name in os.environ},
            check=True,
        )

    def told() -> None:
        os.write(write, b".")

    with interrupts.last_resort(told):  # whoever ends it by a signal knows
        try:
            yield
        finally:
            told()
            os.close(write)

"""Where commands end: libraries have their last word, what was printed arrives, and nothing is taken apart."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys

import pytest

from fedunlearn.commands import rim

_ENDING = """
import atexit, sys
from fedunlearn.commands import rim

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
atexit.register(print, "last word")
rim.run(lambda: (print("said"), sys.exit({status})))
"""


@pytest.mark.parametrize(("status", "told"), [(0, ["said", "last word"]), (3, ["said"])])
def test_a_command_ends_without_taking_apart_what_it_loaded(status: int, told: list[str]) -> None:
    code = _ENDING.format(status=status)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (status, told, "")


def test_garbage_is_looked_for_again_once_modules_are_loaded() -> None:
    assert gc.isenabled()
    with contextlib.suppress(ImportError), rim.loading():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with rim.loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

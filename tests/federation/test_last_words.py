"""Whoever is ended without a word has one said for it; whoever ends in order has none."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from fedunlearn.federation.engines.flower.last_words import last_words
with last_words("error: gone"):
    print("begun", flush=True)
    {ending}
print("ended")
"""


@pytest.mark.gate
@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("os._exit(1)", 1, "error: gone\n"),  # as Ray does
        ("os.kill(os.getpid(), 9)", -9, "error: gone\n"),
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
    ],
)
def test_it_is_said_if_the_process_ends_meanwhile(ending: str, code: int, said: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(ending=ending)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stderr) == (code, said)
    assert found.stdout.split() == ["begun", *(["ended"] if code == 0 else [])]


HUNG = """
import os, time
from fedunlearn import interrupts
from fedunlearn.federation.engines.flower.last_words import last_words
with interrupts.listening(0.5), interrupts.deferred(), last_words("error: gone"):
    os.kill(os.getpid(), 15)
    time.sleep(60)
"""


@pytest.mark.gate
def test_who_sent_a_signal_is_told_nothing_of_ray() -> None:
    found = subprocess.run(
        [sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 143 and "gone" not in found.stderr

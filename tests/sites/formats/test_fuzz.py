"""200 files with changed headers: none is read otherwise than it says, none ends in a traceback or takes a gigabyte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sites.formats import fuzzing


@pytest.mark.parametrize("kind", fuzzing.MAKERS)
def test_changed_headers_are_followed_or_refused(tmp_path: Path, kind: str):
    counts = fuzzing.run(tmp_path, kind)
    assert sum(counts.values()) == fuzzing.EACH
    assert counts["read"] >= 5 and counts["refused"] >= 5  # else nothing was tried


@pytest.mark.gate
def test_changed_headers_take_less_than_a_gigabyte(tmp_path: Path):
    command = [sys.executable, "-m", "tests.sites.formats.fuzzing", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) < 1e9

"""A finished run with an audit log, that records can be written of, and keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedunlearn.erasure import keys
from fedunlearn.erasure.keys import Keys
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from tests.exports.conftest import made as made  # the fixture
from tests.scoring.made import change_manifest


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    folder = tmp_path / "run"
    shutil.copytree(made.path, folder)
    audit.append_all(folder / audit.FILE, [("run-started", {"scenario": "made"}), ("run-finished", {})])
    change_manifest(folder)
    return RunFolder(folder)


@pytest.fixture
def pair(tmp_path: Path) -> Keys:
    return keys.make(tmp_path / "keys")

"""Nothing that a purge should have removed stays unseen, in whatever file it is."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from benchmarks.residue import KINDS, Before, found, purged
from fedunlearn.erasure import tombstones
from fedunlearn.results.runfolder import RunFolder
from tests.test_cli import call

pytestmark = pytest.mark.gate

Made = tuple[Before, RunFolder, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> Made:
    return purged(tmp_path_factory.mktemp("residue"))


def test_where_nothing_was_planted_nothing_is_found(made: Made) -> None:
    assert found(*made, "", random.Random(0)) == []


def test_there_are_as_many_kinds_as_are_told() -> None:
    assert len(KINDS) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_residue_is_found(made: Made, kind: str) -> None:
    assert found(*made, kind, random.Random(kind))


def test_verify_looks_through_files_that_the_run_did_not_write(made: Made, tmp_path: Path) -> None:
    before, run, stone = made
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "readme.txt").write_text(f"ask {before.patients[0]}", encoding="utf-8")
    (tmp_path / "run" / "notes.txt").write_text("nothing of it", encoding="utf-8")
    told = call("verify", tmp_path / "run", "--tombstones", stone)
    assert told.exit_code == 1
    assert "readme.txt was not written by the run" in told.output
    assert "notes.txt was not written by the run" in told.output
    assert "readme.txt: left of what was purged: the id of a patient" in told.output
    assert "notes.txt: left" not in told.output
    (tmp_path / "run" / tombstones.FILE).write_text("{}", encoding="utf-8")
    told = call("verify", tmp_path / "run", "--tombstones", stone)
    assert f"{tombstones.FILE} is damaged" in told.output and "readme.txt: left of what was" in told.output
    (tmp_path / "run" / tombstones.FILE).unlink()
    assert "expected the tombstones of what was purged" in call("verify", tmp_path / "run").output


def test_verify_tells_the_file_and_what_it_is(made: Made, tmp_path: Path) -> None:
    before, run, stone = made
    shutil.copytree(run.path, tmp_path / "run")
    again = RunFolder(tmp_path / "run")
    manifest = again.read_manifest()
    content = (again.path / "report.html").read_bytes() + before.patients[0].encode()
    again.renew({"report.html": content}, manifest)
    assert call("verify", again.path).exit_code == 0  # nobody can tell that it is an id
    told = call("verify", again.path, "--tombstones", stone)
    assert told.exit_code == 1 and "report.html: left of what was purged: the id of a patient" in told.output

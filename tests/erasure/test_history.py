"""Of strategies that store what hospitals sent, nothing is left once a run was purged."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedunlearn.core import RunError
from fedunlearn.erasure import keys, purge, residue, tombstones
from fedunlearn.erasure.unpacking import pieces
from fedunlearn.federation.rows import Rows
from fedunlearn.results.runfolder import RunFolder
from tests.runs import TINY, run as run_tiny, without_scores
from tests.test_cli import call

pytestmark = pytest.mark.gate

STORING = (
    *(
        "federaser",
        "crab",
        "fedrecover",
        "sifu",
        "fedrecovery",
        "fast_fedul",
        "conda",
        "wu_distillation",
        "pga",
    ),
    *("rollback", "quickdrop", "sharded", "fats", "fedau"),
)
"""Strategies that use what the server stored, or train in a way of their own."""
LISTED = "".join(f"  - {{name: {name}}}\n" for name in STORING)
ALL = f"{TINY.partition('strategies:')[0]}strategies:\n{LISTED}"


def digests(path: Path) -> set[str]:
    """Of all larger arrays of floats in a file."""
    found = [piece.array for piece in pieces(path.read_bytes()) if piece.array is not None]
    return {
        hashlib.sha256(np.ascontiguousarray(one, np.float32).tobytes()).hexdigest()
        for one in found
        if one.dtype.kind == "f" and one.size >= residue.LEAST
    }


def updates(scratch: Path, site: str) -> set[str]:
    """The same of what a hospital sent in training."""
    found = set[str]()
    for path in scratch.rglob("*"):
        try:
            sent = Rows(path)[site] if path.is_file() else {}
        except (RunError, KeyError):
            continue
        for tensor in sent.values():
            if tensor.is_floating_point() and tensor.numel() >= residue.LEAST:
                found.add(hashlib.sha256(tensor.float().numpy().tobytes()).hexdigest())
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path]:
    """A run with all of them, and what it had in `work/` at its end."""
    folder = tmp_path_factory.mktemp("storing")
    clean = RunFolder.clean

    def kept(run: RunFolder) -> None:
        shutil.copytree(run.scratch, folder / "work", dirs_exist_ok=True)
        clean(run)

    with pytest.MonkeyPatch.context() as patch, without_scores():
        patch.setattr(RunFolder, "clean", kept)
        patch.setattr("fedunlearn.finished.pages.report", lambda run: "<!doctype html>")
        patch.setattr("fedunlearn.finished.present", lambda run: None)
        run = run_tiny(
            folder, "seeds=[1]", "sites.split={train: 0.5, val: 0.1, test: 0.2, proxy: 0.2}", text=ALL
        )
    return run, folder / "work"


def test_every_one_of_them_answered(made: tuple[RunFolder, Path]) -> None:
    scored = {label for entry in made[0].read_manifest()["scored"] for label in entry["strategies"]}
    assert scored == set(STORING)


def test_nothing_is_left_of_what_hospitals_sent(made: tuple[RunFolder, Path], tmp_path: Path) -> None:
    run, work = made
    sent = updates(work, "east")
    assert len(sent) > 10
    pair = keys.make(tmp_path / "keys")
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    before = sum(bool(digests(file) & sent) for file in path.rglob("*.safetensors"))
    lines = purge.purge(path, purge.Order(keys=pair.folder, data_root=tmp_path))
    assert lines[-1].endswith("nothing is left") and before == 0
    stones = [tombstones.read(file) for file in (pair.folder / tombstones.FOLDER).iterdir()]
    assert residue.scan(path, stones, RunFolder(path).read_manifest()["sha256"]) == []
    assert not [file for file in path.rglob("*") if file.is_file() and digests(file) & sent]
    assert call("verify", path).exit_code == 0


def test_an_update_that_was_stored_is_found(made: tuple[RunFolder, Path], tmp_path: Path) -> None:
    run, work = made
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    purge.purge(path, purge.Order(("leave",), data_root=tmp_path))
    own = tombstones.of_run(path)
    assert own is not None
    known = RunFolder(path).read_manifest()["sha256"]
    stored = [file for file in sorted(work.rglob("*")) if file.is_file() and "update" in file.name]
    assert stored
    for number, file in enumerate(stored):
        shutil.copyfile(file, path / f"copy-{number}")
    hits = {hit.file for hit in residue.scan(path, [own], known)}
    assert hits == {f"copy-{number}" for number in range(len(stored))}

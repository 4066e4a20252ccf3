"""Of a run with a calendar: what was accepted can be purged, and the record says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.core import InputError
from fedunlearn.erasure import purge, record, tombstones
from fedunlearn.erasure.keys import Keys
from fedunlearn.erasure.purge import Order
from fedunlearn.results.runfolder import RunFolder
from tests.runs import run as run_tiny
from tests.test_cli import call
from tests.test_simulate_year import YEAR

pytestmark = pytest.mark.gate


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> Path:
    return run_tiny(tmp_path_factory.mktemp("year"), "retention={models: true}", text=YEAR).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def read(run: RunFolder, request: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.path / "records" / f"{request}.json").read_text())
    return content


def test_models_of_the_way_go_too(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    assert (run.path / "weights" / "original@2-1.safetensors").is_file()
    lines = purge.purge(run.path, Order(keys=pair.folder, data_root=tmp_path))
    assert lines[-1].endswith("nothing is left") and "some, more, leave" in lines[0]
    left = {file.stem for file in (run.path / "weights").iterdir()}
    manifest = run.read_manifest()
    again = {
        manifest["sha256"][f"weights/{name}.safetensors"] for name in left if name.startswith("retrained")
    }
    assert "retrained-all-requests-1" in left
    assert {manifest["sha256"][f"weights/{name}.safetensors"] for name in left} == again
    stones = [file for file in sorted((pair.folder / tombstones.FOLDER).iterdir())]
    found = call("verify", run.path, *(word for file in stones for word in ("--tombstones", file)))
    assert found.exit_code == 0 and "nothing is left of some, more, leave" in found.output
    record.write(run.path, pair.folder)
    own = read(run, "some")
    assert own["request"]["patients"] == 2 and own["purged"][0]["kept"] == "retrained"
    assert not [one for one in own["where_the_data_was"] if one["action"] == "still there"]
    purged = own["clock"]["policies"][0]["states"][-2]
    assert (purged["state"], purged["date"]) == ("purged", own["purged"][0]["date"])


def test_where_nothing_is_to_be_forgotten_nothing_is_purged(run: RunFolder) -> None:
    with pytest.raises(InputError, match="'opt' is an opt-out, which bars later use"):
        purge.purge(run.path, Order(("opt",)))
    with pytest.raises(InputError, match="'gone' is refused"):
        purge.purge(run.path, Order(("gone",)))

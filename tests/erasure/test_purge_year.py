"""Of a run with a calendar: what was accepted can be purged, and the record says so."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedunlearn.core import InputError
from fedunlearn.erasure import purge, record, tombstones
from fedunlearn.erasure.keys import Keys
from fedunlearn.erasure.leftovers import Leftovers
from fedunlearn.erasure.purge import Order
from fedunlearn.results import audit
from fedunlearn.results.purged import RETRAINED, told
from fedunlearn.results.runfolder import RunFolder, parquet
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
    there = [one["where"] for one in own["where_the_data_was"] if one["action"] == "still there"]
    assert there == ["run folder, calendar.parquet"]  # which names nobody
    purged = own["clock"]["policies"][0]["states"][-2]
    assert (purged["state"], purged["real_date"]) == ("purged", own["purged"][0]["date"])
    assert "date" not in purged


def test_rows_about_a_purged_request_go_and_no_place_is_left_out_of_its_record(
    run: RunFolder, pair: Keys, tmp_path: Path
) -> None:
    """How much is left of a request is about a single patient where a single one asks."""
    record.write(run.path, pair.folder)
    before = {one["where"] for one in read(run, "more")["where_the_data_was"]}
    memory = run.read_table("memory.parquet")
    assert set(memory["request"]) == {"some", "more", "leave"}
    purge.purge(run.path, Order(("more",), keys=pair.folder, data_root=tmp_path))
    left = run.read_table("memory.parquet")
    assert left.equals(memory[memory["request"] != "more"].reset_index(drop=True))
    facts = tmp_path / "facts.yaml"
    facts.write_text("requests: {more: {retention: ten years}}\n")
    record.write(run.path, pair.folder, facts)
    own = read(run, "more")
    places = {one["where"]: one["action"] for one in own["where_the_data_was"]}
    assert before <= set(places)
    assert places["run folder, calendar.parquet"] == "still there; kept: ten years"
    day = f"{own['purged'][0]['date']} (not a simulated day)"
    assert places["run folder, memory.parquet"] == f"rows and ids removed, {day}"
    assert places["run folder, manifest.json"] == f"nothing of it is there, {day}"
    told = [one["of_this_request"]["words"] for one in own["remedies"] if "of_this_request" in one]
    assert told and all(
        words.startswith("What was measured of this request alone was purged") for words in told
    )
    assert read(run, "some")["remedies"][0]["of_this_request"]["at_the_end"]
    assert call("report", run.path).exit_code == 0


def test_who_goes_with_a_hospital_leaves_no_row_either(run: RunFolder, tmp_path: Path) -> None:
    """West asked first for a patient, whose images are those of a request of the whole hospital, too."""
    images = run.read_table("sites.parquet")
    both = [["more", "leave"] if "more" in names else list(names) for names in images["forgotten_by"]]
    left = Leftovers(
        run, run.read_manifest(), images.assign(forgotten_by=pd.Series(both)), ("leave",), RETRAINED, {}
    )
    after = pd.read_parquet(io.BytesIO(left.changed["memory.parquet"]))
    assert set(after["request"]) == {"some"}


def test_a_patient_whom_two_requests_name_is_counted_once(run: RunFolder, tmp_path: Path) -> None:
    images = run.read_table("sites.parquet")
    both = [["some", "more"] if "some" in names else list(names) for names in images["forgotten_by"]]
    run.renew({"sites.parquet": parquet(images.assign(forgotten_by=pd.Series(both)))})
    lines = purge.purge(run.path, Order(("some", "more"), data_root=tmp_path))
    assert "some, more: 3 patients, " in lines[0]
    purged = run.read_manifest()["purged"]
    assert purged[0]["patients"] == 3
    assert [about["patients"] for about in purged[0]["requests"].values()] == [2, 3]
    assert "for some, more (3 patients)" in told(run.read_manifest())[0]


def test_a_request_whose_images_went_with_anothers_is_purged_and_told_of_all_the_same(
    run: RunFolder, pair: Keys, tmp_path: Path
) -> None:
    """A hospital leaves with all its patients, one of whom had asked before."""
    images = run.read_table("sites.parquet")
    both = [["more", "leave"] if "more" in names else list(names) for names in images["forgotten_by"]]
    run.renew({"sites.parquet": parquet(images.assign(forgotten_by=pd.Series(both)))})
    (patient,) = set(images.loc[["more" in names for names in both], "patient"].astype(str))
    record.write(run.path, pair.folder)
    subjects = read(run, "more")["request"]["subjects"]
    assert len(subjects["references"]["west"]) == 1
    purge.purge(run.path, Order(("leave",), keys=pair.folder, data_root=tmp_path))

    record.write(run.path, pair.folder)
    own = read(run, "more")
    assert own["request"]["subjects"] == subjects and "purged" not in own
    there = [one["where"] for one in own["where_the_data_was"] if one["action"] == "still there"]
    assert there == ["run folder, calendar.parquet"]

    order = Order(("more",), keys=pair.folder, data_root=tmp_path)
    lines = purge.purge(run.path, order)
    assert "  more: its images had gone before" in lines and lines[-1].endswith("nothing is left")
    last = audit.lines(run.path / audit.FILE)[-1]
    assert (last["event"], last["request"], last["patients"], last["images"]) == ("purged", "more", 0, 0)
    assert told(run.read_manifest())[-1].endswith("for more: all of it had gone with what was purged before.")
    kept, stone = tombstones.of_run(run.path), next((pair.folder / tombstones.FOLDER).glob("*-more.json"))
    assert kept is not None and kept.requests == ("leave", "more")
    assert tombstones.read(stone).named(patient) in tombstones.read(stone).names
    found = call("verify", run.path, "--tombstones", stone)
    assert found.exit_code == 0 and "nothing is left of leave, more" in found.output
    record.write(run.path, pair.folder)
    own = read(run, "more")
    assert own["request"]["subjects"] == subjects and own["purged"][0]["models"] == 0
    states = [one["state"] for one in own["clock"]["policies"][0]["states"]]
    assert states[-2:] == ["purged", "recorded"]
    assert purge.purge(run.path, order) == [f"{run.path}: nothing is left of more that is to go"]


def test_where_nothing_is_to_be_forgotten_nothing_is_purged(run: RunFolder) -> None:
    with pytest.raises(InputError, match="'opt' is an opt-out, which bars later use"):
        purge.purge(run.path, Order(("opt",)))
    with pytest.raises(InputError, match="'gone' is refused"):
        purge.purge(run.path, Order(("gone",)))


def test_the_remedy_in_use_is_one_policys(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    """Of what the other policies and the way there came to, nothing is in use."""
    with pytest.raises(
        InputError, match=r"no models of 'fine_tune' to keep, expected one of retrained, .*at_once/fine_tune"
    ):
        purge.purge(run.path, Order(("some",), "fine_tune"))
    assert list((run.path / "weights").glob("at_once@*-fine_tune-1.safetensors"))
    order = Order(("some", "more", "leave", "some"), "at_once/fine_tune", pair.folder, tmp_path)
    assert "some, more, leave: " in purge.purge(run.path, order)[0]
    left = {file.stem for file in (run.path / "weights").iterdir()}
    assert {name for name in left if "retrain" not in name and "budget" not in name} == {
        "at_once-fine_tune-1"
    }
    facts = tmp_path / "facts.yaml"
    facts.write_text("requests: {some: {remedy: at_once/fine_tune, retention: one year}}\n")
    record.write(run.path, pair.folder, facts)
    own = read(run, "some")
    kept = own["where_the_data_was"][-1]
    assert "models of at_once/fine_tune, the remedy in use" in kept["what"]
    assert (kept["files"], kept["action"]) == (1, "kept: one year")

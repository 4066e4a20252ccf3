"""Purging a finished run: what goes, what stays, that the run stays whole, and that nothing forgotten comes back."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn import files, pages, scenario as scenarios
from fedunlearn.core import InputError
from fedunlearn.erasure import keys, purge, record, tombstones
from fedunlearn.erasure.keys import Keys
from fedunlearn.erasure.purge import Order
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from tests.erasure.test_record import FORBIDDEN
from tests.runs import TINY, contents, run as run_tiny, write
from tests.test_cli import call

pytestmark = pytest.mark.gate

CHAIN = """
timeline: sequential
evaluation: {pictures: true, shadows: 2, linear_probe: true, relearn: true}
"""
SEQUENTIAL = TINY.replace("  - {name: federaser, every: 1}\n", "") + CHAIN


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> Path:
    """A run of two requests, the second after the first, and beside it the cache of its shadow models."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return run_tiny(folder, text=SEQUENTIAL).path


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished.parent / "cache", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return RunFolder(tmp_path / "run")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def patients(run: RunFolder, request: str = "some") -> set[str]:
    table = run.read_table("sites.parquet")
    return set(table.loc[[request in names for names in table["forgotten_by"]], "patient"].astype(str))


def told(path: Path, root: Path, *requests: str, **more: Any) -> list[str]:
    return purge.purge(path, Order(requests, data_root=root, **more))


def verified(run: RunFolder, *more: object) -> str:
    found = call("verify", run.path, *more)
    assert found.exit_code == 0, found.output
    return found.output


# --------------------------------------------------------------------------------------------- what goes, and stays


def test_every_model_that_saw_the_data_goes_with_all_that_is_of_it(run: RunFolder, root: Path) -> None:
    names, before = patients(run), len(run.read_table("sites.parquet"))
    lines = told(run.path, root, "some")
    assert lines[0].endswith("some: 2 patients, 12 images") and lines[-1].endswith("nothing is left")
    left = {file.stem for file in (run.path / "weights").iterdir()}
    assert left == {f"retrained-{request}-{seed}" for request in ("some", "leave") for seed in (1, 2)}
    for folder in ("signals", "copies", "curves"):
        assert {file.stem for file in (run.path / folder).iterdir()} == left
    table = run.read_table("sites.parquet")
    assert len(table) == before - 12 and not names & set(table["patient"])
    assert all(len(run.read_table(f"signals/{name}.parquet")) == len(table) for name in left)
    assert (
        not (run.path / "pictures" / "some.png").exists() and (run.path / "pictures" / "leave.png").exists()
    )
    assert not list((run.path / "probes" / "relearn" / "some").iterdir())
    assert "nothing is left of some" in verified(run)


def test_aggregates_stay(run: RunFolder, root: Path) -> None:
    same = ("scores.parquet", "statistics.parquet", "requests.parquet", "bias.parquet", "roc.parquet")
    before = {name: (run.path / name).read_bytes() for name in same}
    told(run.path, root, "some")
    assert {name: (run.path / name).read_bytes() for name in same} == before


def test_the_log_counts_and_names_nobody(run: RunFolder, root: Path) -> None:
    names = patients(run)
    told(run.path, root, "some")
    text = (run.path / audit.FILE).read_text()
    line = json.loads(text.splitlines()[-1])
    assert (line["event"], line["request"], line["patients"], line["images"]) == ("purged", "some", 2, 12)
    assert (
        line["places"]["weights/*.safetensors"] == {"removed": 10, "changed": 0} and len(line["models"]) == 10
    )
    assert not [name for name in names if name in text]


def test_a_remedy_in_use_stays_and_the_record_says_so(run: RunFolder, root: Path, pair: Keys) -> None:
    told(run.path, root, "some", keep="fine_tune", keys=pair.folder)
    left = {file.stem for file in (run.path / "weights").iterdir()}
    assert {one for one in left if "retrained" not in one} == {
        f"{request}-fine_tune-{seed}" for request in ("some", "leave") for seed in (1, 2)
    }
    verified(run)
    facts = root / "facts.yaml"
    facts.write_text("requests: {some: {retention: until the next release}}\n")
    record.write(run.path, pair.folder, facts)
    own = json.loads((run.path / "records" / "some.json").read_text())
    kept = own["where_the_data_was"][-1]
    assert kept["action"] == "kept: until the next release" and "fine_tune, the remedy in use" in kept["what"]
    told(run.path, root, "some")  # now that one too
    assert all("retrained" in file.stem for file in (run.path / "weights").iterdir())
    verified(run)


def test_one_request_after_another(run: RunFolder, root: Path) -> None:
    told(run.path, root, "some")
    told(run.path, root, "leave")
    assert {file.stem for file in (run.path / "weights").iterdir()} == {
        "retrained-leave-1",
        "retrained-leave-2",
    }
    assert set(run.read_table("sites.parquet")["site"]) == {"north", "west"}
    assert "nothing is left of some, leave" in verified(run)
    assert "nothing is left of some, leave that is to go" in told(run.path, root)[0]


def test_a_dry_run_does_nothing(run: RunFolder, root: Path, pair: Keys) -> None:
    before = contents(run.path)
    lines = purge.purge(run.path, Order(("some",), keys=pair.folder, data_root=root), dry=True)
    assert "  weights/*.safetensors: 10 would be removed" in lines and lines[-1] == "nothing was done"
    assert contents(run.path) == before and not list((pair.folder / keys.SLIPS).iterdir())


def test_the_cache_of_shadow_models_is_purged_too(run: RunFolder, root: Path) -> None:
    cache = files.cache() / "shadows"
    before = set(cache.iterdir())
    members = run.read_table("shadows/members.parquet")
    gone = run.read_table("sites.parquet")["patient"].isin(patients(run)).to_numpy()
    saw = [name for name in members if members[name][gone].any()]
    lines = told(run.path, root, "some")
    removed = before - set(cache.iterdir())
    assert (
        saw and len(removed) == len(saw) and all(any(str(path) in line for line in lines) for path in removed)
    )
    assert [name for name in members if (run.path / "shadows" / f"{name}.parquet").exists()] == [
        name for name in members if name not in saw
    ]


# ------------------------------------------------------------------------------------------------ the run stays whole


def test_what_rests_on_evidence_is_refused(run: RunFolder, root: Path) -> None:
    told(run.path, root, "some")
    for command in (("score", run.path), ("verify", run.path, "--replay", "1")):
        found = call(*command)
        assert found.exit_code == 2 and "what it needs was removed for some" in found.output
    assert "scores cannot be computed again" in verified(run)


def test_the_report_says_what_was_purged(run: RunFolder, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "report", pages.report.__wrapped__)  # type: ignore[attr-defined]
    names = patients(run)
    told(run.path, root, "some")
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "for some (2 patients): 10 models" in page and not [name for name in names if name in page]
    shown = call("report", run.path)
    assert shown.exit_code == 0 and "Purged on" in shown.output
    assert "for some (2 patients): 10 models" in call("report", run.path, "--markdown").output


def test_requests_that_are_not_there_are_refused(run: RunFolder, root: Path) -> None:
    before = contents(run.path)
    with pytest.raises(InputError, match="has no request 'other', expected one of some, leave"):
        told(run.path, root, "other")
    with pytest.raises(InputError, match="no models of 'puf' to keep, expected one of retrained, fine_tune"):
        told(run.path, root, "some", keep="puf")
    with pytest.raises(InputError, match="nothing secret belongs there"):
        told(run.path, root, "some", keys=run.path / "keys")
    assert contents(run.path) == before


def test_data_that_is_not_the_runs_is_refused(run: RunFolder, root: Path) -> None:
    other = run.read_text("scenario.yaml").replace("jitter: 0.4", "jitter: 0.5")
    run.renew({"scenario.yaml": other.encode()})
    with pytest.raises(InputError, match=r"is not what .* was run on.*--without-images"):
        told(run.path, root, "some")
    purge.purge(run.path, Order(("some",)))
    verified(run)


STOPS = (1, 3, 9, 20, 40, 100, 180)


def test_whatever_stops_it_the_next_try_comes_to_the_same(
    finished: Path, tmp_path: Path, pair: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at the n-th file that is put into its place or removed."""

    def kept(path: Path) -> dict[str, str]:
        changing = (audit.FILE, "manifest.json", ".lock")
        return {name: sha for name, sha in contents(path).items() if name not in changing}

    def tried(name: str) -> Path:
        shutil.copytree(finished, tmp_path / name)
        return tmp_path / name

    order = Order(("some",), keys=pair.folder, data_root=tmp_path)
    whole = tried("whole")
    purge.purge(whole, order)
    stopped = 0
    for number in STOPS:
        path = tried(f"stopped-{number}")
        with monkeypatch.context() as patch:
            _stop(patch, number)
            try:
                purge.purge(path, order)
            except KeyboardInterrupt:
                stopped += 1
        assert call("verify", path).exit_code in (0, 1)  # whole, or what was stopped is told
        purge.purge(path, order)
        assert kept(path) == kept(whole), number
        verified(RunFolder(path))
        shutil.rmtree(path)
    assert stopped >= 5


def _stop(patch: pytest.MonkeyPatch, number: int) -> None:
    steps = iter(range(1, 100_000))

    def counting(does: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(steps) == number:
                raise KeyboardInterrupt
            return does(*arguments, **options)

        return step

    patch.setattr(os, "replace", counting(os.replace))
    patch.setattr(Path, "unlink", counting(Path.unlink))


# ---------------------------------------------------------------------------------------------------- who it was about


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> Path:
    """A run of two requests apart, the first of which names its patients."""
    folder = tmp_path_factory.mktemp("named")
    text = TINY.replace("count: 2", "count: 1")
    ids = sorted(patients(run_tiny(folder, text=text, name="first")))
    text = TINY.replace(
        "patients: {count: 2, pick: random}", f"patients: [{', '.join(map(json.dumps, ids))}]"
    )
    return run_tiny(folder, text=text, name="run").path


def test_patients_are_named_no_more(named: Path, tmp_path: Path, pair: Keys) -> None:
    for name, folder in (("with-keys", pair.folder), ("without", None)):
        path = tmp_path / name
        shutil.copytree(named, path)
        ids = patients(RunFolder(path))
        told(path, tmp_path, "some", keys=folder)
        text = (path / "scenario.yaml").read_text()
        assert not [one for one in ids if one in text]
        label = scenarios.read(path / "scenario.yaml").requests[0].patients
        assert isinstance(label, tuple)
        if folder is None:
            assert label == ("purged-1",)
        else:
            slip = json.loads(next((folder / keys.SLIPS).iterdir()).read_text())
            assert {reference[:16] for reference in slip["patients"]} == set(label)
        told(path, tmp_path, "leave")
        verified(RunFolder(path))


def test_labels_of_several_purges_are_never_the_same(named: Path, tmp_path: Path, pair: Keys) -> None:
    """Of patients and of images, whether or not some went with another request's; and none is labelled twice."""
    path = tmp_path / "run"
    shutil.copytree(named, path)
    labels, honest = list[dict[str, str]](), purge._labels

    def noted(*arguments: Any) -> dict[str, str]:
        labels.append(honest(*arguments))
        return labels[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(purge, "_labels", noted)
        told(path, tmp_path, "leave")
        told(path, tmp_path, "some")
    first, second = (set(one.values()) for one in labels)
    assert len(first) == len(labels[0]) and len(second) == len(labels[1]) and not first & second
    before = (path / "scenario.yaml").read_bytes()
    RunFolder(path).renew({}, {"purged": []})  # as if its images had gone with another request's
    told(path, tmp_path, "some", keys=pair.folder)
    assert (path / "scenario.yaml").read_bytes() == before


def test_the_tombstone_that_stays_knows_no_id(named: Path, tmp_path: Path, pair: Keys) -> None:
    path = tmp_path / "run"
    shutil.copytree(named, path)
    told(path, tmp_path, "some", keys=pair.folder)
    own = tombstones.of_run(path)
    assert own is not None and own.images and not (own.secret or own.names or own.subjects or own.weak)
    file = next((pair.folder / tombstones.FOLDER).iterdir())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(tombstones.read(file).names) == 7  # a patient and six images


def test_what_was_forgotten_is_not_read_again(named: Path, tmp_path: Path, pair: Keys) -> None:
    path = tmp_path / "run"
    shutil.copytree(named, path)
    told(path, tmp_path, "some", keys=pair.folder)
    file = next((pair.folder / tombstones.FOLDER).iterdir())
    text = write(tmp_path)
    for stone, what in (
        (file, "1 patient by id, 6 images by id, 6 images by their pixels"),
        (path / tombstones.FILE, "6 images"),
    ):
        for command in ("check", "simulate"):
            more = ("--out", tmp_path / "new") if command == "simulate" else ()
            found = call(command, text, "--tombstones", stone, *more)
            assert (
                found.exit_code == 2 and what in found.output and "take them out of the data" in found.output
            )
    assert not (tmp_path / "new").exists()
    several = write(tmp_path, f"{TINY}sweep: {{training.lr: [0.001, 0.002]}}\n")
    found = call("simulate", several, "--out", tmp_path / "sweep", "--tombstones", file)
    assert found.exit_code == 2 and "6 images by their pixels" in found.output
    other = write(tmp_path, TINY.replace("images: 240", "images: 240, seed: 5"))
    found = call("check", other, "--tombstones", path / tombstones.FILE)
    assert found.exit_code == 0


def test_a_run_from_which_nothing_was_purged_is_looked_through_too(
    named: Path, tmp_path: Path, pair: Keys
) -> None:
    path = tmp_path / "run"
    shutil.copytree(named, path)
    told(path, tmp_path, "some", keys=pair.folder)
    own, hospital = path / tombstones.FILE, next((pair.folder / tombstones.FOLDER).iterdir())
    for stone, file, what in (
        (hospital, "sites.parquet", "the id of a patient or an image"),
        (own, "weights/original-1.safetensors", "a file that was removed or changed for some"),
    ):
        found = call("verify", named, "--tombstones", stone)
        assert found.exit_code == 1 and f"{named / file}: left of what was purged: {what}" in found.output
    other = tmp_path / "other.json"
    foreign = tombstones.with_names(tombstones.salted(["another"]), {"patient": {("north", "somebody-else")}})
    other.write_bytes(tombstones.content(foreign))
    output = verified(RunFolder(named), "--tombstones", other)
    assert "nothing is left of another, which was purged: looked for ids in every file" in output
    assert "come out the same when scored again" in output
    assert "nothing is left" not in verified(RunFolder(named))


def test_tombstones_that_cannot_be_read_are_told(named: Path, tmp_path: Path) -> None:
    found = call("verify", named, "--tombstones", tmp_path / "nowhere.json")
    assert found.exit_code == 2 and "nowhere.json" in found.output and "expected a tombstone" in found.output


def test_models_that_saw_what_was_forgotten_are_not_reused(named: Path, tmp_path: Path, pair: Keys) -> None:
    path = tmp_path / "run"
    shutil.copytree(named, path)
    told(path, tmp_path, "some", keys=pair.folder)
    file = next((pair.folder / tombstones.FOLDER).iterdir())
    text = write(tmp_path, TINY.replace("images: 240", "images: 240, seed: 5"))
    for stone in (file, path / tombstones.FILE):
        found = call("simulate", text, "--out", tmp_path / "new", "--reuse", named, "--tombstones", stone)
        assert (
            found.exit_code == 2 and "cannot reuse" in found.output and "purge that one too" in found.output
        )


def test_of_a_purged_run_what_is_there_is_reused(named: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(named, path)
    told(path, tmp_path, "leave")
    scenario = scenarios.read(write(tmp_path), ("strategies=[]",))
    from rich.console import Console

    from fedunlearn.story import simulate

    again = simulate(scenario, tmp_path / "again", tmp_path, Console(), quiet=True, reuse=(path,))
    taken = [name for name in again.read_manifest()["reused"] if name.startswith("weights/")]
    assert taken == [f"weights/retrained-leave-{seed}.safetensors" for seed in (1, 2)]


# -------------------------------------------------------------------------------------------------------- the record


def test_a_record_tells_what_was_removed(run: RunFolder, root: Path, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    before = json.loads((run.path / "records" / "some.json").read_text())
    told(run.path, root, "some", keys=pair.folder)
    assert "the run was purged since its records were written" in verified(run)
    record.write(run.path, pair.folder)
    assert record.check(run, pair.public)[1:] == []
    own = json.loads((run.path / "records" / "some.json").read_text())
    assert own["request"] == before["request"]
    date = own["purged"][0]["date"]
    places = {(one["where"], one["action"]): one.get("files") for one in own["where_the_data_was"]}
    assert not [one for one in places if one[1] == "still there"]
    assert {where for where, _ in places} >= {one["where"] for one in before["where_the_data_was"]}
    assert places["run folder, weights/*.safetensors", f"removed, {date}"] == 10
    assert places["run folder, sites.parquet", f"rows and ids removed, {date}"] == 1
    models = {one["file"]: one for one in own["models"]}
    assert {one["sha256"] for one in own["models"]} == {one["sha256"] for one in before["models"]}
    assert [one["file"] for one in own["models"] if "removed" in one] == [
        name for name, one in models.items() if one["saw_the_data"]
    ]
    assert own["tombstones"]["sha256"] == files.sha256(run.path / tombstones.FILE)


def test_no_record_says_more_than_was_seen(run: RunFolder, root: Path, pair: Keys) -> None:
    told(run.path, root, keep="negation", keys=pair.folder)
    record.write(run.path, pair.folder)
    for file in (run.path / "records").iterdir():
        text = file.read_text(encoding="utf-8")
        text = text[text.find("<body") :] if file.suffix == ".html" else text
        assert not [word for word in FORBIDDEN if word in text.lower()]

"""What is said of twins: how many images to forget have one, whose it is, what that means; in check, run and report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign import twins as module
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.twins import found, general, told
from fedunlearn.results import report
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.story import simulate
from fedunlearn.sweep import cells, checking
from sites.collection import Collection
from sites.twins import Twins, twins
from sites.watching import Watch
from tests.sites.test_twins import photographs, rounded

OWNERS = ("ann", "ann", "bob", "cid", "dan", "eva", "fay")
PLACES = ("north", "north", "north", "east", "east", "west", "west")
SPLITS = ("train", "train", "train", "train", "train", "val", "test")


def table(splits: Sequence[str] = SPLITS) -> pd.DataFrame:
    names = [f"i{n}" for n in range(len(OWNERS))]
    return pd.DataFrame({"image": names, "patient": OWNERS, "site": PLACES, "split": splits})


def of(*patients: str) -> np.ndarray:
    """(7,) whether an image is one of theirs."""
    return np.isin(OWNERS, patients)


def exact(*rows: int) -> Twins:
    return Twins("exact", rows)


def near(*rows: int) -> Twins:
    return Twins("near", rows)


def said(groups: Sequence[Twins], *patients: str, gone: Sequence[str] = ()) -> list[str]:
    return told(groups, table(), of(*patients), of(*patients, *gone))


# ------------------------------------------------------------------------------------------------ sentences


def test_a_retained_twin_is_counted_with_its_owner_and_with_what_it_means() -> None:
    assert said([exact(0, 3)], "ann") == [
        "1 of 2 training images to forget has an exact twin that is retained, of cid at east.",
        "No method can forget what the retained data still shows, so answers about ann say nothing: ask for both to be "
        "forgotten, or leave one out.",
    ]


def test_a_twin_that_is_held_out_is_another_matter() -> None:
    assert said([near(1, 6)], "ann") == [
        "1 of 2 training images to forget has a near twin (the same picture re-encoded, resized or the like) that is "
        "held out, of fay at west.",
        "What was trained on is not unseen: compared with such held-out images, the memory of ann looks smaller than "
        "it is.",
    ]


@pytest.mark.parametrize(
    ("groups", "patients", "gone"),
    [
        ([], ["ann"], []),
        ([exact(0, 3)], ["ann", "cid"], []),  # both are asked for
        ([exact(0, 3)], ["ann"], ["cid"]),  # an earlier request has named the other
        ([exact(3, 4)], ["ann"], []),  # somebody else's
        ([exact(5, 6)], ["eva"], []),  # never trained on
    ],
)
def test_nothing_is_said_where_nothing_stays(
    groups: list[Twins], patients: list[str], gone: list[str]
) -> None:
    assert said(groups, *patients, gone=gone) == []


def test_whoever_is_only_nearly_alike_must_be_looked_at() -> None:
    count, meaning = said([near(0, 3)], "ann")
    assert count.startswith("1 of 2") and meaning == (
        "Look at them: if they are one picture, no method can forget what the retained data still shows, so answers "
        "about ann say nothing: ask for both to be forgotten, or leave one out."
    )


def test_an_image_with_both_kinds_of_twins_counts_once_as_exact() -> None:
    first, second, meaning = said([exact(0, 3), near(0, 3, 4), near(1, 4)], "ann")
    assert first.startswith(
        "1 of 2 training images to forget has an exact twin that is retained, of cid at east"
    )
    assert second.startswith("1 of 2") and second.endswith("that is retained, of dan at east.")
    assert meaning.startswith("No method")


def test_many_owners_are_counted() -> None:
    groups = [exact(0, 2, 3, 4)]
    (first, *_) = told(groups, table(["train"] * 7), of("ann"), of("ann"))
    assert first.endswith("of bob at north, cid at east and dan at east.")
    (first, *_) = told([exact(0, *range(2, 7))], table(["train"] * 7), of("ann"), of("ann"))
    assert first.endswith("of bob at north, cid at east, dan at east and 2 more at west.")


def test_images_for_the_server_are_retained_too() -> None:
    splits = ["train"] * 3 + ["proxy"] + ["train"] * 3
    assert "retained, of cid at east" in told([exact(0, 3)], table(splits), of("ann"), of("ann"))[0]


def test_of_the_data_it_is_said_how_many_twins_there_are_and_what_that_does_to_scores() -> None:
    assert general([], table()) == []
    assert general([exact(0, 1, 3), near(2, 6), near(4, 6)], table()) == [
        "3 images have an exact twin of another patient, such as i0 of ann and i3 of cid.",
        "3 images have a near twin (the same picture re-encoded, resized or the like) of another patient, such as i2 "
        "of bob and i6 of fay.",
        "1 of 2 held-out images has a twin in training: scores on unseen images are better than they should be.",
    ]


# --------------------------------------------------------------------------------------------------- cache


def test_twins_of_many_images_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photographs(8, (16, 16))
    names = [f"i{n}" for n in range(9)]
    frame = pd.DataFrame({"image": names, "patient": names})
    every = np.concatenate([pixels, pixels[:1]])
    collection = Collection(every, np.zeros(9, np.int64), frame, 1, synthetic_patients=True)
    monkeypatch.setattr(module, "MANY", 9)
    calls = list[int]()

    def counted(given: Collection, watch: Watch) -> tuple[Twins, ...]:
        calls.append(1)
        return twins(given, watch)

    monkeypatch.setattr(module, "twins", counted)
    assert found(collection, "one") == found(collection, "one") == (exact(0, 8),)
    assert len(calls) == 1
    assert found(collection, "another") == (exact(0, 8),)
    assert len(calls) == 2
    none = replace(collection, pixels=photographs(9, (16, 16)))
    assert found(none, "none") == found(none, "none") == ()
    assert len(calls) == 3


def test_where_nothing_can_be_kept_they_are_found_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(module, "MANY", 1)
    pixels = photographs(1, (16, 16))
    frame = pd.DataFrame({"image": ["i", "j"], "patient": ["a", "b"]})
    both = Collection(
        np.concatenate([pixels, pixels]), np.zeros(2, np.int64), frame, 1, synthetic_patients=True
    )
    assert found(both, "one") == (exact(0, 1),)


# ------------------------------------------------------------------------------------------------- a run

SCENARIO = """\
name: planted
seeds: [7]
engine: {name: inline}
data: {name: folder, manifest: m.csv}
sites: {names: [a, b], partition: {name: by_column}, split: {train: 0.6, val: 0.2, test: 0.2}}
model: {name: small_cnn}
training: {rounds: 1, local_epochs: 1, batch_size: 8, optimizer: adam, lr: 0.002}
requests:
  - {id: r, site: a, patients: {count: 2, pick: random}}
strategies:
  - {name: fine_tune, rounds: 1}
"""


def planted(folder: Path, whose: str = "") -> Path:
    """Twenty patients at two hospitals; with ``whose``, all others have that one's first picture, brightened, too."""
    pixels = photographs(40, (32, 32))[:, 0]
    rows = ["file,label,patient,site"]
    for number in range(40):
        site, person = "ab"[number // 20], number // 2
        if whose and f"p{person}" != whose and number % 2:
            pixels[number] = rounded(pixels[2 * int(whose[1:])] * 1.04)
        Image.fromarray(pixels[number]).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},p{person},{site}")
    (folder / "m.csv").write_text("\n".join(rows), encoding="utf-8")
    scenario = folder / "s.yaml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    return scenario


def cohort(folder: Path, whose: str = "") -> Cohort:
    return gather(scenarios.read(planted(folder, whose), ()), folder)


@pytest.mark.gate
def test_a_run_says_it_wherever_somebody_looks(tmp_path: Path) -> None:
    plain = cohort(tmp_path)
    assert plain.twins == () and plain.notes == () and plain.warnings("r") == []
    asked = str(plain.table.loc[plain.forgotten["r"], "patient"].iloc[0])
    scenario = scenarios.read(planted(tmp_path, asked), ())
    known = gather(scenario, tmp_path)
    warnings = known.warnings("r")
    assert known.twins and len(warnings) >= 2 and any("near twin" in note for note in known.notes)
    checked = checking.check(cells.read(tmp_path / "s.yaml", ()), tmp_path).lines
    assert {f"r: {warning}" for warning in warnings} <= set(checked)

    run = simulate(scenario, tmp_path / "run", tmp_path, Console(file=io.StringIO()), quiet=True)
    manifest = run.read_manifest()
    assert manifest["moments"][0]["warnings"] == warnings
    exact_ones = [group["images"] for group in manifest["data"]["twins"] if group["kind"] == "exact"]
    assert manifest["data"]["duplicates"] == exact_ones
    for details in (False, True):
        shown = console_of(run, details)
        assert " ".join(warnings[0].split()) in shown
    assert warnings[0] in report.markdown(run)


@pytest.mark.gate
def test_a_folder_of_a_version_that_knew_no_twins_is_still_read(tmp_path: Path) -> None:
    run = simulate(
        scenarios.read(planted(tmp_path), ()),
        tmp_path / "run",
        tmp_path,
        Console(file=io.StringIO()),
        quiet=True,
    )
    manifest = run.read_manifest()
    before = {key: value for key, value in manifest.items() if key not in ("sha256", "audit", "seal")}
    before["moments"] = [{k: v for k, v in one.items() if k != "warnings"} for one in before["moments"]]
    before["data"] = {k: v for k, v in before["data"].items() if k != "twins"}
    run.write_manifest(before)
    assert "planted" in console_of(run, False) and "fine_tune" in console_of(run, True)
    assert "fine_tune" in report.markdown(run)


def console_of(run: RunFolder, details: bool) -> str:
    """What `report` prints, in one line."""
    text = io.StringIO()
    report.show(run, Console(file=text, width=100), details)
    return " ".join(text.getvalue().split())


def test_canaries_have_no_twins_of_their_own(tmp_path: Path) -> None:
    """They are images with a wrong label, no copies."""
    scenario = scenarios.read(
        planted(tmp_path), ("requests=[{id: r, site: a, whole_site: true}]", "evaluation.canary=0.5")
    )
    assert gather(scenario, tmp_path).twins == ()


def test_a_cohorts_warnings_are_about_what_earlier_requests_left(tmp_path: Path) -> None:
    one = cohort(tmp_path)
    mine = one.forgotten["r"] & (one.split == "train")
    other = ~one.forgotten["r"] & (one.split == "train")
    pair = tuple(sorted((int(np.flatnonzero(mine)[0]), int(np.flatnonzero(other)[0]))))
    twinned = replace(one, twins=(Twins("exact", pair),), forgotten={**one.forgotten, "before": other})
    assert len(twinned.warnings("r")) == 2
    assert twinned.warnings("r", ("before",)) == []

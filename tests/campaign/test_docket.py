"""What comes in a calendar, when the data is there: who is drawn, what becomes of it, and what `check` says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.docket import Counts, Docket, docket, told
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError
from fedunlearn.intake.arrivals import Kind
from fedunlearn.intake.desk import ALL
from fedunlearn.scenario import Scenario
from fedunlearn.sweep import checking
from tests.runs import run, write

YEAR = """\
name: year
seeds: [1]
engine: {name: inline}
data: {name: phantom_cells, images: 600}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 52}
calendar: {start: 2026-01-01, round: 7d}
arrivals: {per_year: 30, kinds: {patient: 6, image: 2, opt_out: 2, whole_site: 0}, seed: 1}
policies: [{name: at_once}, {name: batch, every: 200d}]
strategies: [{name: fine_tune}]
"""


def read(folder: Path, *overrides: str) -> Scenario:
    return scenarios.read(write(folder, YEAR), overrides)


def kept(folder: Path, *overrides: str) -> tuple[Cohort, Docket]:
    cohort = gather(read(folder, *overrides), folder)
    assert cohort.docket is not None
    return cohort, cohort.docket


def test_nobody_who_comes_by_himself_is_drawn_twice(tmp_path: Path) -> None:
    cohort, docket = kept(tmp_path)
    people = [
        cohort.table["patient"].iloc[entry.rows[0]]
        for entry in docket.entries
        if entry.petition.kind != "whole_site"
    ]
    assert len(people) == len(set(people)) > 20
    for entry in docket.entries:
        assert entry.state == "accepted" and entry.images > 0
        assert entry.petition.site in set(cohort.site[list(entry.rows)])
        if entry.petition.kind == "images":
            assert len(entry.rows) == entry.images == 1


@pytest.mark.gate
def test_who_is_drawn_follows_from_the_data_and_the_stream_alone(tmp_path: Path) -> None:
    _, one = kept(tmp_path)
    _, same = kept(tmp_path, "seeds=[5]", "strategies=[{name: salun}]", "policies=[{name: at_once}]")
    assert one.entries == same.entries
    _, other = kept(tmp_path, "arrivals.seed=2")
    _, dealt = kept(tmp_path, "seed=2")
    assert {e.petition.patients for e in one.entries} != {e.petition.patients for e in other.entries}
    assert [e.petition.received for e in one.entries] == [e.petition.received for e in dealt.entries]
    assert [e.petition.patients for e in one.entries] != [e.petition.patients for e in dealt.entries]


def test_a_mask_for_every_accepted_request_and_one_for_all_erasures(tmp_path: Path) -> None:
    cohort, docket = kept(tmp_path)
    accepted = {entry.petition.id: entry for entry in docket.accepted}
    assert set(cohort.forgotten) == {*accepted, ALL}
    for name, entry in accepted.items():
        assert np.flatnonzero(cohort.forgotten[name]).tolist() == list(entry.rows)
    erasures = [cohort.forgotten[name] for name, entry in accepted.items() if entry.erases]
    opt_outs = [cohort.forgotten[name] for name, e in accepted.items() if e.petition.kind == "opt_out"]
    assert len(opt_outs) > 1
    assert (cohort.forgotten[ALL] == np.logical_or.reduce(erasures)).all()
    assert not (cohort.forgotten[ALL] & np.logical_or.reduce(opt_outs)).any()
    asked = cohort.table["forgotten_by"]
    assert asked[cohort.forgotten[ALL]].map(lambda names: ALL in names).all()


def written(cohort: Cohort, site: str, number: int = 0, split: str = "train") -> str:
    """A patient of that part of a hospital."""
    own = cohort.table[(cohort.site == site) & (cohort.split == split)]
    return sorted(set(own["patient"]))[number]


def test_what_is_wrong_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    plain, _ = kept(tmp_path)
    mine, other, test = (written(plain, *where) for where in (("north",), ("east",), ("north", 0, "test")))
    rows = [
        f"{{id: right, site: north, patients: [{mine}], received: 2026-01-05}}",
        f"{{id: again, site: north, patients: [{mine}], received: 2026-02-05}}",
        f"{{id: not-mine, site: north, patients: [{other}], received: 2026-02-05}}",
        "{id: nobody, site: north, patients: [p-nobody], received: 2026-02-05}",
        f"{{id: tested, site: north, patients: [{test}], received: 2026-02-05}}",
    ]
    cohort, docket = kept(tmp_path, f"requests=[{', '.join(rows)}]", "arrivals.kinds={patient: 1}")
    found = {entry.petition.id: entry for entry in docket.entries}
    assert [(found[name].state, found[name].reason) for name in ("right", "again", "not-mine", "nobody")] == [
        ("accepted", ""),
        ("refused", "duplicate"),
        ("refused", "elsewhere"),
        ("refused", "unknown_patient"),
    ]
    assert found["again"].of == "right" and "again" not in cohort.forgotten
    assert found["tested"].state == "accepted" and not found["tested"].erases
    drawn = {entry.petition.patients for entry in docket.entries if entry.petition.id.startswith("r0")}
    assert (mine,) not in drawn, "who was named in writing is not drawn"


def test_a_written_request_for_patients_who_cannot_be_picked_is_a_mistake_at_its_place(
    tmp_path: Path,
) -> None:
    """Not one of the desk's reasons: nobody came with it, and others do not name its patients."""
    rows = (
        "  - {id: right, site: north, patients: {count: 1}, received: 2026-01-05}\n"
        "  - {id: many, site: east, patients: {count: 999}, received: 2026-02-05}\n"
        "  - {id: none, site: north, patients: {by: {colour: red}}, received: 2026-02-05}\n"
        "  - {id: out, site: west, kind: opt_out, patients: {count: 999}, received: 2026-02-05}\n"
    )
    file = write(tmp_path, YEAR.replace("arrivals:", f"requests:\n{rows}arrivals:"))
    with pytest.raises(InputError) as error:
        gather(scenarios.read(file), tmp_path)
    first = YEAR[: YEAR.index("arrivals:")].count("\n") + 2
    asked = rows.splitlines()
    told = [(one.line, one.column, one.message) for one in error.value.problems]
    assert [line for line, _, _ in told] == [first + 1, first + 2, first + 3]
    assert [column for _, column, _ in told] == [asked[n].index("patients: ") + 11 for n in (1, 2, 3)]
    assert "found count 999, expected 1 to" in told[0][2] and "'east' trains on" in told[0][2]
    assert "colour" in told[1][2] and "'west' trains on" in told[2][2]


def test_when_all_are_named_nobody_is_left(tmp_path: Path) -> None:
    _, docket = kept(tmp_path, "arrivals.per_year=200", "arrivals.from={west: 1}", "limits.hospitals=1")
    reasons = {entry.reason for entry in docket.entries}
    assert "nobody_left" in reasons and reasons <= {"", "nobody_left", "few_hospitals", "few_of_a_class"}
    assert all(entry.sentence for entry in docket.entries if entry.state == "refused")


def test_a_calendar_in_which_nothing_is_accepted_is_a_mistake(tmp_path: Path) -> None:
    alone = "requests=[{id: a, site: north, patients: [p-nobody], received: 2026-02-01}]"
    without = "\n".join(line for line in YEAR.splitlines() if not line.startswith("arrivals"))
    scenario = scenarios.read(write(tmp_path, without), [alone])
    with pytest.raises(InputError, match=r"no erasure is accepted .*a: found no patient 'p-nobody'.*add one"):
        gather(scenario, tmp_path)


def test_check_counts_what_comes_in(tmp_path: Path) -> None:
    """They come on days 30, 91, 152, 213, 274 and 334."""
    two = "requests=[{id: a, site: north, patients: [p-nobody], received: 2026-02-01},"
    two += " {id: b, site: north, patients: {count: 1}, kind: opt_out, received: 2026-12-30}]"
    scenario = read(
        tmp_path, two, "arrivals.per_year=6", "arrivals.process=regular", "arrivals.kinds={patient: 1}"
    )
    cohort = gather(scenario, tmp_path)
    assert cohort.docket is not None
    span = "2026-01-01 to 2026-12-31"
    assert [*told(cohort.docket, scenario)] == [
        f"requests: 8 come in, {span}: 7 accepted (6 for patients, 1 to opt out), 1 refused (1 unknown_patient)",
        "at_once: unlearns on 6 days",
        "batch-200d: unlearns on 1 day, 3 still wait at the end",
    ]
    kinds: dict[Kind, int] = {"patients": 6, "images": 0, "whole_site": 0, "opt_out": 1}
    assert cohort.docket.counts == Counts(8, kinds, {"unknown_patient": 1}, held=0, open=0)


def test_a_hospital_may_ask_for_those_first_of_whose_class_others_have_fewest(tmp_path: Path) -> None:
    """Patients have one class each; no request names a scarcer one than a request before it."""
    data = "data={name: phantom_cells, images: 600, images_per_patient: 3, predominance: 1, mislabelled: 0}"
    skewed = (data, "sites.partition={name: label_skew, alpha: 0.5}", "arrivals.from={north: 1}")
    cohort, kept_ = kept(tmp_path, *skewed, "arrivals.kinds={patient: 1}", "arrivals.pick=scarce_elsewhere")
    train = cohort.table[cohort.table["split"] == "train"]
    elsewhere = train.loc[train["site"] != "north", "label"].value_counts()
    scarce = [elsewhere.get(train.loc[one.rows[0], "label"], np.inf) for one in kept_.accepted]
    assert len(scarce) > 20 and scarce == sorted(scarce) and scarce[0] < scarce[-1]
    _, honest = kept(tmp_path, *skewed, "arrivals.kinds={patient: 1}")
    assert [one.petition.received for one in honest.entries] == [
        one.petition.received for one in kept_.entries
    ]


def test_what_others_depend_on_needs_classes(tmp_path: Path) -> None:
    cohort, _ = kept(tmp_path)
    scenario = read(tmp_path, "arrivals.pick=scarce_elsewhere")
    with pytest.raises(InputError, match="scarce_elsewhere needs one class per image"):
        docket(scenario, cohort.table.drop(columns="label"))


def test_check_tells_it_of_a_scenario(tmp_path: Path) -> None:
    few = (
        "arrivals.per_year=4",
        "arrivals.process=regular",
        "training.rounds=30",
        "policies=[{name: at_once}]",
    )
    checked = checking.check(read(tmp_path, *few, "arrivals.kinds={patient: 1}"), tmp_path)
    lines = checked.lines
    assert "requests: 2 come in, 2026-01-01 to 2026-07-30: 2 accepted (2 for patients)" in lines
    assert "at_once: unlearns on 2 days" in lines
    assert checked.requests[""].arriving == 2
    assert any(line.startswith("all requests: 2 patients to forget: of so few") for line in lines)


@pytest.mark.gate
def test_single_images_are_forgotten_without_a_calendar_too(tmp_path: Path) -> None:
    plain = gather(scenarios.read(write(tmp_path)), tmp_path)
    own = plain.table[(plain.site == "north") & (plain.split == "train")]
    images = list(own["image"].iloc[:2])
    asked = f"requests=[{{id: two, site: north, images: [{', '.join(images)}]}}]"
    done = run(tmp_path, asked, "strategies=[{name: fine_tune, rounds: 1}]", "seeds=[1]")
    table = done.read_table("sites.parquet")
    assert set(table.loc[table["forgotten_by"].map(len) > 0, "image"]) == set(images)
    assert not done.read_table("scores.parquet").empty
    assert '"scope":"images"' in (done.path / "audit.jsonl").read_text(encoding="utf-8").replace(" ", "")

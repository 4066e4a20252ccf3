"""A year of requests, small: who is trained on when, what exact policies come to, and what stays of the way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.timeline import Chain, chains
from fedunlearn.core import Select
from fedunlearn.exports.kept import kept
from fedunlearn.federation.jobs import Round
from fedunlearn.federation.ledger import Ledger
from fedunlearn.intake.desk import ALL
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.story import simulate
from tests import runs

YEAR = """\
name: year
seeds: [1]
engine: {name: inline, workers: 2, timeout: 60}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 6, local_epochs: 1, batch_size: 32, optimizer: adam, lr: 0.002}
calendar: {start: 2026-01-01, round: 7d, looks: 14d}
requests:
  - {id: opt, site: west, patients: {count: 1}, received: 2026-01-10, kind: opt_out}
  - {id: some, site: north, patients: {count: 2}, received: 2026-01-13}
  - {id: gone, site: north, patients: ["nobody"], received: 2026-01-14}
  - {id: more, site: west, patients: {count: 1}, received: 2026-01-20}
  - {id: leave, site: east, whole_site: true, received: 2026-01-27}
policies: [{name: at_once}, {name: batch, every: 21d}, {name: budget, drift: 0.0001}]
strategies:
  - {name: retrain}
  - {name: fine_tune, rounds: 1}
  - {name: neggrad_plus, epochs: 1}
"""


class Seen:
    """Which training images each round of a run read at the hospitals, by its label."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.rows: list[tuple[Any, set[int]]] = []

    def round(self, round: Round) -> None:
        rows = set[int]()
        for site, task in round.asks.items():
            for select in selects(task):
                rows |= set(self.cohort.picked(site, select).tolist())
        self.rows.append((round.label, rows & set(np.flatnonzero(self.cohort.split == "train").tolist())))


def selects(value: object) -> Iterator[Select]:
    """All that name images, anywhere in a task."""
    if isinstance(value, Select):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from selects(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from selects(one)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("year")


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return gather(scenarios.read(runs.write(folder, YEAR)), folder)


@pytest.fixture(scope="module")
def watched(folder: Path, cohort: Cohort) -> tuple[RunFolder, Seen]:
    seen, told = Seen(cohort), Ledger.round

    def round(self: Ledger, one: Round) -> None:
        seen.round(one)
        told(self, one)

    with pytest.MonkeyPatch.context() as patch, runs.without_scores():
        patch.setattr(Ledger, "round", round)
        return runs.run(folder, "retention={models: true}", text=YEAR), seen


@pytest.fixture(scope="module")
def run(watched: tuple[RunFolder, Seen]) -> RunFolder:
    return watched[0]


@pytest.fixture(scope="module")
def linked(folder: Path, cohort: Cohort) -> tuple[Chain, ...]:
    return chains(scenarios.read(runs.write(folder, YEAR)), cohort.entries)


def test_an_exact_strategy_ends_with_the_bits_of_training_without_all_of_them(run: RunFolder) -> None:
    """Whatever the policy, once the last request came before the end; an opt-out is trained on by neither."""
    weights = runs.weight_files(run)
    again = weights[f"retrained-{ALL}-1.safetensors"]
    for policy in ("at_once", "batch-21d", "budget-0.0001"):
        assert weights[f"{policy}-retrain-1.safetensors"] == again
        assert weights[f"{policy}-neggrad_plus-1.safetensors"] != again or policy.startswith("budget")


def test_nobody_is_trained_on_after_acceptance(
    watched: tuple[RunFolder, Seen], cohort: Cohort, linked: tuple[Chain, ...]
) -> None:
    """Images of an accepted request are read by its own unlearning alone, and after that by nothing but evaluation."""
    steps = {step.id: step for chain in linked for step in chain.steps}
    checked = dict.fromkeys(("continue", "unlearn"), 0)
    for label, rows in watched[1].rows:
        if label.phase not in checked:
            continue
        step = steps[label.request]
        own = step.members if label.phase == "unlearn" else ()
        barred = np.logical_or.reduce([cohort.forgotten[one] for one in step.without if one not in own])
        mine = np.logical_or.reduce([cohort.forgotten[one] for one in own]) if own else np.zeros_like(barred)
        before = np.logical_or.reduce(
            [np.zeros_like(barred), *(cohort.forgotten[one] for one in step.earlier)]
        )
        forbidden = (barred & ~mine) | before
        assert not rows & set(np.flatnonzero(forbidden).tolist()), label
        checked[label.phase] += 1
    assert min(checked.values()) > 10


def test_a_hospital_that_left_is_not_asked_again(watched: tuple[RunFolder, Seen], cohort: Cohort) -> None:
    """After round 4, where east left, no training of a walk reads an image of it."""
    east = set(np.flatnonzero(cohort.site == "east").tolist())
    late = [
        rows
        for label, rows in watched[1].rows
        if label.phase == "continue" and label.request == "at_once@4-east"
    ]
    assert late and not any(rows & east for rows in late)


def test_a_budget_trains_anew_once_unlearning_has_moved_the_model_too_far(run: RunFolder) -> None:
    """Any step passes .0001: every second request is answered by training anew; one that is exact has no drift."""
    found = run.read_manifest()["retrainings"]
    assert [(one["policy"], one["strategy"], one["round"]) for one in found] == [
        ("budget-0.0001", "fine_tune", 3),
        ("budget-0.0001", "neggrad_plus", 3),
    ]
    assert all(one["drift"] > 0.0001 for one in found)


def test_the_manifest_tells_of_requests_policies_and_looks(run: RunFolder) -> None:
    manifest = run.read_manifest()
    about = {"start": "2026-01-01", "days": 7, "rounds": 6, "looks": [2, 4, 6], "participation": 1}
    assert manifest["calendar"] == about
    docket = {entry["id"]: entry for entry in manifest["docket"]}
    assert {name: (one["state"], one["boundary"]) for name, one in docket.items()} == {
        "opt": ("accepted", 2),
        "some": ("accepted", 2),
        "gone": ("refused", 2),
        "more": ("accepted", 3),
        "leave": ("accepted", 4),
    }
    batch = manifest["policies"][1]
    assert [(turn["round"], turn["erases"], turn["steps"]) for turn in batch["turns"] if turn["erases"]] == [
        (3, ["some", "more"], ["batch-21d@3"]),
        (6, ["leave"], ["batch-21d@6-east"]),
    ]
    assert len(manifest["looks"]) == 3 * 3
    for look in manifest["looks"]:
        for model in (look["original"], look["retrained"], *look["strategies"].values()):
            assert (run.path / "signals" / f"{model}.parquet").is_file()
    assert [entry["request"] for entry in manifest["scored"]] == ["at_once", "batch-21d", "budget-0.0001"]
    last = next(look for look in manifest["looks"] if (look["policy"], look["round"]) == ("at_once", 6))
    assert last["distances"]["retrain"] == 0 < last["distances"]["fine_tune"]


def test_the_audit_log_has_every_request_with_what_became_of_it(run: RunFolder) -> None:
    lines = [json.loads(line) for line in (run.path / "audit.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = {line["request"]: line for line in lines if line["event"] == "request-received"}
    assert {name: line["state"] for name, line in asked.items()}["gone"] == "refused"
    assert asked["gone"]["reason"] == "unknown_patient"
    assert asked["opt"]["scope"] == "opt_out"


def test_the_audit_log_alone_tells_what_became_of_every_request(run: RunFolder) -> None:
    """By each policy, every state and its day; a chain that is whole."""
    log = run.path / audit.FILE
    assert audit.verify(log, run.read_manifest()["audit"])
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["event"] == "run-finished"
    told = [line for line in lines if line["event"] == "request-state"]
    found = {
        (one["policy"], one["request"]): [
            f"{line['state']} {line['date']}"
            for line in told
            if (line["policy"], line["request"]) == (one["policy"], one["request"])
        ]
        for one in told
    }
    assert len(found) == 3 * 5
    assert found["batch-21d", "some"] == [
        "received 2026-01-13",
        "accepted 2026-01-15",
        "unlearned 2026-01-22",
    ]
    assert found["at_once", "some"][-1] == "unlearned 2026-01-15"
    assert found["at_once", "opt"] == ["received 2026-01-10", "accepted 2026-01-15", "barred 2026-01-15"]
    assert found["at_once", "gone"] == ["received 2026-01-14", "refused 2026-01-15"]


@pytest.mark.gate
def test_a_request_of_which_others_left_nothing_costs_nothing(folder: Path, cohort: Cohort) -> None:
    """A patient of east asks just before east leaves, both are answered on one day, and the hospital comes first."""
    own = cohort.table[(cohort.table["site"] == "east") & (cohort.table["split"] == "train")]
    asks = [
        f'{{id: one, site: east, patients: ["{own["patient"].iloc[0]}"], received: 2026-01-20}}',
        "{id: leave, site: east, whole_site: true, received: 2026-01-21}",
    ]
    text = YEAR.replace("looks: 14d", "looks: 7d")
    with runs.without_scores():
        few = ["policies=[{name: at_once}]", "strategies=[{name: fine_tune, rounds: 1}]"]
        found = runs.run(folder, f"requests=[{', '.join(asks)}]", *few, text=text, name="same-day")
    ledger = found.read_table("ledger.parquet")
    asked = ledger[ledger["phase"] == "unlearn"].groupby("request")["sites"].sum()
    assert asked.to_dict() == {"at_once@3-east": 2, "at_once@3": 0}
    [turn] = found.read_manifest()["policies"][0]["turns"]
    assert (turn["round"], set(turn["erases"])) == (3, {"one", "leave"})
    looks = [look for look in found.read_manifest()["looks"] if look["round"] == 3]
    assert looks[0]["strategies"] == {"fine_tune": "at_once@3-fine_tune-1"}


def test_every_model_of_the_way_is_known_with_what_it_never_saw(run: RunFolder) -> None:
    """Until the third round of a budget nothing was trained anew; from then on it never saw who had asked by then."""
    found = {model.name: model for model in kept(run.read_manifest())}
    assert {f"{name}.safetensors" for name in found} == set(runs.weight_files(run))
    assert found["original@2-1"].without == () == found["budget-0.0001@2-fine_tune-1"].without
    assert found["before-budget-0.0001@3-fine_tune-1"].without == ()
    for name in ("budget-0.0001@3-fine_tune-1", "before-budget-0.0001@4-fine_tune-1"):
        assert found[name].without == ("opt", "some", "more")
    assert found["budget-0.0001-fine_tune-1"].without == ("opt", "some", "more")
    assert found["budget-0.0001-fine_tune-1"].earlier == ("some", "more", "leave")
    assert found["at_once@2-retrain-1"].without == ("opt", "some")
    assert found["at_once-fine_tune-1"].without == ()
    assert found[f"retrained-{ALL}-1"].without == ("opt", "some", "more", "leave")


@pytest.mark.gate
def test_what_is_trained_again_for_a_hospital_knows_none_of_that_day(folder: Path) -> None:
    """Patients of west and the whole of east are answered on one day: one training answers both."""
    asks = "[{id: one, site: west, patients: {count: 1}, received: 2026-01-20}, "
    asks += "{id: leave, site: east, whole_site: true, received: 2026-01-21}]"
    policies = "policies=[{name: at_once}, {name: budget, drift: 0.0001}]"
    with runs.without_scores():
        found = runs.run(folder, f"requests={asks}", policies, text=YEAR, name="both")
    ledger = found.read_table("ledger.parquet")
    asked = ledger[ledger["phase"] == "unlearn"].groupby(["request", "strategy"])["sites"].sum()
    assert asked["at_once@3-east", "retrain"] == 3 * 2 and asked["at_once@3", "retrain"] == 0
    assert asked["at_once@3-east", "fine_tune"] > 0 and asked["at_once@3", "fine_tune"] > 0
    assert asked["budget-0.0001@3-east", "fine_tune"] > 0  # the first has not drifted yet
    weights = runs.weight_files(found)
    assert weights["at_once-retrain-1.safetensors"] == weights[f"retrained-{ALL}-1.safetensors"]


@pytest.mark.gate
def test_a_policy_that_answers_nobody_is_told_of(folder: Path) -> None:
    """A batch of ten never fills, a request of the last day finds no time: both keep the models they have."""
    last = "{id: last, site: north, patients: {count: 1}, received: 2026-02-12}"
    early = "{id: early, site: north, patients: {count: 1}, received: 2026-01-13}"
    few = ["policies=[{name: at_once}, {name: batch, size: 10}]", "strategies=[{name: fine_tune, rounds: 1}]"]
    with runs.without_scores():
        both = runs.run(folder, f"requests=[{early}, {last}]", *few, text=YEAR, name="nobody")
        alone = runs.run(folder, f"requests=[{last}]", *few, text=YEAR, name="nobody-at-all")
    assert [one["waiting"] for one in both.read_manifest()["policies"]] == [[], ["early", "last"]]
    assert [one["request"] for one in both.read_manifest()["scored"]] == ["at_once", "batch-10"]
    weights = runs.weight_files(alone)
    assert weights["batch-10-fine_tune-1.safetensors"] == weights["original-1.safetensors"]


@pytest.mark.gate
def test_models_of_the_way_go_unless_they_are_to_be_kept(folder: Path, run: RunFolder) -> None:
    """What stays has the same bits; what they answered stays."""
    with runs.without_scores():
        bare = runs.run(folder, text=YEAR, name="bare")
    kept, all_of_them = runs.weight_files(bare), runs.weight_files(run)
    assert kept.items() < all_of_them.items()
    assert not any("@" in name or name.startswith("before-") for name in kept)
    assert {file.name for file in (bare.path / "signals").iterdir()} == {
        file.name for file in (run.path / "signals").iterdir()
    }
    assert not list((bare.path / "origins" / "weights").glob("*@*"))


@pytest.mark.gate
def test_another_policy_takes_from_a_finished_year_what_is_still_there(folder: Path, run: RunFolder) -> None:
    """As cells of a sweep do: models of the way are gone, so the original is trained again, to the same bits."""
    other = ("policies=[{name: batch, every: 21d}]", "strategies=[{name: retrain}]")
    with runs.without_scores():
        first = runs.run(folder, *other, text=YEAR, name="first")
        scenario = scenarios.read(runs.write(folder, YEAR), (*other, "policies=[{name: at_once}]"))
        again = simulate(scenario, folder / "again", folder, Console(), quiet=True, reuse=[first.path])
    kept, known = runs.weight_files(again), runs.weight_files(run)
    assert kept.items() < known.items() and "at_once-retrain-1.safetensors" in kept
    assert again.read_manifest()["reused"]

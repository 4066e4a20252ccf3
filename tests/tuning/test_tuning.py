"""The tuner: what it practises on, what it may look at, what it may spend, and what it writes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from annotated_types import Ge, Gt
from rich.console import Console

from fedunlearn import scenario as scenarios, tuning, weights as w
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import (
    SERVER,
    Case,
    Course,
    Granularity,
    Guarantee,
    InputError,
    Needs,
    Procedure,
    Recovery,
    Reply,
    Search,
    Select,
    Weights,
)
from fedunlearn.federation.engines import Answer
from fedunlearn.federation.jobs import Label, Round
from fedunlearn.federation.ledger import Ledger
from fedunlearn.learning.tasks import Fit
from fedunlearn.results import report
from fedunlearn.results.places import LOCK
from fedunlearn.scenario import Scenario, Tuned
from fedunlearn.scenario.space import space, suggest
from fedunlearn.story import simulate
from fedunlearn.tuning.judge import Judge
from fedunlearn.tuning.rehearsal import Rehearsal, rehearse
from fedunlearn.tuning.trials import Trials, _Running
from strategies.fedau import FedAU
from tests.runs import TINY, write

ONLY = TINY.partition("strategies:")[0] + "strategies:\n"
SOME = ONLY + "  - {name: fine_tune, rounds: 1}\n  - {name: retrain}\n"


def read(folder: Path, text: str = SOME, *overrides: str) -> Scenario:
    return scenarios.read(write(folder, text), overrides)


def tune(folder: Path, text: str = SOME, *overrides: str, name: str = "t", **budget: Any) -> tuning.Tuning:
    limits = tuning.Budget(**{"trials": 3, **budget})
    return tuning.tune(
        read(folder, text, *overrides), folder / name, folder, limits, Console(), 1, quiet=True
    )


# ------------------------------------------------------------------------------------------- the space


@dataclass(frozen=True)
class Searched:
    """Has one of each."""

    name: Literal["searched"] = "searched"
    rate: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    times: Annotated[int, Ge(0), Search(1, 4)] = 2
    way: Annotated[Literal["a", "b"], Search()] = "a"
    flag: Annotated[bool, Search()] = False
    fixed: Annotated[int, Ge(1)] = 1

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        return Needs()

    def unlearn(self, case: Case) -> Procedure[Weights]:
        raise NotImplementedError


class Says:
    """A trial that suggests what it was told to, and notes what it was asked."""

    def __init__(self, **values: Any) -> None:
        self.values, self.asked = values, dict[str, tuple[Any, ...]]()

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return self._say(name, low, high, log)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self._say(name, low, high, log)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._say(name, *choices)

    def _say(self, name: str, *asked: Any) -> Any:
        self.asked[name] = asked
        return self.values[name]


def test_what_is_searched_is_what_is_marked() -> None:
    trial = Says(rate=0.00123456, times=3, way="b", flag=True)
    strategy = Searched(fixed=7)
    found = suggest(trial, strategy)
    assert found == replace(strategy, rate=0.00123, times=3, way="b", flag=True)  # three digits are enough
    expected = {"rate": (1e-4, 1e-2, True), "times": (1, 4, False), "way": ("a", "b"), "flag": (False, True)}
    assert trial.asked == expected
    assert "fixed" not in space(Searched)


def test_what_is_searched_within_a_value_is_named_with_a_dot() -> None:
    @dataclass(frozen=True)
    class Repaired(Searched):
        recovery: Recovery = Recovery(rounds=3)

    own = {"rate": 0.001, "times": 3, "way": "b", "flag": True}
    trial = Says(**own, **{"recovery.rounds": 0, "recovery.local_epochs": 5, "recovery.lr": 0.00204999})
    found = suggest(trial, Repaired())
    assert found == Repaired(**own, recovery=Recovery(0, 5, 0.00205))  # type: ignore[arg-type]
    assert trial.asked["recovery.rounds"] == (0, 4, False)


def test_a_rounded_value_stays_within_its_ends() -> None:
    @dataclass(frozen=True)
    class Narrow(Searched):
        rate: Annotated[float, Gt(0), Search(0.12345, 0.12346)] | None = None

    for value in (0.12345, 0.12346):
        rate = suggest(Says(rate=value, times=1, way="a", flag=False), Narrow()).rate  # type: ignore[attr-defined]
        assert 0.12345 <= rate <= 0.12346


# -------------------------------------------------------------------------------------- the rehearsal


def rehearsed(folder: Path, text: str = SOME, repeats: int = 2, *overrides: str) -> tuple[Cohort, Rehearsal]:
    scenario = read(folder, text, *overrides)
    cohort = gather(scenario, folder)
    return cohort, rehearse(scenario, cohort, repeats, 0)


def test_rehearsed_patients_are_others_of_the_same_hospital(tmp_path: Path) -> None:
    cohort, rehearsal = rehearsed(tmp_path)
    train = rehearsal.cohort.split == "train"
    for name in ("some~1", "some~2"):
        forget = rehearsal.cohort.forgotten[name] & train
        assert not (forget & cohort.forgotten["some"]).any()
        assert set(cohort.site[forget]) == {"north"}
        assert cohort.table.loc[forget, "patient"].nunique() == 2  # as many as the real request names
    assert rehearsal.stands_for == {
        "some~1": "some",
        "some~2": "some",
        "leave~1": "leave",
        "leave~2": "leave",
    }


def test_patients_that_a_request_names_take_no_part(tmp_path: Path) -> None:
    cohort, rehearsal = rehearsed(tmp_path)
    named = cohort.forgotten["some"]
    assert set(rehearsal.cohort.split[named]) == {"test"}  # which nobody looks at
    assert (rehearsal.cohort.split[~named] == cohort.split[~named]).all()
    assert (rehearsal.cohort.table["split"] == rehearsal.cohort.split).all()


def test_a_hospital_that_leaves_stays_in_every_rehearsal(tmp_path: Path) -> None:
    cohort, rehearsal = rehearsed(tmp_path)
    leaving = [request for request in rehearsal.scenario.requests if request.whole_site]
    assert [request.site for request in leaving] == ["north", "west"]
    for request in leaving:
        assert not (rehearsal.cohort.forgotten[request.id] & cohort.forgotten["leave"]).any()


def test_a_rehearsal_has_a_training_seed_of_its_own(tmp_path: Path) -> None:
    _, rehearsal = rehearsed(tmp_path)
    assert rehearsal.scenario.seeds == (3,)  # the scenario's are 1 and 2
    assert all(plan.requests == tuple(rehearsal.stands_for) for plan in rehearsal.scenario.strategies)


def test_where_nobody_else_could_leave_it_is_told(tmp_path: Path) -> None:
    leaves = ", ".join(
        f"{{id: {site}, site: {site}, whole_site: true}}" for site in ("north", "east", "west")
    )
    with pytest.raises(InputError, match=r"requests|cannot be rehearsed: every hospital leaves") as caught:
        rehearsed(tmp_path, SOME, 2, f"requests=[{leaves}]")
    assert len(caught.value.problems) == 3


def test_where_too_few_patients_are_left_it_is_told_at_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'north' trains on 1 other patients") as caught:
        rehearsed(tmp_path, SOME, 2, "requests.0.patients={count: 7}")
    assert caught.value.problems[0].line is not None or "--set" in str(caught.value.problems[0])


# ------------------------------------------------------------------------------------------ the judge


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rehearsal, Judge]:
    folder = tmp_path_factory.mktemp("judge")
    _, rehearsal = rehearsed(folder)
    requests = tuple(request.id for request in rehearsal.scenario.requests)
    cohort = rehearsal.cohort
    return rehearsal, Judge(folder, "classification", cohort.classes, cohort.table, requests)


def logits(cohort: Cohort, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"logits": torch.randn(len(cohort.site), cohort.classes, generator=generator)}


def test_the_distance_is_counted_in_margins(bench: tuple[Rehearsal, Judge]) -> None:
    """All right against all wrong, with certainty: accuracies differ by 1, losses by 30 nats, the AUC is .5 in both."""
    rehearsal, judge = bench
    labels = torch.from_numpy(rehearsal.cohort.targets)
    right = torch.nn.functional.one_hot(labels, rehearsal.cohort.classes) * 30.0
    one, other = (judge.answers("some~1", {"logits": scores}) for scores in (right, right.roll(1, dims=1)))
    assert one is not None and other is not None
    assert judge.distance("some~1", one, one) == 0
    auc = 0.0  # all losses are equal within a model
    expected = np.mean([1 / 0.04, 1 / 0.04, auc, 1 / 0.05, 30 / 0.25])
    assert judge.distance("some~1", one, other) == pytest.approx(expected, rel=1e-3)


def test_test_images_are_looked_at_by_nobody(bench: tuple[Rehearsal, Judge]) -> None:
    rehearsal, judge = bench
    seen, other = logits(rehearsal.cohort, 1), logits(rehearsal.cohort, 2)
    hidden = torch.from_numpy(rehearsal.cohort.split == "test")
    spoilt = {"logits": torch.where(hidden[:, None], other["logits"], seen["logits"])}
    validation = torch.from_numpy(rehearsal.cohort.split == "val")
    changed = {"logits": torch.where(validation[:, None], other["logits"], seen["logits"])}
    retrained, *models = (judge.answers("some~1", s) for s in (other, seen, spoilt, changed))
    assert retrained is not None
    first, same, differs = (judge.distance("some~1", retrained, m) for m in models if m is not None)
    assert first == same != differs


def test_a_model_without_finite_answers_has_diverged(bench: tuple[Rehearsal, Judge]) -> None:
    rehearsal, judge = bench
    assert judge.answers("some~1", {"logits": logits(rehearsal.cohort, 1)["logits"] * math.nan}) is None


# ------------------------------------------------------------------------------------------- the story


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuning.Tuning:
    return tune(tmp_path_factory.mktemp("tuned"))


@pytest.mark.gate
def test_the_first_trial_is_as_written_and_the_best_is_no_worse(tuned: tuning.Tuning) -> None:
    trials = tuned.trials["fine_tune"]
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert trials[0].strategy == read(tuned.folder.parent).strategies[0].strategy
    best = min(trials, key=lambda trial: trial.distance)
    assert tuned.scenario.strategies[0].strategy == best.strategy
    assert best.distance <= trials[0].distance


def test_what_has_nothing_to_tune_stays_as_it_is(tuned: tuning.Tuning) -> None:
    assert set(tuned.trials) == {"fine_tune"}
    assert tuned.scenario.strategies[1] == read(tuned.folder.parent).strategies[1]
    with pytest.raises(InputError, match="no strategy with anything to tune"):
        tune(tuned.folder.parent, ONLY + "  - {name: retrain}\n", name="none")


def test_the_folder_holds_scenario_trials_ledger_and_references_but_no_images(tuned: tuning.Tuning) -> None:
    files = [path.relative_to(tuned.folder).parts for path in tuned.folder.rglob("*") if path.is_file()]
    names = {parts[0] for parts in files} - {LOCK}
    assert names == {"tuned.yaml", "trials.parquet", "ledger.parquet", tuning.REHEARSAL}
    kept = {parts[1] for parts in files if parts[0] == tuning.REHEARSAL}
    assert kept == {"weights", "signals", "origins"}
    table = pd.read_parquet(tuned.folder / "trials.parquet")
    assert list(table["trial"]) == [0, 1, 2] and set(table["strategy"]) == {"fine_tune"}
    assert (
        json.loads(table["settings"][0]).keys() == space(type(tuned.trials["fine_tune"][0].strategy)).keys()
    )
    ledger = pd.read_parquet(tuned.folder / "ledger.parquet")
    assert set(ledger["phase"]) == {"original", "retrained", "evaluate", "tune"}


def test_the_cost_of_trials_is_what_the_ledger_saw(tuned: tuning.Tuning) -> None:
    """Training and evaluation of every trial; not the rehearsal's references, which all strategies share."""
    ledger = pd.read_parquet(tuned.folder / "ledger.parquet")
    own = ledger[ledger["strategy"] == "fine_tune"]
    cost = tuned.scenario.strategies[0].tuned
    assert cost is not None
    assert (cost.trials, cost.images) == (3, own["images"].sum())
    assert cost.bytes == own["down_bytes"].sum() + own["up_bytes"].sum()
    assert cost.site_seconds == pytest.approx(own["site_seconds"].sum(), abs=2e-3)


@pytest.mark.gate
def test_the_tuned_scenario_can_be_read_run_and_reports_what_tuning_cost(tuned: tuning.Tuning) -> None:
    text = (tuned.folder / "tuned.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Settings found by") and "--trials 3" in text
    again = scenarios.read(tuned.folder / "tuned.yaml")
    assert again == tuned.scenario
    run = simulate(again, tuned.folder.parent / "run", tuned.folder.parent, Console(), quiet=True)
    scores = run.read_table("scores.parquet")
    spent = scores[(scores["measure"] == "tuning_site_seconds") & (scores["strategy"] == "fine_tune")]
    cost = again.strategies[0].tuned
    assert "| tune s |" in report.markdown(run)
    assert cost is not None and spent["value"].unique().tolist() == [cost.site_seconds]


def without_times(found: tuning.Tuning) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.strategy, t.distance, t.images, t.bytes) for own in found.trials.values() for t in own
    ]


@pytest.mark.gate
def test_workers_change_nothing_but_times(tuned: tuning.Tuning, tmp_path: Path) -> None:
    alone = tune(tmp_path, SOME, "engine.workers=1", name="alone")
    assert without_times(alone) == without_times(tuned)


@pytest.mark.gate
def test_references_are_taken_from_a_tuning_beside_it(tuned: tuning.Tuning) -> None:
    again = tune(tuned.folder.parent, name="again")
    assert without_times(again) == without_times(tuned)
    one, other = (pd.read_parquet(found.folder / "ledger.parquet") for found in (tuned, again))
    references = one["phase"].isin(["original", "retrained"])
    assert references.any()
    assert one[references].equals(other[references])  # wall times too: nothing was trained again


def bare(running: _Running) -> Trials:
    """One trial of `fine_tune` under way, no other, and nothing to choose further ones by."""
    trials = Trials.__new__(Trials)
    trials._running, trials._budget, trials.done = {"fine_tune": running}, tuning.Budget(1), {"fine_tune": []}
    trials._named = {("fine_tune", request): "fine_tune" for request in running.plan.requests}
    trials._studies = {"fine_tune": None}  # type: ignore[dict-item]
    return trials


def test_what_the_server_does_is_no_hospitals_work_as_in_the_ledger(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    sent = {"x": torch.zeros(1000)}
    ask, label = Fit(sent, Select(), scenario.training.local, 1), Label("tune", "some", "fine_tune", 1)
    sites = {SERVER: 7.0, "north": 2.0, "east": 3.0}
    answers = {
        site: Answer(n, Reply(sent, 5), None, seconds, 50) for n, (site, seconds) in enumerate(sites.items())
    }
    round = Round(label, 0, dict.fromkeys(sites, ask), answers, dict.fromkeys(sites, 4000), 0.0)
    running, ledger = _Running("fine_tune", scenario.strategies[0], 0, None), Ledger()
    for watcher in (bare(running), ledger):
        watcher.round(round)
    (row,) = ledger.table().to_dict("records")
    assert running.site_seconds == row["site_seconds"] == 5.0
    assert running.bytes == row["down_bytes"] + row["up_bytes"] >= 2 * (4000 + 4000)
    assert running.images == row["images"] == 150


def test_in_which_order_requests_are_judged_changes_no_bit(tmp_path: Path) -> None:
    """The sum of these three rounds to something else in another order."""
    asked, far = ("a", "b", "c"), {"a": 0.1, "b": 0.2, "c": 0.3}
    plan = replace(read(tmp_path).strategies[0], requests=asked)
    assert (0.1 + 0.2) + 0.3 != (0.3 + 0.2) + 0.1
    found = set[float]()
    for order in itertools.permutations(asked):
        running = _Running("fine_tune", plan, 0, None)
        trials = bare(running)
        for request in order:
            assert trials._judged(running, request, far[request]) == []
        found.add(trials.done["fine_tune"][0].distance)
    assert found == {(0.1 + 0.2 + 0.3) / 3}


def test_no_trial_starts_beyond_the_site_seconds(tmp_path: Path) -> None:
    found = tune(
        tmp_path, SOME, "requests=[{id: some, site: north, patients: {count: 2}}]", site_seconds=1e-9
    )
    assert [len(own) for own in found.trials.values()] == [1]


@pytest.mark.gate
def test_a_trial_that_diverges_counts_as_infinitely_far_and_does_not_stop_the_others(tmp_path: Path) -> None:
    wild = ONLY + "  - {name: fine_tune, rounds: 1, lr: 1.0e+30}\n"
    found = tune(tmp_path, wild, trials=2)
    first, second = found.trials["fine_tune"]
    assert math.isinf(first.distance) and math.isfinite(second.distance)
    assert found.scenario.strategies[0].strategy == second.strategy
    assert Tuned is type(found.scenario.strategies[0].tuned)


OWN = (
    TINY.partition("requests:")[0]
    + """\
requests: [{id: leave, site: east, whole_site: true}]
strategies:
  - {name: fedau}
  - {name: fine_tune, rounds: 1}
"""
)


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Models that `fedau`, of which training in its own way makes two times what it does, is given to unlearn from."""
    honest, unlearn, given = FedAU.prepare, FedAU.unlearn, set[str]()

    def prepare(self: FedAU, course: Course) -> Procedure[Mapping[str, Weights]]:
        found = yield from honest(self, course)
        return {**found, "model": w.multiply(found["model"], 2)}

    def watched(self: FedAU, case: Case) -> Procedure[Weights]:
        given.add(w.digest(case.original))
        return (yield from unlearn(self, case))

    monkeypatch.setattr(FedAU, "prepare", prepare)
    monkeypatch.setattr(FedAU, "unlearn", watched)
    return given


@pytest.mark.gate
def test_who_trains_in_a_way_of_its_own_does_so_once_and_is_tried_on_that(
    doubled: set[str], tmp_path: Path
) -> None:
    found = tune(tmp_path, OWN)
    assert [len(own) for own in found.trials.values()] == [3, 3]
    assert all(math.isfinite(trial.distance) for own in found.trials.values() for trial in own)
    ledger = pd.read_parquet(found.folder / "ledger.parquet")
    own = ledger[ledger["phase"] == "prepare"]
    assert set(own["strategy"]) == {"fedau"} and list(own["round"]) == [0, 1, 2, 3, 4], (
        "a head's round each, once"
    )
    (original,) = (found.folder / tuning.REHEARSAL / "weights").glob("original-*")
    assert doubled == {w.digest(w.multiply(w.load(original), 2))}
    assert not (found.folder / tuning.REHEARSAL / "work").exists()


@pytest.mark.gate
def test_whose_own_training_diverges_is_infinitely_far_and_costs_no_other_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wild(self: FedAU, course: Course) -> Procedure[Mapping[str, Weights]]:
        yield {site: Fit(course.initial, course.select, local, 1) for site in course.sites}
        raise AssertionError("it goes on after it diverged")

    local = replace(read(tmp_path).training.local, lr=1e30)
    monkeypatch.setattr(FedAU, "prepare", wild)
    found = tune(tmp_path, OWN)
    assert [trial.distance for trial in found.trials["fedau"]] == [math.inf] * 3
    assert all(math.isfinite(trial.distance) for trial in found.trials["fine_tune"])
    assert found.scenario.strategies[0].strategy == read(tmp_path, OWN).strategies[0].strategy


def test_a_stream_of_requests_is_not_rehearsed(tmp_path: Path) -> None:
    text = TINY.partition("requests:")[0] + "calendar: {start: 2026-01-01}\narrivals: {per_year: 300}\n"
    scenario = scenarios.read(write(tmp_path, text + "strategies: [{name: negation}]\n"))
    with pytest.raises(InputError, match="without `calendar`") as caught:
        tuning.tune(scenario, tmp_path / "out", tmp_path, tuning.Budget(1), Console())
    assert caught.value.problems[0].line == 8
    assert not (tmp_path / "out").exists()


def test_whom_single_images_are_of_is_not_practised_on(tmp_path: Path) -> None:
    plain = gather(scenarios.read(write(tmp_path)), tmp_path)
    own = plain.table[(plain.site == "north") & (plain.split == "train")]
    image, patient = own[["image", "patient"]].iloc[0]
    asked = f"requests=[{{id: one, site: north, images: [{image}]}}]"
    scenario = scenarios.read(write(tmp_path), [asked, "strategies=[{name: negation}]"])
    practised = rehearse(scenario, gather(scenario, tmp_path), 3, 0)
    for request in practised.scenario.requests:
        assert request.images is None and isinstance(request.patients, tuple)
        assert len(request.patients) == 1 and patient not in request.patients
    apart = practised.cohort.table["patient"] == patient
    assert set(practised.cohort.split[apart]) == {"test"}

"""Probes: a model trained a little more, against slow versions, and as a part of a whole run."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.campaign import probing
from fedunlearn.campaign.probing import MOST_EPOCHS, RELEARN_PACE, WITHIN, refit, relearn
from fedunlearn.core import Reply, Weights, derive
from fedunlearn.federation.engines import Ask
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Fit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.score import score
from fedunlearn.story import simulate
from tests import toy
from tests.federation.test_divergence import sabotage
from tests.runs import run, write

pytestmark = [pytest.mark.rounding, pytest.mark.usefixtures("few_resamples")]

LOCAL = toy.TRAINING.local


def relearnt(weights: Weights, request: str) -> probing.Relearnt:
    case = toy.case(request)
    return toy.run(relearn(weights, case.original, case.holders, case.forget, LOCAL, case.seed))


def forget_loss(weights: Weights, request: str) -> float:
    """The mean of -log p over the images to forget."""
    return -float(toy.chances(weights, request).double().log().mean())


def refitted(weights: Weights, norm: bool = False) -> Weights:
    case = toy.case("patients", norm=norm)
    procedure = refit(weights, case.initial, case.layout, case.sites, case.retain, LOCAL, case.seed)
    return toy.run(procedure, toy.ToyLink(norm=norm))


# ------------------------------------------------------------------------------------------------- relearning


def test_the_original_has_nothing_to_relearn() -> None:
    found = relearnt(toy.case("site").original, "site")
    assert found.losses == (found.goal / WITHIN,)


def test_relearning_is_training_epoch_by_epoch_until_the_loss_is_there() -> None:
    """Of a whole hospital there is one holder, so an average is that hospital's own model."""
    case, weights = toy.case("site"), toy.retrained("site")
    found = relearnt(weights, "site")
    assert 1 < len(found.losses) <= MOST_EPOCHS
    assert found.goal == pytest.approx(1.05 * forget_loss(case.original, "site"), rel=1e-6)
    once = paced(LOCAL, 1, RELEARN_PACE * LOCAL.lr)
    for epoch, loss in enumerate(found.losses):
        assert loss == pytest.approx(forget_loss(weights, "site"), rel=1e-6)
        assert (loss <= found.goal) == (epoch == len(found.losses) - 1)
        reply = toy.answer(
            Fit(weights, case.forget, once, derive(case.seed, "relearn", "west", epoch)), "west"
        )
        assert reply.weights is not None
        weights = reply.weights


def test_several_holders_count_by_their_images() -> None:
    """One patient's 4 images are at north and another's 4 at each of north and east: 8 and 4 of them."""
    weights = toy.retrained("patients")
    assert relearnt(weights, "patients").losses[0] == pytest.approx(
        forget_loss(weights, "patients"), rel=1e-6
    )


def test_relearning_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_EPOCHS", 2)
    found = relearnt(toy.retrained("site"), "site")
    assert len(found.losses) == 3
    assert min(found.losses) > found.goal


# ---------------------------------------------------------------------------------------------- the last layer


def test_a_last_layer_turned_away_is_refitted_as_if_it_never_was() -> None:
    """The features are the original's, so the refitted models are the same, and know what the turned one denied."""
    case = toy.case("patients")
    turned = {**case.original, **{name: -case.original[name] for name in case.layout.head}}
    again = refitted(turned)
    assert w.digest(again) == w.digest(refitted(case.original))
    models = (turned, toy.retrained("patients"), refitted(toy.retrained("patients")), again)
    denied, never, refitted_never, found = (float(toy.chances(x, "patients").mean()) for x in models)
    assert denied < 0.1 < never < found - 0.05  # mean chances of the right class
    assert refitted_never == pytest.approx(never, abs=0.05), "where there is no memory, there is none to find"


@pytest.mark.parametrize("norm", [False, True])
def test_nothing_but_the_last_layer_is_refitted(norm: bool) -> None:
    case = toy.case("patients", norm=norm)
    again = refitted(case.original, norm)
    changed = {name for name, x in case.original.items() if not torch.equal(x, again[name])}
    assert changed == set(case.layout.head)


def test_the_images_to_forget_take_no_part_in_refitting() -> None:
    case, log = toy.case("patients"), toy.Log()
    toy.run(
        refit(case.original, case.initial, case.layout, case.sites, case.retain, LOCAL, case.seed),
        toy.ToyLink(log=log),
    )
    for site in toy.SITES:
        assert not log.rows[site] & set(toy.select(site, case.forget).rows.tolist())


# ------------------------------------------------------------------------------------------------- a whole run

EVERYTHING = "evaluation={relearn: true, linear_probe: true, resurgence_rounds: 1}"
REQUESTS = (
    "requests=[{id: some, site: north, patients: {count: 2}, after_round: 1}, "
    "{id: leave, site: east, whole_site: true}]"
)
MOMENTS = ("some@1", "some", "leave")


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A run with a request in the middle, one strategy that works and one that diverges; and what it printed."""
    folder, console = tmp_path_factory.mktemp("probed"), Console(file=io.StringIO(), width=100)
    plans = "strategies=[{name: negation, recovery: {rounds: 1}}, {name: fine_tune, rounds: 1, as: wild, lr: 1e30}]"
    scenario = scenarios.read(write(folder), [EVERYTHING, REQUESTS, plans, "seeds=[1]"])
    done = simulate(scenario, folder / "run", folder, console)
    return done, console.file.getvalue()  # type: ignore[attr-defined]  # it is the one of above


def test_every_model_but_a_diverged_one_is_probed_at_every_moment(probed: tuple[RunFolder, str]) -> None:
    folder = probed[0].path / "probes"
    models = {f"{name}-1.parquet" for name in ("original", "retrained", "negation")}
    for probe in ("linear_probe", "resurgence"):
        for moment in MOMENTS:
            assert {file.name for file in (folder / probe / moment).iterdir()} == models
    curves = pd.read_parquet(folder / "relearn.parquet")
    assert set(zip(curves["request"], curves["strategy"], strict=True)) == {
        (moment, name) for moment in MOMENTS for name in ("original", "retrained", "negation")
    }
    assert (curves[curves["strategy"] == "original"]["epoch"] == 0).all()


def test_resurgence_is_training_on_bit_for_bit(probed: tuple[RunFolder, str]) -> None:
    """One round more after `some@1` is the end of training, where retraining and strategies come to anyway."""
    run = probed[0]
    for strategy, model in (("retrained", "retrained-some-1"), ("negation", "some-negation-1")):
        once_more = run.read_table(f"probes/resurgence/some@1/{strategy}-1.parquet")
        pd.testing.assert_frame_equal(once_more, run.read_table(f"signals/{model}.parquet"), check_exact=True)


def test_probes_cost_no_strategy_anything(probed: tuple[RunFolder, str]) -> None:
    """Negation asks for one round of recovery, in which three hospitals, or the two that remain, are asked."""
    run = probed[0]
    ledger, scores = run.read_table("ledger.parquet"), run.read_table("scores.parquet")
    spent = ledger[ledger["phase"].str.startswith("probe")].groupby("phase")["images"].sum()
    assert set(spent.index) == {"probe linear_probe", "probe relearn", "probe resurgence"}
    assert (spent > 0).all()
    rounds = scores[(scores["measure"] == "rounds") & (scores["strategy"] == "negation")]
    assert rounds["value"].tolist() == [1.0, 1.0, 1.0]


def test_who_watches_waits_for_nothing(probed: tuple[RunFolder, str]) -> None:
    """The original, two retrainings, twice two strategies, three that go on; then 3 probes of 4 models at 3 moments."""
    lines, of = probed[1].splitlines(), 1 + 2 + 4 + 3 + 3 * 4 * 3
    assert [text for text in lines if text.startswith("[")][-1].startswith(f"[{of}/{of}] ")
    assert any("probe relearn retrained for some@1 seed 1" in line for line in lines)


def test_the_folder_alone_scores_the_same(probed: tuple[RunFolder, str]) -> None:
    run = probed[0]
    before = run.read_table("scores.parquet")
    assert before[before["strategy"] == "original"].set_index(["measure", "request"])["value"][
        "relearn_epochs"
    ].tolist() == [0.0, 0.0, 0.0]
    score(run.path)
    pd.testing.assert_frame_equal(run.read_table("scores.parquet"), before)


@pytest.mark.further
def test_a_probe_that_diverges_is_lost_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the refitting of the last layer has a constraint; of the two models, the one trained by all is spoiled."""

    def spoil(ask: Ask, reply: Reply) -> Reply:
        task: Any = ask.task
        if not isinstance(task, Fit) or task.constraint is None:
            return reply
        return replace(reply, weights=w.multiply(reply.weights or {}, math.nan))

    sabotage(monkeypatch, spoil)
    only = "requests=[{id: some, site: north, patients: {count: 2}}]"
    done = run(tmp_path, EVERYTHING, only, "seeds=[1]", "strategies=[]")
    scores = done.read_table("scores.parquet")
    refit = scores["measure"].str.startswith("probe_")
    assert refit.any() and scores[refit]["value"].isna().all()
    assert scores[~refit]["value"].notna().all()
    lost = done.read_manifest()["probes"]["diverged"]
    assert [(e["probe"], e["strategy"], e["where"]) for e in lost] == [
        ("linear_probe", name, "at hospital north in round 1") for name in ("original", "retrained")
    ]


@pytest.mark.further
@pytest.mark.usefixtures("unscored")
def test_along_a_chain_exact_unlearning_is_probed_as_the_retrained_model_is(tmp_path: Path) -> None:
    """Each request with those before it: `leave`'s images to forget and its rounds on are without `some`'s too."""
    plans = "strategies=[{name: retrain}]"
    done = run(tmp_path, EVERYTHING, REQUESTS, plans, "seeds=[1]", "timeline=sequential")
    curves = done.read_table("probes/relearn.parquet")
    for moment in ("some@1", "leave"):
        for probe in ("linear_probe", "resurgence"):
            one, other = (
                done.read_table(f"probes/{probe}/{moment}/{name}-1.parquet")
                for name in ("retrain", "retrained")
            )
            pd.testing.assert_frame_equal(one, other, check_exact=True)
        here = curves[curves["request"] == moment].set_index("strategy")[["epoch", "loss", "goal"]]
        assert here.loc[["retrain"]].to_numpy().tolist() == here.loc[["retrained"]].to_numpy().tolist()


@pytest.mark.ray
def test_on_ray_probes_are_the_same(probed: tuple[RunFolder, str], tmp_path: Path) -> None:
    plans = "strategies=[{name: negation, recovery: {rounds: 1}}]"
    on_ray = run(tmp_path, EVERYTHING, REQUESTS, plans, "seeds=[1]", "engine.name=flower")
    files = [file.relative_to(on_ray.path) for file in (on_ray.path / "probes").rglob("*.parquet")]
    assert len(files) == 2 * 3 * 3 + 1
    for file in files:
        one, other = (pd.read_parquet(folder / file) for folder in (on_ray.path, probed[0].path))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    here, there = (run.read_table("curves.parquet") for run in (probed[0], on_ray))
    here = here[here["strategy"].isin(there["strategy"]) & (here["seed"] == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    assert {"original", "retrained", "unlearn"} <= set(there["phase"]) and there["value"].nunique() > 10

"""Distillation on the server, and the images that hospitals gave it: from the scenario to the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import (
    SERVER,
    Asks,
    InputError,
    Needs,
    Recovery,
    Replies,
    Select,
    SiteError,
    Weights,
)
from fedunlearn.learning.local import outputs
from fedunlearn.learning.objectives import divergence
from fedunlearn.learning.tasks import Distil, Fit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario.catalogue import entries
from fedunlearn.scoring.evidence.reading import read
from strategies.fine_tune import FineTune
from strategies.wu_distillation import WuDistillation, subtracted
from tests import toy
from tests.runs import TINY, run, weight_files, write
from tests.strategies.test_client import STEP, WEIGHTS, B, Clinic, W, X, close

pytestmark = pytest.mark.rounding

SHARES = "sites.split={train: 0.6, val: 0.1, test: 0.2, proxy: 0.1}"
WU = "strategies=[{name: wu_distillation, epochs: 2}]"


# ------------------------------------------------------------------------------------------ the strategy


@dataclass(frozen=True)
class Sums:
    """A history of sums of updates, and of nothing else."""

    totals: Mapping[str, Weights]

    def cumulative(self, site: str) -> Weights:
        return self.totals[site]

    def update(self, round: int, site: str) -> Weights:
        raise AssertionError("sums are enough")

    def chosen(self, round: int) -> tuple[str, ...]:
        raise AssertionError("sums are enough")

    def checkpoint(self, round: int) -> Weights:
        raise AssertionError("sums are enough")

    def prepared(self, name: str) -> Weights:
        raise AssertionError("sums are enough")


def test_the_leavers_share_of_its_updates_is_subtracted() -> None:
    """West holds 30 of 120 images, a quarter: 5 - 8 / 4 = 3. BatchNorm statistics stay."""
    case = toy.case("site", norm=True)
    names = case.layout.parameters
    original = {n: torch.full_like(x, 5) if n in names else x for n, x in case.original.items()}
    history = Sums({"west": {n: torch.full_like(x, 8) for n, x in original.items()}})
    case = replace(
        case, original=original, kept={"north": 40, "east": 50}, lost={"west": 30}, history=history
    )
    for student in (subtracted(case), toy.run(WuDistillation(epochs=0).unlearn(case))):
        assert student.keys() == original.keys()
        for name, x in student.items():
            assert torch.equal(x, torch.full_like(x, 3) if name in names else original[name]), name


def test_without_distillation_and_recovery_nobody_is_asked() -> None:
    case = toy.case("site")
    result = toy.by_hand(WuDistillation(epochs=0).unlearn(case), lambda asks: pytest.fail(f"asked {asks}"))
    assert w.digest(result) == w.digest(subtracted(case))


def test_the_server_distils_the_original_into_the_rest() -> None:
    """It is asked alone, once, for its own images without the leaver's; then the remaining hospitals recover."""
    case, rounds = toy.case("site"), list[Asks]()

    def reply(asks: Asks) -> Replies:
        rounds.append(asks)
        return {site: toy.answer(task, site) for site, task in asks.items()}

    toy.by_hand(WuDistillation(T=2.0, epochs=3, lr=0.5, recovery=Recovery(1)).unlearn(case), reply)
    assert [list(asks) for asks in rounds] == [[SERVER], ["north", "east"]]
    task = rounds[0][SERVER]
    assert isinstance(task, Distil)
    assert w.digest(task.weights) == w.digest(subtracted(case)) and task.teacher is case.original
    assert task.select == Select(split="proxy", without=("site",))
    assert (task.T, task.kl, task.loss) == (2.0, 1.0, 0.0)
    assert (task.training.epochs, task.training.lr) == (3, 0.5)


def test_a_step_of_distillation_is_the_gradient_worked_out_by_hand() -> None:
    """d/dz T^2 KL(p || q) = T (q - p) for softmaxes p, q at temperature T; z = W x + b, in the mean over images."""
    teacher: Weights = {"1.weight": W.flip(0) * 2, "1.bias": B}
    task = Distil(WEIGHTS, teacher, Select(split="proxy"), STEP, 0, T=4.0)
    got = task(Clinic()).weights
    p, q = (torch.softmax((X @ a["1.weight"].T + a["1.bias"]) / 4, 1) for a in (teacher, WEIGHTS))
    slope = 4 * (q - p) / 4  # T times the difference, divided by the four images
    assert got is not None
    assert torch.allclose(got["1.weight"], W - 0.1 * slope.T @ X, atol=1e-6)
    assert torch.allclose(got["1.bias"], B - 0.1 * slope.sum(0), atol=1e-6)


def test_a_student_equal_to_its_teacher_does_not_move() -> None:
    """A leaver that never changed anything: the student is the original itself, and has nothing to learn.

    Its slope is mere rounding, each at most u = 2^-24 of the number rounded. A score is a sum of four terms below 2,
    so two models' scores of one image differ by at most 2 * 16 u, and so does T (q - p), to which the softmaxes add
    8 T u: 64 u. Times numbers up to 2 and a step of 0.1, and rounded: 14 u. The loss is convex and 0.1 below 2 over its
    curvature (at most |(x, 1)|^2 / 2 = 3.5), so no step makes a deviation longer: 20 of them make 280 u = 1.7e-5.
    """
    case = toy.case("site")
    history = Sums({"west": {name: torch.zeros_like(x) for name, x in case.original.items()}})
    task = next(WuDistillation(T=4.0, epochs=20).unlearn(replace(case, history=history)))[SERVER]
    assert isinstance(task, Distil)
    assert w.digest(task.weights) == w.digest(task.teacher) == w.digest(case.original)
    steps = replace(STEP, epochs=task.training.epochs)
    result = replace(task, weights=WEIGHTS, teacher=WEIGHTS, training=steps)(Clinic()).weights
    assert result is not None
    assert close(result, WEIGHTS, 1.7e-5)


def test_distillation_leads_back_to_the_original_on_images_that_nobody_used() -> None:
    case, unseen = toy.case("site"), toy.images("north", "val")
    local = toy.ToyLocal("north", toy.network(), toy.Log())
    models = (case.original, subtracted(case), toy.outcome(WuDistillation(), "site").weights)
    teacher, before, after = (outputs(local, model, unseen) for model in models)
    assert divergence(teacher, after) < divergence(teacher, before) / 4


# ------------------------------------------------------------------------- what the server owns, and how


def test_the_server_has_no_labels_to_train_on() -> None:
    assert set(toy.select(SERVER, Select(split="proxy")).targets.tolist()) == {-1}
    with pytest.raises(IndexError, match="Target -1 is out of bounds"):
        toy.answer(Fit(toy.trained()[0], Select(split="proxy"), STEP, 0), SERVER)


def test_a_server_that_fails_is_not_called_a_hospital() -> None:
    def fault(ask, reply):
        raise OSError("disk full")

    with pytest.raises(
        SiteError, match=r"^the server failed in unlearn request toy seed 7, round 1: OSError"
    ):
        toy.run(WuDistillation().unlearn(toy.case("site")), toy.ToyLink(fault=fault))


def dealt(tmp_path: Path, *overrides: str) -> Cohort:
    return gather(scenarios.read(write(tmp_path), overrides), tmp_path)


def test_whoever_is_forgotten_takes_the_proxy_images_back(tmp_path: Path) -> None:
    cohort = dealt(tmp_path, SHARES)
    given = cohort.split == "proxy"
    by_site = {site: int((given & (cohort.site == site)).sum()) for site in cohort.sites}
    assert min(by_site.values()) > 0
    assert cohort.count(SERVER, Select(split="proxy")) == sum(by_site.values())
    assert (
        cohort.count(SERVER, Select(split="proxy", without=("leave",))) == by_site["north"] + by_site["west"]
    )
    assert cohort.count(SERVER, Select()) == 0
    assert dealt(tmp_path).count(SERVER, Select(split="proxy")) == 0


def test_a_proxy_share_leaves_training_as_it_was(tmp_path: Path) -> None:
    before, after = dealt(tmp_path), dealt(tmp_path, SHARES)
    assert (before.site == after.site).all()
    assert (before.split == np.where(after.split == "proxy", "test", after.split)).all()
    assert all((before.forgotten[request] == mask).all() for request, mask in after.forgotten.items())


@pytest.mark.parametrize("timeline", ["independent", "sequential"])
def test_too_few_proxy_images_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeline: str
) -> None:
    """Of two hospitals that leave, each alone leaves enough; one after the other they do not."""
    cohort = dealt(tmp_path, SHARES)
    by_site = {site: int(((cohort.split == "proxy") & (cohort.site == site)).sum()) for site in cohort.sites}
    monkeypatch.setattr(FineTune, "needs", Needs(proxy_examples=by_site["west"] + 1))
    requests = (
        "requests=[{id: first, site: east, whole_site: true}, {id: second, site: north, whole_site: true}]"
    )
    changes = (SHARES, requests, f"timeline={timeline}", "strategies=[{name: fine_tune}]")
    if timeline == "independent":
        dealt(tmp_path, *changes)
        return
    with pytest.raises(InputError) as caught:
        dealt(tmp_path, *changes)
    (problem,) = caught.value.problems
    assert problem.message == (
        f"fine_tune needs at least {by_site['west'] + 1} images that the server owns, but request 'second' leaves it "
        f"{by_site['west']}: raise sites.split.proxy or remove the strategy"
    )
    assert problem.file == "--set strategies=[{name: fine_tune}]"


def test_the_list_of_strategies_shows_the_need() -> None:
    needs = {entry["name"]: entry["needs"]["proxy_examples"] for entry in entries("strategies")}
    assert {name for name, examples in needs.items() if examples} == {"wu_distillation"}


# --------------------------------------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("proxy"), SHARES, WU, "seeds=[1]")


@pytest.mark.further
@pytest.mark.usefixtures("unscored")
def test_training_has_the_same_bits_with_and_without_a_proxy_share(whole: RunFolder, tmp_path: Path) -> None:
    without = run(tmp_path, "strategies=[]", "seeds=[1]")
    assert weight_files(without).items() < weight_files(whole).items()


def test_every_image_is_evaluated_and_the_server_s_are_in_no_part(whole: RunFolder) -> None:
    table = whole.read_table("sites.parquet")
    for path in (whole.path / "signals").iterdir():
        signals = pd.read_parquet(path)
        assert len(signals) == len(table) and signals.notna().all(axis=None)
    scored = read(whole.path)
    frame, proxy = scored.frame("leave"), (scored.images["split"] == "proxy").to_numpy()
    assert proxy.any() and set(table["split"]) == {"train", "val", "test", "proxy"}
    assert not any((frame.rows(part) & proxy).any() for part in ("forget", "retain", "test"))
    assert (frame.units[proxy] == -1).all()


def test_the_servers_work_costs_no_hospital_anything(whole: RunFolder) -> None:
    table, ledger = whole.read_table("sites.parquet"), whole.read_table("ledger.parquet")
    left = int(((table["split"] == "proxy") & (table["site"] != "east")).sum())
    rows = ledger[(ledger["strategy"] == "wu_distillation") & (ledger["phase"] == "unlearn")]
    distilled, end = rows.to_dict("records")
    for row in (distilled, end):
        assert (row["sites"], row["down_bytes"], row["up_bytes"], row["site_seconds"]) == (0, 0, 0, 0.0)
    passes = 3 * left  # the teacher's one, and two epochs
    assert distilled["server_seconds"] > 0 and distilled["images"] == passes
    spent = read(whole.path).spent("unlearn", "leave", "wu_distillation", 1)
    assert (spent.rounds, spent.bytes, spent.images) == (0, 0, passes)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_server_works_on_ray_with_the_same_bits(whole: RunFolder, tmp_path: Path) -> None:
    assert weight_files(run(tmp_path, SHARES, WU, "seeds=[1]", "engine.name=flower")) == weight_files(whole)


def test_the_resolved_scenario_says_what_was_given(whole: RunFolder) -> None:
    text = (whole.path / "scenario.yaml").read_text(encoding="utf-8")
    assert "split: {train: 0.6, val: 0.1, test: 0.2, proxy: 0.1}" in text
    assert "proxy" not in TINY

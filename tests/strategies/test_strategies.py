"""One oracle per strategy: its formula worked out by hand, or ten slow lines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import (
    Asks,
    Batch,
    Images,
    LocalTraining,
    Recovery,
    Replies,
    Reply,
    Select,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import calibrated, fedavg
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.learning.constraints import Mask, salient
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.labels import wrong_labels
from fedunlearn.learning.local import gradient
from fedunlearn.learning.tasks import Fit, Gradient, Relabel
from strategies.federaser import FedEraser
from strategies.fine_tune import FineTune
from strategies.negation import Negation
from strategies.puf import PUF
from strategies.random_label import RandomLabel
from strategies.retrain import Retrain
from strategies.salun import SalUn
from tests import toy

pytestmark = pytest.mark.rounding


def close(a: Weights, b: Weights, tolerance: float = 1e-5) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=tolerance, rtol=0) for n in a)


# --------------------------------------------------------------------------------- retrain, fine_tune


def test_retraining_without_a_request_is_training() -> None:
    case = toy.case("patients")
    result = toy.run(Retrain().unlearn(replace(case, retain=Select())))
    assert w.digest(result) == w.digest(case.original)


def test_retraining_takes_as_many_rounds_as_the_model_had() -> None:
    """A request after round 1 of 4: retrained for one round, and equal to what training would have given then."""
    case = toy.case("patients", rounds=1)
    result = toy.run(Retrain().unlearn(replace(case, retain=Select())))
    assert w.digest(result) == w.digest(case.original)


def test_fine_tuning_is_federated_averaging_from_the_original() -> None:
    case = toy.case("site")
    local = replace(case.training.local, epochs=2, lr=1e-3)
    expected = fedavg(case.original, case.sites, case.retain, local, range(1), case.seed, "recover")
    result = toy.run(FineTune(rounds=1, local_epochs=2, lr=1e-3).unlearn(case))
    assert w.digest(result) == w.digest(toy.run(expected))


# -------------------------------------------------------------------------------------------- negation


def negated(weights: Weights) -> Weights:
    procedure = Negation(recovery=Recovery(0)).unlearn(replace(toy.case("site"), original=weights))
    return toy.by_hand(procedure, lambda asks: {})


def test_negating_twice_is_the_identity() -> None:
    original = toy.case("site").original
    assert w.digest(negated(negated(original))) == w.digest(original)


def test_negation_turns_the_first_weight_and_nothing_else() -> None:
    original = toy.case("site").original
    once = negated(original)
    assert torch.equal(once["0.weight"], -original["0.weight"])
    assert all(torch.equal(once[name], original[name]) for name in original if name != "0.weight")


# ------------------------------------------------------------------------------------------------- puf


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_a_special_round_with_eta_0_is_the_identity(wish: str) -> None:
    case = toy.case(wish)
    result = toy.run(PUF(eta=0.0, recovery=Recovery(0)).unlearn(case))
    assert w.digest(result) == w.digest(case.original)


def test_a_regular_round_with_eta_0_is_federated_averaging_with_the_leavers_update_at_zero() -> None:
    case = toy.case("site")
    result = toy.run(PUF(eta=0.0, round="regular", recovery=Recovery(0)).unlearn(case))
    replies = {
        site: toy.answer(
            Fit(case.original, case.retain, case.training.local, derive(case.seed, "retain", site)), site
        )
        for site in case.sites
    }
    idle = Reply(case.original, case.lost["west"])
    expected = w.average(
        [r.weights or {} for r in (*replies.values(), idle)], [r.count for r in (*replies.values(), idle)]
    )
    assert close(result, expected)


@pytest.mark.parametrize("round", ["special", "regular"])
def test_puf_is_its_formula(round: str) -> None:
    """Two holders with n_u = 8 and 4, three hospitals that retain 16, 20 and 24; the images of the round are n."""
    case, eta = toy.case("patients"), 1.5
    result = toy.run(PUF(eta=eta, round=round, recovery=Recovery(0)).unlearn(case))  # type: ignore[arg-type]
    n = {"special": 8 + 4, "regular": 8 + 4 + 16 + 20 + 24}[round]
    expected = {name: x.double() for name, x in case.original.items()}
    plan = [("north", 8, "forget", -eta), ("east", 4, "forget", -eta)]
    if round == "regular":
        plan += [("north", 16, "retain", 1.0), ("east", 20, "retain", 1.0), ("west", 24, "retain", 1.0)]
    for site, count, what, sign in plan:
        select = case.forget if what == "forget" else case.retain
        reply = toy.answer(Fit(case.original, select, case.training.local, derive(7, what, site)), site)
        assert reply.count == count
        assert reply.weights is not None
        for name in expected:
            expected[name] += sign * count / n * (reply.weights[name].double() - case.original[name].double())
    assert all(torch.allclose(result[name].double(), expected[name], atol=1e-5) for name in expected)


def test_puf_leaves_batch_norm_statistics_alone() -> None:
    case = toy.case("site", norm=True)
    result = toy.run(PUF(eta=50.0, recovery=Recovery(0)).unlearn(case), toy.ToyLink(norm=True))
    assert all(torch.equal(result[name], case.original[name]) for name in case.layout.buffers)


# ------------------------------------------------------------------------------------------- federaser


@pytest.mark.parametrize("norm", ["layer", "model"])
def test_federaser_without_a_leaver_and_with_the_stored_directions_is_replay(norm: str) -> None:
    """Hospitals that answer a calibration with any multiple of their stored update give back the original model."""
    training = toy.case("site")
    case = replace(training, sites=toy.SITES, kept=dict.fromkeys(toy.SITES, 24), retain=Select())
    rounds, got = iter(range(1, case.rounds)), toy.trained()[2].got

    def reply(asks: Asks) -> Replies:
        t = next(rounds)
        return {site: Reply(w.add(task.weights, got[t, site], 0.25), 24) for site, task in asks.items()}  # type: ignore[attr-defined]

    result = toy.by_hand(FedEraser(every=1, norm=norm).unlearn(case), reply)  # type: ignore[arg-type]
    assert list(rounds) == []
    assert close(result, training.original, 1e-4)


def test_federaser_starts_from_the_initial_weights_and_the_first_stored_round_of_the_stayers() -> None:
    """w_1 = w_0 + (24 D_north + 24 D_east) / 48: nothing of west, and nothing trained."""
    case, got = toy.case("site"), toy.trained()[2].got
    (ask, _) = next(FedEraser().unlearn(case)).values()
    assert isinstance(ask, Fit)
    expected = {n: x + 0.5 * (got[0, "north"][n] + got[0, "east"][n]) for n, x in case.initial.items()}
    assert close(ask.weights, expected, 1e-6)
    assert ask.training.epochs == 2  # ceil(0.5 * 4)


def test_federaser_calibrates_in_the_stored_rounds_only() -> None:
    log = toy.outcome(FedEraser(every=3, r=0.3), "site").log
    assert log.updates == {(t, site) for t in (0, 3) for site in ("north", "east")}
    assert log.asked == [("north", 0), ("east", 0)]


def test_calibration_by_hand() -> None:
    """|stored| = 5 and 2, |fresh| = 10 and 1: layer by layer times 1/2 and 2; as one vector times sqrt(29 / 101)."""
    stored = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([2.0]), "mean": torch.tensor([9.0])}
    fresh = {"a": torch.tensor([0.0, 10.0]), "b": torch.tensor([-1.0]), "mean": torch.tensor([7.0])}
    by_layer = calibrated(stored, fresh, [("a",), ("b",)])
    assert close(by_layer, {"a": torch.tensor([0.0, 5.0]), "b": torch.tensor([-2.0]), "mean": fresh["mean"]})
    whole = calibrated(stored, fresh, [("a", "b")])
    scale = math.sqrt(29 / 101)
    assert close(whole, {"a": fresh["a"] * scale, "b": fresh["b"] * scale, "mean": fresh["mean"]})


def test_a_calibration_that_moved_nothing_counts_as_zero() -> None:
    result = calibrated({"a": torch.ones(2)}, {"a": torch.zeros(2)}, [("a",)])
    assert torch.equal(result["a"], torch.zeros(2))
    result = calibrated({"a": torch.zeros(2)}, {"a": torch.ones(2)}, [("a",)])
    assert torch.equal(result["a"], torch.zeros(2))


# ---------------------------------------------------------------------------------------- random_label


def test_wrong_labels_are_never_right_and_uniform_over_the_others() -> None:
    labels = torch.arange(40_000) % 4
    wrong = wrong_labels(labels, 4, seed=1)
    assert not bool((wrong == labels).any())
    assert (int(wrong.min()), int(wrong.max())) == (0, 3)
    for label in range(4):
        counts = torch.bincount(wrong[labels == label], minlength=4)
        others = [int(n) for i, n in enumerate(counts) if i != label]
        # each is Binomial(10 000, 1/3): 3333 with a standard deviation of 47
        assert all(abs(n - 10_000 / 3) < 4 * 47 for n in others)
    assert torch.equal(wrong, wrong_labels(labels, 4, seed=1))
    assert not torch.equal(wrong, wrong_labels(labels, 4, seed=2))


def test_with_two_classes_the_wrong_label_is_the_other_one() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    assert torch.equal(wrong_labels(labels, 2, seed=5), 1 - labels)


def test_holders_train_on_relabelled_and_retained_images_with_labels_drawn_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every epoch shows each image once, and always under the same label: wrong for the 8, true for the 16 others."""
    case, seen = toy.case("patients"), list[tuple[int, int]]()

    @dataclass(frozen=True)
    class Spy:
        def __call__(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
            seen.extend(zip(batch.rows.tolist(), batch.targets.tolist(), strict=True))
            return CrossEntropy()(module, batch)

    own = replace(learnt("classification"), objective=Spy())
    monkeypatch.setattr("fedunlearn.learning.local.learnt", lambda kind: own)
    task = Relabel(case.original, case.forget, case.retain, case.training.local, 1, 2)
    reply = toy.answer(task, "north")
    assert reply.count == 24
    true = dict(zip(toy.images("north").rows.tolist(), toy.images("north").targets.tolist(), strict=True))
    forget = set(toy.select("north", case.forget).rows.tolist())
    assert len(seen) == 4 * 24
    assert len(set(seen)) == 24
    assert all((label != true[row]) == (row in forget) for row, label in seen)


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_random_label_asks_everyone_in_every_epoch(wish: str) -> None:
    """West, which leaves with everything it has, takes part in the rounds under other labels, and in no recovery."""
    log = toy.outcome(RandomLabel(epochs=2, recovery=Recovery(1)), wish).log
    stay = ("north", "east") if wish == "site" else toy.SITES
    assert log.asked == [(site, t) for t in (0, 1) for site in toy.SITES] + [(site, 2) for site in stay]


@pytest.mark.parametrize("labels", ["wrong", "uniform"])
@pytest.mark.parametrize("strategy", [RandomLabel, SalUn])
def test_an_image_keeps_its_other_label_through_all_epochs(strategy: Any, labels: Any) -> None:
    tasks: list[Any] = []

    class Watch(toy.Asked):
        def round(self, round: object) -> None:
            tasks.extend(round.asks.values())  # type: ignore[attr-defined]

    toy.run(strategy(labels=labels, epochs=2).unlearn(toy.case("site")), watchers=[Watch(toy.Log())])
    one, other = (task for task in tasks if isinstance(task, Relabel))
    assert one.labels == other.labels
    assert one.seed != other.seed
    assert one.how == other.how == labels
    assert one.training.epochs == 1


def test_the_average_of_the_first_epoch_is_a_step_of_one_loss_of_all_images() -> None:
    """Plain SGD, one batch a hospital: West's 24 images under other labels, the others' 48 under their own."""
    case, lr = toy.case("site"), 0.05
    plain = replace(case.training.local, batch_size=100, optimizer="sgd", momentum=0.0, lr=lr)
    result = toy.run(
        RandomLabel(epochs=1).unlearn(replace(case, training=replace(case.training, local=plain)))
    )
    parts = [toy.images(site) for site in toy.SITES]
    labels = wrong_labels(parts[2].targets, toy.CLASSES, derive(case.seed, "labels", "west"))
    pixels, rows = (torch.cat([getattr(x, name) for x in parts]) for name in ("pixels", "rows"))
    images = Images(pixels, torch.cat([parts[0].targets, parts[1].targets, labels]), rows)
    slope = gradient(toy.ToyLocal("north", toy.network(), toy.Log()), case.original, images)
    # sums of 72 slopes below 20, times 0.05: 72 roundings of 1 are 72 * 2^-24
    assert close(result, {name: case.original[name] - lr * slope[name] for name in slope}, 5e-6)


# ----------------------------------------------------------------------------------------------- salun


def test_salun_with_everything_salient_is_random_label() -> None:
    case = toy.case("patients")
    salun, plain = (
        SalUn(fraction=1.0, epochs=2, recovery=Recovery(1)),
        RandomLabel(epochs=2, recovery=Recovery(1)),
    )
    assert w.digest(toy.run(salun.unlearn(case))) == w.digest(toy.run(plain.unlearn(case)))


def test_the_mask_holds_the_largest_entries_of_all_parameters_together() -> None:
    gradient = {"a": torch.tensor([[0.1, -9.0], [3.0, 0.0]]), "b": torch.tensor([-2.0, 2.0])}
    mask = salient(gradient, 0.5)
    assert mask["a"].tolist() == [[False, True], [True, False]]
    assert mask["b"].tolist() == [True, False]  # a tie: the earlier one


@pytest.mark.parametrize("fraction", [0.1, 1 / 3, 0.5, 0.99, 1.0])
def test_the_mask_has_exactly_its_fraction(fraction: float) -> None:
    gradient = {"a": torch.randn(31, 7, generator=torch.Generator().manual_seed(1)), "b": torch.zeros(100)}
    assert sum(int(m.sum()) for m in salient(gradient, fraction).values()) == int(fraction * 317)


def test_the_mask_comes_from_the_mean_gradient_of_all_images_to_forget() -> None:
    """8 images at north, 4 at east: the server's average is the gradient of one mean loss over the 12."""
    case = toy.case("patients")
    replies = {site: toy.answer(Gradient(case.original, case.forget), site) for site in case.holders}
    average = w.average([r.arrays for r in replies.values()], [r.count for r in replies.values()])
    network = toy.network()
    network.load(case.original)
    network.module.eval()
    both = [toy.select(site, case.forget) for site in case.holders]
    outputs = network.module(torch.cat([x.pixels for x in both]))
    loss = torch.nn.functional.cross_entropy(outputs, torch.cat([x.targets for x in both]))
    expected = torch.autograd.grad(loss, list(network.parameters().values()))
    assert close(average, dict(zip(network.parameters(), expected, strict=True)), 1e-6)


@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(2, 8, "adam", 0.05, weight_decay=0.1),
        LocalTraining(2, 8, "adamw", 0.05, weight_decay=0.1),
        LocalTraining(2, 8, "sgd", 0.05, momentum=0.9, weight_decay=0.1, clip=1.0),
    ],
    ids=lambda local: local.optimizer,
)
@pytest.mark.parametrize(("norm", "recovery_rounds"), [(False, 0), (False, 2), (True, 2)])
def test_masked_out_weights_never_move(local: LocalTraining, norm: bool, recovery_rounds: int) -> None:
    """Bit for bit, through momentum, weight decay, Adam's moments, two holders' average and recovery rounds."""
    case = toy.case("patients", norm=norm)
    case = replace(case, training=replace(case.training, local=local))
    if recovery_rounds == 0:  # 16 images and 8: thirds, so that averaging equals rounds
        case = replace(case, retain=case.forget)
    masks: list[Mask] = []

    class Watch(toy.Asked):
        def round(self, round: object) -> None:
            for task in round.asks.values():  # type: ignore[attr-defined]
                if isinstance(task, (Relabel, Fit)):
                    assert isinstance(task.constraint, Mask), "every training happens under the mask"
                    masks.append(task.constraint)

    salun = SalUn(fraction=0.3, recovery=Recovery(recovery_rounds))
    result = toy.run(salun.unlearn(case), toy.ToyLink(norm=norm), [Watch(toy.Log())])
    assert len(masks) == 3 * (salun.epochs + recovery_rounds)
    total = moved = 0
    for name, mask in masks[0].mask.items():
        assert torch.equal(result[name][~mask], case.original[name][~mask])
        moved += int((result[name] != case.original[name]).sum())
        total += int(mask.sum())
    assert total == int(0.3 * sum(case.original[name].numel() for name in case.layout.parameters))
    assert moved > 0.9 * total

"""The strategies of arXiv 2606.16180 as we read them: what each must be equal to, and what it must not touch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import Asks, Batch, Images, Recovery, Replies, Select, Strategy, Weights
from fedunlearn.learning.kinds import CrossEntropy
from fedunlearn.learning.labels import retained_labels, shuffled_labels, uniform_labels
from fedunlearn.learning.local import fit
from fedunlearn.learning.models import Network
from fedunlearn.learning.objectives import Signed
from fedunlearn.learning.tasks import Contrast, Fit, Relabel
from strategies.fine_tune import FineTune
from strategies.fix_decoder import FixDecoder
from strategies.learn_noise import Learn, LearnNoise, noise
from strategies.learn_others import LearnOthers, Replace
from strategies.max_loss import MaxLoss
from strategies.noisy_label import NoisyLabel
from strategies.random_encoder import RandomEncoder
from strategies.retain_label import RetainLabel
from tests import toy

pytestmark = pytest.mark.rounding

FORGET, RETAIN = Select(only="patients"), Select(without=("patients",))


@dataclass
class Clinic:
    """A hospital of chosen images: ``forget`` those that a `Select` with ``only`` names, ``retain`` all others."""

    forget: Images
    retain: Images
    site: str = "clinic"
    classes: int = toy.CLASSES
    network: Network = field(default_factory=toy.network)

    def images(self, select: Select) -> Images:
        return self.forget if select.only else self.retain


def clinic() -> Clinic:
    return Clinic(toy.select("north", FORGET), toy.select("north", RETAIN))


def asked(strategy: Strategy, wish: str) -> tuple[Weights, list[Asks]]:
    rounds = list[Asks]()

    def reply(asks: Asks) -> Replies:
        rounds.append(asks)
        return {site: toy.answer(task, site) for site, task in asks.items()}

    return toy.by_hand(strategy.unlearn(toy.case(wish)), reply), rounds


# ----------------------------------------------------------------------------------------------- labels


def test_shuffled_labels_stay_within_a_volume_and_keep_their_frequencies() -> None:
    maps = torch.randint(3, (4, 5, 6, 7), generator=torch.Generator().manual_seed(0))
    found = shuffled_labels(maps, seed=1)
    assert found.shape == maps.shape and not torch.equal(found, maps)
    for one, other in zip(maps, found, strict=True):
        assert torch.equal(one.flatten().bincount(), other.flatten().bincount())
    classes = torch.arange(50)
    assert torch.equal(shuffled_labels(classes, 1).sort().values, classes)
    assert not torch.equal(shuffled_labels(classes, 1), classes)


def test_uniform_labels_may_be_right() -> None:
    """Of 4000 labels a quarter of each class, and a quarter right; the deviation of a count is 27."""
    labels = torch.zeros(4000, dtype=torch.int64)
    assert (uniform_labels(labels, 4, seed=2).bincount(minlength=4) - 1000).abs().max() < 5 * 27


def test_retained_labels_are_those_of_retained_images() -> None:
    retained = torch.stack([torch.full((2, 2, 2), value) for value in (5, 6)])
    found = retained_labels(torch.zeros(40, 2, 2, 2, dtype=torch.int64), retained, seed=0)
    assert {tuple(one.flatten().tolist()) for one in found} == {(5,) * 8, (6,) * 8}
    own = torch.tensor([1, 2, 3])
    assert retained_labels(own, own[:0], seed=0).tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("strategy", "how"),
    [(NoisyLabel(), "shuffled"), (NoisyLabel(noise="uniform"), "uniform"), (RetainLabel(), "retained")],
)
@pytest.mark.parametrize("wish", ["patients", "site"])
def test_holders_learn_other_labels_while_the_rest_trains_on(strategy: Strategy, how: str, wish: str) -> None:
    _, rounds = asked(replace(strategy, lr=0.5), wish)  # type: ignore[type-var]
    case = toy.case(wish)
    assert [sorted(asks) for asks in rounds] == [sorted(toy.SITES)] + [sorted(case.sites)] * 2
    for site, task in rounds[0].items():
        if site in case.holders:
            assert isinstance(task, Relabel)
            assert (task.how, task.training.lr) == (how, 0.5)
        else:
            assert isinstance(task, Fit)
            assert task.training == case.training.local


@pytest.mark.parametrize("how", ["uniform", "shuffled", "retained"])
def test_relabelling_is_training_on_the_images_put_together_by_hand(how: str) -> None:
    at, start = clinic(), toy.trained()[1]
    n = len(at.forget)
    labels = {
        "uniform": uniform_labels(at.forget.targets, toy.CLASSES, 5),
        "shuffled": shuffled_labels(at.forget.targets, 5),
        "retained": retained_labels(at.forget.targets, at.retain.targets, 5),
    }[how]
    together = Images(
        torch.cat([at.forget.pixels, at.retain.pixels]),
        torch.cat([labels, at.retain.targets]),
        torch.arange(n + len(at.retain)),
    )
    expected = fit(at, start, together, toy.TRAINING.local, seed=3)
    task = Relabel(start, FORGET, RETAIN, toy.TRAINING.local, 3, 5, how=how)  # type: ignore[arg-type]
    reply = task(at)
    assert reply.weights is not None and reply.count == n + len(at.retain)
    assert w.digest(reply.weights) == w.digest(expected)


# ------------------------------------------------------------------------------------------------- loss


def slope(objective: Signed, scores: Tensor, batch: Batch) -> Tensor:
    scores = scores.clone().requires_grad_()
    (found,) = torch.autograd.grad(objective(nn.Identity(), replace(batch, inputs=scores)), scores)
    return found


def test_beyond_the_ceiling_only_the_retained_images_count() -> None:
    """Cross-entropy of two even scores is log 2 = .69: below a ceiling of 1 ascent goes on, above .5 it has ended."""
    scores, targets = torch.zeros(2, 2), torch.tensor([0, 1])
    batch = Batch(scores, targets, targets, {"forget": torch.tensor([True, False])})
    free, below, above = (
        slope(Signed(CrossEntropy(), -1.0, 1.0, ceiling), scores, batch) for ceiling in (None, 1.0, 0.5)
    )
    assert torch.equal(free, below)
    assert torch.equal(free[0], torch.tensor([0.25, -0.25]))  # -1/2 (p - y), half the batch
    assert torch.equal(above, torch.stack([torch.zeros(2), free[1]]))


def test_max_loss_ends_by_itself() -> None:
    """All images to forget are above a ceiling of nearly nothing: a leaver without retained images stays put."""
    case = toy.case("site")
    _, rounds = asked(MaxLoss(ceiling=1e-9, recovery=Recovery(0)), "site")
    task = rounds[0]["west"]
    assert isinstance(task, Contrast)
    reply = toy.answer(task, "west")
    assert reply.weights is not None
    assert w.digest(reply.weights) == w.digest(case.original)
    moved = toy.answer(replace(task, ceiling=None), "west").weights
    assert moved is not None and w.digest(moved) != w.digest(case.original)


def test_max_loss_does_not_run_away() -> None:
    """Plain ascent ends at most one step beyond the ceiling of 2 nats, however long; without one it goes far beyond."""
    start, at = toy.trained()[1], clinic()
    local = replace(toy.TRAINING.local, epochs=200, optimizer="sgd", lr=0.02, momentum=0.0)
    losses = []
    for ceiling in (2.0, None):
        new = Contrast(start, FORGET, None, local, 0, lose=1.0, ceiling=ceiling)(at).weights
        assert new is not None
        at.network.load(new)
        with torch.inference_mode():
            losses.append(float(CrossEntropy()(at.network.module, batch_of(at.forget))))
    assert 2.0 < losses[0] < 2.5
    assert not losses[1] < 20.0  # it ends in NaN


def batch_of(images: Images) -> Batch:
    return Batch(images.pixels, images.targets, images.rows)


# ------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("norm", [False, True])
def test_a_random_encoder_is_untrained_and_the_decoder_as_it_was(norm: bool) -> None:
    case = toy.case("patients", norm=norm)
    result = toy.run(RandomEncoder(recovery=Recovery(rounds=0)).unlearn(case), toy.ToyLink(norm=norm))
    assert case.layout.decoder == case.layout.head == ("6.weight", "6.bias")
    for name in case.layout.decoder:
        assert torch.equal(result[name], case.original[name])
    for name in case.layout.encoder:
        assert torch.equal(result[name].flatten().sort().values, case.initial[name].flatten().sort().values)
    assert not torch.equal(result["0.weight"], case.initial["0.weight"])
    for name in case.layout.buffers:
        assert torch.equal(result[name], case.initial[name])


def test_a_fixed_decoder_does_not_move_and_the_encoder_does() -> None:
    case = toy.case("patients")
    result = toy.run(FixDecoder(rounds=2).unlearn(case))
    for name in case.layout.parameters:
        assert torch.equal(result[name], case.original[name]) == (name in case.layout.decoder)


def test_without_a_decoder_to_fix_it_is_fine_tuning() -> None:
    case = toy.case("patients")
    open_ended = replace(case, layout=replace(case.layout, decoder=()))
    expected = toy.run(FineTune(rounds=2).unlearn(case))
    assert w.digest(toy.run(FixDecoder(rounds=2).unlearn(open_ended))) == w.digest(expected)


# ------------------------------------------------------------------------------------------------- data


def test_without_anything_to_replace_learning_others_is_fine_tuning() -> None:
    case = toy.case("patients")
    expected = toy.run(FineTune(rounds=2).unlearn(case))
    assert w.digest(toy.run(LearnOthers(rounds=2).unlearn(replace(case, lost={})))) == w.digest(expected)
    assert w.digest(toy.run(LearnOthers(rounds=2).unlearn(case))) != w.digest(expected)


def test_others_take_the_places_of_those_to_forget() -> None:
    _, rounds = asked(LearnOthers(rounds=1), "patients")
    case = toy.case("patients")
    for site, task in rounds[0].items():
        assert isinstance(task, Replace)
        reply = toy.answer(task, site)
        assert reply.count == len(toy.images(site)) == case.kept[site] + case.lost.get(site, 0)


def two_sided(order: Tensor) -> Clinic:
    """Pixels to forget are half -1 and half 1, in an order of choice: mean 0 and deviation 1, exactly."""
    at, size = clinic(), torch.Size((1, *toy.SHAPE)).numel()
    flat = torch.tensor([-1.0, 1.0]).repeat(len(at.forget) * size // 2)
    pixels = flat[order].view(len(at.forget), *toy.SHAPE)
    return replace(at, forget=replace(at.forget, pixels=pixels))


def test_noise_learning_sees_nothing_of_the_images_but_their_mean_and_deviation() -> None:
    n = len(clinic().forget) * torch.Size(toy.SHAPE).numel()
    orders = torch.arange(n), torch.randperm(n, generator=torch.Generator().manual_seed(4))
    task = Learn(toy.trained()[1], FORGET, RETAIN, toy.TRAINING.local, 3, noise=9)
    one, other = (task(two_sided(order)).weights for order in orders)
    assert one is not None and other is not None
    assert w.digest(one) == w.digest(other)
    different = replace(task, noise=10)(two_sided(orders[0])).weights
    assert different is not None and w.digest(different) != w.digest(one)


def test_noise_has_the_mean_and_the_deviation_of_the_pixels() -> None:
    """Of 20000 numbers: standard errors .02 and .015 at a deviation of 3."""
    pixels = torch.arange(20000.0).remainder(2).mul(6).add(2).view(2, 1, 10, 1000)  # 2 and 8
    found = noise(pixels, seed=1)
    assert found.shape == pixels.shape
    assert float(found.mean()) == pytest.approx(5, abs=0.1)
    assert float(found.std()) == pytest.approx(3, abs=0.08)


def test_noise_learning_keeps_labels_and_asks_the_others_to_train_on() -> None:
    case = toy.case("site")
    _, rounds = asked(LearnNoise(rounds=2, recovery=Recovery(1)), "site")
    assert [sorted(asks) for asks in rounds] == [sorted(toy.SITES)] * 2 + [sorted(case.sites)]
    kinds: Mapping[str, str] = {site: type(task).__name__ for site, task in rounds[1].items()}
    assert kinds == {"north": "Fit", "east": "Fit", "west": "Learn"}

"""The mechanics of arXiv 2402.00351 and their kin: each loss against a slow one, and what must not move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import Asks, Batch, Images, Recovery, Replies, Select, Strategy, Weights
from fedunlearn.federation.procedures import mean
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.learning.labels import Labels, gaussian_labels, replaced, retained_labels, uniform_labels
from fedunlearn.learning.local import fit
from fedunlearn.learning.mechanics import (
    Climb,
    Imitate,
    Imitation,
    Instead,
    OtherLabels,
    Relearn,
    Terms,
    noise,
)
from fedunlearn.learning.models import Network, encoded, features
from fedunlearn.learning.models.volumes import UNet3D
from fedunlearn.learning.objectives import Signed, marked
from fedunlearn.learning.tasks import Fit
from strategies import noise_images
from strategies.cf_k import CFk
from strategies.eu_k import EUk
from strategies.max_loss import MaxLoss
from strategies.noise_encoder import NoiseEncoder
from strategies.noise_images import Learn, NoiseImages
from strategies.noisy_label import NoisyLabel
from strategies.random_encoder import RandomEncoder
from strategies.reset_encoder import ResetEncoder
from strategies.retain_label import RetainLabel
from tests import toy, toy_volumes

pytestmark = pytest.mark.rounding

FORGET, RETAIN = Select(only="patients"), Select(without=("patients",))
ALPHA = 0.2
Optimizer = Literal["adam", "adahessian"]
MECHANICS = [NoisyLabel(), RetainLabel(), MaxLoss(), RandomEncoder(), NoiseEncoder()]


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


# ------------------------------------------------------------------------------------------ other labels


def test_uniform_labels_may_be_right() -> None:
    """Of 4000 labels a quarter of each class, and a quarter right; the deviation of a count is 27."""
    labels = torch.zeros(4000, dtype=torch.int64)
    assert (uniform_labels(labels, 4, seed=2).bincount(minlength=4) - 1000).abs().max() < 5 * 27


def test_gaussian_labels_have_mean_and_deviation_of_all_labels() -> None:
    """Half 4 and half 6 are N(5, 1): rounded, a number of standard error .016 on average, deviation 1.04 (1 + 1/12)."""
    labels, retained = torch.full((4000,), 4), torch.full((4000,), 6)
    found = gaussian_labels(labels, retained, 11, seed=1)
    assert found.dtype == torch.int64
    assert float(found.double().mean()) == pytest.approx(5, abs=0.08)
    assert float(found.double().std()) == pytest.approx((1 + 1 / 12) ** 0.5, abs=0.06)
    assert gaussian_labels(labels, retained, 6, seed=1).max() == 5, "no label is beyond the classes"
    alone = torch.tensor([3])
    assert torch.equal(gaussian_labels(alone, alone[:0], 11, seed=1), alone), "one label has no deviation"


def test_retained_labels_are_those_of_retained_images() -> None:
    retained = torch.stack([torch.full((2, 2, 2), value) for value in (5, 6)])
    found = retained_labels(torch.zeros(40, 2, 2, 2, dtype=torch.int64), retained, 9, seed=0)
    assert {tuple(one.flatten().tolist()) for one in found} == {(5,) * 8, (6,) * 8}
    own = torch.arange(4)
    assert torch.equal(retained_labels(own, own[:0], 4, seed=0), gaussian_labels(own, own[:0], 4, seed=0))


# ------------------------------------------------------------------------------------------------ losses


def together(step: int = 0) -> tuple[Batch, Tensor]:
    """All images of the clinic as one batch, and which are to forget."""
    at = clinic()
    pixels, targets, rows = (
        torch.cat([getattr(x, name) for x in (at.forget, at.retain)])
        for name in ("pixels", "targets", "rows")
    )
    forget = torch.arange(len(rows)) < len(at.forget)
    return Batch(pixels, targets, rows, {"forget": forget}, step), forget


def terms(forget: Tensor) -> Terms:
    """What a hospital counts whose images are one batch: factors that make both halves means over their own."""
    n, m = int(forget.sum()), int((~forget).sum())
    return Terms(5, ALPHA * (n + m) / n, (n + m) / m, 1)


@pytest.mark.parametrize("how", ["gaussian", "uniform", "retained"])
def test_the_loss_under_other_labels_is_its_formula(how: Labels) -> None:
    batch, forget = together()
    module = toy.network().module
    toy.network().load(toy.trained()[1])
    parts, outputs = terms(forget), module(batch.image)
    labels = replaced(how, batch.targets[forget], batch.targets[~forget], toy.CLASSES, parts.drawn(batch))
    slow = F.cross_entropy(outputs[~forget], batch.targets[~forget])
    slow = slow + ALPHA * F.cross_entropy(outputs[forget], labels)
    assert torch.allclose(OtherLabels(CrossEntropy(), parts, how)(module, batch), slow, rtol=1e-5)


@pytest.mark.parametrize("instead", ["others", "noise", "noise images"])
@pytest.mark.parametrize("encoder", [False, True])
def test_the_distance_to_a_teacher_is_its_formula(instead: Instead, encoder: bool) -> None:
    """The teacher is another model, put into the same network for the slow version."""
    batch, forget = together()
    network, (initial, original, _) = toy.network(), toy.trained()
    head, parts = network.layout.head[0], terms(forget)

    def answer(weights: Weights, inputs: Tensor) -> Tensor:
        network.load(weights)
        module = network.module.eval()
        return features(module, head, inputs) if encoder else module(inputs)

    x, generator = batch.image, torch.Generator().manual_seed(parts.drawn(batch))
    t, h = answer(original, x), answer(initial, x)
    n = int(forget.sum())
    match instead:
        case "others":
            other = torch.stack([t[~forget][number % int((~forget).sum())] for number in range(n)])
        case "noise":
            other = torch.randn(t[forget].shape, generator=generator) * t.std(correction=0) + t.mean()
        case "noise images":
            image = torch.randn(x[forget].shape, generator=generator) * x.std(correction=0) + x.mean()
            other = answer(original, image.clamp(x.min(), x.max()))
    slow = (h[~forget] - t[~forget]).square().mean() + ALPHA * (h[forget] - other).square().mean()
    network.load(initial)
    found = Imitation(original, parts, instead, head if encoder else None)(network.module.train(), batch)
    assert torch.allclose(found, slow, rtol=1e-5)
    assert network.module.training
    assert w.digest(network.read()) == w.digest(initial)


def test_what_is_drawn_is_drawn_anew_at_every_step() -> None:
    """The loss of one batch is the same at the same step, and another at the next; `fit` counts the steps."""
    network, original = toy.network(), toy.trained()[1]
    network.load(original)
    batch, forget = together()
    for objective in (
        OtherLabels(CrossEntropy(), terms(forget), "gaussian"),
        Imitation(original, terms(forget), "noise", network.layout.head[0]),
    ):
        first, again, second = (
            float(objective(network.module, replace(batch, step=s)).detach()) for s in (0, 0, 1)
        )
        assert first == again != second
    seen = list[int]()

    def watch(module: nn.Module, batch: Batch) -> Tensor:
        seen.append(batch.step)
        return CrossEntropy()(module, batch)

    at = clinic()
    local = replace(toy.TRAINING.local, epochs=2, batch_size=5, micro_batch=3)
    fit(at, original, at.retain, local, 0, watch)
    steps = 2 * -(-len(at.retain) // 5)
    assert sorted(set(seen)) == list(range(steps)) and len(seen) > steps


def test_a_batch_without_retained_images_learns_noise_for_outputs() -> None:
    network, original = toy.network(), toy.trained()[1]
    network.load(original)
    batch, forget = together()
    batch = replace(batch, extra={"forget": torch.ones_like(forget)})
    parts = Terms(5, ALPHA, 1.0, 1)
    outputs = network.module(batch.image)
    other = noise(outputs, 0.0, 1.0, torch.Generator().manual_seed(parts.drawn(batch)))
    found = Imitation(original, parts, "others")(network.module, batch)
    assert torch.allclose(found, ALPHA * (outputs - other).square().mean(), rtol=1e-5)


def test_whoever_has_nothing_to_forget_and_imitates_itself_stays_where_it_is() -> None:
    """The distance is 0 and so is every step; with a teacher elsewhere it moves."""
    initial, original, _ = toy.trained()
    at = replace(clinic(), forget=toy.select("west", FORGET))
    assert not len(at.forget)
    for encoder in (False, True):
        task = Imitate(
            original, original, FORGET, RETAIN, toy.TRAINING.local, 3, ALPHA, "noise images", encoder
        )
        stayed, moved = task(at).weights, replace(task, teacher=initial)(at).weights
        assert stayed is not None and moved is not None
        assert w.digest(stayed) == w.digest(original) != w.digest(moved)


def test_max_loss_climbs_and_descends_means_over_own_images() -> None:
    original, at, training = toy.trained()[1], clinic(), toy.TRAINING.local
    one = Climb(original, FORGET, RETAIN, training, 3, ALPHA, 2.0)(at).weights
    n, m = len(at.forget), len(at.retain)
    both = Signed(CrossEntropy(), -ALPHA * (n + m) / n, (n + m) / m, 2.0)
    assert one is not None
    assert w.digest(one) == w.digest(fit(at, original, marked(at.forget, at.retain), training, 3, both))


def test_without_anything_to_forget_noisy_labels_are_training() -> None:
    """To within rounding: the loss is multiplied by 1 once more."""
    original, at = toy.trained()[1], replace(clinic(), forget=toy.select("west", FORGET))
    found = Relearn(original, FORGET, RETAIN, toy.TRAINING.local, 3, ALPHA, "gaussian")(at).weights
    expected = Fit(original, RETAIN, toy.TRAINING.local, 3)(at).weights
    assert found is not None and expected is not None
    assert all(torch.allclose(found[name], x, atol=1e-5) for name, x in expected.items())


# -------------------------------------------------------------------------------------------- federation


@pytest.mark.parametrize("strategy", MECHANICS)
@pytest.mark.parametrize("wish", ["patients", "site"])
def test_everybody_takes_part_and_an_image_to_forget_counts_alpha(strategy: Strategy, wish: str) -> None:
    """Of 24 images, as many as are to be forgotten count a fifth, rounded."""
    result, rounds = asked(replace(strategy, rounds=1), wish)  # type: ignore[type-var]
    assert [sorted(asks) for asks in rounds] == [sorted(toy.SITES)]
    replies = {site: toy.answer(task, site) for site, task in rounds[0].items()}
    counts = {site: len(toy.select(site, Select(only=wish))) for site in toy.SITES}
    assert {site: reply.count for site, reply in replies.items()} == {
        site: max(1, round(24 - n + ALPHA * n)) for site, n in counts.items()
    }
    average = mean(replies)
    assert all(torch.allclose(x, average[name], atol=1e-6) for name, x in result.items())


@pytest.mark.parametrize("strategy", MECHANICS)
def test_a_hospital_that_was_emptied_earlier_has_no_vote(strategy: Strategy) -> None:
    asks = next(strategy.unlearn(toy.case("site", before=("everyone",))))
    counts = {site: toy.answer(task, site).count for site, task in asks.items()}
    # everyone: all 24 images of north and the 4 that it shares with east; west's 24 count a fifth each
    assert counts == {"north": 0, "east": 20, "west": 5}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
@pytest.mark.parametrize("strategy", MECHANICS)
def test_a_fixed_decoder_does_not_move_and_the_encoder_does(
    strategy: Strategy, optimizer: Optimizer, norm: bool
) -> None:
    """Through the recovery too; free, the decoder moves."""
    case = toy.case("patients", norm=norm)
    assert case.layout.decoder == case.layout.head == ("6.weight", "6.bias")
    training = replace(case.training, local=replace(case.training.local, optimizer=optimizer, epochs=1))
    case = replace(case, training=training)
    for fix in (True, False):
        own: Strategy = replace(strategy, rounds=1, recovery=Recovery(rounds=1), fix_decoder=fix)  # type: ignore[type-var]
        result = toy.run(own.unlearn(case), toy.ToyLink(norm=norm))
        for name in case.layout.parameters:
            moves = not (fix and name in case.layout.decoder)
            assert torch.equal(result[name], case.original[name]) != moves


def test_the_losses_of_encoders_leave_the_decoder_alone() -> None:
    case = toy.case("patients")
    for strategy in (RandomEncoder(fix_decoder=False), NoiseEncoder(fix_decoder=False)):
        result = toy.run(strategy.unlearn(case))
        for name in case.layout.parameters:  # averages of equal numbers are rounded
            close = torch.allclose(result[name], case.original[name], rtol=1e-6)
            assert close == (name in case.layout.decoder)


@pytest.mark.parametrize("strategy", [RandomEncoder(alpha=1.0, rounds=6), NoiseEncoder(alpha=1.0, rounds=6)])
def test_features_to_forget_go_away_and_retained_ones_stay(strategy: Strategy) -> None:
    """By the mean square that each half's features moved: those to forget at least twice as far at alpha 1."""
    case, network = toy.case("patients"), toy.network()
    result, moved = toy.run(strategy.unlearn(case)), list[float]()
    for select in (FORGET, RETAIN):
        shown = list[Tensor]()
        for weights in (case.original, result):
            network.load(weights)
            with torch.inference_mode():
                pixels = toy.select("north", select).pixels
                shown.append(features(network.module.eval(), case.layout.head[0], pixels))
        moved.append(float((shown[0] - shown[1]).square().mean()))
    assert moved[0] > 2 * moved[1]


# -------------------------------------------------------------------------------- what a decoder is given


def test_a_classifiers_decoder_is_given_the_input_of_its_last_layer() -> None:
    network = toy.network()
    network.load(toy.trained()[1])
    with encoded(network.module, network.layout.head[0]) as seen:
        network.module(pixels := toy.images("north").pixels)
    (found,) = seen
    assert torch.equal(found, features(network.module, network.layout.head[0], pixels))


def test_a_u_net_decodes_nothing_but_what_its_decoder_is_given() -> None:
    """Its outputs, made by hand of the three levels by the decoder's two blocks."""
    network = toy_volumes.network()
    network.load(toy_volumes.trained()[1])
    module, pixels = network.module.eval(), toy_volumes.volumes("north").pixels
    with torch.inference_mode(), encoded(module, network.layout.head[0]) as levels:
        outputs = module(pixels)
        assert [tuple(x.shape[1:]) for x in levels] == [(8, 4, 4, 4), (16, 2, 2, 2), (32, 2, 2, 2)]
        first, second = (module.get_submodule(f"decoder.{number}") for number in (0, 1))
        by_hand = second(torch.cat([levels[0], first(torch.cat([levels[1], levels[2]], 1))], 1))
    assert UNet3D().channels == 8
    assert torch.equal(by_hand, outputs)


# ------------------------------------------------------------------------------------------------- ascent


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
    _, rounds = asked(MaxLoss(ceiling=1e-9), "site")
    task = rounds[0]["west"]
    assert isinstance(task, Climb)
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
        climb = Signed(CrossEntropy(), -1.0, 0.0, ceiling)
        at.network.load(fit(at, start, marked(at.forget), local, 0, climb))
        with torch.inference_mode():
            losses.append(float(CrossEntropy()(at.network.module, batch_of(at.forget))))
    assert 2.0 < losses[0] < 2.5
    assert not losses[1] < 20.0  # it ends in NaN


def batch_of(images: Images) -> Batch:
    return Batch(images.pixels, images.targets, images.rows)


# ---------------------------------------------------------------------------- encoders and images anew


@pytest.mark.parametrize("norm", [False, True])
def test_a_reset_encoder_is_untrained_and_the_decoder_as_it_was(norm: bool) -> None:
    case = toy.case("patients", norm=norm)
    result = toy.run(ResetEncoder(recovery=Recovery(rounds=0)).unlearn(case), toy.ToyLink(norm=norm))
    assert case.layout.decoder == case.layout.head == ("6.weight", "6.bias")
    for name in case.layout.decoder:
        assert torch.equal(result[name], case.original[name])
    for name in case.layout.encoder:
        assert torch.equal(result[name].flatten().sort().values, case.initial[name].flatten().sort().values)
    assert not torch.equal(result["0.weight"], case.initial["0.weight"])
    for name in case.layout.buffers:
        assert torch.equal(result[name], case.initial[name])


@pytest.mark.parametrize("cls", [CFk, EUk])
def test_only_the_last_layers_are_trained_on_or_anew(cls: type[CFk] | type[EUk]) -> None:
    """The toy network ends with two linear layers, 4 and 6; the last draw is training's own in another order."""
    case = toy.case("patients")
    start = toy.run(cls(k=2, recovery=Recovery(rounds=0)).unlearn(case))
    end = toy.run(cls(k=2, recovery=Recovery(rounds=1)).unlearn(case))
    last = [name for name in case.layout.parameters if name.startswith(("4.", "6."))]
    assert last and len(last) < len(case.layout.parameters)
    for name in case.layout.parameters:
        assert torch.equal(end[name], case.original[name]) == (name not in last)
        drawn = cls is EUk and name in last
        reference = case.initial if drawn else case.original
        assert torch.equal(start[name].flatten().sort().values, reference[name].flatten().sort().values)


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
    found = noise_images.noise(pixels, seed=1)
    assert found.shape == pixels.shape
    assert float(found.mean()) == pytest.approx(5, abs=0.1)
    assert float(found.std()) == pytest.approx(3, abs=0.08)


def test_noise_learning_keeps_labels_and_asks_the_others_to_train_on() -> None:
    case = toy.case("site")
    _, rounds = asked(NoiseImages(rounds=2, recovery=Recovery(1)), "site")
    assert [sorted(asks) for asks in rounds] == [sorted(toy.SITES)] * 2 + [sorted(case.sites)]
    kinds: Mapping[str, str] = {site: type(task).__name__ for site, task in rounds[1].items()}
    assert kinds == {"north": "Fit", "east": "Fit", "west": "Learn"}

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import Batch, Form, Images, LocalTraining, Select, Weights
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.kinds.segmentation.learnt import DiceCrossEntropy
from fedunlearn.learning.constraints import Mask
from fedunlearn.learning.kinds import Objective
from fedunlearn.learning.local import batches, each_gradient, fit, gradient, outputs, pieces, scaled, signals
from fedunlearn.learning.models import Network, initial_weights
from fedunlearn.learning.models.volumes import UNet3D
from fedunlearn.learning.objectives import Signed, loss_of, marked
from tests import toy, toy_volumes as volumes

pytestmark = pytest.mark.rounding

ADAM = LocalTraining(
    epochs=2, batch_size=7, optimizer="adam", lr=1e-2
)  # 24 images: three batches of 7 and one of 3


WIDE = 1e-9
"""By how much two ways to the same numbers may differ in float64.

What is added up here is below 1000 and less than 1000 numbers (a layer's inputs, images): each sum is off by at most
1000 * 1000 * 2^-53 = 1.1e-10, and three layers there and back add up to less than ten such.
"""


def local(norm: bool = False) -> toy.ToyLocal:
    return toy.ToyLocal("north", toy.network(norm), toy.Log())


def wide(norm: bool = False) -> toy.ToyLocal:
    return toy.ToyLocal("north", toy.wide_network(norm), toy.Log())


def plain_loop(
    weights: Weights, images: Images, training: LocalTraining, seed: int, fused: bool, norm: bool
) -> Weights:
    """What anyone would write by hand."""
    with torch.random.fork_rng(devices=[]):
        module = toy.ToyNet(norm=norm).build(Form(toy.SHAPE, toy.CLASSES)).to(images.pixels.dtype)
    module.load_state_dict(dict(weights))
    p, lr, decay = list(module.parameters()), training.lr, training.weight_decay
    optimizer: torch.optim.Optimizer
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(p, lr=lr, momentum=training.momentum, weight_decay=decay, fused=fused)
    elif training.optimizer == "adam":
        optimizer = torch.optim.Adam(p, lr=lr, weight_decay=decay, fused=fused)
    else:
        optimizer = torch.optim.AdamW(p, lr=lr, weight_decay=decay, fused=fused)
    generator = torch.Generator().manual_seed(seed)
    module.train()
    for _ in range(training.epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images), training.batch_size):
            pick = order[start : start + training.batch_size]
            optimizer.zero_grad()
            F.cross_entropy(module(images.pixels[pick]), images.targets[pick]).backward()
            if training.clip:
                torch.nn.utils.clip_grad_norm_(p, training.clip)
            optimizer.step()
    return module.state_dict()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "training",
    [
        ADAM,
        replace(ADAM, weight_decay=0.1, clip=0.5),
        replace(ADAM, optimizer="adamw", weight_decay=0.1),
        replace(ADAM, optimizer="sgd", momentum=0.9, lr=0.05),
        replace(ADAM, optimizer="sgd", momentum=0.0, lr=0.05, weight_decay=0.01),
    ],
)
def test_fit_is_the_plain_loop_bit_for_bit(training: LocalTraining, norm: bool) -> None:
    start, images = toy.trained(norm=norm)[0], toy.images("north")
    result = fit(local(norm), start, images, training, seed=11)
    assert w.digest(result) == w.digest(plain_loop(start, images, training, 11, True, norm))
    if not norm:  # a bias before BatchNorm has a gradient of pure rounding, which Adam magnifies
        # In float64: a step of Adam's is as steep as lr / eps = 10^6 where a gradient is all but zero, so that its
        # rounding, 10^-13 of sums below 1000, comes to 10^-7 in the worst case, and in eight steps to less than 10^-5.
        start, images = toy.wide(start), toy.widened(images)
        fused, unfused = (plain_loop(start, images, training, 11, choice, norm) for choice in (True, False))
        assert all(torch.allclose(fused[n], unfused[n], rtol=0, atol=1e-5) for n in fused)


def test_the_seed_decides_and_nothing_else() -> None:
    start, images = toy.trained()[0], toy.images("north")
    state, before = torch.get_rng_state(), w.digest(start)
    first = fit(local(), start, images, ADAM, seed=1)
    fit(local(), toy.trained()[1], images, ADAM, seed=5)  # what the network did in between does not matter
    assert w.digest(fit(local(), start, images, ADAM, seed=1)) == w.digest(first)
    assert w.digest(fit(local(), start, images, ADAM, seed=2)) != w.digest(first)
    assert torch.equal(torch.get_rng_state(), state)
    assert w.digest(start) == before


def test_no_images_no_change() -> None:
    start, none = toy.trained()[1], toy.select("north", Select(without=("everyone",)))
    assert len(none) == 0
    worker = local()
    assert w.digest(fit(worker, start, none, ADAM, seed=1)) == w.digest(start)
    assert worker.work == 0
    assert all(not bool(g.any()) for g in gradient(worker, start, none).values())
    assert len(outputs(worker, start, none)) == 0


def test_work_is_counted_in_images() -> None:
    worker = local()
    fit(worker, toy.trained()[0], toy.images("north"), ADAM, seed=1)
    assert worker.work == 2 * 24
    gradient(worker, toy.trained()[0], toy.images("north"))
    assert worker.work == 3 * 24
    outputs(worker, toy.trained()[0], toy.images("north"))
    signals(worker, toy.trained()[0], toy.images("north"))
    assert worker.work == 5 * 24


@dataclass(frozen=True)
class Twice:
    """The kind's own objective, of an image as it is and of its negative."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        return CrossEntropy()(module, batch) + CrossEntropy()(module, replace(batch, inputs=-batch.image))


def test_what_is_mapped_over_images_counts_as_often_as_there_are_images() -> None:
    """Two passes of each of 24 images, ten at once."""
    worker, images = local(), toy.images("north")
    found = list(each_gradient(worker, toy.trained()[0], images, Twice(), 10))
    assert [len(gradients["6.bias"]) for gradients in found] == [10, 10, 4]
    assert worker.work == 2 * 24


@dataclass(frozen=True)
class Spy:
    """An objective that remembers its batches."""

    seen: list[list[int]] = field(default_factory=list)

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        self.seen.append(batch.rows.tolist())
        return 2 * F.cross_entropy(module(batch.image), batch.targets)


def test_every_epoch_shows_every_image_once_in_a_fresh_order() -> None:
    spy = Spy()
    fit(local(), toy.trained()[0], toy.images("north"), ADAM, seed=1, objective=spy)
    assert [len(rows) for rows in spy.seen] == [7, 7, 7, 3] * 2
    first, second = [*chain(*spy.seen[:4])], [*chain(*spy.seen[4:])]
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second


@dataclass(frozen=True)
class Clamp:
    """A constraint that counts."""

    calls: list[bool] = field(default_factory=list)

    def __call__(self, parameters: Mapping[str, Tensor]) -> None:
        self.calls.append(torch.is_grad_enabled())
        for p in parameters.values():
            p.clamp_(-0.05, 0.05)


def test_the_constraint_holds_after_every_step() -> None:
    clamp = Clamp()
    result = fit(local(), toy.trained()[0], toy.images("north"), ADAM, seed=1, constraint=clamp)
    assert clamp.calls == [False] * 8
    assert all(bool((x.abs() <= 0.05).all()) for x in result.values())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_mask_of_zeros_freezes_all_and_a_mask_of_ones_nothing(
    optimizer: Literal["adam", "adamw", "sgd"],
) -> None:
    start, images = toy.trained()[0], toy.images("north")
    training = replace(ADAM, optimizer=optimizer, weight_decay=0.1)
    for value in (False, True):
        mask = Mask(
            {n: torch.full_like(x, value, dtype=torch.bool) for n, x in start.items()}, toy.trained()[0]
        )
        result = fit(local(), start, images, training, seed=1, constraint=mask)
        free = fit(local(), start, images, training, seed=1)
        assert w.digest(result) == w.digest(free if value else start)


def test_the_gradient_is_that_of_the_mean_loss_whatever_the_batches() -> None:
    """24 images in batches of 7, 7, 7 and 3: the last one counts for 3 of 24, not for a quarter."""
    start, images = toy.wide(toy.trained(norm=True)[1]), toy.widened(toy.images("north"))
    network = toy.wide_network(True)
    found = gradient(wide(True), start, images, batch_size=7)
    network.load(start)
    loss = F.cross_entropy(network.module.eval()(images.pixels), images.targets)
    expected = torch.autograd.grad(loss, list(network.parameters().values()))
    assert list(found) == list(network.layout.parameters)
    assert all(torch.allclose(a, b, rtol=0, atol=WIDE) for a, b in zip(found.values(), expected, strict=True))
    assert w.digest(network.read()) == w.digest(start), "statistics must not move"


def test_outputs_are_in_order_whatever_the_batches() -> None:
    start, images = toy.wide(toy.trained(norm=True)[1]), toy.widened(toy.images("north"))
    whole, parts = outputs(wide(True), start, images), outputs(wide(True), start, images, batch_size=5)
    assert whole.shape == (24, toy.CLASSES)
    assert torch.allclose(whole, parts, rtol=0, atol=WIDE)
    assert w.digest(toy.wide_network(True).read()) == w.digest(start)


def test_bytes_become_minus_one_to_one_and_floats_stay() -> None:
    levels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.allclose(scaled(levels), torch.tensor([-1.0, -0.6, 1.0]), atol=1e-6)
    assert levels.tolist() == [0, 51, 255]
    pixels = torch.tensor([0.25, 9.0])
    assert scaled(pixels) is pixels


def test_batches_cut_in_order() -> None:
    images = toy.images("east")
    cut = list(batches(images, 10))
    assert [len(b.rows) for b in cut] == [10, 10, 4]
    assert torch.equal(torch.cat([b.image for b in cut]), images.pixels)
    order = torch.arange(24).flip(0)
    assert torch.equal(torch.cat([b.rows for b in batches(images, 10, order)]), images.rows.flip(0))


# ------------------------------------------------------------------------------------------- micro-batches

# Rounding must not be magnified: SGD, whose steps are in proportion to gradients.
SGD = LocalTraining(epochs=2, batch_size=7, optimizer="sgd", lr=0.05, momentum=0.9)


@pytest.mark.parametrize("micro_batch", [1, 3, 5, 7, 100])
@pytest.mark.parametrize("training", [SGD, replace(SGD, clip=0.1)])
def test_a_step_in_pieces_is_the_whole_batchs_step(training: LocalTraining, micro_batch: int) -> None:
    """7 images in pieces of 3, 3 and 1: the last counts a seventh, not a third.

    In float64, where eight steps may magnify rounding ten thousandfold and are still told from steps of another loss.
    """
    start, images = toy.wide(toy.trained()[0]), toy.widened(toy.images("north"))
    whole = fit(wide(), start, images, training, seed=1)
    parts = fit(wide(), start, images, replace(training, micro_batch=micro_batch), seed=1)
    assert w.norm(w.subtract(parts, whole)) < 1e-5 * w.norm(w.subtract(whole, start))
    if micro_batch >= 7:
        assert w.digest(parts) == w.digest(whole)


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_whatever_adds_up_over_images_does_so_in_pieces(micro_batch: int) -> None:
    """A piece of images to forget alone, of others alone, or of both; and of volumes, whose Dice is each's own."""
    ward, start = volumes.Ward(volumes.VOLUMES, "north", volumes.network()), volumes.trained()[1]
    images = marked(volumes.volumes("north"), volumes.volumes("east"))
    training = replace(volumes.TRAINING.local, batch_size=6, optimizer="sgd", lr=0.02, clip=None)
    for objective in (DiceCrossEntropy(), Signed(DiceCrossEntropy(), -0.5, 1.0)):
        whole = fit(ward, start, images, training, 1, objective)
        parts = fit(ward, start, images, replace(training, micro_batch=micro_batch), 1, objective)
        assert w.norm(w.subtract(parts, whole)) < 1e-5 * w.norm(w.subtract(whole, start))


def test_no_more_than_a_piece_is_seen_at_once_and_every_batch_is_one_step() -> None:
    spy, clamp, worker = Spy(), Clamp(), local()
    training = replace(ADAM, micro_batch=3)
    fit(worker, toy.trained()[0], toy.images("north"), training, 1, spy, clamp)
    assert [len(rows) for rows in spy.seen] == [3, 3, 1, 3, 3, 1, 3, 3, 1, 3] * 2
    assert len(clamp.calls) == 8
    assert worker.work == 2 * 24
    whole = Spy()
    fit(local(), toy.trained()[0], toy.images("north"), ADAM, seed=1, objective=whole)
    assert [*chain(*spy.seen)] == [*chain(*whole.seen)], "the same images in the same order"


def test_the_ceiling_is_each_pieces_own() -> None:
    """Losses of 0 and 4, ceiling 3: the mean of 2 is below it and has slopes; by itself the second is above it."""
    x = torch.tensor([[0.0], [4.0]])
    batch = Batch(x, torch.zeros(2), torch.arange(2), {"forget": torch.ones(2, dtype=torch.bool)})
    signed = Signed(Said(), forget=-1.0, retain=0.0, ceiling=3.0)
    assert signed(nn.Identity(), batch) == -2.0
    assert [float(signed(nn.Identity(), piece)) for piece, _ in pieces(batch, 1)] == [0.0, -3.0]


@dataclass(frozen=True)
class Said:
    """The mean of what the network says."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        outputs: Tensor = module(batch.image)
        return outputs.mean()


# --------------------------------------------------------------------------------------------- precision


@dataclass(frozen=True)
class Typed:
    """The objective, and what the network is made of and says."""

    loss: Objective
    seen: list[tuple[torch.dtype, torch.dtype, torch.dtype]] = field(default_factory=list)

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        inside = list[torch.dtype]()
        layer = next(m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
        with layer.register_forward_hook(lambda _, inputs, outputs: inside.append(outputs.dtype)):
            outputs = module(batch.image)
        loss = self.loss(module, batch)
        self.seen.append((inside[0], outputs.dtype, loss.dtype))
        return loss


@pytest.mark.parametrize("optimizer", ["sgd", "adahessian"])
def test_in_bfloat16_it_learns_the_same_in_float32_weights(optimizer: Literal["sgd", "adahessian"]) -> None:
    """bfloat16 has 8 bits, so that numbers are off by up to 0.4 %, and steps in proportion to gradients by little.

    AdaHessian divides some steps by next to nothing (`tests.strategies.test_curvature` compares curvature itself).
    """
    start, images = toy.trained()[0], toy.images("north")
    training = replace(SGD, epochs=4, optimizer=optimizer, hessian_power=0.5)
    half, spy = replace(training, precision="bfloat16"), Typed(CrossEntropy())
    plain = fit(local(), start, images, training, seed=1)
    found = fit(local(), start, images, half, seed=1, objective=spy)
    assert set(spy.seen) == {(torch.bfloat16, torch.float32, torch.float32)}
    assert w.first_difference(start, found) is None, "dtypes too"
    assert w.digest(found) != w.digest(plain)
    if optimizer == "sgd":
        assert w.norm(w.subtract(found, plain)) < 0.1 * w.norm(w.subtract(plain, start))
    before, after = (loss_of(outputs(local(), x, images), images, CrossEntropy()) for x in (start, found))
    assert after < 0.9 * before
    assert outputs(local(), found, images).dtype == torch.float32
    assert w.digest(fit(local(), start, images, half, seed=1)) == w.digest(found)
    assert w.digest(fit(local(), start, images, training, seed=1)) == w.digest(plain), (
        "nothing is left behind"
    )


def test_dice_sums_over_voxels_in_float32() -> None:
    """In 8 bits, 256 + 1 is 256. No map here is 2 voxels deep: CPUs get gradients of such wrong (`scenario.rules`)."""
    model, shape = UNet3D(), (1, 16, 16, 16)
    start = initial_weights(model, Form(shape, 3), seed=1)
    ward = volumes.Ward(volumes.VOLUMES, "north", Network(model, Form(shape, 3)))
    pixels = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    images, spy = Images(pixels, (pixels[:, 0] > 0).long(), torch.arange(2)), Typed(DiceCrossEntropy())
    training = LocalTraining(3, 2, "sgd", lr=0.1, precision="bfloat16")
    found = fit(ward, start, images, training, 1, spy)
    plain = fit(ward, start, images, replace(training, precision="float32"), seed=1)
    assert set(spy.seen) == {(torch.bfloat16, torch.float32, torch.float32)}
    assert 0 < w.norm(w.subtract(found, plain)) < 0.1 * w.norm(w.subtract(plain, start))

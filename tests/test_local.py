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
from fedunlearn.constraints import Mask
from fedunlearn.core import Batch, Images, LocalTraining, Select, Weights
from fedunlearn.local import batches, fit, gradient, outputs, scaled
from tests import toy

ADAM = LocalTraining(
    epochs=2, batch_size=7, optimizer="adam", lr=1e-2
)  # 24 images: three batches of 7 and one of 3


def local(norm: bool = False) -> toy.ToyLocal:
    return toy.ToyLocal("north", toy.network(norm), toy.Log())


def plain_loop(
    weights: Weights, images: Images, training: LocalTraining, seed: int, fused: bool, norm: bool
) -> Weights:
    """What anyone would write by hand."""
    with torch.random.fork_rng(devices=[]):
        module = toy.ToyNet(norm=norm).build(toy.SHAPE, toy.CLASSES)
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
        unfused = plain_loop(start, images, training, 11, False, norm)
        assert all(torch.allclose(result[n], unfused[n], atol=1e-4) for n in result)


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


@dataclass(frozen=True)
class Spy:
    """An objective that remembers its batches."""

    seen: list[list[int]] = field(default_factory=list)

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        self.seen.append(batch.rows.tolist())
        return 2 * F.cross_entropy(module(batch.inputs), batch.targets)


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
    start, images, network = toy.trained(norm=True)[1], toy.images("north"), toy.network(True)
    found = gradient(local(True), start, images, batch_size=7)
    network.load(start)
    loss = F.cross_entropy(network.module.eval()(images.pixels), images.targets)
    expected = torch.autograd.grad(loss, list(network.parameters().values()))
    assert list(found) == list(network.layout.parameters)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found.values(), expected, strict=True))
    assert w.digest(network.read()) == w.digest(start), "statistics must not move"


def test_outputs_are_in_order_whatever_the_batches() -> None:
    start, images = toy.trained(norm=True)[1], toy.images("north")
    whole, parts = outputs(local(True), start, images), outputs(local(True), start, images, batch_size=5)
    assert whole.shape == (24, toy.CLASSES)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert w.digest(toy.network(True).read()) == w.digest(start)


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
    assert torch.equal(torch.cat([b.inputs for b in cut]), images.pixels)
    order = torch.arange(24).flip(0)
    assert torch.equal(torch.cat([b.rows for b in batches(images, 10, order)]), images.rows.flip(0))

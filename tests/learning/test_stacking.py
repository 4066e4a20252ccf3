"""Several trainings as one stack: each comes to what it comes to alone, and to the same bits in whatever company."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fedunlearn import weights as w
from fedunlearn.core import Form, Images, LocalTraining, Weights
from fedunlearn.learning.local import fit
from fedunlearn.learning.models import Mlp, Model, Network, SmallCNN, initial_weights
from fedunlearn.learning.models.images import ResNet18
from fedunlearn.learning.models.stacked import Stack, unstackable
from fedunlearn.learning.stacking import Member, fit_together

pytestmark = pytest.mark.rounding

COLOUR, GREY, VOLUME, TABLE = (Form(shape, 3) for shape in ((3, 28, 28), (1, 28, 28), (1, 28, 28, 28), (11,)))
FINDINGS = Form((1, 28, 28), 2, (4,))
PLAIN = LocalTraining(epochs=2, batch_size=5, lr=1e-2, stack=3)  # 12 images: two batches of 5 and one of 2
KINDS: list[Any] = [
    (SmallCNN(hidden=8), COLOUR),
    pytest.param(SmallCNN(hidden=8), VOLUME, marks=pytest.mark.further),
    (SmallCNN(hidden=8, kind="multilabel"), FINDINGS),
    (Mlp(hidden=8), TABLE),
]
NAMES = ["small_cnn", "small_cnn of volumes", "small_cnn of findings", "mlp"]


def images(form: Form, seed: int, count: int = 12) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, *form.shape, generator=generator) * 2 - 1
    targets = torch.randint(0, form.classes, (count, *form.places), generator=generator)
    return Images(pixels, targets, torch.arange(count))


def members(model: Model, form: Form, count: int = 3) -> list[Member]:
    return [Member(initial_weights(model, form, seed), images(form, seed), seed) for seed in range(count)]


def wide(of: Weights) -> Weights:
    return {name: value.double() for name, value in of.items()}


def by_itself(network: Network, member: Member, training: LocalTraining) -> Weights:
    local: Any = SimpleNamespace(network=network)
    return fit(local, member.weights, member.images, training, member.seed)


@pytest.mark.parametrize(("model", "form"), KINDS, ids=NAMES)
@pytest.mark.parametrize(
    "training",
    [
        PLAIN,
        replace(PLAIN, optimizer="sgd", clip=0.05),
        replace(PLAIN, optimizer="adamw", weight_decay=0.1),
    ],
    ids=["adam", "sgd, clipped", "adamw"],
)
def test_each_comes_to_what_it_comes_to_alone(model: Model, form: Form, training: LocalTraining) -> None:
    """In float64: the two differ by how they add, 1e-16 of each number, which Adam's first steps make 1e-8 at most."""
    network = Network(model, form)
    network.module.double()
    network._state = dict(network.module.state_dict(keep_vars=True))
    network.stack(3)
    some = [
        Member(wide(one.weights), replace(one.images, pixels=one.images.pixels.double()), one.seed)
        for one in members(model, form)
    ]
    before = network.passes
    found = fit_together(network, some, training)
    assert network.passes - before == 3 * 2 * 12  # trainings, epochs, images
    for one, new in zip(some, found, strict=True):
        expected = by_itself(network, one, training)
        assert w.norm(w.subtract(new, one.weights), network.layout.parameters) > 1e-3
        for name, value in expected.items():
            torch.testing.assert_close(new[name], value, rtol=0, atol=1e-7)


def test_images_are_changed_as_they_are_alone() -> None:
    model, training = SmallCNN(hidden=8), replace(PLAIN, augmentation="flips_crops", stack=2, lr=1e-3)
    network, some = Network(model, COLOUR), members(model, COLOUR, 2)
    plain = fit_together(network, some, replace(training, augmentation="none"))
    for one, new, other in zip(some, fit_together(network, some, training), plain, strict=True):
        for name, value in by_itself(network, one, training).items():
            torch.testing.assert_close(new[name], value, rtol=0, atol=1e-4)  # six steps of 1e-3 at most
        assert max(float((new[name] - other[name]).abs().max()) for name in new) > 1e-3


@pytest.mark.parametrize(
    ("model", "form"), [*KINDS, (SmallCNN(), GREY)], ids=[*NAMES, "small_cnn of grey images"]
)
@pytest.mark.parametrize("batch", [32, 5], ids=["large batches", "small batches"])
def test_company_changes_no_bit(model: Model, form: Form, batch: int) -> None:
    """Nor does the place, nor that there is none, nor that the others' numbers are no numbers."""
    network, training = Network(model, form), replace(PLAIN, batch_size=batch)
    some = [replace(one, images=images(form, one.seed, 40)) for one in members(model, form)]
    lost = Member({n: torch.full_like(v, torch.nan) for n, v in some[1].weights.items()}, some[1].images, 9)

    def digests(asked: Sequence[Member]) -> list[str]:
        return [w.digest(new) for new in fit_together(network, asked, training)]

    first, second, third = digests(some)
    assert digests([some[2], some[0], some[1]]) == [third, first, second]
    assert digests([some[0]]) == [first] and digests(some[1:]) == [second, third]
    assert digests([lost, some[0], lost])[1] == first


def test_without_images_weights_come_back_as_they_came() -> None:
    model = Mlp(hidden=8)
    some = [replace(one, images=images(TABLE, 0, 0)) for one in members(model, TABLE)]
    found = fit_together(Network(model, TABLE), some, PLAIN)
    assert [w.digest(new) for new in found] == [w.digest(one.weights) for one in some]


@pytest.mark.parametrize(("count", "images_of_last"), [(4, 12), (2, 11)], ids=["too many", "other numbers"])
def test_what_is_no_stack_is_refused(count: int, images_of_last: int) -> None:
    model = Mlp(hidden=8)
    some = members(model, TABLE, count)
    some[-1] = replace(some[-1], images=images(TABLE, 1, images_of_last))
    with pytest.raises(ValueError, match=f"{count} trainings on .* images are no stack of 3"):
        fit_together(Network(model, TABLE), some, PLAIN)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (ResNet18().build(COLOUR), "nobody has written how Sequential"),
        (nn.Linear(2, 2), "Linear is more than one layer after the other"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "nobody has written how Conv2d"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding="same")), "nobody has written how Conv2d"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2)), "nobody has written how Conv2d"),
        (nn.Sequential(nn.Linear(2, 2, bias=False)), "nobody has written how Linear"),
        (nn.Sequential(nn.Flatten(2)), "nobody has written how Flatten"),
        (nn.Sequential(nn.BatchNorm2d(4)), "nobody has written how BatchNorm2d"),
        (nn.Sequential(nn.GroupNorm(1, 4, affine=False)), "nobody has written how GroupNorm"),
        (nn.Sequential(nn.Dropout()), "nobody has written how Dropout"),
    ],
)
def test_layers_that_nobody_stacked_are_refused(module: nn.Module, why: str) -> None:
    assert unstackable(module).startswith(why)
    with pytest.raises(ValueError, match=why):
        Stack(module, 2)

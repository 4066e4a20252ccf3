"""What defaults leave before recovery: retained images are spared where a method says so, statistics tell of nobody.

That no default leaves the model at chance, unless its docstring says so, is a promise of the contract.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import Recovery, Reply, RequestId, Select, Strategy, Weights
from fedunlearn.learning.local import outputs
from strategies.bad_teacher import BadTeacher
from strategies.boundary_shrink import BoundaryShrink
from strategies.fcu import FCU
from strategies.fedosd import FedOSD
from strategies.fedquit import FedQUIT
from strategies.gradient_ascent import GradientAscent
from strategies.held_out_target import HeldOutTarget
from strategies.lora_student import LoRAStudent
from strategies.lotus import LoTUS
from strategies.maverick import Maverick
from strategies.max_loss import MaxLoss
from strategies.neggrad_plus import NegGradPlus
from strategies.noise_encoder import NoiseEncoder
from strategies.noise_images import NoiseImages
from strategies.noisy_label import NoisyLabel
from strategies.random_encoder import RandomEncoder
from strategies.random_label import RandomLabel
from strategies.retain_label import RetainLabel
from strategies.salun import SalUn
from strategies.salun_cra import SalUnCRA
from strategies.scrub import SCRUB
from tests import toy

pytestmark = pytest.mark.rounding

FLOOR = 0.9
"""Of the original model's accuracy on retained images, so much is kept before recovery by whoever spares them."""
SPARING: list[type[Strategy]] = [
    *(
        BadTeacher,
        FCU,
        FedOSD,
        HeldOutTarget,
        LoRAStudent,
        LoTUS,
        MaxLoss,
        NegGradPlus,
        NoiseEncoder,
        NoiseImages,
    ),
    *(NoisyLabel, RandomEncoder, RandomLabel, RetainLabel, SalUn, SalUnCRA, SCRUB),
]
"""Their objective holds the retained images' own loss or outputs, or keeps off their gradients."""


def retained(weights: Weights, wish: RequestId) -> float:
    """The share of retained images that a model is right about."""
    local = toy.ToyLocal("north", toy.network(), toy.Log())
    parts = [toy.select(site, Select(without=(wish,))) for site in toy.SITES]
    targets = torch.cat([part.targets for part in parts])
    scores = torch.cat([outputs(local, weights, part) for part in parts if len(part)])
    return float((scores.argmax(1) == targets).float().mean())


@pytest.mark.parametrize("wish", ["patients", "site"])
@pytest.mark.parametrize("cls", SPARING, ids=lambda cls: cls().name)
def test_who_spares_the_retained_images_keeps_them_above_a_floor_before_recovery(
    cls: type[Strategy], wish: RequestId
) -> None:
    bare = replace(cls(), recovery=Recovery(0))  # type: ignore[type-var]
    assert retained(toy.outcome(bare, wish).weights, wish) >= FLOOR * retained(toy.case(wish).original, wish)


# --------------------------------------------------------------------------- BatchNorm's statistics


@pytest.mark.parametrize(
    "strategy",
    [FedQUIT(), BoundaryShrink(), GradientAscent(), LoTUS(), Maverick(), Maverick(against="itself")],
    ids=lambda strategy: strategy.name,
)
@pytest.mark.parametrize("wish", ["patients", "site"])
def test_rounds_on_images_to_forget_alone_leave_statistics_as_they_were(strategy: Any, wish: str) -> None:
    case = toy.case(wish, norm=True)
    result = toy.outcome(replace(strategy, recovery=Recovery(0)), wish, norm=True).weights
    assert all(torch.equal(result[name], case.original[name]) for name in case.layout.buffers)
    assert any(not torch.equal(result[name], case.original[name]) for name in case.layout.parameters)


def test_scrubs_max_steps_hand_on_the_statistics_of_retained_images() -> None:
    """Everything sent in a min-round has the buffers that the round of min-steps before came to."""
    sent: list[Weights] = []

    class Watch(toy.Asked):
        def round(self, round: Any) -> None:
            sent.append(next(iter(round.asks.values())).weights)

    case = toy.case("site", norm=True)
    toy.run(SCRUB(epochs=2, msteps=2).unlearn(case), toy.ToyLink(norm=True), [Watch(toy.Log())])
    up, down, up_again, down_again = sent
    for name in case.layout.buffers:
        assert torch.equal(up[name], down[name])
        assert torch.equal(up_again[name], down_again[name])
    assert any(not torch.equal(up[name], up_again[name]) for name in case.layout.buffers)


def test_a_leaver_adds_no_statistics_of_its_own_to_a_round_of_all() -> None:
    """North and east as they found them, west as it was sent them: 24 images each, a third of each."""
    case = toy.case("site", norm=True)
    replies: list[Any] = []

    class Watch(toy.Asked):
        def round(self, round: Any) -> None:
            replies.append({site: answer.reply.weights for site, answer in round.answers.items()})

    result = toy.run(RandomLabel(epochs=1).unlearn(case), toy.ToyLink(norm=True), [Watch(toy.Log())])
    (own,) = replies
    running = [name for name in case.layout.buffers if case.original[name].is_floating_point()]
    assert running
    for name in running:
        assert torch.equal(own["west"][name], case.original[name])
        assert not torch.equal(own["north"][name], case.original[name])
        expected = (own["north"][name] + own["east"][name] + case.original[name]) / 3
        assert torch.allclose(result[name], expected, atol=1e-5)
    assert w.norm(w.subtract(own["west"], case.original)) > 0


# ------------------------------------------------------------------------------ as far as the papers


@pytest.mark.parametrize(
    ("strategy", "path"),
    [
        (FedQUIT(), 0.016),
        (BoundaryShrink(), 0.008),
        (GradientAscent(), 0.04),
        (BadTeacher(), 0.008),
        (NegGradPlus(), 0.32),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_default_walks_as_far_as_its_docstring_says(strategy: Any, path: float) -> None:
    """Steps x learning rate at a hospital of 250 images that leaves, in batches of 32."""
    case, walked = toy.case("site"), 0.0

    def reply(asks: Any) -> Any:
        nonlocal walked
        training = asks["west"].training
        walked += training.epochs * math.ceil(250 / 32) * training.lr
        return {site: Reply(case.original, 1) for site in asks}

    toy.by_hand(replace(strategy, recovery=Recovery(0)).unlearn(case), reply)
    assert walked == pytest.approx(path)

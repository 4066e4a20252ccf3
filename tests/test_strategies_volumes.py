"""Every strategy on volumes with label maps: it works, or declares that it needs one class per image and is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.catalogue import lines
from fedunlearn.core import Batch, Granularity, Guarantee, InputError, Preparing, RequestId, Strategy
from fedunlearn.kinds import CrossEntropy, Objective
from fedunlearn.objectives import Distillation, SoftLabels
from strategies.fedosd import UnlearningLoss
from strategies.fedquit import virtual
from strategies.lotus import lessons
from strategies.retrain import Retrain
from tests import toy_volumes as toy
from tests.runs import TINY, write
from tests.test_contract import ENTRIES

GIVEN = [entry.strategy for entry in ENTRIES]


def shortened(strategy: Strategy) -> Strategy:
    """As few rounds as show all that it does."""
    few = {"rounds": 2, "recovery_rounds": 1, "epochs": 1, "samples": 2}
    own: dict[str, Any] = {field.name: getattr(strategy, field.name) for field in fields(strategy)}  # type: ignore[arg-type]
    mine = {name: n for name, n in few.items() if own.get(name, 0) > n}
    return replace(strategy, **mine)  # type: ignore[type-var]


def wishes(strategy: Strategy) -> list[RequestId]:
    names = {Granularity.PATIENTS: "patient", Granularity.SITE: "site"}
    return [name for granularity, name in names.items() if granularity in strategy.granularity]


PAIRS = [
    pytest.param(strategy, wish, id=f"{strategy.name}-{number}-{wish}")
    for number, strategy in enumerate(map(shortened, GIVEN))
    for wish in wishes(strategy)[:1]
]


@pytest.mark.parametrize(("strategy", "wish"), PAIRS)
def test_it_works_on_volumes_unless_it_declares_class_labels(strategy: Strategy, wish: RequestId) -> None:
    case = toy.case(wish, strategy)
    if strategy.needs.class_labels:
        with pytest.raises((IndexError, RuntimeError, TypeError)):
            toy.run(strategy.unlearn(case))
        return
    result = toy.run(strategy.unlearn(case))
    assert w.first_difference(case.original, result) is None
    assert w.first_nonfinite(result) is None
    if strategy.guarantee is not Guarantee.EXACT:
        assert w.digest(result) != w.digest(case.original)
    elif isinstance(strategy, Preparing):
        assert w.digest(result) == w.digest(toy.run(strategy.prepare(case.course))["model"])
    else:
        assert w.digest(result) == w.digest(toy.run(Retrain().unlearn(case)))


def flat(values: Tensor) -> Tensor:
    """(B, C, D, H, W) as (B D H W, C): every voxel an image of its own."""
    return values.movedim(1, -1).flatten(0, -2)


@pytest.mark.parametrize(
    "objective", [UnlearningLoss(), SoftLabels(), Distillation(CrossEntropy(), 0.5, 2.0, T=3.0)]
)
def test_an_objective_takes_voxels_as_it_takes_images(objective: Objective) -> None:
    generator = torch.Generator().manual_seed(1)
    scores, teacher = (torch.randn(2, 3, 4, 4, 4, generator=generator) for _ in range(2))
    targets = torch.randint(3, (2, 4, 4, 4), generator=generator)
    extra = {"teacher": teacher, "soft": torch.softmax(teacher, 1)}
    whole = objective(nn.Identity(), Batch(scores, targets, torch.arange(2), extra))
    each = {name: flat(values) for name, values in extra.items()}
    one_by_one = objective(nn.Identity(), Batch(flat(scores), targets.flatten(), torch.arange(128), each))
    assert torch.allclose(whole, one_by_one, rtol=1e-5)


def test_outputs_are_changed_voxel_by_voxel() -> None:
    """FedQUIT's teacher, and LoTUS's certain lessons: one class for every voxel."""
    scores = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    targets = scores.argmax(1)
    for v in ("min", "entropy"):
        expected = virtual(flat(scores), targets.flatten(), v)
        assert torch.allclose(flat(virtual(scores, targets, v)), expected)
    taught = lessons(scores, 1, 1.0, seed=3)
    assert torch.equal(taught[1].amax(0), torch.ones(4, 4, 4))
    assert torch.allclose(taught.sum(1), torch.ones(2, 4, 4, 4))


def test_some_strategy_needs_class_labels_and_most_do_not() -> None:
    needing = {strategy.name for strategy in GIVEN if strategy.needs.class_labels}
    assert needing == {"held_out_target"}


def test_a_strategy_that_needs_class_labels_is_refused_for_volumes(tmp_path: Path) -> None:
    entries = "[" + ", ".join(f"{{name: {name}}}" for name in ("held_out_target", "noisy_label")) + "]"
    with pytest.raises(InputError) as caught:
        scenarios.read(write(tmp_path, TINY), ["model={name: unet3d}", f"strategies={entries}"])
    assert [problem.message for problem in caught.value.problems] == [
        "held_out_target needs one class per image; model 'unet3d' is for segmentation: "
        "remove it or change the model"
    ]


def test_the_list_tells_who_needs_class_labels() -> None:
    text = dict(zip(lines("strategies")[::2], lines("strategies")[1::2], strict=True))
    needing = [name.split()[0] for name, traits in text.items() if "one class per image" in traits]
    assert needing == ["held_out_target"]


def test_the_toy_is_remembered() -> None:
    """Or nothing here would be forgotten: training lowers the loss of its volumes."""
    initial, original, _ = toy.trained()
    module = toy.network().module
    losses = []
    for weights in (initial, original):
        toy.network().load(weights)
        volumes = toy.volumes("north")
        with torch.inference_mode():
            losses.append(float(torch.nn.functional.cross_entropy(module(volumes.pixels), volumes.targets)))
    assert losses[1] < losses[0]

"""Strategies on volumes with label maps, beyond what all promise of them: voxels and their labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedunlearn import scenario as scenarios
from fedunlearn.contract.kinds import shortened
from fedunlearn.core import (
    IGNORED,
    Batch,
    Granularity,
    InputError,
    Select,
    Strategy,
)
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.learning.kinds import Objective, ignored, learnt
from fedunlearn.learning.labels import gaussian_labels, retained_labels, uniform_labels, wrong_labels
from fedunlearn.learning.local import outputs
from fedunlearn.learning.objectives import Distillation, SoftLabels
from fedunlearn.learning.tasks import Errors
from fedunlearn.listing import entries, full
from strategies.fedosd import UnlearningLoss
from strategies.fedquit import virtual
from strategies.lotus import lessons
from tests import toy_volumes as toy
from tests.runs import TINY, write
from tests.test_contract import ENTRIES

pytestmark = pytest.mark.rounding

GIVEN = [entry.strategy for entry in ENTRIES]


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(shortened(strategy), id=f"{strategy.name}-{number}")
        for number, strategy in enumerate(GIVEN)
        if getattr(strategy, "fix_decoder", False)
    ],
)
def test_a_fixed_decoder_stays_as_it_is_and_all_else_moves(strategy: Strategy) -> None:
    case = toy.case("patient" if Granularity.PATIENTS in strategy.granularity else "site", strategy)
    result = toy.run(strategy.unlearn(case))
    for name in case.layout.parameters:
        assert torch.equal(result[name], case.original[name]) == name.startswith("decoder.")


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


@pytest.mark.parametrize("how", ["wrong", "uniform", "gaussian", "retained", "noise"])
def test_other_labels_leave_ignored_voxels_as_they_are(how: str) -> None:
    """Whatever the labels become, they are classes where, and only where, they were."""
    labels, retained = (toy.volumes(site).targets for site in ("north", "east"))
    changed = {
        "wrong": wrong_labels(labels, 3, 1),
        "uniform": uniform_labels(labels, 3, 1),
        "gaussian": gaussian_labels(labels, retained, 3, 1),
        "retained": retained_labels(labels, retained, 3, 1),
        "noise": retained_labels(labels, retained[:0], 3, 1),
    }[how]
    assert ignored(labels).any() and not torch.equal(changed, labels)
    assert torch.equal(ignored(changed), ignored(labels))
    known = (
        [0, 1] if how in ("gaussian", "noise") else [0, 1, 2]
    )  # of which 2 is far from the mean of labels here
    assert changed[~ignored(changed)].unique().tolist() == known


def test_what_another_map_ignores_is_background_here() -> None:
    """By hand: the own unknown voxel stays, the other map's become 0."""
    own, other = torch.tensor([[[[1, 2], [IGNORED, 1]]]]), torch.tensor([[[[IGNORED, 1], [2, IGNORED]]]])
    expected = [[[[0, 1], [IGNORED, 0]]]]
    assert retained_labels(own, other, 3, 1).tolist() == expected


def test_findings_that_another_image_is_not_known_to_have_stay_unknown() -> None:
    own, other = torch.tensor([[1, 0, IGNORED]]), torch.tensor([[IGNORED, 1, 1]])
    assert retained_labels(own, other, 2, 1).tolist() == [[IGNORED, 1, IGNORED]]


def test_gaussian_labels_know_nothing_of_ignored_voxels() -> None:
    """Mean and deviation of the voxels that count: one class alone is N(1, 0), whatever `IGNORED` is as a number."""
    labels = torch.full((1, 2, 2, 2), 1)
    labels[0, 0] = IGNORED
    assert torch.equal(gaussian_labels(labels, labels, 3, seed=1), labels)


def test_where_no_class_is_true_nothing_is_taken_from_the_teacher_and_nothing_is_lost() -> None:
    """FedQUIT's teacher answers as before there; FedOSD's loss is the mean over the other voxels of each volume."""
    scores = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    targets = scores.argmax(1)
    targets[0, 1:] = targets[1, 2] = IGNORED
    out = ignored(targets)
    for v in ("min", "entropy"):
        teacher = virtual(scores, targets, v)
        assert torch.equal(teacher.movedim(1, -1)[out], scores.movedim(1, -1)[out])
        assert not torch.isclose(teacher, scores).all(1)[~out].any()
    p = torch.softmax(scores, 1).amax(1)
    slow = torch.stack([-torch.log1p(-p[n][~out[n]] / 2).mean() for n in range(2)]).mean()
    found = UnlearningLoss()(nn.Identity(), Batch(scores, targets, torch.arange(2)))
    assert torch.allclose(found, slow)


def test_errors_are_the_share_of_the_voxels_that_count() -> None:
    ward, weights, volumes = (
        toy.Ward(toy.VOLUMES, "north", toy.network()),
        toy.trained()[1],
        toy.volumes("north"),
    )
    said = outputs(ward, weights, volumes).argmax(1)
    slow = [(a != b)[b != IGNORED].float().mean().item() for a, b in zip(said, volumes.targets, strict=True)]
    found = Errors((weights,), Select())(ward).arrays["error"]
    assert found.tolist() == pytest.approx([sum(slow) / 3], abs=1e-6)
    assert 0 < found.item() < 1


def test_some_strategy_needs_class_labels_and_most_do_not() -> None:
    needing = {strategy.name for strategy in GIVEN if strategy.needs.class_labels}
    assert needing == {"held_out_target", "quickdrop"}


def test_a_strategy_that_needs_class_labels_is_refused_for_volumes(tmp_path: Path) -> None:
    entries = "[" + ", ".join(f"{{name: {name}}}" for name in ("held_out_target", "noisy_label")) + "]"
    with pytest.raises(InputError) as caught:
        scenarios.read(write(tmp_path, TINY), ["model={name: unet3d}", f"strategies={entries}"])
    assert [problem.message for problem in caught.value.problems] == [
        "held_out_target needs one class per image; model 'unet3d' is for segmentation: "
        "remove it or change the model"
    ]


def test_the_list_tells_who_needs_class_labels() -> None:
    told = {one["name"]: full("strategies", one["name"], 1000)[2] for one in entries("strategies")}
    needing = [name for name, traits in told.items() if "one class per image" in traits]
    assert needing == ["held_out_target", "quickdrop"]


def test_the_toy_is_remembered() -> None:
    """Or nothing here would be forgotten: training lowers the loss of its volumes."""
    initial, original, _ = toy.trained()
    module = toy.network().module
    losses = []
    for weights in (initial, original):
        toy.network().load(weights)
        volumes = toy.volumes("north")
        with torch.inference_mode():
            losses.append(
                float(learnt("segmentation").signal(module(volumes.pixels), volumes.targets)["loss"].mean())
            )
    assert losses[1] < losses[0]

"""Kinds that answer for several places of an image: losses and signals against values by hand and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import IGNORED, Batch, Form, Images
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.labels import replaced
from fedunlearn.learning.models import Network, ResNet18, SmallCNN
from fedunlearn.learning.objectives import Known

pytestmark = pytest.mark.rounding


def loss(kind: str, outputs: Tensor, targets: Tensor) -> float:
    batch = Batch(outputs, targets, torch.arange(len(targets)))
    return float(learnt(kind).objective(Known(outputs), batch))


def absent_and_present(z: Tensor) -> Tensor:
    """Scores (N, 2, F) whose difference is ``z`` (N, F)."""
    return torch.stack([z / 3, z / 3 + z], 1)


def test_of_findings_it_is_the_binary_cross_entropy_of_those_known() -> None:
    """By hand: of z = 0 it is log 2 whatever is true; of z = log 3 it is log(4/3) if present and log 4 if absent."""
    z = torch.tensor([[0.0, math.log(3.0), math.log(3.0)], [0.0, 1.0, 2.0]], dtype=torch.float64)
    targets = torch.tensor([[1, 1, 0], [0, IGNORED, IGNORED]])
    first = (math.log(2) + math.log(4 / 3) + math.log(4)) / 3
    assert loss("multilabel", absent_and_present(z), targets) == pytest.approx((first + math.log(2)) / 2)
    brief = learnt("multilabel").brief(absent_and_present(z), targets)["loss"]
    assert brief.tolist() == pytest.approx([first, math.log(2)])


def test_without_unknown_findings_it_is_torchs_own() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (7, 5), generator=generator)
    expected = F.binary_cross_entropy_with_logits(z, targets.double())
    assert loss("multilabel", absent_and_present(z), targets) == pytest.approx(float(expected))


def test_an_image_of_which_nothing_is_known_has_no_loss_and_no_slope() -> None:
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    targets = torch.tensor([[IGNORED] * 3, [0, 1, 1]])
    found = learnt("multilabel").objective(Known(absent_and_present(z)), Batch(z, targets, torch.arange(2)))
    found.backward()
    assert z.grad is not None and not z.grad[0].any() and z.grad[1].all()


def test_what_is_kept_of_findings() -> None:
    z, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 1, IGNORED]])
    kept = learnt("multilabel").signal(absent_and_present(z), targets)
    assert torch.allclose(kept["logit"], z) and kept["target"].tolist() == [[1, 1, -1]]
    assert learnt("multilabel").glance(absent_and_present(z), targets)["right"].tolist() == [0.5]


@pytest.mark.parametrize("model", [SmallCNN(kind="multilabel"), ResNet18(kind="multilabel")])
def test_networks_answer_for_each_finding(model: SmallCNN | ResNet18) -> None:
    network = Network(model, Form((1, 28, 28), 2, (5,)))
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    outputs = network.module(images)
    assert outputs.shape == (3, 2, 5) and not outputs[:, 0].any() and network.passes == 3
    last = network.module.get_submodule(network.layout.head[0].rpartition(".")[0])
    assert isinstance(last, nn.Linear) and last.out_features == 5


def test_other_labels_of_findings_are_the_opposite_and_unknown_ones_stay() -> None:
    targets = torch.tensor([[0, 1, IGNORED], [1, 1, 0]])
    found = replaced("wrong", targets, targets, 2, seed=4)
    assert found.tolist() == [[1, 0, IGNORED], [0, 0, 1]]


def test_images_keep_what_comes_beside_them() -> None:
    words = torch.arange(8).view(4, 2)
    images = Images(
        torch.zeros(4, 1, 2, 2), torch.zeros(4, 3).long(), torch.arange(4), companions={"report": words}
    )
    some = images.at(torch.tensor([2, 0]))
    assert some.companions["report"].tolist() == [[4, 5], [0, 1]] and some.rows.tolist() == [2, 0]


def test_of_pairs_it_is_the_mean_over_image_companion_and_both() -> None:
    """By hand: scores log 3 and 0 give the first class .75: log(4/3) each where it is right, log 4 where it is not."""
    sure, none = [math.log(3.0), 0.0], [0.0, 0.0]
    outputs = torch.tensor([[sure, none, sure], [sure, sure, none]], dtype=torch.float64).transpose(1, 2)
    targets = torch.tensor([[0, 0, 0], [1, 1, 1]])
    expected = (2 * math.log(4 / 3) + math.log(2) + 2 * math.log(4) + math.log(2)) / 6
    assert loss("paired", outputs, targets) == pytest.approx(expected)
    found = learnt("paired").glance(outputs, targets)
    assert found["loss"].tolist() == pytest.approx([math.log(4 / 3), math.log(2)])
    assert found["right"].tolist() == [1.0, 0.0]
    kept = learnt("paired").signal(outputs, targets)
    assert list(kept) == ["image", "beside", "both"]
    assert torch.equal(kept["beside"], outputs[:, :, 1])

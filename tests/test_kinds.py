"""What the kind of task "segmentation" minimises and keeps, against MONAI and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fedunlearn.core import Asks, Batch, Images, Replies, Reply, Select
from fedunlearn.kinds import KINDS, DiceCrossEntropy
from fedunlearn.local import at_once, each_gradient, fit, gradient, signals
from fedunlearn.procedures import signals as gathered
from fedunlearn.tasks import Signals
from tests import toy, toy_volumes

LOSS = DiceCrossEntropy()


def volumes(n: int = 3, classes: int = 3, edge: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + classes)
    scores = 3 * torch.randn(n, classes, edge, edge, edge, generator=generator)
    return scores, torch.randint(classes, (n, edge, edge, edge), generator=generator)


def value(scores: Tensor, targets: Tensor) -> Tensor:
    return LOSS(nn.Identity(), Batch(scores, targets, torch.arange(len(targets))))


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_the_loss_is_monais(classes: int) -> None:
    from monai.losses.dice import DiceCELoss

    scores, targets = volumes(classes=classes)
    slow = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    assert float(value(scores, targets)) == pytest.approx(float(slow(scores, targets[:, None])), abs=1e-6)


def test_the_loss_by_hand() -> None:
    """Two voxels, background and class 1, p = 1/2 each: CE log 2, Dice (2 * 1/2) / (1 + 1) = 1/2."""
    found = value(torch.zeros(1, 2, 1, 1, 2), torch.tensor([[[[0, 1]]]]))
    assert float(found) == pytest.approx(math.log(2) + 0.5, abs=1e-5)


def test_the_loss_of_a_batch_is_the_mean_over_volumes() -> None:
    scores, targets = volumes(4)
    each = torch.stack([value(scores[i : i + 1], targets[i : i + 1]) for i in range(4)])
    assert float(value(scores, targets)) == pytest.approx(float(each.mean()), abs=1e-6)


def test_a_volume_without_a_label_is_refused() -> None:
    """The server's volumes are labelled -1."""
    with pytest.raises((IndexError, RuntimeError)):
        value(torch.zeros(1, 2, 1, 1, 2), torch.full((1, 1, 1, 2), -1))


def test_the_signal_by_hand() -> None:
    """Four voxels, three classes; the model says 0 0 1 2 for sure, the labels 0 1 1 0: two of four agree.

    Distances 0 1 0 2: MAE 3/4. A wrong voxel differs by 1 in two of three classes: 2 * 2 / (4 * 3) = 1/3. A sure right
    voxel costs nothing and a sure wrong one the difference of scores, 100: 50 in the mean.
    """
    said, true = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0])
    scores = 100.0 * torch.nn.functional.one_hot(said, 3).T.reshape(1, 3, 1, 2, 2)
    found = KINDS["segmentation"].signal(scores, true.reshape(1, 1, 2, 2))
    assert found["intersection"].tolist() == [[1, 1, 0]]
    assert found["predicted"].tolist() == [[2, 1, 1]]
    assert found["true"].tolist() == [[2, 2, 0]]
    assert found["mae"].tolist() == [0.75]
    assert found["soft_mae"].tolist() == pytest.approx([1 / 3], abs=1e-9)
    assert found["loss"].tolist() == pytest.approx([50.0], abs=1e-9)


def test_scores_that_are_not_finite_show_in_the_loss() -> None:
    scores, targets = volumes(2)
    scores[1, 0, 0, 0, 0] = math.nan
    finite = torch.isfinite(KINDS["segmentation"].signal(scores, targets)["loss"])
    assert finite.tolist() == [True, False]


def test_signals_are_small_and_do_not_depend_on_the_batch_size() -> None:
    ward, weights = toy_volumes.Ward("north", toy_volumes.network()), toy_volumes.trained()[1]
    images = toy_volumes.volumes("north")
    whole = signals(ward, weights, images)
    assert {name: tuple(x.shape) for name, x in whole.items()} == {
        "intersection": (3, 3),
        "predicted": (3, 3),
        "true": (3, 3),
        "loss": (3,),
        "mae": (3,),
        "soft_mae": (3,),
    }
    for name, x in signals(ward, weights, images, batch_size=2).items():
        assert torch.allclose(x.double(), whole[name].double(), atol=1e-6), name


def test_no_more_outputs_are_held_than_of_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()

    def signal(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        seen.append(len(outputs))
        return {"x": targets.flatten(1).sum(1)}

    images, weights = toy_volumes.volumes("north"), toy_volumes.trained()[1]
    ward = toy_volumes.Ward("north", toy_volumes.network())
    found = signals(ward, weights, images, signal, batch_size=2)
    assert seen == [2, 1]
    assert torch.equal(found["x"], images.targets.flatten(1).sum(1))


def test_large_images_pass_a_few_at_a_time() -> None:
    """At most 2^20 pixels: 7 volumes of 147456 voxels, 256 images of 28 x 28 (of which 1337 would fit), one of all."""
    for spatial, expected in (((48, 64, 48), 7), ((28, 28), 256), ((128, 128, 128), 1)):
        with torch.device("meta"):
            images = Images(torch.empty(2, 1, *spatial), torch.empty(2), torch.empty(2))
        assert at_once(images) == expected


def test_a_hospital_without_images_has_no_signal_and_disturbs_no_other() -> None:
    none, rows = torch.zeros(0), torch.tensor([3, 1])
    assert (
        signals(
            toy.ToyLocal("north", toy.network(), toy.Log()),
            toy.trained()[0],
            Images(torch.zeros(0, *toy.SHAPE), none, none),
        )
        == {}
    )

    def reply(asks: Asks) -> Replies:
        assert asks["north"] == Signals({}, Select(split="all"))
        return {
            "north": Reply(None, 0, {"rows": none}),
            "east": Reply(None, 2, {"rows": rows, "logits": torch.tensor([[3.0], [1.0]])}),
        }

    found = toy.by_hand(gathered({}, ["north", "east"]), reply)
    assert found["rows"].tolist() == [1, 3] and found["logits"].tolist() == [[1.0], [3.0]]


def test_gradients_of_single_volumes_are_those_one_by_one() -> None:
    """Through vmap, the small U-Net's norms and its resizing included."""
    ward, weights = toy_volumes.Ward("north", toy_volumes.network()), toy_volumes.trained()[1]
    images = toy_volumes.volumes("north")
    (each,) = each_gradient(ward, weights, images)
    for i in range(len(images)):
        one = Images(images.pixels[i : i + 1], images.targets[i : i + 1], images.rows[i : i + 1])
        for name, g in gradient(ward, weights, one).items():
            assert torch.allclose(each[name][i], g, atol=1e-5), name


def test_training_lowers_the_loss_and_raises_dice() -> None:
    ward, start = toy_volumes.Ward("north", toy_volumes.network()), toy_volumes.trained()[0]
    images, local = toy_volumes.volumes("north"), toy_volumes.TRAINING.local
    trained = fit(ward, start, images, replace(local, epochs=40, lr=1e-2), seed=0)
    before, after = (signals(ward, weights, images) for weights in (start, trained))
    assert after["loss"].mean() < before["loss"].mean() / 2
    dice = [2 * s["intersection"][:, 1:] / (s["predicted"] + s["true"])[:, 1:] for s in (before, after)]
    assert dice[1].mean() > 0.7 > dice[0].mean()

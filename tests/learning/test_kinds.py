"""What the kind of task "segmentation" minimises and keeps, against MONAI and by hand."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import IGNORED, Asks, Batch, Images, Replies, Reply, Select
from fedunlearn.federation.procedures import signals as gathered
from fedunlearn.kinds.segmentation.learnt import DiceCrossEntropy, surface_distances
from fedunlearn.learning.kinds import filled, highest, ignored, learnt, relabelled, shares
from fedunlearn.learning.local import at_once, each_gradient, fit, gradient, signals
from fedunlearn.learning.tasks import Signals
from tests import toy, toy_volumes

pytestmark = pytest.mark.rounding

LOSS = DiceCrossEntropy()

ROUNDING = 1e-10
"""By how much two ways to the same loss may differ in float64.

A sum of N numbers of one sign is off by at most N 2^-53 of itself, in whatever order. N is at most 8192 voxels here, a
loss (log p and Dice) below 10: 2 * 8192 * 10 * 2^-53 = 1.8e-11.
"""


def volumes(n: int = 3, classes: int = 3, edge: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + classes)
    scores = 3 * torch.randn(n, classes, edge, edge, edge, generator=generator)
    return scores, torch.randint(classes, (n, edge, edge, edge), generator=generator)


def value(scores: Tensor, targets: Tensor) -> Tensor:
    return LOSS(nn.Identity(), Batch(scores, targets, torch.arange(len(targets))))


@pytest.mark.parametrize("shape", [(4, 2, 9, 8, 7), (2, 5, 16, 16, 16), (3, 4)])
def test_the_highest_score_is_the_first_of_several_as_argmax_says(shape: tuple[int, ...]) -> None:
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(1)).round()  # many are equal
    assert (scores == scores.amax(1, keepdim=True)).sum() > scores[:, 0].numel()
    scores[0, 1], scores[0, -1] = float("nan"), float("inf")
    assert torch.equal(highest(scores), scores.argmax(1))


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_the_loss_is_monais(classes: int) -> None:
    from monai.losses.dice import DiceCELoss

    scores, targets = volumes(classes=classes)
    scores = scores.double()
    slow = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    assert float(value(scores, targets)) == pytest.approx(float(slow(scores, targets[:, None])), abs=ROUNDING)


def test_the_loss_by_hand() -> None:
    """Two voxels, background and class 1, p = 1/2 each: CE log 2, Dice (2 * 1/2 + s) / (1 + 1 + s)."""
    found = value(torch.zeros(1, 2, 1, 1, 2, dtype=torch.float64), torch.tensor([[[[0, 1]]]]))
    assert float(found) == pytest.approx(math.log(2) + 1 - (1 + 1e-5) / (2 + 1e-5), abs=ROUNDING)


def test_the_loss_of_a_batch_is_the_mean_over_volumes() -> None:
    scores, targets = volumes(4)
    scores = scores.double()
    each = torch.stack([value(scores[i : i + 1], targets[i : i + 1]) for i in range(4)])
    assert float(value(scores, targets)) == pytest.approx(float(each.mean()), abs=ROUNDING)


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
    found = learnt("segmentation").signal(scores, true.reshape(1, 1, 2, 2))
    assert found["intersection"].tolist() == [[1, 1, 0]]
    assert found["predicted"].tolist() == [[2, 1, 1]]
    assert found["true"].tolist() == [[2, 2, 0]]
    # Class 1: voxel 2 of the model and voxels 1, 2 of the labels, all of them surface, 1 and 2 across from each other
    # in their square: (0 + sqrt 2 + 0) / 3. Class 2: the model's alone, the diagonal of 1 x 2 x 2. Background: 0.
    assert found["surface"].tolist() == [pytest.approx([0.0, math.sqrt(2) / 3, 3.0])]
    assert found["mae"].tolist() == [0.75]
    assert found["soft_mae"].tolist() == pytest.approx([1 / 3], abs=1e-9)
    assert found["loss"].tolist() == pytest.approx([50.0], abs=1e-9)


def balls(n: int, edge: int, seed: int) -> Tensor:
    """(n, 2, edge, edge, edge) bool: of each volume and class a ball somewhere, some of its voxels missing."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(edge))] * 3, indexing="ij"))
    centres = edge * torch.rand(n, 2, 3, 1, 1, 1, generator=generator)
    noise = torch.rand(n, 2, edge, edge, edge, generator=generator)
    return ((grid - centres).norm(dim=2) < edge / 3) & (noise < 0.9)


def slow_surface_distance(one: Tensor, other: Tensor) -> float:
    """All pairs of surface voxels."""

    def surface(voxels: Tensor) -> Tensor:
        padded = F.pad(voxels, [1] * 6)
        neighbours = [padded.roll(step, axis)[1:-1, 1:-1, 1:-1] for step in (1, -1) for axis in range(3)]
        return (voxels & ~torch.stack(neighbours).all(0)).nonzero().double()

    apart = torch.cdist(surface(one), surface(other))
    return float(torch.cat([apart.amin(0), apart.amin(1)]).mean())


def test_surface_distances_are_those_of_all_pairs_and_monais() -> None:
    from monai.metrics.surface_distance import compute_average_surface_distance

    one, other = balls(3, 9, 1), balls(3, 9, 2)
    found = surface_distances(one, other)
    slow = [[slow_surface_distance(one[n, c], other[n, c]) for c in range(2)] for n in range(3)]
    assert torch.allclose(found, torch.tensor(slow, dtype=torch.float64), atol=1e-6)
    with warnings.catch_warnings():  # MONAI warns of an argument that it gives itself
        warnings.simplefilter("ignore", FutureWarning)
        monais = compute_average_surface_distance(one, other, include_background=True, symmetric=True)
    assert torch.allclose(found, monais.double(), atol=1e-6)
    assert torch.allclose(found, surface_distances(other, one), atol=1e-6)


def test_a_structure_that_one_side_lacks_is_as_far_off_as_can_be() -> None:
    """Of 2 x 3 x 6 voxels, whose diagonal is 7; opposite corners are sqrt(1 + 4 + 25) apart. Equal ones: 0."""
    none = torch.zeros(1, 1, 2, 3, 6, dtype=torch.bool)
    first, last = none.clone(), none.clone()
    first[..., 0, 0, 0] = last[..., -1, -1, -1] = True
    assert surface_distances(none, first).item() == surface_distances(first, none).item() == 7.0
    assert surface_distances(first, last).item() == pytest.approx(math.sqrt(30), abs=1e-6)
    assert surface_distances(first, first).item() == surface_distances(none, none).item() == 0.0


def with_ignored(targets: Tensor) -> Tensor:
    """A copy of which another share of each volume is ignored; of the last volume, all."""
    targets, generator = targets.clone(), torch.Generator().manual_seed(0)
    for n, volume in enumerate(targets):
        volume[torch.rand(volume.shape, generator=generator) < (n + 1) / len(targets)] = IGNORED
    return targets


def test_what_is_ignored_is_as_if_it_were_not_there() -> None:
    """Loss and signals of every volume are those of its other voxels, in a row."""
    scores, targets = volumes(4)
    scores, targets = scores.double(), with_ignored(targets)
    found = learnt("segmentation").signal(scores, targets)
    for n in range(3):
        seen = targets[n] != IGNORED
        row, labels = scores[n, :, seen].view(1, 3, -1, 1, 1), targets[n, seen].view(1, -1, 1, 1)
        assert 0 < len(labels[0]) < seen.numel()
        assert float(value(scores[n : n + 1], targets[n : n + 1])) == pytest.approx(
            float(value(row, labels)), abs=ROUNDING
        )
        for name, alone in learnt("segmentation").signal(row, labels).items():
            if name != "surface":  # a row has others
                assert torch.allclose(found[name][n].double(), alone[0].double(), atol=1e-12), name


def test_a_volume_of_which_nothing_is_known_counts_as_perfect() -> None:
    """Cross-entropy 0, Dice (0 + s) / (0 + s) = 1; no class has a voxel."""
    scores, targets = volumes(2)
    targets[0] = IGNORED
    found = learnt("segmentation").signal(scores, targets)
    assert float(value(scores[:1], targets[:1])) == 0.0
    for name, each in found.items():
        assert not each[0].any() and each[1].any(), name


def test_what_is_predicted_where_labels_are_ignored_changes_nothing() -> None:
    """No loss, no slope, no signal; the last of three volumes is ignored as a whole."""
    scores, targets = volumes()
    targets = with_ignored(targets)
    out = (targets == IGNORED).unsqueeze(1).expand_as(scores)
    others = torch.where(
        out, 5 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(1)), scores
    )
    assert not torch.equal(others.argmax(1), scores.argmax(1))
    assert torch.equal(value(scores, targets), value(others, targets))
    slopes = [torch.func.grad(lambda x: value(x, targets))(x) for x in (scores, others)]
    assert torch.equal(*slopes) and not slopes[0][out].any() and slopes[0][~out].any()
    one, other = (learnt("segmentation").signal(x, targets) for x in (scores, others))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_ignored_voxels_the_slope_is_that_of_plain_cross_entropy_and_dice() -> None:
    """To the last bit, so that training is what it was."""
    scores, targets = volumes(2, edge=16)

    def plain(scores: Tensor, targets: Tensor) -> Tensor:
        p = torch.softmax(scores, 1).flatten(2)[:, 1:]
        g = F.one_hot(targets, 3).movedim(-1, 1).flatten(2)[:, 1:].float()
        dice = (2 * (p * g).sum(2) + 1e-5) / (p.sum(2) + g.sum(2) + 1e-5)
        return F.cross_entropy(scores, targets) + 1 - dice.mean()

    slopes = [torch.func.grad(loss)(scores, targets) for loss in (value, plain)]
    assert torch.equal(*slopes)
    wide = scores.double()
    assert float(value(wide, targets)) == pytest.approx(float(plain(wide, targets)), abs=ROUNDING)


def test_no_class_of_an_image_is_ignored() -> None:
    """Image 255 of a classifier of 300 has class 255, as good as any."""
    classes = torch.arange(300)
    assert not ignored(classes).any() and torch.equal(filled(classes), classes)
    assert torch.equal(relabelled(classes, classes + 1), classes + 1)
    assert torch.equal(shares(classes, torch.float32), torch.ones(300))


def test_scores_that_are_not_finite_show_in_the_loss() -> None:
    scores, targets = volumes(2)
    scores[1, 0, 0, 0, 0] = math.nan
    finite = torch.isfinite(learnt("segmentation").signal(scores, targets)["loss"])
    assert finite.tolist() == [True, False]


def test_signals_are_small_and_do_not_depend_on_the_batch_size() -> None:
    ward, weights = (
        toy_volumes.Ward(toy_volumes.VOLUMES, "north", toy_volumes.network()),
        toy_volumes.trained()[1],
    )
    images = toy_volumes.volumes("north")
    whole = signals(ward, weights, images)
    assert {name: tuple(x.shape) for name, x in whole.items()} == {
        "intersection": (3, 3),
        "predicted": (3, 3),
        "true": (3, 3),
        "surface": (3, 3),
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
    ward = toy_volumes.Ward(toy_volumes.VOLUMES, "north", toy_volumes.network())
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
    ward, weights = (
        toy_volumes.Ward(toy_volumes.VOLUMES, "north", toy_volumes.network()),
        toy_volumes.trained()[1],
    )
    images = toy_volumes.volumes("north")
    (each,) = each_gradient(ward, weights, images)
    for i in range(len(images)):
        one = Images(images.pixels[i : i + 1], images.targets[i : i + 1], images.rows[i : i + 1])
        for name, g in gradient(ward, weights, one).items():
            assert torch.allclose(each[name][i], g, atol=1e-5), name


def test_training_lowers_the_loss_and_raises_dice() -> None:
    ward, start = (
        toy_volumes.Ward(toy_volumes.VOLUMES, "north", toy_volumes.network()),
        toy_volumes.trained()[0],
    )
    images, local = toy_volumes.volumes("north"), toy_volumes.TRAINING.local
    trained = fit(ward, start, images, replace(local, epochs=40, lr=1e-2), seed=0)
    before, after = (signals(ward, weights, images) for weights in (start, trained))
    assert after["loss"].mean() < before["loss"].mean() / 2
    dice = [2 * s["intersection"][:, 1:] / (s["predicted"] + s["true"])[:, 1:] for s in (before, after)]
    assert dice[1].mean() > 0.7 > dice[0].mean()

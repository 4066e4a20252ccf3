"""What training minimises where each voxel has a class, and what is kept of answers: a few numbers of each volume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import IGNORED, Batch
from fedunlearn.learning.kernels import dice_cross_entropy, on_cpu, with_slope
from fedunlearn.learning.kinds import Learnt, finite, highest, ignored, labelled, mean, shares, wrapped

_SMOOTH = 1e-5  # of the Dice coefficient of a class that neither side has


@dataclass(frozen=True)
class DiceCrossEntropy:
    """Cross-entropy plus one minus the soft Dice coefficient of each class but the first (background).

    With p the class probabilities of a volume (softmax) and g its labels, 0 or 1 by class, sums over voxels::

        L = -mean log p_y + mean over classes c > 0 of 1 - (2 sum p_c g_c + s) / (sum p_c + sum g_c + s),  s = 1e-5

    in the mean over volumes, each by itself. The same number as MONAI's ``DiceCELoss(to_onehot_y=True, softmax=True,
    include_background=False)``. A step of training on a CPU is given the gradient along with it (`dice_cross_entropy`),
    in half the time; it can be differentiated twice and for each volume at once all the same. Voxels that are `IGNORED`
    count in neither half, as if they were not there. The Dice half is between 0 and 1 and cares for a structure however
    small it is (Milletari et al., "V-Net", 3DV 2016, arXiv 1606.04797); the other half has a slope where the first has
    none.
    """

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        outputs = module(batch.inputs)
        targets = labelled(batch, outputs.shape[1])
        if not outputs.requires_grad or not on_cpu(outputs) or wrapped(outputs):
            return _dice_cross_entropy(outputs, targets)
        labels = _by_class(targets, outputs.shape[1])
        loss, slope = dice_cross_entropy(outputs.detach(), labels, ~ignored(targets), _SMOOTH)
        return with_slope(outputs, loss, slope, again=partial(_dice_cross_entropy, targets=targets))


def _dice_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """`DiceCrossEntropy` by operations that can be differentiated, twice and for each volume at once."""
    p = torch.softmax(outputs, 1).masked_fill(ignored(targets).unsqueeze(1), 0).flatten(2)[:, 1:]
    g = _by_class(targets, outputs.shape[1]).flatten(2)[:, 1:].to(p.dtype)
    dice = (2 * (p * g).sum(2) + _SMOOTH) / (p.sum(2) + g.sum(2) + _SMOOTH)
    losses = F.cross_entropy(outputs, targets, reduction="none", ignore_index=IGNORED)
    return (losses * shares(targets, losses.dtype)).mean() + 1 - dice.mean()


def _overlaps(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """What Dice, surface distance, loss and errors of each volume follow from; of N volumes with classes c.

    ``intersection``, ``predicted``, ``true``: (N, classes) voxels of class c where both, the model (highest score) and
    the labels say so. ``surface``: (N, classes) as `surface_distances` tells, 0 for the background. ``loss``: (N,) mean
    cross-entropy over voxels. ``mae``: (N,) mean |predicted class - label|, the numbers of the classes taken as they
    are. ``soft_mae``: (N,) mean over voxels and classes of |p_c - g_c|. Voxels that are `IGNORED` are in no count and
    no mean; for surfaces they are background, to model and labels alike.
    """
    classes, scores, unknown = outputs.shape[1], outputs.double(), ignored(targets)
    predicted, g = highest(outputs), _by_class(targets, classes)
    q = _by_class(predicted, classes) & ~unknown.unsqueeze(1)
    share, p = shares(targets, torch.float64), torch.softmax(scores, 1)
    return {
        "intersection": (q & g).flatten(2).sum(2),
        "predicted": q.flatten(2).sum(2),
        "true": g.flatten(2).sum(2),
        "surface": F.pad(surface_distances(q[:, 1:], g[:, 1:]), (1, 0)),  # 0 for the background
        **_losses(outputs, targets),
        "mae": mean((predicted - targets).abs() * share),
        "soft_mae": mean((p - g.double()).abs() * share.unsqueeze(1)),
    }


def _losses(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``loss``: (N,) as in `_overlaps`."""
    losses = F.cross_entropy(outputs.double(), targets, reduction="none", ignore_index=IGNORED)
    return {"loss": mean(losses * shares(targets, torch.float64))}


def _overlapping(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """Of `_overlaps`, ``loss`` and what Dice follows from."""
    classes, known = outputs.shape[1], ~ignored(targets).unsqueeze(1)
    g, q = _by_class(targets, classes), _by_class(highest(outputs), classes) & known
    counts = {"intersection": q & g, "predicted": q, "true": g}
    found = {name: voxels.flatten(2).sum(2) for name, voxels in counts.items()}
    return {**found, "loss": finite(_losses(outputs, targets)["loss"])}


def surface_distances(predicted: Tensor, true: Tensor) -> Tensor:
    """The average symmetric surface distance of every volume and class, in voxels, (N, classes) float64.

    The surface of a class are its voxels with a neighbour, face to face, that is not of it. The mean is over the voxels
    of both surfaces, each with its distance to the nearest voxel of the other (Heimann et al., IEEE Trans. Med. Imaging
    28, 2009). The same number as MONAI's ``compute_average_surface_distance(symmetric=True)``, from SciPy in half the
    time. A class that only one of both has is as far off as the volume's diagonal is long, which is more than any
    distance in it: what was missed or made up is never left out. What neither has is at 0.

    Args:
        predicted: (N, classes, *spatial) bool, which voxels are of each class.
        true: the same of the labels.
    """
    one, other = predicted.cpu(), true.cpu()
    has_one, has_other = (x.flatten(2).any(2) for x in (one, other))
    found = (has_one != has_other).double() * math.hypot(*one.shape[2:])
    for n, c in (has_one & has_other).nonzero().tolist():
        found[n, c] = _surface_distance(one[n, c].numpy(), other[n, c].numpy())
    return found.to(predicted.device)


def _surface_distance(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Of two sets of voxels, (*spatial) each, neither of them empty."""
    from scipy import ndimage  # here, since only volumes need it

    (box,) = ndimage.find_objects((one | other).astype(np.uint8))  # small for good models, and so is the work
    first, second = (x[box] ^ ndimage.binary_erosion(x[box]) for x in (one, other))
    to_first, to_second = (ndimage.distance_transform_edt(~surface) for surface in (first, second))
    return float(np.concatenate([to_second[first], to_first[second]]).mean())


def _by_class(labels: Tensor, classes: int) -> Tensor:
    """(N, classes, *spatial) bool: which voxels of ``labels``, (N, *spatial), are of each class."""
    shape = (1, classes, *([1] * (labels.dim() - 1)))
    return labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(shape)


LEARNT = Learnt(DiceCrossEntropy(), _overlaps, _losses, _overlapping)

"""Kinds of task: what differs between classifying images and segmenting volumes.

A kind brings the training objective, the per-image signal that is kept for scoring, and (in `fedunlearn.scoring`, by
the kind's name) the measures. Its networks name it. Nothing else asks what a target is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import IGNORED, Batch
from fedunlearn.learning.kernels import dice_cross_entropy, on_cpu, with_slope

_SMOOTH = 1e-5  # of the Dice coefficient of a class that neither side has


class Objective(Protocol):
    """A pure function (module, batch) -> mean loss; a frozen dataclass, so that it can cross a wire in a task."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss, a scalar that can be differentiated."""
        ...


Signal = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""(outputs, targets) -> numbers of each image by name."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of class scores (B, classes, *spatial) against targets (B, *spatial)."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        outputs = module(batch.inputs)
        return F.cross_entropy(outputs, labelled(batch, outputs.shape[1]))


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
        if not outputs.requires_grad or not on_cpu(outputs) or _wrapped(outputs):
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


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    Attributes:
        name: its name.
        objective: what training minimises.
        signal: (outputs, targets) -> per-image numbers by name, each (N,) or (N, k): all that scoring ever sees. It
            is given some images at a time.
        brief: of the signal, what tells how sure a model is of the right answer, in less time.
        glance: of each image, ``loss``, cross-entropy in nats or -1 where it is not finite, and what the quality of
            answers follows from, in less time than the signal.
    """

    name: str
    objective: Objective
    signal: Signal
    brief: Signal
    glance: Signal


def _logits(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    return {"logits": outputs}


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
        "mae": _mean((predicted - targets).abs() * share),
        "soft_mae": _mean((p - g.double()).abs() * share.unsqueeze(1)),
    }


def _losses(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``loss``: (N,) as in `_overlaps`."""
    losses = F.cross_entropy(outputs.double(), targets, reduction="none", ignore_index=IGNORED)
    return {"loss": _mean(losses * shares(targets, torch.float64))}


def _rightly(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``loss`` and ``right``: (N,) each, whether the class of most score is the image's."""
    losses = F.cross_entropy(outputs.double(), targets, reduction="none")
    return {"loss": _finite(losses), "right": (outputs.argmax(1) == targets).double()}


def _overlapping(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """Of `_overlaps`, ``loss`` and what Dice follows from."""
    classes, known = outputs.shape[1], ~ignored(targets).unsqueeze(1)
    g, q = _by_class(targets, classes), _by_class(highest(outputs), classes) & known
    counts = {"intersection": q & g, "predicted": q, "true": g}
    found = {name: voxels.flatten(2).sum(2) for name, voxels in counts.items()}
    return {**found, "loss": _finite(_losses(outputs, targets)["loss"])}


def highest(outputs: Tensor) -> Tensor:
    """Of scores (N, classes, *spatial) the class with the highest, the first of several: (N, *spatial) int64.

    As ``argmax``, which takes seven times as long for volumes on a CPU.
    """
    return outputs.max(1).indices


def _finite(losses: Tensor) -> Tensor:
    """``losses``, -1 where they are not finite: a model may be lost later, and is looked at until then."""
    return torch.where(losses.isfinite(), losses, -1.0)


def labelled(batch: Batch, classes: int) -> Tensor:
    """The targets of ``batch``, looked at: a GPU that meets a label that is no class is lost to its process.

    There only the first step of a training is looked at, since the GPU must be waited for: hospitals' own labels are
    known to be classes (`sites.hospital.Federation.write`), and images without labels, the server's, have none in any
    step. On a CPU every step is; of images with one class each torch itself does so.

    Raises:
        IndexError: some are no class, as torch has it on the CPU.
    """
    targets = batch.targets
    if (targets.dim() == 1 if on_cpu(targets) else batch.step) or _wrapped(targets) or not targets.numel():
        return targets
    if _are_classes(targets, classes) or _are_classes(known := filled(targets), classes):
        return targets
    found = sorted(set(known[(known < 0) | (known >= classes)].tolist()))[:5]
    raise IndexError(
        f"found labels {found}, expected classes 0 to {classes - 1}: the server's images have no labels"
    )


def _are_classes(labels: Tensor, classes: int) -> bool:
    """Whether ``labels`` are, seen in one pass: .003 of the CPU time of a step of `unet3d`."""
    least, most = labels.aminmax()
    return bool((least >= 0) & (most < classes))  # at once: a GPU is waited for


def ignored(targets: Tensor) -> Tensor:
    """Which voxels of label maps (N, *spatial) are `IGNORED`, bool; of images with one class each (N,), none."""
    return targets == IGNORED if targets.dim() > 1 else torch.zeros_like(targets, dtype=torch.bool)


def relabelled(targets: Tensor, labels: Tensor) -> Tensor:
    """``labels`` in the place of ``targets``, but what is `IGNORED` stays so; both (N, ...)."""
    return torch.where(ignored(targets), targets, labels)


def filled(targets: Tensor) -> Tensor:
    """``targets`` with class 0 where they are `IGNORED`, to be used as indices; what comes of these must not count."""
    return targets.masked_fill(ignored(targets), 0)


def shares(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """What each voxel (or image) counts in the mean over its volume: 1, or if some are `IGNORED`, 0 and more; (N, ...).

    The mean of values times these is the mean of the values that count.
    """
    known = (~ignored(targets)).reshape(len(targets), -1)
    each = known.shape[1] / known.sum(1, keepdim=True).clamp(min=1).double()
    return (known.to(dtype) * each.to(dtype)).view_as(targets)


def _mean(values: Tensor) -> Tensor:
    """(N,) of each image."""
    return values.flatten(1).mean(1)


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


def _wrapped(values: Tensor) -> bool:
    """Whether `torch.func` is at work, for which a tensor stands for many."""
    return torch._C._functorch.is_functorch_wrapped_tensor(values)


def _by_class(labels: Tensor, classes: int) -> Tensor:
    """(N, classes, *spatial) bool: which voxels of ``labels``, (N, *spatial), are of each class."""
    shape = (1, classes, *([1] * (labels.dim() - 1)))
    return labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(shape)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("classification", CrossEntropy(), _logits, _logits, _rightly),
        Kind("segmentation", DiceCrossEntropy(), _overlaps, _losses, _overlapping),
    )
}

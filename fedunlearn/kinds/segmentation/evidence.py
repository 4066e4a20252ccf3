"""What a network makes of volumes: the signal of the kind "segmentation" and the numbers that follow from it.

A few numbers of each volume (`fedunlearn.learning.kinds`): how many voxels the model and the labels give to each class
and on how many they agree, how far their surfaces lie apart, the mean loss, the mean errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fedunlearn.core import RunError
from fedunlearn.scoring.evidence import Floats, Frame
from fedunlearn.scoring.evidence.bootstrap import macro
from fedunlearn.scoring.evidence.mean_loss import scaled

BY_CLASS = ("intersection", "predicted", "true", "surface")
MEANS = ("loss", "mae", "soft_mae")


@dataclass(frozen=True, eq=False)
class Overlaps:
    """What one model makes of every volume.

    Attributes:
        intersection, predicted, true: (N, C) voxels of each class where model and labels agree, where the model says
            so, where the labels do.
        surface: (N, C) voxels between the surfaces of model and labels (`fedunlearn.learning.kinds.surface_distances`),
            0 for the background; None where predictions were dealt to other volumes, for which it cannot be known.
        losses: (N,) mean cross-entropy over voxels, in nats.
        mae: (N,) mean over voxels of |predicted class - label|.
        soft_mae: (N,) mean over voxels and classes of |probability - (1 where it is the label's class, else 0)|.
    """

    intersection: Floats
    predicted: Floats
    true: Floats
    surface: Floats | None
    losses: Floats
    mae: Floats
    soft_mae: Floats

    @property
    def finite(self) -> bool:
        """See `Answers`: scores that are not finite have no finite loss, whatever class is predicted."""
        return bool(np.isfinite(self.losses).all() and np.isfinite(self.soft_mae).all())

    def mixed_up(self, rng: np.random.Generator) -> Overlaps:
        """See `Answers`: each volume is given another's prediction, which overlaps no more than chance has it."""
        order = rng.permutation(len(self.true))
        predicted = self.predicted[order]
        voxels = np.maximum(self.true.sum(axis=1, keepdims=True), 1)  # of some volume, all may be ignored
        others = (x[order] for x in (self.losses, self.mae, self.soft_mae))
        return Overlaps(predicted * self.true / voxels, predicted, self.true, None, *others)

    @cached_property
    def margin(self) -> Floats:
        """(N,) ``log p - log(1 - p)`` of p = exp(-loss), a voxel's probability in geometric mean over the volume."""
        return scaled(self.losses)

    @cached_property
    def sizes(self) -> Floats:
        """(N, C - 1) voxels of both, of each class but the background: what twice the intersection is a share of."""
        sizes: Floats = (self.predicted + self.true)[:, 1:]
        return sizes


def each_dice(intersection: Floats, predicted: Floats, true: Floats) -> Floats:
    """(N,) each volume's Dice coefficient, in the mean over those of its classes that model or labels have.

    ``intersection``, ``predicted`` and ``true`` are (N, C) voxels of each class, as of `Overlaps`; the first class, the
    background, is left out. NaN where nothing is left.
    """
    return macro(2 * intersection[:, 1:], (predicted + true)[:, 1:])


def volume_dice(signals: pd.DataFrame, classes: int) -> Floats:
    """(N,) each volume's Dice (`each_dice`); NaN where it is undefined, or the model diverged.

    Args:
        signals: of this kind (`fedunlearn.learning.kinds`), one row per volume.
        classes: how many there are.
    """
    counts = (signals[[f"{n}_{c}" for c in range(classes)]] for n in BY_CLASS[:3])
    return each_dice(*(table.to_numpy(np.float64) for table in counts))


def overlap(answers: Overlaps) -> Floats:
    """(N,) the mean Dice coefficient over the classes of a volume but the background; 1 if there is none, nor seen.

    Not the probability that stands behind a volume's loss, ``exp(-loss)``: nearly all of that is about background, of
    which volumes may have any amount. On the hippocampus (half resolution, 6 pairs of models) both are as precise,
    the halves of the pairs agreeing on images with r = .91 and .93, but the mean score is .11 in Dice and .02 in the
    other.
    """
    found = each_dice(answers.intersection, answers.predicted, answers.true)
    return np.where(np.isnan(found), 1.0, found)


def overlaps(signals: pd.DataFrame, frame: Frame, file: str) -> Overlaps:
    """A model's signal as a run folder keeps it.

    Args:
        signals: the content of ``file``, one row per volume of ``frame``.
        frame: the volumes.
        file: named in errors.

    Raises:
        RunError: the columns are others.
    """
    counts = {name: [f"{name}_{c}" for c in range(frame.classes)] for name in BY_CLASS}
    columns = [*(column for names in counts.values() for column in names), *(f"{name}_0" for name in MEANS)]
    if list(signals.columns) != columns:
        raise RunError(f"{file} has columns {list(signals.columns)}; expected {columns}")
    tables = {name: signals[list(names)].to_numpy(np.float64) for name, names in counts.items()}
    losses, mae, soft_mae = (signals[f"{name}_0"].to_numpy(np.float64) for name in MEANS)
    return Overlaps(**tables, losses=losses, mae=mae, soft_mae=soft_mae)


def overlapping(shown: Mapping[str, Floats]) -> Floats:
    """(models,) the mean Dice of the volumes that have one."""
    counts = [shown[name] for name in ("intersection", "predicted", "true")]
    models, volumes = counts[0].shape[:2]
    found = each_dice(*(one.reshape(models * volumes, -1) for one in counts)).reshape(models, volumes)
    defined = np.isfinite(found)
    mean: Floats = np.where(defined, found, 0).sum(axis=1) / np.where(
        defined.any(axis=1), defined.sum(axis=1), np.nan
    )
    return mean

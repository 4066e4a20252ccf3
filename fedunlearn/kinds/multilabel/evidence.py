"""What a network says of each finding of an image: the signal of this kind and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import expit

from fedunlearn.core import RunError
from fedunlearn.scoring.evidence import Bools, Floats, Frame, Ints
from fedunlearn.scoring.evidence.mean_loss import scaled


@dataclass(frozen=True, eq=False)
class Findings:
    """What one model says of every image; F findings.

    Attributes:
        logits: (N, F) scores of "present", less those of "absent": ``log p - log(1 - p)``.
        targets: (N, F) 1 present, 0 absent, -1 where nobody knows: that counts in nothing.
    """

    logits: Floats
    targets: Ints

    @property
    def finite(self) -> bool:
        """See `Answers`."""
        return bool(np.isfinite(self.logits).all())

    def mixed_up(self, rng: np.random.Generator) -> Findings:
        """See `Answers`: each image is given what was said of another."""
        return replace(self, logits=rng.permutation(self.logits))

    @cached_property
    def known(self) -> Bools:
        """(N, F) whether anybody knows."""
        known: Bools = self.targets >= 0
        return known

    @cached_property
    def each(self) -> Floats:
        """(N, F) binary cross-entropy in nats, ``log(1 + exp(-z))`` of what is present, ``log(1 + exp(z))`` else.

        0 where nobody knows; small losses keep their order.
        """
        each: Floats = np.logaddexp(0.0, np.where(self.targets == 1, -self.logits, self.logits))
        return np.where(self.known, each, 0.0)

    @cached_property
    def losses(self) -> Floats:
        """(N,) the mean over an image's known findings; 0 of one of which nothing is known."""
        losses: Floats = self.each.sum(axis=1) / np.maximum(self.known.sum(axis=1), 1)
        return losses

    @cached_property
    def worst(self) -> Floats:
        """(N,) the loss of the known finding that the model is most wrong about."""
        worst: Floats = self.each.max(axis=1)
        return worst

    @cached_property
    def margin(self) -> Floats:
        """(N,) ``log p - log(1 - p)`` of p = exp(-loss), a finding's probability in geometric mean over the image's."""
        return scaled(self.losses)

    @cached_property
    def present(self) -> Floats:
        """(N, F) the probability that a finding is present."""
        present: Floats = expit(self.logits)
        return present


def findings(signals: pd.DataFrame, frame: Frame, file: str) -> Findings:
    """A model's signal as a run folder keeps it: columns ``logit_0`` … ``logit_{F-1}``, ``target_0`` ….

    Args:
        signals: the content of ``file``, one row per image of ``frame``.
        frame: the images.
        file: named in errors.

    Raises:
        RunError: the columns are others.
    """
    count = len(signals.columns) // 2
    columns = [f"{name}_{f}" for name in ("logit", "target") for f in range(count)]
    if not count or list(signals.columns) != columns:
        expected = "logit_0, logit_1, …, then as many of target_0, target_1, …"
        raise RunError(f"{file} has columns {list(signals.columns)}; expected {expected}")
    logits, targets = (signals[names].to_numpy(np.float64) for names in (columns[:count], columns[count:]))
    return Findings(logits, np.nan_to_num(targets, nan=-1.0).astype(np.int64))


def rightly(shown: Mapping[str, Floats]) -> Floats:
    """(models,) the mean over images of the share of an image's known findings that is rightly told."""
    found: Floats = shown["right"].mean(axis=1)
    return found

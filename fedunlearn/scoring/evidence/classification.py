"""What a classifier answers: the signal of the kind "classification" and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import expit

from fedunlearn.core import RunError
from fedunlearn.scoring.evidence import Floats, Frame, Ints


@dataclass(frozen=True, eq=False)
class Outputs:
    """One model's class scores.

    Attributes:
        logits: (N, C) class scores.
        labels: (N,) the true classes.
        beside: by name, what it answers to a part of each image alone, where it is asked for that too.
    """

    logits: Floats
    labels: Ints
    beside: Mapping[str, Outputs] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """See `Answers`."""
        return bool(np.isfinite(self.logits).all()) and all(one.finite for one in self.beside.values())

    def mixed_up(self, rng: np.random.Generator) -> Outputs:
        """See `Answers`."""
        return self._dealt(rng.permutation(len(self.logits)))

    def _dealt(self, order: Ints) -> Outputs:
        beside = {name: one._dealt(order) for name, one in self.beside.items()}
        return replace(self, logits=self.logits[order], beside=beside)

    @cached_property
    def margins(self) -> Floats:
        """(N, C) logit-scaled confidence ``log p_c - log(1 - p_c)``, from logits, so that it never saturates.

        The scores of the other classes are added up in their order, those before c once for all.
        """
        scores = np.ascontiguousarray(self.logits.T)
        others = np.full_like(scores, -np.inf)
        before = others[0].copy()
        for c, own in enumerate(scores):
            others[c] = np.logaddexp.reduce([before, *scores[c + 1 :]])
            before = np.logaddexp(before, own)
        margins: Floats = self.logits - others.T
        return margins

    @cached_property
    def margin(self) -> Floats:
        """(N,) the margin of the true class."""
        margin = np.empty(len(self.labels))
        for c in np.unique(self.labels):
            here = self.labels == c
            logits = self.logits[here]
            margin[here] = logits[:, c] - np.logaddexp.reduce(np.delete(logits, c, axis=1), axis=1)
        return margin

    @cached_property
    def losses(self) -> Floats:
        """(N,) cross-entropy ``-log p_y = log(1 + exp(-margin))`` in nats; small losses keep their order."""
        losses: Floats = np.logaddexp(0.0, -self.margin)
        return losses

    @cached_property
    def entropy(self) -> Floats:
        """(N,) ``-sum_c p_c log p_c`` in nats; of a certain answer, small but not rounded to 0."""
        entropy: Floats = (expit(self.margins) * np.logaddexp(0.0, -self.margins)).sum(axis=1)
        return entropy

    @cached_property
    def modified_entropy(self) -> Floats:
        """(N,) ``-(1 - p_y) log p_y - sum_{c != y} p_c log(1 - p_c)`` in nats (Song and Mittal, 2021)."""
        terms = expit(self.margins) * np.logaddexp(0.0, self.margins)
        terms[np.arange(len(self.labels)), self.labels] = expit(-self.margin) * self.losses
        entropy: Floats = terms.sum(axis=1)
        return entropy

    @cached_property
    def confidence(self) -> Floats:
        """(N,) the highest probability of any class."""
        confidence: Floats = expit(self.margins.max(axis=1))
        return confidence

    @cached_property
    def predicted(self) -> Ints:
        """(N,) the class of the highest score, the first of equal ones."""
        predicted: Ints = self.logits.argmax(axis=1)
        return predicted

    @cached_property
    def correct(self) -> Floats:
        """(N,) 1 where the highest score is the true class's, else 0 (the first of equal scores counts)."""
        correct: Floats = (self.predicted == self.labels).astype(np.float64)
        return correct


def margin(signals: pd.DataFrame, frame: Frame, rows: Ints, file: str) -> Floats:
    """(n,) `Outputs.margin` of some images, ``rows`` (n,) of the frame.

    Raises:
        RunError: see `outputs`.
    """
    return _outputs(signals, frame, frame.labels[rows], file).margin


def outputs(signals: pd.DataFrame, frame: Frame, file: str) -> Outputs:
    """A model's signal as a run folder keeps it: columns ``logits_0`` … ``logits_{C-1}``.

    Args:
        signals: the content of ``file``, one row per image of ``frame``.
        frame: the images.
        file: named in errors.

    Raises:
        RunError: the columns are others, or an image has no class.
    """
    return _outputs(signals, frame, frame.labels, file)


def _outputs(signals: pd.DataFrame, frame: Frame, labels: Ints, file: str) -> Outputs:
    columns = [f"logits_{c}" for c in range(frame.classes)]
    if list(signals.columns) != columns:
        raise RunError(f"{file} has columns {list(signals.columns)}; expected {columns}")
    wrong = int(((labels < 0) | (labels >= frame.classes)).sum())
    if wrong:
        raise RunError(f"sites.parquet: {wrong} images have no label in 0 … {frame.classes - 1}")
    return Outputs(signals.to_numpy(np.float64), labels)


def rightly(shown: Mapping[str, Floats]) -> Floats:
    """(models,) the share of right answers."""
    found: Floats = shown["right"].mean(axis=1)
    return found

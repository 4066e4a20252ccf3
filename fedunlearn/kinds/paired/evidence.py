"""What a network says of pairs: this kind's signal, as the answers to both together, and beside them those to each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from fedunlearn.core import RunError
from fedunlearn.scoring.evidence import Floats, Frame, Ints
from fedunlearn.scoring.evidence.classification import Outputs, outputs

ALONE = ("image", "beside")
"""What is answered alone: the image, and what comes beside it."""
PLACES = (*ALONE, "both")
"""What answers are given by, in the order in which a run folder keeps them."""


def pairs(signals: pd.DataFrame, frame: Frame, file: str) -> Outputs:
    """A model's signal as a run folder keeps it: columns ``image_0`` … ``image_{C-1}``, ``beside_0`` …, ``both_0`` ….

    Args:
        signals: the content of ``file``, one row per image of ``frame``.
        frame: the images.
        file: named in errors.

    Returns:
        The answers to both, those to each alone in `Outputs.beside`.

    Raises:
        RunError: the columns are others, or an image has no class.
    """
    each = _each(signals, frame.classes, file)
    both, *alone = (outputs(each[place], frame, file) for place in ("both", *ALONE))
    return replace(both, beside=dict(zip(ALONE, alone, strict=True)))


def margin(signals: pd.DataFrame, frame: Frame, rows: Ints, file: str) -> Floats:
    """(n,) `remembered` of the answers about some images, ``rows`` (n,) of the frame.

    Raises:
        RunError: see `pairs`.
    """
    each, labels = _each(signals, frame.classes, file), frame.labels[rows]
    found: Floats = np.mean([Outputs(x.to_numpy(np.float64), labels).margin for x in each.values()], axis=0)
    return found


def remembered(answers: Outputs) -> Floats:
    """(N,) what memory is judged by: the mean margin of the answers to the image, to what is beside it, and to both.

    Networks know more by one than by another: what is left by the report alone may be a small part of this mean. So
    each is judged by itself too (`alone`).
    """
    found: Floats = np.mean([answers.margin, *(one.margin for one in answers.beside.values())], axis=0)
    return found


def alone(place: str, answers: Outputs) -> Floats:
    """(N,) the margin of the answers to the image, or to what is beside it, alone; ``place`` is of `ALONE`."""
    return answers.beside[place].margin


def likeness(one: Floats, other: Floats) -> Floats:
    """How alike answers are, (N, M): ``sum_c sqrt(p_c q_c)``, 1 of equal ones, 0 of those that exclude each other.

    Bhattacharyya's coefficient (Bull. Calcutta Math. Soc. 35, 1943), of class scores (N, C) and (M, C).
    """
    p, q = (np.exp(log_softmax(scores, axis=1) / 2) for scores in (one, other))
    found: Floats = p @ q.T
    return found


def agreement(answers: Outputs) -> Floats:
    """(N,) how much alike answers to each image and to what comes beside it are: their `likeness` less 1.

    As ``-sum_c (sqrt(p_c) - sqrt(q_c))^2 / 2``, Hellinger's distance: of nearly sure answers, whose likeness rounds to
    1, it still tells which are more alike.
    """
    p, q = (np.exp(log_softmax(answers.beside[place].logits, axis=1) / 2) for place in ALONE)
    found: Floats = -((p - q) ** 2).sum(axis=1) / 2
    return found


def _each(signals: pd.DataFrame, classes: int, file: str) -> dict[str, pd.DataFrame]:
    """By place, a table as a classifier's."""
    columns = {place: [f"{place}_{c}" for c in range(classes)] for place in PLACES}
    expected = [column for names in columns.values() for column in names]
    if list(signals.columns) != expected:
        raise RunError(f"{file} has columns {list(signals.columns)}; expected {expected}")
    plain = [f"logits_{c}" for c in range(classes)]
    return {place: signals[names].set_axis(plain, axis=1) for place, names in columns.items()}

"""How much models remember of each training image: what those trained on its patient answer, and those that were not.

Unlike measures, this says nothing of any request: it is a property of the data and the training, and tells which
patients a model could be made to forget at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # Student's quantile; scipy.stats would take half a second to import

from fedunlearn.scoring.evidence import Bools, Floats, Shadow
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.kinds import scored


def confidence(answers: Outputs) -> Floats:
    """(N,) the true class's probability."""
    confident: Floats = np.exp(-answers.losses)
    return confident


def memorisation(signals: Floats, members: Bools) -> pd.DataFrame:
    """Memorisation scores of the images that some models were trained on, with their 95 % intervals.

    Feldman and Zhang, NeurIPS 2020 (arXiv 2008.03703), equation 1, in the form estimated from models on random subsets:
    ``mem(x) = E[signal | x in] - E[signal | x out]``. Deviations: the whole patient is in or out, not the single image;
    halves, not 70 % of the data; the true class's probability, not whether the class is recognised, which needs fewer
    models for the same precision, and of volumes Dice. The interval is Student's for the mean of the differences within
    complementary pairs of models: whatever an image's neighbours add to one model of a pair, the other is denied, so
    that the two answers are not independent.

    Args:
        signals: (M, N) of every model and image; models 2j and 2j + 1 are a pair.
        members: (M, N) whether the model was trained on the image.

    Returns:
        One row per image that is in any model, with its row number as index: value, low, high, n_in, n_out. A single
        pair of models has no interval (NaN).

    Raises:
        ValueError: models are not in complementary pairs.
    """
    trained = members.any(axis=0)
    inside, signals = members[:, trained], signals[:, trained]
    if len(members) % 2 or (inside[0::2] == inside[1::2]).any():
        raise ValueError(
            "expected models in complementary pairs: 2j + 1 trained on the images that 2j was not"
        )
    differences = np.where(inside[0::2], 1.0, -1.0) * (signals[0::2] - signals[1::2])
    pairs, value = len(differences), differences.mean(axis=0)
    width = np.full(len(value), np.nan)
    if pairs > 1:
        width = stdtrit(pairs - 1, 0.975) * differences.std(axis=0, ddof=1) / np.sqrt(pairs)
    columns = {"value": value, "low": np.maximum(value - width, -1.0), "high": np.minimum(value + width, 1.0)}
    counts = {"n_in": inside.sum(axis=0), "n_out": (~inside).sum(axis=0)}
    return pd.DataFrame({**columns, **counts}, index=np.flatnonzero(trained))


def table(images: pd.DataFrame, kind: str, shadows: Sequence[Shadow[Any]]) -> pd.DataFrame:
    """The content of ``memorisation.parquet``: image, patient, site, and the columns of `memorisation`.

    Args:
        images: one row per image, in the order of the shadows' answers.
        kind: of task.
        shadows: at least one pair.
    """
    told = scored(kind).confidence
    signals = np.stack([told(shadow.answers) for shadow in shadows])
    scores = memorisation(signals, np.stack([shadow.members for shadow in shadows]))
    whose = images[["image", "patient", "site"]].iloc[scores.index].reset_index(drop=True)
    return pd.concat([whose, scores.reset_index(drop=True)], axis=1)

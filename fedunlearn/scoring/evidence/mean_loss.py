"""Images that are answered in many places, as voxels or findings: how sure a model is of all of an image's at once.

What is right of an image has no single probability there. ``exp(-loss)`` of its mean loss is taken for one: the
probability of what is right in geometric mean over places.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedunlearn.core import RunError
from fedunlearn.scoring.evidence import Floats, Frame, Ints


def scaled(losses: Floats) -> Floats:
    """``log p - log(1 - p)`` of p = exp(-loss), of each of ``losses``; finite."""
    losses = np.maximum(losses, np.finfo(np.float64).tiny)  # of a perfect answer, large but finite
    margin: Floats = -losses - np.log(-np.expm1(-losses))
    return margin


def margin(signals: pd.DataFrame, frame: Frame, rows: Ints, file: str) -> Floats:
    """(n,) the same of a table that has a model's losses alone, one row for each of ``rows`` (n,).

    Raises:
        RunError: ``file``, which it is from, has other columns.
    """
    if list(signals.columns) != ["loss_0"]:
        raise RunError(f"{file} has columns {list(signals.columns)}; expected ['loss_0']")
    return scaled(signals["loss_0"].to_numpy(np.float64))

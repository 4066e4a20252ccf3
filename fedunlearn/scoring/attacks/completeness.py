"""How far, image by image, a model has come from the original's answer to that of models which never saw it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fedunlearn.scoring.evidence import Estimates, Evidence, Floats, Frame, WithLosses
from fedunlearn.scoring.evidence.bootstrap import ratios

STEPS = 100
"""Points of the interpolation, the two ends among them."""

EULER = 0.5772156649015329
"""Mean of the standard Gumbel distribution."""


def iam_completeness(evidence: Evidence[WithLosses]) -> Estimates:
    """The mean completeness of unlearning over the images to forget: 1 forgotten and more, 0 as the original.

    Interpolated Approximate Measurement, Wang et al., USENIX Security 2025 (arXiv 2506.06112), as in Happy2Git/
    Unlearning_Inference_IAM @ 038880c, `iam_score.py`, types "gumbel", "linear", fixed variance. With the signal
    ``s = -log(0.01 - log(p_y + 1e-5))``, interpolate from each model that never saw the images (the retrained ones of
    other seeds) to the original one, at alpha_i = i / 99. At each step a Gumbel distribution has, by moments, the
    image's mean over the interpolated models and one standard deviation over models and images; G_i is its
    distribution function at the model's signal. Completeness is ``1 - sum_{i<99} alpha_{i+1} G_i / sum alpha``.

    Deviation: Euler's constant is not rounded. Above what the retrained model scores: forgotten too much. Range 0 to 1;
    the retrained model is *not* at 1. Cost: at least one other seed; undefined without, and where signals do not vary.
    """
    frame, rows = evidence.frame, np.flatnonzero(evidence.frame.rows("forget"))
    if not evidence.others:
        return {}
    steps = _steps(frame, evidence.original, evidence.others)
    if steps is None:
        return {}
    (scales, modes), alphas = steps, np.linspace(0.0, 1.0, STEPS)
    # Beyond 700 the outer exponential is 0 and the inner one would overflow.
    beyond = np.minimum((modes - _signal(evidence.unlearned)[rows]) / scales[:, None], 700.0)
    remembered = (alphas[1:, None] * np.exp(-np.exp(beyond))).sum(axis=0)
    complete = np.zeros((len(frame.patients), 1))
    complete[rows, 0] = 1 - remembered / alphas.sum()
    return ratios(frame, frame.rows("forget"), complete, np.ones_like(complete))


@lru_cache(maxsize=4)  # of several models at once, and of the control that has other ones
def _steps(frame: Frame, model: WithLosses, others: tuple[WithLosses, ...]) -> tuple[Floats, Floats] | None:
    """(STEPS - 1,) scales and (STEPS - 1, n) modes of the images to forget, from ``others`` to the original ``model``.

    None where signals do not vary somewhere between.
    """
    rows = np.flatnonzero(frame.rows("forget"))
    outside, original = np.stack([_signal(other)[rows] for other in others]), _signal(model)[rows]
    scales, modes = [], []
    for here in np.linspace(0.0, 1.0, STEPS)[:-1]:
        between = outside + here * (original - outside)
        scale = np.sqrt(6) / np.pi * between.std()
        if not scale > 0:
            return None
        scales.append(scale)
        modes.append(between.mean(axis=0) - EULER * scale)
    return np.array(scales), np.stack(modes)


def _signal(model: WithLosses) -> Floats:
    """(N,) ``-log(0.01 - log(p_y + 1e-5))``, which spreads out both the well and the badly known images."""
    signal: Floats = -np.log(1e-2 - np.log(np.exp(-model.losses) + 1e-5))
    return signal

"""Scores of patients: what a model answers about each, less what it answers about comparable images it never saw.

How much of that is memory is told by `fedunlearn.scoring.judgement.memory`, whose signal phi is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedunlearn.scoring.evidence import Bools, Floats, Frame, Ints


def scores(frame: Frame, phi: Floats, asked: Bools) -> tuple[Ints, Floats, Ints, tuple[Floats, Ints]]:
    """Patients' scores under models.

    Args:
        frame: the images.
        phi: (models, N).
        asked: (N,) the images to look at.

    Returns:
        (P,) the codes of the patients to forget; (models, P) their scores, NaN where none of their hospitals has
        anything held out; (P,) how many images these are the means of; and of the held-out patients of these
        hospitals (models, H) the scores, each against the others, and of how many images.
    """
    forget = frame.rows("forget") & asked
    held_out = _held_out(frame, asked) & np.isin(frame.sites, frame.sites[forget])
    levels = _levels(frame, phi, held_out)
    patients, own, images = _relative(frame, phi, forget, levels, False)
    _, theirs, counts = _relative(frame, phi, held_out, levels, True)
    known = np.isfinite(theirs).all(axis=0)
    return patients, own, images, (theirs[:, known], counts[known])


def each(frame: Frame, phi: Floats, rows: Bools) -> Floats:
    """(models, n) phi of each image of ``rows`` (N,) less what the model answers on held-out images of its kind.

    Of one patient the mean over images that are not NaN is its score; NaN where a hospital has nothing held out.

    Args:
        frame: the images.
        phi: (models, N).
        rows: training images.
    """
    levels = _levels(frame, phi, _held_out(frame, np.ones_like(rows)))
    return _apart(frame, phi, rows, levels, False)[0]


def strangers(frame: Frame, phi: Floats) -> Floats:
    """(models, n) phi of each held-out image at the hospitals of those to forget, less that of other patients there.

    Args:
        frame: the images.
        phi: (models, N).
    """
    held_out = _held_out(frame, np.ones(phi.shape[1], dtype=bool))
    rows = held_out & np.isin(frame.sites, frame.sites[frame.rows("forget")])
    found = _apart(frame, phi, rows, _levels(frame, phi, rows), True)[0]
    return found[:, np.isfinite(found).all(axis=0)]


def _held_out(frame: Frame, asked: Bools) -> Bools:
    """(N,) the images ``asked`` about (N,) of patients of whom nothing was trained on."""
    held_out: Bools = frame.rows("test") & ~np.isin(frame.patients, frame.patients[frame.train]) & asked
    return held_out


def _levels(frame: Frame, phi: Floats, held_out: Bools) -> list[tuple[_Sums, Ints]]:
    """What images are compared with: the same label at the same hospital first, then the hospital."""
    strata = frame.sites * (frame.classes + 1) + frame.labels + 1
    return [(_Sums(phi, held_out, codes), codes) for codes in (strata, frame.sites)]


class _Sums:
    """Sums of phi over held-out images, by a code, and by a code and patient.

    Args:
        phi: (models, N).
        rows: (N,) the images.
        codes: (N,) what to sum by.
    """

    def __init__(self, phi: Floats, rows: Bools, codes: Ints) -> None:
        self._size = int(codes.max(initial=0)) + 1
        self.totals = np.stack([np.bincount(codes[rows], x[rows], self._size) for x in phi])
        self.counts = np.bincount(codes[rows], minlength=self._size).astype(np.float64)

    def mean(self, codes: Ints, less: Floats, fewer: Floats) -> Floats:
        """(models, n) the means of ``codes`` (n,), without sums ``less`` (models, n) of ``fewer`` (n,) images.

        NaN where no image is left.
        """
        left = self.counts[codes] - fewer
        means: Floats = np.where(left > 0, (self.totals[:, codes] - less) / np.maximum(left, 1), np.nan)
        return means


def _relative(
    frame: Frame, phi: Floats, rows: Bools, levels: Sequence[tuple[_Sums, Ints]], inside: bool
) -> tuple[Ints, Floats, Ints]:
    """(P,) patients of ``rows`` and (models, P) their mean phi less that of held-out images, as alike as there are.

    And (P,) how many images have such: the mean is over these, NaN of none. Args as of `_apart`.
    """
    apart, patients, who, alike = _apart(frame, phi, rows, levels, inside)
    images = np.bincount(who[alike], minlength=len(patients))
    counts = np.where(images > 0, images, np.nan)
    means = np.stack([np.bincount(who[alike], x[alike], len(patients)) / counts for x in apart])
    return patients, means, images


def _apart(
    frame: Frame, phi: Floats, rows: Bools, levels: Sequence[tuple[_Sums, Ints]], inside: bool
) -> tuple[Floats, Ints, Ints, Bools]:
    """(models, n) phi of ``rows`` less that of held-out images, (P,) the rows' patients, and (n,) which is whose.

    And (n,) whether there is anything to compare with: where not, the difference is NaN. It is of images, not of
    answers: a model that answers NaN is not excused from the image.

    Args:
        frame: the images.
        phi: (models, N).
        rows: (N,) the patients' images.
        levels: what is compared with, the likest first, and each image's code there.
        inside: the rows are themselves held out: each patient is compared with the others.
    """
    here = np.flatnonzero(rows)
    patients, who = np.unique(frame.patients[here], return_inverse=True)
    expected, alike = np.full((len(phi), len(here)), np.nan), np.zeros(len(here), dtype=bool)
    for sums, codes in levels:
        pairs, pair = np.unique(np.stack([who, codes[here]]), axis=1, return_inverse=True)
        pair = pair.reshape(-1)
        fewer = (np.bincount(pair, minlength=pairs.shape[1]) * int(inside)).astype(np.float64)
        own = [np.bincount(pair, x[here] * inside, pairs.shape[1]) for x in phi]
        less = np.array(own, dtype=np.float64)
        found = sums.mean(pairs[1], less, fewer)[:, pair]
        expected = np.where(np.isnan(expected), found, expected)
        alike |= (sums.counts[pairs[1]] > fewer)[pair]
    return phi[:, here] - expected, patients, who, alike

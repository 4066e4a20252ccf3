"""Attacks that learn from some patients and judge others: who is in which fold, and what is compared with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedunlearn.scoring.attacks.membership import alike, forget_versus_held_out
from fedunlearn.scoring.attacks.pairs import Contest, Pairs, contest, pair_up, share
from fedunlearn.scoring.evidence import Estimates, Floats, Frame, Ints


@dataclass(frozen=True, eq=False)
class Folds:
    """Images that are cross-validated, no patient in two folds.

    Attributes:
        rows: the images: to forget, then held out.
        truth: of each of these, 1 if it is to forget, 0 if held out.
        parts: by fold, which of these to learn from, and which to judge.
        pairs: (image to forget, held-out image) of one hospital and label that one fold judges.
    """

    rows: Ints
    truth: Ints
    parts: tuple[tuple[Ints, Ints], ...]
    pairs: Contest

    def area(self, scores: Floats) -> Estimates:
        """The area under the ROC curve of scores (N,), within folds: what another fold learnt is on another scale.

        A fold's attack learnt from other patients only. So where nothing tells the patients to forget from those held
        out, exchanging the two within a fold changes nothing, and the area is 0.5 in the mean. Between folds it is
        less: the higher the members of one fold score by chance, the more is asked of the members of the others by the
        attacks that learn from it. (500 draws of 12 and 13 patients: .500 within, .475 between, both ± .004.)
        """
        return share(self.pairs, scores)


@lru_cache(maxsize=4)  # the request at hand and the one before, of two attacks
def folds_of(frame: Frame, most: int) -> Folds | None:
    """The images that `mia_loss_auc` compares, in ``most`` folds, or fewer where a side has fewer patients.

    `StratifiedGroupKFold` by patient, not shuffled, so that the order of images does not matter.

    Returns:
        None for a single patient on a side, or where no fold has comparable images.
    """
    compared = forget_versus_held_out(frame).get("all")
    if compared is None:
        return None
    sides = compared.left, compared.right
    fewest = min(len(np.unique(frame.patients[side])) for side in sides)
    if fewest < 2:
        return None
    from sklearn.model_selection import StratifiedGroupKFold  # here, because importing it takes a second

    rows, truth = np.concatenate(sides), np.repeat([1, 0], [len(side) for side in sides])
    split = StratifiedGroupKFold(min(most, fewest)).split(rows[:, None], truth, frame.patients[rows])
    parts = tuple((learn, judge) for learn, judge in split if 0 < truth[learn].sum() < len(learn))
    pairs = _within(frame, rows, truth, parts)
    return Folds(rows, truth, parts, contest(frame, pairs)) if pairs else None


def _within(
    frame: Frame, rows: Ints, truth: Ints, parts: tuple[tuple[Ints, Ints], ...]
) -> Mapping[str, Pairs]:
    """By group, the pairs of one hospital, label and fold."""
    sides = np.zeros((2, len(frame.patients)), dtype=bool)
    apart = alike(frame) * len(parts)
    for fold, (_, judge) in enumerate(parts):
        sides[truth[judge], rows[judge]] = True
        apart[rows[judge]] += fold
    found = {}
    for group, here in frame.within(sides[1]).items():
        members = np.zeros(len(frame.patients), dtype=bool)
        members[here] = True
        found[group] = pair_up(frame, members, sides[0], apart)
    return {group: pairs for group, pairs in found.items() if pairs is not None}

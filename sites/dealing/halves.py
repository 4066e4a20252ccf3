"""Random halves of the training patients: what shadow models are trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from sites.dealing.patients import Strings, most_common

Bools = npt.NDArray[np.bool_]


def halves(table: pd.DataFrame, site: Strings, train: Bools, rng: np.random.Generator) -> Bools:
    """Two complementary random halves of every hospital's training patients.

    A patient is in one of the two as a whole, at whichever hospitals it has images; it counts for the hospital that
    holds most of its training images. Of an odd number of patients, chance decides which half gets one more. The order
    of the images does not matter.

    Args:
        table: one row per image, with ``patient``.
        site: (N,) the hospital of each image.
        train: (N,) whether it is a training image; no other is in either half.
        rng: decides.

    Returns:
        (N, 2) the images of one half and of the other.
    """
    patients, member = np.unique(np.asarray(table["patient"], dtype=str)[train], return_inverse=True)
    if not len(patients):
        return np.zeros((len(train), 2), dtype=bool)
    home = most_common(member, len(patients), site[train])
    first = np.zeros(len(patients), dtype=bool)
    for hospital in np.unique(home):
        own = rng.permutation(np.flatnonzero(home == hospital))
        first[own[: (len(own) + rng.integers(2)) // 2]] = True
    both = np.zeros((len(train), 2), dtype=bool)
    both[train] = np.stack([first[member], ~first[member]], axis=1)
    return both

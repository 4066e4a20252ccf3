"""What the labels of a label map mean: classes, or `IGNORED`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from sites.formats.unreadable import Unreadable

MOST = IGNORED
"""The most labels a map may have: each fits a byte, and so does `IGNORED`."""

ADVICE = f"set labels: {{{IGNORED}: 1}} if that is a structure, labels: {{{IGNORED}: ignored}} if not"


_NEAR = 1e-4  # of a label, that rounding of floats and of a header's scaling may come to


def whole_numbers(voxels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Labels that are whole but for rounding as whole ones; all others as they are."""
    nearest = np.rint(voxels)
    return np.where(np.abs(voxels - nearest) <= _NEAR * np.maximum(1, np.abs(nearest)), nearest, voxels)


def only_ignored(labels: Iterable[float]) -> bool:
    """Whether a map has no label but `IGNORED`, and maybe 0: a mask of 0 and 255, hardly meant to be ignored."""
    found = set(labels)
    return IGNORED in found and found <= {0, IGNORED}


def meanings(
    found: Collection[float], labels: Sequence[tuple[int, int]] | None, classes: Sequence[int] | None
) -> npt.NDArray[np.uint8]:
    """The class, or `IGNORED`, of each number 0…255, as far as a map has it.

    Args:
        found: the labels of one map.
        labels: the class (or `IGNORED`) of some labels; all others are what they are.
        classes: the class of each class so far, from 0 on; None for as they are.

    Raises:
        Unreadable: a label is unknown, or there is none but `IGNORED`.
    """
    named = dict(labels or ())
    if only_ignored(found) and IGNORED not in named:
        message = (
            f"has the labels {_listed(found)} only, and {IGNORED} stands for voxels to be ignored: {ADVICE}"
        )
        raise Unreadable("only 0 and 255", message)
    plain = {label: label for label in range(MOST if classes is None else len(classes))}
    known = {**plain, IGNORED: IGNORED, **named}
    if unknown := [label for label in found if label not in known]:
        expected = f"whole numbers in 0…{max(plain)}, or {IGNORED} for voxels to be ignored"
        if named:
            expected += f", or one that labels names: {_listed(named)}"
        broken = any(label != round(label) for label in unknown)
        advice = ": was it resampled linearly? Do so by nearest neighbour" if broken else ""
        message = f"has the unknown labels {_listed(unknown)}, expected {expected}{advice}"
        raise Unreadable("unknown labels", message)
    table = np.full(IGNORED + 1, IGNORED, np.uint8)
    for label in found:
        meant = known[int(label)]
        table[int(label)] = meant if classes is None or meant == IGNORED else classes[meant]
    return table


def merged(found: Collection[float], labels: Sequence[tuple[int, int]] | None) -> tuple[str, ...]:
    """A note for every class that several labels of one map are, since it was said so: elsewhere they may mean another.

    Args:
        found: the labels of one map, all of them known.
        labels: as in `meanings`.
    """
    classes = dict[int, list[float]]()
    for label in sorted(found):
        classes.setdefault(dict(labels or ()).get(int(label), int(label)), []).append(label)
    return tuple(
        f"the labels {_listed(those)} of one map are all read as {'ignored' if meant == IGNORED else meant}, "
        "as labels says"
        for meant, those in classes.items()
        if len(those) > 1
    )


def _listed(labels: Iterable[float], most: int = 5) -> str:
    return ", ".join(f"{label:g}" for label in sorted(labels)[:most])

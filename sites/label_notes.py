"""What the owner of some images should know of their classes, by the names and by who has them."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedunlearn.core.blanks import NOBODY
from sites.identity import listed, quoted

SHOWN = 5
"""Classes that a sentence names."""

_MOST = 200  # names that are compared, and letters of each
_OFTEN = 5  # times as often as another, a name may be what that one was meant to be


def rare(names: Sequence[str], targets: npt.NDArray[np.int64], patients: Sequence[str]) -> list[str]:
    """Notes of classes that have a single image or patient, or may be another's name with a slip of the pen."""
    counts = np.bincount(targets, minlength=len(names)).tolist()
    owners = Counter(code for code, _ in set(zip(targets.tolist(), patients, strict=True)))
    single = [quoted(name) for name, count in zip(names, counts, strict=True) if count == 1]
    alone = [quoted(name) for code, name in enumerate(names) if counts[code] > 1 and owners[code] == 1]
    notes = [
        f"{_some(classes)} {'has' if len(classes) == 1 else 'have'} images of a single {what}: such a class cannot "
        "be in training and in test"
        for classes, what in ((single, "patient, one image"), (alone, "patient"))
        if classes
    ]
    return notes + _slips(dict(zip(names, counts, strict=True)))


def unsaid(names: Sequence[str]) -> list[str]:
    """A note of classes that seem to stand for no label."""
    if none := [name for name in names if name.casefold() in NOBODY]:
        what = "counts as a class" if len(none) == 1 else "count as classes"
        return [f"{listed(none)} {what}: if that stands for no label, remove these rows"]
    return []


def _slips(counts: dict[str, int]) -> list[str]:
    """A note of names that a much more frequent one resembles."""
    slips = []
    for name, count in list(counts.items())[:_MOST]:
        frequent = [
            other
            for other, more in counts.items()
            if more >= _OFTEN * count and not re.fullmatch(r"[\d.+-]+", other)
        ]
        close = (
            difflib.get_close_matches(name, frequent[:_MOST], n=1, cutoff=0.8) if len(name) < _MOST else []
        )
        if close and re.sub(r"\d", "", name) != re.sub(r"\d", "", close[0]):
            slips.append(f"{quoted(name)} ({count:,}) and {quoted(close[0])} ({counts[close[0]]:,} images)")
    return [f"is one of these a slip of the pen: {'; '.join(slips[:SHOWN])}?"] if slips else []


def _some(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
    return f"{'class' if len(classes) == 1 else 'classes'} {', '.join(classes[:SHOWN])}{more}"

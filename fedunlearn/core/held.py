"""What a kind of task makes of its targets before there is a network: what images are told apart, counted and dealt by.

`held` finds it by the kind's name, in the kind's own folder (`fedunlearn.core.kinds`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core.kinds import brought, kinds

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Held:
    """One kind of task, as those see it who hold, count and share out its images.

    Targets are as `sites.collection.Collection` has them; what is called a name is of a class or of a finding.

    Attributes:
        one: what ``has`` tells of: a class, a finding, a structure.
        labels: of targets, (N,) the class of each image; None where an image has no class of its own.
        has: of targets and the number of classes, (N, names) whether an image is of a class, has a finding, or its
            label map a structure; background is none.
        strata: of targets and names, what images are dealt and picked by, as (N,) numbers, and what these are called;
            None where nothing divides them.
        columns: of targets and names, the columns of ``sites.parquet`` that tell of them.
        named: what these columns are called; by the last one images of rare names are picked.
        unknown: of some names it may be unknown whether an image has them (`fedunlearn.core.IGNORED`).
    """

    one: str
    labels: Callable[[Array], Array | None]
    has: Callable[[Array, int], Bools]
    strata: Callable[[Array, Sequence[str]], tuple[Array, Sequence[str]] | None]
    columns: Callable[[Array, Sequence[str]], Mapping[str, Any]]
    named: tuple[str, ...] = ()
    unknown: bool = False


def held(kind: str) -> Held:
    """What a kind makes of its targets.

    Raises:
        KeyError: there is no kind of this name.
    """
    found: Held = brought(kind, "held", "HELD")
    return found


def columns() -> tuple[str, ...]:
    """The columns of ``sites.parquet`` that any kind makes of its targets."""
    return tuple(dict.fromkeys(name for kind in kinds() for name in held(kind).named))


def picked_by() -> tuple[str, ...]:
    """Those by which images of rare names are picked."""
    return tuple(dict.fromkeys(one.named[-1] for one in map(held, kinds()) if one.named))


def by_class(labels: Callable[[Array], Array]) -> Held:
    """Of a kind whose images have one class each.

    Args:
        labels: of targets, (N,) the class of each image.
    """

    def has(targets: Array, classes: int) -> Bools:
        found: Bools = np.eye(classes, dtype=bool)[labels(targets)]
        return found

    return Held(
        one="class",
        labels=labels,
        has=has,
        strata=lambda targets, names: (labels(targets), names),
        columns=lambda targets, _: {"label": labels(targets)},
        named=("label",),
    )

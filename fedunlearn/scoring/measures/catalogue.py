"""The catalogue of measures: what each is, and what its numbers mean. ``list measures --json`` prints it.

Each kind of task brings its own measures (`fedunlearn.scoring.kinds.Scored`); those of cost are of every kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from fedunlearn.core import RunError
from fedunlearn.core.kinds import kinds
from fedunlearn.scoring.evidence.measure import Measure as Measure  # part of the catalogue
from fedunlearn.scoring.kinds import every, scored
from fedunlearn.scoring.measures import cost


@cache
def measures_of(kind: str) -> Mapping[str, Measure]:
    """The measures of a kind of task, by name, each after those it builds on.

    Raises:
        RunError: there is no such kind.
    """
    if kind not in kinds():
        raise RunError(f"cannot score a run of kind {kind!r}; known are {', '.join(kinds())}")
    own = scored(kind)
    return {one.name: one for one in (*own.measures, *own.probed, *cost.COSTS)}


@cache
def all_measures() -> Mapping[str, Measure]:
    """All measures by name; of what several kinds have, the first one's."""
    found: dict[str, Measure] = {}
    for kind in every():
        found |= {name: one for name, one in measures_of(kind).items() if name not in found}
    return found


COSTS: Mapping[str, Measure] = {one.name: one for one in cost.COSTS}
"""Those that say what a model cost, whatever it answers."""


def __getattr__(name: str) -> Mapping[str, Measure]:
    """``MEASURES``, all measures by name: asked of the kinds when it is wanted, as they are built on this room."""
    if name == "MEASURES":
        return all_measures()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

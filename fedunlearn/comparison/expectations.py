"""What is expected of a run: a YAML list of ranges, each of one measure of one model, with what a paper says of it.

.. code-block:: yaml

    - {request: patients, strategy: salun, measure: test_accuracy, than: retrained, low: -0.03, high: 0.03,
       paper: "about 1 % below retraining", source: "arXiv 2310.12508, abstract"}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.core import InputError, Problem
from fedunlearn.scoring.measures.catalogue import all_measures
from fedunlearn.yaml.source import Kind, load
from fedunlearn.yaml.tree import Items, Node, Table, as_texts, described, shown

MEMORY = "memory_left"
"""The share of the original's memory that is left: no measure of single models, but what strategies are judged by."""
_LIST = Kind("list of expected ranges", "`- {request: …, strategy: …, measure: …, low: …, high: …}`")
_TEXTS = ("request", "strategy", "group", "than", "cell", "paper", "source")


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """A range for one measure, in the mean over seeds.

    Attributes:
        request: its id, as in the run's tables.
        strategy: the label of a strategy, or original or retrained.
        measure: one of ``list measures``, or memory_left.
        group: of patients or images, such as site=north or class=1.
        than: another model, from which the difference is taken seed by seed; None for the measure itself.
        low, high: the range, both ends included; None where it is open.
        cell: of a sweep, the cell it is about; None for every run.
        paper: what the paper says, in its own measure.
        source: where it says so, or where else the range is from.
    """

    request: str
    strategy: str
    measure: str
    group: str = "all"
    than: str | None = None
    low: float | None = None
    high: float | None = None
    cell: str | None = None
    paper: str = ""
    source: str = ""

    def holds(self, value: float) -> bool:
        """Whether ``value`` is in the range; NaN is in none."""
        low = -math.inf if self.low is None else self.low
        return low <= value <= (math.inf if self.high is None else self.high)


def read(path: Path) -> list[Expectation]:
    """Read a file of expected ranges.

    Raises:
        InputError: it cannot be read or used; all problems, each at its line and column.
    """
    tree, found = load(path, _LIST), list[Problem]()
    if not isinstance(tree, Items) or not tree.items:
        raise InputError(
            [tree.place.problem(f"expected a {_LIST.noun} ({_LIST.looks}), found {described(tree)}")]
        )
    read = [_expectation(node, found) for node in tree.items]
    if found:
        raise InputError(found)
    return [one for one in read if one is not None]


def _expectation(node: Node, found: list[Problem]) -> Expectation | None:
    from fedunlearn.scenario.typed import (
        build,
    )  # loads what trains, which only those who expect something wait for

    one = build(as_texts(node, _TEXTS), Expectation, found)
    if one is None or not isinstance(node, Table):
        return None
    found += [(node.get(key) or node).place.problem(message) for key, message in _wrong(one)]
    return one


def _wrong(one: Expectation) -> Iterator[tuple[str, str]]:
    """(key, message) of what does not fit together."""
    from fedunlearn.scenario.typed import meant

    if one.measure != MEMORY and one.measure not in all_measures():
        expected = f"expected {MEMORY} or a name of `fedunlearn list measures`"
        yield (
            "measure",
            f"measure: unknown measure {shown(one.measure)}{meant(one.measure, all_measures())}; {expected}",
        )
    if one.low is None and one.high is None:
        yield "", "found neither `low` nor `high`; expected one of them, or both"
    elif one.low is not None and one.high is not None and one.low > one.high:
        yield "low", f"low: found {one.low:g}, which is more than high, {one.high:g}; nothing could be within"
    if one.measure == MEMORY and (one.than is not None or one.group != "all"):
        wrong = "than" if one.than is not None else "group"
        yield wrong, f"{wrong}: {MEMORY} is of a request as a whole, and relative to retraining; leave it out"

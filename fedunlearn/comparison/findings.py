"""What was expected beside what was found, and whether all of it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import pandas as pd
from rich.console import Console
from rich.text import Text

from fedunlearn.comparison.expectations import MEMORY, Expectation
from fedunlearn.comparison.runs import Compared
from fedunlearn.core import RunError
from fedunlearn.results.overview import Value, over_seeds
from fedunlearn.results.summary import Column, table, wrapped


@dataclass(frozen=True)
class Finding:
    """What a run has for an expectation.

    Attributes:
        expectation: what was expected.
        run: the run's name; empty where no run has the cell.
        value: the mean over seeds and half of its 95 % interval, which luck among seeds leaves; infinite of one seed.
        missing: why there is no value, such as of a memory that cannot be seen; empty if there is one.
    """

    expectation: Expectation
    run: str
    value: Value = field(default_factory=Value)
    missing: str = ""

    @property
    def holds(self) -> bool:
        """Whether the mean is within the range; what is missing or diverged is not."""
        return not self.missing and self.expectation.holds(self.value.value)


def check(runs: Sequence[Compared], expected: Sequence[Expectation], console: Console) -> None:
    """Print every expectation beside what was found.

    Raises:
        RunError: one does not hold, or what it is about is missing.
    """
    found = find(runs, expected)
    for text in lines(found):
        console.print(text, soft_wrap=True)
    if failed := sum(not one.holds for one in found):
        raise RunError(f"{failed} of {len(found)} expectations do not hold: see the rows with no or missing")


def find(runs: Sequence[Compared], expected: Sequence[Expectation]) -> list[Finding]:
    """Run by run, what each has for every expectation that is about it; last, those about cells that no run has."""
    found = [_found(one, run) for run in runs for one in expected if one.cell in (None, run.cell)]
    cells = {run.cell for run in runs}
    absent = [one for one in expected if one.cell is not None and one.cell not in cells]
    return found + [Finding(one, "", missing=f"no run has the cell {one.cell}") for one in absent]


def _found(one: Expectation, run: Compared) -> Finding:
    finding = Finding(one, run.name)
    if one.request not in run.overviews:
        return replace(finding, missing=f"no request {one.request}; it has {_some(run.overviews)}")
    scores = run.scores[run.scores["request"] == one.request]
    models = list(dict.fromkeys(scores["strategy"]))
    for model in filter(None, (one.strategy, one.than)):
        if model not in models:
            return replace(finding, missing=f"no strategy {model}; it has {_some(models)}")
    if one.measure == MEMORY:
        if not run.overviews[one.request].tells:
            return replace(finding, missing="this run cannot tell")
        value = _memory(one, run.statistics)
        return replace(finding, value=value) if value else replace(finding, missing="nothing of its memory")
    values = _by_seed(scores, one, one.strategy)
    if one.than is not None:
        values = (values - _by_seed(scores, one, one.than)).reindex(values.index)
    if values.empty:
        of_group = "" if one.group == "all" else f" of {one.group}"
        return replace(finding, missing=f"no {one.measure}{of_group} of {one.strategy}")
    return replace(finding, value=over_seeds(values))


def _by_seed(scores: pd.DataFrame, one: Expectation, model: str) -> pd.Series:
    """The measure of a model, by seed."""
    named = scores[
        (scores["strategy"] == model) & (scores["measure"] == one.measure) & (scores["group"] == one.group)
    ]
    return named.set_index("seed")["value"]


def _memory(one: Expectation, statistics: pd.DataFrame) -> Value | None:
    """What strategies are judged by; None where the run does not know it."""
    named = statistics[
        (statistics["request"] == one.request)
        & (statistics["strategy"] == one.strategy)
        & (statistics["measure"] == MEMORY)
    ]
    if named.empty:
        return None
    (row,) = named.to_dict("records")
    return Value(float(row["difference"]), float(row["high"]) - float(row["difference"]))


def _some(names: Iterable[str]) -> str:
    """A few of them."""
    listed = list(names)
    return ", ".join([*listed[:6], *(["…"] if len(listed) > 6 else [])]) or "none"


# ------------------------------------------------------------------------------------------------ as text


def lines(found: Sequence[Finding]) -> list[Text]:
    """A table for every run and request, then what the papers say; no line is wider than 80 columns."""
    told = list[Text]()
    requests = list(dict.fromkeys(one.expectation.request for one in found))
    for run, request in product(dict.fromkeys(one.run for one in found), requests):
        some = [one for one in found if (one.run, one.expectation.request) == (run, request)]
        if some:
            heading = f"{run or 'no run'}, {request}: expected and found, in the mean over seeds"
            told += [*wrapped(heading, "", "  ", "bold"), *_table(some), *_missing(some), Text()]
    if said := _said(found):
        told += [*wrapped("What papers say of it, and where ranges are from:", "", ""), *said, Text()]
    held = sum(one.holds for one in found)
    end = f"{held} of {len(found)} within. ±: 95 %, by luck of the seeds (of memory_left, as judged)."
    return [*told, *wrapped(end, "", "")]


def _table(found: Sequence[Finding]) -> list[Text]:
    names = [_name(one.expectation) for one in found]
    answers = ("missing" if one.missing else "yes" if one.holds else "no" for one in found)
    return table(
        names,
        [
            Column("", ("", "expected"), tuple(_range(one.expectation) for one in found)),
            Column("", ("", "found"), tuple("-" if one.missing else _value(one.value) for one in found)),
            Column("", ("", "within?"), tuple(answers), left=True),
        ],
    )


def _name(one: Expectation) -> str:
    group = "" if one.group == "all" else f" of {one.group}"
    return f"{one.strategy}: {one.measure}{group}{f' (less {one.than})' if one.than else ''}"


def _missing(found: Sequence[Finding]) -> list[Text]:
    sentences = (f"missing: {_name(one.expectation)}: {one.missing}." for one in found if one.missing)
    return [part for sentence in sentences for part in wrapped(sentence, "  ", "    ", "dim")]


def _said(found: Sequence[Finding]) -> list[Text]:
    """What is said, once for all that it is said of."""
    said = dict[tuple[str, str], dict[str, None]]()
    for one in (finding.expectation for finding in found):
        if one.paper or one.source:
            said.setdefault((one.paper, one.source), {})[_name(one)] = None
    sentences = (
        f"{'; '.join(names)}: {paper}{' ' if paper else ''}{f'({source})' if source else ''}"
        for (paper, source), names in said.items()
    )
    return [part for sentence in sentences for part in wrapped(sentence, "  ", "    ", "dim")]


def _range(one: Expectation) -> str:
    if one.low is None or one.high is None:
        return f"at most {_number(one.high)}" if one.low is None else f"at least {_number(one.low)}"
    return f"{_number(one.low)} to {_number(one.high)}"


def _value(value: Value) -> str:
    """A mean, with its interval where there is one."""
    if math.isnan(value.value):
        return "?"
    half = f" ±{_number(value.half)}" if math.isfinite(value.half) else ""
    return f"{_number(value.value)}{half}"


def _number(value: float | None) -> str:
    """Three decimals, less where they say nothing."""
    if value is None or not math.isfinite(value):
        return "?"
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:.4g}"

"""The tables of judgements: verdicts, patients, requests, and the statistics they rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.scoring.judgement.difference import CONTROLS, Difference, holm
from fedunlearn.scoring.judgement.memory import Mean, Memory
from fedunlearn.scoring.judgement.verdict import Answer, Findings, Sight

VERDICTS = ("request", "strategy", "forgotten", "useful", "verdict", "reasons", "about")


def verdicts(request: str, judged: Mapping[str, tuple[Answer, Answer, str]]) -> pd.DataFrame:
    """The rows of `verdicts.parquet` of one request, by strategy.

    ``about`` tells of each of the ``reasons`` which answer it is for, "forgotten" or "useful".
    """
    rows = [
        (request, strategy, first.word, second.word, verdict, [*first.reasons, *second.reasons], about)
        for strategy, (first, second, verdict) in judged.items()
        for about in [["forgotten"] * len(first.reasons) + ["useful"] * len(second.reasons)]
    ]
    return pd.DataFrame(rows, columns=list(VERDICTS))


PATIENTS = ("request", "strategy", "patient", "on", "memory_left", "low", "high", "p", "flagged")


def patients(request: str, found: Mapping[str, Findings], names: Sequence[str]) -> pd.DataFrame:
    """The rows of `patients.parquet` of one request, by strategy.

    ``on`` is "images", or "copies" for slightly changed copies; ``memory_left`` a share of what the original knew, with
    its 95 % interval; ``p`` two-sided, corrected over the patients (Bonferroni); ``flagged`` "remembered", "overdone",
    "suspected" (it rests on a single training) or empty.
    """
    rows = [
        (request, strategy, names[code], on, *numbers, min(1.0, p * len(of.patients)), flag)
        for strategy, one in found.items()
        for on, of in (("images", one.recalled.images), ("copies", one.recalled.copies))
        if of is not None
        for code, *numbers, p, flag in _each(of)
    ]
    return pd.DataFrame(rows, columns=list(PATIENTS))


def _each(memory: Memory) -> list[tuple[int, float, float, float, float, str]]:
    flags = np.select(
        [memory.remembered, memory.overdone, memory.suspected], ["remembered", "overdone", "suspected"], ""
    )
    columns = (memory.patients, memory.left, memory.low, memory.high, memory.p, flags)
    return list(zip(*(column.tolist() for column in columns), strict=True))


REQUESTS = (
    *("request", "seeds", "references", "patients", "images", "visible", "smallest", "one_patient"),
    *("copies_visible", "unusual"),
)


def requests(request: str, sight: Sight, images: int, references: Sequence[int]) -> pd.DataFrame:
    """The row of `requests.parquet` of one request: whether its models can tell anything.

    ``smallest``: the smallest memory left, in the mean over patients, that would be seen in 8 of 10 such runs;
    ``one_patient``: the chance that one patient remembered whole would show; ``unusual``: the seeds of retrained models
    whose luck is more than `UNUSUAL` times that of the others.
    """
    scale = sight.scale
    told = (
        (0, False, math.nan, math.nan)
        if scale is None
        else (len(scale.patients), scale.visible, scale.smallest(sight.seeds), scale.power(sight.seeds))
    )
    odd = [] if scale is None else [s for s, x in zip(references, scale.unusual, strict=True) if x > UNUSUAL]
    row = (request, sight.seeds, len(references), told[0], images, *told[1:], sight.copies is not None, odd)
    return pd.DataFrame([row], columns=list(REQUESTS))


UNUSUAL = 3.0
"""A retrained model is named if its scores lie so many times as far from the others' (variances) as they usually do."""


def statistics(
    request: str,
    differences: Mapping[str, Mapping[str, Difference]],
    found: Mapping[str, Findings],
    quality: str,
    margin: float,
) -> pd.DataFrame:
    """The rows of `statistics.parquet` of one request.

    The differences of every measure that has a margin, on all images; those of the ``quality`` on unseen images, group
    by group, within the declared margins; and the memory left, whose ``difference`` is the share itself:
    ``memory_left`` of these patients, ``memory_left_others`` of others like them, ``memory_left_copies`` on changed
    copies, ``memory_left_NAME`` in answers to one thing alone (`fedunlearn.scoring.kinds.Scored.alone`).

    ``p_holm`` is ``p_difference`` after Holm's correction (Scand. J. Stat. 6, 1979) over the request's strategies, for
    each measure and group, and ``p_holm_equivalent`` that of ``p_equivalent``; controls have none. They are for whoever
    picks a strategy from the table. Answers rest on each strategy's own p: what is said of one must not depend on which
    others were run beside it.
    """
    rows = [
        (strategy, name, "all", *_of_difference(one))
        for strategy, by_measure in differences.items()
        for name, one in by_measure.items()
        if name != quality
    ]
    rows += [
        (strategy, quality, one.group, *_of_difference(one.difference))
        for strategy, of in found.items()
        for one in of.components
        if one.difference is not None
    ]
    rows += [(strategy, *row) for strategy, of in found.items() for row in _of_memory(of, margin)]
    table = pd.DataFrame([(request, *row) for row in rows], columns=list(STATISTICS))
    for column, p in (("p_holm", "p_difference"), ("p_holm_equivalent", "p_equivalent")):
        alike: dict[tuple[str, str], dict[str, float]] = {}
        known = zip(table["strategy"], table["measure"], table["group"], table[p].tolist(), strict=True)
        for row, (strategy, measure, group, value) in enumerate(known):
            if strategy not in CONTROLS:
                alike.setdefault((measure, group), {})[str(row)] = value
        corrected = {row: value for of in alike.values() for row, value in holm(of).items()}
        table[column] = [corrected.get(str(row), math.nan) for row in range(len(table))]
    return table


STATISTICS = (
    *("request", "strategy", "measure", "group", "difference", "low", "high", "p_difference", "p_equivalent"),
    *("margin", "smallest_visible", "seeds", "references", "patients"),
)


def _of_difference(one: Difference) -> tuple[float, ...]:
    tests = (one.p_difference, one.p_equivalent, one.margin, one.smallest_visible)
    return (one.value, *one.interval(), *tests, one.seeds, one.references, one.patients)


def _of_memory(found: Findings, margin: float) -> list[tuple[Any, ...]]:
    rows = list[tuple[Any, ...]]()
    known = found.recalled
    looks = {
        "": known.images,
        "_copies": known.copies,
        **{f"_{name}": of for name, of in known.alone.items()},
    }
    for name, of in looks.items():
        if of is not None:
            rows.append((f"memory_left{name}", "all", *_of_mean(of.mean, margin, False)))
    if known.images is not None:
        rows.append(("memory_left_others", "all", *_of_mean(known.images.mean, margin, True)))
    return rows


def _of_mean(mean: Mean, margin: float, others: bool) -> tuple[float, ...]:
    """Equivalence is asked within twice the margin, as a yes is."""
    tests = (math.nan, math.nan) if others else (mean.p, mean.p_within(2 * margin))
    interval = mean.interval(others=others)
    return (mean.left, *interval, *tests, margin, math.nan, mean.seeds, mean.references, mean.patients)

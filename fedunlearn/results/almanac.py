"""A year of requests in words: what came in, what each policy made of it, and a table for terminals and documents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.text import Text

from fedunlearn.results import years
from fedunlearn.results.overview import Source
from fedunlearn.results.sentences import number, percent, signed
from fedunlearn.results.summary import Column, table, wrapped
from fedunlearn.results.wording import item, line, quoted, row as marked

Rows = Sequence[Mapping[Any, Any]]
Shown = Callable[[float], str]


def lines(run: Source) -> list[Text]:
    """What a run's year came to, for a terminal of 80 columns; nothing of a run without a calendar."""
    if not years.dated(run):
        return []
    told = [*wrapped(title(run), "", "  ", "bold"), Text()]
    told += [
        part for sentence in sentences(run, strategies=False) for part in wrapped(sentence, "  ", "    ")
    ]
    return [*told, Text(), *table(*_columns(run)), *wrapped(f"{LEGEND} {TWO_MEMORIES}", "  ", "  ", "dim")]


def markdown(run: Source) -> list[str]:
    """The same for a document."""
    if not years.dated(run):
        return []
    names, shown = _columns(run)
    heads = ["", *(" ".join([*filter(None, column.heading)]) for column in shown)]
    body = [[name, *(column.cells[i] for column in shown)] for i, name in enumerate(names)]
    told = [
        f"**{quoted(title(run))}**\n",
        *(item(sentence) for sentence in sentences(run, strategies=False)),
        "",
    ]
    return [
        *told,
        *map(marked, [heads, ["---"] * len(heads), *body]),
        f"\n{quoted(f'{LEGEND} {TWO_MEMORIES}')}\n",
    ]


LEGEND = (
    "Late: share of requests, accepted or held back by a quota, that took longer than one month, or three. Cost: of "
    "training anew on each day of acceptance. Memory left: of what the original knew of the patients of all answered "
    "requests, when the year ends. Test, worst: against all models that never saw them, whose luck differs. ±: 95 %."
)
TWO_MEMORIES = (
    "Memory here is of answered requests, against the model of the same seed that never saw them; further down it is "
    "of every patient, of requests that wait as well, against such models of all seeds: so the two differ."
)
"""Why one model has two shares of memory left."""


def title(run: Source) -> str:
    """What it is about."""
    frame = years.timeline(run)
    begins, ends = str(run.read_manifest()["calendar"]["start"]), frame["end"].iloc[0] if len(frame) else ""
    until = f" to {ends:%Y-%m-%d}" if len(frame) else ""
    return f"A year of requests, {begins}{until}"


# ------------------------------------------------------------------------------------------------- sentences


def sentences(run: Source, strategies: bool = True) -> list[str]:
    """What came in, what each policy made of it, and which is best.

    Args:
        run: the folder.
        strategies: whether each policy's sentence says what each strategy left, at which cost.
    """
    frame, found = years.policies(run), years.timeline(run)
    shown = found[found["policy"] == found["policy"].iloc[0]] if len(found) else found
    rows = frame.to_dict("records")
    followed = {of[0]["policy"]: _answered(of, strategies) for of in by_policy(rows)}
    labels = dict.fromkeys(found["policy"])
    told = [followed.get(one) or _never(one, found[found["policy"] == one]) for one in labels]
    return [came_in(shown), *told, *best(rows)]


def _never(policy: object, own: pd.DataFrame) -> str:
    """Of a policy that had no turn in which to unlearn anything: how many wait; ``own`` are its requests."""
    waits = own[own["state"] == "waiting"]
    if waits.empty:
        return f"{line(policy)}: nothing was to be unlearned."
    late, three = ((waits[name] > 0).sum() for name in ("late", "late_three"))
    return (
        f"{line(policy)}: none of {len(waits)} was unlearned by the end; {late} are later than a month, {three} later "
        "than three. So there is no model to show."
    )


def came_in(shown: pd.DataFrame) -> str:
    """How many requests there were, and what the desk made of them; ``shown`` are those of one policy."""
    states = Counter(shown["state"])
    refused = Counter(shown.loc[shown["state"] == "refused", "reason"])
    accepted = states["unlearned"] + states["waiting"] + states["barred"]
    said = ["all were accepted" if accepted == len(shown) else f"{accepted} were accepted"]
    nothing = states["barred"]
    if nothing:
        said[0] += f" ({nothing} of them with nothing to unlearn, such as opt-outs)"
    if states["refused"]:
        why = ", ".join(
            f"{line(reason).replace('_', ' ')} {count}" for reason, count in refused.most_common()
        )
        said.append(f"{states['refused']} refused ({why})")
    if states["open"]:
        said.append(f"{states['open']} {'was' if states['open'] == 1 else 'were'} open when it ended")
    return f"{len(shown)} requests came in: {', '.join(said)}."


def by_policy(rows: Rows) -> list[Rows]:
    """Rows of `years.policies`, policy by policy."""
    return [[row for row in rows if row["policy"] == one] for one in dict.fromkeys(r["policy"] for r in rows)]


def _answered(rows: Rows, strategies: bool) -> str:
    """How a policy kept to the month, how long anybody waited, and what each strategy left at which cost."""
    one = rows[0]
    label, accepted = line(one["policy"]), int(one["accepted"])
    if not accepted:
        return f"{label}: nothing was to be unlearned."
    late, three = (round(one[name] * accepted) for name in ("late", "late_three"))
    lateness = (
        f"all {accepted} within a month"
        if not late
        else f"{late} of {accepted} later than a month ({percent(one['late'])} %), {three} later than three"
    )
    said = [f"{label}: {lateness}"]
    waiting = accepted - int(one["answered"])
    if waiting:
        said.append(f"{waiting} {'waits' if waiting == 1 else 'wait'} at the end")
    if one["blocked_days"]:
        said.append(f"on {one['blocked_days']:.0f} days the model was not to be used")
    return " ".join([f"{'; '.join(said)}.", *(map(_left, rows) if strategies else ())])


def _left(row: Mapping[Any, Any]) -> str:
    """What a strategy left under a policy, at which cost."""
    cost = f"{percent(row['cost'])} % of training anew on each day of acceptance"
    cost = "nothing to compare its cost with" if math.isnan(row["cost"]) else cost
    anew = f", trained anew {row['retrainings']:.1f} times" if row["retrainings"] else ""
    return f"{line(row['strategy'])}: {cost}{anew}; {memory(row)}."


def memory(row: Mapping[Any, Any]) -> str:
    """What is left of what was known, in words."""
    left = row["memory_left"]
    if not row["answered"]:
        return "nothing was unlearned"
    if math.isnan(left):
        return "the original knew no more of these people than luck, so nothing can be told of memory"
    return f"of what the model knew of these people {percent(left)} % is left{_interval(row, 'memory_left')}"


def _interval(row: Mapping[Any, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if math.isnan(low + high) else f" (95 %: {percent(low)} to {percent(high)})"


def best(rows: Rows) -> list[str]:
    """The cheapest that was in time, forgot and is still good; or that there is none."""
    if not rows:
        return []
    good = years.best(rows)
    if not good:
        return [
            "No policy and strategy is known to have answered all in time, to have forgotten and to be still good."
        ]
    first = good[0]
    which = "the only one" if len(good) == 1 else f"the cheapest of {len(good)}"
    use = "is" if len(good) == 1 else "are"
    return [
        f"Best: {line(first['policy'])} with {line(first['strategy'])}, {which} that answered all within a month, "
        f"forgot and {use} still good: at {percent(first['cost'])} % of training anew on each day of acceptance."
    ]


# ----------------------------------------------------------------------------------------------------- table


def _columns(run: Source) -> tuple[tuple[str, ...], list[Column]]:
    rows = years.policies(run).to_dict("records")
    names = tuple(f"{line(row['policy'])}: {line(row['strategy'])}" for row in rows)
    late, left, good = "LATE, %", "MEMORY", "STILL GOOD"
    return names, [
        Column(late, ("1", "mo."), tuple(percent(row["late"]) for row in rows)),
        Column(late, ("3", "mo."), tuple(percent(row["late_three"]) for row in rows)),
        Column("DAYS", ("median", ""), tuple(days(row["median_days"]) for row in rows)),
        Column("COST", ("% of", "retr."), tuple(_or_dash(row["cost"], percent) for row in rows)),
        Column(left, ("left,", "%"), tuple(_with_half(row, "memory_left", percent) for row in rows)),
        Column(good, ("test", ""), tuple(_with_half(row, "test_difference", signed, number) for row in rows)),
        Column(good, ("worst", "site"), tuple(signed(row["worst_site_difference"]) for row in rows)),
    ]


def over_streams(frame: pd.DataFrame) -> tuple[tuple[str, ...], list[Column]]:
    """Labels and columns of what policies came to over several streams (`years.streams`)."""
    walks = list(dict.fromkeys(zip(frame["policy"], frame["strategy"], strict=True)))
    by = {(r["policy"], r["strategy"], r["measure"]): r for r in frame.to_dict("records")}
    names = tuple(f"{line(policy)}: {line(strategy)}" for policy, strategy in walks)

    def shown(measure: str, form: Shown, half: Shown | None = None) -> tuple[str, ...]:
        return tuple(
            _over(by[(*walk, measure)], by[(*walk, "best")]["streams"], form, half) for walk in walks
        )

    return names, [
        Column("LATE, %", ("1", "mo."), shown("late", percent)),
        Column("LATE, %", ("3", "mo."), shown("late_three", percent)),
        Column("COST", ("% of", "retr."), shown("cost", percent)),
        Column("MEMORY", ("left,", "%"), shown("memory_left", percent)),
        Column("STILL GOOD", ("test", ""), shown("test_difference", signed, number)),
        Column("BEST", ("in", "runs"), tuple(_times(by[(*walk, "best")]) for walk in walks)),
        Column("", ("on", "front"), tuple(_times(by[(*walk, "front")]) for walk in walks)),
    ]


def streams_markdown(frame: pd.DataFrame) -> list[str]:
    """The same for a document."""
    names, shown = over_streams(frame)
    heads = ["", *(" ".join(filter(None, column.heading)) for column in shown)]
    body = [[name, *(column.cells[i] for column in shown)] for i, name in enumerate(names)]
    return [*map(marked, [heads, ["---"] * len(heads), *body]), f"\n{quoted(streams_legend(frame))}"]


def _times(row: Mapping[Any, Any]) -> str:
    """In how many streams something is so."""
    return f"{round(row['value'] * row['streams'])} of {row['streams']}"


def _over(row: Mapping[Any, Any], count: int, form: Shown, half: Shown | None) -> str:
    """A mean over streams with half of the width of its interval, and of how many where that is not all."""
    ends = {"x": row["value"], "x_low": row["low"], "x_high": row["high"]}
    return f"{_with_half(ends, 'x', form, half)}{of_some(row, count) if row['streams'] else ''}"


def of_some(row: Mapping[Any, Any], count: int) -> str:
    """Behind a mean over streams: in how many it is known, if these are fewer than ``count``."""
    return f" ({row['streams']})" if row["streams"] < count else ""


def streams_legend(frame: pd.DataFrame) -> str:
    """How to read a table of means over streams."""
    counts = frame.groupby(["policy", "strategy"])["streams"].transform("max")
    some = frame["measure"].isin(_SHOWN_OVER_STREAMS) & (frame["streams"] < counts) & (frame["streams"] > 0)
    return f"{_STREAMS_LEGEND} {_OF_SOME}" if some.any() else _STREAMS_LEGEND


_SHOWN_OVER_STREAMS = (*years.RATES, "memory_back", "test_difference", "worst_site_difference")
_OF_SOME = (
    "(1), (2), …: over so many streams only, as the others do not tell it (of memory: the original knew no more than "
    "luck); of a single one there is no interval."
)
_STREAMS_LEGEND = (
    "Means over streams of requests; ±: 95 % over them. Best: the cheapest that answered all within a month, forgot "
    "and is still good. Front: no other was as little late, as cheap and as forgetful, and better in one of these."
)


def days(value: float) -> str:
    """Days, which may have no end."""
    return "-" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.0f}"


def _or_dash(value: float, shown: Shown) -> str:
    return "-" if math.isnan(value) else shown(value)


def _with_half(row: Mapping[Any, Any], name: str, shown: Shown, half: Shown | None = None) -> str:
    """A number with half of the width of its interval."""
    value, reach = row[name], (row[f"{name}_high"] - row[f"{name}_low"]) / 2
    end = "" if math.isnan(reach) else f" ±{(half or shown)(reach)}"
    return "-" if math.isnan(value) else f"{shown(value)}{end}"

"""Runs side by side: for every request and strategy a line of each run, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from string import ascii_lowercase
from typing import Literal

from rich.console import Console
from rich.text import Text

from fedunlearn.comparison.differences import consequences, differences, spans
from fedunlearn.comparison.ranks import LEVEL, Ranking, needed
from fedunlearn.comparison.runs import Compared
from fedunlearn.comparison.standings import Standing, standings
from fedunlearn.comparison.streams import left_out, pools
from fedunlearn.core import InputError
from fedunlearn.results import almanac
from fedunlearn.results.overview import Overview, Row, Value
from fedunlearn.results.sentences import UNCLEAR_MEANS
from fedunlearn.results.summary import Column, columns_of, label, rows_of, table, wrapped

SHOWN = (("answer", ""), ("memory", "left, %"), ("% of", "retr."))
"""Headings of what is shown of each row, beside the difference on unseen images."""
LEGEND = (
    "Memory left: 0 as if never seen, 100 as in the original model; - where none can be seen. Test: against the same "
    "run's retraining. ±: 95 %."
)


def show(runs: Sequence[Compared], console: Console) -> None:
    """Print which runs they are, and a table for every request that any of them has."""
    for text in lines(runs):
        console.print(text, soft_wrap=True)


def lines(runs: Sequence[Compared]) -> list[Text]:
    """What differs, then the numbers, then ranks; no line is wider than 80 columns."""
    told = [text for number, run in enumerate(runs, 1) for text in _introduced(number, run, len(runs))]
    told += _different(runs)
    told += _years(runs)
    requests = dict.fromkeys((name, one.kind) for run in runs for name, one in run.overviews.items())
    for request, kind in requests:
        told += [Text(), *_request(request, kind, runs)]
    told += [Text(), *wrapped(_legend(runs), "", "", "dim")]
    return told + [text for one in standings(runs) for text in (Text(), *_standing(one))]


def _years(runs: Sequence[Compared]) -> list[Text]:
    """What policies came to over streams of requests; nothing of fewer than two runs with a calendar."""
    told = list[Text]()
    for pool in pools(runs):
        if len(pool.runs) > 1:
            told += [
                Text(),
                *wrapped(pool.title, "", "  ", "bold"),
                *table(*almanac.over_streams(pool.frame)),
                *wrapped(almanac.streams_legend(pool.frame), "  ", "  ", "dim"),
            ]
    if found := left_out(runs):
        told += [Text(), *(part for sentence in found for part in wrapped(sentence, "  ", "    "))]
    return told


def formatted(runs: Sequence[Compared], form: Literal["csv", "markdown"]) -> str:
    """What policies came to over streams of requests, as a table; csv is `results.years.streams`, unrounded.

    Raises:
        InputError: no run has a calendar, or they differ in more than their stream.
    """
    found = pools(runs)
    if not found:
        raise InputError(
            f"found no run with a calendar among {len(runs)}, expected some: --format is a table of policies over "
            "them; leave it out, or use `report RUN --format` for a run's own table"
        )
    if len(found) > 1:
        raise InputError(
            f"{' '.join(left_out(runs))} --format is one table: name those that belong together, or leave it out"
        )
    (pool,) = found
    if form == "csv":
        return pool.frame.to_csv(index=False, lineterminator="\n").rstrip("\n")
    return "\n".join([f"**{pool.title}**\n", *almanac.streams_markdown(pool.frame)])


def _legend(runs: Sequence[Compared]) -> str:
    """How to read the tables; what "unclear" means only where one of them has it."""
    rows = [row for run in runs for one in run.overviews.values() for row in rows_of(one)]
    answers = {
        word for row in rows if row.strategy != "retrained_other" for word in (row.forgotten, row.useful)
    }
    unclear = "cannot tell" in answers
    return f"{LEGEND} {UNCLEAR_MEANS}" if unclear else LEGEND


def _different(runs: Sequence[Compared]) -> list[Text]:
    """What no reader of the table may overlook; nothing of a single run."""
    said = consequences(runs)
    if not said:
        return []
    told = [Text(), Text("WHAT DIFFERS?", style="bold")]
    told += [part for sentence in said for part in wrapped(sentence, "  ", "    ")]
    found = differences(runs)
    for one in found[:_MOST]:
        values = "; ".join(f"{cut(value)} ({spans(numbers)})" for value, numbers in one.values[:_MOST])
        rest = len(one.values) - _MOST
        more = f"; {rest} more" if rest > 0 else ""
        told += wrapped(f"{one.what}: {values}{more}", "  ", "    ", "dim")
    hidden = len(found) - _MOST
    return told + (
        wrapped(f"{hidden} more settings differ: see --html", "  ", "    ", "dim") if hidden > 0 else []
    )


_MOST = 12
"""Differences, and values of each, that the terminal shows."""
_LONGEST = 60


def cut(text: str) -> str:
    """A value, without the end of a very long one."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _standing(one: Standing) -> list[Text]:
    """Ranks, and in sentences what of them is more than chance."""
    told = wrapped(heading(one), "", "  ", "bold")
    if one.ranking is not None:
        names = [name for name, _ in one.ranking.ranks]
        ranks = Column("", ("mean", "rank"), tuple(f"{rank:.2f}" for _, rank in one.ranking.ranks))
        letters = Column("", ("", ""), tuple(lettered(one.ranking).values()), left=True)
        told += table(names, [ranks, letters])
    return told + [part for sentence in sentences(one) for part in wrapped(sentence, "  ", "    ")]


def heading(one: Standing) -> str:
    """What a ranking is of."""
    of = one.request or "all requests of a run together"
    return f"Ranks over {len(one.runs)} runs, {of}: {one.criterion.name} (1: {one.criterion.better})"


def sentences(one: Standing, mark: str = "letter") -> list[str]:
    """What a ranking tells, and what it does not; a ``mark`` in common is shown where strategies are not apart."""
    where = "in all of these runs" if one.request else "for every request of all these runs"
    said = [f"Left out, since not known {where}: {', '.join(one.left_out)}."] if one.left_out else []
    if one.ranking is None:
        return [f"No ranking: {one.missing}.", *said]
    found, k = one.ranking, len(one.ranking.ranks)
    apart = [pair for pair in found.pairs if pair.apart]
    test = f"Friedman's test (Iman and Davenport's F {found.f:.3g}): p {probability(found.p)}"
    if found.p >= LEVEL:
        said = [f"These ranks may be chance: {test}.", *said]
    elif apart:
        said = [
            f"Not all do equally well: {test}. Told apart are {len(apart)} of {len(found.pairs)} pairs "
            f"(Wilcoxon's test, Holm's correction); those with a {mark} in common are not.",
            *_though(found),
            *said,
        ]
    else:
        said = [f"Not all do equally well: {test}; but no single pair can be told apart.", *said]
    if found.smallest >= LEVEL:
        said.append(
            f"With {found.blocks} runs no pair of {k} strategies can be told apart whatever the numbers: it takes "
            f"{needed(k)} runs."
        )
    return [*said, "A good rank is no good answer: the best of many may still have left too much."]


def lettered(found: Ranking) -> dict[str, str]:
    """By strategy, a letter for every group of `Ranking.groups` that it is in."""
    return {
        name: "".join(
            letter if name in group else " "
            for letter, group in zip(ascii_lowercase, found.groups, strict=False)
        ).rstrip()
        for name, _ in found.ranks
    }


def _though(found: Ranking) -> list[str]:
    """Pairs without a letter in common that are not told apart all the same, since one between them is."""
    letters = [set(group) for group in found.groups[: len(ascii_lowercase)]]
    pairs = [
        f"{pair.first} and {pair.second}"
        for pair in found.pairs
        if not pair.apart and not any({pair.first, pair.second} <= group for group in letters)
    ]
    rest = f"; {len(pairs) - _FEW} pairs more (--html)" if len(pairs) > _FEW else ""
    return [f"Not told apart either: {'; '.join(pairs[:_FEW])}{rest}."] if pairs else []


_FEW = 3


def probability(p: float) -> str:
    """A p-value, without more digits than it has meaning; what is below `LEVEL` is not shown as if it were not."""
    if p < 0.001:
        return "< .001"
    text = f"{p:.3f}".replace("0.", ".", 1)
    return f"< {text}" if p < LEVEL <= round(p, 3) else f"= {text}"


def _introduced(number: int, run: Compared, count: int) -> list[Text]:
    which = f"{number}: " if count > 1 else ""
    return wrapped(f"{which}{run.name} ({run.about})", "", "   ")


def _request(request: str, kind: str, runs: Sequence[Compared]) -> list[Text]:
    """Its title, if all runs mean the same by it; and the table."""
    of = {
        number: run.overviews[request]
        for number, run in enumerate(runs, 1)
        if request in run.overviews and run.overviews[request].kind == kind
    }
    pairs = list(in_order(of))
    rows = [row for _, row in pairs]
    # A strategy's name stands at the first of its lines.
    names = ["" if i and label(rows[i - 1]) == label(row) else label(row) for i, row in enumerate(rows)]
    numbers = Column("", ("", "run"), tuple(str(number) for number, _ in pairs))
    shown = [c for c in columns_of(rows, kind) if c.heading in SHOWN or c.heading[0] == "test"]
    return [
        *wrapped(titled(request, of), "", "  ", "bold"),
        *table(names, [*([numbers] if len(runs) > 1 else []), *shown]),
    ]


def titled(request: str, of: Mapping[int, Overview]) -> str:
    """A request's title if all runs mean the same by it, else its id."""
    titles = {one.title for one in of.values()}
    return titles.pop() if len(titles) == 1 else request


def in_order(of: Mapping[int, Overview]) -> Iterator[tuple[int, Row]]:
    """(run, row): strategy by strategy, as the first run that has it orders them; controls last."""
    rows = {number: {row.strategy: _seen(row, one) for row in rows_of(one)} for number, one in of.items()}
    controls = ("retrained_other", "original")
    listed = [name for own in rows.values() for name in own if name not in controls]
    for strategy in dict.fromkeys([*listed, *controls]):
        yield from ((number, own[strategy]) for number, own in rows.items() if strategy in own)


def _seen(row: Row, one: Overview) -> Row:
    """Without what is said of a memory that cannot be seen, or that a single training tells of."""
    return row if one.tells else replace(row, left=Value(), known=(), overdone=(), compared=0)

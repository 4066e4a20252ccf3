"""The tables of one request: answers, patients, groups, costs, probes, measures; every number with its place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from fedunlearn.pages.measured import Format, Measured, amount, percent, share, signed
from fedunlearn.pages.tables import Cell, Column, Number, Table, answer, number, words
from fedunlearn.results.columns import called
from fedunlearn.results.floors import dominated
from fedunlearn.results.frames import shared
from fedunlearn.results.kinds import spoken
from fedunlearn.results.overview import Overview, Place, Row
from fedunlearn.results.sentences import DOMINATED
from fedunlearn.results.summary import label, rows_of
from fedunlearn.results.tables import MEDIANS
from fedunlearn.scoring.kinds import scored

ORIGINAL, RETRAINED, AGAIN = "original", "retrained", "retrained_other"
_FLAGS = {"remembered": " ✕", "overdone": " ▽", "suspected": " ?"}
"""Behind a patient's number."""
PATIENTS = "✕ still known · ▽ known less than by retraining · ? rests on a single training"


def answers(one: Overview, of: Measured, prefix: str, named: Mapping[str, str]) -> Table:
    """A row for every strategy, best first, then retraining again and doing nothing; ``named`` as of `groups`."""
    quality, part, what = spoken(one.kind)
    seen, judged = one.tells, one.seeds > 1
    beaten = dominated(one.rows, one.floors)
    columns = [Column("strategy", numbers=False)]
    if seen:
        columns += [
            Column("answer", "Forgotten?", numbers=False),
            Column(
                "memory left, %", "Forgotten?", words="0: as if never seen; 100: as in the original model"
            ),
            Column("still known", "Forgotten?", words="patients"),
        ]
    use = f"Still good, on unseen {what}s?"
    columns += [
        *([Column("answer", use, numbers=False)] if judged else []),
        Column(f"test {quality}", use, words="less that of retraining"),
        Column("worst hospital", use),
        Column(f"worst {part}", use),
        Column("% of retraining", "Cost", words="passes of images through networks"),
    ]
    rows = []
    for row in rows_of(one):
        name = label(row) + (DOMINATED if row.strategy in beaten else "")
        memory = [_answer(row, row.forgotten), _memory(of, row.strategy), _known(of, row)]
        good = [_answer(row, row.useful)] if judged else []
        rows.append(
            (
                words(name),
                *(memory if seen else []),
                *good,
                _difference(of, row.strategy, scored(one.kind).tested),
                _worst(of, row, row.site, "site", scored(one.kind).tested, named),
                _worst(of, row, row.group, "class", scored(one.kind).tested, named),
                _cost(of, row),
            )
        )
    caption = "Numbers behind the answers, with 95 % intervals; against retraining."
    if beaten:
        caption += f"{DOMINATED}: costs more than what needs no thought, and leaves more memory."
    return Table(f"{prefix}-answers", caption, tuple(columns), tuple(rows))


def _answer(row: Row, word: str) -> Cell:
    """Retraining again is no strategy: it has numbers, which show the noise, and no answers."""
    return Cell() if row.strategy == AGAIN else answer(word)


def _memory(of: Measured, strategy: str) -> Cell:
    return _interval(of, strategy, "memory_left", percent, times=100)


def _interval(
    of: Measured, strategy: str, measure: str, shown: Format, group: str = "all", times: float = 1.0
) -> Cell:
    """A difference, its interval behind it."""
    middle, low, high = (
        of.statistic(strategy, measure, column, shown, group, times)
        for column in ("difference", "low", "high")
    )
    if low is None or high is None or math.isnan(low.value) or math.isnan(high.value):
        return number(middle)
    return number(middle, " (", low, " to ", high, ")")


def _known(of: Measured, row: Row) -> Cell:
    if not row.compared:
        return number(None)
    return number(of.flagged(row.strategy, "remembered"), f" of {row.compared}")


def _difference(of: Measured, strategy: str, measure: str, group: str = "all") -> Cell:
    return _interval(of, strategy, measure, signed, group)


def _worst(
    of: Measured, row: Row, place: Place, attribute: str, measure: str, named: Mapping[str, str]
) -> Cell:
    if not place.name and math.isnan(place.value):
        return number(None)
    found = of.statistic(row.strategy, measure, "difference", signed, f"{attribute}={place.name}")
    _, _, name = named.get(f"{attribute}={place.name}", "").partition(" ")  # the heading says what it is
    return number(found, f" {name or place.name}")


def _cost(of: Measured, row: Row) -> Cell:
    """Doing nothing is no work, however much training was."""
    if row.strategy == ORIGINAL:
        return number(None)
    return number(of.middle(row.strategy, "share_of_retraining", percent, times=100))


# -------------------------------------------------------------------------------------------- patients


MOST_FLAGGED, MOST_OTHERS = 300, 50
"""Patients that are listed, of those that a strategy is flagged for and of the others; their file has all."""


def patients(one: Overview, of: Measured, prefix: str) -> tuple[Table, str]:
    """A row for every patient, a column for every strategy: memory left, on exact images.

    There are no rows where the run cannot tell.

    Returns:
        The table, and who is left out of it where they are very many; empty for nobody.
    """
    exact = of.patients[(of.patients["on"] == "images") & one.tells]
    whom, more = _listed(one, exact)
    exact = exact[exact["patient"].isin(whom)]
    order = [row.strategy for row in rows_of(one) if (exact["strategy"] == row.strategy).any()]
    cells: dict[str, dict[str, Cell]] = {}
    columns = (exact[name].tolist() for name in ("patient", "strategy", "memory_left", "flagged"))
    for place, patient, strategy, left, flag in zip(exact.index.tolist(), *columns, strict=True):
        shown = Number(percent(left), float(left), f"patients {place} memory_left value", 100)
        cells.setdefault(str(patient), {})[str(strategy)] = number(shown, _FLAGS.get(flag, ""))
    rows = [
        (words(patient), *(found.get(name, number(None)) for name in order))
        for patient, found in sorted(cells.items())
    ]
    table = Table(
        f"{prefix}-patients-table",
        f"Memory left of {'these patients' if more else 'every patient'}, in % of what the original knew of them. "
        f"{PATIENTS}.",
        (Column("patient", numbers=False), *(Column(called(name)) for name in order)),
        tuple(rows),
    )
    return table, more


def _listed(one: Overview, exact: pd.DataFrame) -> tuple[set[str], str]:
    """Whom the table of patients lists, and in words who is left out: first those that most strategies know."""
    ours = exact["strategy"].isin([row.strategy for row in one.rows])
    flags = exact.loc[ours & exact["flagged"].isin(list(_FLAGS)), "patient"].value_counts()
    flagged = sorted(map(str, flags.index), key=lambda patient: (-int(flags[patient]), patient))
    others = sorted(set(map(str, exact["patient"])) - set(flagged))
    kept = [*flagged[:MOST_FLAGGED], *others[:MOST_OTHERS]]
    more, stand_out = len(flagged) + len(others) - len(kept), len(flagged[MOST_FLAGGED:])
    if not more:
        return set(kept), ""
    whom = "that stand out in the most strategies" if stand_out else "that stand out in any strategy"
    return set(kept), (
        f"Listed are {len(flagged[:MOST_FLAGGED])} patients {whom}, and {len(others[:MOST_OTHERS])} others. "
        f"patients.parquet has {more} more, {stand_out} of whom stand out."
    )


# ---------------------------------------------------------------------------------------------- groups


def groups(one: Overview, of: Measured, prefix: str, named: Mapping[str, str]) -> Table:
    """A row for every hospital, class and group, in the words of ``named``, a column for every strategy."""
    measure = scored(one.kind).tested
    good = of.statistics[of.statistics["measure"] == measure]
    order = [row.strategy for row in rows_of(one)]
    rows = []
    for group in dict.fromkeys(map(str, good["group"])):
        each = (_difference(of, strategy, measure, group) for strategy in order)
        rows.append((words(named.get(group, group)), number(of.margin(measure, group)), *each))
    quality, _, what = spoken(one.kind)
    return Table(
        f"{prefix}-groups-table",
        f"Test {quality} less that of retraining, on unseen {what}s, with 95 % intervals.",
        (
            Column("group", numbers=False),
            Column("margin", words="how much may be lost"),
            *(Column(called(s)) for s in order),
        ),
        tuple(rows),
    )


# ----------------------------------------------------------------------------------------------- costs

COSTS: Mapping[str, tuple[str, str, Format, float]] = {
    "share_of_retraining": ("% of retraining", "passes of images through networks", percent, 100),
    "rounds": ("rounds", "", amount, 1),
    "epochs": ("epochs", "that hospitals were asked for", amount, 1),
    "images": ("images", "passes of one image through a network", amount, 1),
    "site_seconds": ("hospital-seconds", "of work, over all hospitals", amount, 1),
    "bytes": ("MB", "sent between hospitals and server", amount, 1e-6),
    "storage_bytes": ("MB stored", "that the server kept for it", amount, 1e-6),
    "tuning_site_seconds": ("tuning", "hospital-seconds for finding its settings, once", amount, 1),
}
"""By measure: heading, what it is, its form, and the unit it is shown in."""


def costs(one: Overview, of: Measured, prefix: str) -> Table:
    """What each strategy cost, in the mean over seeds."""
    found = {name: how for name, how in COSTS.items() if (of.scores["measure"] == name).any()}
    rows = []
    for strategy in _ordered(one, of):
        cells = [_measured(of, strategy, name, how[2], how[3]) for name, how in found.items()]
        rows.append((words(called(strategy)), *cells))
    return Table(
        f"{prefix}-cost-table",
        "Means over seeds. Of “do nothing”: all of training; of retraining: training anew.",
        (
            Column("strategy", numbers=False),
            *(Column(how[0], words=how[1]) for how in found.values()),
        ),
        tuple(rows),
    )


def _measured(of: Measured, strategy: str, name: str, shown: Format, times: float) -> Cell:
    if times in (1, 100):
        return number(of.middle(strategy, name, shown, times=times))
    return number(of.middle(strategy, name, lambda value: shown(value * times), times=times))


def _ordered(one: Overview, of: Measured) -> list[str]:
    """All that was measured: strategies, best first, then retraining and doing nothing."""
    known = set(of.scores["strategy"].unique())
    order = [*(row.strategy for row in one.rows), RETRAINED, ORIGINAL]
    return [name for name in order if name in known]


# -------------------------------------------------------------------------------- attacks, probes and the rest


def chosen(
    one: Overview, of: Measured, prefix: str, name: str, caption: str, measures: Mapping[str, str]
) -> Table | None:
    """Some measures of every strategy, over seeds (`Measured.middle`); None where there is none."""
    found = [measure for measure in measures if (of.scores["measure"] == measure).any()]
    if not found:
        return None
    rows = [
        (words(called(strategy)), *(number(of.middle(strategy, measure, share)) for measure in found))
        for strategy in _ordered(one, of)
    ]
    columns = (Column("strategy", numbers=False), *(Column(measures[measure]) for measure in found))
    return Table(f"{prefix}-{name}-table", caption, columns, tuple(rows))


def every_measure(one: Overview, of: Measured, prefix: str, told: Mapping[str, str]) -> Table:
    """A row for every measure, a column for every strategy."""
    order = _ordered(one, of)
    rows = [
        (
            words(measure),
            words(told.get(measure, "")),
            *(number(of.middle(strategy, measure, amount)) for strategy in order),
        )
        for measure in map(str, of.scores["measure"].unique())
    ]
    columns = (Column("measure", numbers=False), Column("what it is", numbers=False))
    return Table(
        f"{prefix}-measures-table",
        f"Means over seeds, of {' and '.join(MEDIANS)} medians, of all images. scores.parquet has every seed and "
        "group, with intervals.",
        (*columns, *(Column(called(name)) for name in order)),
        tuple(rows),
    )


_PRINTED = 120
"""Reasons that are printed without being asked for: two sheets of paper."""


def reasons(one: Overview, prefix: str) -> Table:
    """A row for every strategy and reason."""
    rows = []
    for row in rows_of(one):
        if row.strategy == AGAIN:
            continue
        lines: Sequence[tuple[str, str]] = [
            *(("forgotten?", text) for text in (row.reasons if one.tells else ())),
            *(("still good?", text) for text in (row.uses if one.seeds > 1 else ())),
        ]
        rows += [(words(label(row)), words(question), words(text)) for question, text in lines]
    return Table(
        f"{prefix}-reasons-table",
        "What every answer rests on.",
        (
            Column("strategy", numbers=False),
            Column("question", numbers=False),
            Column("reason", numbers=False),
        ),
        tuple(rows),
        paper=len(rows) <= _PRINTED,
    )


# ------------------------------------------------------------------------------------- rounds and thresholds

_STEPS = 12
"""Models in hand of each procedure that the table of rounds shows, the first and the last among them."""
PHASES = {
    "original": "training",
    "retrained": "training anew",
    "unlearn": "unlearning",
    "continue": "going on",
}
_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""False positive rates that the table of an attack shows."""


def rounds(curves: pd.DataFrame, prefix: str) -> Table | None:
    """A row for every model in hand after a round, in the mean over seeds; ``curves`` are the request's rows."""
    curves = shared(curves)
    if curves.empty:
        return None
    kinds = list(dict.fromkeys(zip(curves["part"], curves["measure"], strict=True)))
    curves = _thinned(curves)
    found: dict[tuple[str, str, int], dict[tuple[str, str], Cell]] = {}
    keys = ["phase", "strategy", "step", "part", "measure"]
    for named, of in curves.groupby(keys, sort=False):
        phase, strategy, step, part, measure = map(str, named)
        value, places = float(of["value"].mean(skipna=False)), ",".join(map(str, of.index))
        shown = Number(amount(value), value, f"curves {places} value mean")
        found.setdefault((phase, strategy, int(step)), {})[(part, measure)] = number(shown)
    rows = [
        (
            words(called(strategy)),
            words(PHASES.get(phase, phase)),
            Cell((str(step),), float(step)),
            *(cells.get(kind, number(None)) for kind in kinds),
        )
        for (phase, strategy, step), cells in sorted(found.items(), key=lambda pair: pair[0][2])
    ]
    heads = (Column(measure, "to forget" if part == "forget" else "unseen") for part, measure in kinds)
    columns = (Column("model", numbers=False), Column("phase", numbers=False), Column("step", numbers=False))
    return Table(
        f"{prefix}-curves-table",
        "Means over seeds, at points that all of them have.",
        (*columns, *heads),
        tuple(rows),
    )


def _thinned(curves: pd.DataFrame) -> pd.DataFrame:
    """The rows of some steps of every procedure, the first and the last among them."""
    procedures = curves.groupby(["phase", "strategy"])
    return pd.concat([of[of["step"].isin(_some(of["step"]))] for _, of in procedures]).sort_index()


def _some(steps: Iterable[float]) -> list[float]:
    every = sorted(set(steps))
    if len(every) <= _STEPS:
        return every
    return [every[round(n * (len(every) - 1) / (_STEPS - 1))] for n in range(_STEPS)]


def attack(roc: pd.DataFrame, one: Overview, prefix: str) -> Table | None:
    """A row for every model: how many images to forget an attack finds at some false positive rates."""
    if roc.empty:
        return None
    rates = sorted({min(roc["fpr"], key=lambda at: abs(at - rate)) for rate in _RATES})
    order = [
        name
        for name in (*(r.strategy for r in one.rows), RETRAINED, ORIGINAL)
        if (roc["strategy"] == name).any()
    ]
    rows = []
    for strategy in order:
        own = roc[roc["strategy"] == strategy].drop_duplicates("fpr").set_index("fpr", append=True)
        places = {rate: place for place, rate in own.index}
        cells = []
        for rate in rates:
            if rate not in places:
                cells.append(number(None))
                continue
            row = own.loc[(places[rate], rate)]
            low, high, middle = (
                Number(share(float(row[c])), float(row[c]), f"roc {places[rate]} {c} value")
                for c in ("low", "high", "tpr")
            )
            cells.append(number(middle, " (", low, " to ", high, ")"))
        rows.append((words(called(strategy)), *cells))
    heads = (Column(f"at {100 * rate:.3g} %", "found, at so many false alarms") for rate in rates)
    return Table(
        f"{prefix}-roc-table",
        "Share of images to forget that the attack finds; in brackets the least and most over seeds.",
        (Column("model", numbers=False), *heads),
        tuple(rows),
    )

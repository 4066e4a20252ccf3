"""An overview in sentences, for whoever has to act on it: no measure is called by its internal name here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from fedunlearn.results.classes import numbered
from fedunlearn.results.floors import dominated
from fedunlearn.results.kinds import noun, spoken
from fedunlearn.results.overview import WHOLE, Overview, Row
from fedunlearn.results.tables import short
from fedunlearn.scoring.judgement.verdict import SEEDS

DOMINATED = " †"
"""Behind a strategy's name in the table, if a floor dominates it."""
UNCLEAR = "unclear"
"""How a table shows "cannot tell", which would take a label's room."""
UNCLEAR_MEANS = f"{UNCLEAR}: this run cannot tell."
"""What a legend says where a table has it."""
_NAMED = 3
"""Patients, strategies or reasons that a sentence names; the rest is counted."""


def counted(number: int, noun: str) -> str:
    """A number of things, in words: ``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# ---------------------------------------------------------------------------------------- can this run tell?


def sight(one: Overview) -> list[str]:
    """Whether this run can tell, in sentences."""
    return [*_of_memory(one), *_of_use(one), *_of_trainings(one), *_of_controls(one)]


def _of_memory(one: Overview) -> list[str]:
    what = noun(one.kind)
    if one.seeds < 2:
        return [f"No: a single training tells nothing of luck. {SEEDS} seeds would."]
    if not one.patients[0]:
        return [
            f"No: no patient to forget has held-out {what}s of the same hospital to be compared with, so nothing "
            "is known of memory."
        ]
    attack = (
        f"an attack tells their {what}s from unseen ones with AUC {number(one.original)}, "
        f"and with {number(one.retrained)} after retraining (.50 is guessing)"
    )
    if not one.visible:
        return [
            "No: the original model shows no memory of these patients, so nothing here can tell forgetting from "
            f"doing nothing: {attack}.",
            _help(one),
        ]
    asked, over = one.margins.get("memory", math.nan), int(one.margins.get("over", 0))
    coarse = "Yes, coarsely" if one.smallest > asked else "Yes"
    known = f"at most {over} patients are" if over else "no patient is"
    sees = f"sees {percent(one.smallest)} % (8 times in 10)"
    if one.smallest > 1:
        sees = "can miss it although all of it is left (more than 2 times in 10)"
    said = [
        f"{coarse}. The original model knows these patients: {attack}.",
        f"Forgotten means: by best estimate at most {percent(asked)} % of that memory is left in the mean over "
        f"patients, {_SURELY} less than {percent(2 * asked)} %, and {known} still known. This run {sees}; a patient "
        f"remembered whole would show in {int(10 * one.one_patient)} of 10 such runs.",
    ]
    if one.seeds < SEEDS:
        said.append(
            f"Nobody is called forgotten by {one.seeds} seeds: some {what}s may be remembered whole, and others known "
            f"less to make up for it. {SEEDS} would tell."
        )
    alone = one.patients[1] - one.patients[0]
    if alone:
        said.append(
            f"Not looked at: {alone} of the {one.patients[1]} patients, whose hospital has no held-out {what}s "
            "to compare with."
        )
    return said


def _help(one: Overview) -> str:
    """What would let a run tell that sees no memory, the cheapest first."""
    return (
        f"What helps: more `references` than {one.references} (cheap), more `seeds` than {one.seeds}, more patients in "
        f"the request than {one.patients[1]}."
    )


_SURELY = "surely (95 %, one-sided)"
"""Of the second thing that a yes asks for: that twice the margin is excluded (`scoring.judgement`)."""


def _of_use(one: Overview) -> list[str]:
    """What may be lost, and how sure this run is of what was."""
    quality, part, what = spoken(one.kind)
    places = (("site", "at any hospital"), ("class", f"for any {part}"))
    more = ", ".join(f"{number(one.margins[key])} {words}" for key, words in places if key in one.margins)
    return [
        f"Still good means, on unseen {what}s: by best estimate test {quality} is at most {number(one.margins['all'])} "
        f"below retraining's{f' ({more})' if more else ''}, and {_SURELY} less than twice that."
        f"{_known_to(one, part)}"
    ]


def _known_to(one: Overview, part: str) -> str:
    """How sure a run is of what was lost, where it is least sure too; nothing where nobody knows."""
    if "all" not in one.known_to:
        return ""
    if one.known_to["all"] >= WHOLE:
        return " This run cannot tell."
    told = [f"to ±{number(one.known_to['all'])}"]
    for key, place, some in (
        ("site", "at the hospital it knows least", "at some hospital"),
        ("class", f"for the {part} it knows least", f"for some {part}"),
    ):
        if key in one.known_to:
            half = one.known_to[key]
            told.append(f"{place} to ±{number(half)}" if half < WHOLE else f"{some} not at all")
    return f" This run knows losses {', '.join(told)}."


def _of_trainings(one: Overview) -> list[str]:
    if not one.unusual:
        return []
    seeds = " and ".join(map(str, one.unusual))
    return [f"Unusual: retraining with seed {seeds} differs from the others far more than they do."]


def _of_controls(one: Overview) -> list[str]:
    """Models whose truth is known, if they were judged against it."""
    again, broken = one.again, one.broken
    said = []
    if again is not None and (again.forgotten in ("partly", "no", "too much") or again.useful == "worse"):
        said.append("Beware: retraining itself was found not to be honest retraining: trust no finding here.")
    if broken is not None and broken.useful == "yes":
        said.append("Beware: a model that is certainly broken was found still good: trust no yes here.")
    return said


def legend(one: Overview) -> str:
    """How to read the table."""
    memory = "Memory left: 0 as if never seen, 100 as in the original model. " if one.tells else ""
    judged = [*one.rows, *([one.nothing] if one.nothing else ())]
    shown = [*judged, *([one.again] if one.again else ())]
    answers = {row.useful for row in judged} | ({row.forgotten for row in judged} if one.tells else set())
    unclear = f" {UNCLEAR_MEANS}" if "cannot tell" in answers else ""
    cost = " Cost: of training anew on each day of acceptance." if one.policy else ""
    return f"{memory}Test, worst: against retraining.{cost} ±: 95 %.{unclear}{_classes(one, shown)}"


def _classes(one: Overview, rows: Sequence[Row]) -> str:
    """The names of the classes that the table has by number, where these are more than numbers."""
    numbers = {row.group.name for row in rows if round(row.group.value, 2) < 0 and row.group.name.isdecimal()}
    names = {n: one.classes[n] for n in sorted(map(int, numbers)) if n < len(one.classes)}
    told = ", ".join(
        f"{number} {name}" for number, name in names.items() if numbered(str(number), one.classes) != name
    )
    return f" {spoken(one.kind)[1].capitalize()}: {told}." if told else ""


# ------------------------------------------------------------------------------------------------ the rest


def notes(one: Overview) -> list[str]:
    """What none can do, which is best, and what the table does not say: for whom it is not true, what was not run."""
    said = [*one.warnings, *best(one)]
    if one.tells:
        known = _by_patients({row.strategy: row.known for row in one.rows})
        overdone = _by_patients({row.strategy: row.overdone for row in one.rows})
        said += [f"Still known: {known}."] if known else []
        said += [f"Known less than by retraining: {overdone}."] if overdone else []
        said += _because(one.rows, one.margins.get("memory", math.nan))
    said += _of_answers(one.rows)
    said += _not_worth_it(one)
    said += [_not_run(strategies, reason) for strategies, reason in shared(one.skipped)]
    findings = "1 finding" if one.unequal == 1 else f"{one.unequal} findings"
    return [*said, *([f"Groups treated unequally: {findings} (--details)."] if one.unequal else [])]


def _not_worth_it(one: Overview) -> list[str]:
    """Which strategies a floor dominates, and whether there is any to compare with."""
    by_floor: dict[str, list[str]] = {}
    for strategy, floor in dominated(one.rows, one.floors).items():
        by_floor.setdefault(floor, []).append(strategy)
    told = [f"{_listed(strategies)} by {floor}" for floor, strategies in by_floor.items()]
    why = "costs more than what needs no thought, and leaves more memory"
    return [f"Dominated ({DOMINATED.strip()}: {why}): {'; '.join(told)}."] if told else []


def best(one: Overview) -> list[str]:
    """Which strategy is best, if the choice among them can be made at all."""
    count = len(one.rows)
    if not count or not one.tells:
        return []
    good, sure = [row for row in one.rows if _yes_twice(row)], sure_of(one)
    if sure:
        first, work = sure[0], f"at {percent(sure[0].cost)} % of what retraining asks of hospitals"
        if count == 1:
            return [f"{first.strategy} forgot and is still good, {work}."]
        which = "the only one" if len(sure) == 1 else f"the cheapest of {len(sure)}"
        return [
            f"Best: {first.strategy}, {which} sure to have forgotten, also once corrected for a choice among {count} "
            f"strategies, and still good, {work}."
        ]
    if good:
        names = _listed([row.strategy for row in good])
        return [
            f"No best: that {names} forgot may be luck, being picked out of {count} strategies (Holm's correction)."
        ]
    forgot = [row.strategy for row in one.rows if row.forgotten == "yes"]
    some = f"; {_listed(forgot)} forgot" if forgot else ""
    return [f"No best: of no strategy is it sure both that it forgot and that it is still good{some}."]


def sure_of(one: Overview) -> list[Row]:
    """Strategies of which both answers are yes, the cheapest first.

    That they forgot is significant also once corrected for the choice among all; that they are still good is not
    corrected.
    """
    if not one.tells:
        return []
    sure = (row for row in one.rows if _yes_twice(row) and row.p < 0.05)
    return sorted(sure, key=lambda row: math.inf if math.isnan(row.cost) else row.cost)


def _yes_twice(row: Row) -> bool:
    return (row.forgotten, row.useful) == ("yes", "yes")


def _by_patients(of: Mapping[str, Sequence[str]]) -> str:
    """Who, and by which strategies, the fewest first."""
    found: dict[tuple[str, ...], list[str]] = {}
    for strategy, patients in of.items():
        if patients:
            found.setdefault(tuple(sorted(patients)), []).append(strategy)
    return _some(
        [
            f"{_listed(patients)} by {_listed(strategies)}"
            for patients, strategies in sorted(found.items(), key=lambda pair: len(pair[0]))
        ]
    )


def _because(rows: Sequence[Row], margin: float) -> list[str]:
    """Why a strategy did not get a yes, where its row does not show it: that more than ``margin`` is left."""
    said = []
    for answer, words in (
        ("yes, but", "Forgotten, but"),
        ("cannot tell", "Unclear if forgotten"),
        ("partly", "Partly forgotten"),
        ("no", "Not forgotten"),
    ):
        told = _grouped(
            (one.strategy, _unbracketed(one.reasons[0]))
            for one in rows
            if one.forgotten == answer and one.reasons and not _shown(one, margin)
        )
        said += [f"{words}: {_some(told)}."] if told else []
    return said


def _shown(one: Row, margin: float) -> bool:
    """Whether the memory left in its row, or the patients there, are reason enough for its answer."""
    left = one.left.value > margin and one.left.value - one.left.half > 0
    return one.forgotten in ("partly", "no") and (bool(one.known) or left)


def _of_answers(rows: Sequence[Row]) -> list[str]:
    """Where a strategy is worse, or nobody can tell whether it is."""
    said = []
    for answer, words in (("worse", "Worse"), ("cannot tell", "Unclear if still good")):
        told = _grouped(
            (one.strategy, place(one.uses[0])[0]) for one in rows if one.useful == answer and one.uses
        )
        said += [f"{words}: {_some(told)}."] if told else []
    return said


def _not_run(strategies: str, reason: str) -> str:
    return f"Not run: {reason if reason.startswith(f'{strategies} ') else f'{strategies}: {reason}'}."


_LOST = re.compile(r": ([+-]\d\.\d{3})")
_TOO_FEW = re.compile(r": \d+ test images of \d+ patients; ")
"""How a reason for "still good?" goes on behind its place (`scoring.judgement.verdict`), of which names are part."""


def place(reason: str) -> tuple[str, float]:
    """Where, and what was lost there, nan where that is not told: what a reason for "still good?" begins with."""
    if reason.startswith("diverged"):
        return reason, math.nan
    found = _LOST.search(reason)
    if found is not None:
        return reason[: found.start()], float(found[1])
    few = _TOO_FEW.search(reason)
    return (reason if few is None else reason[: few.start()]), math.nan


def _unbracketed(reason: str) -> str:
    """A reason without its numbers in brackets."""
    return re.sub(r" \([^()]*\)", "", reason)


def _grouped(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """Reasons, and the strategies that share them."""
    found: dict[str, list[str]] = {}
    for strategy, reason in reasons:
        found.setdefault(reason, []).append(strategy)
    return [f"{reason} ({_listed(strategies)})" for reason, strategies in found.items()]


def shared(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(strategies, reason), once for all that share it."""
    found: dict[str, list[str]] = {}
    for strategy, reason in pairs:
        found.setdefault(reason, []).append(strategy)
    return [(", ".join(strategies), reason) for reason, strategies in found.items()]


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join([*names[:_NAMED], *([f"{rest} more"] if rest > 0 else [])])


def _some(told: Sequence[str]) -> str:
    rest = len(told) - _NAMED
    return "; ".join([*told[:_NAMED], *([f"{rest} more (--details)"] if rest > 0 else [])])


# ----------------------------------------------------------------------------------------------- numbers


def limits(probes: Sequence[str]) -> str:
    """What no answer here can say, given the run's ``probes``; `docs/verdicts.md` has more about it."""
    features = (
        () if "linear_probe" in probes else ("what features keep (evaluation: {linear_probe: true} asks)",)
    )
    hidden = ("a mark among the other classes' answers", "a patch that knows changed copies too", *features)
    return (
        f"Nothing here can show {', '.join(hidden[:-1])} or {hidden[-1]}. It is about means over seeds, not about one "
        "deployed model, and it is no legal advice."
    )


def percent(share: float) -> str:
    """A share in percent, in at most five letters."""
    if not math.isfinite(share):
        return "?"
    return f"{round(100 * share)}" if abs(share) < 10 else f"{'-' if share < 0 else ''}>999"


def number(value: float) -> str:
    """Two decimals; ? where unknown."""
    return short(value, 2) if math.isfinite(value) else "?"


def signed(value: float) -> str:
    """A difference; - where unknown."""
    return "-" if math.isnan(value) else f"{'-' if round(value, 2) < 0 else '+'}{number(abs(value))}"

"""A first scenario for the data at hand, with comments; what is written is known to pass `check`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fedunlearn import scenario as scenarios
from fedunlearn.beginning.data import EDGES, Found, find
from fedunlearn.beginning.layouts import Undecided
from fedunlearn.beginning.text import DEALT, Asked, Wishes, write
from fedunlearn.campaign.cohort import ENOUGH
from fedunlearn.campaign.gathering import dealt, gather
from fedunlearn.campaign.timing import duration
from fedunlearn.core import InputError
from fedunlearn.results.sentences import counted
from fedunlearn.results.wording import line
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.json_schema import FILE
from fedunlearn.yaml.source import parse
from sites.watching import Watch

__all__ = ["EDGES", "Found", "Undecided", "Wishes", "begin", "columns", "find", "wishes"]

_MOST = 20
"""Hospitals that a column may name; a column with more values is hardly one of hospitals."""
_MOST_NUMBERS = 8
"""The same of a column of numbers, which may be years or ages."""
_LIKELY = ("site", "hospital", "centre", "center", "scanner", "institution")
_UNLIKELY = frozenset(
    {
        *("age", "ages", "sex", "gender", "label", "labels", "class", "classes", "target", "diagnosis"),
        *("split", "fold", "part", "set", "date", "year", "month", "difficulty", "weight", "height", "score"),
        *("grade", "view", "laterality", "side"),
    }
)
"""Words in names of columns that tell something else than hospitals."""
_TRIES = 64
"""Seeds of the data to try, until named patients are among those that hospitals train on."""
_EACH = 4
"""Patients that a hospital has at least, in the mean."""
_FORGET = ("patients", "hospital", "both")


def columns(found: Found) -> list[str]:
    """The columns of the data that are likely to name hospitals, the likeliest first."""
    possible = _possible(found)
    named = [name for name in _LIKELY if name in possible]
    return named + [
        name for name in possible if name not in named and _likely(name, found.collection.table[name])
    ]


def _possible(found: Found) -> list[str]:
    """The columns by which patients can be dealt to hospitals, likely or not."""
    table, people = found.collection.table, found.collection.table["patient"].nunique()

    def fits(name: str) -> bool:
        values = table[name].dropna()
        return name not in ("image", "patient", "label", "split") and 2 <= values.nunique() <= min(
            _MOST, people / _EACH
        )

    return [str(name) for name in table.columns if fits(str(name)) and not table[name].isna().any()]


def _likely(name: str, values: pd.Series) -> bool:
    """Whether a column may well name hospitals: by its words, and it holds no measurements."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold())
    if pd.api.types.is_float_dtype(values) or not _UNLIKELY.isdisjoint(words):
        return False
    numbers = bool(pd.to_numeric(values, errors="coerce").notna().all())
    return not numbers or values.nunique() <= _MOST_NUMBERS


def wishes(hospitals: str, forget: str, time: str, found: Found) -> Wishes:
    """The answers, understood.

    Args:
        hospitals: a column's name, or a number of hospitals to deal patients to.
        forget: patients, hospital or both, or ids of patients with commas between them.
        time: quick or normal.
        found: the data.

    Raises:
        InputError: an answer is none; all of them together.
    """
    known, problems = columns(found), list[str]()
    people = found.collection.table["patient"].nunique()
    number, most = int(hospitals) if hospitals.isdecimal() else None, min(len(DEALT), people // _EACH)
    if number is not None and most < 2:
        problems.append(
            f"--hospitals {number}: found {counted(people, 'patient')}; expected at least {2 * _EACH}, {_EACH} for "
            "each of 2 hospitals"
        )
    elif number is not None and not 2 <= number <= most:
        problems.append(f"--hospitals {number}: expected from 2 to {most}, of {people} patients")
    if number is None and hospitals not in _possible(found):
        told = (
            f"the columns {', '.join(map(line, known))}; expected one of these, or"
            if known
            else "no column that could name hospitals; expected"
        )
        problems.append(
            f"--hospitals {line(hospitals)}: found {told} a number of hospitals to deal patients to, such as 3"
        )
    ids = tuple(part.strip() for part in forget.split(",") if part.strip())
    if forget not in _FORGET and (
        strange := [i for i in ids if i not in set(found.collection.table["patient"])]
    ):
        problems.append(
            f"--forget: found no patient {line(strange[0])!r}; expected {', '.join(_FORGET)}, or ids of patients with "
            "commas between them"
        )
    if time not in EDGES:
        problems.append(f"--time {line(time)}: expected {' or '.join(EDGES)}")
    if problems:
        raise InputError("; ".join(problems))
    return Wishes(number or hospitals, forget if forget in _FORGET else ids, time)


def begin(found: Found, wanted: Wishes, to: Path, name: str | None, watch: Watch) -> list[str]:
    """Write a scenario to a new file, once it is known that it can be run.

    Args:
        found: the data.
        wanted: what is wanted.
        to: the file.
        name: what the scenario is called; None for the file's name.
        watch: is shown how far reading is.

    Returns:
        What was written and what to do next, line by line.

    Raises:
        InputError: the file is there already, or what was asked for cannot be run on this data.
    """
    if to.exists():
        raise InputError(f"{to} is there already; expected a new file: name another with --to")
    root = (
        ""
        if found.root is None or found.settings["name"] == "medmnist"
        else f" --data-root {shlex.quote(str(found.root))}"
    )
    called = name or re.sub(r"[^\w.-]+", "-", to.stem).strip(".-") or "mine"
    command = f"fedunlearn simulate {shlex.quote(str(to))}{root}"
    try:
        sites = _sites(found, wanted)
        told = _drafted(found, wanted, to, sites, called, command)
        takes, *few = _tried(told, to, found, watch)
    except InputError as error:
        error.add_note(
            "nothing was written: this data cannot be run as asked for; ask otherwise, or write a scenario"
        )
        for note in found.collection.notes:  # which may well be why
            error.add_note(f"note: {line(note)}")
        raise
    try:
        with to.open("x", encoding="utf-8") as opened:
            opened.write(told)
    except OSError as error:
        raise InputError(
            f"cannot write {to}: {error.strerror}; expected a new file in a folder of yours"
        ) from error
    return [
        f"scenario file: {to}",
        *(f"note: {line(note)}" for note in found.collection.notes),
        *_invented(found, wanted, sites),
        f"it {takes}",
        *few,
        "read it: comments say what was chosen and why. Then look at the data, and run it:",
        f"  fedunlearn check {shlex.quote(str(to))}{root} --pictures sheet.png",
        f"  {command} --out runs/first",
    ]


def _drafted(found: Found, wanted: Wishes, to: Path, sites: Sequence[str], called: str, command: str) -> str:
    """The scenario's text, with whom is asked for.

    Raises:
        InputError: whoever is to be forgotten cannot be asked for.
    """

    def draft(asked: Asked) -> str:
        return write(called, found, wanted, sites, asked, command, (to.parent / FILE).is_file())

    asked = Asked(_first(found, wanted, sites))
    if not isinstance(wanted.forget, str):
        trial = replace(asked, named={asked.first: wanted.forget})
        asked = _asked(scenarios.read_tree(parse(draft(trial), str(to))), found, wanted.forget)
    elif wanted.forget != "hospital":
        asked = _picked(scenarios.read_tree(parse(draft(asked), str(to))), found)
    return draft(asked)


def _invented(found: Found, wanted: Wishes, sites: Sequence[str]) -> list[str]:
    """What of the scenario the data does not tell: hospitals that patients are dealt to, and who the patients are."""
    told = list[str]()
    if isinstance(wanted.hospitals, int):
        named = columns(found)
        why = (
            f"not as the data's column {line(named[0])} may tell" if named else "since the data tells of none"
        )
        people = found.collection.table["patient"].nunique()
        told.append(
            f"hospitals: invented, {why}: {people:,} patients are dealt at random to {', '.join(sites)}, which so are "
            "more alike than real ones"
        )
    if found.collection.synthetic_patients:
        told.append(f"patients: invented: {line(found.collection.note)}")
    return told


def _tried(told: str, to: Path, found: Found, watch: Watch) -> list[str]:
    """About how long the scenario takes, and of which requests it tells coarsely; it is gathered as a run would.

    Raises:
        InputError: it cannot be run.
    """
    scenario = scenarios.read_tree(parse(told, str(to)))
    cohort = gather(scenario, found.root or Path(), watch)
    few = (f"{one.id}: {sentence}" for one in scenario.requests for sentence in cohort.few(one.id))
    return [duration(scenario, cohort), *few]


def _sites(found: Found, wanted: Wishes) -> Sequence[str]:
    """The hospitals.

    Raises:
        InputError: the column that names them is empty for some images.
    """
    if isinstance(wanted.hospitals, int):
        return DEALT[: wanted.hospitals]
    table = found.collection.table
    values = table[wanted.hospitals].astype(str).str.strip()
    blank = table.loc[values == "", "image"].astype(str).tolist()
    if blank:
        raise InputError(
            f"column {line(wanted.hospitals)} is empty for {counted(len(blank), 'image')}, such as {line(blank[0])}; "
            "expected the hospital of every image: fill them in, or give a number of hospitals to deal patients to"
        )
    return sorted(set(values))


def _first(found: Found, wanted: Wishes, sites: Sequence[str]) -> str:
    """The hospital with the most patients; of hospitals that patients are dealt to, the first."""
    if isinstance(wanted.hospitals, int):
        return sites[0]
    table = found.collection.table
    counts = table.groupby(table[wanted.hospitals].astype(str).str.strip())["patient"].nunique()
    return str(counts.idxmax())


def _picked(scenario: Scenario, found: Found) -> Asked:
    """The hospital that trains on most patients, asked for three in ten, or `ENOUGH` if these are at most half."""
    site, part = dealt(scenario, found.collection)
    trained = found.collection.table.assign(site=site)[part == "train"]
    counts = trained.groupby("site")["patient"].nunique()
    most = int(counts.max())
    return Asked(str(counts.idxmax()), count=max(1, round(0.3 * most), min(ENOUGH, most // 2)))


def _asked(scenario: Scenario, found: Found, patients: Sequence[str]) -> Asked:
    """The hospitals that train on named patients, under the first seed of the data under which all are trained on.

    Raises:
        InputError: there is none among those tried.
    """
    table, wanted = found.collection.table, set(patients)
    most = set[str]()
    for seed in range(scenario.seed, scenario.seed + _TRIES):
        site, part = dealt(replace(scenario, seed=seed), found.collection)
        trained = table.assign(site=site)[(part == "train") & table["patient"].isin(wanted)]
        there = {str(at): sorted(set(of)) for at, of in trained.groupby("site")["patient"]}
        most = max(most, set(trained["patient"]), key=len)
        if len(set(trained["patient"])) == len(wanted):
            return Asked(next(iter(there)), there, seed)
    raise InputError(
        f"--forget: found no way to deal patients, of {_TRIES} tried, with which hospitals train on all "
        f"{len(wanted)} named ones, at most on {len(most)}; expected patients to be trained on, half of all are: name "
        "fewer, or `--forget patients` and change the ids in the scenario"
    )

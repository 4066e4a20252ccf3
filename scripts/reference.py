"""Write docs/reference/ from the program: keys, strategies, measures, files, commands. A test says when it is due.

python scripts/reference.py
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import typer.main  # noqa: E402

import sites  # noqa: E402
import strategies  # noqa: E402
from fedunlearn import core, listing  # noqa: E402
from fedunlearn.__main__ import app  # noqa: E402
from fedunlearn.core.kinds import kinds  # noqa: E402
from fedunlearn.intake.arrivals import Arrivals, Kinds  # noqa: E402
from fedunlearn.intake.calendar import Calendar  # noqa: E402
from fedunlearn.intake.desk import REASONS, Limits  # noqa: E402
from fedunlearn.intake.policies import POLICIES  # noqa: E402
from fedunlearn.learning.models import MODELS  # noqa: E402
from fedunlearn.results import (  # noqa: E402
    columns as results_columns,
    contents,
    events,
    frames as results_frames,
    years as results_years,
)
from fedunlearn.results.kinds import words  # noqa: E402
from fedunlearn.scenario import catalogue, schema  # noqa: E402
from fedunlearn.scoring.evidence.margins import Margins  # noqa: E402
from fedunlearn.scoring.measures.catalogue import MEASURES, Measure, measures_of  # noqa: E402
from scripts.docstrings import flat, keys, listed, named, table, told  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by scripts/reference.py from the program. Change the docstrings there, then run it. -->\n"


# --------------------------------------------------------------------------------------------------- pages


def scenario() -> Iterator[str]:
    """Every key of a scenario."""
    top = told(schema.Scenario).attributes
    yield "# Scenario keys"
    yield (
        "A scenario is one YAML file. `fedunlearn check FILE` tells every problem with its line. How to write one is "
        "told [elsewhere](../how-to/scenario.md). *–* as a default means that the key is left out; so does *None* in a "
        "sentence."
    )
    yield "## Top level"
    yield from keys(schema.TopKeys, top, without=())
    parts = {
        "engine": "what the run works on",
        "data": "where images come from",
        "sites": "the hospitals and who gets which images",
        "model": "the network",
        "training": "how it is trained",
        "requests": "what is to be forgotten, a list",
        "calendar": "when rounds are, so that requests have days",
        "arrivals": "requests that come by themselves, in a calendar",
        "policies": "when what was accepted is unlearned, in a calendar, a list",
        "limits": "what is refused or held back, in a calendar",
        "retention": "what is kept of the way, in a calendar",
        "strategies": "how, a list",
        "evaluation": "what is done only to judge by",
        "verdict": "what verdicts are made with",
        "history": "how the server stores what strategies use of training",
    }
    yield from table(("part", "what"), [(f"[`{name}`](#{name})", text) for name, text in parts.items()])
    yield "## engine"
    yield from keys(schema.Engine, without=())
    yield "## data"
    yield "`data: {name: NAME, …}`, with one of these names."
    yield from named(sites.SOURCES, "###")
    yield "## sites"
    yield from keys(
        schema.SitesConfig, {"split": "`{train, val, test, proxy}`, or `{from: COLUMN}` of the data"}
    )
    yield "### split"
    yield from keys(schema.Shares, without=())
    yield "### partition"
    yield "`partition: {name: NAME, …}`, with one of these names."
    yield from named(sites.PARTITIONS, "####")
    yield "## model"
    yield "`model: {name: NAME, …}`, with one of these names."
    yield from named(MODELS, "###")
    yield "## training"
    local = told(core.LocalTraining).attributes
    yield from keys(
        schema.TrainingKeys,
        {**local, **told(core.Training).attributes, "local_epochs": local["epochs"]},
        without=(),
    )
    yield "## requests"
    yield from keys(schema.Request, without=())
    yield "### Pick"
    yield "`patients: {fraction: 0.3, pick: random}` instead of a list of ids."
    yield from keys(schema.Pick, without=())
    yield "## calendar"
    yield "With it requests come on days, in one stream that every policy meets ([how](../how-to/year.md))."
    yield from keys(Calendar, without=())
    yield "## arrivals"
    yield from keys(Arrivals, without=())
    yield "### Kinds"
    yield told(Kinds).summary
    yield from keys(Kinds, without=())
    yield "## policies"
    yield "`policies: [{name: NAME, …}]`, with these names; `as` gives one another label. `at_once` alone if left out."
    yield from named(POLICIES, "###")
    yield "## limits"
    yield from keys(Limits, without=())
    yield "### Reasons"
    yield "Why a request is refused or held back, as `manifest.json` has it:"
    yield from listed("reason", REASONS)
    yield "## retention"
    yield from keys(schema.Retention, without=())
    yield "## strategies"
    yield "Every entry has a `name`, the settings of [that strategy](strategies.md), and any of these keys."
    entry = {
        "as": "its name in tables and files; the strategy's own if it is left out",
        "requests": "ids of the requests that it serves; all that it can if left out",
        "file": "a Python file with a strategy of yours, from the scenario's folder",
        "sha256": "of that file; a run folder's scenario has it, so that an edited copy is refused",
        "tuned": "what finding its settings cost, as `fedunlearn tune` writes it",
    }
    yield from listed("key", entry)
    yield "### Recovery"
    yield told(core.Recovery).summary
    yield from keys(core.Recovery, without=())
    yield "### Tuned"
    yield from keys(schema.Tuned, without=())
    yield "## evaluation"
    yield from keys(schema.Evaluation, without=())
    yield "## verdict"
    yield "`verdict: {margins: {…}}`: how much worse than retraining an unlearned model may be."
    yield from keys(Margins, without=())
    yield "## history"
    yield from keys(schema.HistoryConfig, without=())
    yield "## sweep"
    yield (
        "`sweep: {KEY: [VALUE, …]}` makes one run of every combination of values. Keys are written as for `--set`, "
        "such as `requests.0.patients.fraction`."
    )


def methods() -> Iterator[str]:
    """Every strategy."""
    yield "# Strategies"
    yield (
        "How to choose is told [elsewhere](../how-to/strategies.md), how far each goes [under "
        "results](../strategies.md). `fedunlearn list strategies --json` has the same for programs."
    )
    classes = strategies.catalogue()
    known = {one["name"]: one for one in catalogue.entries("strategies") if one["name"] in classes}
    for group, title in listing.GROUPS:
        own = {name: one for name, one in known.items() if listing.group(one) == group}
        head, _, what = title.partition(": ")
        yield f"## {head.capitalize()}"
        yield f"{what[0].upper()}{what[1:]}."
        rows = [(f"[`{name}`](#{name})", one["summary"]) for name, one in own.items()]
        yield from table(("strategy", "what it does"), rows)
        for name, one in own.items():
            about = told(classes[name])
            yield f"### {name}"
            yield "\n\n".join(filter(None, (about.summary, about.body)))
            yield f"*What it can and needs:* {listing.traits(one)}."
            yield listing.costs(one).replace("Costs:", "*Costs:*")
            yield from (f"*{title}:* {text}" for title, text in about.sections.items())
            yield from (part.replace("(#recovery)", "(scenario.md#recovery)") for part in keys(classes[name]))
            ranges = ", ".join(f"`{setting}`" for setting in one["searched"])
            yield f"*`tune` searches:* {ranges or 'nothing'}."


def measures() -> Iterator[str]:
    """Every measure."""
    yield "# Measures"
    yield (
        "All are in `scores.parquet`, by these names. *Better*: `match` means that the nearer to retraining, the "
        "better. *Retrained*: what an honest model scores. `fedunlearn list measures --json` has the same."
    )
    every = {kind: measures_of(kind) for kind in kinds()}
    shared = {name for name in MEASURES if all(name in of for of in every.values())}
    sections, told = dict[str, list[Measure]](), {(name, MEASURES[name].summary) for name in shared}
    for kind, of in every.items():
        sections[words(kind).heading] = [one for one in of.values() if (one.name, one.summary) not in told]
        told |= {(one.name, one.summary) for one in of.values()}
    for title, found in {**sections, "Of every kind": [MEASURES[n] for n in MEASURES if n in shared]}.items():
        yield f"## {title}"
        rows = []
        for one in found:
            ends = " to ".join(
                "…" if end in (None, float("inf"), -float("inf")) else f"{end:g}"
                for end in (one.low, one.high)
            )
            margin = "–" if one.margin is None else f"{one.margin:g}"
            rows.append(
                (
                    f"`{one.name}`",
                    one.summary,
                    one.unit,
                    ends,
                    one.direction,
                    one.retrained,
                    margin,
                    one.source,
                )
            )
        heads = ("measure", "what", "unit", "range", "better", "retrained", "margin", "source")
        yield from table(heads, rows)


def run_folder() -> Iterator[str]:
    """Every file of a run folder and every column."""
    yield "# Files and columns of a run folder"
    yield (
        "Weights and signals can reveal what a model remembers of its training patients: with real data, guard a run "
        "folder like the data. Tables are Parquet; `pandas.read_parquet` reads them, and so does "
        "[`fedunlearn.load_run`](../how-to/python.md). Not every run has all of these files."
    )
    links = {name: f"[`{name}`](#{anchor(name)})" for name in contents.COLUMNS}
    yield from table(
        ("file", "what"), [(links.get(name, f"`{name}`"), text) for name, text in contents.FILES.items()]
    )
    for name, columns in contents.COLUMNS.items():
        yield f"## {name}"
        yield from listed("column", columns)


def anchor(heading: str) -> str:
    """What a heading's anchor is, here and in a browser of the repository."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands() -> Iterator[str]:
    """Every command."""
    yield "# Commands"
    yield (
        "`python -m fedunlearn` does the same as `fedunlearn`. SCENARIO is a file, or a name of `fedunlearn list "
        "scenarios`; a file of that name in the current folder goes first. `--debug`, before or after the command, "
        "shows the traceback of an error."
    )
    codes = {
        "0": "done",
        "1": "failed while running; the message names the hospital, the round and the file where there is one",
        "2": "wrong input; nothing was run",
        "129, 130, 143": "interrupted by SIGHUP, by Ctrl-C, by SIGTERM; within 15 s, with nothing left running",
        "141": "nobody read what it printed, as in `fedunlearn list strategies | head -1`; there is no message",
    }
    yield from table(("exit code", "meaning"), codes.items())
    yield from _commands(typer.main.get_command(app), "fedunlearn")


def _commands(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for below, one in command.commands.items():
            yield from _commands(one, f"{name} {below}")
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name not in ("debug", "help")]
    yield f"## {name}"
    yield flat((command.help or "").replace("\f", ""))
    words = [(p.metavar or p.name.upper()).strip("[]") for p in arguments]
    usage = [f"[{w}]" if not p.required else w for p, w in zip(arguments, words, strict=True)]
    yield f"    {' '.join([name, *usage, *(['[OPTIONS]'] if options else [])])}"
    rows = [(f"`{w}`", flat(_help(command, p) or _choices(p))) for p, w in zip(arguments, words, strict=True)]
    for one in options:
        what = (
            ""
            if one.is_flag
            else f" {one.metavar or _choices(one) or one.type.name.upper().removesuffix(' RANGE')}"
        )
        default = (
            "" if one.default in (None, False, ()) or callable(one.default) else f" Default: {one.default}."
        )
        again = " Repeatable." if one.multiple and "repeatable" not in (one.help or "") else ""
        rows.append((f"`{', '.join(one.opts)}{what}`", flat(f"{one.help or ''}{default}{again}")))
    if rows:
        yield from table(("", "what"), rows)


def _help(command: Any, argument: Any) -> str:
    """From the function's annotations: click 8.5 loses it on the way."""
    hint = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True).get(argument.name)
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((mark.help for mark in marks if getattr(mark, "help", None)), "")


def _choices(parameter: Any) -> str:
    return "|".join(getattr(parameter.type, "choices", ()) or ())


def frames() -> Iterator[str]:
    """Every frame that Python users are shown."""
    yield "# Frames"
    yield (
        "What charts, the report and [Python](../how-to/python.md) show: pandas frames, each about one request of a "
        "run. Numbers are unrounded; a share of 1 is 100 %. Rows come best strategy first, then what they are compared "
        "with."
    )
    for name, columns in results_columns.COLUMNS.items():
        yield f"## {name}"
        yield told(getattr(results_frames, name)).summary
        yield from listed("column", columns)
    yield "## Of a year"
    yield (
        "Where a scenario has a `calendar`, `fedunlearn.results.years` makes these, of the whole run; of any other run "
        "they have no rows. `Run.calendar`, `Run.years` and `Run.policies` are the tables they are made of."
    )
    for name, columns in results_columns.OF_YEARS.items():
        yield f"### {name}"
        yield told(getattr(results_years, name)).summary
        yield from listed("column", columns)
    yield "### streams"
    yield told(results_years.streams).summary
    yield from listed("column", results_columns.STREAMS)
    yield "## Roles"
    yield "What a row is about, column `role`."
    yield from listed("role", results_columns.ROLES)


def told_events() -> Iterator[str]:
    """Every event, from the table in the docstring of `fedunlearn.results.events`."""
    yield "# Events"
    yield "`fedunlearn simulate --json` and `fedunlearn tune --json` print these, and nothing else, on standard output."
    text = re.sub(r"``([^`]+)``", r"`\1`", inspect.getdoc(events) or "")
    intro, _, rows = re.split(r"^=+ =+$\n?", text, flags=re.M)[:3]
    yield flat(intro.partition("\n")[0])
    yield flat(intro.partition("\n")[2])
    whole = re.sub(r"\n +", " ", rows).strip().splitlines()
    yield from table(
        ("event", "fields"), [(f"`{name}`", what) for name, what in (r.split(None, 1) for r in whole)]
    )


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "scenario.md": scenario,
    "strategies.md": methods,
    "measures.md": measures,
    "run-folder.md": run_folder,
    "frames.md": frames,
    "commands.md": commands,
    "events.md": told_events,
}


def page(name: str) -> str:
    """A page's text."""
    return "\n\n".join([MADE.rstrip(), *(part.rstrip() for part in PAGES[name]())]) + "\n"


if __name__ == "__main__":
    for name in PAGES:
        (FOLDER / name).write_text(page(name), encoding="utf-8")
        print(f"docs/reference/{name}")

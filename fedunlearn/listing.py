"""What a scenario can name, for people and programs, at once: without loading what computes.

What `scenario.catalogue` knows is written down in ``listed.json``, beside a digest of the source files that it follows
from. As long as they are these files, the lists are read from there; else, and with strategies of other packages, they
are made anew. ``python scripts/write_lists.py`` writes the file; a test tells when it must be.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fedunlearn import guests
from fedunlearn.core import InputError
from fedunlearn.installation import ROOT, scenario_files
from fedunlearn.results.wording import line

Entry = dict[str, Any]

STORED = Path(__file__).with_name("listed.json")
"""The lists as they were written down, by name."""
SOURCES: Mapping[str, Sequence[str]] = {
    "strategies": ("strategies/*.py",),
    "measures": ("fedunlearn/scoring/measures/*.py", "fedunlearn/scoring/attacks/*.py"),
    "data": ("sites/**/*.py",),
    "models": ("fedunlearn/learning/models/*.py",),
    "partitions": ("sites/dealing/*.py",),
    "policies": ("fedunlearn/intake/policies.py",),
}
"""The files that a list follows from."""

GROUPS = (
    ("exact", "EXACT: what comes out equals training without the data"),
    ("certified", "BOUNDED: the paper proves how little can be left, under its assumptions"),
    ("left", "WITHOUT THE DATA: those who remain train on, or again"),
    ("history", "FROM HISTORY: of what the server kept of training"),
    ("holders", "AT THOSE WHO HOLD THE DATA: it is used once more"),
    ("suppression", "SUPPRESSION: an addition to the model hides the data, which stays in the rest"),
)
"""Kinds of strategies, as `group` tells them apart, and what each is called."""
_STORED = ("updates", "checkpoints", "preparation")


def entries(what: str) -> list[Entry]:
    """The entries of one list, each with at least a name and a one-line summary."""
    if what == "scenarios":
        return [_scenario(name, path) for name, path in scenario_files().items()]
    strangers = what == "strategies" and entry_points(group=guests.GROUP)
    if not strangers and STORED.is_file():
        stored = json.loads(STORED.read_text(encoding="utf-8")).get(what, {})
        if stored.get("digest") == digest(what):
            found: list[Entry] = stored["entries"]
            return found
    from fedunlearn.scenario import catalogue

    return catalogue.entries(what)


def entry(what: str, name: str) -> Entry:
    """One entry.

    Raises:
        InputError: there is none of this name.
    """
    known = {one["name"]: one for one in entries(what)}
    if name not in known:
        near = [other for other in known if name.lower() in other or other in name.lower()]
        hint = f"; did you mean {' or '.join(near[:3])}?" if near else f"; `list {what}` has all"
        raise InputError(f"found no {name!r} in `list {what}`{hint}")
    return known[name]


def digest(what: str) -> str:
    """Of the files that a list follows from."""
    files = sorted(path for pattern in SOURCES[what] for path in ROOT.glob(pattern))
    found = hashlib.sha256()
    for path in files:
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def write() -> None:
    """Write the lists down."""
    from fedunlearn.scenario import catalogue

    lists = {what: {"digest": digest(what), "entries": catalogue.entries(what)} for what in SOURCES}
    STORED.write_text(json.dumps(lists, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------- for people


def lines(what: str, width: int | None = None) -> list[str]:
    """A line for each entry; strategies in groups.

    Args:
        what: which list.
        width: columns that a line may have; what is longer ends in "…". None for as long as it is.
    """
    found = entries(what)
    broad = max((len(line(one["name"])) for one in found), default=0)
    if what != "strategies":
        return [_cut(f"{line(one['name']):<{broad}}  {plain(one['summary'])}", width) for one in found]
    text = list[str]()
    for own, title in GROUPS:
        if members := [one for one in found if group(one) == own]:
            text += [*([""] if text else []), _cut(title, width)]
            text += [
                _cut(f"  {line(one['name']):<{broad}} {_mark(one)} {plain(one['summary'])}", width)
                for one in members
            ]
    return [*text, "", "* can only forget whole hospitals.  One in full: fedunlearn list strategies NAME"]


def full(what: str, name: str, width: int = 100) -> list[str]:
    """One entry in full: what it does, its settings, and of a strategy what it can, promises, needs and costs."""
    one = entry(what, name)
    text = [f"{one['name']}: {plain(one['summary'])}", ""]
    if what == "strategies":
        text += [*_wrapped(f"{traits(one)}.", width), *_wrapped(costs(one), width), ""]
    if about := str(one.get("text", "")).partition("\n")[2].strip("\n"):
        text += [*plain(about).split("\n"), ""]
    text += _settings(one)
    facts = ("unit", "path", "needs", "higher_is", "range")
    if what != "strategies":
        text += [f"{key}: {line(one[key])}" for key in facts if one.get(key) not in (None, "")]
    while text and not text[-1]:
        text.pop()
    return text


def plain(text: str) -> str:
    """A docstring without its markup: "::" before a formula, marks around names, references to types of the core."""
    shown = re.sub(r" \(`core\.\w+`\)", "", text)
    shown = re.sub(r"::(?=\n|$)", ":", shown)
    return re.sub(r"(``?)([^`\n]+(?:\n[^`\n]+)?)\1", r"\2", shown)


def _settings(one: Entry) -> list[str]:
    """A line for each setting: its default, the values it may have, and where `tune` looks."""
    settings, ranges = one.get("settings", {}), one.get("ranges", {})
    searched = one.get("searched", {})
    rows = [
        (name, json.dumps(value, ensure_ascii=False), ranges.get(name, ""), _searched(searched.get(name)))
        for name, value in _flat(settings)
    ]
    if not rows:
        return []
    heads = ("setting", "default", "values", "searched by tune")
    table = [heads, *rows]
    used = [column for column in range(4) if any(row[column] for row in rows)]
    widths = {column: max(len(row[column]) for row in table) for column in used}
    return ["  ".join(f"{row[c]:<{widths[c]}}" for c in used).rstrip() for row in table]


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _searched(where: Mapping[str, Any] | None) -> str:
    if where is None:
        return ""
    if "choices" in where:
        return " | ".join(map(str, where["choices"]))
    return f"{where['low']} to {where['high']}{', log' if where.get('log') else ''}"


def group(one: Entry) -> str:
    """Which of `GROUPS` a strategy is in."""
    needs = one["needs"]
    if one["guarantee"] in ("exact", "certified", "suppression"):
        return str(one["guarantee"])
    if one["uses_forget_data"]:
        return "holders"
    kept = any(needs.get(name) for name in (*_STORED, "cumulative"))
    return "history" if kept else "left"


def _mark(one: Entry) -> str:
    return " " if "patients" in one["granularity"] else "*"


def traits(one: Entry) -> str:
    """What a strategy can, promises and uses, in words."""
    needs = one["needs"]
    stored = [name for name in _STORED if needs.get(name)]
    stored += [f"sums of {needs['cumulative']}"] if needs["cumulative"] else []
    uses = [
        "the data to forget once more" if one["uses_forget_data"] else "",
        f"stored {' and '.join(stored)}" if stored else "",
        "images of the server's own" if needs["proxy_examples"] else "",
        "one class per image (no volumes, findings or reports)" if needs["class_labels"] else "",
    ]
    kept = [
        f"forgets {' or '.join(one['granularity'])}",
        one["guarantee"],
        f"uses {' and '.join(filter(None, uses))}"
        if any(uses)
        else "uses neither history nor the data to forget",
        "works under secure aggregation" if one["secure_aggregation"] else "sees single hospitals' replies",
    ]
    return "; ".join(kept)


def costs(one: Entry) -> str:
    """Who has to work and what has to be kept, in words; what that comes to is measured by a run."""
    needs = one["needs"]
    who = [
        "those who hold the data to forget" if one["uses_forget_data"] else "",
        "the hospitals that remain" if needs["stayers"] else "",
    ]
    work = " and ".join(filter(None, who)) or "no hospital"
    kept = [
        "every hospital's updates" if needs["updates"] else "",
        f"sums of every hospital's {needs['cumulative']}" if needs["cumulative"] else "",
        "models of earlier rounds" if needs["checkpoints"] else "",
        "what a training of its own, beside the ordinary one, leaves" if needs["preparation"] else "",
    ]
    keeps = ", ".join(filter(None, kept)) or "nothing but the model"
    return f"Costs: {work} must work again; the server keeps {keeps}. What that comes to is in every report."


def _scenario(name: str, path: Path) -> Entry:
    """Its summary is the first sentence of the comment at its top."""
    top = itertools.takewhile(lambda row: row.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    comment = [row.lstrip("# ") for row in top]
    summary = re.split(r"(?<=[.?])\s", " ".join(comment))[0]
    return {"name": name, "summary": summary, "path": str(path), "text": "\n".join(["", *comment])}


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _cut(text: str, width: int | None) -> str:
    text = line(text)
    return text if width is None or len(text) <= width else text[: width - 1].rstrip() + "…"

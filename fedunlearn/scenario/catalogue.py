"""What a scenario can name, with what one needs to know to choose: the content of ``list``."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedunlearn import guests
from fedunlearn.core import Guarantee, Leaver, Needs, Strategy
from fedunlearn.installation import scenario_files
from fedunlearn.learning.models import MODELS
from fedunlearn.scenario.space import Dimension, space
from fedunlearn.scoring import MEASURES
from sites import PARTITIONS, SOURCES
from strategies import catalogue

Entry = dict[str, Any]


def entries(what: str) -> list[Entry]:
    """The entries of one list, each with at least a name and a one-line summary."""
    match what:
        case "strategies":
            return [
                _strategy(name, cls) for name, cls in guests.Offers(catalogue(), guests.installed()).items()
            ]
        case "measures":
            return [
                {
                    "name": name,
                    "summary": m.summary,
                    **{
                        f.name: _plain(getattr(m, f.name))
                        for f in dataclasses.fields(m)
                        if f.name != "function"
                    },
                }
                for name, m in MEASURES.items()
            ]
        case "data":
            return _classes(SOURCES)
        case "models":
            return _classes(MODELS)
        case "scenarios":
            return [_scenario(name, path) for name, path in scenario_files().items()]
        case _:
            return _classes(PARTITIONS)


def lines(what: str) -> list[str]:
    """The same for people: a line for each entry; a strategy has a second one: what it can, promises and needs."""
    found = entries(what)
    width = max(len(entry["name"]) for entry in found)
    text = []
    for entry in found:
        text.append(f"{entry['name']:<{width}}  {entry['summary']}")
        if what == "strategies":
            text.append(f"{'':<{width}}  {_traits(entry)}")
    return text


def _traits(entry: Entry) -> str:
    needs = entry["needs"]
    stored = [name for name in ("updates", "checkpoints", "preparation") if needs.get(name)]
    stored += [f"sums of {needs['cumulative']}"] if needs["cumulative"] else []
    uses = [
        "the data to forget once more" if entry["uses_forget_data"] else "",
        f"stored {' and '.join(stored)}" if stored else "",
        "images of the server's own" if needs["proxy_examples"] else "",
        "one class per image (no volumes)" if needs["class_labels"] else "",
    ]
    kept = [
        f"forgets {' or '.join(entry['granularity'])}",
        entry["guarantee"],
        f"uses {' and '.join(filter(None, uses))}"
        if any(uses)
        else "uses neither history nor the data to forget",
        "works under secure aggregation" if entry["secure_aggregation"] else "sees single hospitals' replies",
    ]
    return "; ".join(kept)


def _strategy(name: str, cls: type[Strategy]) -> Entry:
    needs: Needs = cls().needs
    return {
        **_class(name, cls),
        "reference": _section(cls, "Reference"),
        "deviations": _section(cls, "Deviations"),
        "searched": {field: _where(one) for field, one in space(cls).items()},
        "granularity": sorted(g.value for g in cls.granularity),
        "guarantee": cls.guarantee.value,
        "exact": cls.guarantee is Guarantee.EXACT,
        "needs": {f.name: _plain(getattr(needs, f.name)) for f in dataclasses.fields(needs)},
        "uses_forget_data": needs.leaver is Leaver.ONLINE,
        "secure_aggregation": needs.secure_aggregation,
    }


def _scenario(name: str, path: Path) -> Entry:
    """Its summary is the first sentence of the comment at its top."""
    top = itertools.takewhile(
        lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()
    )
    words = " ".join(line.lstrip("# ") for line in top)
    return {"name": name, "summary": re.split(r"(?<=[.?])\s", words)[0], "path": str(path)}


def _classes(classes: Mapping[str, type[Any]]) -> list[Entry]:
    return [_class(name, cls) for name, cls in classes.items()]


def _class(name: str, cls: type[Any]) -> Entry:
    settings = {
        f.name: None if f.default is dataclasses.MISSING else _plain(f.default)
        for f in dataclasses.fields(cls)
        if f.name != "name"
    }
    return {"name": name, "summary": (inspect.getdoc(cls) or "").partition("\n")[0], "settings": settings}


def _where(dimension: Dimension) -> Entry:
    """Where the tuner looks for a value."""
    return {"choices": list(dimension.choices)} if dimension.choices else dict(_plain(dimension.search))


def _section(cls: type[Any], title: str) -> str:
    """A section of a class's docstring, in one line."""
    _, _, rest = (inspect.getdoc(cls) or "").partition(f"\n{title}:\n")
    text = rest.partition("\n\n")[0]
    return " ".join(text.split())


def _plain(value: Any) -> Any:
    """A JSON value for a field's value."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return fields or type(value).__name__.lower()  # {} would read as nothing
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return getattr(value, "value", getattr(value, "__name__", str(value)))

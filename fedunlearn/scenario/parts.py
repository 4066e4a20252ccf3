"""A YAML tree to the parts of a scenario, each read by itself, and the ids in it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import sites
import strategies
from fedunlearn import guests
from fedunlearn.core import InputError, PatientId, Problem, Strategy, Training
from fedunlearn.learning.models import MODELS
from fedunlearn.scenario import dated
from fedunlearn.scenario.draft import Draft, Entry
from fedunlearn.scenario.schema import (
    Engine,
    Evaluation,
    HistoryConfig,
    Official,
    Pick,
    Request,
    Retention,
    Shares,
    SitesConfig,
    TopKeys,
    TrainingKeys,
    Tuned,
    Verdict,
)
from fedunlearn.scenario.typed import build, choose, keys
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.yaml.tree import Items, Node, Scalar, Table, described, misread, shown
from sites.identity import tidied

T = TypeVar("T")

REQUIRED = ("name", "seeds", "data", "sites", "model", "training", "requests")
KEYS = (
    *("name", "seeds", "engine", "data", "sites", "seed", "model", "training"),
    *("calendar", "arrivals", "requests", "policies", "limits"),
    *("strategies", "timeline", "horizons", "evaluation", "references", "verdict", "history", "retention"),
)
"""What a scenario consists of, and what it cannot do without, but that arrivals can take the place of requests."""
_IDS = re.compile(
    r"name|sites\.names\.\d+|requests\.\d+\.(id|site|(patients|images)\.\d+)"
    r"|(strategies|policies)\.\d+\.as|strategies\.\d+\.requests\.\d+"
)
_FILE_NAMES = re.compile(r"name|sites\.names\.\d+|requests\.\d+\.id|(strategies|policies)\.\d+\.as")


def read_parts(tree: Node, found: list[Problem]) -> Draft | None:
    """As much of the scenario as can be read; problems are appended to ``found``; None if it is no mapping."""
    arriving = isinstance(tree, Table) and tree.get("arrivals") is not None
    required = [key for key in REQUIRED if not (arriving and key == "requests")]
    if not keys(tree, KEYS, found, required) or not isinstance(tree, Table):
        return None
    dated.without(tree, found)
    wishes, plans = _list(tree, "requests", found), _list(tree, "strategies", found)
    if isinstance(listed := tree.get("requests"), Items) and not wishes and not arriving:
        found.append(listed.place.problem("the list is empty; expected at least one request"))
    requests = {i: request for i, node in enumerate(wishes) if (request := _request(node, found)) is not None}
    folder = Path(tree.place.file).parent
    entries = {i: entry for i, node in enumerate(plans) if (entry := _entry(node, folder, found)) is not None}
    return Draft(
        top=_top(tree, found),
        engine=build(tree.get("engine") or Table(tree.place, ()), Engine, found),
        data=_part(tree, "data", sites.SOURCES, "data source", found),
        sites=_hospitals(tree.get("sites"), found),
        model=_part(tree, "model", MODELS, "model", found),
        training=_training(tree.get("training"), found),
        requests=requests,
        complete=len(requests) == len(wishes),
        entries=entries,
        evaluation=build(tree.get("evaluation") or Table(tree.place, ()), Evaluation, found),
        verdict=_verdict(tree.get("verdict"), found),
        history=build(tree.get("history") or Table(tree.place, ()), HistoryConfig, found),
        retention=build(tree.get("retention") or Table(tree.place, ()), Retention, found),
        dated=tree.get("calendar") is not None,
        calendar=dated.calendar(tree.get("calendar"), found),
        arrivals=dated.arrivals(tree.get("arrivals"), found),
        policies=dated.policies(tree.get("policies"), found),
        limits=dated.limits(tree.get("limits"), found),
    )


def _top(tree: Table, found: list[Problem]) -> TopKeys | None:
    """The plain keys; missing and unknown ones have been told already."""
    own = {field.name for field in dataclasses.fields(TopKeys)}
    if tree.get("name") is None or tree.get("seeds") is None:
        return None
    entries = tuple((key, value) for key, value in tree.entries if key.text in own)
    return build(dataclasses.replace(tree, entries=entries), TopKeys, found)


def _part(
    tree: Table, key: str, catalogue: Mapping[str, type[T]], noun: str, found: list[Problem]
) -> T | None:
    node = tree.get(key)
    return None if node is None else choose(node, catalogue, noun, found)


def _hospitals(node: Node | None, found: list[Problem]) -> SitesConfig | None:
    if node is None:
        return None
    before, parts = len(found), dict[str, Any]()
    if isinstance(node, Table):
        partition, split = node.get("partition"), node.get("split")
        if partition is not None:
            parts["partition"] = choose(partition, sites.PARTITIONS, "partition", found)
        else:
            found.append(node.place.problem("found no `partition`; add it, for example {name: iid}"))
            parts["partition"] = None
        if split is not None:
            parts["split"] = _split(split, found)
    config = build(node, SitesConfig, found, parts)
    return config if len(found) == before else None


def _split(node: Node, found: list[Problem]) -> Shares | Official | None:
    if not isinstance(node, Table) or (column := node.get("from")) is None:
        return build(node, Shares, found)
    keys(node, ["from"], found)
    if isinstance(column, Scalar) and column.text.strip():
        return Official(tidied(column.text))
    found.append(
        column.place.problem(f"from: expected the name of a column of the data, found {described(column)}")
    )
    return None


def _training(node: Node | None, found: list[Problem]) -> Training | None:
    written = None if node is None else build(node, TrainingKeys, found)
    return written.training() if written else None


def _verdict(node: Node | None, found: list[Problem]) -> Verdict | None:
    if not isinstance(node, Table):
        return Verdict() if node is None else build(node, Verdict, found)
    before, written = len(found), node.get("margins") or Table(node.place, ())
    verdict = build(node, Verdict, found, {"margins": build(written, Margins, found)})
    return verdict if len(found) == before else None


def _request(node: Node, found: list[Problem]) -> Request | None:
    before, told = len(found), dict[str, object]()
    if isinstance(node, Table):
        told = {
            "patients": _patients(node.get("patients"), found),
            "images": _images(node.get("images"), found),
        }
    request = build(node, Request, found, told)
    return request if len(found) == before else None


def _images(node: Node | None, found: list[Problem]) -> tuple[str, ...] | None:
    if node is None or _is_null(node):
        return None
    return _ids(node, 'a list of image ids such as ["p-0007-1"]', found)


def _patients(node: Node | None, found: list[Problem]) -> tuple[PatientId, ...] | Pick | None:
    if node is None or _is_null(node):
        return None
    if isinstance(node, Table):
        return build(_as_texts(node, "by"), Pick, found)
    return _ids(node, 'a list of patient ids such as ["p-0007"], or {fraction: 0.2} or {count: 3}', found)


def _as_texts(node: Table, key: str) -> Table:
    """``node`` with the values of the mapping at ``key`` as text: a sex or an age is compared as such."""

    def text(value: Node) -> Node:
        return dataclasses.replace(value, quoted=True) if isinstance(value, Scalar) and value.text else value

    def texts(value: Node) -> Node:
        if not isinstance(value, Table):
            return value
        return dataclasses.replace(value, entries=tuple((name, text(one)) for name, one in value.entries))

    entries = ((name, texts(value) if name.text == key else value) for name, value in node.entries)
    return dataclasses.replace(node, entries=tuple(entries))


def _entry(node: Node, folder: Path, found: list[Problem]) -> Entry | None:
    before, label, wanted, tuned = len(found), None, None, None
    offered, others = _offered(node, folder, found), guests.TAKEN
    strategy = (
        None if offered is None else choose(node, offered, "strategy", found, others, strategies.FORMER)
    )
    if isinstance(node, Table):
        label, requests = node.get("as"), node.get("requests")
        if label is not None and not isinstance(label, Scalar):
            found.append(label.place.problem(f"as: expected a name, found {described(label)}"))
        if requests is not None and not _is_null(requests):
            wanted = _ids(requests, "a list of request ids", found)
        if (cost := node.get("tuned")) is not None and not _is_null(cost):
            tuned = build(cost, Tuned, found)
    if strategy is None or len(found) > before:
        return None
    return Entry(strategy, label.text if isinstance(label, Scalar) else strategy.name, wanted, tuned)


def _offered(node: Node, folder: Path, found: list[Problem]) -> Mapping[str, type[Strategy]] | None:
    """The strategies that an entry can name: those of its file, else all that there are; None if that is none."""
    known = guests.Offers(strategies.catalogue(), guests.installed())
    if not isinstance(node, Table):
        return known
    name, file, sha256 = (node.get(key) for key in ("name", "file", "sha256"))
    try:
        if file is None or _is_null(file):
            if isinstance(name, Scalar) and name.text in known:
                return {name.text: known[name.text]}  # a package's may not be what it says
            return known
        if not isinstance(file, Scalar):
            found.append(file.place.problem(f"file: expected a Python file, found {described(file)}"))
            return None
        return _brought(guests.read(folder / file.text), sha256, known, file, found)
    except InputError as error:
        place = name if file is None else file
        found += [place.place.problem(str(problem)) for problem in error.problems if place is not None]
        return None


def _brought(
    file: guests.File, sha256: Node | None, known: Mapping[str, object], node: Node, found: list[Problem]
) -> Mapping[str, type[Strategy]] | None:
    """The strategies of a user's file, if it is the file that was meant, and takes no name of another."""
    if sha256 is not None and not (isinstance(sha256, Scalar) and sha256.text == file.sha256):
        message = (
            f"sha256: {file.path} was changed: it now has {file.sha256}; put it back, or remove this key"
        )
        found.append(sha256.place.problem(message))
        return None
    offered = guests.offered(file)
    for name in offered:
        if name in known:
            message = (
                f"{file.path} has a strategy called {name!r}, which there is already: choose another name"
            )
            found.append(node.place.problem(message))
            return None
    return offered


def _list(tree: Table, key: str, found: list[Problem]) -> tuple[Node, ...]:
    node = tree.get(key)
    if node is None or isinstance(node, Items):
        return node.items if node else ()
    found.append(node.place.problem(f"{key}: expected a list, found {described(node)}"))
    return ()


# --------------------------------------------------------------------------------------------------- ids


def _ids(node: Node, expected: str, found: list[Problem]) -> tuple[str, ...]:
    """The texts of a list; anything that is none is told."""
    if not isinstance(node, Items):
        found.append(node.place.problem(f"expected {expected}, found {described(node)}"))
        return ()
    for item in node.items:
        if not isinstance(item, Scalar):
            found.append(item.place.problem(f"expected an id, found {described(item)}"))
    return tuple(item.text for item in node.items if isinstance(item, Scalar))


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and not node.quoted and node.text in ("", "~", "null")


def with_ids(node: Node, key: str, found: list[Problem]) -> Node:
    """``node`` with every id as text; what cannot be an id, or might be misread, is told."""
    prefix = f"{key}." if key else ""
    if isinstance(node, Items):
        items = (with_ids(item, f"{prefix}{i}", found) for i, item in enumerate(node.items))
        return dataclasses.replace(node, items=tuple(items))
    if isinstance(node, Table):
        entries = ((name, with_ids(value, f"{prefix}{name.text}", found)) for name, value in node.entries)
        return dataclasses.replace(node, entries=tuple(entries))
    if not _IDS.fullmatch(key):
        return node
    what = None if node.quoted else misread(node.text)
    if what is not None and node.text:
        message = (
            f'{node.text} would be read as {what} by some YAML readers, but ids are text; write "{node.text}"'
        )
        found.append(node.place.problem(f"{key}: {message}"))
    elif (wrong := _wrong_id(node.text, bool(_FILE_NAMES.fullmatch(key)))) is not None:
        found.append(node.place.problem(f"{key}: found {wrong}"))
    return dataclasses.replace(node, text=tidied(node.text), quoted=True)


def _wrong_id(text: str, file_name: bool) -> str | None:
    """What is wrong with an id, which may have to be part of a file name."""
    if not text.strip():
        return "an empty id; expected some text"
    if not text.isprintable():
        return f"{shown(text)}, which has control characters; expected printable text"
    if not file_name:
        return None
    if any(mark in text for mark in "/\\@") or text.startswith("."):
        return f"{shown(text)}; ids become file names: no / \\ or @ in it and no dot in front, please"
    if text != text.strip():
        return f"{shown(text)} with spaces around it; remove them"
    size = len(text.encode())
    return f"an id of {size} bytes; ids become file names: expected at most 100" if size > 100 else None

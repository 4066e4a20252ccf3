"""YAML to a frozen, typed `Scenario` and back. Past this module no dict travels.

Each part of a file is read by itself, so that one mistake does not hide the others: `read` raises one `InputError`
with all of them, each at its line and column.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from fedunlearn import guests
from fedunlearn.core import InputError, Problem, RequestId
from fedunlearn.scenario.draft import Draft
from fedunlearn.scenario.parts import read_parts, with_ids
from fedunlearn.scenario.plans import FLOORS, misfit, outside, served
from fedunlearn.scenario.rules import findings
from fedunlearn.scenario.schema import (
    Engine,
    Evaluation,
    HistoryConfig,
    Official,
    Pick,
    Plan,
    PolicyPlan,
    Request,
    Scenario,
    Shares,
    SitesConfig,
    Tuned,
    Verdict,
    as_written,
    nearest,
)
from fedunlearn.yaml.source import load, override
from fedunlearn.yaml.tree import Node, Place, places

__all__ = [
    "Engine",
    "Evaluation",
    "HistoryConfig",
    "Official",
    "Pick",
    "Plan",
    "PolicyPlan",
    "Request",
    "Scenario",
    "Shares",
    "SitesConfig",
    "Tuned",
    "Verdict",
    "brought",
    "floors",
    "overridden",
    "read",
    "read_tree",
    "skipped",
    "to_yaml",
    "together",
]


def read(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario.

    Args:
        path: the YAML file.
        overrides: ``KEY=VALUE`` with a dotted path and a YAML value, applied in order.

    Raises:
        InputError: the file, an override or what they say cannot be used; all problems together.
    """
    found: list[Problem] = []
    return read_tree(overridden(load(path), overrides, found), found)


def overridden(tree: Node, overrides: Sequence[str], found: list[Problem]) -> Node:
    """``tree`` with values replaced or added (see `read`); what cannot be is appended to ``found``."""
    for assignment in overrides:
        try:
            tree = override(tree, assignment)
        except InputError as error:
            found += error.problems
    return tree


def read_tree(tree: Node, earlier: Iterable[Problem] = ()) -> Scenario:
    """The scenario that ``tree`` says.

    Raises:
        InputError: it cannot be used; all problems together, those found ``earlier`` as well.
    """
    found, where = [*earlier], places(tree)
    draft = read_parts(with_ids(tree, "", found), found)
    if draft is not None:
        found += [(nearest(where, key) or tree.place).problem(message) for key, message in findings(draft)]
    scenario = _scenario(draft, where) if draft is not None and not found else None
    if scenario is None:
        raise together(found)
    return scenario


def together(found: Iterable[Problem]) -> InputError:
    """All that was found, each problem once, in the order of the file."""
    return InputError(sorted(dict.fromkeys(found), key=_order))


def skipped(scenario: Scenario) -> list[tuple[str, RequestId, str]]:
    """(label, request, reason) for every request that a strategy of the scenario is not run for.

    In a calendar a strategy is run for all erasures or for none; then the reason is the first that it cannot forget.
    """
    if scenario.calendar is not None:
        why = "in a calendar a strategy serves all that comes"
        return [
            (plan.label, found[0], f"{found[1]}; {why}, or nothing")
            for plan in scenario.strategies
            if (found := outside(plan.strategy, plan.label, scenario.requests)) is not None
        ]
    rows, run = [], {(plan.label, request) for plan in scenario.strategies for request in plan.requests}
    for plan in scenario.strategies:
        for request in scenario.requests:
            if (plan.label, request.id) not in run:
                reason = misfit(plan.strategy, plan.label, request)
                rows.append((plan.label, request.id, reason or "left out of its `requests`"))
    return list(dict.fromkeys(rows))


def floors(scenario: Scenario) -> list[str]:
    """The labels of what others must do better than, for their cost."""
    return list(dict.fromkeys(plan.label for plan in scenario.strategies if plan.strategy.name in FLOORS))


def _order(problem: Problem) -> tuple[bool, int, int]:
    return problem.line is None, problem.line or 0, problem.column or 0


def _scenario(draft: Draft, where: Mapping[str, Place]) -> Scenario | None:
    """The scenario, if every part could be read."""
    top, engine, data, model, training = draft.top, draft.engine, draft.data, draft.model, draft.training
    evaluation, verdict, history, limits = draft.evaluation, draft.verdict, draft.history, draft.limits
    retention = draft.retention
    if not (top and engine and data and draft.sites and model and training):
        return None
    if not (evaluation and verdict and history and retention and limits) or (
        draft.dated and not draft.calendar
    ):
        return None
    requests = draft.stream
    return Scenario(
        name=top.name,
        seeds=top.seeds,
        engine=engine,
        data=data,
        sites=draft.sites,
        seed=top.seed,
        model=model,
        training=training,
        requests=requests,
        strategies=tuple(
            Plan(entry.strategy, entry.label, served(entry, requests, draft.dated), entry.tuned)
            for entry in draft.entries.values()
        ),
        timeline=top.timeline,
        horizons=top.horizons,
        evaluation=evaluation,
        references=top.references,
        verdict=verdict,
        history=history,
        retention=retention,
        calendar=draft.calendar,
        arrivals=draft.arrivals,
        policies=tuple(draft.policies.values()) if draft.dated else (),
        limits=limits,
        places=where,
    )


# ------------------------------------------------------------------------------------------------ writing


def to_yaml(scenario: Scenario) -> str:
    """``scenario`` in full, every default written out; reading it gives an equal scenario."""
    config = scenario.sites
    tree = {
        "name": _quoted(scenario.name),
        "seeds": _row(scenario.seeds),
        "references": scenario.references,
        "engine": _plain(scenario.engine),
        "data": _plain(scenario.data),
        "sites": {
            "names": _row(map(_quoted, config.names)),
            "partition": _plain(config.partition),
            "split": _split(config.split),
        },
        "seed": scenario.seed,
        "model": _plain(scenario.model),
        "training": _plain(as_written(scenario.training)),
        **_dated(scenario),
        "requests": [_request(request) for request in scenario.requests if not request.drawn],
        "strategies": [_strategy(plan, scenario.calendar is not None) for plan in scenario.strategies],
        **({"timeline": scenario.timeline} if scenario.calendar is None else {}),
        "horizons": _row(scenario.horizons),
        "evaluation": _plain(scenario.evaluation),
        "verdict": _plain(scenario.verdict),
        "history": _plain(scenario.history),
    }
    text, writer = io.StringIO(), YAML()
    writer.width = 2**20
    writer.dump(tree, text)
    return text.getvalue()


def _split(split: Shares | Official) -> Any:
    return _flow({"from": _quoted(split.column)}) if isinstance(split, Official) else _plain(split)


def _dated(scenario: Scenario) -> dict[str, Any]:
    """What a calendar brings; nothing without one."""
    if scenario.calendar is None:
        return {}
    calendar, process = scenario.calendar, scenario.arrivals
    days = {"round": f"{calendar.round}d", "looks": f"{calendar.looks}d"}
    tree: dict[str, Any] = {"calendar": _flow({"start": calendar.start.isoformat(), **days})}
    if process is not None:
        weights: dict[str, object] = {_quoted(site): weight for site, weight in (process.sites or {}).items()}
        settings = {field.name: _plain(getattr(process, field.name)) for field in dataclasses.fields(process)}
        tree["arrivals"] = _flow({key: value for key, value in settings.items() if key != "sites"})
        tree["arrivals"]["from"] = _flow(weights) if process.sites is not None else None
    return {
        **tree,
        "policies": [_policy(plan) for plan in scenario.policies],
        "limits": _plain(scenario.limits),
        "retention": _plain(scenario.retention),
    }


def _policy(plan: PolicyPlan) -> CommentedMap:
    settings = _plain(plan.policy)
    every = {"every": f"{settings['every']}d"} if settings.get("every") is not None else {}
    given = {key: value for key, value in {**settings, **every}.items() if value is not None}
    return _flow({"name": given.pop("name"), **given, "as": _quoted(plan.label)})


def _request(request: Request) -> CommentedMap:
    patients, images = request.patients, request.images
    ids = _row(map(_quoted, patients)) if isinstance(patients, tuple) else _plain(patients)
    fields = {"id": _quoted(request.id), "site": _quoted(request.site), "patients": ids}
    if images is not None:
        fields["images"] = _row(map(_quoted, images))
    fields["whole_site"] = request.whole_site
    if request.received is None:
        return _flow({**fields, "after_round": request.after_round})
    return _flow({**fields, "received": request.received.isoformat(), "kind": request.kind})


def brought(scenario: Scenario) -> dict[str, guests.File]:
    """The user's files that strategies come from, by their places beside the scenario that `to_yaml` writes."""
    found = [
        (plan.strategy.name, guests.held(type(plan.strategy).__module__)) for plan in scenario.strategies
    ]
    return {_place(name, file): file for name, file in found if file is not None}


def _place(name: str, file: guests.File) -> str:
    return f"strategies/{name}-{file.sha256[:16]}.py"


def _strategy(plan: Plan, dated: bool) -> CommentedMap:
    """An entry; in a calendar it is for whatever comes."""
    own: dict[str, Any] = {"as": _quoted(plan.label)}
    if not dated:
        own["requests"] = _row(map(_quoted, plan.requests))
    cost = {} if plan.tuned is None else {"tuned": _plain(plan.tuned)}
    file, whence = guests.held(type(plan.strategy).__module__), dict[str, object]()
    if file is not None:
        whence = {"file": _quoted(_place(plan.strategy.name, file)), "sha256": _quoted(file.sha256)}
    return _flow({**_plain(plan.strategy), **whence, **own, **cost})


def _quoted(text: str) -> DoubleQuotedScalarString:
    quoted: DoubleQuotedScalarString = DoubleQuotedScalarString(text)
    return quoted


def _row(values: Iterable[object]) -> CommentedSeq:
    """A list on one line."""
    row = CommentedSeq(values)
    row.fa.set_flow_style()
    return row


def _flow(values: Mapping[str, object]) -> CommentedMap:
    """A mapping on one line."""
    table = CommentedMap(values)
    table.fa.set_flow_style()
    return table


def _plain(value: Any) -> Any:
    """A dataclass's fields, and what is in them, as YAML knows them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _flow({field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)})
    if isinstance(value, (tuple, list)):
        return _row(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return _flow({key: _plain(item) for key, item in value.items()})
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value

"""What a calendar brings into a scenario, from a YAML tree: days, durations, arrivals, policies, limits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

from fedunlearn.core import Problem
from fedunlearn.intake.arrivals import Arrivals, Kinds
from fedunlearn.intake.calendar import LONGEST, Calendar
from fedunlearn.intake.desk import Limits
from fedunlearn.intake.policies import POLICIES, AtOnce, Batch, label
from fedunlearn.scenario.schema import PolicyPlan
from fedunlearn.scenario.typed import build, choose
from fedunlearn.yaml.tree import Items, Node, Scalar, Table, described


def calendar(node: Node | None, found: list[Problem]) -> Calendar | None:
    """The calendar, if there is one that can be read; problems are appended to ``found``."""
    before = len(found)
    if node is None:
        return None
    dated = build(_in_days(node, ("round", "looks"), found), Calendar, found)
    return dated if len(found) == before else None


def arrivals(node: Node | None, found: list[Problem]) -> Arrivals | None:
    """The process that requests come from; kinds that are not named do not come."""
    before, elsewhere = len(found), dict[str, object]()
    if node is None:
        return None
    if isinstance(node, Table) and (kinds := node.get("kinds")) is not None:
        elsewhere["kinds"] = build(kinds, Kinds, found)
    process = build(node, Arrivals, found, elsewhere)
    return process if len(found) == before else None


def policies(node: Node | None, found: list[Problem]) -> dict[int, PolicyPlan]:
    """The policies by their position; at_once alone if none is listed."""
    if node is None:
        return {0: PolicyPlan(AtOnce(), label(AtOnce()))}
    if not isinstance(node, Items):
        found.append(node.place.problem(f"policies: expected a list, found {described(node)}"))
        return {}
    if not node.items:
        message = "the list is empty; expected at least one policy such as {name: at_once}, or no `policies`"
        found.append(node.place.problem(message))
    plans = ((i, _policy(one, found)) for i, one in enumerate(node.items))
    return {i: plan for i, plan in plans if plan is not None}


def _policy(node: Node, found: list[Problem]) -> PolicyPlan | None:
    before, name = len(found), None
    node = _in_days(node, ("every",), found)
    policy = choose(node, POLICIES, "policy", found, ("as",))
    if isinstance(node, Table) and (name := node.get("as")) is not None and not isinstance(name, Scalar):
        found.append(name.place.problem(f"as: expected a name, found {described(name)}"))
    if isinstance(policy, Batch) and len(found) == before and (policy.every is None) == (policy.size is None):
        found.append(node.place.problem("expected either `every`, such as 30d, or `size`, such as 10"))
    if policy is None or len(found) > before:
        return None
    return PolicyPlan(policy, name.text if isinstance(name, Scalar) else label(policy))


def limits(node: Node | None, found: list[Problem]) -> Limits | None:
    """What the desk refuses."""
    return Limits() if node is None else build(node, Limits, found)


def without(tree: Table, found: list[Problem]) -> None:
    """Tell of keys that need a calendar where there is none, and of those that have no meaning in one."""
    dated = tree.get("calendar") is not None
    for key in ("timeline",) if dated else ("arrivals", "policies", "limits", "retention"):
        value = next((name for name, _ in tree.entries if name.text == key), None)
        if value is not None and dated:
            message = "in a calendar all requests are one stream, each with its day: remove `timeline`"
            found.append(value.place.problem(message))
        elif value is not None:
            advice = "add one, such as calendar: {start: 2026-01-01, round: 7d}, or remove this"
            found.append(value.place.problem(f"`{key}` needs a `calendar`: {advice}"))


def _in_days(node: Node, names: Collection[str], found: list[Problem]) -> Node:
    """``node`` with the durations at ``names``, such as 7d, as numbers of days; what is none is told."""
    if not isinstance(node, Table):
        return node

    def days(name: str, value: Node) -> Node:
        written = re.fullmatch(r"([1-9][0-9]{0,9})d", value.text) if isinstance(value, Scalar) else None
        if written is not None and int(written[1]) <= LONGEST:
            return Scalar(value.place, written[1], quoted=False)
        message = f"expected whole days such as 7d, at most {LONGEST}d, found {described(value)}"
        found.append(value.place.problem(f"{name}: {message}"))
        return Scalar(value.place, "1", quoted=False)

    entries = ((key, days(key.text, value) if key.text in names else value) for key, value in node.entries)
    return dataclasses.replace(node, entries=tuple(entries))

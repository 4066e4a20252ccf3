"""What only people know of a request: a YAML file that goes with a run.

.. code-block:: yaml

    coordinator: Registry of the network, dpo@registry.example
    requests:
      patients-of-north:
        received: 2026-01-05
        channel: letter
        identity_checked: 2026-01-07
        ground: Art. 17(1)(b), consent withdrawn
        decision: accepted
        decided_by: head of data protection
        extended_to: 2026-03-05
        extension_reason: 40 requests at once
        extension_told: 2026-01-20
        answered: 2026-02-27
        remedy: puf
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from fedunlearn.core import InputError, Problem
from fedunlearn.deadlines import LATEST
from fedunlearn.erasure.clock import Clock
from fedunlearn.scenario.typed import build, listed, meant
from fedunlearn.yaml.source import Kind, load
from fedunlearn.yaml.tree import Node, Scalar, Table, as_texts, described, shown

_FILE = Kind("file of facts about requests", "a mapping with `requests`, by request what is known of it")


@dataclass(frozen=True)
class Request:
    """What people know of one request; None is what nobody has said.

    Attributes:
        received: the day it came in, as 2026-01-31; so are all days.
        channel: how it came in.
        identity_checked: the day on which it was made sure who asks.
        ground: the right that is used, and its ground.
        decision: what was decided.
        decided_by: by whom.
        reasons: why, with what was weighed; of a refusal, the exemption relied on.
        remedies_told: the day on which the person was told of complaint and court.
        extended_to: the later day that the person was told.
        extension_reason: why.
        extension_told: the day on which the person was told so.
        answered: the day on which it was answered.
        remedy: the strategy whose models replaced the original ones, by its label, or retrained.
        at_hospital: what the hospital did with the images themselves.
        recipients: who else got data, updates or models, and what they were told.
        clinical_review: who looked at what changed for patients, and what was found.
        personal_data: whether the models are treated as personal data, by whose assessment.
        not_again: what keeps the data from coming back.
        retention: how long this record is kept, and why.
    """

    received: str | None = None
    channel: str | None = None
    identity_checked: str | None = None
    ground: str | None = None
    decision: Literal["accepted", "partly", "refused"] | None = None
    decided_by: str | None = None
    reasons: str | None = None
    remedies_told: str | None = None
    extended_to: str | None = None
    extension_reason: str | None = None
    extension_told: str | None = None
    answered: str | None = None
    remedy: str | None = None
    at_hospital: str | None = None
    recipients: str | None = None
    clinical_review: str | None = None
    personal_data: str | None = None
    not_again: str | None = None
    retention: str | None = None

    @property
    def clock(self) -> Clock:
        """Its dates."""
        return Clock(
            received=_day(self.received),
            extended_to=_day(self.extended_to),
            told=_day(self.extension_told),
            answered=_day(self.answered),
            reason=self.extension_reason,
            refused=self.decision == "refused",
        )


@dataclass(frozen=True)
class Facts:
    """What people know of a run's requests.

    Attributes:
        coordinator: who coordinates the federation, and how to reach them.
        controllers: by hospital, its data protection officer or whom else to ask.
        processors: who works for the hospitals.
        requests: by id; of one that is not there nothing is known.
    """

    coordinator: str | None = None
    processors: str | None = None
    controllers: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, Request] = field(default_factory=dict)


DAYS = ("received", "identity_checked", "remedies_told", "extended_to", "extension_told", "answered")
_OWN = ("coordinator", "processors")


def read(path: Path, requests: Mapping[str, Collection[str]], sites: Collection[str]) -> Facts:
    """Read what people know.

    Args:
        path: the file.
        requests: by id, the run's requests, and the remedies that each can have.
        sites: the run's hospitals.

    Raises:
        InputError: it cannot be read, or does not fit the run; all problems, each at its line and column.
    """
    tree, found = load(path, _FILE), list[Problem]()
    if not isinstance(tree, Table):
        raise InputError([tree.place.problem(f"expected {_FILE.looks}, found {described(tree)}")])
    whole = build(as_texts(tree, _OWN), Facts, found, {"controllers": {}, "requests": {}})
    contacts = {site: _text(node, found) for site, node in _named(tree, "controllers", sites, found)}
    known = dict[str, Request]()
    for name, node in _named(tree, "requests", requests, found):
        if (one := _request(node, requests[name], found)) is not None:
            known[name] = one
    if found or whole is None:
        raise InputError(found)
    return dataclasses.replace(whole, controllers=contacts, requests=known)


def _named(tree: Table, key: str, known: Collection[str], found: list[Problem]) -> Iterator[tuple[str, Node]]:
    """What stands under ``key``, by names that the run knows."""
    node = tree.get(key)
    if node is None:
        return
    if not isinstance(node, Table):
        found.append(node.place.problem(f"{key}: expected a mapping by name, found {described(node)}"))
        return
    for name, value in node.entries:
        if name.text in known:
            yield name.text, value
        else:
            hint = meant(name.text, known)
            message = f"{key}: the run has no {shown(name.text)}{hint}; expected {listed(known)}"
            found.append(name.place.problem(message))


def _request(node: Node, remedies: Collection[str], found: list[Problem]) -> Request | None:
    texts = [one.name for one in dataclasses.fields(Request) if one.name != "decision"]
    one = build(as_texts(node, texts), Request, found)
    if one is None or not isinstance(node, Table):
        return None
    wrong = list(_wrong(one, remedies))
    found += [(node.get(key) or node).place.problem(f"{key}: {message}") for key, message in wrong]
    return None if wrong else one


def _wrong(one: Request, remedies: Collection[str]) -> Iterator[tuple[str, str]]:
    """(key, message) of what cannot be."""
    days = dict[str, date]()
    for key in DAYS:
        text = getattr(one, key)
        day = _day(text)
        if day is not None:
            days[key] = day
        elif text is not None:
            yield key, f"found {shown(text)}, expected a day such as 2026-01-31"
    if "received" in days:
        if days["received"] > LATEST:
            expected = f"expected {LATEST} at the latest"
            yield "received", f"found {days['received']}, from which nothing can be reckoned; {expected}"
            return
        for key, day in days.items():
            if day < days["received"]:
                yield key, f"found {day}, which is before the request came in, on {days['received']}"
    if one.extended_to and one.clock.due and (day := days.get("extended_to")) and day <= one.clock.due:
        yield "extended_to", f"found {day}, but without an extension it is due on {one.clock.due}"
    if one.remedy is not None and one.remedy not in remedies:
        hint = meant(one.remedy, remedies)
        yield "remedy", f"the run has no models of {shown(one.remedy)}{hint}; expected {listed(remedies)}"


def _day(text: str | None) -> date | None:
    """A day as written; None if it is none."""
    if text is None or not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _text(node: Node, found: list[Problem]) -> str:
    if isinstance(node, Scalar):
        return node.text
    found.append(node.place.problem(f"expected text, found {described(node)}"))
    return ""

"""A request as it comes to the desk, and what can be wrong with it whoever has which images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from fedunlearn.core import PatientId, RequestId, SiteId
from fedunlearn.intake.arrivals import Kind

LONGEST_ID = 200
"""Characters that an id may have."""

Refusal = tuple[str, str, RequestId | None]
"""A code, a sentence, and the request that answers it already."""


@dataclass(frozen=True)
class Petition:
    """A request as it comes to the desk.

    Attributes:
        id: its name.
        received: the day.
        site: the hospital that asks.
        kind: what it asks for.
        patients: whom it names, if it is about patients.
        images: which images it names, if it is about single ones.
    """

    id: RequestId
    received: date
    site: SiteId
    kind: Kind
    patients: tuple[PatientId, ...] = ()
    images: tuple[str, ...] = ()


def malformed(petition: Petition) -> Refusal | None:
    """What is wrong with a request whatever the register says."""
    named = {"patients": petition.patients, "images": petition.images}
    wanted = {"patients": "patients", "opt_out": "patients", "images": "images", "whole_site": ""}
    if petition.kind not in wanted:
        return (
            "malformed",
            f"found the kind {shown(str(petition.kind))}, expected {listed([*wanted])}",
            None,
        )
    for what, ids in named.items():
        if what == wanted[petition.kind] and not ids:
            return "malformed", f"it names no {what}, expected at least one", None
        if what != wanted[petition.kind] and ids:
            return "malformed", f"it names {what}, but it is of the kind {petition.kind!r}", None
    for one in (petition.id, petition.site, *petition.patients, *petition.images):
        if not isinstance(one, str) or not one.strip() or not one.isprintable() or len(one) > LONGEST_ID:
            sentence = (
                f"found the id {shown(str(one))}, expected printable text of at most {LONGEST_ID} characters"
            )
            return "malformed", sentence, None
    if any(mark in petition.id for mark in "/\\@") or petition.id.startswith("."):
        return (
            "malformed",
            f"found the id {shown(petition.id)}; ids become file names: no / \\ or @ in it",
            None,
        )
    return None


def listed(values: Iterable[str], quoted: bool = True) -> str:
    """Texts one after the other, each in quotes unless it is to be without."""
    return ", ".join(map(repr, values) if quoted else values)


def shown(text: str) -> str:
    """``text`` in quotes, cut to one short line that is safe to print."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:61])
    return f"'{safe[:60]}{'…' if len(safe) > 60 else ''}'"

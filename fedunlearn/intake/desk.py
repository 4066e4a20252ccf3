"""The desk: what becomes of each request, when, and why.

It meets whenever a round is over, and looks at what came in since, in order of receipt. Requests carry ids only, never
images: whoever could send these could have a model unlearn what it never saw. What is refused is refused whole, with a
code and a sentence; nothing is unlearned of it.

Its sentences are for the hospital that asked, which holds its patients' records anyway. Towards anybody else the
answers to an unknown patient and to one whose images no model was trained on must read the same and take as long, or
they tell who was a patient; a simulation has nobody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from fedunlearn.core import RequestId, SiteId
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.petition import Petition, Refusal, listed, malformed, shown
from fedunlearn.intake.register import Array, Register

State = Literal["accepted", "refused", "open"]

ALL: RequestId = "all-requests"
"""Stands for all accepted erasures together, where one request is expected."""

REASONS: Mapping[str, str] = {
    "malformed": "it does not say what is to be forgotten, or not so that anybody could tell",
    "replayed": "a request with this id came before",
    "unknown_patient": "nobody has images of such a patient",
    "unknown_image": "nobody has such an image",
    "elsewhere": "the hospital that asks has no images of this patient; another has",
    "duplicate": "all that it names was accepted with earlier requests",
    "left": "the hospital that asks has left",
    "few_hospitals": "fewer hospitals would remain than `limits.hospitals`",
    "few_of_a_class": "fewer training images of a class, or with a finding, would remain than `limits.class_images`",
    "few_images": "fewer training images would remain than `limits.images`",
    "nobody_left": "nobody is left whom it could mean: other requests name all of the hospital's training patients",
    "late": "it came after the last round was over",
    "quota": "the hospital had used its quota of the month, so it was held back until the next",
}
"""Why a request is refused or held back, by code."""


@dataclass(frozen=True)
class Limits:
    """What the desk refuses, since nothing sensible could be trained any more, and what it holds back.

    Attributes:
        hospitals: the fewest that must remain.
        class_images: the fewest training images of each class, or with each finding, that must remain, of those that
            have so many.
        images: the fewest training images that must remain at all hospitals together.
        quota: erasures of a hospital that are accepted in a calendar month, None for any number. More of them wait
            for the next month: they must not be refused (Art. 12(5) GDPR), but could keep everybody busy. Of opt-outs,
            which cost nothing, there may be any number.
    """

    hospitals: Annotated[int, Ge(1)] = 2
    class_images: Annotated[int, Ge(0)] = 1
    images: Annotated[int, Ge(1)] = 1
    quota: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True)
class Entry:
    """What became of a request.

    Attributes:
        petition: the request.
        state: accepted, refused, or open if it is held back beyond the end.
        boundary: where it was decided; None while it is open.
        reason: a code of `REASONS`; empty if it was accepted without delay.
        sentence: the same in words, and whatever else is to be known.
        of: the earlier request that answers it already, if there is one.
        rows: of an accepted one, the numbers of all images that it names in the register, at whatever hospital and of
            whatever part.
        images: of an accepted one, how many training images it names that no earlier erasure did: 0 leaves nothing to
            unlearn.
        held: the boundary at which it was held back first; None if it was not.
    """

    petition: Petition
    state: State
    boundary: int | None
    reason: str = ""
    sentence: str = ""
    of: RequestId | None = None
    rows: tuple[int, ...] = ()
    images: int = 0
    held: int | None = None

    @property
    def erases(self) -> bool:
        """Whether there is anything to unlearn."""
        return self.state == "accepted" and self.petition.kind != "opt_out" and self.images > 0


def decide(
    petitions: Sequence[Petition], register: Register, limits: Limits, calendar: Calendar, rounds: int
) -> tuple[Entry, ...]:
    """What becomes of each request, in the order given.

    Args:
        petitions: the requests, in any order; of the same day, those given first are looked at first.
        register: who has which images.
        limits: what is refused or held back.
        calendar: when rounds are over.
        rounds: how many there are; the desk meets after the last one for the last time.
    """
    desk = _Desk(register, limits, calendar)
    coming = sorted(range(len(petitions)), key=lambda number: petitions[number].received)
    found, held = dict[int, Entry](), list[int]()
    for boundary in range(1, rounds + 1):
        due = calendar.day(boundary)
        here = [*held, *(number for number in coming if petitions[number].received <= due)]
        coming = coming[len(here) - len(held) :]
        for number in here:
            found[number] = desk.decided(petitions[number], boundary, found.get(number))
        held = [number for number in here if found[number].state == "open"]
    for number in coming:
        over = f"found {petitions[number].received}, but the last round is over on {calendar.day(rounds)}"
        found[number] = Entry(petitions[number], "open", None, "late", over)
    return tuple(found[number] for number in range(len(petitions)))


class _Desk:
    """What was accepted so far, by image, and what is left."""

    def __init__(self, register: Register, limits: Limits, calendar: Calendar) -> None:
        self._register, self._limits, self._calendar = register, limits, calendar
        count = len(register.table)
        self._erased = np.full(count, None, dtype=object)  # by which request
        self._barred = np.full(count, None, dtype=object)  # from training: by which erasure or opt-out
        self._left = dict[SiteId, RequestId]()
        self._seen = set[RequestId]()
        self._used = Counter[tuple[SiteId, int, int]]()
        self._classes = register.shown(register.train)
        self._owned = Counter(register.site[register.train].tolist())
        self._enough = {c for c, number in self._classes.items() if number >= limits.class_images}

    def decided(self, petition: Petition, boundary: int, before: Entry | None) -> Entry:
        """What becomes of a request; ``before`` is its entry if it was held back."""
        replayed = before is None and petition.id in self._seen
        self._seen.add(petition.id)
        if replayed:
            sentence = f"request {shown(petition.id)} came before: it is answered once"
            return Entry(petition, "refused", boundary, "replayed", sentence, petition.id)
        held = None if before is None else before.held
        refusal = malformed(petition) or self._unable(petition)
        if refusal is not None:
            return Entry(petition, "refused", boundary, *refusal, held=held)
        rows = self._rows(petition)
        refusal = self._answered(petition, rows) or self._too_much(petition, rows)
        if refusal is not None:
            return Entry(petition, "refused", boundary, *refusal, held=held)
        if (wait := self._over_quota(petition, boundary)) is not None:
            return Entry(petition, "open", None, "quota", wait, held=boundary if held is None else held)
        return self._accepted(petition, rows, boundary, held)

    def _unable(self, petition: Petition) -> Refusal | None:
        """Why this hospital cannot ask for this."""
        site, register = petition.site, self._register
        if site not in register.owned:
            return "malformed", f"found no hospital {shown(site)} that has images", None
        if site in self._left:
            gone = self._left[site]
            return "left", f"hospital {site!r} has left (request {gone!r}) with all its images", gone
        what, code, known = "patient", "unknown_patient", register.patients
        if petition.kind == "images":
            what, code, known = "image", "unknown_image", register.images
        for one in petition.images if petition.kind == "images" else petition.patients:
            if one not in known:
                return code, f"found no {what} {shown(one)}: nobody has images of that id", None
            if not (register.site[known[one]] == site).any():
                whose = listed(sorted(set(register.site[known[one]].tolist())))
                sentence = f"{what} {shown(one)} is not at {site!r}, only at {whose}, which has to ask"
                return "elsewhere", sentence, None
        return None

    def _rows(self, petition: Petition) -> Array:
        """The numbers of the images that it names, ascending."""
        register = self._register
        if petition.kind == "whole_site":
            return register.owned[petition.site]
        if petition.kind == "images":
            return np.unique(np.concatenate([register.images[one] for one in petition.images]))
        return np.unique(np.concatenate([register.patients[one] for one in petition.patients]))

    def _answered(self, petition: Petition, rows: Array) -> Refusal | None:
        """Which earlier requests all of it was accepted with."""
        before = (self._barred if petition.kind == "opt_out" else self._erased)[rows]
        if any(one is None for one in before):
            return None
        those = [one for one, _ in Counter(before.tolist()).most_common()]
        return "duplicate", f"all of it was accepted with {_requests(those)}", those[0]

    def _too_much(self, petition: Petition, rows: Array) -> Refusal | None:
        """What too little would be left of."""
        fresh, register, limits = self._fresh(rows), self._register, self._limits
        if not len(fresh):
            return None
        owned = self._owned - Counter(register.site[fresh].tolist())
        if (left := len(owned)) < min(limits.hospitals, len(self._owned)):
            what = "hospital with training images" if left == 1 else "hospitals with training images"
            return _few("few_hospitals", left, what, "hospitals", limits.hospitals)
        if (left := owned.total()) < limits.images:
            return _few("few_images", left, "training images", "images", limits.images)
        for c, number in register.shown(fresh).items():
            if c in self._enough and (left := self._classes[c] - number) < limits.class_images:
                what = f"training images of {c}"
                return _few("few_of_a_class", left, what, "class_images", limits.class_images)
        return None

    def _over_quota(self, petition: Petition, boundary: int) -> str | None:
        quota = self._limits.quota
        if quota is None or petition.kind == "opt_out" or self._used[self._month(petition, boundary)] < quota:
            return None
        site, year, month = self._month(petition, boundary)
        following = date(year + month // 12, month % 12 + 1, 1)
        return (
            f"hospital {site!r} had {quota} accepted in {year}-{month:02}: "
            f"held back until the first meeting on or after {following}"
        )

    def _month(self, petition: Petition, boundary: int) -> tuple[SiteId, int, int]:
        day = self._calendar.day(boundary)
        return petition.site, day.year, day.month

    def _fresh(self, rows: Array) -> Array:
        """Those of ``rows`` that are trained on until now."""
        mine = rows[self._register.train[rows]]
        return mine[[one is None for one in self._barred[mine]]]

    def _accepted(self, petition: Petition, rows: Array, boundary: int, held: int | None) -> Entry:
        """Write down that nobody trains on ``rows`` from now on, and that they are erased unless they are opted out."""
        fresh, erasure, train = self._fresh(rows), petition.kind != "opt_out", self._register.train[rows]
        images = int(sum(one is None for one in (self._erased if erasure else self._barred)[rows[train]]))
        before = (self._erased if erasure else self._barred)[rows].tolist()
        self._owned -= Counter(self._register.site[fresh].tolist())
        self._classes -= self._register.shown(fresh)
        for marks in (self._barred, *([self._erased] if erasure else [])):
            marks[rows] = np.where([one is None for one in marks[rows]], petition.id, marks[rows])
        if petition.kind == "whole_site":
            self._left[petition.site] = petition.id
        if erasure:
            self._used[self._month(petition, boundary)] += 1
        sentences = [*self._delayed(boundary, held), *self._told(petition, rows, images, before)]
        code = "" if held is None else "quota"
        told = "; ".join(sentences)
        return Entry(petition, "accepted", boundary, code, told, None, tuple(rows.tolist()), images, held)

    def _delayed(self, boundary: int, held: int | None) -> Iterator[str]:
        if held is not None:
            since, until = self._calendar.day(held), self._calendar.day(boundary)
            yield f"held back from {since} until {until}, since its hospital had used its quota"

    def _told(
        self, petition: Petition, rows: Array, images: int, before: Sequence[RequestId | None]
    ) -> Iterator[str]:
        """What is to be known of an accepted request; ``before`` is with which earlier one each image was."""
        where = Counter(self._register.site[rows].tolist())
        if len(where) > 1:
            counted = listed([f"{site} {number}" for site, number in sorted(where.items())], quoted=False)
            verb = "barred" if petition.kind == "opt_out" else "erased"
            yield f"images at several hospitals, {verb} at all of them: {counted}"
        if images:
            earlier = Counter(one for one in before if one is not None)
            if earlier:
                count, which = sum(earlier.values()), _requests(sorted(earlier))
                yield f"{count} of these {len(before)} images came with {which} already"
            return
        if not self._register.train[rows].any():
            parts = sorted(set(self._register.table["split"].iloc[rows]))
            yield f"no model was trained on it ({' and '.join(parts)} part): there is nothing to unlearn"
        else:
            yield "earlier requests had its training images already: there is nothing more to unlearn"


def _few(code: str, left: int, what: str, key: str, limit: int) -> Refusal:
    return code, f"it would leave {left} {what}, expected at least {limit} (limits.{key})", None


def _requests(ids: Sequence[RequestId]) -> str:
    shown = listed(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    return f"request {shown}" if len(ids) == 1 else f"requests {shown}"

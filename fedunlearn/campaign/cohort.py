"""The hospitals of a scenario: who holds which images, how they are split, and what each request names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn import files, interrupts
from fedunlearn.campaign import twins
from fedunlearn.campaign.docket import Docket
from fedunlearn.core import (
    SERVER,
    Form,
    RequestId,
    RunError,
    Select,
    SiteId,
)
from fedunlearn.core.held import held
from fedunlearn.core.kinds import facts
from fedunlearn.intake.desk import ALL, Entry
from fedunlearn.learning.models import Model
from fedunlearn.scenario import Pick, Request
from sites.dealing.picking import described
from sites.forms import form
from sites.hospital import Federation
from sites.twins import Twins

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cohort:
    """All images of a scenario, dealt to hospitals.

    Attributes:
        sites: the hospitals, in scenario order.
        pixels: (N, C, *spatial).
        targets: (N, …) int64.
        classes: number of classes.
        names: of the classes, or of several findings; their numbers where they have no other.
        site: (N,) the hospital of each image.
        split: (N,) train, val, test or proxy; a patient has one split at all hospitals.
        forgotten: for each request, (N,) whether it names the image; in a calendar those of ``docket``.
        members: (N, shadows) whether a shadow model is trained on the image.
        table: the content of ``sites.parquet``, one row per image.
        note: what the data is, in words.
        notes: what was read in a way that its owner should know of, a sentence each.
        digest: sha256 of the data.
        seen: what the images' files were found to be (`sites.collection.Collection`).
        twins: groups of images that show the same but belong to different patients.
        docket: what became of every request of a calendar; None without one.
        groups: by id, requests that are unlearned as one (`fedunlearn.campaign.timeline`).
        companions: what comes beside each image, by name, (N, ...) (`sites.collection.Collection`).
        kind: the kind of task (`fedunlearn.core.kinds`).
    """

    sites: tuple[SiteId, ...]
    pixels: Array
    targets: Array
    classes: int
    names: tuple[str, ...]
    site: Array
    split: Array
    forgotten: Mapping[RequestId, Array]
    members: Array
    table: pd.DataFrame
    note: str
    notes: tuple[str, ...]
    digest: str
    seen: pd.DataFrame | None
    twins: tuple[Twins, ...]
    docket: Docket | None = None
    groups: Mapping[RequestId, tuple[RequestId, ...]] = field(default_factory=dict)
    companions: Mapping[str, Array] = field(default_factory=dict)
    kind: str = "classification"

    @property
    def entries(self) -> tuple[Entry, ...]:
        """With a calendar, what was decided of each request."""
        return () if self.docket is None else self.docket.entries

    @property
    def named(self) -> tuple[RequestId, ...]:
        """What is to be forgotten: each request, or with a calendar all that were accepted as one."""
        return tuple(self.forgotten) if self.docket is None else (ALL,)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of one image."""
        return tuple(int(n) for n in self.pixels.shape[1:])

    @property
    def form(self) -> Form:
        """What a network for these images is built for."""
        return form(self.pixels, self.targets, self.classes, self.companions)

    @property
    def labels(self) -> Array | None:
        """(N,) the class of each image, where every image has one of its own."""
        return held(self.kind).labels(self.targets)

    @property
    def has(self) -> Array:
        """(N, names) whether an image is of a class, has a finding or a structure."""
        found: Array = held(self.kind).has(self.targets, self.classes)
        return found

    def count(self, site: SiteId, select: Select) -> int:
        """How many images ``select`` names at ``site``, a hospital or `SERVER`."""
        return len(self.picked(site, select))

    def total(self, select: Select) -> int:
        """How many images ``select`` names at all hospitals together."""
        return sum(self.counts(select).values())

    def counts(self, select: Select) -> dict[SiteId, int]:
        """How many images ``select`` names at each hospital, in scenario order."""
        named = np.bincount(self._numbers[self._named(select)], minlength=len(self.sites))
        return dict(zip(self.sites, named.tolist(), strict=True))

    def picked(self, site: SiteId, select: Select) -> Array:
        """The row numbers of the images that ``select`` names at ``site``, a hospital or `SERVER`, in their order."""
        rows = self.rows(site)
        found: Array = rows[self._named(select, rows)]
        return found

    def rows(self, site: SiteId) -> Array:
        """The row numbers of all images of ``site``, a hospital or `SERVER`, in their order."""
        return np.flatnonzero(self.split == "proxy") if site == SERVER else self._owned[site]

    @cached_property
    def _owned(self) -> Mapping[SiteId, Array]:
        """By hospital, its rows: found once, or every look at each of thousands of hospitals would go through all."""
        ends = np.cumsum(np.bincount(self._numbers, minlength=len(self.sites)))
        parts = np.split(np.argsort(self._numbers, kind="stable"), ends[:-1])
        return dict(zip(self.sites, parts, strict=True))

    @cached_property
    def _numbers(self) -> Array:
        """(N,) the number of each image's hospital."""
        numbers = {site: number for number, site in enumerate(self.sites)}
        return np.array([numbers[site] for site in self.site.tolist()], dtype=np.int64)

    def mask(self, site: SiteId, select: Select) -> Array:
        """(N,) which images ``select`` names at ``site``, a hospital or `SERVER`."""
        mask = np.zeros(len(self.site), dtype=bool)
        mask[self.picked(site, select)] = True
        return mask

    def _named(self, select: Select, rows: Array | slice = slice(None)) -> Array:
        """(n,) which of ``rows``, of all images by default, ``select`` names, wherever they are."""
        mask = np.ones(len(self.site[rows]), dtype=bool)
        if select.split != "all":
            mask &= self.split[rows] == select.split
        if select.only is not None:
            mask &= self._masks[select.only][rows]
        for request in select.without:
            mask &= ~self._masks[request][rows]
        return mask

    @cached_property
    def _masks(self) -> Mapping[RequestId, Array]:
        """What a `Select` can name: by request, (N,) what it names; for a shadow, all that it must not see."""
        outsiders = {_outside(number): ~mask for number, mask in enumerate(self.members.T)}
        together = {
            name: np.logical_or.reduce([self.forgotten[one] for one in members])
            for name, members in self.groups.items()
        }
        return {**self.forgotten, **together, **outsiders}

    def store(self, folder: Path, model: Model) -> None:
        """Write what the workers are given: the hospitals' images, each hospital's on their own, and the network.

        A shadow is stored like a request for all that it must not see; `half` selects what is left.
        """
        masks, arrays = self._masks, (self.pixels, self.targets, self.site, self.split)
        Federation.write(folder, *arrays, masks, model, self.classes, self.companions)

    @contextmanager
    def stored(self, folder: Path, model: Model) -> Iterator[Path]:
        """What `store` writes, in ``folder``, for as long as it is needed: it holds the hospitals' images.

        They go with this process, however that ends.

        Raises:
            RunError: it cannot be written.
        """
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        with interrupts.last_resort(remove):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                own = Path(tempfile.mkdtemp(dir=folder))  # nobody else may read it
                watched = files.vanishing(own)
            except OSError as error:
                raise RunError(files.unwritten(folder, error)) from error
            try:
                self.store(own, model)
                yield own
            finally:
                with interrupts.deferred():
                    remove()
                    os.close(watched)

    def summary(self, request: Request) -> str:
        """What a request asks for, in words."""
        mask = self.forgotten[request.id] & (self.split == "train")
        patients, images = self.table.loc[mask, "patient"].nunique(), int(mask.sum())
        whose = f"{counted(patients, 'patient')} of {request.site}{_picked(request, held(self.kind).one)}"
        if request.id == ALL:
            number = sum(entry.erases for entry in self.entries)
            whose = f"{counted(patients, 'patient')} in {counted(number, 'request')}, as they come"
        elif request.whole_site:
            whose = f"all of hospital {request.site}"
        elif request.images is not None:
            whose = f"single images of {whose}"
        when = f", after round {request.after_round}" if request.after_round else ""
        what = facts(self.kind).what
        return f"forget {whose} ({counted(images, f'training {what}')}){when}"

    def warnings(self, request: RequestId, earlier: Sequence[RequestId] = ()) -> list[str]:
        """What makes it impossible to honour a request, or to tell, after ``earlier`` ones were honoured; sentences."""
        gone = np.logical_or.reduce([self.forgotten[name] for name in (*earlier, request)])
        return twins.told(self.twins, self.table, self.forgotten[request], gone)

    def few(self, request: RequestId) -> list[str]:
        """Whether a request names so few patients that a run may well not tell, and what helps; a sentence or none."""
        mask = self.forgotten[request] & (self.split == "train")
        patients = self.table.loc[mask, "patient"].nunique()
        if patients >= ENOUGH:
            return []
        return [
            f"{counted(patients, 'patient')} to forget: of so few a run tells coarsely, if at all; {ENOUGH} or more "
            "patients, more `references` (cheap) and more `seeds` help"
        ]


ENOUGH = 6
"""Patients to forget, below which a run tells coarsely at best: it misses more memory than the default margin allows.

`benchmarks/few.py --runs 6` (phantom cells, other patients in every run): memory of the original is seen of a single
patient too, in 6 of 6 runs, but how much must be left to be seen (8 times in 10) is 55 % of 1 patient, 43 % of 2, 29 %
of 4, 23 % of 6, 21 % of 10 and 19 % of 16, in the median; the margin is 25 %. Honest retraining got its yes in 4 of 6
runs for 1 patient, and in all for more. Of harder data a run sees less.
"""


def half(shadow: int) -> Select:
    """The images that a shadow model is trained on."""
    return Select(without=(_outside(shadow),))


def _outside(shadow: int) -> RequestId:
    return f"shadow@{shadow}"  # no request may have an @ in its id


def counted(number: int, noun: str) -> str:
    """So many of something, in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _picked(request: Request, what: str) -> str:
    """How its patients were picked, in words, unless at random of all or by name; ``what`` is a class or finding."""
    match request.patients:
        case Pick(pick=pick, by=by):
            words = {
                "hardest": ", the hardest",
                "easiest": ", the easiest",
                "rare_class": f", of the rarest {what}",
                "scarce_elsewhere": f", of the {what} that others have fewest of",
            }
            return (f" with {described(by)}" if by else "") + words.get(pick, "")
    return ""

"""The hospitals of a scenario from its data: read, dealt, split by patient, and every request resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.campaign import timeline, twins
from fedunlearn.campaign.classes import lacking
from fedunlearn.campaign.cohort import Array, Cohort, counted
from fedunlearn.campaign.docket import docket
from fedunlearn.campaign.suitability import (
    can_be_asked,
    enough_proxies,
    placed,
    something_left,
    suits_model,
)
from fedunlearn.campaign.tables import on_one_scale
from fedunlearn.core import (
    InputError,
    Problem,
    RequestId,
    derive,
)
from fedunlearn.core.held import held
from fedunlearn.scenario import Official, Pick, Request, Scenario
from fedunlearn.scoring.evidence import MOST_SITES
from sites.collection import Collection, digest, loaded
from sites.dealing.columns import apart, at_several
from sites.dealing.halves import halves
from sites.dealing.requests import Named, left_behind, resolve
from sites.dealing.split import official, split
from sites.watching import Watch, unwatched


def gather(scenario: Scenario, data_root: Path, watch: Watch = unwatched) -> Cohort:
    """Load the scenario's data, deal it to the hospitals, split it by patient and resolve the requests.

    Everything is drawn from the scenario's data seed, not from the training seeds: all of those compare on the same
    images.

    Args:
        scenario: whose hospitals.
        data_root: where the data's files are.
        watch: is shown how far reading is.

    Raises:
        InputError: files are missing or damaged, or a request names what is not there; all problems together.
    """
    can_be_asked(scenario)
    with placed(scenario, "data"):
        collection = loaded(scenario.data, data_root, watch)
    suits_model(scenario, collection)
    site, parts = dealt(scenario, collection)
    collection = _renamed(scenario, collection, site)
    owned = _owned(collection, site, parts)
    known = None if scenario.calendar is None else docket(scenario, owned)
    forgotten = _forgotten(scenario, owned) if known is None else known.masks
    if scenario.evaluation.canary:
        collection = _with_canaries(scenario, collection, site, parts, forgotten)
    if known is None:
        something_left(scenario, parts == "train", forgotten)
        enough_proxies(scenario, parts == "proxy", forgotten)
    collection = on_one_scale(collection, parts == "train", forgotten)
    members = _members(scenario, collection.table, site, parts == "train")
    table, content = _table(collection, site, parts, forgotten), digest(collection)
    alike = twins.found(collection, content, watch)
    return Cohort(
        sites=scenario.sites.names,
        pixels=collection.pixels,
        targets=collection.targets,
        classes=collection.classes,
        names=_names_of(collection),
        site=site,
        split=parts,
        forgotten=forgotten,
        members=members,
        table=table,
        note=collection.note,
        notes=(
            *collection.notes,
            *at_several(table, site),
            *_left_behind(scenario, collection.table, forgotten),
            *twins.general(alike, table),
            *_lacking(scenario, collection, site, parts == "train"),
            *_many(scenario),
        ),
        digest=content,
        seen=collection.seen,
        twins=alike,
        docket=known,
        groups=timeline.groups(timeline.chains(scenario, () if known is None else known.entries)),
        companions=collection.companions,
        kind=collection.kind,
    )


def dealt(scenario: Scenario, collection: Collection) -> tuple[Array, Array]:
    """(N,) the hospital, and (N,) the part of each image, before any request is looked at.

    Raises:
        InputError: the images cannot be dealt so.
    """
    with placed(scenario, "sites.partition"):
        site = scenario.sites.partition.assign(
            collection.table, collection.strata, scenario.sites.names, _rng(scenario, "partition")
        )
    return site, _parts(scenario, collection, site)


def _names_of(collection: Collection) -> tuple[str, ...]:
    return collection.names or tuple(map(str, range(collection.classes)))


def _renamed(scenario: Scenario, collection: Collection, site: Array) -> Collection:
    """The images without columns of our names, and notes of what became of them."""
    shares = scenario.sites.split
    table, notes = apart(collection.table, site, shares.column if isinstance(shares, Official) else None)
    return replace(collection, table=table, notes=(*collection.notes, *notes))


def _lacking(scenario: Scenario, collection: Collection, site: Array, train: Array) -> list[str]:
    """Which hospitals train on no image of a class, with a finding or a structure, that others have."""
    kind = held(collection.kind)
    has = kind.has(collection.targets, collection.classes)
    return lacking(
        has[train],
        site[train],
        scenario.sites.names,
        [f"{kind.one} {name}" for name in _names_of(collection)],
    )


def _many(scenario: Scenario) -> Iterator[str]:
    """That scores tell of some hospitals only."""
    if (sites := len(scenario.sites.names)) > MOST_SITES:
        yield (
            f"of {sites:,} hospitals the {MOST_SITES} with most images held out are scored one by one; the worst of "
            "them stands for the worst of all"
        )


def _parts(scenario: Scenario, collection: Collection, site: Array) -> Array:
    """The part of each image: dealt by shares, or as the data has it."""
    match scenario.sites.split:
        case Official(column=column):
            with placed(scenario, "sites.split"):
                return official(collection.table, column, site)
        case shares:
            fractions, rng = (shares.train, shares.val, shares.test), _rng(scenario, "split")
            with placed(scenario, "sites"):
                return split(collection.table, collection.strata, site, fractions, rng, shares.proxy)


def _left_behind(
    scenario: Scenario, table: pd.DataFrame, forgotten: Mapping[RequestId, Array]
) -> Iterator[str]:
    for request in scenario.requests:
        if not request.whole_site and request.id in forgotten:
            yield from (
                f"request {request.id!r}: {note}" for note in left_behind(table, forgotten[request.id])
            )


def _with_canaries(
    scenario: Scenario,
    collection: Collection,
    site: Array,
    parts: Array,
    forgotten: Mapping[RequestId, Array],
) -> Collection:
    """The images with wrong labels for some training patients of every hospital that leaves as a whole.

    Their labels are shifted by one class; column ``canary`` of the table tells which images these are. Labels stay
    wrong wherever they are used, in training and in scores: they are what there is to be known by heart.
    """
    patients = collection.table["patient"].astype(str).to_numpy()
    canary = np.zeros(len(patients), dtype=bool)
    for request in scenario.requests:
        if request.whole_site and request.id in forgotten:
            own = forgotten[request.id] & (parts == "train") & (site == request.site)
            known = np.unique(patients[own])
            count = max(1, round(scenario.evaluation.canary * len(known)))
            drawn = _rng(scenario, f"canary:{request.site}").choice(known, count, replace=False)
            canary |= own & np.isin(patients, drawn)
    images, people = int(canary.sum()), len(np.unique(patients[canary]))
    have = "has a wrong label, as a canary" if images == 1 else "have wrong labels, as canaries"
    told = f"{counted(images, 'image')} of {counted(people, 'patient')} {have}"
    return replace(
        collection,
        targets=np.where(
            canary.reshape(-1, *(1 for _ in collection.targets.shape[1:])),
            (collection.targets + 1) % collection.classes,
            collection.targets,
        ),
        table=collection.table.assign(canary=canary),
        note=f"{collection.note} {told}.",
    )


def _members(scenario: Scenario, table: pd.DataFrame, site: Array, train: Array) -> Array:
    """Draw the halves that shadows are trained on; each pair by itself, whatever their number."""
    pairs = [
        halves(table, site, train, _rng(scenario, f"shadows:{pair}"))
        for pair in range(scenario.evaluation.shadows // 2)
    ]
    members = np.concatenate(pairs, axis=1) if pairs else np.zeros((len(train), 0), dtype=bool)
    if not members.any(axis=0).all():
        problem = Problem(
            "a random half of so few patients is empty; leave shadows out, or give more patients"
        )
        raise InputError([scenario.placed(problem, "evaluation.shadows")])
    return members


def _owned(collection: Collection, site: Array, parts: Array) -> pd.DataFrame:
    """The images with their hospitals, parts and, where they have one class each, labels or findings."""
    return collection.table.assign(site=site, split=parts, **_told(collection))


def _told(collection: Collection) -> Mapping[str, Any]:
    """The column of the images' class, or those that tell of several findings; none of label maps."""
    return held(collection.kind).columns(collection.targets, collection.names)


def _forgotten(scenario: Scenario, owned: pd.DataFrame) -> dict[RequestId, Array]:
    """Resolve every request; all problems together, each with its place in the scenario."""
    found, problems = dict[RequestId, Array](), list[Problem]()
    for number, request in enumerate(scenario.requests):
        masks = []
        for key, names in _names(scenario, request, owned, f"requests.{number}"):
            try:
                masks.append(names().forgotten)
            except InputError as error:
                problems += [scenario.placed(problem, key) for problem in error.problems]
        found[request.id] = np.logical_or.reduce(masks) if masks else np.zeros(len(owned), dtype=bool)
    if problems:
        raise InputError(problems)
    return found


def _names(
    scenario: Scenario, request: Request, owned: pd.DataFrame, key: str
) -> Iterator[tuple[str, Callable[[], Named]]]:
    """What a request names, one by one, so that each wrong id is reported at its own place."""
    site, rng = request.site, _rng(scenario, f"request:{request.id}")
    for number, image in enumerate(request.images or ()):
        yield f"{key}.images.{number}", partial(resolve, owned, site, rng, images=(image,))
    if request.images is not None:
        return
    match request.patients:
        case None:
            yield key, lambda: resolve(owned, site, rng)
        case Pick(fraction=fraction, count=count, pick=pick, by=by):
            yield (
                f"{key}.patients",
                lambda: resolve(owned, site, rng, fraction=fraction, count=count, pick=pick, by=by),
            )
        case ids:
            for number, patient in enumerate(ids):
                yield f"{key}.patients.{number}", partial(resolve, owned, site, rng, ids=(patient,))


def _table(
    collection: Collection, site: Array, parts: Array, forgotten: Mapping[RequestId, Array]
) -> pd.DataFrame:
    """``sites.parquet``: identity, owner, part, label or findings, attributes, difficulty, requests."""
    given = collection.table.drop(columns=["difficulty"], errors="ignore")
    columns = {"image": given["image"], "patient": given["patient"], "site": site, "split": parts}
    columns |= _told(collection)
    attributes = {name: given[name] for name in given.columns if name not in columns}
    last = {"difficulty": collection.table.get("difficulty")}
    asked = [list[RequestId]() for _ in range(len(given))]
    for name, mask in forgotten.items():
        for row in np.flatnonzero(mask):
            asked[row].append(name)
    return pd.DataFrame({**columns, **attributes, **last, "forgotten_by": asked})


def _rng(scenario: Scenario, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derive(scenario.seed, purpose))

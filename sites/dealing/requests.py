"""What a request names: which patients, and thereby which images at which hospitals."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import InputError, PatientId, Problem, SiteId
from sites.dealing.picking import described, matching, picked
from sites.identity import alike, tidied, twins


@dataclass(frozen=True)
class Named:
    """What a request names.

    Attributes:
        patients: sorted ids.
        forgotten: (N,) bool, the images to forget.
    """

    patients: tuple[PatientId, ...]
    forgotten: npt.NDArray[np.bool_]


def resolve(
    table: pd.DataFrame,
    site: SiteId,
    rng: np.random.Generator,
    *,
    ids: Sequence[PatientId] | None = None,
    images: Sequence[str] | None = None,
    fraction: float | None = None,
    count: int | None = None,
    pick: str = "random",
    by: Mapping[str, str] | None = None,
) -> Named:
    """Find the patients and images that a request of ``site`` names.

    Named or picked patients are forgotten at every hospital that holds images of them; of named images, these alone.
    With neither ids, images, fraction, count nor ``by`` the whole hospital is meant: all its images, of all parts, and
    none elsewhere.

    Args:
        table: one row per image, with ``image``, ``patient``, ``site`` and ``split``; ``label`` and ``difficulty``
            where they are picked by; any attributes.
        site: the hospital that asks.
        rng: draws patients, among equals where they are ranked; the order of the images does not matter.
        ids: these patients.
        images: these images, instead.
        fraction: this share of the hospital's training patients, in (0, 1], at least one.
        count: this many of them.
        pick: which of them come first (`sites.dealing.picking.picked`).
        by: only patients with a training image there that has these values, by column; without fraction and count,
            all of them.

    Raises:
        InputError: the hospital, or patients of its training images, are not there, or they cannot be picked so; all
            problems together.
        ValueError: more than one of ids, images, fraction and count is given.
    """
    if sum(choice is not None for choice in (ids, images, fraction, count)) > 1:
        raise ValueError("give one of ids, images, fraction and count")
    here = np.asarray(table["site"] == site, dtype=bool)
    if not here.any():
        raise InputError(
            f"found no hospital {site!r}, expected one of {', '.join(sorted(set(table['site'])))}"
        )
    if images is not None:
        return _single(table, site, [tidied(image) for image in images])
    if ids is None and fraction is None and count is None and not by:
        return Named(tuple(sorted(set(table.loc[here, "patient"]))), here)
    own = table[here & np.asarray(table["split"] == "train", dtype=bool)]
    trained = sorted(set(own["patient"]))
    if ids is not None:
        ids = [tidied(patient) for patient in ids]
        if problems := _unnamed(table, site, ids, trained):
            raise InputError(problems)
        chosen = sorted(set(ids))
    else:
        able = matching(own, by, site) if by else trained
        if fraction is None and count is None:
            chosen = able
        else:
            wanted = count if count is not None else max(1, round((fraction or 0.0) * len(able)))
            _possible(site, able, wanted, fraction, by)
            chosen = picked(table, site, able, wanted, pick, rng)
    return Named(tuple(chosen), np.asarray(table["patient"].isin(chosen), dtype=bool))


def _single(table: pd.DataFrame, site: SiteId, images: Sequence[str]) -> Named:
    """The named images, if ``site`` trains on all of them."""
    own = table[np.asarray((table["site"] == site) & (table["split"] == "train"), dtype=bool)]
    known, problems = {str(image) for image in own["image"]}, list[Problem]()
    for image in images:
        if image not in known:
            problems.append(Problem(_why_not(table, site, image, sorted(known))))
    if problems or not images:
        raise InputError(problems or f"images: the list is empty; name images of {site!r}")
    named = np.asarray(table["image"].isin(images), dtype=bool)
    return Named(tuple(sorted(set(table.loc[named, "patient"]))), named)


def _why_not(table: pd.DataFrame, site: SiteId, image: str, trained: Sequence[str]) -> str:
    """Why an image cannot be forgotten by ``site``."""
    own = table[table["image"] == image]
    if own.empty:
        close = difflib.get_close_matches(image, trained, n=3, cutoff=0.5) or list(trained[:3])
        return f"found no image {image!r}, expected one that {site!r} trains on, such as {_listed(close)}"
    elsewhere = sorted(set(own["site"]))
    if site not in elsewhere:
        return f"image {image!r} is not at {site!r}, only at {_listed(elsewhere)}: let it ask instead"
    part = str(own["split"].iloc[0])
    return (
        f"image {image!r} is in the {part} part of {site!r}, so no model was trained on it: name a training image, "
        f"such as {_listed(trained[:3])}"
    )


def left_behind(table: pd.DataFrame, forgotten: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """Of the patients that a request names, those who have a near-twin that it does not name, as sentences.

    Args:
        table: one row per image, with ``patient``.
        forgotten: (N,) the images to forget.
    """
    named = set(table.loc[forgotten, "patient"])
    torn = [group for group in twins(table["patient"]) if 0 < len(named & set(group)) < len(group)]
    if not torn:
        return ()
    pairs = (([p for p in group if p in named], [p for p in group if p not in named]) for group in torn[:3])
    some = "; ".join(f"{_listed(ours)} but not {_listed(others)}" for ours, others in pairs)
    more = f", and {len(torn) - 3:,} more such" if len(torn) > 3 else ""
    return (f"it names {some}{more}, written almost alike: if they are one person, the other stays known",)


def _possible(
    site: SiteId, able: Sequence[PatientId], wanted: int, fraction: float | None, by: Mapping[str, str] | None
) -> None:
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"patients: found fraction {fraction}, expected more than 0 and at most 1")
    if not 1 <= wanted <= len(able):
        which = f" with {described(by)}" if by else ""
        raise InputError(
            f"patients: found count {wanted}, expected 1 to {len(able)}, the patients{which} {site!r} trains on"
        )


def _unnamed(
    table: pd.DataFrame, site: SiteId, ids: Sequence[PatientId], trained: Sequence[PatientId]
) -> list[Problem]:
    """What is wrong with each id that names no training patient of the hospital."""
    if not ids:
        return [Problem(f"patients: the list is empty; name patients of {site!r}, or write whole_site: true")]
    return [Problem(_why(table, site, patient, trained)) for patient in ids if patient not in set(trained)]


def _why(table: pd.DataFrame, site: SiteId, patient: PatientId, trained: Sequence[PatientId]) -> str:
    own = table[table["patient"] == patient]
    if own.empty:
        near = [other for other in sorted(set(table["patient"])) if alike(other) == alike(patient)]
        if twin := [other for other in near if other in trained]:
            return f"found no patient {patient!r}, but {_listed(twin[:3])}, which is almost alike: write it like that"
        if near:
            return (
                f"found no patient {patient!r}, but one almost alike: {_why(table, site, near[0], trained)}"
            )
        close = difflib.get_close_matches(patient, trained, n=3, cutoff=0.5) or list(trained[:3])
        return f"found no patient {patient!r}, expected one that {site!r} trains on, such as {_listed(close)}"
    elsewhere = sorted(set(own["site"]))
    if site not in elsewhere:
        return (
            f"patient {patient!r} has no images at {site!r}, only at {_listed(elsewhere)}: let it ask instead"
        )
    part = str(own["split"].iloc[0])
    return (
        f"patient {patient!r} is in the {part} part of {site!r}, so no model was trained on its images: "
        f"name a training patient, such as {_listed(trained[:3])}"
    )


def _listed(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values))

"""Requests that nobody wrote down: when they come, of what kind and from where, drawn from a seed.

Nothing else goes into the draw, neither policy nor strategy nor training seed: the same stream meets all of them. Whom
a request names is drawn when the data is there (`fedunlearn.campaign.docket`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Annotated, Literal, TypeVar

import numpy as np
from annotated_types import Ge, Gt, Le

from fedunlearn.core import RequestId, SiteId, derive
from fedunlearn.intake.calendar import Calendar

Kind = Literal["patients", "images", "whole_site", "opt_out"]
"""What a request asks for: that patients are forgotten, single images of one, or a hospital; or that a patient's images
are not used any more from now on, which erases nothing (an opt-out)."""

Choice = Literal["random", "hardest", "easiest", "rare_class", "scarce_elsewhere"]
"""Which patients come first where some are to be chosen (`sites.dealing.picking`)."""

YEAR = 365
"""Days that a rate per year is meant by."""

T = TypeVar("T")
Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Kinds:
    """How often each kind of request comes, as weights: they need not sum to 1.

    Attributes:
        patient: all images of one patient.
        image: one image of a patient who has several, if there is such a patient.
        whole_site: a hospital leaves with all its images; each at most once.
        opt_out: a patient whose images are not to be used any more (EHDS, Art. 71).
    """

    patient: Weight = 0.0
    image: Weight = 0.0
    whole_site: Weight = 0.0
    opt_out: Weight = 0.0


@dataclass(frozen=True)
class Arrivals:
    """A process that requests come from.

    Attributes:
        process: poisson, so that they come independently of one another, or regular, evenly over the year.
        per_year: how many come in 365 days; of a Poisson process, on average.
        kinds: how often each kind comes; patients alone if none is named.
        sites: how often each hospital asks, as weights; those that are not named never do. None for all alike.
        seed: of dates, kinds and hospitals.
        pick: whom requests name, of the hospital's training patients whom no other request names: any of them, or those
            first that `Pick` would pick.
    """

    process: Literal["poisson", "regular"] = "poisson"
    per_year: Annotated[float, Gt(0), Le(100_000)] = 40.0
    kinds: Kinds = Kinds(patient=1.0)
    sites: Mapping[SiteId, Weight] | None = field(default=None, hash=False, metadata={"key": "from"})
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    pick: Choice = "random"


@dataclass(frozen=True)
class Arrival:
    """A request that was drawn, but for whom it names.

    Attributes:
        id: r001, r002, … in the order of arrival.
        received: the day.
        kind: what it asks for.
        site: the hospital that asks.
    """

    id: RequestId
    received: date
    kind: Kind
    site: SiteId


def expand(
    arrivals: Arrivals, calendar: Calendar, rounds: int, sites: Sequence[SiteId]
) -> tuple[Arrival, ...]:
    """What comes in from the start until the last round is over.

    A hospital asks to leave at most once, and nothing is drawn from it afterwards: its patients have left with it. The
    last one of those that ask does not, as long as there is something else to ask for.

    Without any weight above 0 nothing comes.

    Args:
        arrivals: the process.
        calendar: when rounds are.
        rounds: how many there are.
        sites: all hospitals, in scenario order.
    """
    rng = np.random.default_rng(derive(arrivals.seed, "arrivals"))
    gone, drawn = set[SiteId](), list[tuple[date, Kind, SiteId]]()
    if not any(vars(arrivals.kinds).values()):
        return ()  # nothing comes of no kind
    weights = {site: _weight(arrivals, site) for site in sites}
    for days in _times(arrivals, rounds * calendar.round, rng):
        which, whose = rng.random(), rng.random()
        left = {site: weight for site, weight in weights.items() if site not in gone and weight > 0}
        if not left:
            break
        kind, site = _kind(arrivals.kinds, which, len(left) == 1), _picked(left, whose)
        if kind == "whole_site":
            gone.add(site)
        drawn.append((calendar.start + timedelta(days=days), kind, site))
    width = max(3, len(str(len(drawn))))
    return tuple(
        Arrival(f"r{number:0{width}}", received, kind, site)
        for number, (received, kind, site) in enumerate(drawn, 1)
    )


def _weight(arrivals: Arrivals, site: SiteId) -> float:
    return 1.0 if arrivals.sites is None else arrivals.sites.get(site, 0.0)


def _times(arrivals: Arrivals, days: int, rng: np.random.Generator) -> Iterator[int]:
    """On which day each comes, counted from the start: less than ``days``."""
    gap, now = YEAR / arrivals.per_year, 0.0
    if arrivals.process == "regular":
        now = -gap / 2  # the first comes when half of the time to the second is over
    while True:
        now += gap if arrivals.process == "regular" else rng.exponential(gap)
        if now >= days:
            return
        yield int(now)


def _kind(kinds: Kinds, which: float, stays: bool) -> Kind:
    """What is asked for; if the hospital ``stays``, something else than to leave, if anything else comes at all."""
    shares: dict[Kind, float] = {
        "patients": kinds.patient,
        "images": kinds.image,
        "whole_site": kinds.whole_site,
        "opt_out": kinds.opt_out,
    }
    if stays and any(share for kind, share in shares.items() if kind != "whole_site"):
        shares["whole_site"] = 0.0
    return _picked(shares, which)


def _picked(weights: Mapping[T, float], which: float) -> T:
    """The one on which ``which``, in [0, 1), falls when all lie side by side, each as long as its weight."""
    total, seen = sum(weights.values()), 0.0
    able = [one for one, weight in weights.items() if weight > 0]
    for one in able:
        seen += weights[one]
        if which * total < seen:
            return one
    return able[-1]

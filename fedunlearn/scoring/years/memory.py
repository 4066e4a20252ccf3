"""What is left of every earlier request, at every look: does it stay forgotten while others are unlearned?

In analogy to the memory left of a patient (`judgement.memory`): with s the score of a request's patients under a model,
the mean over patients of how much surer the model is of their images than of held-out ones,

    left = s(model in hand) - s(model that never saw them)
    known = s(original) - s(model that never saw them)
    memory left = left / known

all three models having been trained for as many rounds from the same seed. A single request is often one patient, of
whom the original need not know more than luck: held-out patients, whom neither model saw, differ between the two as
well, with standard deviation sd, and their single images with si. Luck moves a request of P patients and N images by
``max(sd / sqrt(P), si / sqrt(N))``; the second is larger where it names single images of patients. One whose ``known``
is not above `NOISE` of that has no memory left but NaN: there was nothing to forget that anybody could see.

Over several requests ``left`` and ``known`` are added up before they are divided, each request with as many parts as it
has patients, and *all* requests count: one that is not visible alone still belongs to the mean, and to leave it out
would choose those of whom luck made much known. So the share cannot explode either. Its interval draws requests
and seeds anew, each with replacement (Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 2007).

*Memory back* is the memory left at a look less what there was at each request's first look since its answer: above 0,
what was forgotten comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.core import derive
from fedunlearn.scoring.evidence import RESAMPLES, Floats
from fedunlearn.scoring.evidence.year import Look, Policy
from fedunlearn.scoring.years.answers import dates
from fedunlearn.scoring.years.models import Looking, Seen

COLUMNS = (
    "policy",
    "strategy",
    "seed",
    "request",
    "round",
    "date",
    "memory_left",
    "left",
    "known",
    "noise",
    "patients",
)
NOISE = 2.0
"""Standard deviations of luck that the original must know more, for a share of it to mean anything."""


def table(looking: Looking, seen: Mapping[str, Seen | None]) -> pd.DataFrame:
    """The content of ``memory.parquet``: a row for every model in hand and request that was unlearned by then.

    Args:
        looking: the year.
        seen: what its models show.
    """
    year, rows = looking.year, []
    policies = {policy.label: policy for policy in year.policies}
    for look in year.looks:
        for strategy, model in look.strategies.items():
            rows += _rows(looking, policies[look.policy], look, strategy, seen, seen[model])
    found = pd.DataFrame(rows, columns=[c for c in COLUMNS if c != "date"])
    found["date"] = dates(year.day(boundary) for boundary in found["round"])
    return found[list(COLUMNS)].astype(
        {"seed": "int64", "round": "int64", "patients": "int64"}
        | dict.fromkeys(("memory_left", "left", "known", "noise"), "float64")
    )


def _rows(
    looking: Looking,
    policy: Policy,
    look: Look,
    strategy: str,
    seen: Mapping[str, Seen | None],
    own: Seen | None,
) -> list[tuple[object, ...]]:
    original, never = seen[look.original], seen[look.retrained]
    people, single = math.nan, math.nan
    if original is not None and never is not None:
        people = _spread(original.held_out - never.held_out)
        single = _spread(original.strangers - never.strangers)
    rows = list[tuple[object, ...]]()
    for request, boundary in policy.answered.items():
        if boundary > look.round or request not in looking.asked:
            continue
        patients, images = looking.asked[request].patients, looking.asked[request].images
        left, known = math.nan, math.nan
        if never is not None:
            left = math.nan if own is None else own.known[request] - never.known[request]
            known = math.nan if original is None else original.known[request] - never.known[request]
        noise = max(people / math.sqrt(patients), single / math.sqrt(images)) if patients else math.nan
        share = left / known if known > NOISE * noise else math.nan
        rows.append(
            (policy.label, strategy, look.seed, request, look.round, share, left, known, noise, patients)
        )
    return rows


def _spread(differences: Floats) -> float:
    """How far one held-out score differs between two models by luck; NaN where too few are held out."""
    return float(differences.std(ddof=1)) if differences.size > 1 else math.nan


# ---------------------------------------------------------------------------------------- of several requests


Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Share:
    """A share and its 95 % interval; NaN where unknown.

    Attributes:
        value, low, high: the numbers.
        requests: how many it is about.
    """

    value: float
    low: float
    high: float
    requests: int


UNKNOWN = Share(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, eq=False)
class Pool:
    """The requests of a walk at one look, in all its seeds; (S, R) arrays.

    Attributes:
        left, known: see the module.
        noise: of ``known``, of a single patient.
        patients: (R,) of each request.
    """

    left: Floats
    known: Floats
    noise: float
    patients: Floats

    @property
    def value(self) -> float:
        """The memory left of all of them; NaN where the original does not know more of them than luck has it."""
        whole = float((self.known.mean(axis=0) * self.patients).sum())
        people = float(self.patients.sum())
        if not people or not whole / people > NOISE * self.noise / math.sqrt(people):
            return math.nan
        return float((self.left.mean(axis=0) * self.patients).sum()) / whole

    def replicates(self, seeds: Floats, requests: Floats) -> Floats:
        """(B,) its values by how often each seed (B, S) and request (B, R) was drawn; NaN where nothing is known."""
        sums = [((seeds @ (x * self.patients)) * requests).sum(axis=1) for x in (self.left, self.known)]
        shares: Floats = np.divide(sums[0], sums[1], out=np.full(len(seeds), np.nan), where=sums[1] > 0)
        return shares


def pooled(rows: pd.DataFrame, interval: bool = True) -> Share:
    """The memory left of all requests of some rows of ``memory.parquet``: one walk at one look.

    Args:
        rows: of all its seeds, or some.
        interval: whether that is asked for.
    """
    pool = _pool(rows, *_whole(rows))
    return UNKNOWN if pool is None else _share(pool.value, pool.replicates if interval else None, pool)


def back(rows: pd.DataFrame, boundary: int, interval: bool = True) -> Share:
    """How much more memory is left at a look than at each request's first one.

    Args:
        rows: of one walk, at all looks.
        boundary: the look; requests whose first look it is tell nothing.
        interval: whether that is asked for.
    """
    first = rows.groupby("request")["round"].transform("min")
    earlier = rows[(rows["round"] == first) & (first < boundary)]
    later = rows[(rows["round"] == boundary) & (first < boundary)]
    whose = _whole(pd.concat([earlier, later]))
    before, after = _pool(earlier, *whose), _pool(later, *whose)
    if before is None or after is None:
        return UNKNOWN
    replicates = partial(_apart, before, after) if interval else None
    return _share(after.value - before.value, replicates, after)


def _apart(before: Pool, after: Pool, seeds: Floats, requests: Floats) -> Floats:
    """(B,) by how much one is above the other, of the same seeds and requests."""
    return after.replicates(seeds, requests) - before.replicates(seeds, requests)


def _whole(rows: pd.DataFrame) -> tuple[Array, Array]:
    """Seeds, and the requests of which anybody can be compared with somebody; sorted."""
    usable = rows["patients"].to_numpy() > 0
    return np.unique(rows["seed"].to_numpy()[usable]), np.unique(rows["request"].to_numpy(object)[usable])


def _pool(rows: pd.DataFrame, seeds: Array, requests: Array) -> Pool | None:
    if not len(seeds) or not len(requests):
        return None
    rows = rows[rows["patients"].to_numpy() > 0]
    places = (
        np.searchsorted(seeds, rows["seed"].to_numpy()),
        np.searchsorted(requests, rows["request"].to_numpy(object)),
    )

    def wide(column: str) -> Floats:
        found = np.full((len(seeds), len(requests)), np.nan)
        found[places] = rows[column].to_numpy(np.float64)
        return found

    patients = wide("patients")[0]
    noise = float(np.mean(wide("noise") * np.sqrt(patients)))
    return Pool(wide("left"), wide("known"), noise, patients)


def _share(value: float, replicates: Callable[[Floats, Floats], Floats] | None, pool: Pool) -> Share:
    seeds, requests = pool.left.shape
    if replicates is None or not math.isfinite(value) or seeds * requests == 1:
        return Share(value, math.nan, math.nan, requests)
    found = replicates(*_draws(seeds, requests))
    if not np.isfinite(found).all():  # by some draws nothing was known: there is no end to it
        return Share(value, math.nan, math.nan, requests)
    low, high = np.quantile(found, [0.025, 0.975])
    return Share(value, float(low), float(high), requests)


def _draws(seeds: int, requests: int) -> tuple[Floats, Floats]:
    """(B, S) and (B, R) how often each is drawn; the same for all walks with as many of them."""
    rng = np.random.default_rng(derive(0, "scoring", "years"))
    found = [rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64) for n in (seeds, requests)]
    return found[0], found[1]

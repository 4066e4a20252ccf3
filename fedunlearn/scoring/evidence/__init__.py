"""What a measure sees: a table of images, what models answered for them, and what the models cost.

Values only. A measure is a pure function ``Evidence -> Estimates``; to add one, write such a function in the file of
its family and name it in `fedunlearn.scoring.measures.catalogue` (an attack, in `fedunlearn.scoring.attacks.ladder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.uint16]
Bools = npt.NDArray[np.bool_]
Part = Literal["forget", "retain", "test"]

RESAMPLES = 2000
"""Bootstrap resamples of patients."""

FEWEST_PATIENTS = 5
"""Patients that a part must have of a group for the group to be looked at there; hospitals are, whatever they have."""

MOST_SITES = 200
"""Hospitals that are told one by one; of more, those with most images held out, to bound the cost: ten thousand would
each be a group of every measure."""

EXACT = 2.0**24
"""Below it, single precision holds every whole number."""

MOST_UNITS = 512
"""Patients of one part that are resampled one by one; more are resampled in that many bundles, to bound the cost."""


@dataclass(frozen=True)
class Estimate:
    """A measure's value on one group of images.

    Attributes:
        value: on the images as they are.
        n: how many images it speaks for.
        replicates: (RESAMPLES,) its values when patients are drawn anew; NaN where undefined, empty where pointless
            or, on the groups of an attribute, where they would cost more than they tell.
        exact: its 95 % interval, where that is known otherwise, or is not the replicates' alone.
        luck: the standard deviation that it has at least from one training to the next, by the luck of single images:
            a few values that happen to be equal must not pass for free of noise.
        having: (N,) the images that it hangs on, of what only some images have: those with the structure, or of a
            finding the rarer of those that have it and have it not; None where it hangs on all of the group's.
    """

    value: float
    n: int
    replicates: Floats = field(default_factory=lambda: np.empty(0))
    exact: tuple[float, float] | None = None
    luck: float = 0.0
    having: Bools | None = None

    def interval(self) -> tuple[float, float]:
        """The exact interval, else the central 95 % of the replicates; NaN where there are none."""
        if self.exact is not None:
            return self.exact
        defined = self.replicates[np.isfinite(self.replicates)]
        if not defined.size:
            return float("nan"), float("nan")
        return quantile(defined, 0.025), quantile(defined, 0.975)


def quantile(values: Floats, share: float) -> float:
    """Of ``values`` (n,), those that are no NaN, to the last bit as `np.nanquantile` has it; NaN of none.

    A partition takes a fraction of the time.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan")
    last = len(known) - 1
    below = int(share * last)
    known.partition(below)
    low, rest = known[below : below + 1], known[below + 1 :]
    above = rest.min(keepdims=True) if rest.size else low
    return float(between(low, above, share * last - below)[0])


def between(low: Floats, high: Floats, part: float) -> Floats:
    """What lies so far between two numbers, rounded as `np.quantile` rounds."""
    found: Floats = high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part
    return found


Estimates = Mapping[str, Estimate]
"""By group: "all", "site=<name>", then "<attribute>=<value>". A group on which the measure is undefined is left out."""


@dataclass(frozen=True, eq=False)
class Attribute:
    """What divides images into groups: (N,) the code of each image's value, -1 if missing, and the values by code."""

    codes: Ints
    values: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Frame:
    """The images as one request divides them; the same for every model and seed.

    Attributes:
        patients, sites: (N,) codes of patients and hospitals.
        site_names: hospitals' names by code.
        labels: (N,) the class, or -1 where an image has no single one.
        classes: how many classes there are.
        train, test: (N,) the split.
        forgotten: (N,) the request names the image.
        gone: (N,) a request honoured earlier named it: it is neither to forget now nor retained.
        seed: of the bootstrap: every model of a request is resampled by the same draws.
        attributes: by name, what divides images into further groups (`fedunlearn.scoring.evidence.groups`).
        canary: (N,) the label is wrong on purpose, for who learnt it to be told; None where no image's is.
        costs: (C, C) what it costs to take an image of one class (row) for another (column); None for 1 each.
    """

    patients: Ints
    sites: Ints
    site_names: tuple[str, ...]
    labels: Ints
    classes: int
    train: Bools
    test: Bools
    forgotten: Bools
    gone: Bools
    seed: int
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    canary: Bools | None = None
    costs: Floats | None = None

    def rows(self, part: Part) -> Bools:
        """(N,) the images of a part.

        Forget and retain are training images. Test is every hospital's test split, a leaving hospital's too: whoever
        leaves takes its data away, but the model may still meet such patients; its own group row tells them apart.
        """
        match part:
            case "forget":
                return self.train & self.forgotten & ~self.gone
            case "retain":
                return self.train & ~self.forgotten & ~self.gone
            case "test":
                return self.test

    @cached_property
    def groups(self) -> Mapping[str, Bools]:
        """(N,) the images of every group, whatever its size."""
        return {group: here for division in self.divisions for group, here in division.items()}

    @cached_property
    def divisions(self) -> tuple[Mapping[str, Bools], ...]:
        """`groups`, those together of which no two have an image in common: all, the hospitals, each attribute's."""
        found = [{"all": np.ones(len(self.patients), dtype=bool)}]
        found.append({f"site={self.site_names[code]}": self.sites == code for code in self.told})
        for attribute, one in self.attributes.items():
            found.append({f"{attribute}={value}": one.codes == c for c, value in enumerate(one.values)})
        return tuple(found)

    @cached_property
    def told(self) -> tuple[int, ...]:
        """The codes of the hospitals that are groups of their own (`MOST_SITES`), ascending."""
        held_out = np.bincount(self.sites[self.test], minlength=len(self.site_names))
        return tuple(sorted(np.argsort(-held_out, kind="stable")[:MOST_SITES].tolist()))

    def within(self, rows: Bools) -> Mapping[str, Ints]:
        """By group, the numbers of those of ``rows`` (N,) in it; without an attribute's groups of too few patients."""
        return _within(self, rows.tobytes())

    def patients_in(self, rows: Bools) -> int:
        """How many patients ``rows`` (N,) are of."""
        return len(np.unique(self.patients[rows]))

    @cached_property
    def units(self) -> Ints:
        """(N,) what is drawn anew: the image's patient (or bundle); -1 for images in no part.

        Numbered by part, then hospital, then patient, so that the units of a part, and nearly those of one hospital
        in it, are a slice of `draws`. A patient in two parts counts for the first of forget, retain, test.
        """
        part = np.select([self.rows("forget"), self.rows("retain"), self.rows("test")], [0, 1, 2], 3)
        order = np.lexsort((self.sites, part, self.patients))
        patients, first = np.unique(self.patients[order], return_index=True)
        own = part[order][first]
        ranked = np.lexsort((patients, self.sites[order][first], own))
        number, offset = np.full(len(patients), -1), 0
        for role in range(3):
            members = ranked[own[ranked] == role]
            bundles = min(len(members), MOST_UNITS)
            number[members] = offset + np.arange(len(members)) * bundles // max(len(members), 1)
            offset += bundles
        units: Ints = np.where(part < 3, number[np.searchsorted(patients, self.patients)], -1)
        return units

    @cached_property
    def draws(self) -> Floats:
        """(RESAMPLES, units) how often each is drawn: with replacement, as many as there are, within each part."""
        rng = np.random.default_rng(self.seed)
        sizes, taken = [], 0
        for part in ("forget", "retain", "test"):
            end = max(taken, int(self.units[self.rows(part)].max(initial=-1)) + 1)
            sizes.append(end - taken)
            taken = end
        drawn = [rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in sizes if n]
        return np.concatenate(drawn, axis=1).astype(np.float64)

    @cached_property
    def drawn(self) -> Singles:
        """(units, RESAMPLES) `draws`, those of a unit side by side; numbers so small are exact in half the bits."""
        return np.ascontiguousarray(self.draws.T, dtype=np.float32)

    @cached_property
    def counted(self) -> Counts:
        """(units, RESAMPLES) `drawn` in 16 bits."""
        return self.drawn.astype(np.uint16)


def basic(group: str) -> bool:
    """Whether a group is "all" or a hospital: looked at whatever its size, and by every measure with intervals."""
    return group == "all" or group.startswith("site=")


@lru_cache(maxsize=8)  # three parts, and what some measure leaves of them, of the request at hand
def _within(frame: Frame, rows: bytes) -> Mapping[str, Ints]:
    chosen = np.frombuffer(rows, dtype=bool)
    found = {group: chosen & members for group, members in frame.groups.items()}
    return {
        group: np.flatnonzero(here)
        for group, here in found.items()
        if here.any() and (basic(group) or frame.patients_in(here) >= FEWEST_PATIENTS)
    }


class Answers(Protocol):
    """What one model answers for every image; each kind of task has its own form."""

    @property
    def finite(self) -> bool:
        """Whether the model still computes: a diverged one answers NaN or infinity."""
        ...

    def mixed_up(self, rng: np.random.Generator) -> Self:
        """The same answers, dealt to the images at random: a model that is certainly broken."""
        ...

    def __hash__(self) -> int:
        """By identity: what follows from some models' answers can be kept for others that are compared with them."""
        ...


class WithLosses(Answers, Protocol):
    """Answers of which one loss for each image is known, which is all that most attacks look at.

    ``exp(-loss)`` is taken for p_y, the probability of the right answer. Of an image that is one; of a volume it is the
    geometric mean over its voxels.
    """

    @property
    def losses(self) -> Floats:
        """(N,) ``-log p_y`` in nats, 0 or more."""
        ...

    @property
    def margin(self) -> Floats:
        """(N,) logit-scaled, ``log p_y - log(1 - p_y)``, finite."""
        ...


A = TypeVar("A", bound=Answers, covariant=True)


@dataclass(frozen=True, eq=False)
class Shadow(Generic[A]):
    """A federation trained for the sake of scoring alone, on some of the images.

    Attributes:
        answers: what its model answers.
        members: (N,) the images it was trained on.
    """

    answers: A
    members: Bools


@dataclass(frozen=True)
class Spent:
    """What a procedure cost, as the ledger observed it.

    Attributes:
        site_seconds, server_seconds: wall time of the hospitals' work, added up, and of the server's own.
        bytes: sent to and received from the hospitals.
        storage_bytes: the most history the server held for it at any time.
        rounds: how often any hospital was asked.
        images: passes of one image, or one patch of a volume, through a network (`Network.passes`).
        tuning_seconds: the hospitals' work for finding its hyper-parameters, once for all requests and seeds.
        epochs: of training, the most that a hospital or the server was asked for in each round, added up.
    """

    site_seconds: float
    server_seconds: float
    bytes: int
    storage_bytes: int
    rounds: int
    images: int
    tuning_seconds: float = 0.0
    epochs: int = 0


@dataclass(frozen=True, eq=False)
class Relearnt:
    """How a model, trained on the images to forget, learnt them again.

    Attributes:
        losses: (E + 1,) its mean loss on them after 0, 1, … E epochs; NaN if that diverged.
        goal: the loss to come to, slightly above the original model's. Training ended at it, or else was given up.
    """

    losses: Floats
    goal: float


@dataclass(frozen=True, eq=False)
class Evidence(Generic[A]):
    """All that is known of one model, for one request and seed.

    Attributes:
        frame: the images.
        original, retrained: what the references of the same seed answer.
        unlearned: what the model in question answers (a reference, when a reference is itself scored).
        spent, retraining: what the model and the retrained one cost.
        seed: for measures that draw; the same for all models of this request and seed.
        measured, reference: by name, the measures that the catalogue lists earlier, of this and of the retrained model.
        others, originals: the retrained and the original models of the same request's other seeds, in their order. The
            ones never saw what is to forget, the others did.
        siblings: the models that the same procedure made of other seeds; those that diverged are left out.
        shadows: models trained on random halves, in complementary pairs; none where a run has none.
        probed: by probe, what the model answers once the probe has trained it a little more (`probes`).
        relearnt: how soon it knew again what it was asked to forget; None if nobody tried.
    """

    frame: Frame
    original: A
    retrained: A
    unlearned: A
    spent: Spent
    retraining: Spent
    seed: int
    measured: Mapping[str, Estimates] = field(default_factory=dict)
    reference: Mapping[str, Estimates] = field(default_factory=dict)
    others: tuple[A, ...] = ()
    originals: tuple[A, ...] = ()
    siblings: tuple[A, ...] = ()
    shadows: tuple[Shadow[A], ...] = ()
    probed: Mapping[str, A] = field(default_factory=dict)
    relearnt: Relearnt | None = None

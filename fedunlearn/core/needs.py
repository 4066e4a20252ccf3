"""What a strategy uses, promises and may be set to."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from annotated_types import Ge, Gt

from fedunlearn.core.exchange import SiteId, Weights


class Leaver(enum.Enum):
    """Whether the data to forget may still be used while forgetting."""

    GONE = "gone"
    ONLINE = "online"


class Granularity(enum.Enum):
    """What a strategy can forget."""

    PATIENTS = "patients"
    SITE = "site"


class Guarantee(enum.Enum):
    """What a strategy promises about its result.

    EXACT: the weights of training without the data, bit for bit. CERTIFIED: within a stated (epsilon, delta) of them,
    under a stated assumption. EMPIRICAL: nothing but what scores show. SUPPRESSION: the weights still hold the data,
    and what is added to them hides it.
    """

    EXACT = "exact"
    CERTIFIED = "certified"
    EMPIRICAL = "empirical"
    SUPPRESSION = "suppression"


@dataclass(frozen=True)
class Search:
    """Where ``tune`` looks for a hyper-parameter's value, written beside its range in its annotation.

    Attributes:
        low, high: the ends, both included; None for a choice, all of whose values are tried.
        log: look evenly over orders of magnitude.

    What a strategy's own training depends on (`Preparing`) is not searched: it is done once for all trials.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Recovery:
    """How a model is repaired after forgetting: ordinary rounds of training on what is retained.

    Attributes:
        rounds: rounds of federated averaging, R; 0 for none.
        local_epochs: passes over the retained images in each, E; None for as many as in training.
        lr: learning rate, eta; None for training's.
    """

    rounds: Annotated[int, Ge(0), Search(0, 4)] = 2
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None


@dataclass(frozen=True)
class Every:
    """Every k-th round: 0, k, 2k, … (rounds count from 0)."""

    k: int

    def __contains__(self, round: int) -> bool:
        return round % self.k == 0


@dataclass(frozen=True)
class Last:
    """The last round before the request, whatever its number: any round may turn out to be that one."""

    def __contains__(self, round: int) -> bool:
        return True


@dataclass(frozen=True)
class Seen:
    """One round of training as the server saw it.

    Attributes:
        sent: the trained tensors of the global weights that it started from.
        updates: every hospital's update of these (local - global).
        images: how many images each trained on.
    """

    sent: Weights
    updates: Mapping[SiteId, Weights]
    images: Mapping[SiteId, int]


class Choice(Protocol):
    """Chooses while training goes on, when nobody knows who will leave, which updates the server keeps.

    A frozen dataclass of settings.
    """

    @property
    def window(self) -> int:
        """Of so many rounds it chooses at once, when the last of them is over: 0 to window - 1, then the next."""
        ...

    def chosen(self, first: int, rounds: Sequence[Seen]) -> Sequence[Sequence[SiteId]]:
        """For each of ``rounds``, the first of which has number ``first``: the hospitals whose updates are kept.

        The last window is shorter where training ends, or a request comes, before it is over.
        """
        ...


Cumulative = Literal["updates", "distances"]
"""What a server adds up over rounds for each hospital: its updates, or how far its model is from the initial weights,
weight by weight and without sign, sum_t |w_k^t - w^0|."""


@dataclass(frozen=True)
class Needs:
    """What a strategy uses beyond the original weights, declared once.

    Attributes:
        updates: every hospital's update (local - global) of these rounds, or those that a `Choice` chose.
        cumulative: every hospital's sum over all rounds, and of what.
        checkpoints: the global weights that these rounds started from.
        proxy_examples: the fewest unlabelled images that the server must own; 0 if it is not asked to work on any.
        leaver: ONLINE if the images to forget are used once more.
        stayers: whether the hospitals that remain do any work.
        class_labels: whether targets must be one class per image.
        class_settings: names of its settings that list classes (or are None), all of which the data must have.
        each_reply: whether the server must see each hospital's reply; else the sum over those asked is enough.
        preparation: whether it trains in a way of its own, before any request comes, and keeps what it needs
            (`Preparing`).
        everyone: whether every hospital must have been asked in every round of training (`Training.participation`).
        intact: whether training must be as it was: what it promises does not hold after an earlier request.
    """

    updates: Every | Last | Choice | None = None
    cumulative: Cumulative | None = None
    checkpoints: Every | None = None
    proxy_examples: int = 0
    leaver: Leaver = Leaver.GONE
    stayers: bool = True
    class_labels: bool = False
    class_settings: tuple[str, ...] = ()
    each_reply: bool = False
    preparation: bool = False
    everyone: bool = False
    intact: bool = False

    @property
    def takes_all(self) -> bool:
        """Whether training must ask every hospital in every round.

        A sum over rounds does not tell how many a hospital took part in, nor with whom.
        """
        return self.everyone or self.cumulative is not None

    @property
    def serves_one(self) -> bool:
        """Whether it can serve one request only, where requests come in sequence."""
        return self.preparation or self.intact

    @property
    def secure_aggregation(self) -> bool:
        """Whether it works where the server only ever sees sums over the hospitals asked, in training too.

        Of a single hospital that is asked alone, the sum is its own reply.
        """
        return not (self.each_reply or self.updates is not None or self.cumulative is not None)

"""A strategy, and what it is shown: a request as a case, training as a course, what was kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

from fedunlearn.core.exchange import (
    Layout,
    Procedure,
    RequestId,
    Select,
    SiteId,
    Training,
    Weights,
)
from fedunlearn.core.needs import Granularity, Guarantee, Needs
from fedunlearn.core.rota import Rota


class History(Protocol):
    """What the server kept of training, as far as the strategy declared it."""

    def update(self, round: int, site: SiteId) -> Weights:
        """``site``'s update of ``round``, in which it was asked: its weights minus the weights it was sent."""
        ...

    def chosen(self, round: int) -> tuple[SiteId, ...]:
        """The hospitals whose update of ``round`` the declared `Choice` kept, in its order."""
        ...

    def cumulative(self, site: SiteId) -> Weights:
        """The sum over all rounds of what the strategy declared, for ``site``."""
        ...

    def checkpoint(self, round: int) -> Weights:
        """The global weights that ``round`` started from."""
        ...

    def prepared(self, name: str) -> Weights:
        """What the strategy's own training kept under ``name`` (`Preparing.prepare`)."""
        ...


@dataclass(frozen=True)
class Course:
    """Training, as a strategy that has a way of its own for it meets it.

    Attributes:
        seed: the training seed; every random draw derives from it by `derive`.
        rounds: how many rounds to train.
        initial: where to start.
        training: how the scenario trains.
        layout: what is where in the weights.
        roster: every hospital that was there at first, in scenario order: whatever the strategy derives from
            these stays as it is when one of them leaves.
        sites: the hospitals that take part, in scenario order.
        select: what may be trained on.
        images: how many images that is at each hospital of ``sites``.
    """

    seed: int
    rounds: int
    initial: Weights
    training: Training
    layout: Layout
    roster: tuple[SiteId, ...]
    sites: tuple[SiteId, ...]
    select: Select
    images: Mapping[SiteId, int]

    @cached_property
    def rota(self) -> Rota:
        """Who is asked in which round."""
        return Rota.among(self.sites, self.images, self.training.participation)


@dataclass(frozen=True)
class Case:
    """One request as a strategy meets it.

    Attributes:
        request: the request's id.
        seed: the training seed; every random draw derives from it by `derive`.
        rounds: how many rounds the original weights were trained for.
        initial: the weights training started from.
        original: the weights that must forget; of a strategy that prepares, those of its own training.
        training: how they were trained.
        layout: what is where in the weights.
        roster: every hospital that was there at first, in scenario order.
        sites: the hospitals that remain, in scenario order: the only ones a whole-site request lets one ask
            (the leaver too, where the strategy declares ONLINE).
        leaver: the hospital that leaves as a whole, or None.
        holders: the hospitals that hold images to forget, in scenario order.
        kept: training images each remaining hospital retains.
        lost: training images to forget at each holder.
        had: training images that each hospital of the roster had in training.
        retain: selects what may still be trained on.
        forget: selects what is to be forgotten.
        history: what was kept of training, as declared.
    """

    request: RequestId
    seed: int
    rounds: int
    initial: Weights
    original: Weights
    training: Training
    layout: Layout
    roster: tuple[SiteId, ...]
    sites: tuple[SiteId, ...]
    leaver: SiteId | None
    holders: tuple[SiteId, ...]
    kept: Mapping[SiteId, int]
    lost: Mapping[SiteId, int]
    had: Mapping[SiteId, int]
    retain: Select
    forget: Select
    history: History

    @property
    def course(self) -> Course:
        """The training that should have been: on what is retained, with the hospitals that remain."""
        return Course(
            self.seed,
            self.rounds,
            self.initial,
            self.training,
            self.layout,
            self.roster,
            self.sites,
            self.retain,
            self.kept,
        )

    @cached_property
    def rota(self) -> Rota:
        """Who of the hospitals that remain is asked in which round, in retraining and wherever methods train."""
        return Rota.among(self.sites, self.kept, self.training.participation)

    def purpose(self, name: str) -> str:
        """``name`` as the purpose of rounds of this request's own, where hospitals take turns; else just ``name``.

        By the same draws the same few hospitals would repair at every request of a year. Retraining's "train" stays,
        since all share its draws; where every hospital is asked, nothing depends on it but the order of images.
        """
        if name == "train" or self.training.participation == 1:
            return name
        return ", ".join((name, *self.forget.without))

    def turn(self, purpose: str, number: int) -> tuple[SiteId, ...]:
        """The remaining hospitals that round ``number`` of rounds for one purpose asks; in retraining's, "train"."""
        return self.rota.asked(self.seed, self.purpose(purpose), number)

    def trained(self, number: int) -> tuple[SiteId, ...]:
        """The hospitals that round ``number`` of training asked, in scenario order; the server knows of no others'."""
        return self._before.asked(self.seed, "train", number)

    @cached_property
    def _before(self) -> Rota:
        return Rota.among(self.roster, self.had, self.training.participation)

    @property
    def proxy(self) -> Select:
        """Selects what `SERVER` may still use of its unlabelled images: whoever is forgotten takes theirs back."""
        return replace(self.retain, split="proxy")


class Strategy(Protocol):
    """An unlearning method: a frozen dataclass whose fields are its hyper-parameters and its YAML."""

    guarantee: ClassVar[Guarantee]
    granularity: ClassVar[frozenset[Granularity]]

    @property
    def name(self) -> str:
        """The name it has in a scenario."""
        ...

    @property
    def needs(self) -> Needs:
        """What it uses; it may depend on its hyper-parameters."""
        ...

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """Turn the original weights into unlearned ones."""
        ...


@runtime_checkable
class Preparing(Strategy, Protocol):
    """A strategy that needs training itself to be done in its own way (`Needs.preparation`).

    EXACT means for it: ``unlearn(case)`` is the ``model`` of ``prepare(case.course)``, bit for bit. Scores compare it
    with the scenario's retrained reference like any other: they show what its way of training costs as well.
    """

    def prepare(self, course: Course) -> Procedure[Mapping[str, Weights]]:
        """Train; return what the server keeps by name: ``model``, the trained weights, and whatever else it needs."""
        ...

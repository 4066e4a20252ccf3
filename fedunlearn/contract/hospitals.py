"""The toy's hospitals and its server's memory, under observation: what is touched is written down in a `Log`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from fedunlearn import weights as w
from fedunlearn.contract.promise import Broken, hold
from fedunlearn.contract.toy import CLASSES, IMAGES, PATIENTS, TRAINING, network, select
from fedunlearn.core import (
    Asks,
    Every,
    Images,
    Last,
    Needs,
    Procedure,
    Replies,
    Reply,
    Seen,
    Select,
    SiteId,
    Task,
    Weights,
)
from fedunlearn.federation import wire
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.machines import Machine
from fedunlearn.federation.history import choose
from fedunlearn.federation.jobs import Job, Label, Round, Watcher
from fedunlearn.learning.models import Network

T = TypeVar("T")


@dataclass
class Log:
    """What was touched: (site, round) asked, image rows by site, label counts, history."""

    asked: list[tuple[SiteId, int]] = field(default_factory=list)
    rows: dict[SiteId, set[int]] = field(default_factory=dict)
    classes: bool = False
    updates: set[tuple[int, SiteId]] = field(default_factory=set)
    cumulative: set[SiteId] = field(default_factory=set)
    checkpoints: set[int] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)


@dataclass
class ToyLocal:
    """`fedunlearn.core.Local`, under observation."""

    site: SiteId
    network: Network
    log: Log

    def __post_init__(self) -> None:
        self._before = self.network.passes

    @property
    def work(self) -> int:
        """See `sites.hospital.Hospital`."""
        return self.network.passes - self._before

    @property
    def classes(self) -> int:
        """See `Local`."""
        self.log.classes = True
        return CLASSES

    def images(self, wanted: Select) -> Images:
        """See `Local`."""
        found = select(self.site, wanted)
        self.log.rows.setdefault(self.site, set()).update(found.rows.tolist())
        return found


Fault = Callable[[Ask, Reply], Reply]
"""Spoils a reply, or raises."""


@dataclass
class ToyLink:
    """`fedunlearn.federation.engines.Link` without threads.

    Attributes:
        norm: whether the network has BatchNorm.
        across: let tasks and replies cross the wire.
        scramble: answer in a random order drawn from this seed; None for the order asked.
        fault: spoils replies.
        log: what the hospitals touched.
    """

    norm: bool = False
    across: bool = True
    scramble: int | None = None
    fault: Fault | None = None
    log: Log = field(default_factory=Log)
    _waiting: list[Ask] = field(default_factory=list)
    _random: random.Random | None = None

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        self._waiting += asks

    def collect(self) -> Sequence[Answer]:
        """See `Link`."""
        if self.scramble is not None and self._random is None:
            self._random = random.Random(self.scramble)
        ask = self._waiting.pop(self._random.randrange(len(self._waiting)) if self._random else 0)
        local = ToyLocal(ask.site, network(self.norm), self.log)
        try:
            reply = self._cross(self._cross(ask.task)(local))
            if self.fault is not None:
                reply = self.fault(ask, reply)
        except Exception as error:  # whatever a hospital raises becomes its answer
            return [Answer(ask.ticket, None, f"{type(error).__name__}: {error}", 0.0, 0)]
        return [Answer(ask.ticket, reply, None, 0.0, local.work)]

    @property
    def machines(self) -> Sequence[Machine]:
        """See `Link`: none but this, which nobody asks for."""
        return ()

    def _cross(self, value: Any) -> Any:
        return wire.unpack(*wire.pack(value)) if self.across else value


@dataclass
class Memory:
    """A watcher that keeps all of training, and shows it as `fedunlearn.core.History` under observation."""

    log: Log = field(default_factory=Log)
    rounds: int = TRAINING.rounds
    sent: dict[int, Weights] = field(default_factory=dict)
    got: dict[tuple[int, SiteId], Weights] = field(default_factory=dict)
    own: Mapping[str, Weights] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    parameters: tuple[str, ...] = ()
    images: int = PATIENTS["train"] * IMAGES

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        for site, answer in round.answers.items():
            assert answer.reply is not None
            self._keep(round.number, site, round.asks[site], answer.reply)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""

    def of(self, training: Procedure[T], reply: Callable[[Asks], Replies]) -> T:
        """Drive a training `by_hand`, and keep all of it."""
        numbers = count()

        def kept(asks: Asks) -> Replies:
            replies, number = reply(asks), next(numbers)
            for site, one in replies.items():
                self._keep(number, site, asks[site], one)
            return replies

        return by_hand(training, kept)

    def _keep(self, number: int, site: SiteId, task: Any, reply: Reply) -> None:
        self.sent[number] = task.weights
        assert reply.weights is not None
        self.got[number, site] = w.subtract(reply.weights, task.weights)

    def update(self, round: int, site: SiteId) -> Weights:
        """See `History`."""
        hold(round < self.rounds, f"it asks for round {round}, which is still to come: see `case.rounds`")
        if not isinstance(self.needs.updates, Every | Last | None):
            chosen = self.chosen(round)
            hold(site in chosen, f"it asks for {site}'s update of round {round}; its choice kept {chosen}")
        hold(
            (round, site) in self.got,
            f"it asks for {site}'s update of round {round}, which did not ask {site}",
        )
        self.log.updates.add((round, site))
        return self.got[round, site]

    def chosen(self, round: int) -> tuple[SiteId, ...]:
        """See `History`: of hospitals with as many images each."""
        choice = self.needs.updates
        if isinstance(choice, Every | Last | None):
            raise Broken("it asks what a choice kept of training, but `needs.updates` declares none")
        return choose(choice, self.rounds, self.seen).get(round, ())

    def seen(self, round: int) -> Seen:
        """What a choice sees of a round."""
        updates = {site: self.trained(update) for (t, site), update in self.got.items() if t == round}
        return Seen(self.trained(self.sent[round]), updates, dict.fromkeys(updates, self.images))

    def trained(self, weights: Weights) -> Weights:
        """The trained tensors among ``weights``."""
        return {name: weights[name] for name in self.parameters}

    def cumulative(self, site: SiteId) -> Weights:
        """See `History`."""
        absent = [t for t in range(self.rounds) if (t, site) not in self.got]
        hold(not absent, f"it asks for {site}'s sum, but rounds {absent} did not ask {site}")
        self.log.cumulative.add(site)
        total: Weights = w.multiply(self.sent[0], 0.0)
        for t in range(self.rounds):
            update = self.got[t, site]
            if self.needs.cumulative == "distances":
                away = w.subtract(w.add(self.sent[t], update), self.sent[0])
                update = {name: x.abs() for name, x in away.items()}
            total = w.add(total, update)
        return total

    def checkpoint(self, round: int) -> Weights:
        """See `History`."""
        hold(round < self.rounds, f"it asks for round {round}, which is still to come: see `case.rounds`")
        self.log.checkpoints.add(round)
        return self.sent[round]

    def prepared(self, name: str) -> Weights:
        """See `History`."""
        self.log.prepared.add(name)
        return self.own[name]


@dataclass
class Asked:
    """A watcher that writes down who was asked in which round."""

    log: Log

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        self.log.asked += [(site, round.number) for site in round.asks]

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""


def answer(task: Task, site: SiteId, norm: bool = False) -> Reply:
    """What one hospital replies to one task."""
    return task(ToyLocal(site, network(norm), Log()))


def by_hand(procedure: Procedure[T], reply: Callable[[Asks], Replies]) -> T:
    """Drive a procedure with replies made up by ``reply``: no hospital, no driver."""
    try:
        asks = next(procedure)
        while True:
            asks = procedure.send(reply(asks))
    except StopIteration as stop:
        result: T = stop.value
        return result


LABEL = Label("unlearn", "request", "toy", 7)


def run(procedure: Procedure[T], link: ToyLink | None = None, watchers: Sequence[Watcher] = ()) -> T:
    """Drive one procedure to its end."""
    results: list[T] = []

    def keep(result: T) -> list[Job[Any]]:
        results.append(result)
        return []

    drive([Job(LABEL, procedure, keep)], link or ToyLink(), watchers)
    return results[0]

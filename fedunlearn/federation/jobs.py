"""What is run: jobs, whose procedures they are, who is told how they go, and what is remembered of them.

A job may be *kept*: then it says where its result goes and all that determines it (`Work`), and a `Memory` may give the
result back instead of running it again. Neither a procedure nor a strategy knows of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from fedunlearn.core import Asks, Procedure, Reply, SiteId, Weights
from fedunlearn.federation.engines import Answer, Ask

T = TypeVar("T")


@dataclass(frozen=True)
class Label:
    """Whose procedure it is: one row of the ledger and one bar on the screen.

    Attributes:
        phase: original, retrained, prepare (a strategy's own training), unlearn, continue (training that goes on
            after unlearning), shadow, evaluate, "probe …" (`fedunlearn.campaign.probing`) or slices
            (`fedunlearn.campaign.slices`).
        request: the request's id; empty before any request, ``@round`` where that is in the middle of training.
        strategy: the strategy's label in the scenario, "original" / "retrained", or a shadow's number.
        seed: the training seed.
    """

    phase: str
    request: str
    strategy: str
    seed: int

    def __str__(self) -> str:
        strategy = "" if self.strategy == self.phase else self.strategy
        return " ".join(filter(None, (self.phase, self.request, strategy, f"seed {self.seed}")))


@dataclass(frozen=True)
class Divergence:
    """Where a procedure's numbers ceased to be finite.

    Attributes:
        round: in which round, from 0; -1 if before the first.
        site: the hospital that replied NaN or infinity, the first in the order asked; None if the server made them
            of what the hospitals had replied by the end of that round.
        what: the name of the tensor.
    """

    round: int
    site: SiteId | None
    what: str

    def __str__(self) -> str:
        if self.site is not None:
            return f"at hospital {self.site} in round {self.round + 1}"
        return f"on the server {f'after round {self.round + 1}' if self.round >= 0 else 'before round 1'}"


# --------------------------------------------------------------------------------------------- what is kept


class Keeping(Protocol[T]):
    """How a result is kept as a file."""

    @property
    def file(self) -> str:
        """The file's place in the run folder."""
        ...

    def write(self, path: Path, result: T) -> None:
        """Write it to ``path``, whole or not at all."""
        ...

    def read(self, path: Path) -> T:
        """What `write` was given."""
        ...


@dataclass(frozen=True)
class Work(Generic[T]):
    """How a job's result is kept, and found again.

    Attributes:
        keeping: how.
        origin: all that determines the result, in values that JSON can write.
        beside: other files that watchers write while the job runs, by what they are; some may not come about.
        again: the job must run although its result is known, since watchers need to see its rounds; it must come to
            the same bits.
        dispensable: nobody needs the result itself, if it is gone: what follows is known as well. `Job.then` is given
            None in its place.
    """

    keeping: Keeping[T]
    origin: Mapping[str, object]
    beside: Mapping[str, str] = field(default_factory=dict)
    again: bool = False
    dispensable: bool = False


@dataclass(frozen=True)
class Job(Generic[T]):
    """A procedure to run, and the jobs that follow from it.

    Attributes:
        label: whose procedure it is.
        procedure: what to run.
        then: the jobs that its result makes possible.
        diverged: the jobs to go on with if its numbers cease to be finite; None if that must stop the run.
        work: how its result is kept; None if it is not.
        restart: the procedure from a round on, given the round's number and the model that it starts from; None if
            only the hospitals' answers can bring it back to where it was.
    """

    label: Label
    procedure: Procedure[T]
    then: Callable[[T], Iterable[Job[Any]]] = lambda result: ()
    diverged: Callable[[Divergence], Iterable[Job[Any]]] | None = None
    work: Work[T] | None = None
    restart: Callable[[int, Weights], Procedure[T]] | None = None


# ----------------------------------------------------------------------------------------------- who watches


@dataclass(frozen=True)
class Round:
    """One finished round, for those who watch: history, ledger, progress.

    Attributes:
        label: whose round.
        number: which, from 0.
        asks: what was asked, as the procedure asked it.
        answers: what came back, in the order asked; each has a reply, finite unless the procedure ends here, diverged.
        received: the bytes of every reply's arrays.
        server_seconds: time the procedure itself took to make these asks.
    """

    label: Label
    number: int
    asks: Asks
    answers: Mapping[SiteId, Answer]
    received: Mapping[SiteId, int]
    server_seconds: float


class Watcher(Protocol):
    """Hears of rounds and of procedures that end."""

    def round(self, round: Round) -> None:
        """A round is complete; its procedure has not gone on yet."""
        ...

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """A procedure ended after ``rounds`` rounds; ``server_seconds`` is the time of its last step."""
        ...


@runtime_checkable
class Hearing(Watcher, Protocol):
    """A watcher that is told of replies as they come, before their round is complete: it may begin its work on them."""

    def answered(self, label: Label, number: int, asks: Asks, site: SiteId, reply: Reply) -> None:
        """A reply that counts has come, and is in memory still. Its round tells of it again, in the order asked."""
        ...

    def rest(self) -> None:
        """No more will come, be it that all ended or that something went wrong: nothing may be at work any more."""
        ...


@runtime_checkable
class Remembering(Watcher, Protocol):
    """A watcher whose knowledge of a procedure can be kept, so that it need not see its rounds again."""

    @property
    def name(self) -> str:
        """What it is called among the watchers of a run."""
        ...

    def known(self, label: Label) -> object:
        """What it knows of a procedure, in values that JSON can write; None if nothing."""
        ...

    def recall(self, label: Label, known: Any) -> None:
        """Know again what `known` said, instead of seeing rounds."""
        ...


# -------------------------------------------------------------------------------------------- what is remembered


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How a job ended.

    Attributes:
        result: what its procedure returned; None if it diverged.
        divergence: where it diverged; None if it did not.
        rounds: how many it took.
        known: what watchers knew of it, by their names.
    """

    result: T | None
    divergence: Divergence | None
    rounds: int
    known: Mapping[str, object]


@dataclass(frozen=True)
class Checkpoint:
    """A job that can be restarted, between two rounds.

    Attributes:
        rounds: how many are done.
        weights: the model that the next round starts from.
        known: what watchers knew then, by their names.
    """

    rounds: int
    weights: Weights
    known: Mapping[str, object]


class Memory(Protocol):
    """What is known of jobs from before, and kept of them while they run."""

    def recall(self, job: Job[T]) -> Ended[T] | None:
        """How ``job`` ended, if it is known; nothing of it needs to be run then."""
        ...

    def reached(self, job: Job[Any]) -> Checkpoint | None:
        """How far ``job`` had come, if it can be restarted."""
        ...

    def answer(self, job: Job[Any], round: int, ask: Ask) -> Answer | None:
        """The answer to ``ask``, if it is known."""
        ...

    def answered(self, job: Job[Any], round: int, ask: Ask, answer: Answer) -> Answer:
        """Keep an answer that counts; return it to work with: its arrays may be somewhere else than in memory."""
        ...

    def passed(self, job: Job[Any], checkpoint: Checkpoint) -> None:
        """A round of a job that can be restarted is complete, and all watchers were told."""
        ...

    def ended(self, job: Job[T], ended: Ended[T]) -> None:
        """A job ended; what was kept of its rounds is not needed any more."""
        ...


class NoMemory:
    """Knows nothing, keeps nothing."""

    def recall(self, job: Job[T]) -> Ended[T] | None:
        """See `Memory`."""
        return None

    def reached(self, job: Job[Any]) -> Checkpoint | None:
        """See `Memory`."""
        return None

    def answer(self, job: Job[Any], round: int, ask: Ask) -> Answer | None:
        """See `Memory`."""
        return None

    def answered(self, job: Job[Any], round: int, ask: Ask, answer: Answer) -> Answer:
        """See `Memory`."""
        return answer

    def passed(self, job: Job[Any], checkpoint: Checkpoint) -> None:
        """See `Memory`."""

    def ended(self, job: Job[T], ended: Ended[T]) -> None:
        """See `Memory`."""

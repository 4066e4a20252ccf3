"""Many procedures over one federation, at once.

Whenever the replies complete a procedure's round it goes on; there is no barrier between procedures. All seeds,
retrainings and strategies of a scenario share the workers this way, and a round that asks one hospital leaves no
worker idle. Nothing here knows what a procedure computes or how an engine carries it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Asks,
    FedunlearnError,
    Procedure,
    Reply,
    RunError,
    SiteError,
    SiteId,
    Task,
    Weights,
)
from fedunlearn.federation.engines import Answer, Ask, Link

T = TypeVar("T")

_tickets = (
    itertools.count()
)  # of all drives: one may follow another over the same link, which late answers outlive
ADVICE = "training diverged; lower training.lr, or set training.clip"


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


@dataclass(frozen=True)
class Job(Generic[T]):
    """A procedure to run, and the jobs that follow from it.

    Attributes:
        label: whose procedure it is.
        procedure: what to run.
        then: the jobs that its result makes possible.
        diverged: the jobs to go on with if its numbers cease to be finite; None if that must stop the run.
    """

    label: Label
    procedure: Procedure[T]
    then: Callable[[T], Iterable[Job[Any]]] = lambda result: ()
    diverged: Callable[[Divergence], Iterable[Job[Any]]] | None = None


@dataclass(frozen=True)
class Round:
    """One finished round, for those who watch: history, ledger, progress.

    Attributes:
        label: whose round.
        number: which, from 0.
        asks: what was asked, as the procedure asked it.
        answers: what came back, in the order asked; each has a reply, finite unless the procedure ends here, diverged.
        server_seconds: time the procedure itself took to make these asks.
    """

    label: Label
    number: int
    asks: Asks
    answers: Mapping[SiteId, Answer]
    server_seconds: float


class Watcher(Protocol):
    """Hears of rounds and of procedures that end."""

    def round(self, round: Round) -> None:
        """A round is complete; its procedure has not gone on yet."""
        ...

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """A procedure ended after ``rounds`` rounds; ``server_seconds`` is the time of its last step."""
        ...


@dataclass(eq=False)
class _Running:
    """A procedure in flight and the round it waits for; ``spoiled`` has a tensor of each reply that is not finite."""

    job: Job[Any]
    number: int = -1
    asks: Asks = field(default_factory=dict)
    answers: dict[SiteId, Answer] = field(default_factory=dict)
    spoiled: dict[SiteId, str] = field(default_factory=dict)
    server_seconds: float = 0.0


def drive(jobs: Sequence[Job[Any]], link: Link, watchers: Sequence[Watcher] = (), retries: int = 0) -> None:
    """Run all ``jobs`` and the jobs that follow from them until none is left.

    A procedure whose numbers cease to be finite is closed at the end of that round, however its replies came, so that
    its cost and what is said of it are the same each time; the others do not notice.

    Args:
        jobs: where to start; the first ones are asked first.
        link: the hospitals.
        watchers: told of every round and every end, in this order.
        retries: how often a failed task is sent again before the run stops. Tasks give the same bits each time.

    Raises:
        SiteError: a hospital failed, or answered something that cannot be used. Nothing was averaged over it.
        RunError: the server failed, or came to numbers that are not finite in a job that may not diverge.
    """
    waiting = dict[int, tuple[_Running, SiteId, int]]()
    alive: list[_Running] = []

    def submit(running: _Running, sites: Iterable[SiteId], tries: int) -> None:
        asks = [Ask(next(_tickets), site, running.asks[site]) for site in sites]
        waiting.update({ask.ticket: (running, ask.site, tries) for ask in asks})
        link.submit(asks)

    def go_on(running: _Running) -> None:
        """Step until the procedure asks for something or ends; start what follows from its end."""
        following = _step(running, watchers)
        if following is None:
            submit(running, running.asks, 0)
            return
        alive.remove(running)
        for job in following:
            start(job)

    def start(job: Job[Any]) -> None:
        alive.append(running := _Running(job))
        go_on(running)

    try:
        for job in jobs:
            start(job)
        while waiting:
            for answer in link.collect():
                running, site, tries = waiting.pop(answer.ticket)
                problem, spoiled = _problem(running.asks[site], answer), _nonfinite(answer.reply)
                if (problem or spoiled) and tries < retries:
                    submit(running, [site], tries + 1)
                    continue
                if spoiled and running.job.diverged is None:
                    problem = problem or f"its reply holds NaN or infinity in {spoiled!r}: {ADVICE}"
                if problem:
                    raise SiteError(site, problem, str(running.job.label), running.number)
                running.answers[site] = answer
                if spoiled:
                    running.spoiled[site] = spoiled
                if len(running.answers) == len(running.asks):
                    go_on(running)
    finally:
        for running in alive:
            running.job.procedure.close()


def _step(running: _Running, watchers: Sequence[Watcher]) -> list[Job[Any]] | None:
    """Hand a finished round over and take the next asks; the following jobs if the procedure ended."""
    label, replies = running.job.label, None
    if running.number >= 0:
        answers = {site: running.answers[site] for site in running.asks}
        for watcher in watchers:
            watcher.round(Round(label, running.number, running.asks, answers, running.server_seconds))
        for site in running.asks:
            if site in running.spoiled:
                return _diverge(
                    running, Divergence(running.number, site, running.spoiled[site]), watchers, 0.0
                )
        replies = {site: answer.reply for site, answer in answers.items() if answer.reply is not None}
    began = time.perf_counter()
    try:
        asks: Asks = running.job.procedure.send(replies)  # type: ignore[arg-type]  # the first send must be None
    except StopIteration as stop:
        seconds = time.perf_counter() - began
        if spoiled := _nonfinite(stop.value):
            return _diverge(running, Divergence(running.number, None, spoiled), watchers, seconds)
        for watcher in watchers:
            watcher.end(label, running.number + 1, seconds)
        return list(running.job.then(stop.value))
    except FedunlearnError:
        raise
    except Exception as error:
        raise RunError(f"{label} failed on the server in round {running.number + 2}: {error!r}") from error
    seconds = time.perf_counter() - began
    if not asks:
        raise RunError(f"{label} asked no hospital in round {running.number + 2}")
    for sent in {id(weights): weights for weights in map(_sent, asks.values())}.values():
        if spoiled := _nonfinite(sent):
            return _diverge(running, Divergence(running.number, None, spoiled), watchers, seconds)
    running.asks, running.answers = asks, {}
    running.number, running.server_seconds = running.number + 1, seconds
    return None


def _diverge(
    running: _Running, found: Divergence, watchers: Sequence[Watcher], seconds: float
) -> list[Job[Any]]:
    """End a procedure here; the jobs to go on with.

    Raises:
        RunError: the job may not diverge.
    """
    label, diverged = running.job.label, running.job.diverged
    if diverged is None:
        raise RunError(f"{label} came to NaN or infinity in {found.what!r} {found}: {ADVICE}")
    running.job.procedure.close()
    for watcher in watchers:
        watcher.end(label, running.number + 1, seconds)
    return list(diverged(found))


def _sent(task: Task) -> Weights | None:
    """The model that a task sends, if it is a task that does."""
    return getattr(task, "weights", None)


def _problem(task: Task, answer: Answer) -> str | None:
    """Why an answer cannot be used, or None."""
    reply, sent = answer.reply, _sent(task)
    if reply is None:
        return answer.error or "no reply"
    if reply.count < 0:
        return f"its reply speaks for {reply.count} images"
    if reply.weights is not None and sent is not None and (odd := w.first_difference(sent, reply.weights)):
        return f"its reply does not fit the model: {odd}"
    return None


def _nonfinite(value: object) -> str | None:
    """The first tensor with NaN or infinity in a reply, in named tensors or models; None if there is none."""
    match value:
        case Reply():
            return _nonfinite(value.weights) or _nonfinite(value.arrays)
        case Mapping():
            found = w.first_nonfinite({str(k): x for k, x in value.items() if isinstance(x, Tensor)})
            return found or next(filter(None, map(_nonfinite, value.values())), None)
    return None

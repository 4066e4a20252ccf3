"""Many procedures over one federation, at once.

Whenever the replies complete a procedure's round it goes on; there is no barrier between procedures. All seeds,
retrainings and strategies of a scenario share the workers this way, and a round that asks one hospital leaves no
worker idle. Nothing here knows what a procedure computes or how an engine carries it.

What a `Memory` knows is not asked again: a job that ended before is recalled, one that can be restarted goes on from
its last round, and of any other the answers are given again until the first that is not known. Bits are the same.
"""

from __future__ import annotations

import itertools
import time
from collections import ChainMap, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor

from fedunlearn import interrupts, weights as w
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
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Answer, Ask, Link
from fedunlearn.federation.jobs import (
    Checkpoint,
    Divergence,
    Ended,
    Hearing,
    Job,
    Memory,
    NoMemory,
    Remembering,
    Round,
    Watcher,
)

T = TypeVar("T")

# Tickets of all drives: one may follow another over the same link, which late answers outlive.
_tickets = itertools.count()
ADVICE = "training diverged; lower training.lr, or set training.clip"


def drive(
    jobs: Sequence[Job[Any]],
    link: Link,
    watchers: Sequence[Watcher] = (),
    retries: int = 0,
    memory: Memory | None = None,
    most: int | None = None,
) -> None:
    """Run all ``jobs`` and the jobs that follow from them until none is left.

    A procedure whose numbers cease to be finite is closed at the end of that round, however its replies came, so that
    its cost and what is said of it are the same each time; the others do not notice.

    Args:
        jobs: where to start; the first ones are asked first.
        link: the hospitals.
        watchers: told of every round and every end, in this order.
        retries: how often a failed task is sent again before the run stops. Tasks give the same bits each time.
        memory: what is known from before, and where answers and results are kept; None for nothing and nowhere.
        most: so many procedures are under way at once, since each holds models in memory; None for all that can be.
            What follows from a job comes before jobs that wait.

    Raises:
        SiteError: a hospital failed, or answered something that cannot be used. Nothing was averaged over it.
        RunError: the server failed, or came to numbers that are not finite in a job that may not diverge.
    """
    hearing = [watcher for watcher in watchers if isinstance(watcher, Hearing)]
    run = _Drive(link, watchers, hearing, retries, memory or NoMemory(), most, deque(jobs))
    try:
        run.hire()
        while run.waiting:
            for answer in run.collect():
                run.take(answer)
            run.hire()
    finally:
        for watcher in run.hearing:
            watcher.rest()
        for running in run.alive:
            running.procedure.close()


@dataclass(eq=False)
class _Running(Generic[T]):
    """A procedure in flight and the round it waits for; ``spoiled`` has a tensor of each reply that is not finite."""

    job: Job[T]
    procedure: Procedure[T]
    number: int = -1
    asks: Asks = field(default_factory=dict)
    answers: dict[SiteId, Answer] = field(default_factory=dict)
    received: dict[SiteId, int] = field(default_factory=dict)
    spoiled: dict[SiteId, str] = field(default_factory=dict)
    server_seconds: float = 0.0


@dataclass(eq=False)
class _Drive:
    """What is under way: procedures, asks without an answer, and jobs that wait for their turn."""

    link: Link
    watchers: Sequence[Watcher]
    hearing: Sequence[Hearing]
    retries: int
    memory: Memory
    most: int | None
    queue: deque[Job[Any]]
    alive: list[_Running[Any]] = field(default_factory=list)
    waiting: dict[int, tuple[_Running[Any], Ask, int]] = field(default_factory=dict)
    known: deque[Answer] = field(default_factory=deque)

    def hire(self) -> None:
        """Start jobs that wait, as many as may be under way."""
        while self.queue and (self.most is None or len(self.alive) < self.most):
            interrupts.check()  # much may be known: then nobody waits for a hospital, where signals are looked for
            job = self.queue.popleft()
            if (ended := self.memory.recall(job)) is not None:
                self._follow(self._recalled(job, ended))
                continue
            self.alive.append(running := self._begun(job))
            self._go_on(running)

    def collect(self) -> Sequence[Answer]:
        """Answers that are known already; else whatever comes next."""
        if not self.known:
            return self.link.collect()
        interrupts.check()
        answers = tuple(self.known)
        self.known.clear()
        return answers

    def take(self, answer: Answer) -> None:
        """Use an answer, or ask again; the procedure goes on once its round is complete."""
        running, ask, tries = self.waiting.pop(answer.ticket)
        problem, spoiled = _problem(ask.task, answer), _nonfinite(answer.reply)
        if (problem or spoiled) and tries < self.retries:
            self._submit(running, [ask.site], tries + 1)
            return
        if spoiled and running.job.diverged is None:
            problem = problem or f"its reply holds NaN or infinity in {spoiled!r}: {ADVICE}"
        if problem:
            several = len(self.link.machines) > 1  # of one alone, everybody knows which it was
            machine = answer.machine if several else ""
            raise SiteError(ask.site, problem, str(running.job.label), running.number, machine)
        reply: Reply = answer.reply  # type: ignore[assignment]  # else there is a problem
        running.received[ask.site] = wire.size(reply)
        for watcher in self.hearing:
            watcher.answered(running.job.label, running.number, running.asks, ask.site, reply)
        running.answers[ask.site] = self.memory.answered(running.job, running.number, ask, answer)
        if spoiled:
            running.spoiled[ask.site] = spoiled
        if len(running.answers) == len(running.asks):
            self._go_on(running)

    # -------------------------------------------------------------------------------------------- pieces

    def _begun(self, job: Job[T]) -> _Running[T]:
        """A job at its start, or where its last round left it."""
        reached = self.memory.reached(job) if job.restart is not None else None
        if reached is None or job.restart is None:
            return _Running(job, job.procedure)
        for watcher in self.watchers:
            if isinstance(watcher, Remembering):
                watcher.recall(job.label, reached.known.get(watcher.name))
        return _Running(job, job.restart(reached.rounds, reached.weights), reached.rounds - 1)

    def _recalled(self, job: Job[T], ended: Ended[T]) -> Iterable[Job[Any]]:
        """Tell all who watch of a job that ended before; the jobs that follow."""
        for watcher in self.watchers:
            if isinstance(watcher, Remembering):
                watcher.recall(job.label, ended.known.get(watcher.name))
            else:
                watcher.end(job.label, ended.rounds, 0.0)
        return _following(job, ended)

    def _go_on(self, running: _Running[Any]) -> None:
        """Step until the procedure asks for something or ends; start what follows from its end."""
        following = self._step(running)
        if following is None:
            self._submit(running, running.asks, 0)
            return
        self.alive.remove(running)
        self._follow(following)

    def _follow(self, jobs: Iterable[Job[Any]]) -> None:
        """Put jobs before those that wait, in their order."""
        self.queue.extendleft(reversed(list(jobs)))

    def _submit(self, running: _Running[Any], sites: Iterable[SiteId], tries: int) -> None:
        asks = [Ask(next(_tickets), site, running.asks[site]) for site in sites]
        self.waiting.update({ask.ticket: (running, ask, tries) for ask in asks})
        known = {}
        if not tries:
            known = {ask.ticket: self.memory.answer(running.job, running.number, ask) for ask in asks}
        self.known.extend(answer for answer in known.values() if answer is not None)
        self.link.submit([ask for ask in asks if known.get(ask.ticket) is None])

    def _step(self, running: _Running[T]) -> Iterable[Job[Any]] | None:
        """Hand a finished round over and take the next asks; the following jobs if the procedure ended."""
        label, replies = running.job.label, None
        if running.asks:
            if (found := self._complete(running)) is not None:
                return self._diverge(running, found, 0.0)
            replies = {site: running.answers[site].reply for site in running.asks}
        began = time.perf_counter()
        try:
            asks: Asks = running.procedure.send(replies)  # type: ignore[arg-type]  # the first send must be None
        except StopIteration as stop:
            return self._end(running, stop.value, time.perf_counter() - began)
        except FedunlearnError:
            raise
        except Exception as error:
            raise RunError(
                f"{label} failed on the server in round {running.number + 2}: {error!r}"
            ) from error
        seconds = time.perf_counter() - began
        if not asks:
            raise RunError(f"{label} asked no hospital in round {running.number + 2}")
        for sent in {id(weights): weights for weights in map(_sent, asks.values())}.values():
            if spoiled := _nonfinite(sent):
                return self._diverge(running, Divergence(running.number, None, spoiled), seconds)
        if running.asks and running.job.restart is not None and (model := in_hand(asks)) is not None:
            self.memory.passed(running.job, Checkpoint(running.number + 1, model, self._knowledge(running)))
        running.asks, running.answers, running.received = asks, {}, {}
        running.number, running.server_seconds = running.number + 1, seconds
        return None

    def _complete(self, running: _Running[Any]) -> Divergence | None:
        """Tell all who watch of a finished round; where it diverged, if it did."""
        answers = {site: running.answers[site] for site in running.asks}
        number, seconds = running.number, running.server_seconds
        for watcher in self.watchers:
            watcher.round(Round(running.job.label, number, running.asks, answers, running.received, seconds))
        lost = next((site for site in running.asks if site in running.spoiled), None)
        return None if lost is None else Divergence(number, lost, running.spoiled[lost])

    def _end(self, running: _Running[T], result: T, seconds: float) -> Iterable[Job[Any]]:
        """The procedure returned; the jobs that follow."""
        if spoiled := _nonfinite(result):
            return self._diverge(running, Divergence(running.number, None, spoiled), seconds)
        return self._over(running, _loaded(result), None, seconds)

    def _diverge(self, running: _Running[Any], found: Divergence, seconds: float) -> Iterable[Job[Any]]:
        """End a procedure here; the jobs to go on with.

        Raises:
            RunError: the job may not diverge.
        """
        if running.job.diverged is None:
            raise RunError(f"{running.job.label} came to NaN or infinity in {found.what!r} {found}: {ADVICE}")
        running.procedure.close()
        return self._over(running, None, found, seconds)

    def _over(
        self, running: _Running[T], result: T | None, found: Divergence | None, seconds: float
    ) -> Iterable[Job[Any]]:
        for watcher in self.watchers:
            watcher.end(running.job.label, running.number + 1, seconds)
        ended = Ended(result, found, running.number + 1, self._knowledge(running))
        self.memory.ended(running.job, ended)
        return _following(running.job, ended)

    def _knowledge(self, running: _Running[Any]) -> dict[str, object]:
        """What watchers know of a procedure, by their names."""
        remembering = (watcher for watcher in self.watchers if isinstance(watcher, Remembering))
        known = {watcher.name: watcher.known(running.job.label) for watcher in remembering}
        return {name: value for name, value in known.items() if value is not None}


def in_hand(asks: Asks) -> Weights | None:
    """The one model that a round sends; None if it sends none, or several, or others than the one in hand."""
    if isinstance(asks, ChainMap):
        return None
    sent = {id(model): model for model in map(_sent, asks.values()) if model is not None}
    return next(iter(sent.values())) if len(sent) == 1 else None


def _following(job: Job[T], ended: Ended[T]) -> Iterable[Job[Any]]:
    """The jobs to go on with."""
    if ended.divergence is None:
        return job.then(ended.result)  # type: ignore[arg-type]  # a job whose result is None is one of nothing
    return () if job.diverged is None else job.diverged(ended.divergence)


def _loaded(value: Any) -> Any:
    """``value`` in memory: a reply that is returned as it came may be where a memory keeps answers, which now ends."""
    if not isinstance(value, Mapping):
        return value
    loaded = {key: _loaded(item) for key, item in value.items()}
    same = isinstance(value, dict) and all(item is value[key] for key, item in loaded.items())
    return value if same else loaded


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
            tensors = {str(k): x for k, x in value.items() if isinstance(x, Tensor)}
            others = value.values() if len(tensors) < len(value) else ()
            return w.first_nonfinite(tensors) or next(filter(None, map(_nonfinite, others)), None)
    return None

"""The memory of a run: finished work in its store, work under way in its journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fedunlearn.core import RunError
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.jobs import Checkpoint, Divergence, Ended, Job, Work
from fedunlearn.federation.journal import Journal
from fedunlearn.results.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """What a run folder remembers of jobs (`fedunlearn.federation.jobs.Memory`).

    Attributes:
        store: results of jobs that say how theirs are kept.
        journal: answers and checkpoints of all jobs under way.
    """

    store: Store
    journal: Journal

    def recall(self, job: Job[T]) -> Ended[T] | None:
        """See `Memory`. What is damaged here is done again.

        Raises:
            RunError: a file of an earlier run, from which it was to be taken, is damaged.
        """
        work = job.work
        if work is None or work.again:
            return None
        record = self.store.find(work.keeping.file, work.origin, work.beside)
        if record is None or not self.store.whole(record):
            return None
        facts = record.facts
        found = None if facts["divergence"] is None else Divergence(**facts["divergence"])
        if found is None and not record.files and not work.dispensable:
            return None
        read = found is None and bool(record.files)
        result = work.keeping.read(self.store.run.path / work.keeping.file) if read else None
        return Ended(result, found, facts["rounds"], facts["known"])

    def reached(self, job: Job[Any]) -> Checkpoint | None:
        """See `Memory`."""
        return self.journal.reached(job.label)

    def answer(self, job: Job[Any], round: int, ask: Ask) -> Answer | None:
        """See `Memory`."""
        return self.journal.answer(job.label, round, ask)

    def answered(self, job: Job[Any], round: int, ask: Ask, answer: Answer) -> Answer:
        """See `Memory`."""
        return self.journal.answered(job.label, round, ask, answer)

    def passed(self, job: Job[Any], checkpoint: Checkpoint) -> None:
        """See `Memory`."""
        self.journal.passed(job.label, checkpoint)

    def ended(self, job: Job[T], ended: Ended[T]) -> None:
        """See `Memory`.

        Raises:
            RunError: a file cannot be written; or a job that was done again came to something else.
        """
        if job.work is not None:
            self._keep(job, job.work, ended)
        self.journal.drop(job.label)

    def _keep(self, job: Job[T], work: Work[T], ended: Ended[T]) -> None:
        before = self.store.known(work.keeping.file, work.origin) if work.again else None
        if ended.divergence is None:
            work.keeping.write(self.store.run.path / work.keeping.file, ended.result)  # type: ignore[arg-type]  # of a job that ended well
        if before is not None and not self.store.same(work.keeping.file, before):
            raise RunError(
                f"{job.label} was trained again for what strategies need of its history, and came to other bits than "
                "before: do not reuse that run here"
            )
        found = None if ended.divergence is None else asdict(ended.divergence)
        facts = {
            "label": asdict(job.label),
            "rounds": ended.rounds,
            "divergence": found,
            "known": ended.known,
        }
        self.store.keep(work.keeping.file, facts, work.origin, work.beside)

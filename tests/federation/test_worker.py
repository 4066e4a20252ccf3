"""The worker half in this process, without Ray: one desk at a time, and nothing more from whoever is unfit."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedunlearn.core import Form, LocalTraining, Select
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.flower import claims, cluster as clusters, keeper, worker
from fedunlearn.federation.engines.flower.worker import ARRAYS, Actor, Errand
from fedunlearn.learning.models import SmallCNN, initial_weights
from fedunlearn.learning.tasks import Fit
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import Message

pytestmark = pytest.mark.gate  # it imports Flower

WEIGHTS = initial_weights(SmallCNN(), Form((3, 8, 8), 2), seed=1)

Work = Callable[[Path, float], "Message"]
"""Has an actor train at a hospital of a federation, for so many seconds at the most."""


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    with clusters.environment(tmp_path), clusters.quiet():
        from fedunlearn.federation.engines.flower.grid import HospitalGrid

        actor, grid = Actor(0.0), HospitalGrid(("north",), lambda message: None)

        def ask(federation: Path, timeout: float) -> Message:
            task = Fit(WEIGHTS, Select(), LocalTraining(), seed=3)
            content = worker.record(Errand((Ask(0, "north", task),), timeout, worker.code()))
            arrays = content.pop(ARRAYS)
            message = grid.create_message(content, "train.ask", grid.nodes["north"], "")
            return actor.work(message, arrays, str(federation))  # type: ignore[arg-type]

        yield ask


def federation(place: Path) -> Path:
    """Six images, in a folder as a keeper makes it; its lock is nobody's."""
    folder, lock = claims.claim(str(place), keeper.PREFIX)
    os.close(lock)
    pixels, targets = np.zeros((6, 3, 8, 8), dtype=np.uint8), np.arange(6) % 2
    Federation.write(folder, pixels, targets, np.full(6, "north"), np.full(6, "train"), {}, SmallCNN(), 2)
    return folder


def is_held(folder: Path) -> bool:
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False


def test_the_hospitals_before_are_let_go_before_the_next_are_opened(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = federation(tmp_path), federation(tmp_path)
    opens, threads, held = Federation.open, set(threading.enumerate()), list[tuple[bool, int]]()

    def note(folder: Path) -> Federation:
        held.append((is_held(first), len(set(threading.enumerate()) - threads)))
        return opens(folder)

    monkeypatch.setattr(Federation, "open", note)
    for folder in (first, first, second):
        assert worker.fit(work(folder, 60.0))
    assert held == [(True, 0), (False, 0)] and is_held(second)


def test_who_is_unfit_says_so_and_nothing_more(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer to a second task might be read before the first one's, which would be given to others then."""
    over = threading.Event()

    def hang(_: object, __: object, asks: Sequence[Ask]) -> Sequence[Answer]:
        over.wait()
        return [Answer(ask.ticket, None, "late", 0.0, 0) for ask in asks]

    monkeypatch.setattr(worker, "perform", hang)
    folder, said = federation(tmp_path), threading.Event()
    try:
        assert not worker.fit(work(folder, 0.1))

        def again() -> None:
            try:
                work(folder, 0.1)
            finally:
                said.set()

        threading.Thread(target=again, daemon=True).start()
        assert not said.wait(0.5)
    finally:
        over.set()

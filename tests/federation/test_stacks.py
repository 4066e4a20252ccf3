"""Asks that are done several at once: who waits for whom, and that company changes no bit and is nobody's failure."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedunlearn import weights as w
from fedunlearn.core import Form, Local, LocalTraining, Reply, Select
from fedunlearn.federation.engines import Answer, Ask, inline, work
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import here
from fedunlearn.federation.engines.stacks import Stacks, width
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.learning.models import Mlp, initial_weights
from fedunlearn.learning.objectives import Signed
from fedunlearn.learning.tasks import Fit
from sites.hospital import Federation
from tests.runs import run, weight_files

COUNTS = {"north": 9, "east": 9, "west": 6}
STACK = LocalTraining(batch_size=4, stack=3)
MODEL, FORM = Mlp(hidden=4), Form((5,), 2)
WEIGHTS = [initial_weights(MODEL, FORM, seed) for seed in range(4)]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    rng, site = np.random.default_rng(0), np.repeat(list(COUNTS), list(COUNTS.values()))
    pixels, targets = rng.normal(size=(len(site), 5)).astype(np.float32), rng.integers(0, 2, len(site))
    forgotten = {"some": np.arange(len(site)) < 2}
    Federation.write(tmp_path, pixels, targets, site, np.full(len(site), "train"), forgotten, MODEL, 2)
    return Federation.open(tmp_path)


def fit(seed: int = 0, training: LocalTraining = STACK, select: Select = Select()) -> Fit:  # noqa: B008 - frozen
    return Fit(WEIGHTS[seed], select, training, seed)


@dataclass(frozen=True)
class Other:
    """A task that is done alone."""

    def __call__(self, local: Local) -> Reply:
        return Reply(None, 1)


def test_images_are_counted_without_being_gathered(federation: Federation) -> None:
    assert [federation.count(site, Select()) for site in COUNTS] == [9, 9, 6]
    assert federation.count("north", Select(without=("some",))) == 7
    assert federation.count("north", Select(only="some")) == 2
    assert federation.count("north", Select(split="val")) == 0
    assert federation.count("nobody", Select()) == federation.count("north", Select(only="unknown")) == 0


def test_only_training_as_it_is_can_be_stacked() -> None:
    assert (width(fit()), width(fit(training=LocalTraining())), width(Other())) == (3, 1, 1)
    assert width(replace(fit(), objective=Signed(CrossEntropy(), -1.0, 0.0))) == 1


def test_asks_of_one_training_on_as_many_images_are_a_stack_wherever_they_are(federation: Federation) -> None:
    stacks, faster = Stacks(federation), replace(STACK, lr=1.0)
    given = [
        Ask(0, "north", fit()),
        Ask(1, "west", fit()),  # fewer images
        Ask(2, "east", fit(1, faster)),  # another rate
        Ask(3, "east", fit(1)),
        Ask(4, "north", fit(2)),
        Ask(5, "north", fit(3)),
    ]
    assert all(stacks.add(ask) for ask in given) and not stacks.add(Ask(6, "north", Other()))
    assert len(stacks) == 6
    assert [ask.ticket for ask in stacks.full()] == [0, 3, 4] and not stacks.full()
    rest = [[ask.ticket for ask in stacks.rest()] for _ in range(4)]
    assert rest == [[1], [2], [5], []] and len(stacks) == 0


def waiting(federation: Federation, *asks: Ask) -> inline._Waiting:
    found = inline._Waiting(Stacks(federation))
    found.add(asks)
    return found


def test_full_stacks_go_first_and_others_last(federation: Federation) -> None:
    single, full = Ask(9, "west", fit()), [Ask(i, "north", fit()) for i in range(3)]
    asks = waiting(federation, single, Ask(8, "north", Other()), *full)
    assert [ask.ticket for ask in asks.take()] == [0, 1, 2]
    assert [ask.ticket for ask in asks.take()] == [8]
    asks.settle()
    assert asks.take() == (single,)


def test_a_stack_waits_for_others_until_nobody_can_come(federation: Federation) -> None:
    """The driver that gives them says so when it waits for answers; an answer makes it go on."""
    asks, taken = waiting(federation, Ask(0, "north", fit())), list[Sequence[Ask]]()
    thread = threading.Thread(target=lambda: taken.append(asks.take()), daemon=True)
    asks.settle()
    asks.stir()
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and not taken
    asks.add([Ask(1, "east", fit(1))])
    thread.join(0.2)
    assert thread.is_alive() and not taken
    asks.settle()
    thread.join(10)
    assert [[ask.ticket for ask in found] for found in taken] == [[0, 1]]


def test_a_failure_in_a_stack_is_one_hospitals(federation: Federation) -> None:
    """Each is done alone then, to the same bits."""
    network = federation.network()
    asks = [Ask(i, site, fit(i)) for i, site in enumerate(("north", "east"))]
    wrong = Ask(2, "north", replace(fit(2), weights={}))
    good = work.perform(federation, network, asks)
    spoiled = work.perform(federation, network, [*asks, wrong])
    assert [answer.error is None for answer in spoiled] == [True, True, False]
    for one, other in zip(good, spoiled, strict=False):
        assert one.reply is not None and other.reply is not None
        assert one.reply.weights is not None and other.reply.weights is not None
        assert w.digest(one.reply.weights) == w.digest(other.reply.weights)
        assert one.images == other.images == 9 and one.reply.count == 9


def test_a_stack_that_is_late_is_answered_for_by_one_new_worker(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def perform(federation: Federation, network: Any, asks: Sequence[Ask]) -> Sequence[Answer]:
        release.wait(30)
        return [Answer(ask.ticket, Reply(None, 1), None, 0.0, 0) for ask in asks]

    monkeypatch.setattr(inline, "perform", perform)
    link = inline._Link(federation, 1, 0.2, "cpu", here())
    link.submit([Ask(i, "north", fit(i)) for i in range(3)])
    late = link.collect()
    assert {answer.ticket: answer.error for answer in late} == dict.fromkeys(
        range(3), "no answer within 0.2 s"
    )
    assert len(link._threads) == 2
    release.set()
    link.close()


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_a_run_has_the_same_bits_whoever_is_in_a_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With one worker or three; and a seed's models are those of a run with that seed alone."""
    stack, honest, sizes = "training.stack=2", work._together, list[int]()

    def together(federation: Federation, network: Any, asks: Sequence[Ask]) -> Sequence[Answer]:
        sizes.append(len(asks))
        return honest(federation, network, asks)

    monkeypatch.setattr(work, "_together", together)
    whole = weight_files(run(tmp_path, stack, "engine.workers=3", name="whole"))
    assert weight_files(run(tmp_path, stack, "engine.workers=1", name="one")) == whole
    alone = weight_files(run(tmp_path, stack, "seeds=[2]", "references=1", name="alone"))
    assert alone and all(whole[name] == content for name, content in alone.items())
    assert len(sizes) > 2 * 2 * 3 and set(sizes) == {
        2
    }  # runs, rounds, hospitals: what all seeds' trainings are


@pytest.mark.gate
def test_the_engine_counts_a_stacks_passes_by_its_trainings(federation: Federation) -> None:
    def body(link: Any) -> dict[int, int]:
        link.submit([Ask(i, "north", fit(i)) for i in range(4)])
        found: dict[int, int] = {}
        while len(found) < 4:
            found |= {answer.ticket: answer.images for answer in link.collect()}
        return found

    assert Inline(workers=1).run(federation.folder, body) == dict.fromkeys(range(4), 9)


@pytest.mark.gate  # it imports Flower
def test_stacks_travel_in_one_message_and_others_wait_for_idle_workers(federation: Federation) -> None:
    from fedunlearn.federation.engines.flower.messages import Messages

    session: Any = SimpleNamespace(grid=None, federation=federation, room=6, workers=2)
    messages, idle = Messages(session, lambda asks: asks), True  # type: ignore[arg-type,return-value]
    for ask in [Ask(i, "north", fit()) for i in range(4)]:
        messages._stacks.add(ask)
    assert [ask.ticket for ask in messages._next(settled=False)] == [0, 1, 2]
    assert messages._next(settled=False) == ()
    messages._sent = {"one": (), "two": ()}
    assert messages._next(settled=idle) == ()
    del messages._sent["two"]
    assert [ask.ticket for ask in messages._next(settled=idle)] == [3]

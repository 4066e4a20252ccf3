"""Which asks travel together: as much work as is known of, of one kind, about one model; after a loss, each alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from fedunlearn.core import Local, Reply, Weights
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.flower.bundles import Bundles

MODEL: Weights = {"w": torch.zeros(1000)}
OTHER: Weights = {"w": torch.zeros(1000)}
HUGE: Weights = {"w": torch.zeros(1).expand(2**21 // 3)}  # three to 8 MB


@dataclass(frozen=True)
class Quick:
    """A task that is done in no time."""

    weights: Weights

    def __call__(self, local: Local) -> Reply:
        return Reply(None, 1)


@dataclass(frozen=True)
class Slow:
    """Another kind."""

    weights: Weights

    def __call__(self, local: Local) -> Reply:
        return Reply(None, 1)


def asks(count: int, weights: Weights = MODEL, kind: type[Quick | Slow] = Quick) -> list[Ask]:
    return [Ask(ticket, f"h{ticket}", kind(weights)) for ticket in range(count)]


def knowing(seconds: float, share: int = 1) -> Bundles:
    bundles = Bundles(share)
    bundles.took(asks(1)[0], Answer(0, None, None, seconds, 1))
    return bundles


def taken(bundles: Bundles) -> list[int]:
    sizes = []
    while len(bundles):
        sizes.append(len(bundles.take()))
    return sizes


def test_what_nobody_knows_the_time_of_travels_alone() -> None:
    bundles = Bundles()
    bundles.add(asks(3))
    assert taken(bundles) == [1, 1, 1]


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        (0.01, [10, 10, 10]),  # a tenth of a second each
        (0.03, [3] * 10),
        (0.2, [1] * 30),
        (0.0, [30]),
    ],
)
def test_a_bundle_is_a_tenth_of_a_second_of_work(seconds: float, sizes: list[int]) -> None:
    bundles = knowing(seconds)
    bundles.add(asks(30))
    assert taken(bundles) == sizes


def test_no_bundle_is_endless() -> None:
    bundles = knowing(0.0)
    bundles.add(asks(100))
    assert taken(bundles) == [64, 36]


def test_what_waits_is_shared_among_those_who_work() -> None:
    """Of 10 asks, four messages under way get 3, then a quarter of what is left, rounded up: 2, 2, 1, 1, 1."""
    bundles = knowing(0.0, share=4)
    bundles.add(asks(10))
    assert taken(bundles) == [3, 2, 2, 1, 1, 1]


def test_replies_of_a_bundle_are_few_bytes() -> None:
    bundles = knowing(0.0)
    bundles.add(asks(7, HUGE))
    assert taken(bundles) == [3, 3, 1]


def test_a_bundle_is_of_one_kind_and_about_one_model() -> None:
    bundles = knowing(0.0)
    bundles.add([*asks(2), *asks(2, OTHER), *asks(2, OTHER, Slow)])
    assert taken(bundles) == [2, 2, 1, 1], "of the slow kind, nobody knows how long it takes"


def test_the_order_is_kept_and_what_was_sent_in_vain_comes_first() -> None:
    bundles = knowing(0.0)
    all_ = asks(6)
    bundles.add(all_[4:])
    bundles.again(all_[2:4], alone=False)
    bundles.again(all_[:2], alone=True)
    assert [[ask.ticket for ask in bundles.take()] for _ in range(3)] == [[0], [1], [2, 3, 4, 5]]
    assert len(bundles) == 0


def test_how_long_tasks_take_is_learnt_slowly() -> None:
    """One that takes .9 s among those of 0 s: .09 s are expected of the next, and ten like it make it .09 * .9^10."""
    bundles = knowing(0.0)
    bundles.took(asks(1)[0], Answer(0, None, None, 0.9, 1))
    bundles.add(asks(2))
    assert taken(bundles) == [1, 1]
    for _ in range(10):
        bundles.took(asks(1)[0], Answer(0, None, None, 0.0, 1))
    bundles.add(asks(4))
    assert taken(bundles) == [3, 1], "0.031 s each"


class Grid:
    """Only notes what is sent; a test says what comes of it, by the number of a message."""

    def __init__(self) -> None:
        self.nodes = {f"h{number}": number for number in range(9)}
        self.sent = list[tuple[Ask, ...]]()
        self.replies = dict[str, Any]()

    def push_messages(self, messages: list[Any]) -> list[str]:
        self.sent += messages
        return [str(len(self.sent) - 1)]

    def pull_messages(self, numbers: list[str]) -> list[Any]:
        return [self.replies.pop(number) for number in numbers if number in self.replies]

    def wait(self, seconds: float) -> None:
        """Replies are there as soon as there are messages."""

    def reply(self, number: int, answers: tuple[Answer, ...] | None) -> None:
        """What came of a message; None if workers were lost over it."""
        about = SimpleNamespace(reply_to_message_id=str(number))
        self.replies[str(number)] = SimpleNamespace(
            metadata=about,
            content=answers,
            error=SimpleNamespace(reason="lost"),
            has_error=lambda: answers is None,
        )


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Grid:
    messages = pytest.importorskip("fedunlearn.federation.engines.flower.messages")
    monkeypatch.setattr(messages, "record", lambda asks, recorded: asks)
    monkeypatch.setattr(messages, "Message", lambda asks, node, kind: asks)
    monkeypatch.setattr(messages, "value", lambda answers: answers)
    return Grid()


def link(grid: Grid) -> Any:
    """The server half over ``grid``, with room for one message, that knows `Quick` tasks to take no time."""
    from fedunlearn.federation.engines.flower.messages import Messages

    session = SimpleNamespace(grid=grid, room=1, workers=1, federation=None, check=lambda: None, machines=())
    messages = Messages(cast(Any, session), cast(Any, lambda asks: asks))
    messages.submit([replace(asks(1)[0], ticket=99)])
    grid.reply(0, (Answer(99, None, None, 0.0, 1),))
    assert [answer.ticket for answer in messages.collect()] == [99]
    return messages


def answered(*tickets: int) -> tuple[Answer, ...]:
    return tuple(Answer(ticket, Reply(None, 1), None, 0.0, 1) for ticket in tickets)


@pytest.mark.gate  # it imports Flower
def test_answers_are_one_for_each_ask_and_one_failure_is_one_hospitals(grid: Grid) -> None:
    messages = link(grid)
    messages.submit(asks(3))
    first, last = answered(0, 2)
    grid.reply(1, (first, Answer(1, None, "ValueError: no", 0.0, 0), last))
    got = messages.collect()
    assert [len(bundle) for bundle in grid.sent] == [1, 3]
    assert [(answer.ticket, answer.error) for answer in got] == [(0, None), (1, "ValueError: no"), (2, None)]


@pytest.mark.gate
def test_what_a_worker_did_not_begin_is_sent_again(grid: Grid) -> None:
    messages = link(grid)
    messages.submit(asks(4))
    grid.reply(1, answered(0))
    assert [answer.ticket for answer in messages.collect()] == [0]
    grid.reply(2, answered(1, 2, 3))
    assert [answer.ticket for answer in messages.collect()] == [1, 2, 3]
    assert [[ask.ticket for ask in bundle] for bundle in grid.sent[1:]] == [[0, 1, 2, 3], [1, 2, 3]]


@pytest.mark.gate
def test_a_bundle_over_which_workers_are_lost_is_sent_one_by_one(grid: Grid) -> None:
    messages = link(grid)
    messages.submit(asks(3))
    grid.reply(1, None)
    grid.reply(2, answered(0))
    grid.reply(3, None)
    grid.reply(4, answered(2))
    got = [answer for _ in range(3) for answer in messages.collect()]
    assert [(answer.ticket, answer.error) for answer in got] == [(0, None), (1, "lost"), (2, None)]
    assert [[ask.ticket for ask in bundle] for bundle in grid.sent[1:]] == [[0, 1, 2], [0], [1], [2]]

"""Who works on what: every way to lose a worker, at a workplace of which nothing is real."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from fedunlearn.core import RunError
from fedunlearn.federation.engines.flower.crew import MOST_LOSSES, SILENCE, Crew, Worker
from fedunlearn.federation.engines.machines import Machine


def machine(name: str = "one") -> Machine:
    return Machine(name, f"node-{name}", {}, "code", "processor", "AVX2")


@dataclass(eq=False)
class Place:
    """A workplace with so many places, and what it was asked to do."""

    places: int = 2
    taken_by_others: int = 0
    hired: list[Worker[str]] = field(default_factory=list)
    given: list[tuple[Worker[str], str]] = field(default_factory=list)
    supplied: list[str] = field(default_factory=list)
    dismissed: list[Worker[str]] = field(default_factory=list)
    knocked: list[Worker[str]] = field(default_factory=list)

    def room(self) -> int:
        there = [w for w in self.hired if w not in self.dismissed and w.machine is not None]
        return max(0, self.places - self.taken_by_others - len(there))

    def fits(self) -> int:
        return self.places

    def taken(self) -> int:
        return self.places - self.room()

    def busy(self) -> str:
        return f"busy: {self.taken_by_others} of {self.places} are taken"

    def hire(self, worker: Worker[str]) -> None:
        self.hired.append(worker)

    def supply(self, machine: Machine) -> None:
        self.supplied.append(machine.node)

    def give(self, worker: Worker[str], message: str) -> None:
        self.given.append((worker, message))

    def knock(self, worker: Worker[str]) -> None:
        self.knocked.append(worker)

    def dismiss(self, worker: Worker[str]) -> None:
        self.dismissed.append(worker)


@dataclass(eq=False)
class Scene:
    """A crew at a place, what it replied and told."""

    place: Place = field(default_factory=Place)
    wanted: int | None = None
    differs: Callable[[Machine], str | None] = lambda machine: None
    replies: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.crew = Crew[str](self.place, self.wanted, 90.0, 30.0, self.differs, self.reply, self.told.append)
        self.crew.move()

    def reply(self, message: str, reply: str | None, reason: str) -> None:
        assert message not in self.replies, "answered twice"
        self.replies[message] = reply, reason

    def come(self, *names: str) -> list[Worker[str]]:
        """Let those who are expected come, one on each of these machines; all images are there."""
        expected = [w for w in self.crew.workers if w.machine is None]
        for worker, name in zip(expected, names, strict=False):
            self.crew.came(worker, machine(name))
            if worker.refused is None:
                self.crew.supplied(f"node-{name}", f"/data-{name}", "shared")
        return expected[: len(names)]


def test_exactly_as_many_as_wanted_are_hired() -> None:
    scene = Scene(Place(places=8), wanted=4)
    scene.crew.tick()
    scene.crew.tick()
    assert len(scene.place.hired) == 4


def test_no_more_than_ever_fit() -> None:
    scene = Scene(Place(places=2), wanted=64)
    scene.crew.tick()
    assert len(scene.place.hired) == 2
    scene.place.places = 3  # a machine joined
    scene.crew.tick()
    assert len(scene.place.hired) == 3


def test_as_many_as_there_is_room_for_and_more_when_there_is_more() -> None:
    scene = Scene(Place(places=4, taken_by_others=3))
    scene.crew.tick()
    assert len(scene.place.hired) == 1
    scene.come("one")
    scene.crew.tick()
    assert len(scene.place.hired) == 1
    scene.place.taken_by_others = 1
    scene.crew.tick()
    assert len(scene.place.hired) == 3
    scene.crew.tick()  # the two that are expected will take that room
    assert len(scene.place.hired) == 3


def test_nothing_is_given_to_those_who_are_only_expected() -> None:
    scene = Scene(wanted=2)
    scene.crew.tick()
    scene.crew.take(["a", "b", "c"])
    assert scene.place.given == []
    [first] = scene.come("one")
    assert scene.place.given == [(first, "a"), (first, "b")]
    [second] = scene.come("one")
    assert scene.place.given[2:] == [(second, "c")]
    scene.crew.done(first, "a", "A", True)
    assert scene.replies == {"a": ("A", "")} and list(first.messages) == ["b"]


def test_a_second_message_is_given_only_while_as_many_wait_as_there_are_workers() -> None:
    """So none lies behind another at the end of the work, where somebody will have nothing to do."""
    scene = Scene(wanted=2)
    scene.crew.tick()
    one, two = scene.come("one", "one")
    scene.crew.take(["a", "b", "c"])
    assert scene.place.given == [(one, "a"), (two, "b")]
    scene.crew.take(["d", "e", "f"])
    assert scene.place.given[2:] == [(one, "c"), (two, "d")] and list(scene.crew.waiting) == ["e", "f"]
    scene.crew.done(two, "b", "B", True)
    assert scene.place.given[4:] == [(two, "e")]
    for worker, message in ((one, "a"), (one, "c"), (two, "d")):
        scene.crew.done(worker, message, message.upper(), True)
    assert scene.place.given[5:] == [(one, "f")]


def test_a_second_message_waits_for_whoever_replaces_one_that_was_lost() -> None:
    """It may take hours, and the next look hires another who has nothing to do."""
    scene = Scene(Place(places=2), wanted=2)
    scene.crew.tick()
    first, other = scene.come("one", "one")
    scene.crew.take(["a"])
    scene.crew.lost(first, "killed")
    assert scene.place.given[-1] == (other, "a")
    scene.crew.take(["b"])
    assert scene.place.given[-1] == (other, "a")
    scene.crew.tick()
    [third] = scene.come("one")
    assert scene.place.given[-1] == (third, "b")


def test_what_a_lost_worker_had_not_begun_is_not_blamed() -> None:
    scene = Scene(Place(places=1), wanted=1)
    scene.crew.take(["a", "b"])
    scene.crew.tick()
    for _ in range(MOST_LOSSES):
        [worker] = scene.come("one")
        assert list(worker.messages) == ["a", "b"]
        scene.crew.lost(worker, "killed")
        scene.crew.tick()
    assert set(scene.replies) == {"a"}
    [worker] = scene.come("one")
    assert list(worker.messages) == ["b"]
    scene.crew.done(worker, "b", "B", False)  # whoever is unfit had nothing else
    assert scene.replies["b"] == ("B", "")


def test_who_cannot_take_its_second_message_is_not_lost_over_the_first() -> None:
    scene = Scene(Place(places=1), wanted=1)
    scene.crew.take(["a", "b"])
    scene.crew.tick()
    for _ in range(MOST_LOSSES):
        [worker] = scene.come("one")
        assert list(worker.messages) == ["a", "b"]
        scene.crew.lost(worker, "no such module", "b")
        scene.crew.tick()
    assert set(scene.replies) == {"b"}
    [worker] = scene.come("one")
    assert list(worker.messages) == ["a"]


def test_work_waits_for_the_images() -> None:
    scene = Scene(wanted=1)
    scene.crew.take(["a"])
    scene.crew.tick()
    [worker] = scene.crew.workers
    scene.crew.came(worker, machine())
    assert scene.place.supplied == ["node-one"] and scene.place.given == []
    scene.crew.supplied("node-one", "/there", "sent")
    assert scene.place.given == [(worker, "a")] and worker.data == "/there"
    assert scene.crew.machines["node-one"].images == "sent"


def test_images_are_sent_once_to_each_machine() -> None:
    scene = Scene(Place(places=3), wanted=3)
    scene.crew.tick()
    scene.come("one", "two", "one")
    assert scene.place.supplied == ["node-one", "node-two"]
    assert len(scene.crew.ready) == 3


def test_a_lost_workers_message_goes_first_to_another() -> None:
    scene = Scene(wanted=2)
    scene.crew.tick()
    scene.crew.take(["a", "b", "c"])
    one, two = scene.come("one", "two")
    scene.crew.lost(one, "killed")
    assert one in scene.place.dismissed
    scene.crew.tick()
    assert len(scene.place.hired) == 3
    scene.crew.done(two, "c", "C", True)
    assert scene.place.given[-1] == (two, "a") and list(scene.crew.waiting) == ["b"]
    assert set(scene.replies) == {"c"}


def test_what_comes_late_from_one_who_was_thought_lost_is_not_used() -> None:
    scene = Scene(wanted=1)
    scene.crew.take(["a"])
    scene.crew.tick()
    [first] = scene.come("one")
    scene.crew.lost(first, "silent")
    scene.crew.tick()
    [second] = scene.come("one")
    scene.crew.done(first, "a", "late", True)
    scene.crew.lost(first, "again")
    assert scene.replies == {}
    scene.crew.done(second, "a", "A", True)
    assert scene.replies == {"a": ("A", "")}


def test_who_does_not_answer_is_lost_but_not_by_the_clock() -> None:
    scene = Scene(wanted=1)
    scene.crew.take(["a"])
    scene.crew.tick()
    [first] = scene.come("one")
    for _ in range(3):
        scene.crew.tick(seconds=3600.0)  # this computer slept
    assert scene.crew.workers == [first]
    scene.crew.answered(first)
    for _ in range(SILENCE):
        scene.crew.tick()
    assert scene.crew.workers == [first]
    scene.crew.tick()
    assert first in scene.place.dismissed and list(scene.crew.waiting) == ["a"]


def test_a_message_that_loses_everybody_is_given_up_and_says_where() -> None:
    scene = Scene(wanted=1)
    scene.crew.take(["a"])
    scene.crew.tick()
    for _ in range(MOST_LOSSES):
        assert scene.replies == {}
        [worker] = scene.come("two")
        scene.crew.lost(worker, "out of memory")
        scene.crew.tick()
    assert scene.replies == {
        "a": (None, "5 workers were lost while they worked on it, the last on machine 'two': out of memory")
    }


def test_who_is_unfit_is_replaced() -> None:
    scene = Scene(wanted=1)
    scene.crew.take(["a", "b"])
    scene.crew.tick()
    [first] = scene.come("one")
    scene.crew.done(first, "a", "A", False)
    scene.crew.tick()
    assert first in scene.place.dismissed and len(scene.place.hired) == 2
    [second] = scene.come("one")
    assert scene.place.given[-1] == (second, "b")


def test_who_has_a_message_for_much_longer_than_a_task_may_take_is_lost_though_it_answers() -> None:
    scene = Scene(wanted=1)
    scene.crew.take(["a"])
    scene.crew.tick()
    [first] = scene.come("one")
    for _ in range(46):  # 30 s for the task, 60 s beside it, 2 s each
        scene.crew.tick()
        assert scene.crew.workers == [first]
        scene.crew.answered(first)
    scene.crew.tick()
    assert first in scene.place.dismissed and list(scene.crew.waiting) == ["a"]


def test_a_machine_that_differs_is_given_nothing_and_another_is_hired_elsewhere() -> None:
    scene = Scene(Place(places=3), wanted=2, differs=lambda m: "other code" if m.host == "bad" else None)
    scene.crew.take(["a", "b"])
    scene.crew.tick()
    scene.come("one", "bad")
    scene.crew.tick()
    assert len(scene.place.hired) == 3 and [m for _, m in scene.place.given] == ["a"]
    assert scene.told == ["machine 'bad' is given nothing to do: other code"]
    scene.come("two")
    assert [m for _, m in scene.place.given] == ["a", "b"]
    assert scene.place.dismissed == []


def test_no_machine_that_may_be_used_is_an_error() -> None:
    scene = Scene(Place(places=1), wanted=1, differs=lambda m: "other code")
    scene.crew.tick()
    scene.come("bad")
    with pytest.raises(RunError, match=r"no machine can be used: machine 'bad': other code.*engine\.wait"):
        scene.crew.tick(91.0)


def test_images_that_do_not_arrive_are_tried_again_with_others() -> None:
    scene = Scene(wanted=1)
    scene.crew.take(["a"])
    scene.crew.tick()
    [first] = scene.crew.workers
    scene.crew.came(first, machine())
    scene.crew.supplied("node-one", None, "it did not answer")
    assert first in scene.place.dismissed and scene.told == []
    scene.crew.tick()
    [second] = scene.come("one")
    assert scene.place.supplied == ["node-one"] * 2 and scene.place.given == [(second, "a")]


def test_a_machine_without_room_for_images_is_not_used() -> None:
    scene = Scene(Place(places=2), wanted=2)
    scene.crew.take(["a"])
    for _ in range(3):
        scene.crew.tick()
        scene.crew.came(scene.crew.workers[-1], machine("one"))
        scene.crew.supplied("node-one", None, "its disk is full")
    assert scene.crew.ready == []
    [told] = scene.told
    assert told.startswith("machine 'one' is given nothing to do") and "its disk is full" in told
    scene.crew.tick()
    scene.come("two")
    assert [(w.host, message) for w, message in scene.place.given] == [("two", "a")]


def test_a_machine_without_room_for_images_may_have_room_for_others() -> None:
    scene = Scene(Place(places=2), wanted=2, differs=lambda m: "other code" if m.host == "bad" else None)
    scene.crew.tick()
    scene.come("bad")
    for _ in range(3):
        scene.crew.tick()
        scene.crew.came(scene.crew.workers[-1], machine("one"))
        scene.crew.supplied("node-one", None, "its disk is full")
    bad, one = scene.crew.workers
    assert one.refused == "its disk is full"
    scene.crew.move()
    scene.crew.supplied("node-one", "/data", "sent")
    scene.crew.take(["a", "b"])
    assert scene.crew.ready == [one] and bad.refused == "other code"
    assert [worker for worker, _ in scene.place.given] == [one, one]


def test_a_busy_cluster_is_said_to_be_and_waited_for() -> None:
    scene = Scene(Place(places=2, taken_by_others=2))
    for _ in range(4):
        scene.crew.tick(2.0)
    assert scene.told == ["busy: 2 of 2 are taken: waiting for room for 90 s at most (engine.wait)"]
    scene.come("one")
    scene.crew.tick(1000.0)  # somebody is there
    scene.crew.lost(scene.crew.workers[0], "killed")
    scene.crew.tick(88.0)
    with pytest.raises(RunError, match=r"busy: .*: no worker could start within 90 s"):
        scene.crew.tick(2.0)


def test_time_in_which_a_worker_waited_for_images_is_not_held_against_the_next_one() -> None:
    scene = Scene(wanted=1)
    scene.crew.tick()
    [worker] = scene.crew.workers
    scene.crew.came(worker, machine())
    for _ in range(400):
        scene.crew.answered(worker)
        scene.crew.tick()
    scene.crew.lost(worker, "killed")
    scene.crew.tick(88.0)
    with pytest.raises(RunError, match="no worker could start within 90 s"):
        scene.crew.tick()


def test_nobody_waits_for_workers_before_there_are_hospitals() -> None:
    scene = Scene(Place(places=2, taken_by_others=2))
    scene.crew = Crew[str](scene.place, None, 90.0, 30.0, scene.differs, scene.reply, scene.told.append)
    for _ in range(400):
        scene.crew.tick()
    assert scene.told == []
    scene.crew.move()
    scene.crew.tick(88.0)
    assert len(scene.told) == 1
    with pytest.raises(RunError, match="no worker could start within 90 s"):
        scene.crew.tick()


def test_a_cluster_whose_places_may_be_taken_by_our_own_is_not_called_busy_at_once() -> None:
    scene = Scene(Place(places=2, taken_by_others=2), wanted=2)
    scene.crew.tick(0.0)
    scene.crew.tick(29.0)  # it may be the two that still start
    assert scene.told == []
    scene.crew.tick(1.0)
    assert len(scene.told) == 1


def test_workers_that_end_as_soon_as_they_start_stop_the_run() -> None:
    scene = Scene(wanted=2)
    scene.crew.tick()
    for _ in range(12):
        scene.crew.lost(scene.crew.workers[0], "no module")
        scene.crew.tick()
    with pytest.raises(RunError, match="workers end as soon as they start, 13 in a row: no module"):
        scene.crew.lost(scene.crew.workers[0], "no module")


def test_a_machine_that_joins_and_on_which_nothing_starts_stops_nobody() -> None:
    scene = Scene(Place(places=1))
    scene.crew.take(["a"])
    scene.crew.tick()
    [good] = scene.come("one")
    scene.place.places = 17
    for _ in range(5):
        scene.crew.tick()
        for worker in [w for w in scene.crew.workers if w is not good]:
            scene.crew.lost(worker, "no module")
    scene.crew.done(good, "a", "A", True)
    assert scene.replies == {"a": ("A", "")} and good in scene.crew.workers


def test_the_end_dismisses_everybody() -> None:
    scene = Scene(wanted=2)
    scene.crew.tick()
    scene.come("one")
    everybody = list(scene.crew.workers)
    scene.crew.end()
    assert scene.place.dismissed == everybody and scene.crew.workers == []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_message_is_answered_once(seed: int) -> None:
    """Workers come, work, fall silent, die and turn out unfit in a random order; then they only work."""
    rng, scene = random.Random(seed), Scene(Place(places=3), wanted=3)
    messages = [f"m{n}" for n in range(30)]
    scene.crew.take(messages)
    for step in range(400):
        scene.crew.tick()
        for worker in list(scene.crew.workers):
            act(scene, worker, rng.random() if step < 200 else 0.5, rng)
    assert set(scene.replies) == set(messages)
    assert all(
        reply == message.upper() or "5 workers" in why for message, (reply, why) in scene.replies.items()
    )
    assert len(scene.crew.workers) == 3


def act(scene: Scene, worker: Worker[str], chance: float, rng: random.Random) -> None:
    """What one worker does, or suffers, between two looks."""
    if worker.machine is None:
        if chance < 0.1:
            scene.crew._fallen = 0  # not what this is about
            scene.crew.lost(worker, "killed")
        else:
            name = rng.choice(["one", "two"])
            scene.crew.came(worker, machine(name))
            scene.crew.supplied(f"node-{name}", "/data", "shared")
    elif chance < 0.15:
        scene.crew.lost(worker, "killed")
    elif chance < 0.3:
        return  # silent
    else:
        scene.crew.answered(worker)
        if worker.messages:
            message = worker.messages[0]
            scene.crew.done(worker, message, message.upper(), chance < 0.9)

"""What a run remembers: killed at any answer and driven again, it comes to the same, and asks nothing twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.campaign.keeping import ModelFile, ValueFile
from fedunlearn.core import Procedure, Reply, RunError, Select, Weights
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.jobs import Divergence, Job, Label, Round, Work
from fedunlearn.federation.journal import Journal, Stored
from fedunlearn.federation.ledger import Ledger
from fedunlearn.federation.memory import Kept
from fedunlearn.federation.procedures import fedavg, loss
from fedunlearn.learning.tasks import Gradient
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store
from tests import toy

LOCAL = replace(toy.TRAINING.local, epochs=1)
ROUNDS = 3
TIMES = ["site_seconds", "server_seconds"]


class Killed(BaseException):
    """As if the process ended here."""


@dataclass
class Frail(toy.ToyLink):
    """A link that dies after so many answers, and writes down what was answered, by what was asked."""

    across: bool = False
    after: float = math.inf
    given: list[tuple[str, str]] = field(default_factory=list)

    def collect(self) -> Sequence[Answer]:
        if len(self.given) >= self.after:
            raise Killed
        asks = {ask.ticket: ask for ask in self._waiting}
        (answer,) = super().collect()
        ask = asks[answer.ticket]
        sent = getattr(ask.task, "weights", {})
        self.given.append((ask.site, f"{type(ask.task).__name__} {replace_weights(ask)} {w.digest(sent)}"))
        return [replace(answer, seconds=1.0)]


def replace_weights(ask: Ask) -> str:
    """The task without its model, as text."""
    task: Any = ask.task
    return repr(replace(task, weights={}) if hasattr(task, "weights") else task)


@dataclass
class Told:
    """A watcher of whom nothing is remembered: it writes down the ends."""

    ends: list[tuple[str, int]] = field(default_factory=list)

    def round(self, round: Round) -> None:
        """See `Watcher`."""

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""
        self.ends.append((str(label), rounds))


@dataclass
class Play:
    """A small run: a training that can be restarted, what follows from it, and one that diverges; one more comes after.

    ``kept`` says whether results are kept: without, only the journal has anything.
    """

    kept: bool = True
    results: list[tuple[str, str]] = field(default_factory=list)
    found: list[tuple[str, Divergence]] = field(default_factory=list)

    def jobs(self) -> list[Job[Any]]:
        return [self.training(1), self.wild(3)]

    def training(self, seed: int) -> Job[Weights]:
        label = Label("original", "", "original", seed)

        def rest(round: int, weights: Weights) -> Procedure[Weights]:
            return fedavg(weights, toy.SITES, Select(), LOCAL, range(round, ROUNDS), seed)

        def then(weights: Weights) -> list[Job[Any]]:
            self.note(label, w.digest(weights))
            return [self.ascent(weights, seed), self.measured(weights, seed)]

        work = self.work(f"original-{seed}", {"seed": seed, "work": "training"})
        return Job(label, rest(0, toy.trained()[0]), then, work=work, restart=rest)

    def ascent(self, weights: Weights, seed: int) -> Job[Weights]:
        """A procedure with a state of its own: it must be given all answers again. Its first round has two models."""
        label = Label("unlearn", "some", "ascent", seed)

        def procedure() -> Procedure[Weights]:
            moved, total = w.multiply(weights, 0.5), dict(weights)
            first = {"north": Gradient(weights, Select()), "east": Gradient(moved, Select())}
            replies = yield first
            for number in range(2):
                step = {name: x for name, x in replies["north"].arrays.items() if name in total}
                total = {name: x + 0.1 * step.get(name, torch.zeros_like(x)) for name, x in total.items()}
                sites = toy.SITES[: number + 1]
                replies = yield {site: Gradient(total, Select()) for site in ("north", *sites[1:])}
            return total

        def then(result: Weights) -> list[Job[Any]]:
            self.note(label, w.digest(result))
            return []

        return Job(label, procedure(), then, work=self.work(f"ascent-{seed}", {"seed": seed, "work": "a"}))

    def measured(self, weights: Weights, seed: int) -> Job[float]:
        """A job whose result is no model."""
        label = Label("evaluate", "", f"original-{seed}", seed)

        def then(value: float) -> list[Job[Any]]:
            self.note(label, repr(value))
            return []

        work = Work(ValueFile(f"loss-{seed}"), {"seed": seed, "work": "loss"}) if self.kept else None
        return Job(label, loss(weights, toy.SITES, Select()), then, work=work)

    def wild(self, seed: int) -> Job[Weights]:
        label = Label("unlearn", "some", "wild", seed)
        local = replace(LOCAL, lr=1e30)
        procedure = fedavg(toy.trained()[0], toy.SITES, Select(), local, range(2), seed)

        def diverged(found: Divergence) -> list[Job[Any]]:
            self.found.append((str(label), found))
            return [self.training(4)]

        return Job(label, procedure, lambda _: (), diverged, self.work("wild", {"work": "wild"}))

    def work(self, name: str, origin: dict[str, object]) -> Work[Weights] | None:
        return Work(ModelFile(name), origin) if self.kept else None

    def note(self, label: Label, result: str) -> None:
        self.results.append((str(label), result))


def memory(folder: Path, room: int = 2**20) -> Kept:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Kept(Store(RunFolder(folder)), Journal(folder / "work" / "journal", room))


def costs(ledger: Ledger) -> pd.DataFrame:
    """All that the ledger says but times."""
    return ledger.table().drop(columns=TIMES)


@dataclass(frozen=True)
class Outcome:
    """What came of a play, and what it cost."""

    play: Play
    ledger: Ledger
    told: Told
    link: Frail


def perform(
    memory: Kept | None,
    after: float = math.inf,
    most: int | None = None,
    kept: bool = True,
    scramble: int | None = None,
) -> Outcome:
    outcome = Outcome(Play(kept), Ledger(), Told(), Frail(after=after, scramble=scramble))
    drive(outcome.play.jobs(), outcome.link, [outcome.ledger, outcome.told], memory=memory, most=most)
    return outcome


@pytest.fixture(scope="module")
def whole() -> Outcome:
    """The run without any memory."""
    return perform(None)


def test_a_memory_changes_nothing(whole: Outcome, tmp_path: Path) -> None:
    found = perform(memory(tmp_path))
    assert found.play.results == whole.play.results and len(whole.play.results) == 2 * 3
    assert (
        found.play.found
        == whole.play.found
        == [("unlearn some wild seed 3", Divergence(0, "north", "0.weight"))]
    )
    assert found.link.given == whole.link.given
    assert found.told.ends == whole.told.ends
    pd.testing.assert_frame_equal(costs(found.ledger), costs(whole.ledger))
    assert list((tmp_path / "work" / "journal").iterdir()) == [], "what ended is in the journal no more"


@pytest.mark.gate
def test_killed_at_any_answer_it_comes_to_the_same_and_asks_nothing_twice(
    whole: Outcome, tmp_path: Path
) -> None:
    """With replies in memory and, every other time, on the disk."""
    total = len(whole.link.given)
    assert total > 30
    for after in range(total):
        folder, room = tmp_path / str(after), 2**20 if after % 2 else 0
        killed = Frail(after=after)
        with pytest.raises(Killed):
            drive(Play().jobs(), killed, [Ledger()], memory=memory(folder, room))
        found = perform(memory(folder, room))
        assert sorted(found.play.results) == sorted(whole.play.results)
        assert found.play.found == whole.play.found
        pd.testing.assert_frame_equal(costs(found.ledger), costs(whole.ledger))
        assert sorted(killed.given + found.link.given) == sorted(whole.link.given)
        assert len(set(killed.given) & set(found.link.given)) == 0


@pytest.mark.gate
@pytest.mark.parametrize("after", [1, 10, 20, 30])
def test_where_results_are_not_kept_what_has_ended_is_done_again(
    whole: Outcome, tmp_path: Path, after: int
) -> None:
    with pytest.raises(Killed):
        perform(memory(tmp_path), after=after, kept=False)
    found = perform(memory(tmp_path), kept=False)
    assert sorted(found.play.results) == sorted(whole.play.results)
    pd.testing.assert_frame_equal(costs(found.ledger), costs(whole.ledger))
    assert len(whole.link.given) - after <= len(found.link.given) < len(whole.link.given)


def test_times_of_the_first_try_are_kept_too(whole: Outcome, tmp_path: Path) -> None:
    """Every answer of `Frail` takes a second, whoever asked."""
    with pytest.raises(Killed):
        perform(memory(tmp_path), after=30)
    found = perform(memory(tmp_path))
    assert found.ledger.table()["site_seconds"].sum() == len(whole.link.given)


@pytest.mark.gate
@pytest.mark.parametrize("scramble", [1, 2])
def test_killed_again_and_again_it_gets_there(whole: Outcome, tmp_path: Path, scramble: int) -> None:
    """Three answers at a time, in any order."""
    given = list[tuple[str, str]]()
    for tries in range(100):
        link = Frail(after=3, scramble=scramble + tries)
        play, ledger = Play(), Ledger()
        try:
            drive(play.jobs(), link, [ledger], memory=memory(tmp_path))
        except Killed:
            given += link.given
            continue
        given += link.given
        break
    assert sorted(play.results) == sorted(whole.play.results)
    assert sorted(given) == sorted(whole.link.given)
    pd.testing.assert_frame_equal(costs(ledger), costs(whole.ledger))


def test_a_finished_run_asks_nothing_and_tells_all_again(whole: Outcome, tmp_path: Path) -> None:
    perform(memory(tmp_path))
    again = perform(memory(tmp_path))
    assert again.link.given == []
    assert sorted(again.play.results) == sorted(whole.play.results)
    assert again.play.found == whole.play.found
    assert sorted(again.told.ends) == sorted(whole.told.ends)
    pd.testing.assert_frame_equal(costs(again.ledger), costs(whole.ledger))


def test_a_damaged_result_is_done_again(whole: Outcome, tmp_path: Path) -> None:
    perform(memory(tmp_path))
    file = tmp_path / "weights" / "original-4.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    again = perform(memory(tmp_path))
    assert [task.split()[0] for _, task in again.link.given] == ["Fit"] * 3 * ROUNDS
    assert file.read_bytes() == good
    assert sorted(again.play.results) == sorted(whole.play.results)


@pytest.mark.parametrize("done", range(1, ROUNDS))
def test_a_training_that_can_be_restarted_goes_on_from_its_round(tmp_path: Path, done: int) -> None:
    """And hears of no round before that; without its checkpoint it is given its answers from the start, the same."""
    started = list[int]()

    def training() -> tuple[Job[Weights], list[str]]:
        results = list[str]()

        def rest(round: int, weights: Weights) -> Procedure[Weights]:
            started.append(round)
            return fedavg(weights, toy.SITES, Select(), LOCAL, range(round, ROUNDS), 1)

        def then(weights: Weights) -> list[Job[Any]]:
            results.append(w.digest(weights))
            return []

        return Job(toy.LABEL, rest(0, toy.trained()[0]), then, restart=rest), results

    job, expected = training()
    drive([job], toy.ToyLink())
    with pytest.raises(Killed):
        drive([training()[0]], Frail(after=3 * done + 1), memory=memory(tmp_path))
    started.clear()
    seen = list[int]()

    class Seen(Told):
        def round(self, round: Round) -> None:
            seen.append(round.number)

    job, results = training()
    link = Frail()
    drive([job], link, [Seen()], memory=memory(tmp_path))
    assert started == [0, done]  # the one that was made with the job is not used
    assert seen == list(range(done, ROUNDS))
    assert len(link.given) == 3 * (ROUNDS - done) - 1
    assert results == expected


def test_a_damaged_checkpoint_costs_a_round_and_no_bit(whole: Outcome, tmp_path: Path) -> None:
    """The answers of that round are still there."""
    with pytest.raises(Killed):
        perform(memory(tmp_path), after=12)
    newest = sorted(tmp_path.rglob("model-*"), key=lambda file: int(file.name.split("-")[1]))[-1]
    assert newest.name == "model-2"
    newest.write_bytes(newest.read_bytes()[:-3])
    found = perform(memory(tmp_path))
    assert sorted(found.play.results) == sorted(whole.play.results)
    assert len(found.link.given) == len(whole.link.given) - 12
    pd.testing.assert_frame_equal(costs(found.ledger), costs(whole.ledger))


# -------------------------------------------------------------------------------------------- how many at once


def test_one_at_a_time_comes_to_the_same_in_an_order_of_its_own(whole: Outcome, tmp_path: Path) -> None:
    """What follows from a job comes before jobs that wait, whoever answers first."""
    once, again = (perform(None, most=1, scramble=scramble) for scramble in (None, 3))
    assert sorted(once.play.results) == sorted(whole.play.results)
    assert once.play.results == again.play.results
    assert [name for name, _ in once.play.results] == [
        f"{what} seed {seed}"
        for seed in (1, 4)
        for what in ("original", "unlearn some ascent", f"evaluate original-{seed}")
    ]
    pd.testing.assert_frame_equal(costs(once.ledger), costs(whole.ledger))
    with pytest.raises(Killed):
        perform(memory(tmp_path), after=20, most=1)
    resumed = perform(memory(tmp_path), most=1)
    assert resumed.play.results == once.play.results
    assert len(resumed.link.given) == len(whole.link.given) - 20


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_procedures_than_may_be_are_under_way(most: int) -> None:
    """Of eight trainings, at most so many have been begun and have not ended."""
    alive, highest = set[int](), 0

    def training(seed: int) -> Job[Weights]:
        def watched() -> Procedure[Weights]:
            nonlocal highest
            alive.add(seed)
            highest = max(highest, len(alive))
            result = yield from fedavg(toy.trained()[0], toy.SITES, Select(), LOCAL, range(1), seed)
            alive.discard(seed)
            return result

        return Job(Label("original", "", "original", seed), watched(), lambda _: ())

    drive([training(seed) for seed in range(8)], toy.ToyLink(scramble=1), most=most)
    assert not alive and highest == most


# ----------------------------------------------------------------------------------------- done again on purpose


def again(value: float, watcher: list[str]) -> Job[Weights]:
    """A job that must be run for who watches, though its result is known."""

    def procedure() -> Procedure[Weights]:
        yield {"north": Gradient(toy.trained()[0], Select())}
        watcher.append("run")
        return {"x": torch.tensor([value])}

    work = Work(ModelFile("original"), {"work": "training"}, again=bool(watcher))
    return Job(Label("original", "", "original", 1), procedure(), lambda _: (), work=work)


def test_what_is_done_again_must_come_to_the_same_bits(tmp_path: Path) -> None:
    watcher = list[str]()
    drive([again(0.0, watcher)], toy.ToyLink(), memory=memory(tmp_path))
    drive([again(0.0, watcher)], toy.ToyLink(), memory=memory(tmp_path))
    assert watcher == ["run", "run"]
    with pytest.raises(
        RunError, match=r"original seed 1 was trained again .* and came to other bits than before"
    ):
        drive([again(-0.0, watcher)], toy.ToyLink(), memory=memory(tmp_path))


def test_it_must_come_to_the_bits_of_an_earlier_run_too(tmp_path: Path) -> None:
    watcher = list[str]()
    drive([again(0.0, watcher)], toy.ToyLink(), memory=memory(tmp_path / "earlier"))

    def later(name: str) -> Kept:
        kept = memory(tmp_path / name)
        return replace(kept, store=Store(RunFolder(tmp_path / name), (tmp_path / "earlier",)))

    drive([again(0.0, watcher)], toy.ToyLink(), memory=later("same"))
    assert len(watcher) == 2
    with pytest.raises(RunError, match="came to other bits"):
        drive([again(1.0, watcher)], toy.ToyLink(), memory=later("other"))


# ------------------------------------------------------------------------------------------- what is returned


@pytest.mark.parametrize(
    "shape", [lambda weights: weights, lambda weights: {"model": weights, "more": {"a": weights}}]
)
def test_a_reply_that_is_returned_as_it_came_is_loaded(tmp_path: Path, shape: Callable[[Any], Any]) -> None:
    """It was on the disk, where it is no more once the job has ended."""
    found = list[Any]()

    def procedure() -> Procedure[Any]:
        replies = yield from fit()
        assert isinstance(replies.weights, Stored)
        return shape(replies.weights)

    def fit() -> Procedure[Reply]:
        job = fedavg(toy.trained()[0], ("north",), Select(), LOCAL, range(1), 1)
        replies = yield next(job)
        return replies["north"]

    def then(result: Any) -> list[Job[Any]]:
        found.append(result)
        return []

    drive([Job(toy.LABEL, procedure(), then)], toy.ToyLink(), memory=memory(tmp_path, room=0))
    assert not list(tmp_path.rglob("answer-*"))
    expected = toy.answer(
        next(fedavg(toy.trained()[0], ("north",), Select(), LOCAL, range(1), 1))["north"], "north"
    )
    (result,) = found
    for weights in (result["model"], result["more"]["a"]) if "model" in result else (result,):
        assert w.digest(weights) == w.digest(expected.weights or {})


def test_a_failed_task_is_not_kept_as_an_answer(tmp_path: Path) -> None:
    """It was sent again; what counts is the answer that came then."""
    failures = ["disk full"]

    def fault(ask: Ask, reply: Reply) -> Reply:
        if failures and ask.site == "east":
            raise OSError(failures.pop())
        return reply

    training = Play(False).training(1)
    link = Frail(after=4, fault=fault)
    with pytest.raises(Killed):
        drive([training], link, retries=1, memory=memory(tmp_path))
    play, second = Play(False), Frail()
    drive([play.training(1)], second, memory=memory(tmp_path))
    assert [task.split()[0] for _, task in second.given].count("Fit") == 3 * ROUNDS - 3, (
        "four answers, one was none"
    )
    healthy = Play(False)
    drive([healthy.training(1)], toy.ToyLink())
    assert play.results == healthy.results

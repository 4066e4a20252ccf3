from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import (
    Asks,
    Procedure,
    Replies,
    Reply,
    RunError,
    Select,
    SiteError,
    UndeclaredNeed,
    Weights,
)
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.machines import Machine, here
from fedunlearn.federation.jobs import Job, Label, Round
from fedunlearn.federation.procedures import fedavg, signals
from fedunlearn.learning.tasks import Fit, Gradient
from tests import toy

pytestmark = pytest.mark.rounding


def label(number: int) -> Label:
    return Label("unlearn", f"r-{number}", "toy", number)


def training(seed: int, rounds: int = 2) -> Procedure[Weights]:
    return fedavg(toy.trained()[0], toy.SITES, Select(), toy.TRAINING.local, range(rounds), seed)


@dataclass
class Witness:
    """A watcher that remembers."""

    rounds: list[Round] = field(default_factory=list)
    ends: list[tuple[Label, int]] = field(default_factory=list)

    def round(self, round: Round) -> None:
        self.rounds.append(round)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        assert server_seconds >= 0
        self.ends.append((label, rounds))


def digests(numbers: Sequence[int], link: toy.ToyLink) -> dict[int, str]:
    found: dict[int, str] = {}

    def keep(number: int) -> Callable[[Weights], list[Job[Any]]]:
        def then(result: Weights) -> list[Job[Any]]:
            found[number] = w.digest(result)
            return []

        return then

    drive([Job(label(n), training(n), keep(n)) for n in numbers], link)
    return found


def test_same_bits_alone_together_and_with_replies_in_any_order() -> None:
    alone = {n: digests([n], toy.ToyLink())[n] for n in range(3)}
    assert len(set(alone.values())) == 3
    for scramble in range(3):
        assert digests(range(3), toy.ToyLink(scramble=scramble)) == alone


def test_procedures_do_not_wait_for_one_another() -> None:
    """A link that always serves the newest ask finishes the second procedure before the first goes on."""

    @dataclass
    class Newest(toy.ToyLink):
        def collect(self) -> Sequence[Answer]:
            self._waiting.reverse()
            answers = super().collect()
            self._waiting.reverse()
            return answers

    witness = Witness()
    drive([Job(label(n), training(n)) for n in range(2)], Newest(), [witness])
    assert [end[0] for end in witness.ends] == [label(1), label(0)]


def test_replies_come_in_the_order_asked_and_watchers_hear_of_every_round() -> None:
    witness, orders = Witness(), list[list[str]]()

    def procedure() -> Procedure[int]:
        for sites in (("west", "north"), ("east", "west", "north"), ("north",)):
            replies = yield {site: Gradient(toy.trained()[0], Select()) for site in sites}
            orders.append(list(replies))
        return 3

    drive([Job(label(0), procedure())], toy.ToyLink(scramble=1), [witness])
    assert orders == [["west", "north"], ["east", "west", "north"], ["north"]]
    assert [(r.number, list(r.asks), list(r.answers)) for r in witness.rounds] == [
        (number, order, order) for number, order in enumerate(orders)
    ]
    assert all(answer.images == 24 for r in witness.rounds for answer in r.answers.values())
    assert witness.ends == [(label(0), 3)]


def test_jobs_follow_from_results() -> None:
    """Counting down: every job starts the next from its own result, and one that asks nobody is a job as well."""
    results: list[int] = []

    def count(n: int) -> Procedure[int]:
        if n % 2:
            yield {"north": Gradient(toy.trained()[0], Select())}
        return n

    def then(n: int) -> list[Job[Any]]:
        results.append(n)
        return [Job(label(n - 1), count(n - 1), then)] if n else []

    drive([Job(label(3), count(3), then)], toy.ToyLink())
    assert results == [3, 2, 1, 0]


def fails(times: int) -> toy.Fault:
    """North's first answers fail, so many of them."""
    failed: list[Ask] = []

    def fault(ask: Ask, reply: Reply) -> Reply:
        if ask.site == "north" and len(failed) < times:
            failed.append(ask)
            raise OSError("disk full")
        return reply

    return fault


def test_a_failed_task_is_sent_again_and_gives_the_same_bits() -> None:
    results: list[str] = []

    def keep(result: Weights) -> list[Job[Any]]:
        results.append(w.digest(result))
        return []

    for link in (toy.ToyLink(), toy.ToyLink(fault=fails(2)), toy.ToyLink(fault=fails(2), scramble=5)):
        drive([Job(label(0), training(0), keep)], link, retries=2)
    assert len(results) == 3
    assert len(set(results)) == 1


def test_the_error_names_hospital_procedure_and_round() -> None:
    asked: list[str] = []

    def second_round(ask: Ask, reply: Reply) -> Reply:
        asked.append(ask.site)
        if asked.count("east") == 2 and ask.site == "east":
            raise OSError("disk full")
        return reply

    with pytest.raises(SiteError) as caught:
        drive([Job(label(4), training(0))], toy.ToyLink(fault=second_round))
    assert (caught.value.site, caught.value.round) == ("east", 1)
    assert str(caught.value) == (
        "hospital 'east' failed in unlearn r-4 toy seed 4, round 2: OSError: disk full"
    )


@dataclass
class Cluster(toy.ToyLink):
    """Two machines; one of them does everything."""

    @property
    def machines(self) -> Sequence[Machine]:
        return [here(), replace(here(), host="node2")]

    def collect(self) -> Sequence[Answer]:
        return [replace(answer, machine="node2") for answer in super().collect()]


def test_the_error_names_the_machine_where_there_are_several() -> None:
    with pytest.raises(SiteError) as caught:
        drive([Job(label(4), training(0))], Cluster(fault=fails(1)))
    assert (caught.value.site, caught.value.machine) == ("north", "node2")
    assert str(caught.value) == (
        "hospital 'north' failed in unlearn r-4 toy seed 4, round 1 on machine 'node2': OSError: disk full"
    )


def test_more_failures_than_retries_stop_the_run() -> None:
    with pytest.raises(SiteError, match=r"'north'.*disk full"):
        drive([Job(label(0), training(0))], toy.ToyLink(fault=fails(3)), retries=2)


def spoiled(change: Callable[[dict[str, torch.Tensor]], object], count: int = 1) -> toy.Fault:
    def fault(ask: Ask, reply: Reply) -> Reply:
        if ask.site != "west":
            return reply
        weights = dict(reply.weights or {})
        change(weights)
        return Reply(weights, count, reply.arrays)

    return fault


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (spoiled(lambda x: x["0.bias"].mul_(float("nan"))), "NaN or infinity in '0.bias'"),
        (spoiled(lambda x: x["6.bias"].fill_(float("inf"))), "NaN or infinity in '6.bias'"),
        (spoiled(lambda x: x.pop("0.bias")), "'0.bias' is missing"),
        (spoiled(lambda x: x.update(extra=torch.ones(1))), "'extra' was not asked for"),
        (
            spoiled(lambda x: x.update({"0.bias": torch.ones(1)})),
            r"'0.bias' has shape \(1,\), expected \(4,\)",
        ),
        (spoiled(lambda x: x.update({"0.bias": x["0.bias"].double()})), "'0.bias' has dtype torch.float64"),
        (spoiled(lambda x: None, count=-3), "speaks for -3 images"),
        (lambda ask, reply: Reply(None, 1, {"g": torch.tensor([float("nan")])}), "NaN or infinity in 'g'"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error(fault: toy.Fault, words: str) -> None:
    with pytest.raises(SiteError, match=words):
        drive([Job(label(0), training(0))], toy.ToyLink(fault=fault))


def test_after_an_error_every_procedure_is_closed() -> None:
    closed: list[int] = []

    def procedure(number: int) -> Procedure[None]:
        try:
            while True:
                yield {site: Fit(toy.trained()[0], Select(), toy.TRAINING.local, 1) for site in toy.SITES}
        finally:
            closed.append(number)

    with pytest.raises(SiteError):
        drive([Job(label(n), procedure(n)) for n in range(3)], toy.ToyLink(fault=fails(1), scramble=2))
    assert sorted(closed) == [0, 1, 2]


def test_what_a_procedure_raises_is_reported_with_its_name() -> None:
    def wrong() -> Procedure[None]:
        yield {"north": Gradient(toy.trained()[0], Select())}
        raise ZeroDivisionError("by hand")

    with pytest.raises(RunError, match=r"unlearn r-0 toy seed 0 failed on the server.*by hand"):
        drive([Job(label(0), wrong())], toy.ToyLink())


def test_errors_of_our_own_pass_unchanged() -> None:
    def wrong() -> Procedure[None]:
        yield {"north": Gradient(toy.trained()[0], Select())}
        raise UndeclaredNeed("not declared")

    with pytest.raises(UndeclaredNeed, match="not declared"):
        drive([Job(label(0), wrong())], toy.ToyLink())


def test_a_round_that_asks_nobody_is_refused() -> None:
    def nobody() -> Procedure[None]:
        yield {}

    with pytest.raises(RunError, match="asked no hospital in round 1"):
        drive([Job(label(0), nobody())], toy.ToyLink())


def test_signals_come_in_row_order_whatever_the_order_of_hospitals() -> None:
    found = toy.run(signals(toy.trained()[1], ("west", "north", "east")))
    assert found["rows"].tolist() == list(range(72))
    chances = torch.softmax(found["logits"][48:], 1).gather(1, toy.images("west").targets[:, None])[:, 0]
    assert torch.allclose(chances, toy.chances(toy.trained()[1], "site"), atol=1e-6)


def test_a_procedure_can_be_driven_by_hand() -> None:
    """Federated averaging of two hospitals that answer 1 and 4 for 1 and 2 images: (1 + 2 * 4) / 3 = 3."""

    def reply(asks: Asks) -> Replies:
        return {"a": Reply({"x": torch.tensor([1.0])}, 1), "b": Reply({"x": torch.tensor([4.0])}, 2)}

    procedure = fedavg({"x": torch.zeros(1)}, ("a", "b"), Select(), toy.TRAINING.local, range(2), 0)
    assert torch.allclose(toy.by_hand(procedure, reply)["x"], torch.tensor([3.0]))

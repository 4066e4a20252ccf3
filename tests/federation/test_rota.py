"""Hospitals that take turns: who is asked, how those asked stand for all, and what strategies make of it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.contract import toy_turns as toy
from fedunlearn.contract.hospitals import by_hand
from fedunlearn.core import (
    Asks,
    Case,
    Recovery,
    Replies,
    Reply,
    Rota,
    Select,
    SiteId,
    Strategy,
    Task,
    Weights,
)
from fedunlearn.federation.procedures import everywhere, fedavg, present, recover, standing_for
from fedunlearn.learning.tasks import Fit
from strategies.crab import Crab
from strategies.fast_fedul import FastFedUL
from strategies.fedau import FedAU
from strategies.federaser import FedEraser
from strategies.fedrecover import FedRecover
from strategies.fedrecovery import FedRecovery
from strategies.fine_tune import FineTune
from strategies.l1_sparse import L1Sparse
from strategies.puf import PUF
from strategies.retrain import Retrain
from strategies.rollback import Rollback, first_touched
from strategies.sifu import SIFU

MANY = tuple(f"hospital-{number}" for number in range(20))


def asked(rota: Rota, rounds: int = 200, seed: int = 7) -> list[tuple[SiteId, ...]]:
    return [rota.asked(seed, "train", number) for number in range(rounds)]


@pytest.mark.parametrize(
    ("sites", "share", "size"),
    [(100, 0.07, 7), (10_000, 0.01, 100), (30, 0.1, 3), (11, 0.1, 2), (3, 0.01, 1)],
)
def test_the_share_is_what_was_written_rounded_up(sites: int, share: float, size: int) -> None:
    """In binary 0.07 times 100 is more than 7."""
    assert Rota(tuple(map(str, range(sites))), share).size == size


def test_with_a_share_of_one_all_are_asked_those_without_images_too() -> None:
    rota = Rota.among(toy.SITES, toy.IMAGES, 1.0)
    assert asked(rota, 3) == [toy.SITES] * 3


def test_as_many_are_asked_in_each_round_in_their_order_and_none_without_images() -> None:
    rota = Rota.among(toy.SITES, toy.IMAGES, 0.5)
    for sites in asked(rota):
        assert len(sites) == 3
        assert list(sites) == sorted(sites, key=toy.SITES.index)
        assert "empty" not in sites


def test_each_is_as_likely_as_any_other() -> None:
    """5 of 20 in 2,000 rounds: 500 each, with a standard deviation of sqrt(2000 * 0.25 * 0.75) = 19.4."""
    counts = Counter(site for sites in asked(Rota(MANY, 0.25), 2000) for site in sites)
    assert all(abs(counts[site] - 500) < 5 * 19.4 for site in MANY)


def test_seeds_and_purposes_draw_apart() -> None:
    rota = Rota(MANY, 0.25)
    assert asked(rota, seed=7) != asked(rota, seed=8)
    assert asked(rota) != [rota.asked(7, "recover", number) for number in range(200)]


def test_the_order_of_hospitals_changes_nobody() -> None:
    assert [set(x) for x in asked(Rota(MANY, 0.25))] == [set(x) for x in asked(Rota(MANY[::-1], 0.25))]


def test_who_leaves_gives_its_place_to_one_and_changes_nothing_else() -> None:
    """5 of 20 are asked, and 5 of 19."""
    before, after = asked(Rota(MANY, 0.25)), asked(Rota(MANY[1:], 0.25))
    for old, new in zip(before, after, strict=True):
        assert set(old) - set(new) == {MANY[0]} & set(old)
        assert len(new) == 5
    assert any(MANY[0] in old for old in before)


# ------------------------------------------------------------------------------------------------- rounds


def recorded(case: Case, rounds: int, purpose: str = "train") -> list[Asks]:
    """What averaging asks in rounds whose replies are what was sent."""
    found = list[Asks]()

    def reply(asks: Asks) -> Replies:
        found.append(asks)
        return {site: Reply(case.original, 1) for site in asks}

    procedure = fedavg(
        case.original, case.rota, case.retain, case.training.local, range(rounds), case.seed, purpose
    )
    by_hand(procedure, reply)
    return found


def test_averaging_asks_those_whose_turn_it_is() -> None:
    case = toy.case("site")
    rounds = recorded(case, 3, "recover")
    assert [tuple(asks) for asks in rounds] == [case.turn("recover", number) for number in range(3)]


def test_training_asked_those_that_the_case_names() -> None:
    _, _, memory = toy.trained()
    for number in range(toy.TRAINING.rounds):
        assert toy.case("site").trained(number) == tuple(s for t, s in memory.got if t == number)


def test_the_count_of_those_drawn_is_raised_to_that_of_all() -> None:
    """20 of 50 images answered for: each counts 2.5 times; a holder counts as it is."""
    images = {"a": 10, "b": 20, "c": 20}
    replies = {"a": Reply(None, 8), "holder": Reply(None, 3), "b": Reply(None, 12)}
    assert standing_for(images, {"b": replies["b"]}) == [30.0]
    assert standing_for(images, replies) == pytest.approx([8 * 50 / 30, 3, 12 * 50 / 30])
    assert standing_for(images, {"holder": replies["holder"]}) == [3.0]


def test_holders_are_always_asked_and_weigh_as_if_all_others_were() -> None:
    """A holder replies 1 and the others 0: the mean is the holder's share of all images, whoever is drawn."""
    case = toy.case("patients")
    like: Weights = {"x": torch.zeros(1)}
    case = replace(case, original=like, layout=replace(case.layout, buffers=()))

    def reply(asks: Asks) -> Replies:
        return {
            site: Reply({"x": torch.full((1,), float(site == "north"))}, toy.IMAGES[site]) for site in asks
        }

    def task(weights: Weights, site: SiteId, seed: int) -> Task:
        return Fit(weights, Select(), case.training.local, seed)

    drawn = {present(case, "forget", number) for number in range(8)}
    assert len(drawn) > 1
    assert all("north" in sites and len(sites) == 1 + 3 for sites in drawn)
    for purpose in ("forget", "another", "a third"):
        found = by_hand(everywhere(case, like, 1, task, purpose), reply)
        assert float(found["x"]) == pytest.approx(8 / sum(toy.IMAGES.values()))


# --------------------------------------------------------------------------------------------- strategies


def test_the_toys_leaver_was_asked_late_and_the_number_asked_stays() -> None:
    """What the tests below rely on."""
    case = toy.case("site")
    assert [toy.LEAVER in case.trained(number) for number in range(4)] == [False, False, True, True]
    assert case.rota.size == 3


def test_rollback_goes_back_to_the_first_round_that_asked_the_leaver() -> None:
    case, rounds = toy.case("site", Rollback(every=1)), list[frozenset[SiteId]]()
    assert first_touched(case) == 2
    result = toy.run(Rollback(every=1).unlearn(case), rounds.append)
    assert len(rounds) == 2
    assert w.digest(result) == w.digest(toy.run(Retrain().unlearn(case)))


def test_rollback_goes_back_where_a_round_has_one_place_less() -> None:
    """Half of 6 hospitals are 3, of 4 they are 2."""
    case = toy.case("site")
    fewer = replace(
        case,
        sites=tuple(site for site in case.sites if site != "hills"),
        kept={site: count for site, count in case.kept.items() if site != "hills"},
    )
    assert fewer.rota.size == 2
    assert first_touched(fewer) == 0


@pytest.mark.parametrize(
    "strategy",
    [
        FastFedUL(alpha=0.5),
        FastFedUL(form="paper"),
        FedRecovery(sigma=0.0),
        FedAU(),
        Rollback(every=1),
    ],
    ids=lambda strategy: f"{strategy.name}-{getattr(strategy, 'form', '')}",
)
def test_of_a_hospital_that_was_never_asked_nothing_is_taken_back(strategy: Strategy) -> None:
    """After two rounds, none of which asked it."""
    case = replace(toy.case("site", strategy), rounds=2)
    assert w.digest(toy.run(strategy.unlearn(case))) == w.digest(case.original)


@pytest.mark.parametrize(
    "strategy",
    [FedEraser(every=1), Crab(P=1.0, X=1.0), SIFU(), FastFedUL(), FedRecovery(), FedRecover(T_w=1)],
    ids=lambda strategy: strategy.name,
)
def test_rounds_that_asked_hospitals_with_nothing_left_are_passed_over(strategy: Strategy) -> None:
    """All images of all that round 0 asked were taken before, and of all but the leaver that round 3 did."""
    case = toy.case("site", strategy, before=(toy.EARLIER,))
    assert {*case.trained(0)} == toy.EMPTIED
    assert {*case.trained(3)} <= {*toy.EMPTIED, toy.LEAVER}
    result = toy.run(strategy.unlearn(case), lambda asked: assert_kept(case, asked))
    assert w.first_nonfinite(result) is None


def after(case: Case, requests: int) -> Case:
    """As ``case``, had so many requests been served before it."""
    without = tuple(f"request-{number}" for number in range(requests))
    return replace(case, forget=replace(case.forget, without=without))


def test_requests_of_a_sequence_are_repaired_by_one_hospital_after_another() -> None:
    """A tenth of 20 hospitals for each of 100 requests: one that is never drawn has a chance of 0.9^100 = 3e-5."""
    tenth = replace(toy.TRAINING, participation=0.1)
    first = replace(toy.case("patients"), sites=MANY, kept=dict.fromkeys(MANY, 10), training=tenth)
    cases = [after(first, number) for number in range(100)]
    repairing = [tuple(next(recover(case, case.original, Recovery(1)))) for case in cases]
    beside = [present(case, "forget", 0) for case in cases]
    assert repairing[0] == first.rota.asked(first.seed, "recover", 0)
    assert {*MANY} == {site for sites in repairing for site in sites}
    assert {*MANY, *first.holders} == {site for sites in beside for site in sites}
    assert len({case.turn("train", 0) for case in cases}) == 1


def test_without_a_penalty_l1_sparse_is_fine_tuning_at_later_requests_too() -> None:
    case = after(toy.case("patients"), 2)
    plain, penalised = (
        toy.run(one.unlearn(case)) for one in (FineTune(rounds=2), L1Sparse(alpha=0.0, rounds=2))
    )
    assert w.norm(w.subtract(plain, penalised)) < 1e-5 < 0.1 < w.norm(w.subtract(plain, case.original))


def assert_kept(case: Case, asked: frozenset[SiteId]) -> None:
    assert all(case.kept[site] for site in asked)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_puf_steps_as_far_back_however_few_are_asked(share: float) -> None:
    """Hospitals that retain move nothing and west moves every weight by 1: the step is its share of all images."""
    case = toy.case("site")
    case = replace(case, training=replace(case.training, participation=share))

    def reply(asks: Asks) -> Replies:
        moved = {site: float(site == toy.LEAVER) for site in asks}
        return {
            site: Reply({name: x + moved[site] for name, x in case.original.items()}, toy.IMAGES[site])
            for site in asks
        }

    strategy = PUF(eta=1.0, round="regular", recovery=Recovery(0))
    result = w.subtract(by_hand(strategy.unlearn(case), reply), case.original)
    expected = -toy.IMAGES[toy.LEAVER] / sum(toy.IMAGES.values())
    for name in case.layout.parameters:
        torch.testing.assert_close(result[name], torch.full_like(result[name], expected), atol=1e-5, rtol=0)


def test_sifu_adds_no_noise_where_no_round_asked_the_leaver() -> None:
    case = replace(toy.case("site", SIFU()), rounds=2)
    assert SIFU().restart(case) == 2
    task = next(iter(next(SIFU().unlearn(case)).values()))
    assert isinstance(task, Fit)
    assert w.digest(task.weights) == w.digest(case.original)


def test_sifu_knows_no_bound_where_another_takes_the_leavers_place() -> None:
    """However much noise may hide: nobody stored what that one would have sent."""
    case, strategy = toy.case("site", SIFU()), SIFU(epsilon=1e9)
    assert strategy.psi(case) == [0, 0, 0, math.inf, math.inf]
    assert w.digest(toy.run(strategy.unlearn(case))) == w.digest(toy.run(Retrain().unlearn(case)))


def test_sifu_counts_a_round_that_has_one_place_less_though_it_asked_no_leaver() -> None:
    """Half of 6 hospitals are 3, of 4 they are 2: the last in the round's order is asked no more."""
    case = toy.case("site", SIFU())
    gone = next(site for site in case.sites if site not in case.trained(0))
    fewer = replace(
        case,
        sites=tuple(site for site in case.sites if site != gone),
        kept={site: count for site, count in case.kept.items() if site != gone},
        lost={**case.lost, gone: case.kept[gone]},
        holders=tuple(site for site in toy.SITES if site in (gone, toy.LEAVER)),
    )
    asked, again = fewer.trained(0), fewer.turn("train", 0)
    assert not {*asked} & {*fewer.holders} and {*again} < {*asked}
    whole, others = (
        w.average([fewer.history.update(0, site) for site in sites], [toy.IMAGES[site] for site in sites])
        for sites in (asked, again)
    )
    expected = w.norm(w.subtract(whole, others), fewer.layout.parameters)
    assert SIFU().psi(fewer)[1] == expected > 0


def test_fedrecover_that_always_asks_is_retraining_whoever_is_asked() -> None:
    case, strategy = toy.case("site", FedRecover(T_w=4)), FedRecover(T_w=4)
    assert w.digest(toy.run(strategy.unlearn(case))) == w.digest(toy.run(Retrain().unlearn(case)))


def test_fedrecover_asks_for_what_nobody_stored() -> None:
    """In rounds whose estimates are taken, just the one in the leaver's place is asked."""
    strategy, rounds = FedRecover(T_w=2, T_c=5, T_f=0), list[frozenset[SiteId]]()
    case = toy.case("site", strategy)
    toy.run(strategy.unlearn(case), rounds.append)
    for number, sites in zip((2, 3), rounds[2:], strict=True):
        assert set(case.turn("train", number)) - set(case.trained(number)) <= sites

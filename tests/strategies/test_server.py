"""One oracle per exact, server-side or two-sided strategy: its formula by hand, or ten slow lines."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Asks,
    Batch,
    Case,
    Every,
    Last,
    LocalTraining,
    Needs,
    Recovery,
    Replies,
    Reply,
    Seen,
    Select,
    SiteId,
    UndeclaredNeed,
    Weights,
)
from fedunlearn.federation.history import choose
from fedunlearn.learning.constraints import Ball
from fedunlearn.learning.tasks import Ascent, Fit, Gradient
from strategies.conda import ConDa
from strategies.crab import Crab, Important, change, cosine, largest
from strategies.federaser import FedEraser
from strategies.fedmemprune import FedMemPrune, least
from strategies.fedosd import FedOSD, UnlearningLoss, flat, orthogonal, picked
from strategies.fedrecovery import FedRecovery
from strategies.fine_tune import FineTune
from strategies.pga import PGA, references
from strategies.rapid_retrain import RapidRetrain
from strategies.retrain import Retrain
from strategies.retrain_short import RetrainShort
from strategies.rollback import Rollback, first_touched
from tests import toy
from tests.federation.test_history import ROUNDS, models, watch
from tests.strategies.test_client import FORGET, WEIGHTS, B, Clinic, W, X, Y

pytestmark = pytest.mark.rounding


def close(a: Weights, b: Weights, tolerance: float = 1e-6) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=tolerance, rtol=0) for n in a)


# ------------------------------------------------------------------------------------------- rollback


@pytest.mark.parametrize(("touched", "asked"), [(0, 4), (1, 4), (2, 2), (3, 2), (4, 0)])
def test_rollback_without_a_request_replays_training_bit_for_bit(touched: int, asked: int) -> None:
    """Checkpoints of rounds 0 and 2 of 4: touched in round 3, rounds 2 and 3 are replayed, at three hospitals."""
    log = toy.Log()
    case = replace(toy.case("patients", log=log), retain=Select())
    procedure = Rollback(every=2).replay(case, touched)
    result = toy.run(procedure, watchers=[toy.Asked(log)])
    assert w.digest(result) == w.digest(case.original)
    assert len(log.asked) == 3 * asked
    assert log.checkpoints == ({4 - asked} if asked else set())


def test_what_names_no_training_image_touched_nothing() -> None:
    case = toy.case("patients")
    assert first_touched(case) == 0
    untouched = replace(case, lost={}, holders=())
    assert first_touched(untouched) == case.rounds
    assert toy.run(Rollback().unlearn(untouched)) is case.original


# ------------------------------------------------------------------------------------------------ pga


def test_the_last_updates_are_kept_until_the_next_ones_are_there(tmp_path: Path) -> None:
    """A request after round 2, one at the end after round 5: one model of 12 bytes for each of three hospitals."""
    needs = Needs(updates=Last())
    recorder = watch(tmp_path, [needs], cuts={2: tmp_path / "cut"})
    assert {path.stem for path in tmp_path.glob("update*")} == {f"updates-{t}" for t in (1, ROUNDS - 1)}
    assert recorder.stored(needs, 2, 3) == recorder.stored(needs, ROUNDS, 3) == 3 * 12
    assert recorder.view(needs, 2).update(1, "west")["x"].item() == 1.0
    with pytest.raises(UndeclaredNeed, match="updates of round 3 but declares the last of 5 rounds"):
        recorder.view(needs, ROUNDS).update(3, "west")


def test_keeping_the_last_updates_removes_nothing_another_strategy_needs(tmp_path: Path) -> None:
    watch(tmp_path, [Needs(updates=Last()), Needs(updates=Every(3))])
    assert models(tmp_path) == {f"updates-{t}" for t in (0, 3, 4)}


def test_the_reference_is_the_average_of_the_stayers_last_models() -> None:
    """w_ref = (w_3 + D_north + w_3 + D_east) / 2, all hospitals holding 24 images; w_u = w_3 + D_west."""
    case, memory = toy.case("site"), toy.trained()[2]
    own, reference = references(case)
    sent, got = memory.sent[3], {site: memory.got[3, site] for site in toy.SITES}
    assert close(reference, {n: x + (got["north"][n] + got["east"][n]) / 2 for n, x in sent.items()}, 1e-5)
    assert close(own, w.add(sent, got["west"]), 1e-5)


def test_the_ball_projects_onto_its_surface_and_leaves_what_is_inside() -> None:
    """(3, 4) - (0, 0) has length 5 over both tensors: shortened to 2.5 it is (1.5, 2); to 6 it stays."""
    center = {"a": torch.zeros(1), "b": torch.zeros(1)}
    for radius, expected in ((2.5, (1.5, 2.0)), (6.0, (3.0, 4.0))):
        parameters = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
        Ball(center, radius)(parameters)
        assert (float(parameters["a"]), float(parameters["b"])) == expected


def test_delta_of_untrained_models_with_constant_tensors() -> None:
    """Tensors of one value each have one order: delta^2 = radius * |w_ref - w_0|^2 = 1/3 * 4 * 2500 entries."""
    case = toy.case("site")
    initial = {name: torch.ones_like(x) for name, x in case.initial.items()}
    reference = {name: torch.full_like(x, 3.0) for name, x in case.initial.items()}
    entries = sum(x.numel() for x in initial.values())
    delta = PGA(radius=1 / 3).delta(replace(case, initial=initial), reference)
    assert delta == pytest.approx((4 * entries / 3) ** 0.5)


@pytest.mark.parametrize(("farthest", "radius", "steps"), [(1e9, 1e9, 3), (0.0, 1e9, 1), (1e9, 0.01, 3)])
def test_ascent_by_ten_slow_lines(farthest: float, radius: float, steps: int) -> None:
    """Each epoch is one step of SGD up the loss of the two images, projected; beyond ``farthest`` it ends."""
    step = LocalTraining(epochs=3, batch_size=4, optimizer="sgd", lr=0.1, momentum=0.0)
    task = Ascent(WEIGHTS, FORGET, step, 1, Ball(WEIGHTS, radius), WEIGHTS, farthest)
    now = torch.cat([W, B[:, None]], 1)
    start, x = now.clone(), torch.cat([X[:2], torch.ones(2, 1)], 1)
    for _ in range(steps):
        error = torch.softmax(x @ now.T, 1) - torch.nn.functional.one_hot(Y[:2], 2)
        now = now + 0.1 * error.T @ x / 2
        now = start + (now - start) * min(1.0, radius / float((now - start).norm()))
    result = task(Clinic()).weights
    assert result is not None
    assert close(result, {"1.weight": now[:, :3], "1.bias": now[:, 3]})


# --------------------------------------------------------------------------------------------- fedosd


def test_orthogonal_by_hand() -> None:
    """(3, 4, 12) less its part in the plane of (1, 0, 0) and (1, 1e-6, 0) is (0, 0, 12), made as long as 13."""
    vector = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([[12.0]])}
    others = [{"a": torch.tensor([1.0, y]), "b": torch.zeros(1, 1)} for y in (0.0, 1e-3)]
    result = orthogonal(vector, [*others, others[0]])  # one of them twice: A A^T has no inverse
    assert close(result, {"a": torch.zeros(2), "b": torch.tensor([[13.0]])}, 1e-5)
    inside = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(1, 1)}
    assert not flat(orthogonal(inside, others)).any()


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_fedosd_steps_are_orthogonal_to_every_retained_gradient_and_as_long_as_the_holders(wish: str) -> None:
    case, retained, unlearning = toy.case(wish), list[Weights](), list[tuple[Weights, int]]()
    procedure = FedOSD(rounds=1, lr=0.5, recovery=Recovery(0)).unlearn(case)

    def reply(asks: Asks) -> Replies:
        replies = {site: toy.answer(task, site) for site, task in asks.items()}
        for answer, task in zip(replies.values(), asks.values(), strict=True):
            assert isinstance(task, Gradient)
            if task.objective is None:
                retained.append(answer.arrays)
            else:
                unlearning.append((answer.arrays, answer.count))
        return replies

    step = w.subtract(case.original, toy.by_hand(procedure, reply))
    g_u = w.average([g for g, _ in unlearning], [n for _, n in unlearning])
    assert len(retained) == len(case.sites)
    assert w.norm(step) == pytest.approx(0.5 * w.norm(g_u), rel=1e-3)
    for g in retained:
        cosine = torch.nn.functional.cosine_similarity(flat(step), flat(picked(g, step)), dim=0)
        assert abs(float(cosine)) < 1e-3  # the step itself is rounded to float32
    assert float(flat(step) @ flat(picked(g_u, step))) > 0, "it descends the unlearning loss"


def test_the_unlearning_loss_by_hand() -> None:
    """p_y = 1/4 and 3/4: the mean of -log(7/8) and -log(5/8)."""
    batch = Batch(torch.tensor([[1.0, 3.0], [1.0, 3.0]]).log(), torch.tensor([0, 1]), torch.arange(2))
    loss = UnlearningLoss()(torch.nn.Identity(), batch)
    assert float(loss) == pytest.approx(-(math.log(7 / 8) + math.log(5 / 8)) / 2, rel=1e-5)


def test_recovery_keeps_the_distance_from_the_original() -> None:
    """Updates (1, 1) with v = (2, 0): (0, sqrt 2) each, so w = (2, sqrt 2); the statistics are averaged."""
    case = toy.case("site")
    layout = replace(case.layout, parameters=("a",), buffers=("mean",))
    original = {"a": torch.zeros(2), "mean": torch.zeros(1)}
    case = replace(case, layout=layout, original=original)

    def reply(asks: Asks) -> Replies:
        (first, *_) = asks.values()
        if isinstance(first, Gradient):
            value = torch.tensor([-2.0, 0.0]) if first.objective else torch.tensor([0.0, 1.0])
            return {site: Reply(None, 1, {"a": value}) for site in asks}
        new = {"a": torch.tensor([3.0, 1.0]), "mean": torch.ones(1)}
        return {site: Reply(new, 1) for site in asks}

    result = toy.by_hand(FedOSD(rounds=1, lr=1.0, recovery=Recovery(1)).unlearn(case), reply)
    assert close(result, {"a": torch.tensor([2.0, math.sqrt(2)]), "mean": torch.ones(1)})


# ---------------------------------------------------------------------------------------- fedrecovery


def told(updates: dict[str, list[float]], **fields: Any) -> Case:
    """A request by west, holding 2 of 4 images, after rounds in which each hospital sent such numbers."""

    class Told(toy.Memory):
        def update(self, round: int, site: SiteId) -> Weights:
            return {"a": torch.tensor([updates[site][round]])}

    case, rounds = toy.case("site"), len(updates["west"])
    layout = replace(case.layout, parameters=("a",), buffers=())
    original = {"a": torch.tensor([10.0])}
    kept, lost = {"north": 1, "east": 1}, {"west": 2}
    return replace(
        case, original=original, rounds=rounds, kept=kept, lost=lost, layout=layout, history=Told(), **fields
    )


def test_fedrecovery_by_hand() -> None:
    """Shares 1/4, 1/4, 1/2. Round 0: mean 4, r = 1 (6 - 4), p = 16/20; round 1: mean 2, r = (3 - 2), p = 4/20."""
    case = told({"north": [1.0, 1.0], "east": [3.0, 1.0], "west": [6.0, 3.0]})
    result = toy.by_hand(FedRecovery(sigma=0.0).unlearn(case), lambda asks: {})
    assert close(result, {"a": torch.tensor([10 - 1.6 - 0.2])})


def test_fedrecovery_draws_new_noise_at_every_request_of_a_sequence() -> None:
    """Of west, which moved nothing: what is left is the noise of one request, and of one that comes after another."""
    first = told({site: [0.0] for site in ("north", "east", "west")})
    second = replace(first, forget=replace(first.forget, without=("earlier",)))
    runs = (toy.by_hand(FedRecovery().unlearn(case), lambda asks: {}) for case in (first, second, second))
    one, other, again = (float(result["a"]) for result in runs)
    assert one != other == again
    assert 10 not in (one, other)


def test_in_one_round_fedrecovery_is_what_the_others_would_have_made() -> None:
    """After one round p_0 = 1: the average of the stayers' models, exactly retraining from the same start."""
    case = toy.case("site", rounds=1)
    result = toy.run(FedRecovery(sigma=0.0).unlearn(case))
    got = toy.trained()[2].got
    expected = w.add(case.initial, w.average([got[0, "north"], got[0, "east"]], [1, 1]))
    assert close(result, expected, 1e-5)


def test_the_noise_has_the_given_deviation_and_comes_from_the_seed() -> None:
    case = toy.case("site")
    quiet, loud = (toy.run(FedRecovery(sigma=sigma).unlearn(case)) for sigma in (0.0, 0.1))
    noise = flat(w.subtract(loud, quiet))
    # some 2500 draws: the deviation's own is 0.1 / sqrt(2 * 2500) = 0.0014
    assert abs(float(noise.std()) - 0.1) < 4 * 0.0015
    other = toy.run(FedRecovery(sigma=0.1).unlearn(replace(case, seed=8)))
    assert not close(loud, other, 1e-3)


# ---------------------------------------------------------------------------------------------- conda


def test_conda_dampens_what_the_leaver_made_and_not_what_the_others_made() -> None:
    """Ratios ((|-1| + 3) / 2) / 10 = 0.2, 2 / 1 = 2, 0.4 and 0/0: w times 0.1, as it was, times 0.2, as it was."""
    sums = {"north": [-1.0, 2.0, 0.4, 0.0], "east": [3.0, 2.0, 0.4, 0.0], "west": [-10.0, 1.0, 1.0, 0.0]}

    class Told(toy.Memory):
        def cumulative(self, site: SiteId) -> Weights:
            return {"a": torch.tensor(sums[site])}

    case = toy.case("site")
    layout = replace(case.layout, parameters=("a",), buffers=())
    case = replace(case, original={"a": torch.full((4,), 10.0)}, layout=layout, history=Told())
    result = toy.by_hand(ConDa(cutoff=0.5).unlearn(case), lambda asks: {})
    assert close(result, {"a": torch.tensor([1.0, 10.0, 2.0, 10.0])})
    bounded = toy.by_hand(ConDa(cutoff=0.5, dampening=3.0, upper=0.9).unlearn(case), lambda asks: {})
    assert close(bounded, {"a": torch.tensor([6.0, 10.0, 9.0, 10.0])})  # 3 * 0.4 is more than 0.9


def test_conda_counts_distances_from_the_start_or_the_hospitals_own_updates() -> None:
    """By hand, from all models of training: dampened where the others' mean is less than half of west's."""
    _, original, memory = toy.trained()
    initial, names = memory.sent[0], toy.case("site").layout.parameters

    def contributed(strategy: ConDa, site: SiteId, name: str) -> Tensor:
        updates = torch.stack([memory.got[t, site][name] for t in range(toy.TRAINING.rounds)])
        if strategy.contribution == "updates":
            return updates.sum(0).abs()
        models = torch.stack([memory.sent[t][name] for t in range(toy.TRAINING.rounds)]) + updates
        return (models - initial[name]).abs().sum(0)

    for strategy in (ConDa(), ConDa(contribution="updates")):
        dampened, expected = 0, dict(original)
        for name in names:
            own = {site: contributed(strategy, site, name) for site in toy.SITES}
            ratio = (own["north"] + own["east"]) / 2 / own["west"]
            expected[name] = torch.where(
                ratio < 0.5, original[name] * (0.5 * ratio).clamp(max=0.5), original[name]
            )
            dampened += int((ratio < 0.5).sum())
        assert close(toy.outcome(strategy, "site").weights, expected)
        assert dampened > 0


def test_conda_with_no_cutoff_is_the_identity() -> None:
    case = toy.case("site")
    assert w.digest(toy.run(ConDa(cutoff=0.0).unlearn(case))) == w.digest(case.original)


# ----------------------------------------------------------------------------------------------- crab


def seen(**updates: list[float]) -> Seen:
    """A round that started from zeros, at hospitals with as many images each."""
    return Seen(
        {"a": torch.zeros(2)},
        {site: {"a": torch.tensor(update)} for site, update in updates.items()},
        dict.fromkeys(updates, 1),
    )


def test_crab_chooses_the_rounds_that_changed_the_model_most_by_hand() -> None:
    """Softmax of (0, 0) against (0, d): KL = log((1 + e^d) / 2) - d / 2, more for a longer d; a shift is no change."""
    by_d = [change(seen(north=[0.0, d])) for d in (0.0, 1.0, 3.0)]
    assert by_d == pytest.approx([math.log((1 + math.exp(d)) / 2) - d / 2 for d in (0.0, 1.0, 3.0)])
    assert change(seen(north=[2.0, 2.0])) == pytest.approx(0.0)
    assert largest(by_d, 0.6) == [1, 2]  # ceil(1.8)
    assert largest([0.5, 0.5], 0.5) == [0]


def test_crab_chooses_among_all_hospitals_those_that_went_the_models_way() -> None:
    """Their mean is (3, 3): cosines 1 and .95, and 0 for one that did not move. Half of three, rounded up, is two."""
    one = seen(north=[7.0, 5.0], east=[0.0, 0.0], west=[2.0, 4.0])
    way = {"a": torch.tensor([3.0, 3.0])}
    assert cosine(one.updates["west"], way) == pytest.approx(6 / math.sqrt(40))
    assert cosine(one.updates["east"], way) == 0
    assert Important(5, 1.0, 0.5).sites(one) == ["north", "west"]


def test_crab_keeps_the_first_round_and_a_share_of_every_window() -> None:
    """Windows of 3 from round 0: all of it, one of rounds 1 and 2, then two of three; one hospital of two in each."""
    choice = Important(window=3, P=0.5, X=0.5)
    rounds = {t: seen(north=[0.0, d], east=[0.0, 0.0]) for t, d in enumerate([1.0, 1.0, 2.0, 5.0, 3.0, 4.0])}
    kept = {0: ("north", "east"), 2: ("north",)}
    for length, more in ((3, {}), (4, {3: ("north",)}), (6, {3: ("north",), 5: ("north",)})):
        assert choose(choice, length, rounds.__getitem__) == kept | more


def test_crab_passes_over_the_leaver_and_asks_the_others_that_were_chosen() -> None:
    """A choice made for everyone: of the toy's rounds 1, 2, 3 two count, with one of three hospitals in each."""
    strategy = Crab(P=0.5, X=0.3)
    history = toy.case("site", strategy=strategy).history
    chosen = {t: history.chosen(t) for t in range(4)}
    assert chosen[0] == toy.SITES
    assert sorted(map(len, list(chosen.values())[1:])) == [0, 1, 1]
    asked = [site for site, _ in toy.outcome(strategy, "site").log.asked]
    assert asked == [site for t in (1, 2, 3) for site in chosen[t] if site != "west"]


def test_crab_is_the_same_whoever_leaves_until_it_is_known() -> None:
    """What is kept is decided while training: a history of two rounds is the beginning of one of four."""
    strategy = Crab(window=2, P=0.5, X=0.5)
    early, late = (toy.case("site", rounds=rounds, strategy=strategy).history for rounds in (2, 4))
    assert [early.chosen(t) for t in range(2)] == [late.chosen(t) for t in range(2)]
    with pytest.raises(AssertionError, match="its choice kept"):
        late.update(3, next(site for site in toy.SITES if site not in late.chosen(3)))


def test_crab_with_all_of_the_history_is_federaser_with_all_of_it() -> None:
    everything = toy.outcome(Crab(P=1.0, X=1.0, r=1.0), "site").weights
    assert close(everything, toy.outcome(FedEraser(every=1, r=1.0), "site").weights)


# ---------------------------------------------------------------------------------------- fedmemprune


def test_the_smallest_entries_of_all_tensors_together() -> None:
    marks = least({"a": torch.tensor([[3.0, 0.5], [1.0, 2.0]]), "b": torch.tensor([0.1, 1.0])}, 3)
    assert marks["a"].tolist() == [[False, True], [True, False]]
    assert marks["b"].tolist() == [True, False]  # 1.0 twice: the earlier one


def test_a_reset_picks_its_share_of_the_redundant_weights_only() -> None:
    """900 of 1000 are redundant; three quarters of them, 675, become untrained."""
    redundant = {"a": torch.arange(1000) >= 100}
    trained, untrained = {"a": torch.zeros(1000)}, {"a": torch.ones(1000)}
    most = FedMemPrune(round_drop_ratio=0.75)
    first = most.reset(trained, untrained, redundant, 1)["a"]
    assert not first[:100].any()
    assert int(first.sum()) == 675
    assert not torch.equal(first, most.reset(trained, untrained, redundant, 2)["a"])
    assert torch.equal(FedMemPrune().reset(trained, untrained, redundant, 1)["a"] == 1, redundant["a"])
    assert not FedMemPrune(round_drop_ratio=0.0).reset(trained, untrained, redundant, 1)["a"].any()


def test_fedmemprune_resets_what_the_first_round_moved_least_to_initial_values() -> None:
    """Hospitals that answer +5 for some weights and +1 for the others: all the others are reset, none of the some."""
    case = toy.case("site")
    names = case.layout.parameters
    moves = {name: (torch.arange(x.numel()).view_as(x) % 2) * 4.0 + 1.0 for name, x in case.original.items()}
    still = sum(int((moves[name] == 1).sum()) for name in names)
    share = (still + 0.5) / sum(moves[name].numel() for name in names)

    def reply(asks: Asks) -> Replies:
        return {site: Reply(w.add(case.original, moves), 24) for site in asks}

    strategy = FedMemPrune(rounds=1, drop_ratio=share, round_drop_ratio=1.0)
    result, tuned = toy.by_hand(strategy.unlearn(case), reply), w.add(case.original, moves)
    for name in names:
        some = moves[name] == 5
        assert torch.allclose(result[name][some], tuned[name][some])
        assert set(result[name][~some].tolist()) <= set(case.initial[name].flatten().tolist())


def test_fedmemprune_that_drops_nothing_is_fine_tuning() -> None:
    result = toy.outcome(FedMemPrune(drop_ratio=0.0), "patients").weights
    assert w.digest(result) == w.digest(toy.outcome(FineTune(rounds=3), "patients").weights)


# -------------------------------------------------------------------------------------- retrain_short


@pytest.mark.parametrize(
    ("share", "rounds"), [(0.01, 1), (0.25, 1), (0.5, 2), (0.6, 2), (0.8, 3), (0.9, 4), (1.0, 4)]
)
@pytest.mark.parametrize("wish", ["patients", "site"])
def test_retraining_cut_short_is_the_retrained_model_on_its_way_bit_for_bit(
    wish: str, share: float, rounds: int
) -> None:
    """What retraining sends out in the next round, or comes to after the last of four."""
    memory = toy.Memory()
    finished = toy.run(Retrain().unlearn(toy.case(wish)), watchers=[memory])
    log = toy.Log()
    result = toy.run(RetrainShort(share=share).unlearn(toy.case(wish)), watchers=[toy.Asked(log)])
    assert {number for _, number in log.asked} == set(range(rounds))
    assert w.digest(result) == w.digest(memory.sent.get(rounds, finished))


# -------------------------------------------------------------------------------------- rapid_retrain


@pytest.mark.parametrize(
    ("j0", "T0", "ordinary"), [(None, 5, ""), (0, 5, "0"), (0, 2, "02"), (1, 2, "013"), (3, 5, "0123")]
)
def test_rapid_retraining_leaves_some_rounds_to_trainings_own_optimizer(
    j0: int | None, T0: int, ordinary: str
) -> None:
    """Rounds 0 to j0, and those a multiple of T0 after it, of four."""
    seen = list[LocalTraining]()

    def reply(asks: Asks) -> Replies:
        for task in asks.values():
            assert isinstance(task, Fit)
        seen.append(next(task.training for task in asks.values() if isinstance(task, Fit)))
        return {site: Reply(case.initial, 1) for site in asks}

    case = toy.case("patients")
    toy.by_hand(RapidRetrain(share=1.0, lr=0.02, j0=j0, T0=T0).unlearn(case), reply)
    plain = case.training.local
    curved = replace(plain, optimizer="adahessian", lr=0.02, hessian_power=0.5)
    assert seen == [plain if str(t) in ordinary else curved for t in range(4)]


def test_rapid_retraining_with_ordinary_rounds_alone_is_retraining_cut_short() -> None:
    plain = toy.outcome(RapidRetrain(share=0.6, j0=10), "patients").weights
    assert w.digest(plain) == w.digest(toy.outcome(RetrainShort(share=0.6), "patients").weights)

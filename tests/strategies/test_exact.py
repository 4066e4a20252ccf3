"""Strategies that are exact by the way they train: identities, slow versions, and a run that prepares them."""

from __future__ import annotations

from collections import ChainMap

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import (
    Asks,
    Form,
    Images,
    Preparing,
    Procedure,
    Replies,
    Reply,
    Select,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg, together
from fedunlearn.learning.local import fit
from fedunlearn.learning.models import SmallCNN, initial_weights
from fedunlearn.learning.tasks import Draws, FitDrawn, drawn
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.evidence.reading import read
from strategies.fats import FATS
from strategies.sharded import Sharded
from tests import toy
from tests.runs import run, weight_files, without_scores

pytestmark = pytest.mark.rounding

LOCAL, T = toy.TRAINING.local, toy.TRAINING.rounds
WISHES = ["patients", "site"]


def unlearned(strategy: Preparing, wish: str, seed: int = 7) -> Weights:
    return toy.outcome(strategy, wish, seed).weights


def asked(strategy: Preparing, wish: str, seed: int = 7) -> dict[int, set[SiteId]]:
    """Who was asked in each round of unlearning."""
    rounds: dict[int, set[SiteId]] = {}
    for site, number in toy.outcome(strategy, wish, seed).log.asked:
        rounds.setdefault(number, set()).add(site)
    return rounds


# -------------------------------------------------------------------------------------------- together


def counting(site: SiteId, rounds: int) -> Procedure[int]:
    """Ask one hospital some times, and return the sum of what it counts."""
    total = 0
    for _ in range(rounds):
        replies = yield {site: Draws(Select(), (), 1.0)}
        assert list(replies) == [site]
        total += replies[site].count
    return total


def test_rounds_run_side_by_side_and_results_come_by_name() -> None:
    numbers = {"north": 1, "east": 10, "west": 100}
    rounds: list[set[SiteId]] = []

    def reply(asks: Asks) -> Replies:
        assert isinstance(asks, ChainMap)
        assert {site for one in asks.maps for site in one} == set(asks)
        rounds.append(set(asks))
        return {site: Reply(None, numbers[site]) for site in asks}

    procedures = {"a": counting("north", 1), "b": counting("east", 3), "c": counting("west", 0)}
    assert toy.by_hand(together(procedures), reply) == {"a": 1, "b": 30, "c": 0}
    assert rounds == [{"north", "east"}, {"east"}, {"east"}]


def test_together_is_one_after_the_other_bit_for_bit() -> None:
    initial, _, _ = toy.trained()

    def alone(site: SiteId) -> Procedure[Weights]:
        return fedavg(initial, [site], Select(), LOCAL, range(2), 7)

    models = toy.run(together({site: alone(site) for site in toy.SITES}), toy.ToyLink(scramble=2))
    assert list(models) == list(toy.SITES)
    for site in toy.SITES:
        assert w.digest(models[site]) == w.digest(toy.run(alone(site)))


def test_procedures_that_ask_the_same_hospital_cannot_run_together() -> None:
    with pytest.raises(ValueError, match="a, b cannot run together"):
        next(together({"a": counting("north", 1), "b": counting("north", 1)}))


def test_closing_what_runs_together_closes_all_of_it() -> None:
    inner = {"a": counting("north", 2), "b": counting("east", 2)}
    outer = together(inner)
    next(outer)
    outer.close()
    with pytest.raises(StopIteration):
        next(inner["a"])
    with pytest.raises(StopIteration):
        next(inner["b"])


# --------------------------------------------------------------------------------------------- sharded


def test_one_shard_without_joint_rounds_is_retraining() -> None:
    strategy = Sharded(shards=1, joint_rounds=0)
    assert w.digest(toy.prepared(strategy)["model"]) == w.digest(toy.trained()[1])
    for wish in WISHES:
        assert w.digest(unlearned(strategy, wish)) == w.digest(toy.retrained(wish))


def test_joint_rounds_alone_are_retraining() -> None:
    for joint in (T, T + 3):
        assert w.digest(unlearned(Sharded(joint_rounds=joint), "site")) == w.digest(toy.retrained("site"))


def test_shards_train_apart_and_then_together_by_hand() -> None:
    """Two shards: north and west, with 20 + 24 images after the request, and east with 20; one joint round of four."""
    case = toy.case("patients")
    one, other = (
        toy.run(fedavg(case.initial, sites, case.retain, LOCAL, range(3), 7))
        for sites in (("north", "west"), ("east",))
    )
    counts = [sum(case.kept[site] for site in sites) for sites in (("north", "west"), ("east",))]
    assert sum(counts) == 72 - sum(case.lost.values())
    joined = w.average([one, other], counts)
    expected = toy.run(fedavg(joined, toy.SITES, case.retain, LOCAL, range(3, 4), 7))
    assert w.digest(unlearned(Sharded(), "patients")) == w.digest(expected)


def test_only_the_shards_that_a_request_concerns_train_apart_again() -> None:
    """Of three shards with a hospital each: the request names patients of north and east; then west leaves."""
    strategy = Sharded(shards=3, joint_rounds=1)
    patients = asked(strategy, "patients")
    assert patients == {**{t: {"north", "east"} for t in range(T - 1)}, T - 1: set(toy.SITES)}
    assert asked(strategy, "site") == {0: {"north", "east"}}
    assert toy.outcome(strategy, "patients").log.prepared == {"shard-2"}


@pytest.mark.parametrize(
    ("wish", "left"), [("site", ("shard-0", "shard-1")), ("everyone", ("shard-1", "shard-2"))]
)
def test_a_shard_with_nothing_left_drops_out(wish: str, left: tuple[str, str]) -> None:
    """West leaves; all patients of north are forgotten, one of whom east holds as well."""
    strategy = Sharded(shards=3, joint_rounds=0)
    case, own = toy.case(wish), dict(toy.prepared(strategy))
    if wish == "everyone":
        own["shard-1"] = toy.run(fedavg(case.initial, ["east"], case.retain, LOCAL, range(T), 7))
    counts = [case.kept[toy.SITES[int(name[-1])]] for name in left]
    expected = w.average([own[name] for name in left], counts)
    assert w.digest(unlearned(strategy, wish)) == w.digest(expected)


# ------------------------------------------------------------------------------------------------ fats


def test_everyone_with_every_image_is_ordinary_training() -> None:
    strategy = FATS(participation=3, rate=1.0)
    assert w.digest(toy.prepared(strategy)["model"]) == w.digest(toy.trained()[1])
    for wish in WISHES:
        assert w.digest(unlearned(strategy, wish)) == w.digest(toy.retrained(wish))


def test_an_image_is_drawn_whatever_others_there_are() -> None:
    rows = torch.arange(4000)
    which = drawn(rows, 5, 0.3)
    assert torch.equal(drawn(rows[1::3], 5, 0.3), which[1::3])
    assert abs(float(which.float().mean()) - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5  # four standard errors
    assert bool(drawn(rows, 5, 1.0).all())
    assert not torch.equal(drawn(rows, 6, 0.3), which)


def test_as_many_take_part_as_it_says_and_one_who_leaves_is_replaced_by_the_next() -> None:
    strategy = FATS(participation=2)
    with_west = toy.case("patients").course
    without = toy.case("site").course
    replaced = set()
    for number in range(40):
        before, after = strategy.chosen(with_west, number), strategy.chosen(without, number)
        assert len(before) == len(after) == 2
        if "west" in before:
            assert set(before) - {"west"} < set(after)
            replaced.add(tuple(before))
        else:
            assert before == after
    assert len(replaced) == 2
    assert strategy.chosen(without, 0) == ["north", "east"]


MANY = [FATS(participation=k, rate=rate) for k, rate in [(2, 0.05), (1, 0.2), (3, 0.03)]]


@pytest.mark.parametrize(
    ("strategy", "wish"),
    [
        pytest.param(
            strategy,
            wish,
            id=f"{strategy.participation}-{strategy.rate}-{wish}",
            marks=() if row == column else pytest.mark.further,
        )
        for row, strategy in enumerate(MANY)
        for column, wish in enumerate(("patients", "site", "everyone"))
    ],
)
def test_recomputation_starts_at_the_first_round_that_the_data_changed(strategy: FATS, wish: str) -> None:
    """The oracle trains a second time without the data and looks where the weights of the two part."""
    starts = set()
    for seed in range(6):
        case, own = toy.case(wish, seed), toy.prepared(strategy, seed)
        other = toy.run(strategy.prepare(case.course))
        ends = [*(str(t) for t in range(1, T)), "model"]
        first = next((t for t, name in enumerate(ends) if w.digest(own[name]) != w.digest(other[name])), T)
        rounds = asked(strategy, wish, seed)
        question = 0 if wish == "site" else 1
        if case.leaver is None:
            assert len(rounds) == question + T - first
        else:  # a round in which it took part and drew nothing counts as well
            assert T - first <= len(rounds) <= T
        assert w.digest(unlearned(strategy, wish, seed)) == w.digest(other["model"])
        starts.add(first)
    assert len(starts) > 1


def test_a_request_that_no_round_drew_costs_one_question() -> None:
    strategy, wish = FATS(participation=1, rate=0.01), "patients"
    case = toy.case(wish, strategy=strategy)
    assert w.digest(unlearned(strategy, wish)) == w.digest(case.original)
    assert asked(strategy, wish) == {0: {"north", "east"}}


def test_a_round_that_draws_nothing_leaves_the_weights_as_they_are() -> None:
    own = toy.prepared(FATS(participation=2, rate=1e-6), 7, True)
    assert w.digest(own["model"]) == w.digest(own["0"])
    assert all(sorted(set(counts.tolist())) in ([-1, 0], [0]) for counts in own["drawn"].values())


def test_a_drawn_part_is_trained_on_as_if_there_were_no_others() -> None:
    initial, _, _ = toy.trained()
    rows = toy.images("east").rows
    which = drawn(rows, 11, 0.4)
    reply = toy.answer(FitDrawn(initial, Select(), LOCAL, 3, 11, 0.4), "east")
    assert 0 < reply.count == int(which.sum()) < len(rows)
    every = toy.images("east")
    part = Images(every.pixels[which], every.targets[which], every.rows[which])
    east = toy.ToyLocal("east", toy.network(), toy.Log())
    assert w.digest(reply.weights or {}) == w.digest(fit(east, initial, part, LOCAL, 3))
    share = toy.answer(Draws(Select(), (11, None), 0.4), "east").arrays["share"]
    assert share.tolist() == [reply.count / len(rows), 0.0]


# ------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with without_scores():
        return run(
            tmp_path_factory.mktemp("prepared"),
            "seeds=[1]",
            "requests=[{id: some, site: north, patients: {count: 2}, after_round: 1}, "
            "{id: leave, site: east, whole_site: true}]",
            "strategies=[{name: sharded}, {name: sharded, as: whole, shards: 1, joint_rounds: 0}, {name: fats}, "
            "{name: fats, as: all, participation: 3, rate: 1}, {name: fats, as: one, participation: 1, rate: 1}]",
        )


@pytest.mark.further
def test_a_run_gives_the_retrained_model_where_the_way_of_training_is_the_ordinary_one(
    prepared_run: RunFolder,
) -> None:
    """After round 1 of 2, where the request comes, and at the end; for patients and for a hospital."""
    files = weight_files(prepared_run)
    for label in ("whole", "all"):
        for moment in ("some@1", "some", "leave"):
            assert files[f"{moment}-{label}-1.safetensors"] == files[f"retrained-{moment}-1.safetensors"]
    assert files["leave-fats-1.safetensors"] != files["retrained-leave-1.safetensors"]


def test_the_ledger_keeps_preparation_apart_and_counts_what_is_stored(prepared_run: RunFolder) -> None:
    ledger = prepared_run.read_table("ledger.parquet")
    rounds = ledger[ledger["sites"] > 0].groupby(["phase", "strategy", "request"]).size()
    for label in ("sharded", "whole", "fats", "all"):
        assert rounds["prepare", label, ""] == 2
        assert rounds["prepare", label, "@1"] == 1
    # east is alone in its shard, so that the other's model, kept, and one joint round give the answer
    assert rounds["unlearn", "sharded", "leave"] == 1
    assert rounds["unlearn", "whole", "leave"] == 2
    model = w.nbytes(w.load(prepared_run.path / "weights" / "original-1.safetensors"))
    stored = ledger[ledger["phase"] == "unlearn"].groupby(["strategy", "request"])["stored_bytes"].first()
    assert stored["sharded", "leave"] == 2 * model
    assert stored["whole", "leave"] == model
    assert stored["all", "leave"] == 2 * model + 3 * 2 * 8  # each round's weights, 3 hospitals' int64 counts
    assert stored["all", "some"] == model + 3 * 8
    spent = read(prepared_run.path).spent("unlearn", "leave", "whole", 1)
    assert (spent.rounds, spent.storage_bytes) == (2, model)


def test_a_strategy_forgets_from_its_own_model(prepared_run: RunFolder) -> None:
    """Of one hospital a round, seed 1 takes east: north's patients are not in that model, which stays as it is."""
    ledger = prepared_run.read_table("ledger.parquet")
    ours = ledger[(ledger["phase"] == "unlearn") & (ledger["strategy"] == "one") & (ledger["sites"] > 0)]
    assert ours[ours["request"] == "some"][["sites", "images"]].to_numpy().tolist() == [[1, 0]]
    shape, classes = (3, 28, 28), prepared_run.read_manifest()["classes"]
    initial = initial_weights(SmallCNN(), Form(shape, classes), derive(1, "initial"))
    model = w.load(prepared_run.path / "weights" / "some@1-one-1.safetensors")
    assert w.first_difference(initial, model) is None
    assert w.digest(model) != w.digest(initial)
    assert w.digest(model) != w.digest(w.load(prepared_run.path / "weights" / "original@1-1.safetensors"))


def test_what_was_kept_is_gone_after_the_run(prepared_run: RunFolder) -> None:
    assert not prepared_run.scratch.exists()

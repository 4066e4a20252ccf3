"""Promises about a strategy's result: what its weights are, and that they are the same each time."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from fedunlearn import weights as w
from fedunlearn.contract.cases import case, chances, once, outcome, prepared, retained, retrained, trained
from fedunlearn.contract.hospitals import LABEL, Asked, Log, ToyLink, run
from fedunlearn.contract.promise import hold
from fedunlearn.contract.toy import CLASSES, counting
from fedunlearn.core import Granularity, Guarantee, Preparing, RequestId, Strategy, Task, Weights
from fedunlearn.federation.drive import drive
from fedunlearn.federation.horizons import Horizons
from fedunlearn.federation.jobs import Divergence, Job, Label, Round
from fedunlearn.federation.ledger import Ledger
from fedunlearn.scenario.space import replaced, space

CLOSE = 0.01
"""Largest mean difference of chances that float sums in another order may make."""


def names_shapes_dtypes_and_finite(strategy: Strategy, wish: RequestId) -> None:
    """Its result has the original's names, shapes and types, and is finite."""
    _fits(outcome(strategy, wish).weights, case(wish).original)


def batch_norm_stays_valid(strategy: Strategy) -> None:
    """With BatchNorm too, and no variance becomes negative."""
    wish = "site" if Granularity.SITE in strategy.granularity else "patients"
    result = outcome(strategy, wish, norm=True).weights
    _fits(result, case(wish, norm=True).original)
    hold(
        bool((result["1.running_var"] > 0).all()),
        "a variance became negative: leave buffers as they were (`case.layout` tells them from parameters)",
    )


def a_hospital_may_be_left_with_nothing(strategy: Strategy) -> None:
    """A hospital all of whose patients are forgotten may stay, with nothing to train on, and others leave later."""
    if Granularity.PATIENTS in strategy.granularity:
        _fits(outcome(strategy, "everyone").weights, case("everyone").original)
    if Granularity.SITE in strategy.granularity and not strategy.needs.serves_one:
        later = case("site", strategy=strategy, before=("everyone",))
        _fits(run(strategy.unlearn(later)), later.original)


@dataclass(frozen=True)
class Again:
    """A second run, whose values cross no wire and whose replies come in another order, under a global RNG of its own.

    Attributes:
        result: the unlearned weights.
        tasks: everything that was asked.
        counted: passes of images through a network, as the ledger has them.
        seen: the same, as the network saw them.
        disturbed: which of the things that must stay as they were did not.
    """

    result: Weights
    tasks: tuple[Task, ...]
    counted: int
    seen: int
    disturbed: tuple[str, ...]


@once
def again(strategy: Strategy, wish: RequestId) -> Again:
    """Run a strategy once more; every promise that only looks shares this run."""
    its_case = case(wish, strategy=strategy)
    tasks, ledger = list[Task](), Ledger()

    class Watch(Asked):
        def round(self, round: Round) -> None:
            tasks.extend(round.asks.values())
            ledger.round(round)

    def state() -> dict[str, object]:
        _, _, memory = trained()
        return {
            "torch's RNG": torch.get_rng_state().tolist(),
            "numpy's RNG": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
            "python's RNG": random.getstate(),
            "the initial weights": w.digest(its_case.initial),
            "the original weights": w.digest(its_case.original),
            "the history": [w.digest(x) for x in (*memory.got.values(), *memory.sent.values())],
            "its own training": [w.digest(x) for x in prepared(strategy).values()],
        }

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before = state()
        link = ToyLink(across=False, scramble=3)
        with counting() as seen:
            result = run(strategy.unlearn(its_case), link, [Watch(Log())])
        after = state()
    disturbed = tuple(what for what in before if before[what] != after[what])
    return Again(result, tuple(tasks), int(ledger.table()["images"].sum()), sum(seen), disturbed)


def same_seed_same_bits(strategy: Strategy, wish: RequestId) -> None:
    """The same seed gives the same bits, whatever the order in which replies come."""
    hold(
        w.digest(again(strategy, wish).result) == w.digest(outcome(strategy, wish).weights),
        "a second run came to other bits: draw from `derive(case.seed, …)` alone, and go by hospitals in the order "
        "asked",
    )


def inputs_and_global_rngs_stay_as_they_were(strategy: Strategy, wish: RequestId) -> None:
    """It changes nothing that it is given, and draws from no global generator."""
    disturbed = again(strategy, wish).disturbed
    hold(
        not disturbed,
        f"{' and '.join(disturbed)} did not stay as they were: copy before you change, and draw from generators of "
        "your own, seeded by `derive`",
    )


def every_pass_through_a_network_is_counted(strategy: Strategy, wish: RequestId) -> None:
    """Every pass of an image through a network is counted: teachers', losses' and errors' too."""
    found = again(strategy, wish)
    hold(
        found.counted == found.seen and (found.seen > 0) == bool(found.tasks),
        f"{found.seen} images passed through the network, {found.counted} were counted: let the hospital's network "
        "do all that networks do (`fedunlearn.learning.local`)",
    )


def order_of_hospitals_does_not_matter(strategy: Strategy, wish: RequestId) -> None:
    """The order of the hospitals does not matter, but for the rounding of sums."""
    its_case = case(wish, strategy=strategy)
    turned = replace(its_case, sites=its_case.sites[::-1], holders=its_case.holders[::-1])
    difference = chances(run(strategy.unlearn(turned)), wish) - chances(outcome(strategy, wish).weights, wish)
    hold(
        bool(difference.abs().mean() < CLOSE),
        "with the hospitals turned around it comes to something else: let nothing depend on their order",
    )


def exact_means_equal_to_retraining(strategy: Strategy, wish: RequestId) -> None:
    """If it says exact, it is equal to retraining, bit for bit; in its own way, if it trains in one."""
    if strategy.guarantee is Guarantee.EXACT:
        expected = retrained(wish, strategy=strategy)
        hold(
            w.digest(outcome(strategy, wish).weights) == w.digest(expected),
            "it is not what retraining comes to: say `Guarantee.EMPIRICAL`",
        )


def nearer_to_the_retrained_model_than_the_original(strategy: Strategy, wish: RequestId) -> None:
    """It comes nearer to the retrained model than the original is, in what it says of the data to forget."""
    unlearned, original = 0.0, 0.0
    for seed in (7, 8):
        target = chances(retrained(wish, seed), wish)
        unlearned += float((chances(outcome(strategy, wish, seed).weights, wish) - target).abs().mean())
        original += float((chances(case(wish, seed).original, wish) - target).abs().mean())
    hold(
        unlearned < original,
        f"of the chance given to the right labels, the mean distance from the retrained model is {unlearned / 2:.3f}, "
        f"the original's {original / 2:.3f}: it forgets too little or too much; try other settings with --set",
    )


def better_than_a_guess_before_recovery(strategy: Strategy, wish: RequestId) -> None:
    """It is better than a guess before recovery, at its defaults too, or says "at chance until it recovers".

    A guess: right about no more of the retained images than one class in `CLASSES` is, within one standard error.
    """
    words = " ".join((inspect.getdoc(type(strategy)) or "").split())
    if "at chance until it recovers" in words:
        return
    for one in dict.fromkeys((type(strategy)(), strategy)):
        bare = replaced(one, "recovery.rounds", 0) if hasattr(one, "recovery") else one
        right, every = retained(outcome(bare, wish).weights, wish)
        guess = 1 / CLASSES
        hold(
            right / every > guess + math.sqrt(guess * (1 - guess) / every),
            f"{bare} leaves a model that is right about {right} of {every} retained images, no better than a guess: "
            'make it gentler, or say "at chance until it recovers" in the docstring if it must be so',
        )


def if_it_diverges_it_does_so_without_an_error(strategy: Strategy, wish: RequestId) -> None:
    """If training overflows, it ends as diverged, or stays finite, but fails in no other way."""
    its_case, ends = case(wish, strategy=strategy), list[str]()
    training = its_case.training
    wild = replace(its_case, training=replace(training, local=replace(training.local, lr=1e30)))

    def finite(result: Weights) -> list[Job[Any]]:
        ends.append("finite")
        return []

    def diverged(found: Divergence) -> list[Job[Any]]:
        ends.append(str(found))
        return []

    drive([Job(LABEL, strategy.unlearn(wild), finite, diverged)], ToyLink())
    if hasattr(strategy, "lr"):
        own: Strategy = replace(cast(Any, strategy), lr=1e30)
        drive([Job(LABEL, own.unlearn(its_case), finite, diverged)], ToyLink())
    hold(len(ends) == 1 + hasattr(strategy, "lr"), "at a learning rate of 1e30 it came to no end")


def works_in_the_middle_of_training(strategy: Strategy, wish: RequestId) -> None:
    """It works in the middle of training: what is still to come is not used."""
    its_case = case(wish, rounds=1, strategy=strategy)
    difference = w.first_difference(its_case.original, run(strategy.unlearn(its_case)))
    hold(difference is None, f"after one round of four, its result does not fit the original: {difference}")


def what_tune_searches_has_no_part_in_its_own_training(strategy: Strategy) -> None:
    """What `tune` searches has no part in its own training, if it has one."""

    def digests(strategy: Strategy) -> Mapping[str, str]:
        return {name: w.digest(weights) for name, weights in prepared(strategy).items()}

    searched = space(type(strategy)) if isinstance(strategy, Preparing) else {}
    for end in (0, -1):
        changed = strategy
        for name, dimension in searched.items():
            ends = dimension.choices or (dimension.search.low, dimension.search.high)
            changed = replaced(changed, name, ends[end])
        hold(
            digests(changed) == digests(strategy),
            f"with other values of {', '.join(searched)} its own training comes to something else, which is done once "
            "for all trials: leave out the Search of what has a part in it",
        )


def what_it_has_in_hand_is_what_it_would_have_come_to(strategy: Strategy, wish: RequestId) -> None:
    """Before its last round it has in hand what one round less comes to, of recovery if it has that."""
    held, its_case = dict[int, Weights](), case(wish, strategy=strategy)

    def reached(label: Label, horizon: int, done: int, model: Weights | None) -> None:
        hold(model is not None, f"at horizon {horizon} nothing is in hand")
        held[done] = cast(Weights, model)

    run(strategy.unlearn(its_case), watchers=[Horizons(range(200), reached)])
    for model in held.values():
        difference = w.first_difference(model, its_case.original)
        hold(
            difference is None,
            f"a model that it sends does not fit the original ({difference}): a round about another model is a "
            "`ChainMap` (`procedures.together`)",
        )
    less = _one_round_less(strategy)
    if less is not None:
        hold(
            bool(held),
            "no model was in hand before its last round: try it with more, --set recovery.rounds=2",
        )
        hold(
            w.digest(held[max(held)]) == w.digest(outcome(less, wish).weights),
            "what is in hand before the last round is not what one round less comes to: let rounds not depend on how "
            "many there will be",
        )


# ------------------------------------------------------------------------------------------------ pieces


def _one_round_less(strategy: Strategy) -> Strategy | None:
    """The strategy with one round of recovery less, or of its own; None if it has none."""
    recovery, rounds = getattr(strategy, "recovery", None), getattr(strategy, "rounds", None)
    if (recovering := getattr(recovery, "rounds", 0)) > 0:
        return replaced(strategy, "recovery.rounds", recovering - 1)
    return replaced(strategy, "rounds", rounds - 1) if isinstance(rounds, int) and rounds else None


def _fits(result: Weights, original: Weights) -> None:
    difference, wild = w.first_difference(original, result), w.first_nonfinite(result)
    hold(difference is None, f"the result does not fit the original: {difference}")
    hold(wild is None, f"the result holds NaN or infinity: {wild}")

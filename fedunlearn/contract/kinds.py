"""The promise about kinds of task: what it takes to work on all of them, or to say that it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from fedunlearn import weights as w
from fedunlearn.contract.promise import Broken, hold
from fedunlearn.contract.toy_findings import FINDINGS
from fedunlearn.contract.toy_pairs import PAIRS
from fedunlearn.contract.toy_volumes import VOLUMES
from fedunlearn.contract.toys import TRAINING, Toy
from fedunlearn.core import (
    Case,
    FedunlearnError,
    Granularity,
    Guarantee,
    Preparing,
    Recovery,
    Strategy,
    Weights,
)
from fedunlearn.federation.procedures import fedavg

TOYS: Mapping[str, Toy] = {"volumes": VOLUMES, "findings": FINDINGS, "pairs": PAIRS}
"""A toy of every kind but images with one class each, which all other promises are tried on."""


def works_on_every_kind_unless_it_declares_class_labels(strategy: Strategy, kind: str) -> None:
    """It works on volumes, on findings and on images with reports, or declares that it needs one class per image."""
    brief, toy = shortened(strategy), TOYS[kind]
    wish = "patient" if Granularity.PATIENTS in strategy.granularity else "site"
    try:
        its_case = toy.case(wish, brief)  # trains, if the strategy prepares
        result = toy.run(brief.unlearn(its_case))
    except (FedunlearnError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if strategy.needs.class_labels:
            return
        raise Broken(f"on {toy.says} it fails ({error}): mend it, or declare `needs.class_labels`") from error
    hold(
        not strategy.needs.class_labels,
        f"it works on {toy.says} as it is: do not declare `needs.class_labels`",
    )
    difference, wild = w.first_difference(its_case.original, result), w.first_nonfinite(result)
    hold(difference is None, f"on {toy.says} the result does not fit the original: {difference}")
    hold(wild is None, f"on {toy.says} the result holds NaN or infinity: {wild}")
    if strategy.guarantee is Guarantee.EXACT:
        expected = w.digest(_retrained(toy, brief, its_case))
        hold(w.digest(result) == expected, f"on {toy.says} it is not what retraining comes to")
    else:
        hold(w.digest(result) != w.digest(its_case.original), f"on {toy.says} it changes nothing")


def _retrained(toy: Toy, strategy: Strategy, its_case: Case) -> Weights:
    """The exact answer: training without the data, in the strategy's own way if it has one."""
    course = its_case.course
    if isinstance(strategy, Preparing):
        return toy.run(strategy.prepare(course))["model"]
    rounds = range(course.rounds)
    return toy.run(fedavg(course.initial, course.sites, course.select, TRAINING.local, rounds, course.seed))


def shortened(strategy: Strategy) -> Strategy:
    """As few rounds as show all that it does."""
    few = {"rounds": 2, "epochs": 1, "samples": 2}
    own = {f.name: getattr(strategy, f.name) for f in dataclasses.fields(cast(Any, strategy))}
    mine: dict[str, Any] = {
        name: n for name, n in few.items() if isinstance(own.get(name), int) and own[name] > n
    }
    recovery = own.get("recovery")
    repaired = {"recovery": Recovery(1)} if isinstance(recovery, Recovery) and recovery.rounds > 1 else {}
    brief: Strategy = dataclasses.replace(cast(Any, strategy), **mine, **repaired)
    return brief

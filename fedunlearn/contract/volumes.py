"""The promise about volumes: what it takes to work on label maps too, or to say that it does not."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from fedunlearn import weights as w
from fedunlearn.contract.promise import Broken, hold
from fedunlearn.contract.toy_volumes import TRAINING, case, run
from fedunlearn.core import Granularity, Guarantee, Preparing, Recovery, Strategy, Weights
from fedunlearn.federation.procedures import fedavg


def works_on_volumes_unless_it_declares_class_labels(strategy: Strategy) -> None:
    """It works on volumes with label maps too, or declares that it needs one class per image (`class_labels`)."""
    brief = shortened(strategy)
    wish = "patient" if Granularity.PATIENTS in strategy.granularity else "site"
    try:
        its_case = case(wish, brief)  # trains, if the strategy prepares
        result = run(brief.unlearn(its_case))
    except (IndexError, RuntimeError, TypeError) as error:
        if strategy.needs.class_labels:
            return
        raise Broken(f"on volumes it fails ({error}): mend it, or declare `needs.class_labels`") from error
    hold(not strategy.needs.class_labels, "it works on volumes as it is: do not declare `needs.class_labels`")
    difference, wild = w.first_difference(its_case.original, result), w.first_nonfinite(result)
    hold(difference is None, f"on volumes the result does not fit the original: {difference}")
    hold(wild is None, f"on volumes the result holds NaN or infinity: {wild}")
    if strategy.guarantee is Guarantee.EXACT:
        course = its_case.course
        expected: Weights = (
            run(brief.prepare(course))["model"]
            if isinstance(brief, Preparing)
            else run(
                fedavg(
                    course.initial,
                    course.sites,
                    course.select,
                    TRAINING.local,
                    range(course.rounds),
                    course.seed,
                )
            )
        )
        hold(w.digest(result) == w.digest(expected), "on volumes it is not what retraining comes to")
    else:
        hold(w.digest(result) != w.digest(its_case.original), "on volumes it changes nothing")


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

"""What every procedure of a run will take, about: in passes of images, counted before anything runs.

`fedunlearn.federation.pace` corrects it by what procedures took; so of probes, whose length nobody knows, a rough
number will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.counting import asked_passes, share
from fedunlearn.campaign.probing import MOST_EPOCHS, REFIT_ROUNDS
from fedunlearn.campaign.timeline import chains, stretches
from fedunlearn.campaign.timing import counted
from fedunlearn.core import Select
from fedunlearn.federation.jobs import Label
from fedunlearn.federation.pace import ANSWERED
from fedunlearn.scenario import Scenario


def expected(scenario: Scenario, cohort: Cohort, labels: Iterable[Label]) -> Mapping[Label, float]:
    """By procedure, about how many passes it will take; in a tuner's rehearsal, too."""
    rounds, epochs = scenario.training.rounds, scenario.training.local.epochs
    whole, asked = int((cohort.split == "train").sum()), share(scenario, cohort)
    arrives = {step.request.id: step.round for chain in chains(scenario) for step in chain}
    further = {
        step.request.id: end - step.round
        for chain in chains(scenario)
        for step, end in stretches(scenario, chain)
    }
    plans = {(plan.label, request): plan for plan in scenario.strategies for request in plan.requests}

    @cache
    def left(request: str) -> int:
        known = request in cohort.forgotten
        return sum(cohort.counts(Select(without=(request,))).values()) if known else whole

    def one(label: Label) -> float:
        request = label.request.partition("@")[0]
        match label.phase:
            case "original" | "prepare":
                return rounds * epochs * asked * whole
            case "shadow":
                return rounds * epochs * asked * whole / 2
            case "retrained":
                return arrives.get(request, rounds) * epochs * asked * left(request)
            case "continue":
                return further[request] * epochs * asked * left(request)
            case "unlearn" | "tune" if (label.strategy, request) in plans:
                strategy = plans[label.strategy, request].strategy
                passes = asked_passes(strategy, arrives.get(request, rounds), epochs)
                return passes * asked * left(request)
            case "probe relearn":
                return MOST_EPOCHS / 4 * max(whole - left(request), 1)
            case "probe linear_probe":
                return REFIT_ROUNDS * epochs * asked * left(request)
            case "probe resurgence":
                return scenario.evaluation.resurgence_rounds * epochs * asked * left(request)
        return 0.0

    return {label: passes for label in labels if (passes := one(label)) > 0}


def answering(scenario: Scenario, cohort: Cohort) -> float:
    """About how many passes scores ask for, in those that train."""
    return ANSWERED * counted(scenario, cohort).asked

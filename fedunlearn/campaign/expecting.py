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
from fedunlearn.campaign.timeline import chains, looks
from fedunlearn.campaign.timing import counted
from fedunlearn.core import Select
from fedunlearn.federation.jobs import Label
from fedunlearn.federation.pace import ANSWERED
from fedunlearn.scenario import Scenario


def expected(scenario: Scenario, cohort: Cohort, labels: Iterable[Label]) -> Mapping[Label, float]:
    """By procedure, about how many passes it will take; in a tuner's rehearsal, too."""
    rounds, epochs = scenario.training.rounds, scenario.training.local.epochs
    whole, asked = int((cohort.split == "train").sum()), share(scenario, cohort)
    linked = chains(scenario, cohort.entries)
    steps = {step.id: step for chain in linked for step in chain.steps if step.request or chain.policy}
    judged = {one.name: one for chain in linked if chain.policy for one in chain.moments}
    again = {one.reference: one for one in looks(scenario, linked)}
    before = dict(zip(again, (0, *(one.round for one in again.values())), strict=False))
    further = {s.id: following.round - s.round for chain in linked for s, following in chain.stretches()}
    plans = {(plan.label, request): plan for plan in scenario.strategies for request in plan.requests}

    @cache
    def left(name: str) -> int:
        point = steps.get(name) or judged.get(name) or again.get(name)
        return cohort.total(Select(without=point.without)) if point else whole

    def one(label: Label) -> float:
        known = label.request in steps or label.request in again
        request = label.request if known else label.request.partition("@")[0]
        step = steps.get(request)
        arrives = step.round if step else rounds
        match label.phase:
            case "original" | "prepare":
                return rounds * epochs * asked * whole
            case "shadow":
                return rounds * epochs * asked * whole / 2
            case "retrained":
                piece = again[request].round - before[request] if request in again else arrives
                return piece * epochs * asked * left(request)
            case "continue":
                return further[request] * epochs * asked * left(request)
            case "unlearn" | "tune" if step and (label.strategy, step.members[0]) in plans:
                strategy = plans[label.strategy, step.members[0]].strategy
                return asked_passes(strategy, arrives, epochs) * asked * left(request)
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

"""How much there is to do in a scenario: models, and rounds of strategies, counted before anything runs."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from fedunlearn.campaign.timeline import Chain, chains, moments
from fedunlearn.core import Guarantee, Strategy
from fedunlearn.scenario import Plan, Scenario


def served(scenario: Scenario, chain: Chain) -> list[Plan]:
    """The strategies that serve every request of ``chain``."""
    return [p for p in scenario.strategies if all(step.request.id in p.requests for step in chain)]


def cuts(scenario: Scenario) -> int:
    """In how many places in the middle of training a request arrives."""
    rounds = {step.round for chain in chains(scenario) for step in chain}
    return len(rounds - {scenario.training.rounds})


def models(scenario: Scenario) -> int:
    """For one seed, how many models are kept."""
    count = 1 + cuts(scenario)
    for chain in chains(scenario):
        at = len(moments(scenario, chain))
        between = len({step.round for step in chain}) - 1
        count += at + len(served(scenario, chain)) * (at + between + len(chain) * len(scenario.horizons))
    return count


def extra_models(scenario: Scenario) -> int:
    """How many retrained models are kept beyond those of the seeds that all else is trained with."""
    return len(scenario.extra_seeds) * sum(len(moments(scenario, chain)) for chain in chains(scenario))


def asked_rounds(strategy: Strategy, rounds: int) -> int:
    """About how many rounds a strategy asks hospitals for models: training's, or what its own settings say."""
    if strategy.guarantee is Guarantee.EXACT or strategy.needs.updates is not None:
        return rounds
    settings: dict[str, Any] = dataclasses.asdict(cast(Any, strategy))
    return max(1, sum(int(value) for name, value in settings.items() if name.endswith("rounds")))

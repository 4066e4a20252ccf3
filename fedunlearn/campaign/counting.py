"""How much there is to do in a scenario: models, and rounds of strategies, counted before anything runs."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.timeline import Chain, chains, compared, looks, references
from fedunlearn.core import Guarantee, Recovery, Rota, Select, Strategy
from fedunlearn.scenario import Plan, Scenario


def share(scenario: Scenario, cohort: Cohort) -> float:
    """The share of the training images that a round of training goes through, in the mean over draws: in (0, 1]."""
    rota = Rota.among(cohort.sites, cohort.counts(Select()), scenario.training.participation)
    return rota.size / len(rota.sites)


def served(scenario: Scenario, chain: Chain) -> list[Plan]:
    """The strategies that serve every request of ``chain``."""
    return [plan for plan in scenario.strategies if chain.serves(plan)]


def cuts(scenario: Scenario, cohort: Cohort) -> int:
    """In how many places in the middle of training models begin, or are compared with the original one."""
    return len(compared(scenario, chains(scenario, cohort.entries)) - {scenario.training.rounds})


def models(scenario: Scenario, cohort: Cohort) -> int:
    """For one seed, how many models are kept."""
    linked = chains(scenario, cohort.entries)
    count = 1 + cuts(scenario, cohort) + references(scenario, linked)
    for chain in linked:
        asking = len(chain.asking) * (1 + len(scenario.horizons))
        count += len(served(scenario, chain)) * (asking + len(chain.stretches()))
    return count


def extra_models(scenario: Scenario, cohort: Cohort) -> int:
    """How many retrained models are kept beyond those of the seeds that all else is trained with."""
    linked = chains(scenario, cohort.entries)
    judged = sum(len(chain.moments) for chain in linked if chain.policy is None)
    return len(scenario.extra_seeds) * (judged + bool(looks(scenario, linked)))


def asked_rounds(strategy: Strategy, rounds: int) -> int:
    """About how many rounds a strategy asks hospitals for models: training's, or what its own settings say."""
    if strategy.guarantee is Guarantee.EXACT or strategy.needs.updates is not None:
        return rounds
    return max(1, sum(many for many, _ in _paces(strategy, rounds)))


def asked_passes(strategy: Strategy, rounds: int, epochs: int) -> int:
    """About how often a strategy goes through the images, given training's rounds and epochs in each."""
    if strategy.guarantee is Guarantee.EXACT or strategy.needs.updates is not None:
        return rounds * epochs
    return max(1, sum(many * (epochs if own is None else own) for many, own in _paces(strategy, rounds)))


def _paces(strategy: Strategy, rounds: int) -> list[tuple[int, int | None]]:
    """Rounds, and epochs in each, that settings speak of: a method's own, then those of its recovery."""
    own: dict[str, Any] = dataclasses.asdict(cast(Any, strategy))
    # A method whose rounds have no epochs, such as one of gradients, goes through the images once.
    found = [(int(value), own.get("local_epochs", 1)) for name, value in own.items() if name == "rounds"]
    if "share" in own:  # of training's rounds
        found.append((max(1, round(own["share"] * rounds)), own.get("local_epochs")))
    recovery = getattr(strategy, "recovery", Recovery(rounds=0))
    if "epochs" in own and "recovery" in own and _with_all(strategy):
        found.append((int(own["epochs"]), 1))
    return [*found, (recovery.rounds, recovery.local_epochs)]


def _with_all(strategy: Strategy) -> bool:
    """Whether others than the holders work even if nothing is to recover: then its epochs are rounds of them all."""
    bare: Strategy = dataclasses.replace(cast(Any, strategy), recovery=Recovery(rounds=0))
    return bare.needs.stayers

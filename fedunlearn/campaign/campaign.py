"""Everything a scenario trains, retrains and unlearns, as jobs that follow from one another.

Every seed trains the original model once; what follows from it runs along chains of requests (`timeline`): the models
to compare with (`references`) and the strategies (`unlearning`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fedunlearn import weights as w
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.curves import Curves
from fedunlearn.campaign.keeping import ModelFile
from fedunlearn.campaign.origins import Environment, Origins
from fedunlearn.campaign.references import LESSONS, References
from fedunlearn.campaign.stage import Stage, cut_name
from fedunlearn.campaign.timeline import Moment, chains, compared, looks
from fedunlearn.campaign.unlearning import Unlearning, Walk, prepare_label
from fedunlearn.core import Weights
from fedunlearn.federation.history import Recorder, union
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.federation.ledger import Ledger
from fedunlearn.learning.models import Network
from fedunlearn.results.signals import blank
from fedunlearn.results.store import Store
from fedunlearn.scenario import Scenario


class Campaign:
    """The jobs of a scenario.

    Args:
        scenario: what to run.
        cohort: the hospitals and what each request names.
        store: where models and signals go, and what is there already.
        scratch: where history goes while the run lasts.
        ledger: told how much history each strategy makes the server hold.

    Attributes:
        stage: what all jobs share.
        references: the original and the retrained models.
        unlearning: the strategies'.
    """

    def __init__(
        self,
        scenario: Scenario,
        cohort: Cohort,
        environment: Environment,
        store: Store,
        scratch: Path,
        ledger: Ledger,
    ) -> None:
        linked, rounds = chains(scenario, cohort.entries), scenario.training.rounds
        needs = (*union(plan.strategy.needs for plan in scenario.strategies), LESSONS)
        network = Network(scenario.model, cohort.form)
        layout, like = network.layout, network.module.state_dict()
        cuts = sorted({round for round in compared(scenario, linked) if round < rounds})
        recorders = {
            seed: Recorder(
                scratch / f"history-{seed}",
                Label("original", "", "original", seed),
                needs,
                {cut: store.run.path / ModelFile(cut_name(cut, seed)).file for cut in cuts},
                layout.parameters,
                scenario.history.precision,
                like,
            )
            for seed in scenario.seeds
        }
        origins = Origins(scenario, cohort, environment)
        curves = Curves(scenario, cohort, origins, store, w.nbytes(like))
        self.stage = Stage(
            scenario, cohort, store, origins, scratch, linked, layout, recorders, tuple(cuts), curves
        )
        self.references = References(self.stage)
        self.unlearning = Unlearning(self.stage, ledger)

    def jobs(self) -> list[Job[Any]]:
        """Where to start: every seed's original model, then all else that waits for nothing."""
        originals = [self._original(seed) for seed in self.stage.scenario.seeds]
        return [*originals, *self.references.retrained(), *self.unlearning.preparations()]

    def procedures(self) -> list[Label]:
        """The labels of all procedures to come, in scenario order (for those who watch)."""
        stage, seeds = self.stage, self.stage.scenario.seeds
        labels = [Label("original", "", "original", seed) for seed in seeds]
        labels += [
            prepare_label(stage, plan, round, seed)
            for plan, _, round in self.unlearning.preparing()
            for seed in seeds
        ]
        labels += self.references.labels()
        for chain in stage.chains:
            plans = stage.plans(chain)
            labels += [
                Label("unlearn", step.id, plan.label, seed)
                for plan in plans
                for step in chain.asking
                for seed in seeds
            ]
            going_on = chain.stretches()
            labels += [
                Label("continue", s.id, plan.label, seed)
                for plan in plans
                for s, _ in going_on
                for seed in seeds
            ]
        return labels

    def scored(self) -> list[dict[str, Any]]:
        """Which models to compare at which moment: the manifest's ``scored`` entry."""
        stage = self.stage
        return [
            {
                "request": moment.name,
                "seed": seed,
                "original": stage.original_name(moment.round, seed),
                "retrained": stage.retrained_name(moment, seed),
                **self.unlearning.scored(chain, moment, seed),
            }
            for chain in stage.chains
            for moment in chain.moments
            for seed in stage.scenario.seeds
        ]

    @cached_property
    def looks(self) -> list[dict[str, Any]]:
        """By policy, the models at each look of a calendar once they are there: the manifest's ``looks`` entry.

        Distances are from the model that was trained without all that is to be forgotten, as a share of its norm; none
        of a model that diverged.
        """
        found = self._looks()
        for entry in found:
            again = self.stage.run.read_weights(entry["retrained"])
            entry["distances"] = {
                label: far
                for label, name in entry["strategies"].items()
                if math.isfinite(far := self._distance(self.stage.run.read_weights(name), again))
            }
        return found

    def _distance(self, weights: Weights, of: Weights) -> float:
        names = self.stage.layout.parameters
        return w.norm(w.subtract(weights, of), names) / w.norm(of, names)

    def _looks(self) -> list[dict[str, Any]]:
        """The entries of `looks`, but for distances."""
        stage, found = self.stage, list[dict[str, Any]]()
        shared = looks(stage.scenario, stage.chains)
        for chain in stage.chains:
            own = {moment.round: moment for moment in chain.looks}
            for look in shared:
                for seed in stage.scenario.seeds:
                    original = stage.original_name(look.round, seed)
                    walks = {plan.label: Walk(plan, chain, seed) for plan in stage.plans(chain)}
                    at = own.get(look.round)
                    found.append(
                        {
                            "policy": chain.label,
                            "request": at.name if at else "",
                            "round": look.round,
                            "seed": seed,
                            "original": original,
                            "retrained": stage.retrained_name(look, seed),
                            "strategies": {n: one.name(at) if at else original for n, one in walks.items()},
                        }
                    )
        return found

    def models(self) -> Iterator[tuple[Moment, dict[str, Any], dict[str, str]]]:
        """By moment and seed: its entry of `scored`, and all its models by label, the references first."""
        stage = self.stage
        known = {m.name: m for chain in stage.chains for m in chain.moments}
        for entry in self.scored():
            references = {"original": entry["original"], "retrained": entry["retrained"]}
            yield known[entry["request"]], entry, {**references, **entry["strategies"]}

    def forgo(self) -> None:
        """With a calendar, drop what earlier models of walks were: they knew what was unlearned since.

        What they answered stays, since scores rest on it. Until now a run that was stopped could go on from them.
        """
        stage = self.stage
        if stage.scenario.calendar is None or stage.scenario.retention.models:
            return
        last = {name for entry in self.scored() for name in (entry["original"], entry["retrained"])}
        last |= {name for entry in self.scored() for name in entry["strategies"].values()}
        last |= {entry["model"] for entry in self.references.extra()}
        models = {file.stem for file in (stage.run.path / "weights").glob("*.safetensors")}
        stage.store.drop({ModelFile(name).file for name in models - last})

    def blank(self) -> None:
        """Write signals for the models that diverged, once all others are there: the retrained's, emptied of numbers.

        So are those for copies, where these alone were not finite too.
        """
        run = self.stage.run
        told = [*self.scored(), *self._looks()]
        references = {(entry["request"], entry["seed"]): entry["retrained"] for entry in told}
        lost = {entry["model"]: entry for entry in self.unlearning.diverged()}
        for entry in lost.values():
            like = f"{references[entry['request'], entry['seed']]}.parquet"
            run.write_table(f"signals/{entry['model']}.parquet", blank(run.read_table(f"signals/{like}")))
        for one in self.scored():
            like = f"copies/{one['retrained']}.parquet"
            for file in (f"copies/{model}.parquet" for model in one["strategies"].values()):
                if (run.path / like).is_file() and not (run.path / file).is_file():
                    run.write_table(file, blank(run.read_table(like)))

    def _original(self, seed: int) -> Job[Weights]:
        """The original training, and all that goes on from it."""
        history = self.unlearning.needs_history(seed) or not self.references.lessons_known(seed)
        job = self.references.original(seed, history)

        def then(weights: Weights) -> list[Job[Any]]:
            following = [*job.then(weights), *self.unlearning.jobs(weights, seed)]
            return following + self.references.lessons(weights, seed)

        return replace(job, then=then)

"""The models of one request, lined up to be measured and judged: references, controls and every strategy's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.scoring.attacks.roc import Curves, roc
from fedunlearn.scoring.evidence import Evidence, Floats, Frame, Spent, WithLosses
from fedunlearn.scoring.evidence.anew import Anew
from fedunlearn.scoring.evidence.once import Once
from fedunlearn.scoring.evidence.reading import Comparison, Run
from fedunlearn.scoring.judgement.bench import Bench, sight
from fedunlearn.scoring.judgement.difference import CONTROLS
from fedunlearn.scoring.judgement.verdict import Diverged, Recalled
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import COSTS, Measure
from fedunlearn.scoring.measuring import Later, Measured, measure, undefined


@dataclass(frozen=True, eq=False)
class Lineup:
    """What all models of a request are compared with.

    Attributes:
        run: their folder.
        comparisons: which models there are, by seed.
        known: by seed, what all models share; the model in question is the retrained one.
        beyond: by seed, the retrained models of seeds that strategies do not have.
        measures: what is measured, by name.
        later: what is read again of it.
        once: what was read of the references for several purposes.
    """

    run: Run
    comparisons: Sequence[Comparison]
    known: Sequence[Evidence[WithLosses]]
    beyond: Mapping[int, WithLosses]
    measures: Mapping[str, Measure]
    later: Later
    once: Once = field(default_factory=Once, repr=False)

    @property
    def request(self) -> RequestId:
        """Whose."""
        return self.comparisons[0].request

    @property
    def frame(self) -> Frame:
        """The images."""
        return self.known[0].frame

    def retrained(self, i: int) -> Measured:
        """The measures of the retrained model of the i-th seed, which the others' are compared with."""
        of = replace(self.known[i], siblings=self.known[i].others)
        of = self._probed(self.comparisons[i], "retrained", of)
        return measure(of, self.measures, None, self.later)

    def entrants(self) -> Iterator[Entrant]:
        """Whose models are measured, controls first; what they answer is read as they are asked for.

        Raises:
            RunError: a strategy is called like a control.
        """
        both = tuple(of.original for of in self.known), tuple(of.retrained for of in self.known)
        yield Entrant("original", tuple(c.original for c in self.comparisons), both[0])
        if len(self.known) > 1:
            yield Entrant("retrained_other", tuple(c.retrained for c in self.comparisons), both[1])
        dealt = tuple(_damaged(a, c.seed) for a, c in zip(both[0], self.comparisons, strict=True))
        yield Entrant("damaged", (None,) * len(dealt), dealt)
        for strategy in dict.fromkeys(name for one in self.comparisons for name in one.strategies):
            if strategy in CONTROLS:
                raise RunError(
                    f"{self.run.path}: a strategy is called {strategy!r}, which is the name of a control"
                )
            models = tuple(comparison.strategies.get(strategy) for comparison in self.comparisons)
            answers = (None if model is None else self.run.answers(model, self.frame) for model in models)
            yield Entrant(strategy, models, tuple(answers))

    def measured(self, of: Entrant, i: int, reference: Measured) -> Measured:
        """The measures of an entrant's model of the i-th seed, given those of the retrained one."""
        answers = of.answers[i]
        if answers is None or of.strategy not in CONTROLS:
            return self._measured(of, i, reference)
        evidence, measures = self._control(of.strategy, answers, i)
        return measure(evidence, measures, reference, self.later)

    def _control(
        self, name: str, answers: WithLosses, i: int
    ) -> tuple[Evidence[WithLosses], Mapping[str, Measure]]:
        """What needs no strategy, of the i-th seed, and which of its measures there are."""
        comparison, known, following = self.comparisons[i], self.known[i], (i + 1) % len(self.comparisons)
        if name == "original":
            training = self.run.spent("original", "", "original", comparison.seed)
            original = replace(known, unlearned=known.original, spent=training, siblings=known.originals)
            return self._probed(comparison, "original", original), self.measures
        if name == "retrained_other":
            other = self.known[following]
            # No model is its own reference: an attack would find it exactly as expected.
            others = (
                *(of.retrained for j, of in enumerate(self.known) if j not in (i, following)),
                *self.beyond.values(),
            )
            # Nor has it siblings: among the other retrained models is the one it is compared with.
            return replace(known, unlearned=other.retrained, spent=other.spent, others=others), self.measures
        free = {name: one for name, one in self.measures.items() if name not in COSTS}
        return replace(known, unlearned=answers), free

    def _measured(self, of: Entrant, i: int, reference: Measured) -> Measured:
        """The measures of a strategy's model; of one that diverged, its costs, and that the rest is undefined."""
        comparison = self.comparisons[i]
        whose, rounds = comparison.spending(of.strategy)
        request = comparison.request
        request = request if request in self.run.steps else self.run.forgets[request][0]
        spent = self.run.spent("unlearn", request, whose, comparison.seed, rounds)
        siblings = tuple(a for j, a in enumerate(of.answers) if j != i and a is not None)
        own, unlearned = replace(self.known[i], spent=spent, siblings=siblings), of.answers[i]
        if unlearned is None:
            return {**undefined(reference), **measure(own, COSTS, reference)}
        own = replace(own, unlearned=unlearned)
        own = own if of.strategy in comparison.stops else self._probed(comparison, of.strategy, own)
        return measure(own, self.measures, reference, self.later)

    def models(self, of: Entrant, measured: Mapping[int, Measured], bench: Bench) -> Models:
        """An entrant's models, ``measured`` by the number of the seed, with what they still know."""
        diverged = tuple(
            Diverged(one.request, of.strategy, one.seed, self.run.diverged.get(model, "in its answers"))
            for one, model, answers in zip(self.comparisons, of.models, of.answers, strict=True)
            if model is not None and answers is None
        )
        finite = [one for one in of.answers if one is not None]
        names = [one for one in of.models if one is not None]
        recalled, curves = Recalled(), list[Curves]()
        if len(finite) == len(self.comparisons):  # a seed that diverged leaves no mean
            recalled = bench.recall(self._remembered(finite), self._copies(names) if names else None)
            attacked = of.strategy == "original" or of.strategy not in CONTROLS
            curves = [roc(self.frame, one.losses) for one in finite if attacked]
        by_seed = tuple(measured.get(i) for i in range(len(self.comparisons)))
        return Models(of.strategy, by_seed, recalled, curves, diverged)

    def references(self, retrained: Sequence[Measured]) -> Models:
        """The retrained models as they are judged; curves are of those of further seeds too."""
        every = [*(of.retrained for of in self.known), *self.beyond.values()]
        curves = [roc(self.frame, one.losses) for one in every]
        return Models("retrained", tuple(retrained), Recalled(), curves)

    def bench(self, found: Sequence[Measured]) -> Bench:
        """What all models are judged by, given the measures of the retrained ones by seed."""
        quality = self.measures[scored(self.run.kind).tested]
        run, request = self.run, self.request
        retrained = [*(of.retrained for of in self.known), *self.beyond.values()]
        names = [*(c.retrained for c in self.comparisons), *run.references.get(request, {}).values()]
        copies = self._copies(names), self._copies([c.original for c in self.comparisons])
        images = self._remembered(retrained), self._remembered(of.original for of in self.known)
        return Bench(
            frame=self.frame,
            sight=sight(
                self.frame,
                run.patients,
                run.margins,
                images,
                None if copies[0] is None or copies[1] is None else (copies[0], copies[1]),
                bool(run.shadows),
            ),
            quality=quality.name,
            retrained=[measured.get(quality.name, {}) for measured in found],
            further=[quality.function(replace(self.known[0], unlearned=one)) for one in self.beyond.values()],
            references=[*(c.seed for c in self.comparisons), *self.beyond],
        )

    def _remembered(self, answers: Iterable[WithLosses]) -> list[dict[str, Floats]]:
        """What memory is judged by, of each model's answers."""
        return list(map(scored(self.run.kind).memories, answers))

    @cached_property
    def _references(self) -> frozenset[str]:
        """The models of which several things are asked."""
        return frozenset(name for one in self.comparisons for name in (one.original, one.retrained))

    def _copies(self, models: Sequence[str]) -> list[Floats] | None:
        """What models answer about changed copies; None if the run did not ask all of them."""
        found = [
            self.once(model, partial(self.run.on_copies, model, self.frame))
            if model in self._references
            else self.run.on_copies(model, self.frame)
            for model in models
        ]
        return None if any(one is None for one in found) else [one for one in found if one is not None]

    def _probed(
        self, comparison: Comparison, strategy: str, evidence: Evidence[WithLosses]
    ) -> Evidence[WithLosses]:
        """``evidence`` with what became of the model under the run's probes, if it has any."""
        whose = comparison.request, strategy, comparison.seed
        probed, relearnt = self.run.probed(*whose, evidence.frame), self.run.relearnt(*whose)
        return replace(evidence, probed=probed, relearnt=relearnt)


@dataclass(frozen=True, eq=False)
class Models:
    """The measured models of a strategy, or of a control.

    Attributes:
        strategy: its label.
        measured: by seed; None where it has no model.
        recalled: what they still know.
        curves: how the attack by loss goes on each of them; none if one diverged.
        diverged: those that did.
    """

    strategy: str
    measured: tuple[Measured | None, ...]
    recalled: Recalled
    curves: Sequence[Curves]
    diverged: tuple[Diverged, ...] = ()


@dataclass(frozen=True, eq=False)
class Entrant:
    """Models to be measured: a strategy's, or a control's.

    Attributes:
        strategy: its label.
        models: by seed, their names; None where it has none, or is none that was ever saved.
        answers: by seed, what they answer; None where one diverged or there is none.
    """

    strategy: str
    models: tuple[str | None, ...]
    answers: tuple[WithLosses | None, ...]

    @property
    def seeds(self) -> list[int]:
        """The numbers of the seeds of which there is a model."""
        both = enumerate(zip(self.models, self.answers, strict=True))
        return [i for i, (model, answers) in both if model is not None or answers is not None]


def line_up(
    run: Run, request: RequestId, frame: Frame, measures: Mapping[str, Measure], later: Later
) -> Lineup:
    """The models of a request.

    Raises:
        RunError: a reference is missing, or diverged.
    """
    comparisons = [comparison for comparison in run.comparisons if comparison.request == request]
    beyond = {seed: _reference(run, frame, model) for seed, model in run.references.get(request, {}).items()}
    known = _known(run, frame, comparisons, tuple(beyond.values()))
    return Lineup(run, comparisons, known, beyond, measures, later)


def _known(
    run: Run, frame: Frame, comparisons: Sequence[Comparison], further: tuple[WithLosses, ...]
) -> list[Evidence[WithLosses]]:
    """What all models of a request share, by seed; the model in question is the retrained one.

    ``further`` are retrained models of seeds that strategies do not have.
    """
    originals = [_reference(run, frame, comparison.original) for comparison in comparisons]
    retrained = [_reference(run, frame, comparison.retrained) for comparison in comparisons]
    known = []
    for i, comparison in enumerate(comparisons):
        spent = run.spent("retrained", run.forgets[comparison.request][0], "retrained", comparison.seed)
        evidence: Evidence[WithLosses] = Evidence(
            frame=frame,
            original=originals[i],
            retrained=retrained[i],
            unlearned=retrained[i],
            spent=spent,
            retraining=_retraining(run, comparison, spent),
            seed=derive(comparison.seed, "scoring", "attack", comparison.request),
            others=(*retrained[:i], *retrained[i + 1 :], *further),
            originals=(*originals[:i], *originals[i + 1 :]),
            shadows=run.shadows,
        )
        known.append(evidence)
    return known


def _retraining(run: Run, comparison: Comparison, once: Spent) -> Spent:
    """What strategies' work is compared with: training anew; of a policy, for each of its requests (`Anew`)."""
    if run.year is None or comparison.request not in run.steps:
        return once
    images = Anew(run, run.year).images(comparison.seed, run.year.rounds)
    return replace(once, images=round(images)) if math.isfinite(images) else once


def _damaged(original: WithLosses, seed: int) -> WithLosses:
    """The original model's answers, dealt to the images at random: a model that is certainly broken."""
    return original.mixed_up(np.random.default_rng(derive(seed, "scoring", "damaged")))


def _reference(run: Run, frame: Frame, model: str) -> WithLosses:
    answers = run.answers(model, frame)
    if answers is None:
        raise RunError(
            f"reference model {model} diverged (answers not finite): there is nothing to compare with"
        )
    return answers

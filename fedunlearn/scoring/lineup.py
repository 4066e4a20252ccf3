"""The models of one request, lined up to be measured and judged: references, controls and every strategy's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from operator import itemgetter
from threading import Lock
from typing import TypeVar

import numpy as np

from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.scoring.attacks.roc import Curves, roc
from fedunlearn.scoring.evidence import Evidence, Floats, Frame, Spent, WithLosses
from fedunlearn.scoring.evidence.anew import Anew
from fedunlearn.scoring.evidence.reading import Comparison, Run
from fedunlearn.scoring.judgement.bench import Bench, sight
from fedunlearn.scoring.judgement.difference import CONTROLS
from fedunlearn.scoring.judgement.verdict import Diverged, Recalled
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import COSTS, Measure
from fedunlearn.scoring.measuring import Later, Measured, measure, undefined
from fedunlearn.scoring.together import Together

T = TypeVar("T")


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
    """

    run: Run
    comparisons: Sequence[Comparison]
    known: Sequence[Evidence[WithLosses]]
    beyond: Mapping[int, WithLosses]
    measures: Mapping[str, Measure]
    later: Later

    @property
    def request(self) -> RequestId:
        """Whose."""
        return self.comparisons[0].request

    @property
    def frame(self) -> Frame:
        """The images."""
        return self.known[0].frame

    def references(self, pool: Together) -> list[dict[str, Measured]]:
        """By seed, the measures of the models that need no strategy: references and controls."""
        # The first one alone: what depends on the images alone, the others find done.
        retrained = [self._retrained(0), *pool.each(self._retrained, range(1, len(self.known)))]
        controls = [(i, name, *of) for i in range(len(self.known)) for name, of in self._controls(i).items()]

        def one(of: tuple[int, str, Evidence[WithLosses], Mapping[str, Measure]]) -> Measured:
            i, _, evidence, measures = of
            return measure(evidence, measures, retrained[i], self.later)

        found: list[dict[str, Measured]] = [{} for _ in self.known]
        for (i, name, *_), measured in zip(controls, pool.each(one, controls), strict=True):
            found[i][name] = measured
            if name == "original":  # the order of the rows
                found[i]["retrained"] = retrained[i]
        return found

    def _retrained(self, i: int) -> Measured:
        """The measures of the retrained model of the i-th seed, which the others' are compared with."""
        of = replace(self.known[i], siblings=self.known[i].others)
        of = self._probed(self.comparisons[i], "retrained", of)
        return measure(of, self.measures, None, self.later)

    def _controls(self, i: int) -> dict[str, tuple[Evidence[WithLosses], Mapping[str, Measure]]]:
        """What else needs no strategy, of the i-th seed, and which of its measures there are."""
        comparison, of, following = self.comparisons[i], self.known[i], (i + 1) % len(self.comparisons)
        training = self.run.spent("original", "", "original", comparison.seed)
        original = replace(of, unlearned=of.original, spent=training, siblings=of.originals)
        models = {"original": (self._probed(comparison, "original", original), self.measures)}
        if following != i:
            other = self.known[following]
            # No model is its own reference: an attack would find it exactly as expected.
            others = (
                *(of.retrained for j, of in enumerate(self.known) if j not in (i, following)),
                *self.beyond.values(),
            )
            # Nor has it siblings: among the other retrained models is the one it is compared with.
            control = replace(of, unlearned=other.retrained, spent=other.spent, others=others)
            models["retrained_other"] = control, self.measures
        free = {name: one for name, one in self.measures.items() if name not in COSTS}
        models["damaged"] = replace(of, unlearned=_damaged(of.original, comparison.seed)), free
        return models

    def controls(self, found: Sequence[Mapping[str, Measured]], bench: Bench) -> list[Models]:
        """The models that need no strategy, given what was measured of them by seed, and where they are judged."""
        recalled, curves = self._recalled(bench), self._curves()
        return [
            Models(
                name,
                tuple(of_seed[name] for of_seed in found),
                recalled.get(name, Recalled()),
                curves.get(name, []),
            )
            for name in found[0]
        ]

    def strategies(
        self, references: Sequence[Measured], bench: Bench, judged: Callable[[Models], T], pool: Together
    ) -> list[T]:
        """Measure every strategy's models; return what ``judged`` makes of each strategy's, in their order.

        Few strategies at a time, so that little more than their models and the references is held at once.

        Args:
            references: by seed, the measures of the retrained models.
            bench: where they are judged.
            judged: what is kept of them; it is asked as soon as the last model of a strategy is measured.
            pool: who works.
        """
        tasks = ((of, i) for of in self._entries() for i, model in enumerate(of.models) if model is not None)
        measured = pool.each(lambda task: self._measured(*task, references), tasks)
        waiting = [
            pool.beside(partial(self._finished, entry, {i: one for _, i, one in of}, bench, judged))
            for entry, of in groupby(measured, itemgetter(0))
        ]
        return [result() for result in waiting]

    def _finished(
        self, entry: Entry, measured: Mapping[int, Measured], bench: Bench, judged: Callable[[Models], T]
    ) -> T:
        """What is kept of a strategy's models, ``measured`` by the number of the seed."""
        diverged = tuple(
            Diverged(one.request, entry.strategy, one.seed, self.run.diverged.get(model, "in its answers"))
            for one, model, answers in zip(self.comparisons, entry.models, entry.answers, strict=True)
            if model is not None and answers is None
        )
        finite = [one for one in entry.answers if one is not None]
        recalled, curves = Recalled(), list[Curves]()
        if len(finite) == len(self.comparisons):  # a seed that diverged leaves no mean
            curves = [roc(self.frame, one.losses) for one in finite]
            copies = self._copies([str(name) for name in entry.models])
            recalled = bench.recall(self._remembered(finite), copies)
        by_seed = tuple(measured.get(i) for i in range(len(self.comparisons)))
        return judged(Models(entry.strategy, by_seed, recalled, curves, diverged))

    def _entries(self) -> Iterator[Entry]:
        """Every strategy's models.

        Raises:
            RunError: it is called like a control.
        """
        for strategy in dict.fromkeys(name for one in self.comparisons for name in one.strategies):
            if strategy in CONTROLS:
                raise RunError(
                    f"{self.run.path}: a strategy is called {strategy!r}, which is the name of a control"
                )
            models = tuple(comparison.strategies.get(strategy) for comparison in self.comparisons)
            yield Entry(self.run, self.frame, strategy, models)

    def _measured(self, entry: Entry, i: int, references: Sequence[Measured]) -> tuple[Entry, int, Measured]:
        """The measures of a strategy's model; of one that diverged, its costs, and that the rest is undefined."""
        comparison, answers, reference = self.comparisons[i], entry.answers, references[i]
        whose, rounds = comparison.spending(entry.strategy)
        request = comparison.request
        request = request if request in self.run.steps else self.run.forgets[request][0]
        spent = self.run.spent("unlearn", request, whose, comparison.seed, rounds)
        siblings = tuple(a for j, a in enumerate(answers) if j != i and a is not None)
        own, unlearned = replace(self.known[i], spent=spent, siblings=siblings), answers[i]
        if unlearned is None:
            return entry, i, {**undefined(reference), **measure(own, COSTS, reference)}
        own = replace(own, unlearned=unlearned)
        own = own if entry.strategy in comparison.stops else self._probed(comparison, entry.strategy, own)
        return entry, i, measure(own, self.measures, reference, self.later)

    def bench(self, found: Sequence[Mapping[str, Measured]], quality: Measure) -> Bench:
        """What all models are judged by, given the measures of the references by seed."""
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
            retrained=[models["retrained"].get(quality.name, {}) for models in found],
            further=[quality.function(replace(self.known[0], unlearned=one)) for one in self.beyond.values()],
            references=[*(c.seed for c in self.comparisons), *self.beyond],
        )

    def _curves(self) -> dict[str, list[Curves]]:
        """How the attack by loss goes on the references: by seed, and on retrained models of further seeds."""
        retrained = [*(of.retrained for of in self.known), *self.beyond.values()]
        return {
            "original": [roc(self.frame, of.original.losses) for of in self.known],
            "retrained": [roc(self.frame, one.losses) for one in retrained],
        }

    def _recalled(self, bench: Bench) -> dict[str, Recalled]:
        """What the models that need no strategy still know."""
        names = [c.original for c in self.comparisons], [c.retrained for c in self.comparisons]
        original, retrained = (self._copies(of) for of in names)
        damaged = self._remembered(
            _damaged(of.original, c.seed) for of, c in zip(self.known, self.comparisons, strict=True)
        )
        known = self._remembered(of.original for of in self.known)
        found: dict[str, Recalled] = {
            "original": bench.recall(known, original),
            "damaged": bench.recall(damaged, None),
        }
        if len(self.known) > 1:
            found["retrained_other"] = bench.recall(
                self._remembered(of.retrained for of in self.known), retrained
            )
        return found

    def _remembered(self, answers: Iterable[WithLosses]) -> list[dict[str, Floats]]:
        """What memory is judged by, of each model's answers."""
        return list(map(scored(self.run.kind).memories, answers))

    def _copies(self, models: Sequence[str]) -> list[Floats] | None:
        """What models answer about changed copies; None if the run did not ask all of them."""
        found = [self.run.on_copies(model, self.frame) for model in models]
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
class Entry:
    """A strategy's models of a request.

    Attributes:
        run: their folder.
        frame: the images.
        strategy: its label.
        models: by seed; None where it has none.
    """

    run: Run
    frame: Frame
    strategy: str
    models: tuple[str | None, ...]
    _alone: Lock = field(default_factory=Lock, repr=False)

    @property
    def answers(self) -> list[WithLosses | None]:
        """What they answer, read when the first of them is measured, once; None where one diverged or there is none."""
        with self._alone:  # from Python 3.12 on, a cached property lets several threads in
            return self._read

    @cached_property
    def _read(self) -> list[WithLosses | None]:
        return [None if model is None else self.run.answers(model, self.frame) for model in self.models]


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

"""Judge models that no run folder holds, as `score` judges those of a run: for benchmarks and their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fedunlearn.scoring.evidence import Evidence, Floats, Frame, Spent, WithLosses
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement.bench import Bench, sight
from fedunlearn.scoring.judgement.difference import Difference, difference
from fedunlearn.scoring.judgement.verdict import Answer, judge
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import measures_of

A = TypeVar("A", bound=WithLosses, covariant=True)
NOTHING = Spent(0.0, 0.0, 0, 0, 0, 0)
_ULIRA = measures_of("classification")["mia_ulira_excess"]  # it looks at losses alone, whatever the kind


@dataclass(frozen=True, eq=False)
class Models(Generic[A]):
    """What several models of one kind answer, and their margins on changed copies, (N,) each."""

    answers: Sequence[A]
    copies: Sequence[Floats]


def judged(
    frame: Frame,
    retrained: Models[Any],
    original: Models[Any],
    kinds: Mapping[str, Models[Any]],
    margins: Margins = Margins(),  # noqa: B008 - frozen
    kind: str = "classification",
) -> dict[str, tuple[Answer, Answer, str]]:
    """Forgotten?, still good? and the word, by kind. The first retrained models have the seeds of the others."""
    k, task = len(original.answers), scored(kind)
    measure = measures_of(kind)[task.tested]
    quality = [measure.function(_evidence(frame, one)) for one in retrained.answers]
    images = tuple([task.memories(one) for one in of.answers] for of in (retrained, original))
    names = [str(code) for code in range(int(frame.patients.max()) + 1)]
    bench = Bench(
        frame=frame,
        sight=sight(frame, names, margins, images, (retrained.copies, original.copies), shadows=False),
        quality=measure.name,
        retrained=quality[:k],
        further=quality[k:],
        references=range(len(quality)),
    )
    found = {}
    for name, models in kinds.items():
        memory = bench.recall([task.memories(one) for one in models.answers], models.copies)
        own = [measure.function(_evidence(frame, one)) for one in models.answers]
        found[name] = judge(
            bench.sight, bench.findings(memory, own, _evidently(frame, retrained, models), ())
        )
    return found


def _evidence(frame: Frame, answers: WithLosses) -> Evidence[WithLosses]:
    return Evidence(frame, answers, answers, answers, NOTHING, NOTHING, seed=0)


def _evidently(frame: Frame, retrained: Models[Any], models: Models[Any]) -> dict[str, Difference]:
    """U-LiRA's difference from retraining."""
    pairs = []
    for i, answers in enumerate(models.answers):
        reference = retrained.answers[i]
        others = tuple(one for j, one in enumerate(retrained.answers) if j != i)
        siblings = tuple(one for j, one in enumerate(models.answers) if j != i)
        both = [
            _ULIRA.function(
                Evidence(
                    frame, reference, reference, one, NOTHING, NOTHING, 0, others=others, siblings=theirs
                )
            )
            for one, theirs in ((answers, siblings), (reference, others))
        ]
        if all("all" in one for one in both):
            pairs.append((both[0]["all"], both[1]["all"]))
    if len(pairs) < len(models.answers):
        return {}
    margin = _ULIRA.margin or 0.0
    return {_ULIRA.name: difference(pairs, (), margin, frame.patients_in(frame.rows("forget")))}

"""What is said of a strategy: two answers, and one word to sort by.

**Forgotten?** of the request's own patients (`memory`), on the exact images and on slightly changed copies of them, so
that a lookup table or a patch of the output does not pass; of pairs also by the image alone and by what comes beside it
alone, where the original knew them so: the smaller one would be lost in what is known by both. In this order, the first
that applies:

1. *cannot tell*: the models diverged; fewer than two of them, or of the retrained ones; nobody to compare the patients
   with; or the original model's own memory of these patients cannot be seen: doing nothing would pass.
2. *no*: more memory than the margin is left in the mean, beyond luck, and that is half or more of what the original
   knew; or half or more of the patients are flagged as remembered.
3. *partly*: more than the margin is left in the mean, beyond luck; or more patients than ``patients_over`` are flagged.
4. *too much*: the same on the other side. Whoever is known *less* than by a model that never saw them stands out as
   well.
5. *cannot tell*: the mean is beyond the margin, or patients are suspected, but luck or a single training might explain
   it; or the mean is within the margin, but not surely (95 %) within twice the margin; or there are fewer than three
   seeds, answers to changed copies are no numbers, or evidence that the original has is lacking.
6. *yes, but*: all that is well, yet other evidence is to the contrary (`EVIDENCE`); it is named.
7. *yes*. It says how likely a single patient remembered whole would have been seen.

**Still good?** *yes*, *worse* or *cannot tell*, from unseen images only (`usefulness`). A model that diverged is worse.

**The word**: DAMAGED (worse), UNDER (no, partly), OVER (too much), DISPUTED ("yes, but"), in this order; PASS only if
both answers are yes; all else is INCONCLUSIVE.

Margins are declared (`Margins`), never widened by how far trainings differ: where that is too far, nobody can tell.
There is no correction over strategies: what is said of one must not depend on which others were run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fedunlearn.scoring.evidence import Bools
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement.difference import Difference
from fedunlearn.scoring.judgement.memory import LEVEL, Memory, Scale
from fedunlearn.scoring.judgement.usefulness import Component
from fedunlearn.scoring.kinds import said

Forgotten = Literal["yes", "yes, but", "partly", "no", "too much", "cannot tell"]
Useful = Literal["yes", "worse", "cannot tell"]

HALF = 0.5
"""Of the original's memory, or of the patients: so much and more is not "partly" any more."""

SEEDS = 3
"""For a yes, at least: of fewer, U-LiRA, which looks at single images where a patient's mean does not, is undefined."""

EVIDENCE: Mapping[str, str] = {
    "mia_ulira_excess": "U-LiRA tells its answers to the images to forget from retraining's",
    "mia_lira_auc": "LiRA, with shadow models, finds the images to forget",
    "mia_rmia_auc": "RMIA, with shadow models, finds the images to forget",
    "probe_mia_loss_auc": "the memory is back once the last layer is refitted",
    "resurgence_mia_loss_auc": "the memory is back once the hospitals have trained on",
    "relearn_log": "it learns the images to forget again sooner than retraining does",
}
"""What else can speak against a yes, by measure, in words; more of each is worse, but for `_LESS`."""

_MEASURED: Mapping[str, str] = {
    "mia_ulira_excess": "U-LiRA",
    "mia_lira_auc": "LiRA with shadow models",
    "mia_rmia_auc": "RMIA with shadow models",
    "probe_mia_loss_auc": "what a refitted last layer knows",
    "resurgence_mia_loss_auc": "what training on brings back",
    "relearn_log": "how soon it learns the images again",
}
"""What is measured, in words."""

PROBED = ("probe_", "resurgence_", "relearn_")
"""How names of measures begin that need a model to be trained a little more."""

_SHADOWS = ("mia_lira_auc", "mia_rmia_auc")
"""Those that count only where shadow models stand behind them: without, they see no more than memory left does."""

_LESS = ("relearn_log",)
"""Of which less is worse. It is asked of all patients at once: none can be drawn anew, and trainings alone differ."""

NO_MEMORY = (
    "the original shows no memory of these patients: nothing here could tell forgetting from doing nothing"
)
ADVICE = "lower its learning rate, or set training.clip"
_NAMED = 3
"""Patients that a reason names; the rest is counted."""


@dataclass(frozen=True)
class Diverged:
    """A model that is not finite, and in words where it ceased to be."""

    request: str
    strategy: str
    seed: int
    where: str


@dataclass(frozen=True)
class Answer:
    """One answer and its reasons."""

    word: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sight:
    """What a request's models let anybody see, whatever is judged.

    Attributes:
        scale: of memory, on the exact images; None where there is none.
        copies: the same on changed copies; None where a run has none, or where the original shows no memory on them.
        alone: the same of answers to one thing alone (`fedunlearn.scoring.kinds.Scored.alone`), by name, where the
            original shows memory in them.
        seeds: how many models of each strategy there are.
        names: patients' names by code.
        margins: what is declared.
        shadows: whether the run has shadow models.
    """

    scale: Scale | None
    copies: Scale | None
    seeds: int
    names: Sequence[str]
    margins: Margins
    shadows: bool = False
    alone: Mapping[str, Scale] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Recalled:
    """What the models of one strategy still know.

    Attributes:
        images: asked about the exact images; None where it is undefined.
        copies: about changed copies.
        alone: in answers to one thing alone, by name.
        speechless: they were asked about changed copies that the original knows, and some answer is no number.
    """

    images: Memory | None = None
    copies: Memory | None = None
    alone: Mapping[str, Memory] = field(default_factory=dict)
    speechless: bool = False

    @property
    def further(self) -> dict[str, Memory]:
        """All but the first, by words that tell which."""
        copies = {} if self.copies is None else {" on slightly changed copies": self.copies}
        return {**copies, **{f" in {said(f'memory_left_{name}')}": one for name, one in self.alone.items()}}


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found of one strategy's models.

    Attributes:
        recalled: what they still know.
        differences: from retraining, by measure.
        components: what a model must keep.
        diverged: the models that did.
        lacking: measures of `EVIDENCE` that the original has, and not all of these models.
    """

    recalled: Recalled
    differences: Mapping[str, Difference]
    components: tuple[Component, ...]
    diverged: tuple[Diverged, ...] = ()
    lacking: tuple[str, ...] = ()


def judge(sight: Sight, found: Findings) -> tuple[Answer, Answer, str]:
    """Forgotten?, still good?, and the word."""
    first, second = forgotten(sight, found), useful(found)
    return first, second, word(first, second)


def word(first: Answer, second: Answer) -> str:
    """The one word to sort by."""
    if second.word == "worse":
        return "DAMAGED"
    if first.word in ("no", "partly"):
        return "UNDER"
    if first.word == "too much":
        return "OVER"
    if first.word == "yes, but":
        return "DISPUTED"
    return "PASS" if (first.word, second.word) == ("yes", "yes") else "INCONCLUSIVE"


# --------------------------------------------------------------------------------------------- forgotten?


def forgotten(sight: Sight, found: Findings) -> Answer:
    """See the module."""
    if found.diverged:
        return Answer("cannot tell")  # the reason stands under the other answer
    doubt, exact = _doubt(sight), found.recalled.images
    if doubt is not None or exact is None:
        return Answer("cannot tell", () if doubt is None else (doubt,))
    margins, further = sight.margins, found.recalled.further
    seen = {"": exact, **further}
    failed = [one for where, of in seen.items() for one in _failed(of, margins, where, sight.names)]
    for grade in ("no", "partly", "too much"):
        if any(is_ == grade for is_, _ in failed):
            return Answer(grade, tuple(reason for _, reason in failed))
    open_ = [*_open(exact, margins, sight), *_resting(further, margins), *_silent(found, sight)]
    if open_:
        return Answer("cannot tell", tuple(open_))
    against = contrary(found.differences, sight.shadows)
    chance = _chance(sight)
    if against:
        return Answer("yes, but", (*against, chance))
    return Answer("yes", (f"{_left(exact)}; no patient stands out", chance))


def _doubt(sight: Sight) -> str | None:
    """Why nothing can be said of memory at all."""
    if sight.seeds < 2:
        return f"{sight.seeds} seed: one training tells nothing of luck; run at least {SEEDS}"
    if sight.scale is None:
        return "no patient to forget has held-out images of the same hospital to be compared with"
    return None if sight.scale.visible else NO_MEMORY


def _failed(
    memory: Memory, margins: Margins, where: str, names: Sequence[str]
) -> list[tuple[Forgotten, str]]:
    """What was certainly not forgotten, or forgotten too much, with its grade."""
    mean, found = memory.mean, list[tuple[Forgotten, str]]()
    if mean.left > margins.memory_left and mean.significant(1):
        found.append(("no" if mean.left >= HALF else "partly", f"{_left(memory)}{where}"))
    known = int(memory.remembered.sum())
    if known > margins.patients_over:
        grade: Forgotten = "no" if known >= HALF * len(memory.patients) else "partly"
        found.append((grade, f"{_counted(memory, memory.remembered, names)} still known{where}"))
    if -mean.left > margins.memory_left and mean.significant(-1):
        found.append(("too much", f"the patients are known less than by retraining{where}: {_left(memory)}"))
    if int(memory.overdone.sum()) > margins.patients_over:
        told = _counted(memory, memory.overdone, names)
        found.append(("too much", f"{told} known less than by retraining{where}"))
    return found


def _resting(further: Mapping[str, Memory], margins: Margins) -> Iterator[str]:
    """What looks beside the first withhold a yes for: memory that rests on a single training.

    They show less of it than exact images and all answers do, so that luck weighs more. To ask that they *surely* show
    none would leave most of what is right without an answer.
    """
    for where, memory in further.items():
        side = 1 if memory.mean.left > 0 else -1
        if abs(memory.mean.left) > margins.memory_left and memory.mean.significant(side, all_models=True):
            yield f"{_left(memory)}{where}, but it rests on a single training"


def _silent(found: Findings, sight: Sight) -> Iterator[str]:
    """What was not asked, or not answered: no answer is no sign of having forgotten."""
    if sight.seeds < SEEDS:
        yield (
            f"of {sight.seeds} seeds nobody can tell whether single images are remembered, and others overdone to make "
            f"up for it: run at least {SEEDS}"
        )
    if found.recalled.speechless:
        yield "some answers to slightly changed copies are no numbers"
    if found.lacking:
        yield f"not measured for every seed: {', '.join(_MEASURED[name] for name in found.lacking)}"


def _open(memory: Memory, margins: Margins, sight: Sight) -> list[str]:
    """What luck, or a single training, might explain; what is not sure enough."""
    mean, found = memory.mean, list[str]()
    suspected = int(memory.suspected.sum())
    if suspected:
        told = _counted(memory, memory.suspected, sight.names)
        found.append(f"{told} perhaps still known, or overdone, but it rests on a single training")
    low, high = mean.interval(0.90)
    if abs(mean.left) > margins.memory_left:
        found.append(f"{_left(memory)}, which luck might explain")
    elif not max(-low, high) < 2 * margins.memory_left:
        found.append(f"{_left(memory)}: not surely less than {_percent(2 * margins.memory_left)}")
    return found


def contrary(differences: Mapping[str, Difference], shadows: bool) -> tuple[str, ...]:
    """The evidence that a model did not forget, in words.

    A measure counts if it is beyond its margin, by more than luck of the retrained models and of the model's own at
    `LEVEL`, over all measures that are there (Bonferroni), whichever seed is left out. Of a single patient luck is that
    of trainings alone, as always where the question is of these patients and no others; of relearning it always is.
    """
    there = {name: one for name, one in differences.items() if name in evidence(shadows)}
    found = []
    for name, one in there.items():
        one = replace(one, shared=0.0) if one.patients < 2 or name in _LESS else one
        side, sign = ("below", -1) if name in _LESS else ("above", 1)
        level = LEVEL / len(there)
        sure = (
            sign * one.value - one.half(1 - level) > 0
            and one.p_beyond("below" if sign < 0 else "above") < level
        )
        if sign * one.value > one.margin and sure:
            found.append(f"{EVIDENCE[name]} ({_apart(name, one.value, side)})")
    return tuple(found)


def _apart(name: str, value: float, side: str) -> str:
    return f"in {math.exp(value):.2f} of its epochs" if name in _LESS else f"{value:+.2f} {side} retraining"


def evidence(shadows: bool) -> tuple[str, ...]:
    """The measures of `EVIDENCE` that count in a run, with shadow models or without."""
    return tuple(name for name in EVIDENCE if shadows or name not in _SHADOWS)


def _chance(sight: Sight) -> str:
    assert sight.scale is not None  # there is a doubt otherwise
    tenths = int(10 * sight.scale.power(sight.seeds))
    return f"a patient remembered whole would show in {tenths} of 10 such runs"


def _left(memory: Memory) -> str:
    low, high = memory.mean.interval()
    return f"{_percent(memory.mean.left)} of the original's memory is left (95 %: {_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    return "?" if math.isnan(share) else f"{100 * share:.0f} %"


def _counted(memory: Memory, which: Bools, names: Sequence[str]) -> str:
    """How many patients, and who, the most striking first."""
    order = np.flatnonzero(which)[np.argsort(-np.abs(memory.left[which]), kind="stable")]
    told = [f"{names[memory.patients[i]]} {_percent(float(memory.left[i]))}" for i in order[:_NAMED]]
    rest = [f"{len(order) - _NAMED} more"] if len(order) > _NAMED else []
    are = "is" if len(order) == 1 else "are"
    return f"{len(order)} of {len(memory.patients)} patients ({', '.join([*told, *rest])}) {are}"


# -------------------------------------------------------------------------------------------- still good?


def useful(found: Findings) -> Answer:
    """See the module."""
    if found.diverged:
        return Answer("worse", (_told(found.diverged),))
    every = found.components
    lost = [one for one in every if one.worse]
    if lost:
        return Answer("worse", tuple(_lost(one) for one in lost))
    open_ = [one for one in every if one.needed and not one.kept]
    if open_ or not every:
        return Answer(
            "cannot tell", tuple(f"{_named(one.group)}: {_seen(one)}; {one.advice()}" for one in open_)
        )
    overall = next(one for one in every if one.group == "all")
    return Answer("yes", (f"on unseen images {_seen(overall)}",))


def _lost(one: Component) -> str:
    return f"{_named(one.group)}: {_seen(one)} on unseen images, margin {one.margin:.2f}"


def _seen(one: Component) -> str:
    if one.difference is None:
        return f"{one.images} test images of {one.patients} patients"
    low, high = one.difference.interval()
    low, high = max(low, -1.0), min(high, 1.0)  # shares differ by no more, however few models there are
    told = f"{one.difference.value:+.3f}"
    return f"{told} (95 %: {low:+.3f} to {high:+.3f})" if math.isfinite(one.difference.half(0.975)) else told


def _named(group: str) -> str:
    attribute, _, value = group.partition("=")
    return {"all": "overall", "site": f"hospital {value}"}.get(attribute, f"{attribute} {value}")


def _told(diverged: Sequence[Diverged]) -> str:
    """Which seeds diverged, and where."""
    seeds: dict[str, list[str]] = {}
    for one in diverged:
        seeds.setdefault(one.where, []).append(str(one.seed))
    places = [
        f"for seed{'s' if len(some) > 1 else ''} {' and '.join(some)} {where}"
        for where, some in seeds.items()
    ]
    return f"diverged {', '.join(places)}: {ADVICE}"

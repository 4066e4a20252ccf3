"""Is an unlearned model still good? On unseen images alone: overall, at every hospital, for every class.

What a model makes of images that it was trained on says how well it fits them, which is no use to anybody: a model that
fits less and is as good on new patients is not damaged. So retained images have no part in this.

Each *component* is a difference from the retrained models in one number, accuracy or Dice (`Scored.quality`), on the
test images of one group (`difference`). Its margin is what may be lost. It is

- *worse* if the loss is beyond the margin and neither luck of seeds nor of patients explains it (p < `LEVEL` after
  Holm's correction over the components, whichever seed is left out);
- *kept* if the best estimate is within the margin, and it is sure (one-sided 95 %) to be within twice the margin;
- *open* otherwise: this run cannot tell.

Of a small group all retrained models may score exactly alike, and their spread is 0. That is no proof that training has
no luck there: it would make one image less a finding with p = 0. The spread is then taken to be `least_luck`.

A class can be lost as a whole. That a few patients of it are all recognised does not exclude that: with n of them, up
to ``1 - .05^(1/n)`` of all such patients may not be (95 %; Hanley and Lippman-Hand, JAMA 249, 1983, "rule of three").
So the recall of a class is kept only if that is within twice the margin too. Of a structure, or a finding, the patients
are those on whose test images it is (`Estimate.having`).

A model is *worse* if any component is; *still good* if all of them are kept; otherwise nobody can tell. Groups of
patients that the data names (sex, age, scanner) can make a model worse, but are not needed for a yes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedunlearn.scoring.evidence import Bools, Estimates, Frame
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement.difference import Difference, difference, holm

LEVEL = 0.02
"""Of "worse", one-sided, over all components of a model together."""

GIVEN = ("sex", "age", "scanner")
"""Attributes of patients that make groups; what follows from models or labels does not."""

_EDGE = 1e-9
"""A difference this near the margin is within: sums of floats are not exact."""


@dataclass(frozen=True)
class Component:
    """One number that a model must keep.

    Attributes:
        group: "all", ``site=…``, ``class=…`` or a group of patients.
        difference: from the retrained models; None where there are too few test patients.
        margin: what may be lost.
        patients, images: test patients and images of the group.
        worse: see the module.
    """

    group: str
    difference: Difference | None
    margin: float
    patients: int
    images: int
    worse: bool = False

    @property
    def needed(self) -> bool:
        """Whether it must be kept for a model to be still good."""
        return self.group == "all" or self.group.startswith(("site=", "class="))

    @property
    def enough(self) -> bool:
        """Whether there are patients enough to exclude that the group was lost as a whole."""
        return not self.group.startswith("class=") or self.patients >= fewest(self.margin)

    @property
    def kept(self) -> bool:
        """See the module."""
        one = self.difference
        if one is None or not self.enough:
            return False
        loss = -one.value
        return loss <= self.margin + _EDGE and loss + one.half(0.95) < 2 * self.margin

    def advice(self) -> str:
        """How to make an open component tell."""
        if self.difference is None or not self.enough:
            return f"{self.patients} test patients; {fewest(self.margin)} would tell"
        if not math.isfinite(self.difference.half(0.95)):
            return "too few seeds or patients for an interval"
        return self.difference.needed(self.margin)


def fewest(margin: float) -> int:
    """Patients of a class that exclude, all being recognised, that twice the margin of its patients is lost (95 %)."""
    return math.ceil(math.log(0.05) / math.log(1 - min(2 * margin, 0.95)))


def components(
    frame: Frame,
    models: Sequence[Estimates],
    retrained: Sequence[Estimates],
    further: Sequence[Estimates],
    margins: Margins,
) -> tuple[Component, ...]:
    """What a model must keep, and whether it did.

    Args:
        frame: the images.
        models: by seed, the quality of the unlearned models by group.
        retrained: the same of the retrained models of these seeds.
        further: the same of retrained models of other seeds.
        margins: what may be lost.
    """
    everything = frame.groups["all"]
    # Structures of volumes, and findings, are no groups of images, but some images have them.
    structures = {
        group: everything if own.having is None else own.having
        for one in retrained
        for group, own in one.items()
    }
    found = [
        _component(frame, group, rows, margin, (models, retrained, further))
        for group, rows in {**structures, **frame.groups}.items()
        if (margin := _margin(group, margins)) is not None and rows.any()
    ]
    p = {
        one.group: one.difference.p_beyond("below")
        for one in found
        if one.difference is not None and -one.difference.value > one.margin + _EDGE
    }
    # Components within their margins are tests too: they count as such, with p = 1.
    corrected = holm({**dict.fromkeys((one.group for one in found), 1.0), **p})
    return tuple(
        Component(
            one.group, one.difference, one.margin, one.patients, one.images, corrected[one.group] < LEVEL
        )
        for one in found
    )


def _component(
    frame: Frame,
    group: str,
    rows: Bools,
    margin: float,
    of: tuple[Sequence[Estimates], Sequence[Estimates], Sequence[Estimates]],
) -> Component:
    models, retrained, further = of
    test = frame.rows("test") & rows
    patients, images = frame.patients_in(test), int(test.sum())
    values = [found.get(group) for found in (*models, *retrained, *further)]
    if not models or not all(one is not None and math.isfinite(one.value) for one in values):
        return Component(group, None, margin, patients, images)
    pairs = [(one[group], other[group]) for one, other in zip(models, retrained, strict=True)]
    apart = difference(pairs, [one[group].value for one in further], margin, patients)
    if apart.null_spread < _EDGE:
        known = [one.value for one in values if one is not None]
        apart = replace(apart, null_spread=least_luck(known, patients), bound=True)
    return Component(group, apart, margin, patients, images)


def least_luck(values: Sequence[float], patients: int) -> float:
    """The standard deviation from training to training that a quality in [0, 1] is given where models show none.

    ``sqrt(p (1 - p) / n)`` with ``p = (k + 1/2) / (n m + 1)``, n the patients of the group, k the sum of ``n value``
    over all m models: of honest models each patient is a coin that falls anew at every training, and the half is
    Jeffreys', which leaves p short of 0 and 1. Means over a patient's images, and Dice of volumes, vary less at the
    same mean, as ``p (1 - p)`` is the most that a number in [0, 1] can vary; so does an area under a ROC curve, if n
    is of the rarer side (Birnbaum and Klose, Ann. Math. Stat. 28, 1957). Unlearned models are among the m, since what
    is tested is that they are retrained ones: p of the others alone would have hardly any image missed.

    Real trainings agree about a patient more than coins do, so this is on the safe side, and no estimate of few models
    (`Difference.bound`). Only a spread of 0 is replaced: one that was seen is what these models show.
    """
    p = (patients * sum(values) + 0.5) / (patients * len(values) + 1)
    return math.sqrt(max(p * (1 - p), 0.0) / max(patients, 1))


def _margin(group: str, margins: Margins) -> float | None:
    """What may be lost there; None where nobody asks."""
    attribute = group.partition("=")[0]
    if group == "all":
        return margins.test
    if attribute == "class":
        return margins.class_recall
    return margins.worst_hospital if attribute in ("site", *GIVEN) else None

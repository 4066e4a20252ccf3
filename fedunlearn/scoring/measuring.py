"""Measure a model by everything in the catalogue, and keep no more of it than is read again."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedunlearn.scoring.evidence import RESAMPLES, Estimate, Estimates, Evidence, Floats, Frame, Part, between
from fedunlearn.scoring.judgement.bias import comparable
from fedunlearn.scoring.measures.catalogue import Measure

Measured = Mapping[str, Estimates]
"""One model's measures by name."""


AT_ONCE = 64
"""Estimates whose intervals are found together: what is sorted then stays near the processor."""


@dataclass(frozen=True)
class Later:
    """Which replicates are read again once a model is measured; those of all models would take gigabytes.

    Attributes:
        parts: the measures that others are made of.
        whole: the measures of all images that differences are taken of.
        compared: the measures and groups that are looked at for unequal treatment.
        quality: the measure whose every group is judged.
    """

    parts: frozenset[str]
    whole: frozenset[str]
    compared: frozenset[tuple[str, str]]
    quality: str

    def settled(self, measured: Measured, but: Container[str] = ()) -> Measured:
        """A model's measures, ``but`` some; intervals take the place of replicates that nobody reads again."""
        over = [
            (name, group)
            for name, estimates in measured.items()
            if name != self.quality and name not in but
            for group, estimate in estimates.items()
            if estimate.replicates.size
            and (name, group) not in self.compared
            and not (group == "all" and name in self.whole)
        ]
        ends = intervals([measured[name][group] for name, group in over])
        settled = dict(zip(over, ends, strict=True))
        return {
            name: {
                group: Estimate(one.value, one.n, exact=settled[name, group], luck=one.luck)
                if (name, group) in settled
                else _alone(one)
                for group, one in estimates.items()
            }
            for name, estimates in measured.items()
        }


def _alone(one: Estimate) -> Estimate:
    """The same, with replicates of its own: those of all groups are one array, which a single group would keep."""
    return one if one.replicates.base is None else replace(one, replicates=one.replicates.copy())


def later(measures: Mapping[str, Measure], frame: Frame, compared: Mapping[str, Part], quality: str) -> Later:
    """What is read again of the models of a request.

    Args:
        measures: all of them, by name.
        frame: the images.
        compared: the measures that are looked at for unequal treatment, with the part whose patients they speak of.
        quality: the measure whose every group is judged.
    """
    return Later(
        quality=quality,
        parts=frozenset(part for one in measures.values() for part in one.parts),
        whole=frozenset(name for name, one in measures.items() if one.margin is not None),
        compared=frozenset(
            (name, group) for name, part in compared.items() for group in comparable(frame, part)
        ),
    )


def measure(
    evidence: Evidence[Any],
    measures: Mapping[str, Measure],
    reference: Measured | None,
    later: Later | None = None,
) -> Measured:
    """Every measure of one model.

    Args:
        evidence: what is known of it.
        measures: by name, in order.
        reference: the retrained model's; None if it is the retrained model that is measured.
        later: what is read again later: of all else intervals take the place of replicates; None to keep them all.
    """
    measured: dict[str, Estimates] = {}
    known = replace(evidence, measured=measured, reference=measured if reference is None else reference)
    for name, one in measures.items():
        measured[name] = one.function(known)
    if later is None:
        return measured
    return later.settled(measured, later.parts if reference is None else ())  # others are compared with it


def undefined(like: Measured) -> dict[str, Estimates]:
    """The measures of a model whose answers are not numbers."""
    return {
        name: {group: Estimate(float("nan"), estimate.n) for group, estimate in estimates.items()}
        for name, estimates in like.items()
    }


def intervals(estimates: Sequence[Estimate]) -> list[tuple[float, float]]:
    """`Estimate.interval` of each, many at once: one by one they would take as long as all measures."""
    plain = [
        i
        for i, e in enumerate(estimates)
        if e.exact is None and e.replicates.size == RESAMPLES and np.isfinite(e.replicates).all()
    ]
    found = dict[int, tuple[float, float]]()
    for start in range(0, len(plain), AT_ONCE):
        some = plain[start : start + AT_ONCE]
        drawn = np.stack([estimates[i].replicates for i in some])
        lows, highs = (_quantile(drawn, share).tolist() for share in (0.025, 0.975))
        found |= dict(zip(some, zip(lows, highs, strict=True), strict=True))
    return [found[i] if i in found else e.interval() for i, e in enumerate(estimates)]


def _quantile(drawn: Floats, share: float) -> Floats:
    """(n,) of rows, whose order it changes, as `np.quantile` has it to the last bit.

    One place at a time, each row is partitioned several times as fast as at two places, or as it is sorted.
    """
    below = int(share * (drawn.shape[1] - 1))
    drawn.partition(below, axis=1)
    return between(drawn[:, below], drawn[:, below + 1 :].min(axis=1), share * (drawn.shape[1] - 1) - below)

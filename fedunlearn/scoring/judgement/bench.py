"""Where a request's models are judged: what all are compared with, put together once, and each one's findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedunlearn.scoring.evidence import Estimates, Floats, Frame
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement import tables
from fedunlearn.scoring.judgement.difference import Difference
from fedunlearn.scoring.judgement.memory import LEVEL, Scale, recall, scale
from fedunlearn.scoring.judgement.usefulness import components
from fedunlearn.scoring.judgement.verdict import Diverged, Findings, Recalled, Sight, judge

Phis = Sequence[Floats]
"""Of several models, (N,) each: the logit-scaled confidence in every image."""
Memories = Sequence[Mapping[str, Floats]]
"""Of several models, phi (N,) by what it is of: all answers by no name, those to one thing alone by its name."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What all models of a request are judged by.

    Attributes:
        frame: the images.
        sight: what can be seen of memory.
        quality: the measure of how good a model is.
        retrained, further: that quality of the retrained models of the seeds, and of other seeds, by group.
        references: the seeds of all retrained models, in this order.
    """

    frame: Frame
    sight: Sight
    quality: str
    retrained: Sequence[Estimates]
    further: Sequence[Estimates]
    references: Sequence[int]

    def recall(self, images: Memories, copies: Phis | None) -> Recalled:
        """What a strategy's models still know, asked about exact images and about changed copies."""
        margin = self.sight.margins.memory_left
        exact, changed = self.sight.scale, self.sight.copies
        asked = None if changed is None or copies is None else (changed, copies)
        on_copies = None
        if asked is not None and np.isfinite([one[asked[0].asked] for one in asked[1]]).all():
            on_copies = recall(self.frame, *asked, margin)
        return Recalled(
            None if exact is None else recall(self.frame, exact, of("", images), margin),
            on_copies,
            {
                name: recall(self.frame, one, of(name, images), margin)
                for name, one in self.sight.alone.items()
            },
            speechless=asked is not None and on_copies is None,
        )

    def findings(
        self,
        recalled: Recalled,
        quality: Sequence[Estimates],
        differences: Mapping[str, Difference],
        diverged: Sequence[Diverged],
        lacking: Sequence[str] = (),
    ) -> Findings:
        """What was found of one strategy's models, given their ``quality`` by seed; of diverged ones, nothing else.

        ``lacking`` are measures as `Findings` has them.
        """
        if diverged or len(quality) < len(self.retrained):
            return Findings(Recalled(), differences, (), tuple(diverged))
        margins = self.sight.margins
        kept = components(self.frame, quality, self.retrained, self.further, margins)
        return Findings(recalled, differences, kept, lacking=tuple(lacking))

    def tables(
        self,
        request: str,
        found: Mapping[str, Findings],
        differences: Mapping[str, Mapping[str, Difference]],
    ) -> dict[str, pd.DataFrame]:
        """What is written of a request's judgements, by file."""
        judged = {strategy: judge(self.sight, one) for strategy, one in found.items()}
        margin, images = self.sight.margins.memory_left, int(self.frame.rows("forget").sum())
        return {
            "statistics.parquet": tables.statistics(request, differences, found, self.quality, margin),
            "verdicts.parquet": tables.verdicts(request, judged),
            "patients.parquet": tables.patients(request, found, self.sight.names),
            "requests.parquet": tables.requests(request, self.sight, images, self.references),
        }


def sight(
    frame: Frame,
    names: Sequence[str],
    margins: Margins,
    images: tuple[Memories, Memories],
    copies: tuple[Phis, Phis] | None,
    shadows: bool,
) -> Sight:
    """What a request's models let anybody see.

    Args:
        frame: the images.
        names: the patients' by code.
        margins: what is declared.
        images: phi of all retrained models and of the original ones, of which there is one for every seed.
        copies: the same of all answers, on changed copies; None where there are none.
        shadows: whether the run has shadow models.
    """
    of_retrained, of_original = images
    alone = [name for name in of_original[0] if name]
    level = LEVEL / (1 + (copies is not None) + len(alone))

    def visible(retrained: Phis, original: Phis) -> Scale | None:
        found = scale(frame, retrained, original, level)
        return found if found is not None and found.visible else None

    apart = {name: visible(of(name, of_retrained), of(name, of_original)) for name in alone}
    return Sight(
        scale(frame, of("", of_retrained), of("", of_original), level),
        None if copies is None else visible(*copies),
        len(of_original),
        names,
        margins,
        shadows,
        {name: one for name, one in apart.items() if one is not None},
    )


def of(name: str, models: Memories) -> Phis:
    """Of several models, (N,) each: what memory is judged by, of what is called so."""
    return [one[name] for one in models]

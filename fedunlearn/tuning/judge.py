"""How near a trial comes to retraining: on validation images, by measures of memory and of use.

Not by the answers of a verdict: those tell yes from no, and a search needs to know which of two trials is nearer. What
is measured, the kind of task says (`fedunlearn.scoring.kinds.Scored.trial`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from fedunlearn.core import RequestId
from fedunlearn.results.signals import signal_table
from fedunlearn.scoring.evidence import Answers, Evidence, Frame, Spent
from fedunlearn.scoring.evidence.reading import Run
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import measures_of

_NOTHING = Spent(0.0, 0.0, 0, 0, 0, 0)


class Judge:
    """Compares models with the rehearsal's own retrained ones.

    Args:
        folder: where the reference models' signals are.
        kind: of task.
        classes: how many there are.
        images: the content of ``sites.parquet`` for the rehearsal.
        requests: the rehearsal's requests.
    """

    def __init__(
        self, folder: Path, kind: str, classes: int, images: pd.DataFrame, requests: tuple[RequestId, ...]
    ) -> None:
        order = np.argsort(images["image"].to_numpy(), kind="stable")
        forgets = {request: (request,) for request in requests}
        self._run = Run(folder, kind, classes, (), forgets, {}, images.iloc[order], order, pd.DataFrame())
        self._measures = [measures_of(kind)[name] for name in scored(kind).trial]
        self._frame = cache(self._validation)

    def answers(self, request: RequestId, signals: Mapping[str, Tensor]) -> Answers | None:
        """What a model answers, given its signal; None if it diverged."""
        table = signal_table(signals).iloc[self._run.order]
        answers = scored(self._run.kind).read(table, self._frame(request), request)
        return answers if answers.finite else None

    def reference(self, request: RequestId, model: str) -> Answers | None:
        """What a reference model answers, by its name; None if it diverged."""
        return self._run.answers(model, self._frame(request))

    def distance(self, request: RequestId, retrained: Answers, model: Answers) -> float:
        """The mean over `Scored.trial` of a model's distance from the retrained one, in margins of each measure.

        A measure's "test" means validation images here.
        A margin is the smallest difference that counts (`Measure.margin`): 1 is what honest retrainings may differ by.
        A measure that is undefined on these images (no image to compare with) is left out.
        """
        gaps = [
            abs(one - other) / margin
            for one, other, margin in zip(
                self._values(request, model),
                self._values(request, retrained),
                (measure.margin for measure in self._measures),
                strict=True,
            )
            if one is not None and other is not None and margin is not None
        ]
        return float(np.mean(gaps))

    def _values(self, request: RequestId, model: Answers) -> list[float | None]:
        evidence = Evidence(self._frame(request), model, model, model, _NOTHING, _NOTHING, seed=0)
        found = [measure.function(evidence).get("all") for measure in self._measures]
        return [None if estimate is None else estimate.value for estimate in found]

    def _validation(self, request: RequestId) -> Frame:
        """The request's images with validation in the place of test images."""
        validation = (self._run.images["split"] == "val").to_numpy(bool)
        return replace(self._run.frame(request), test=validation)

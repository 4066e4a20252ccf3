"""Made-up answers of models, for attacks to look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedunlearn.scoring.evidence import Evidence, Frame
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.scoring.test_evidence import evidence_of, frame_of

L = np.log(3.0)  # log-odds of p = 3/4

# One hospital, one label: two patients to forget, two held out, one retained.
SMALL = [(p, 0, 0, part) for p, part in enumerate(["forget", "forget", "test", "test", "retain"])]


def outputs(frame: Frame, odds) -> Outputs:
    return evidence_of(frame, odds).unlearned


def with_models(
    frame: Frame, odds, original=None, retrained=None, others=(), originals=(), siblings=()
) -> Evidence[Outputs]:
    """Evidence whose references answer with these log-odds, (N,) or (models, N)."""
    model = evidence_of(frame, odds)
    return replace(
        model,
        original=model.original if original is None else outputs(frame, original),
        retrained=model.retrained if retrained is None else outputs(frame, retrained),
        others=tuple(outputs(frame, row) for row in others),
        originals=tuple(outputs(frame, row) for row in originals),
        siblings=tuple(outputs(frame, row) for row in siblings),
    )


def value(name: str, evidence: Evidence[Outputs], group: str = "all") -> float:
    return MEASURES[name].function(evidence)[group].value


def made_up(leak: float, seed: int = 0, models: int = 3) -> Evidence[Outputs]:
    """A model that knows images to forget better by ``leak`` than retrained ones do; some images are harder.

    A retrained model answers with the image's own level and a taste of its own; the original with 3 more if it was
    trained on it.
    """
    rng = np.random.default_rng(seed)
    parts = ("forget", "retain", "test")
    frame = frame_of([(p, p % 2, i % 2, parts[p // 40]) for p in range(120) for i in range(5)])
    level = 2 * rng.normal(size=len(frame.labels))

    def model(more: float):
        own = level + 0.5 * rng.normal(size=len(level))
        return own + np.where(frame.rows("retain"), 3.0, 0.0) + np.where(frame.rows("forget"), more, 0.0)

    return with_models(
        frame,
        model(leak),
        retrained=model(0),
        original=model(3),
        others=[model(0) for _ in range(models - 1)],
        originals=[model(3) for _ in range(models - 1)],
        siblings=[model(leak) for _ in range(models - 1)],
    )

"""What it would have cost to answer every request of a year by training anew, reckoned from the original's training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedunlearn.scoring.evidence.reading import Run
from fedunlearn.scoring.evidence.year import Year


@dataclass(frozen=True, eq=False)
class Anew:
    """Training anew on each day on which anything to unlearn was accepted.

    Reckoned from what the original's rounds took, by the share of its images that remained: so it is the same for
    every policy and strategy, whether or not any of them trains anew.

    Attributes:
        run: the folder.
        year: its year.
    """

    run: Run
    year: Year

    def images(self, seed: int, until: int) -> float:
        """Passes of images, of all days up to a boundary; NaN where the ledger has no training of that seed."""
        ledger = self.run.ledger
        rounds = ledger[(ledger["phase"] == "original") & (ledger["seed"] == seed)]
        if rounds.empty:
            return math.nan
        took, number = rounds["images"].to_numpy(np.float64), rounds["round"].to_numpy(np.int64)
        due = ((boundary, share) for boundary, share in self._remaining.items() if boundary <= until)
        return float(sum(share * took[number < boundary].sum() for boundary, share in due))

    @cached_property
    def _remaining(self) -> dict[int, float]:
        """By boundary at which anything to unlearn was accepted, the share of training images that are left after."""
        return dict(self._shares())

    def _shares(self) -> Iterator[tuple[int, float]]:
        train = (self.run.images["split"] == "train").to_numpy(bool)
        gone = np.zeros_like(train)
        accepted = [e for e in self.year.docket if e.state == "accepted" and e.boundary is not None]
        for boundary in sorted({e.boundary for e in accepted if e.boundary is not None}):
            new = [e for e in accepted if e.boundary == boundary]
            for entry in new:
                gone |= self.run.named(entry.id)
            if any(entry.unlearns for entry in new):
                yield boundary, float(1 - gone.sum() / train.sum())

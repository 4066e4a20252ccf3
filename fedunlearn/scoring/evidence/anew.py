"""What it would have cost to answer every request of a year by training anew, reckoned from the original's training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedunlearn.core import Rota, SiteId
from fedunlearn.scoring.evidence import Bools
from fedunlearn.scoring.evidence.reading import Run
from fedunlearn.scoring.evidence.year import Year

PURPOSE = "train"
"""What training and training anew draw their turns for (`fedunlearn.federation.procedures.fedavg`)."""
Counts = Mapping[SiteId, int]
"""Training images by hospital."""


@dataclass(frozen=True, eq=False)
class Anew:
    """Training anew on each day on which anything to unlearn was accepted.

    Reckoned from what the original's rounds took for each image of the hospitals that they asked, and from the images
    of those that the same rounds ask once somebody is gone (`fedunlearn.core.Rota`). So it is the same for every policy
    and strategy, whether or not any of them trains anew.

    Attributes:
        run: the folder.
        year: its year.
    """

    run: Run
    year: Year

    def images(self, seed: int, until: int) -> float:
        """Passes of images, of all days up to a boundary; NaN where the ledger has no training of that seed."""
        known = self._costs.get(seed)
        if known is None:
            return math.nan
        return float(sum(cost for boundary, cost in known.items() if boundary <= until))

    @cached_property
    def _costs(self) -> Mapping[int, Mapping[int, float]]:
        """By seed and boundary at which anything to unlearn was accepted, the passes of training anew until there."""
        ledger = self.run.ledger
        rounds, left = ledger[ledger["phase"] == "original"], dict(self._left())
        found = dict[int, dict[int, float]]()
        for seed in map(int, rounds["seed"].unique()):
            of = rounds[rounds["seed"] == seed]
            took = dict(zip(of["round"].astype(int), of["images"].astype(float), strict=True))
            whole = {number: self._asked(self._counts(self._train), seed, number) for number in took}
            found[seed] = {
                boundary: sum(
                    took[number] * self._asked(counts, seed, number) / whole[number]
                    for number in took
                    if number < boundary
                )
                for boundary, counts in left.items()
            }
        return found

    def _asked(self, counts: Counts, seed: int, number: int) -> int:
        """How many images the hospitals have that are asked in a round."""
        rota = Rota.among(counts, counts, self.year.participation)
        return sum(counts[site] for site in rota.asked(seed, PURPOSE, number))

    def _left(self) -> Iterator[tuple[int, Counts]]:
        """Every boundary at which anything to unlearn was accepted, with what is left to train on then."""
        gone = np.zeros_like(self._train)
        accepted = [e for e in self.year.docket if e.state == "accepted" and e.boundary is not None]
        for boundary in sorted({e.boundary for e in accepted if e.boundary is not None}):
            new = [e for e in accepted if e.boundary == boundary]
            for entry in new:
                gone |= self.run.named(entry.id)
            if any(entry.unlearns for entry in new):
                yield boundary, self._counts(self._train & ~gone)

    @cached_property
    def _train(self) -> Bools:
        return (self.run.images["split"] == "train").to_numpy(bool)

    def _counts(self, images: Bools) -> Counts:
        """Of every hospital, how many of these images it has."""
        sites = self.run.images["site"].astype(str)
        found = sites[images].value_counts()
        return {site: int(found.get(site, 0)) for site in sorted(set(sites))}

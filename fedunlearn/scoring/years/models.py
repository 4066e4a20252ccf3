"""What each model that was in hand at a look shows: how good it is, how sure of itself, and of whom it knows how much.

Values alone, no intervals: there are hundreds of such models. What quality is, the kind of task says
(`fedunlearn.scoring.kinds.Scored`), and whether there is a calibration error: of volumes, there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedunlearn.core import RequestId
from fedunlearn.scoring.evidence import Bools, Floats, Frame
from fedunlearn.scoring.evidence.reading import Run
from fedunlearn.scoring.evidence.year import Look, Year
from fedunlearn.scoring.judgement import patients
from fedunlearn.scoring.kinds import scored


@dataclass(frozen=True)
class Asked:
    """The images of one accepted request, and how many patients of it can be compared with anybody.

    Attributes:
        weights: (n,) of each image that anybody asked for: what it adds to the request's score, the mean over the
            request's patients of the mean over their images.
        patients: those that there are held-out images for.
        images: these patients' images that it names.
    """

    weights: Floats
    patients: int
    images: int


@dataclass(frozen=True)
class Seen:
    """One model.

    Attributes:
        quality: accuracy, or Dice of volumes, on all test images.
        worst: the lowest of any hospital that stays.
        calibration: `clinical.calibration_error` of all test images; NaN of volumes.
        known: by request, its score: logit-scaled confidence in its images, less that in held-out images of the same
            hospital and label (`judgement.patients`).
        held_out: (H,) the same of every held-out patient, against the others.
        strangers: (n,) and of every image of these.
    """

    quality: float
    worst: float
    calibration: float
    known: Mapping[RequestId, float]
    held_out: Floats
    strangers: Floats


@dataclass(frozen=True, eq=False)
class Looking:
    """What models are looked at with, the same for all.

    Attributes:
        run: their folder.
        year: its year.
        frame: the images as all accepted requests divide them.
    """

    run: Run
    year: Year
    frame: Frame

    @cached_property
    def rows(self) -> Bools:
        """(N,) training images that any accepted request asks to be unlearned."""
        rows = np.zeros(len(self.frame.patients), dtype=bool)
        for entry in self.year.docket:
            if entry.unlearns:
                rows |= self.run.named(entry.id)
        return rows

    @cached_property
    def asked(self) -> Mapping[RequestId, Asked]:
        """By accepted request, its images."""
        frame, here = self.frame, np.flatnonzero(self.rows)
        if not here.size:
            return {}
        usable = np.isfinite(patients.each(frame, np.zeros((1, len(frame.patients))), self.rows)[0])
        found = {}
        for entry in self.year.docket:
            if not entry.unlearns:
                continue
            own = self.run.named(entry.id)[here] & usable
            named, who, counts = np.unique(frame.patients[here][own], return_inverse=True, return_counts=True)
            weights = np.zeros(len(here))
            weights[own] = 1 / (counts[who] * max(len(named), 1))
            found[entry.id] = Asked(weights, len(named), int(own.sum()))
        return found

    @cached_property
    def _weights(self) -> Floats:
        """(n, R) those of all requests."""
        found = [one.weights for one in self.asked.values()]
        return np.stack(found, axis=1) if found else np.empty((int(self.rows.sum()), 0))

    @cached_property
    def staying(self) -> tuple[Bools, ...]:
        """(N,) the test images of each hospital that stays: not all of its training images are asked for."""
        frame = self.frame
        sites = [frame.sites == code for code in range(len(frame.site_names))]
        return tuple(
            frame.test & site
            for site in sites
            if (frame.test & site).any() and (frame.train & site & ~self.rows).any()
        )

    def seen(self, model: str) -> Seen | None:
        """What a model shows; None if it diverged.

        Raises:
            RunError: its file of signals is missing or does not fit the images.
        """
        answers = self.run.answers(model, self.frame)
        if answers is None:
            return None
        kind, tested = scored(self.run.kind), bool(self.frame.test.any())
        phi = kind.remembered(answers)[None]
        asked = np.ones(phi.shape[1], dtype=bool)
        held_out = patients.scores(self.frame, phi, asked)[3][0][0]
        each = np.nan_to_num(patients.each(self.frame, phi, self.rows)[0]) if self.rows.any() else np.empty(0)
        quality = [kind.value(answers, rows) for rows in self.staying]
        scores = dict(zip(self.asked, (each @ self._weights).tolist(), strict=True))
        return Seen(
            quality=kind.value(answers, self.frame.test) if tested else math.nan,
            worst=min(quality, default=math.nan),
            calibration=kind.calibration(answers, self.frame.test)
            if tested and kind.calibration
            else math.nan,
            known={r: scores[r] if one.patients else math.nan for r, one in self.asked.items()},
            held_out=held_out,
            strangers=patients.strangers(self.frame, phi)[0],
        )

    def all_seen(self) -> dict[str, Seen | None]:
        """What every model of the year's looks shows."""
        names = dict.fromkeys(name for look in self.year.looks for name in _models(look))
        return {name: self.seen(name) for name in names}


def looking(run: Run, year: Year) -> Looking:
    """What a run's year is looked at with.

    Raises:
        RunError: none of its policies was scored.
    """
    frame = run.frame(run.comparisons[0].request)
    return Looking(run, year, frame)


def _models(look: Look) -> tuple[str, ...]:
    return (look.original, look.retrained, *look.strategies.values())

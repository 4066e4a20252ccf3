"""A strip of forgotten images with what each model says of them: pixels of patients, kept only where somebody asks.

One strip per moment: of each of a few patients to forget, one image, with the probability that every model gives its
class and the class it thinks most of. Nobody picks what is seen: that follows from `RULE`. Nothing is asked of anybody
for it: models have answered about all images anyway.

These are pixels of just the patients who asked to be forgotten, in a folder that outlives the run. So it is off unless
``evaluation: {pictures: true}`` asks for it, and whoever passes a run folder on should look whether there is a
``pictures/`` in it. Of volumes with label maps there are `fedunlearn.campaign.slices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax

from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.timeline import Moment
from fedunlearn.core import Select
from fedunlearn.core.kinds import facts
from fedunlearn.results.strip import Strip, packed, png

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST = 8
"""Images of a strip, at most."""

RULE = (
    "Shown is of every patient to forget the image whose loss retraining raises most, in the mean over seeds; patients "
    f"with most of that come first, {MOST} at the most. So these show most of what was remembered; others show less."
)
"""Which images are shown."""

READING = (
    "Bars: the probability that a model gives to the image's class. Below a bar: the class that the model thinks most "
    "of, where that is another."
)
"""How to read it."""

ANSWERS = "pictures/answers.parquet"
COLUMNS = (
    *("request", "image", "patient", "site", "label", "strategy", "seed"),
    *("probability", "top", "top_probability"),
)
"""Of `ANSWERS`: what a model of a strategy says of an image shown, one row per image and model."""


@dataclass(frozen=True)
class View:
    """What the strip of one moment shows.

    Attributes:
        moment: when.
        rows: the images' row numbers, in their order.
        models: by training seed, then by label, "original" and "retrained" first, what models are called.
    """

    moment: Moment
    rows: tuple[int, ...]
    models: Mapping[int, Mapping[str, str]]


def chosen(raised: Floats, forget: Ints, patients: npt.NDArray[Any], most: int = MOST) -> tuple[int, ...]:
    """The rows to show (`RULE`).

    Args:
        raised: (N,) by how much retraining raises each image's loss; what is not a number comes last.
        forget: (k,) the rows of images to forget.
        patients: (N,) whose each image is.
        most: images at the most.
    """
    known = np.nan_to_num(raised[forget], nan=-np.inf)
    ordered = forget[np.lexsort((forget, -known))]
    first = np.unique(patients[ordered].astype(str), return_index=True)[1]
    return tuple(int(row) for row in ordered[np.sort(first)][:most])


class Pictures:
    """The strips of a campaign; none where targets are label maps, or nobody wants any.

    Args:
        campaign: whose models, once it is done.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign, self.stage = campaign, campaign.stage
        self._logs: dict[str, Floats] = {}

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        scenario = self.stage.scenario
        return scenario.evaluation.pictures and facts(scenario.model.kind).pictures

    def write(self) -> None:
        """Draw ``pictures/<moment>.png``, and keep what it was drawn from as NPZ; what all models say is a table."""
        views, run = list(self._views()), self.stage.run
        for view in views:
            strip = self._strip(view)
            run.write_arrays(f"pictures/{view.moment.name}.npz", packed(strip))
            run.write_bytes(f"pictures/{view.moment.name}.png", png(strip))
        if views:
            rows = [row for view in views for row in self._answers(view)]
            run.write_table(ANSWERS, pd.DataFrame(rows, columns=list(COLUMNS)))
        self._logs.clear()

    def summary(self) -> dict[str, Any]:
        """What the manifest says of them."""
        if not self.wanted:
            return {}
        table = self.stage.cohort.table
        shown = [
            {
                "request": view.moment.name,
                "seed": min(view.models, key=self.stage.scenario.seeds.index),
                "files": [f"pictures/{view.moment.name}.{kind}" for kind in ("png", "npz")],
                "images": [str(table["image"].iloc[row]) for row in view.rows],
            }
            for view in self._views()
        ]
        return {"rule": RULE, "pictures": shown}

    # ------------------------------------------------------------------------------------------- pieces

    def _views(self) -> Iterator[View]:
        if not self.wanted:
            return
        found: dict[str, tuple[Moment, dict[int, Mapping[str, str]]]] = {}
        for moment, entry, models in self.campaign.models():
            found.setdefault(moment.name, (moment, {}))[1][entry["seed"]] = models
        for moment, by_seed in found.values():
            yield View(moment, self._rows(moment, tuple(by_seed.values())), by_seed)

    def _rows(self, moment: Moment, models: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        cohort = self.stage.cohort
        select = Select(only=moment.request.id, without=moment.earlier)
        masks = [cohort.mask(site, select) for site in cohort.sites]
        each = np.arange(len(cohort.site)), cohort.targets
        raised = np.mean(
            [self._log(of["original"])[each] - self._log(of["retrained"])[each] for of in models], 0
        )
        forget = np.flatnonzero(np.logical_or.reduce(masks))
        return chosen(raised, forget, cohort.table["patient"].to_numpy())

    def _log(self, model: str) -> Floats:
        """(N, classes) the logarithm of the probability that a model gives to each class of each image."""
        if model not in self._logs:
            signals = self.stage.run.read_table(f"signals/{model}.parquet")
            self._logs[model] = log_softmax(signals.to_numpy(np.float64), axis=1)
        return self._logs[model]

    def _strip(self, view: View) -> Strip:
        cohort, seed = self.stage.cohort, next(s for s in self.stage.scenario.seeds if s in view.models)
        rows, models = np.array(view.rows), view.models[seed]
        said = np.exp([self._log(model)[rows] for model in models.values()])
        about = cohort.table.iloc[rows]
        return Strip(
            f"{view.moment.name}: {cohort.summary(view.moment.request)}; training seed {seed}",
            (RULE, READING, f"Data: {cohort.note}" if cohort.note else ""),
            cohort.names,
            np.asarray(cohort.pixels[rows]),
            cohort.targets[rows],
            tuple(zip(*(about[name].astype(str) for name in ("image", "patient", "site")), strict=True)),
            tuple(models),
            said,
        )

    def _answers(self, view: View) -> Iterator[tuple[Any, ...]]:
        cohort = self.stage.cohort
        for seed, models in view.models.items():
            for strategy, model in models.items():
                said = np.exp(self._log(model)[list(view.rows)])
                for row, own in zip(view.rows, said, strict=True):
                    if np.isfinite(own).all():  # else the model diverged
                        about, top = cohort.table.iloc[row], int(own.argmax())
                        whose = (str(about["image"]), str(about["patient"]), str(about["site"]))
                        label = int(cohort.targets[row])
                        values = float(own[label]), top, float(own[top])
                        yield (view.moment.name, *whose, label, strategy, seed, *values)

"""Pictures of what models make of volumes: at every moment of a run, a few volumes as all models segment them.

One picture per moment, of the first training seed: a volume to forget, one that is retained and one for testing, each
in one slice, with the contours of the original, of the retrained and of every unlearned model beside the labels'
(`fedunlearn.results.drawing`). Nobody picks what is seen: which volumes and slices these are follows from `RULE`. It
costs a pass of three volumes through each model, which the ledger keeps as phase ``slices``, apart from all strategies'
costs.

Of volumes with several channels the first one is shown. Voxels of these slices, and of no others, leave their hospitals
and stay in the run folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.keeping import ValueFile
from fedunlearn.campaign.timeline import Moment
from fedunlearn.core import IGNORED, Procedure, Select, SiteId, Weights
from fedunlearn.core.kinds import facts
from fedunlearn.federation.jobs import Job, Label, Work
from fedunlearn.learning.tasks import Plane, Sections
from fedunlearn.results.drawing import Picture, Row, packed, png
from fedunlearn.scoring.kinds import scored

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

PARTS = {"forget": "To forget", "retain": "Retained", "test": "For testing"}
"""The volumes of a picture, and what they are called in it."""

RULE = (
    "Shown are a volume to forget, a retained one and one for testing: each the middle one when all such volumes of "
    "its hospital are ordered by how much retraining lowers their Dice. The hospital is the request's own or, if it "
    "has none, the next in the scenario's order. The slice is the one with most labelled voxels."
)
"""Which volumes and slices are shown."""

READING = (
    "Solid: the model's classes; dashed: the labels, where they differ. Both are drawn a little inside. Dice: of the "
    "whole volume, in the mean over all classes but the background."
)
"""How to read the pictures."""


@dataclass(frozen=True)
class View:
    """What the picture of one moment is made of.

    Attributes:
        moment: when.
        seed: the training seed.
        models: by column, the names of the models' weights; those that diverged are left out.
        columns: all columns, "original" and "retrained" first.
        planes: by part of `PARTS`, the slice to show; parts without any volume are left out.
    """

    moment: Moment
    seed: int
    models: Mapping[str, str]
    columns: tuple[str, ...]
    planes: Mapping[str, Plane]


# ------------------------------------------------------------------------------------------- what is shown


def chosen(cohort: Cohort, moment: Moment, changes: Floats) -> dict[str, int]:
    """By part, the row number of the volume to show (`RULE`).

    Args:
        cohort: the hospitals.
        moment: what was forgotten.
        changes: (N,) how much retraining lowers each volume's Dice; NaN where that is undefined.
    """
    own = cohort.sites.index(moment.request.site)
    order = (*cohort.sites[own:], *cohort.sites[:own])
    selects = {
        "forget": Select(only=moment.request.id, without=moment.earlier),
        "retain": Select(without=moment.without),
        "test": Select(split="test"),
    }
    found = dict[str, int]()
    for part, select in selects.items():
        sites = [site for site in order if cohort.count(site, select)]
        if sites:
            found[part] = middle(np.flatnonzero(cohort.mask(sites[0], select)), changes)
    return found


def middle(rows: npt.NDArray[np.int64], values: Floats) -> int:
    """That of ``rows`` whose value is in the middle, the lower one of two; without values that are NaN, if others are.

    Args:
        rows: (k,) at least one.
        values: (N,) of all rows; of equal ones, the row of lower number comes first.
    """
    finite = rows[np.isfinite(values[rows])]
    among = finite if len(finite) else rows
    ordered = among[np.lexsort((among, values[among]))]
    return int(ordered[(len(ordered) - 1) // 2])


def plane(row: int, labels: Array) -> Plane:
    """The slice of a volume with most voxels of a class but the background; of equal ones, the most central.

    Args:
        row: the volume's number.
        labels: (D, H, W) its label map.
    """

    def rank(place: tuple[int, int]) -> tuple[int, float]:
        axis, index = place
        return int(counts[axis][index]), -abs(index - (labels.shape[axis] - 1) / 2)

    axes = range(labels.ndim)
    known = (labels > 0) & (labels != IGNORED)
    counts = [known.sum(axis=tuple(other for other in axes if other != axis)) for axis in axes]
    axis, index = max(((axis, index) for axis in axes for index in range(labels.shape[axis])), key=rank)
    return Plane(row, axis, index)


def sections(weights: Weights, planes: Mapping[SiteId, Sequence[Plane]]) -> Procedure[dict[str, Tensor]]:
    """What a model makes of each hospital's ``planes``, by row number."""
    replies = yield {site: Sections(weights, tuple(own)) for site, own in planes.items()}
    return {row: there for reply in replies.values() for row, there in reply.arrays.items()}


# -------------------------------------------------------------------------------------------------- the jobs


class Slices:
    """The pictures of a campaign; none where targets are no label maps, or nobody wants any.

    Args:
        campaign: whose models, once it is done.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign, self.stage = campaign, campaign.stage
        self._views: tuple[View, ...] = ()
        self._predicted: dict[tuple[str, str], Mapping[str, Tensor]] = {}

    def jobs(self) -> list[Job[Any]]:
        """The first model of every moment; the others follow one by one, so that few models are held at once."""
        self._views = tuple(self._seen())
        return [job for view in self._views for job in self._next(view, tuple(view.models))]

    def write(self) -> None:
        """Draw ``slices/<moment>.png`` and keep what it was drawn from as ``slices/<moment>.npz``."""
        for view in self._views:
            picture = self._picture(view)
            self.stage.run.write_arrays(f"slices/{view.moment.name}.npz", packed(picture))
            self.stage.run.write_bytes(f"slices/{view.moment.name}.png", png(picture))

    def summary(self) -> dict[str, Any]:
        """What the manifest says of them: which volumes in which slice, and why these."""
        table = self.stage.cohort.table
        return {
            "rule": RULE,
            "pictures": [
                {
                    "request": view.moment.name,
                    "seed": view.seed,
                    "files": [f"slices/{view.moment.name}.{kind}" for kind in ("png", "npz")],
                    "volumes": [
                        {
                            "part": part,
                            **{name: str(table[name].iloc[p.row]) for name in ("image", "patient", "site")},
                            "axis": p.axis,
                            "index": p.index,
                        }
                        for part, p in view.planes.items()
                    ],
                }
                for view in self._views
            ],
        }

    # ------------------------------------------------------------------------------------------- pieces

    def _seen(self) -> Iterator[View]:
        stage, cohort = self.stage, self.stage.cohort
        if not facts(stage.scenario.model.kind).slices or not stage.scenario.evaluation.slices:
            return
        lost = {entry["model"] for entry in self.campaign.unlearning.diverged()}
        for moment, entry, models in self.campaign.models():
            seed = entry["seed"]
            if seed != stage.scenario.seeds[0]:
                continue
            changes = self._dice(models["original"]) - self._dice(models["retrained"])
            rows = chosen(cohort, moment, changes)
            yield View(
                moment,
                seed,
                {column: model for column, model in models.items() if model not in lost},
                tuple(models),
                {part: plane(row, cohort.targets[row]) for part, row in rows.items()},
            )

    def _next(self, view: View, columns: Sequence[str]) -> list[Job[Any]]:
        if not columns:
            return []
        column, others = columns[0], columns[1:]
        planes: dict[SiteId, list[Plane]] = {}
        for there in view.planes.values():
            planes.setdefault(str(self.stage.cohort.site[there.row]), []).append(there)

        def then(found: Mapping[str, Tensor]) -> list[Job[Any]]:
            self._predicted[view.moment.name, column] = found
            return self._next(view, others)

        weights = self.stage.run.read_weights(view.models[column])
        label = Label("slices", view.moment.name, column, view.seed)
        shown = {site: [[p.row, p.axis, p.index] for p in own] for site, own in planes.items()}
        origin = self.stage.origins.probe("slices", weights, weights, {}, {"planes": shown})
        keeping = ValueFile(f"work/slices/{view.moment.name}-{column}.safetensors")
        return [Job(label, sections(weights, planes), then, work=Work(keeping, origin))]

    def _dice(self, model: str) -> Floats:
        signals = self.stage.run.read_table(f"signals/{model}.parquet")
        each = scored(self.stage.scenario.model.kind).each
        assert each is not None, "a kind that is shown in slices tells each volume's quality"
        return each(signals, self.stage.cohort.classes)

    def _picture(self, view: View) -> Picture:
        cohort, request = self.stage.cohort, view.moment.request
        dice = {column: self._dice(model) for column, model in view.models.items()}
        return Picture(
            f"{view.moment.name}: {cohort.summary(request)}; training seed {view.seed}",
            (RULE, READING, f"Data: {cohort.note}" if cohort.note else ""),
            cohort.classes,
            view.columns[:2],
            view.columns[2:],
            tuple(self._row(view, part, there, dice) for part, there in view.planes.items()),
            cohort.names,
        )

    def _row(self, view: View, part: str, there: Plane, dice: Mapping[str, Floats]) -> Row:
        cohort, row = self.stage.cohort, there.row
        about = cohort.table.iloc[row]
        labels = np.take(cohort.targets[row], there.index, there.axis)
        return Row(
            (
                PARTS[part],
                str(about["image"]),
                f"of {about['site']}",
                f"axis {there.axis}, slice {there.index}",
            ),
            np.take(cohort.pixels[row, 0], there.index, there.axis),
            labels,
            {
                column: self._predicted[view.moment.name, column][str(row)].numpy().astype(labels.dtype)
                for column in view.models
            },
            {column: float(values[row]) for column, values in dice.items()},
        )

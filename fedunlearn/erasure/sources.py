"""What records of a run are made of, read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedunlearn import scenario as scenarios
from fedunlearn.erasure import lineage
from fedunlearn.exports.kept import Model, kept
from fedunlearn.exports.papers import tidy
from fedunlearn.exports.settings import Settings, settings
from fedunlearn.intake.desk import ALL
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario import Scenario

CALENDAR = "calendar.parquet"


@dataclass(frozen=True)
class Sources:
    """Of a run.

    Attributes:
        run: the folder.
        manifest: its manifest.
        scenario: what was run, and as it was written.
        images: one row per image that it still knows.
        table: `exports.papers.tidy`.
        models: all that there are, and then those that were purged, with the sha256 of their files.
        purged: names of the latter.
    """

    run: RunFolder
    manifest: Mapping[str, Any]
    scenario: Scenario
    written: Settings
    images: pd.DataFrame
    table: pd.DataFrame
    models: Mapping[Model, str | None]
    purged: frozenset[str]

    @classmethod
    def of(cls, run: RunFolder) -> Sources:
        """Read them.

        Raises:
            InputError: the run was judged by an older version.
            RunError: a file is missing or damaged.
        """
        manifest = run.read_manifest()
        scenario = scenarios.read(run.path / "scenario.yaml")
        images, gone = run.read_table("sites.parquet"), lineage.gone(manifest)
        models = {**lineage.digests(manifest, kept(manifest)), **gone}
        names = frozenset(model.name for model in gone)
        return cls(run, manifest, scenario, settings(run), images, tidy(run), models, names)

    def about(self, request: str) -> list[Model]:
        """The models that were made for a request."""
        return [
            model
            for model in self.models
            if model.request == request or (model.request == ALL and request in model.earlier)
        ]

    def entry(self, request: str) -> Mapping[str, Any]:
        """What became of a request at the desk of a calendar; nothing without one."""
        return next((one for one in self.manifest.get("docket", ()) if one["id"] == request), {})

    def answers(self, request: str) -> list[dict[str, Any]]:
        """In a calendar, when each policy answered a request."""
        if not self.entry(request) or CALENDAR not in self.manifest["sha256"]:
            return []
        table = self.run.read_table(CALENDAR)
        own = table[table["request"] == request]
        return [
            {
                "policy": str(row["policy"]),
                "state": str(row["state"]),
                "answered": None if pd.isna(row["answered"]) else str(row["answered"])[:10],
                "days": None if pd.isna(row["days"]) else int(row["days"]),
                "days_late": None if pd.isna(row["late"]) else int(row["late"]),
            }
            for row in own.to_dict("records")
        ]

    def remedies(self) -> dict[str, list[str]]:
        """By request, what it can have been answered with."""
        return {
            one.id: list(dict.fromkeys(model.strategy for model in self.about(one.id)))
            for one in self.scenario.requests
        }

    def asked(self, request: str) -> pd.DataFrame:
        """The images that a request is about, whatever they are used for; not those that were purged."""
        return named(self.images, request)

    def counts(self, request: str) -> tuple[int, dict[str, dict[str, int]]]:
        """How many patients a request is about, and by hospital and use how many images; before any purge."""
        found = self.manifest.get("asked", {}).get(request) or counts(self.images, request)
        return int(found["patients"]), found["images"]


def named(images: pd.DataFrame, request: str) -> pd.DataFrame:
    """Those of the images that a request is about."""
    return images[[request in names for names in images["forgotten_by"]]]


def counts(images: pd.DataFrame, request: str) -> dict[str, Any]:
    """How many ``patients`` a request is about, and ``images`` by hospital and use."""
    own = named(images, request)
    return {"patients": int(own["patient"].nunique()), "images": counted(own)}


def counted(images: pd.DataFrame) -> dict[str, dict[str, int]]:
    """By hospital and use, how many images."""
    each: Mapping[Any, int] = Counter(
        zip(images["site"].astype(str), images["split"].astype(str), strict=True)
    )
    return {
        site: {split: n for (at, split), n in sorted(each.items()) if at == site}
        for site in sorted({site for site, _ in each})
    }


def total(images: Mapping[str, Mapping[str, int]]) -> int:
    """How many images there are in `counted`."""
    return sum(sum(splits.values()) for splits in images.values())

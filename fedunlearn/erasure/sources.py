"""What records of a run are made of, read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import pandas as pd

from fedunlearn import scenario as scenarios
from fedunlearn.erasure import lineage
from fedunlearn.erasure.years import Year
from fedunlearn.exports.kept import Model, kept
from fedunlearn.exports.papers import tidy
from fedunlearn.exports.settings import Settings, settings
from fedunlearn.results.contents import OF_PATIENTS
from fedunlearn.results.purged import RETRAINED, purges
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario import Scenario


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
        year: of a run with a calendar, what it says of its requests.
    """

    run: RunFolder
    manifest: Mapping[str, Any]
    scenario: Scenario
    written: Settings
    images: pd.DataFrame
    table: pd.DataFrame
    models: Mapping[Model, str | None]
    purged: frozenset[str]
    year: Year | None = None

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
        year = Year.of(run, manifest, scenario.retention.models)
        return cls(run, manifest, scenario, settings(run), images, tidy(run), models, names, year)

    def about(self, request: str) -> list[Model]:
        """The models that were made for a request."""
        return [model for model in self.models if model.request == request]

    def remedies(self) -> dict[str, list[str]]:
        """By request, what it can have been answered with; with a calendar ``POLICY/STRATEGY``."""
        if self.year is not None:
            tried = [f"{m.policy}/{m.strategy}" for m in self.models if m.policy]
            return {id: list(dict.fromkeys([*tried, RETRAINED])) for id in self.year.docket}
        return {
            one.id: list(dict.fromkeys(model.strategy for model in self.about(one.id)))
            for one in self.scenario.requests
        }

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """By request, the numbers of the images that it is about."""
        found = dict[str, list[int]]()
        for row, names in enumerate(self.images["forgotten_by"]):
            for name in names:
                found.setdefault(str(name), []).append(row)
        return found

    @cached_property
    def rows(self) -> dict[tuple[str, str], dict[Any, Any]]:
        """By moment and strategy, the row of `table`."""
        return {(str(one["request"]), str(one["strategy"])): one for one in self.table.to_dict("records")}

    @cached_property
    def places(self) -> Counter[str]:
        """By pattern of files with rows, ids or pixels of patients, how many there are."""
        names = ["manifest.json", *self.manifest["sha256"]]
        return Counter(next((one for one in OF_PATIENTS if fnmatchcase(name, one)), "") for name in names)

    def trained(self, request: str) -> bool:
        """Whether an image of it was in any training."""
        images = self.counts(request)[1].values()
        return self.year is None or any({"train", "proxy"} & splits.keys() for splits in images)

    def counts(self, request: str) -> tuple[int, dict[str, dict[str, int]]]:
        """How many patients a request is about, and by hospital and use how many images; before any purge."""
        if (found := self.manifest.get("asked", {}).get(request)) is not None:
            return int(found["patients"]), found["images"]
        rows = self._rows.get(request, [])
        site, split, patient = self._columns
        each: Mapping[tuple[str, str], int] = Counter((site[row], split[row]) for row in rows)
        return len({patient[row] for row in rows}), _by_site(each)

    def purges(self, request: str) -> list[Mapping[str, Any]]:
        """The purges that removed its images: those of it, or all where they went with those of other requests."""
        there = request in self._rows or not self.counts(request)[0]
        return purges(self.manifest, request) or ([] if there else purges(self.manifest))

    def patients(self, request: str) -> dict[str, list[str]]:
        """By hospital, whom a request is about; not those who were purged."""
        site, _, patient = self._columns
        found = dict[str, set[str]]()
        for row in self._rows.get(request, []):
            found.setdefault(site[row], set()).add(patient[row])
        return {name: sorted(found[name]) for name in sorted(found)}

    @cached_property
    def sites(self) -> list[str]:
        """The hospitals that have images."""
        return list(dict.fromkeys(self._columns[0]))

    @cached_property
    def _columns(self) -> tuple[list[str], list[str], list[str]]:
        """Of every image hospital, use and patient."""
        site, split, patient = (
            self.images[name].astype(str).tolist() for name in ("site", "split", "patient")
        )
        return site, split, patient


def named(images: pd.DataFrame, request: str) -> pd.DataFrame:
    """Those of the images that a request is about."""
    return images[[request in names for names in images["forgotten_by"]]]


def counts(images: pd.DataFrame, request: str) -> dict[str, Any]:
    """How many ``patients`` a request is about, and ``images`` by hospital and use."""
    own = named(images, request)
    return {"patients": int(own["patient"].nunique()), "images": counted(own)}


def counted(images: pd.DataFrame) -> dict[str, dict[str, int]]:
    """By hospital and use, how many images."""
    return _by_site(Counter(zip(images["site"].astype(str), images["split"].astype(str), strict=True)))


def _by_site(each: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    return {
        site: {split: n for (at, split), n in sorted(each.items()) if at == site}
        for site in sorted({site for site, _ in each})
    }


def total(images: Mapping[str, Mapping[str, int]]) -> int:
    """How many images there are in `counted`."""
    return sum(sum(splits.values()) for splits in images.values())

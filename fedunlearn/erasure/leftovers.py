"""What the images of some requests left in a finished run: which of its files go, and which are changed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn import files
from fedunlearn.core import InputError
from fedunlearn.erasure import lineage, rewriting
from fedunlearn.erasure.rewriting import Names
from fedunlearn.exports.kept import Model, kept
from fedunlearn.results.contents import FILES
from fedunlearn.results.purged import RETRAINED
from fedunlearn.results.runfolder import RunFolder, parquet

OF_MODELS = ("weights", "signals", "copies", "curves", "difficulty")
"""Folders whose files are called after a model, which they are about."""
SHOWN = ("pictures", "slices")
MEMBERS = "shadows/members.parquet"
MEMORY = "memory.parquet"


@dataclass(frozen=True)
class Leftovers:
    """Of some requests, in a run.

    Attributes:
        run: its folder.
        manifest: of it.
        images: a row for every image that it still knows.
        requests: their ids.
        keep: the remedy whose models stay; with a calendar those of its policy's end.
        labels: by id of a patient or image, what stands there instead.
    """

    run: RunFolder
    manifest: Mapping[str, Any]
    images: pd.DataFrame
    requests: tuple[str, ...]
    keep: str
    labels: Mapping[str, str]

    @cached_property
    def gone(self) -> npt.NDArray[np.bool_]:
        """(N,) which images go."""
        wanted = set(self.requests)
        found = [not wanted.isdisjoint(names) for names in self.images["forgotten_by"]]
        return np.array(found, bool)

    @cached_property
    def names(self) -> Names:
        """What is to be named no more."""
        own = self.images[self.gone]
        images, asked = frozenset(map(str, own["image"])), frozenset(map(str, own["patient"]))
        known = whole(self.images, self.gone) | images
        return Names(images, asked, {name: label for name, label in self.labels.items() if name in known})

    @cached_property
    def models(self) -> dict[Model, str | None]:
        """All models that are there, with their sha256."""
        return lineage.digests(self.manifest, kept(self.manifest))

    @cached_property
    def going(self) -> dict[Model, str | None]:
        """The models that go: of each some request's data was in it, and it is not of the remedy that stays."""
        everything = {**lineage.gone(self.manifest), **self.models}
        saw = {request: lineage.saw(everything, request) for request in self.requests}
        return {
            model: digest
            for model, digest in self.models.items()
            if any(model in saw[request] and not self._stays(model, request) for request in self.requests)
        }

    def _stays(self, model: Model, request: str) -> bool:
        on_the_way = model.policy and model.moment != model.policy
        used = self.keep != RETRAINED and _remedy(model) == self.keep and not on_the_way
        return used and lineage.asked(model, request)

    @cached_property
    def removed(self) -> tuple[str, ...]:
        """The files that go, in order."""
        known = list(self.manifest["sha256"])
        own = {name for name in known if self._goes(name)}
        told = {f"origins/{name}.json" for name in (*own, *self.changed)}
        return tuple(sorted(own | {name for name in known if name in told}))

    @cached_property
    def changed(self) -> dict[str, bytes]:
        """The tables that are changed, with what they come to."""
        found = dict[str, bytes]()
        for name, known in self.manifest["sha256"].items():
            if name.endswith(".parquet") and not self._goes(name):
                before = pd.read_parquet(io.BytesIO(files.checked(self.run.path / name, known)))
                after = self._table(name, before)
                if after.shape != before.shape or not after.equals(before):
                    found[name] = parquet(after)
        return found

    def _table(self, name: str, before: pd.DataFrame) -> pd.DataFrame:
        after = rewriting.table(name, before, self.gone, self.names)
        if name == MEMORY:
            return after[~after["request"].astype(str).isin(self._over)].reset_index(drop=True)
        return after.drop(columns=list(self._shadows)) if name == MEMBERS else after

    @cached_property
    def _over(self) -> set[str]:
        """The requests that are purged, and those of whose images none stays."""
        lists = self.images["forgotten_by"]
        named, stays = (
            {str(name) for names in lists[rows] for name in names} for rows in (self.gone, ~self.gone)
        )
        return {*self.requests, *(named - stays)}

    def _goes(self, name: str) -> bool:
        """Whether a file goes as a whole."""
        path = PurePosixPath(name)
        match path.parts:
            case (folder, _) if folder in OF_MODELS:
                return path.stem not in self._staying
            case ("probes", probe, moment, _):
                model = self._probed.get((moment, path.stem))
                return model not in self._staying or (probe == "relearn" and moment in self._moments)
            case ("shadows", _):
                return path.stem in self._shadows or (name == MEMBERS and self._all_shadows)
            case (folder, _) if folder in SHOWN:
                return name in self._showing
        return False

    @cached_property
    def _staying(self) -> set[str]:
        return {model.name for model in self.models if model not in self.going}

    @cached_property
    def _moments(self) -> set[str]:
        """The moments at which some of the requests is forgotten."""
        wanted = set(self.requests)
        return {
            m["id"]
            for m in self.manifest["moments"]
            if not wanted.isdisjoint((m["forgets"], *m.get("earlier", ())))
        }

    @cached_property
    def _probed(self) -> dict[tuple[str, str], str]:
        """By moment and what a probe's file is called, the model that was probed."""
        return {
            (entry["request"], f"{label}-{entry['seed']}"): model
            for entry in self.manifest["scored"]
            for label, model in {
                "original": entry["original"],
                "retrained": entry["retrained"],
                **entry["strategies"],
            }.items()
        }

    @cached_property
    def _members(self) -> pd.DataFrame:
        return self.run.read_table(MEMBERS) if MEMBERS in self.manifest["sha256"] else pd.DataFrame()

    @cached_property
    def _shadows(self) -> tuple[str, ...]:
        """The shadow models that were trained on some image that goes."""
        return tuple(
            str(name) for name in self._members if self._members[name].to_numpy(bool)[self.gone].any()
        )

    @property
    def _all_shadows(self) -> bool:
        return len(self._shadows) == self._members.shape[1]

    @property
    def clean_shadows(self) -> Iterator[bytes]:
        """Of each shadow model that stays, who was in its training, as `campaign.shadows` tells it to its cache."""
        for name in self._members:
            if str(name) not in self._shadows:
                yield self._members[name].to_numpy(bool).tobytes()

    @cached_property
    def _showing(self) -> set[str]:
        """The files of pictures that show an image that goes."""
        found = set[str]()
        for kind in SHOWN:
            for one in self.manifest.get(kind, {}).get("pictures", ()):
                shown = {*one.get("images", ()), *(volume["image"] for volume in one.get("volumes", ()))}
                if shown & self.names.images:
                    found |= set(one["files"])
        return found

    def places(self, contents: Mapping[str, bytes]) -> dict[str, dict[str, int]]:
        """By pattern of `contents.FILES`, how many files go and how many of ``contents`` are changed."""
        removed, changed = Counter(map(_pattern, self.removed)), Counter(map(_pattern, contents))
        return {
            pattern: {"removed": removed[pattern], "changed": changed[pattern]}
            for pattern in sorted({*removed, *changed})
        }


def _pattern(name: str) -> str:
    return next((pattern for pattern in FILES if fnmatchcase(name, pattern)), name)


def whole(images: pd.DataFrame, gone: npt.NDArray[np.bool_]) -> set[str]:
    """The patients of whom no image stays, at any hospital."""
    patients = images["patient"].astype(str)
    return set(patients[gone]) - set(patients[~gone])


def _remedy(model: Model) -> str:
    """What a model is a remedy by, as records write it: its strategy, with a calendar ``POLICY/STRATEGY``."""
    return f"{model.policy}/{model.strategy}" if model.policy else model.strategy


def erasures(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The requests of a run that ask for something to be forgotten; in a calendar those that were accepted."""
    others = {
        one["id"]
        for one in manifest.get("docket", ())
        if one["state"] != "accepted" or one["kind"] == "opt_out"
    }
    return tuple(str(one["id"]) for one in manifest["requests"] if one["id"] not in others)


def require(manifest: Mapping[str, Any], requests: Sequence[str], keep: str) -> None:
    """Make sure that a run has these requests, and models of the remedy.

    Raises:
        InputError: it has not.
    """
    known = erasures(manifest)
    for one in manifest.get("docket", ()):
        if one["id"] in requests and one["id"] not in known:
            why = "an opt-out, which bars later use" if one["kind"] == "opt_out" else one["state"]
            raise InputError(f"request {one['id']!r} is {why}: nothing is to be purged for it")
    if unknown := [name for name in requests if name not in known]:
        raise InputError(
            f"the run has no request {', '.join(map(repr, unknown))}, expected one of {', '.join(known)}"
        )
    remedies = list(dict.fromkeys(_remedy(model) for model in kept(manifest) if model.role == "strategy"))
    if keep not in (RETRAINED, *remedies):
        raise InputError(
            f"the run has no models of {keep!r} to keep, expected one of {', '.join((RETRAINED, *remedies))}"
        )

"""Rows and ids of what is purged, taken out of tables, texts and the manifest that stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.erasure.tombstones import is_weak
from fedunlearn.scenario import Request, Scenario

BY_ROW = ("signals/", "shadows/", "probes/")
"""Folders of tables whose rows stand for images without naming them."""
_CALLED = r"(?:(?<=\()|(?<=, )|(?<=of )|(?<=and ))"
_THEN = r"(?= -?[\d?]+ %| at )"


@dataclass(frozen=True)
class Names:
    """What is to be named no more.

    Attributes:
        images: ids of images that go.
        asked: ids of patients of whom some image goes.
        labels: by id of a patient or image of whom nothing stays, what stands there instead.
    """

    images: frozenset[str]
    asked: frozenset[str]
    labels: Mapping[str, str]

    def taken_out(self, text: str) -> str:
        """A text without ids. What could be another number is an id only where sentences name patients."""
        found = text
        for pattern in self._patterns:
            found = pattern.sub(lambda match: self.labels[match[0]], found)
        return found

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        strong = sorted((name for name in self.labels if not is_weak(name)), key=len, reverse=True)
        weak = sorted((name for name in self.labels if is_weak(name)), key=len, reverse=True)
        made = []
        if strong:
            made.append(re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, strong))})(?![\w-])"))
        if weak:
            made.append(re.compile(rf"{_CALLED}(?:{'|'.join(map(re.escape, weak))}){_THEN}"))
        return made


def table(name: str, whole: pd.DataFrame, gone: npt.NDArray[np.bool_], names: Names) -> pd.DataFrame:
    """A table without rows of the images and patients that go, and without their ids.

    Args:
        name: its file.
        whole: as it is.
        gone: (N,) which images go, in the order of ``sites.parquet``.
        names: what is to be named no more.
    """
    if "image" in whole.columns:
        left = whole[~whole["image"].astype(str).isin(names.images)]
    elif "patient" in whole.columns:
        left = whole[~whole["patient"].astype(str).isin(names.asked)]
    elif name.startswith(BY_ROW) and len(whole) == len(gone):
        left = whole[~gone]
    else:
        left = whole
    own = {
        column: _texts(left[column], names.taken_out) for column in left.columns if _has_texts(left[column])
    }
    return left.assign(**own).reset_index(drop=True)


def _has_texts(column: pd.Series[Any]) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _texts(column: pd.Series[Any], taken_out: Callable[[str], str]) -> pd.Series[Any]:
    """A column in which every text is without ids; what needs no change is the same object."""
    known = dict[str, str]()

    def one(value: Any) -> Any:
        if isinstance(value, str):
            if value not in known:
                known[value] = taken_out(value)
            return known[value]
        if isinstance(value, np.ndarray | list) and len(value) and isinstance(value[0], str):
            texts = [one(text) for text in value]
            return value if texts == list(value) else texts
        return value

    changed = [one(value) for value in column]
    same = all(
        new is old or (isinstance(old, str) and new == old) for new, old in zip(changed, column, strict=True)
    )
    return column if same else pd.Series(changed, column.index, dtype=column.dtype)


def scenario(
    whole: Scenario,
    requests: Collection[str],
    named: Callable[[Request, str], str],
    labels: Mapping[str, str],
) -> list[Request]:
    """The requests of a scenario, in which those that are purged name nobody, and the others nobody who was purged.

    Args:
        whole: the scenario.
        requests: those that are purged.
        named: gives the label of an id in a request.
        labels: by id of a patient or image of whom nothing stays, what stands there instead.
    """

    def unnamed(request: Request) -> Request:
        def called(name: str) -> str:
            return named(request, name) if request.id in requests else labels.get(name, name)

        patients, images = request.patients, request.images
        if isinstance(patients, tuple):
            patients = tuple(map(called, patients))
        if images is not None:
            images = tuple(map(called, images))
        return replace(request, patients=patients, images=images)

    return [unnamed(request) for request in whole.requests]


def entries(manifest: Mapping[str, Any], names: Names, removed: Collection[str]) -> dict[str, Any]:
    """The entries of a manifest that name images or show them, without those that go.

    Args:
        manifest: as it is.
        names: what is to be named no more.
        removed: files that go.
    """
    data = {
        **manifest["data"],
        "notes": [names.taken_out(text) for text in manifest["data"].get("notes", ())],
    }
    data["duplicates"] = [left for one in data.get("duplicates", ()) if len(left := _left(one, names)) > 1]
    data["twins"] = [
        {**one, "images": left}
        for one in data.get("twins", ())
        if len(left := _left(one["images"], names)) > 1
    ]
    found = {
        "data": data,
        "moments": [
            {**one, "warnings": [names.taken_out(text) for text in one.get("warnings", ())]}
            for one in manifest["moments"]
        ],
    }
    if "docket" in manifest:
        found["docket"] = [
            {**one, "sentence": names.taken_out(one["sentence"])} for one in manifest["docket"]
        ]
    for kind in ("pictures", "slices"):
        if shown := manifest.get(kind, {}).get("pictures"):
            left = [one for one in shown if removed is None or not set(one["files"]) & set(removed)]
            found[kind] = {**manifest[kind], "pictures": left}
    return found


def _left(images: Collection[str], names: Names) -> list[str]:
    return [image for image in images if image not in names.images]

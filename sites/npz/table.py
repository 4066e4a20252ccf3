"""The columns of an `.npz` file: ids as text, and whatever else it tells of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import Problem
from sites import sexes
from sites.identity import damaged, is_missing, listed, quoted, settled, tidied
from sites.labels import missing
from sites.npz.headers import tells_people
from sites.npz.values import native
from sites.rows import Fault, grouped

Array = npt.NDArray[Any]

_IDS = ("patient", "image", "site")


def table_of(
    columns: Mapping[str, Array], count: int, file: Path, notes: list[str]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Ids as text, other columns as they are, several numbers per image as text such as 31x40x24; and what is wrong."""
    plain, problems = dict[str, Any](), list[Problem]()
    for name, values in columns.items():
        if name in _IDS and values.dtype.kind == "f":
            plain[name] = [f"{value:g}" for value in values.reshape(-1)]
            problems.append(Problem(f"npz: {file}: {_decimal(name, values)}"))
        elif name in _IDS:
            plain[name] = as_text(values)
        else:
            plain[name] = [tidied(t) for t in as_text(values)] if values.dtype.kind in "US" else _flat(values)
    for name in ("patient", "site"):
        if name in plain:
            ids = settled(name, plain[name])
            plain[name], notes[:] = list(ids.ids), [*notes, *ids.notes]
    plain["image"] = [tidied(text) for text in plain["image"]]
    problems += [] if problems else _wrong_ids(plain, file)
    if "patient" not in plain:
        notes += _perhaps_people(list(plain))
        plain["patient"] = plain["image"]
    if "sex" in plain:
        notes += sexes.notes(list(map(str, plain["sex"])), plain["patient"])
    order = ["image", "patient", *(name for name in plain if name not in ("image", "patient"))]
    return pd.DataFrame({name: plain[name] for name in order}, index=range(count)), problems


def _flat(values: Array) -> Array:
    if values.ndim < 2:
        return values.astype(native(values.dtype))
    return np.array(["x".join(map(str, row.reshape(-1).tolist())) for row in values])


def as_text(values: Array) -> list[str]:
    """(N,) texts; bytes are UTF-8."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", errors="replace")
    return [str(value) for value in (_flat(values) if values.ndim > 1 else values).tolist()]


def _decimal(name: str, values: Array) -> str:
    if lost := int(np.isnan(values).sum()):
        return f"{name} ids are decimal numbers, and {lost:,} of them are missing (NaN): fill them in, and save text"
    return (
        f"{name} ids are decimal numbers, expected integers or text: save them as text, such as "
        "ids.astype(int).astype(str)"
    )


def _wrong_ids(columns: Mapping[str, list[str]], file: Path) -> list[Problem]:
    """Ids that are missing, and image ids that are there twice."""
    faults = list[Fault]()
    for name in _IDS:
        for row, text in enumerate(columns.get(name, [])):
            where = f"npz: {file}: {name} of image {columns['image'][row]!r} (entry {row})"
            if is_missing(text):
                faults.append(Fault(Problem(f"{where}: {missing(name, text)}"), f"npz: {name} ids: missing"))
            elif wrong := damaged(text):
                message = f"{where}: found {quoted(text)}, {wrong[1]}"
                faults.append(Fault(Problem(message), f"npz: {name} ids: {wrong[0]}"))
    first = dict[str, int]()
    for row, text in enumerate(columns["image"]):
        if first.setdefault(text, row) != row:
            where = f"entries {first[text]} and {row}"
            message = f"found the image id {text!r} more than once ({where}), expected unique names"
            faults.append(Fault(Problem(f"npz: {file}: {message}"), "npz: image ids: more than once"))
    return grouped(faults)


def _perhaps_people(names: Sequence[str]) -> list[str]:
    if people := [name for name in names if tells_people(name)]:
        return [
            f"column {listed(people)} may tell patients, but each image counts as one: call it patient_id if it does"
        ]
    return []

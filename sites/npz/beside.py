"""A table beside an `.npz` file: what it tells of the images, found by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import InputError, Problem
from sites.folder.columns import Needed
from sites.folder.tables import read_table
from sites.identity import listed, quoted, tidied
from sites.npz.headers import COLUMN
from sites.rows import Fault, Row, grouped

Array = npt.NDArray[Any]

_NEEDED = Needed(("image",), labels=False)


def beside(
    file: Path, images: Sequence[str], known: Mapping[str, Array], notes: list[str]
) -> dict[str, Array]:
    """The columns of a CSV or Parquet file that the images have not yet, each as (N,) texts.

    Args:
        file: the table, with a column ``image``.
        images: (N,) ids, in their order.
        known: the columns that the images have; they stay.
        notes: what was left out is added.

    Raises:
        InputError: there is no such table, it lacks an image, or has one twice; all problems together.
    """
    if not file.is_file():
        raise InputError(
            f"npz: found no file {file}, expected a CSV or Parquet file with the column image: put it there, or leave "
            "table out"
        )
    table = read_table(file, _NEEDED)
    rows, faults = dict[str, Row](), list[Fault]()
    for row in table.rows:
        image = tidied(row.cells["image"])
        if (first := rows.setdefault(image, row)) is not row:
            message = f"found {quoted(image)} again (first in {first.place}), expected a row for each image: remove one"
            faults.append(row.fault("again", "image", message))
    ids = [tidied(image) for image in images]
    problems = grouped(faults)
    if lost := [image for image in ids if image not in rows]:
        message = f"has no row for {len(lost):,} of {len(ids):,} images, such as {listed(lost)}: add them"
        problems.append(Problem(message, str(file)))
    if problems:
        raise InputError(problems)
    names = {name: COLUMN.get(name, name) for name in table.rows[0].cells if name != "image"}
    own = sorted(name for name, column in names.items() if column in known)
    notes += table.notes
    if own:
        notes.append(f"{file.name}: {listed(own, 10)} are read from the NumPy file, which has them too")
    if more := len(rows.keys() - set(ids)):
        notes.append(f"{file.name}: {more:,} rows are of no image here and are left out")
    return {
        column: np.array([rows[image].cells[name] for image in ids])
        for name, column in names.items()
        if column not in known
    }

"""Tables in CSV or Parquet: every cell as text and known by its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fedunlearn.core import InputError, Problem
from sites.folder.columns import Needed, header_of, require
from sites.folder.csv_tables import read_csv
from sites.folder.encodings import PARQUET
from sites.formats import sizes
from sites.rows import Row, Table


def read_table(file: Path, needed: Needed) -> Table:
    """All rows of a CSV or Parquet file; what it is is told by its content.

    Args:
        file: the file.
        needed: the columns that it must have.

    Raises:
        InputError: it is none of the two, or has columns twice or rows of another length; all problems together.
    """
    with file.open("rb") as opened:
        start = opened.read(len(PARQUET))
    if start == PARQUET or file.suffix == ".parquet":
        return _parquet(file, needed)
    return read_csv(file, needed)


def _parquet(file: Path, needed: Needed) -> Table:
    from pyarrow.lib import ArrowException  # here, since it takes a while

    try:
        size, texts = sizes.rows(file)
        if message := sizes.too_large(size):
            raise InputError([Problem(f"is too large: it {message}", str(file))])
        table = pd.read_parquet(file, engine="pyarrow", read_dictionary=texts)
    except (
        OSError,
        ValueError,
        LookupError,
        ArrowException,
    ) as error:  # what pyarrow raises for damaged files
        raise InputError([Problem(f"is no Parquet file ({error}): save it as one", str(file))]) from error
    if any(name is not None for name in table.index.names):
        table = table.reset_index()  # pandas keeps columns that it was told are the index
    header, notes = header_of([str(name) for name in table.columns])
    require(file, header, needed)
    for column in {"patient", "site", "image"} & set(header):
        if table.iloc[:, header.index(column)].dtype.kind == "f":
            message = (
                f"{column} ids are decimal numbers, expected text or integers: save them as text (7, not 7.0)"
            )
            raise InputError([Problem(message, str(file))])
    cells = [_cells(table.iloc[:, place]) for place in range(len(header))]
    rows = (
        Row({name: cell for name, cell in zip(header, row, strict=True) if name}, str(file), number, {})
        for number, row in enumerate(zip(*cells, strict=True), start=1)
    )
    return Table(tuple(rows), tuple(notes))


def _cells(column: pd.Series) -> list[str]:
    """The texts of a column, empty where one is missing; a text that many rows have is there once."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        texts = [*map(_text, column.cat.categories), ""]
        return [texts[code] for code in column.cat.codes]  # -1 where one is missing
    return ["" if missing else _text(value) for value, missing in zip(column, column.isna(), strict=True)]


def _text(value: object) -> str:
    if isinstance(value, np.ndarray | list):  # Parquet knows lists
        return "|".join(map(_text, value))
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)

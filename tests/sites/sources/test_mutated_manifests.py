"""200 manifests, each changed in a way whose truth is known: equal to the truth, refused, or named by a note.

Nothing else may happen: no traceback, and no label, patient or hospital that silently became another.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core import InputError
from sites.sources.manifest import Manifest, checked, read_manifest
from sites.sources.npz import Npz
from sites.sources.paths import Inside

Cells = list[list[str]]
Rng = np.random.Generator

COLUMNS = ["file", "label", "patient", "site"]
SITES = ("North", "South")
TRUTH = [
    [
        f"i{site}{person}{n}.png",
        "benign" if n % 2 else "malignant",
        f"Zoë {site}-{person:02d}",
        ["North", "South"][site],
    ]
    for site in (0, 1)
    for person in range(1, 7)
    for n in range(3)
]
MISSING = ["", " ", "NA", "n/a", "nan", "NaN", "-nan", "None", "NULL", "null", "<NA>", "#N/A", "NaT"]


def one(column: str, change: Callable[[str, Rng], str]) -> Callable[[Cells, Rng], str | bytes]:
    """A change of one cell."""

    def mutate(cells: Cells, rng: Rng) -> str:
        row = int(rng.integers(1, len(cells)))
        place = cells[0].index(column)
        cells[row][place] = change(cells[row][place], rng)
        return text(cells)

    return mutate


def all_of(change: Callable[[str], str | bytes]) -> Callable[[Cells, Rng], str | bytes]:
    """A change of the whole text."""
    return lambda cells, rng: change(text(cells))


def text(cells: Cells, separator: str = ",") -> str:
    return "".join(separator.join(row) + "\n" for row in cells)


def typo(word: str, rng: Rng) -> str:
    place = int(rng.integers(1, len(word) - 1))
    return word[:place] + word[place + 1 :]


def doubled(cells: Cells, rng: Rng, patient: str | None = None) -> str:
    row = [*cells[int(rng.integers(1, len(cells)))]]
    row[2] = patient or row[2]
    cells.insert(int(rng.integers(1, len(cells))), row)
    return text(cells)


def lost_cell(cells: Cells, rng: Rng) -> str:
    cells[int(rng.integers(1, len(cells)))].pop(int(rng.integers(4)))
    return text(cells)


def extra_cell(cells: Cells, rng: Rng) -> str:
    row = cells[int(rng.integers(1, len(cells)))]
    row.insert(int(rng.integers(4)), str(rng.choice(["", "x"])))
    return text(cells)


def lost_column(cells: Cells, rng: Rng) -> str:
    place = int(rng.integers(3))
    return text([[cell for n, cell in enumerate(row) if n != place] for row in cells])


def moved_columns(cells: Cells, rng: Rng) -> str:
    order = rng.permutation(4)
    return text([[row[place] for place in order] for row in cells])


def twice_a_column(cells: Cells, rng: Rng) -> str:
    place = int(rng.integers(4))
    return text([[*row, row[place]] for row in cells])


def lost_row(cells: Cells, rng: Rng) -> str:
    cells.pop(int(rng.integers(1, len(cells))))
    return text(cells)


def cut_off(cells: Cells, rng: Rng) -> str:
    """Not in a row's last cell, where nobody could tell."""
    row = int(rng.integers(1, len(cells)))
    kept = ",".join(cells[row][:3])
    return text(cells[:row]) + kept[: int(rng.integers(len(kept)))]


def stray_quote(cells: Cells, rng: Rng) -> str:
    whole = text(cells)
    start = len(text(cells[:1]))
    for place in sorted(rng.integers(start, len(whole), int(rng.integers(1, 4))), reverse=True):
        whole = whole[:place] + '"' + whole[place:]
    return whole


def numbers(cells: Cells, rng: Rng) -> str:
    """Labels as numbers in several spellings; what they are called does not matter then."""
    for row in cells[1:]:
        row[1] = str(rng.choice(["1", "1.0", "01", "1e0"] if row[1] == "benign" else ["2", "2.0", "002"]))
    return text(cells)


MUTATIONS: dict[str, Callable[[Cells, Rng], str | bytes]] = {
    "decomposed": one("patient", lambda cell, rng: unicodedata.normalize("NFD", cell)),
    "space around": one("patient", lambda cell, rng: f" {cell}\u00a0"),
    "unseen": one("patient", lambda cell, rng: f"\u200b{cell}\ufeff"),
    "capitals": one("patient", lambda cell, rng: cell.upper()),
    "inner space": one("patient", lambda cell, rng: cell.replace(" ", str(rng.choice(["", "  ", "\u2009"])))),
    "leading zero": one("patient", lambda cell, rng: cell.replace("-0", str(rng.choice(["-", "-00"])))),
    "full width": one("patient", lambda cell, rng: cell.replace("Z", "Ｚ")),
    "another dash": one("patient", lambda cell, rng: cell.replace("-", "–")),
    "missing patient": one("patient", lambda cell, rng: str(rng.choice(MISSING))),
    "missing label": one("label", lambda cell, rng: str(rng.choice(MISSING))),
    "missing site": one("site", lambda cell, rng: str(rng.choice(MISSING))),
    "missing file": one("file", lambda cell, rng: str(rng.choice(MISSING))),
    "another case of a label": one("label", lambda cell, rng: cell.capitalize()),
    "space in a label": one("label", lambda cell, rng: f"{cell[:3]} {cell[3:]}"),
    "a typo in a label": one("label", typo),
    "a number for a label": one("label", lambda cell, rng: str(rng.choice(["0", "1", "-1", "0.5"]))),
    "another case of a site": one("site", lambda cell, rng: cell.lower()),
    "space around a site": one("site", lambda cell, rng: f"{cell} "),
    "another path": one(
        "file", lambda cell, rng: str(rng.choice([f"./{cell}", f".\\{cell}", cell.upper(), f"x/{cell}"]))
    ),
    "lost letters": one("patient", lambda cell, rng: cell.replace("ë", "\ufffd")),
    "single quotes": one("patient", lambda cell, rng: f"'{cell}'"),
    "curly quotes": one("label", lambda cell, rng: f"“{cell}”"),
    "a line break": one("patient", lambda cell, rng: f'"{cell}\n"'),
    "a shortened number": one("patient", lambda cell, rng: "1.2E+10"),
    "spellings of numbers": numbers,
    "semicolons": lambda cells, rng: text(cells, ";"),
    "tabs": lambda cells, rng: text(cells, "\t"),
    "told separator": lambda cells, rng: "sep=;\n" + text(cells, ";"),
    "spaces everywhere": lambda cells, rng: text(cells, " , "),
    "a mark": all_of(lambda whole: whole.encode("utf-8-sig")),
    "windows": all_of(lambda whole: whole.replace("\n", "\r\n")),
    "old macs": all_of(lambda whole: whole.replace("\n", "\r")),
    "utf-16": all_of(lambda whole: whole.encode("utf-16")),
    "latin": all_of(lambda whole: whole.encode("latin-1")),
    "mac roman": all_of(lambda whole: whole.encode("mac_roman")),
    "capitals in the header": all_of(lambda whole: whole.replace("file,label", "File,LABEL", 1)),
    "a comment": all_of(lambda whole: "# made by hand\n" + whole),
    "a title": all_of(lambda whole: "My table\n" + whole),
    "row numbers": all_of(
        lambda whole: "".join(f"{n},{line}\n" for n, line in enumerate(whole.split("\n")) if line)
    ),
    "nameless row numbers": all_of(
        lambda whole: "".join(f"{n or ''},{line}\n" for n, line in enumerate(whole.split("\n")) if line)
    ),
    "separators at the end": all_of(lambda whole: whole.replace("\n", ",\n")),
    "all quoted": lambda cells, rng: text([[f'"{cell}"' for cell in row] for row in cells]),
    "cut off": cut_off,
    "a row twice": doubled,
    "a row twice for another": lambda cells, rng: doubled(cells, rng, "Zoë 0-01"),
    "a lost cell": lost_cell,
    "an extra cell": extra_cell,
    "a lost column": lost_column,
    "other order of columns": moved_columns,
    "a column twice": twice_a_column,
    "a lost row": lost_row,
    "stray quotes": stray_quote,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for row in TRUTH:
        (folder / row[0]).touch()
    return folder


def differences(found: Manifest) -> list[str]:
    """What is not as in truth, as a note would have to name it."""
    truth, changed = {row[0]: row for row in TRUTH}, []
    assert found.labels is not None
    names = dict(zip(found.labels.names, found.labels.names, strict=True))
    if found.labels.names == ("1", "2"):
        names = {"1": "benign", "2": "malignant"}
    for row, target in zip(found.rows, found.labels.targets, strict=True):
        _, label, patient, site = truth[Path(row.cells["file"]).name]
        if names[found.labels.names[target]] != label:
            changed.append(found.labels.names[target])
        changed += [row.cells[c] for c, one in (("patient", patient), ("site", site)) if row.cells[c] != one]
    return changed


@pytest.mark.gate
@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_any_bytes_are_read_or_refused(root: Path, kind: str):
    """300 times a few bytes changed, lost or added, without regard to what they mean."""
    file = root / f"bytes.{kind}"
    if kind == "csv":
        file.write_text(text([COLUMNS, *TRUTH]), encoding="utf-8")
    elif kind == "parquet":
        pd.DataFrame(TRUTH, columns=COLUMNS).to_parquet(file)
    else:
        images = np.zeros((12, 8, 8), np.uint8)
        np.savez_compressed(
            file, train_images=images, train_labels=np.arange(12) % 2, train_site=np.arange(12) % 3
        )
    whole = file.read_bytes()
    for seed in range(300):
        rng, changed = np.random.default_rng(seed), bytearray(whole)
        for place in rng.integers(0, len(whole) - 9, int(rng.integers(1, 4))).tolist():
            changed[place : place + int(rng.integers(4))] = rng.bytes(int(rng.integers(4)))
        file.write_bytes(bytes(changed))
        with contextlib.suppress(InputError):
            if kind == "npz":
                Npz(path=file.name).load(root)
            else:
                checked(read_manifest(file), Inside(root))


@pytest.mark.parametrize("seed", range(208))
def test_a_mutated_manifest_is_equal_or_refused_or_noted(root: Path, seed: int):
    rng, kinds = np.random.default_rng(seed), [*MUTATIONS]
    kind = kinds[seed % len(kinds)]
    cells = [[*COLUMNS], *([*row] for row in TRUTH)]
    made = MUTATIONS[kind](cells, rng)
    file = root / f"{seed}.csv"
    file.write_bytes(made if isinstance(made, bytes) else made.encode())
    try:
        found = checked(read_manifest(file), Inside(root))
        problems = found.problems
    except InputError as error:
        problems = error.problems
    if problems:
        assert all(problem.file == str(file) for problem in problems)
        assert len(str(InputError(problems)).splitlines()) < 40
        return
    lost = kind in ("a lost row", "cut off")
    assert len(found.rows) == len(TRUTH) or (lost and len(found.rows) < len(TRUTH))
    for value in differences(found):
        assert repr(value) in " ".join(found.notes), (kind, value, found.notes)

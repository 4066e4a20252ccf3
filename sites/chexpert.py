"""`chexpert`: the chest X-rays of CheXpert (Irvin et al. 2019), from a copy of your own, as it is distributed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from annotated_types import Ge

from fedunlearn.core import InputError, Problem, derive
from sites import findings as several
from sites.collection import Collection
from sites.findings import Findings
from sites.folder.columns import Needed
from sites.folder.paths import Inside, file_faults
from sites.folder.pictures import Alike, read_pictures
from sites.folder.tables import read_table
from sites.identity import is_missing, quoted, tidied
from sites.rows import Fault, Row, grouped
from sites.watching import Watch, unwatched

TABLES = ("train.csv", "valid.csv")
"""What the folder's tables are called; the test set has one without sex and age, which is not read."""

FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)
"""The columns of findings, in their order."""

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""Those on which the authors compare models."""

_PATH = re.compile(r"(?:^|/)((?:train|valid)/(patient\d+)/(study\d+)/[^/]+)$")
_VIEW = "Frontal/Lateral"
_ABOUT = ("sex", "age", _VIEW, "AP/PA")
_SEX = {"male": "M", "m": "M", "female": "F", "f": "F"}
_FRONTAL = {"frontal": True, "lateral": False}
_CODE = {"ignore": "-1", "zero": "0", "one": "1"}


@dataclass(frozen=True, kw_only=True)
class CheXpert:
    """Chest X-rays with several findings each, of CheXpert (arXiv 1901.07031), which its licence keeps from us.

    The folder has ``train.csv`` or ``valid.csv``, or both, whose paths end in
    ``train/patient00001/study1/view1_frontal.jpg``, and these files. Patients are those of the paths; ``sex`` (M, F),
    ``age``, ``view`` (AP, PA, …, or Lateral), ``study`` and ``split`` (train, valid) are columns.

    A finding is 1 (present), 0 (absent), -1 (uncertain) or blank (the report does not mention it; so is a word for
    nothing, such as nan). The paper compares
    what to do with uncertain ones: to leave them out of the loss (U-Ignore, here ``ignore``), or to take them for
    absent (U-Zeros) or present (U-Ones); which is best differs by finding. What is not mentioned counts as absent, as
    there nothing but what is uncertain is left out; most findings have too few 0 to learn from these alone.

    Attributes:
        path: the folder, relative to the data root.
        findings: which, in what order; ``all`` for all 14.
        uncertain: what -1 stands for: nobody knows, absent or present.
        blank: what an empty cell stands for: absent, or nobody knows.
        views: frontal images alone, or lateral ones too.
        size: edge of the images after resizing, in pixels.
        patients: use only so many, drawn once for all; None for all. The whole set takes long to read the first time.
    """

    name: Literal["chexpert"] = "chexpert"
    path: str = "CheXpert-v1.0-small"
    findings: tuple[str, ...] | Literal["all"] = FIVE
    uncertain: Literal["ignore", "zero", "one"] = "ignore"
    blank: Literal["zero", "ignore"] = "zero"
    views: Literal["frontal", "all"] = "frontal"
    size: Annotated[int, Ge(4)] = 64
    patients: Annotated[int, Ge(1)] | None = None

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read tables and files; see `Source.load`."""
        folder, names = root / self.path, self._names()
        rows = self._chosen(_rows(folder, names))
        patients = [row.cells["patient"] for row in rows]
        found, note = self._findings(rows, names, patients)
        faults = [fault for row in rows for fault in file_faults(row, "file", Inside(folder))]
        faults += [
            rows[one.row].fault(one.kind, column, one.message)
            for column, misread in found.misread.items()
            for one in misread
        ]
        if faults or found.wrong:
            raise InputError([*grouped(faults), *(Problem(f"chexpert: {one}") for one in found.wrong)])
        pictures = read_pictures(rows, folder, Alike(self.size, 1), watch)
        what = f"{len(rows):,} {'frontal ' if self.views == 'frontal' else ''}images"
        return Collection(
            pixels=pictures.pixels,
            targets=found.targets,
            table=_table(rows),
            classes=several.CLASSES,
            synthetic_patients=False,
            kind="multilabel",
            note=f"{what} of CheXpert (Irvin et al. 2019); patient ids are those of their paths. "
            f"{several.in_words(names)}.",
            names=names,
            notes=(note, *found.notes, *_no_sex(rows), *pictures.notes),
            seen=pictures.seen,
        )

    def _names(self) -> tuple[str, ...]:
        """The findings to be read.

        Raises:
            InputError: some are not CheXpert's, or there twice.
        """
        names = FINDINGS if self.findings == "all" else self.findings
        strange = [name for name in names if name not in FINDINGS]
        if strange or not names or len(set(names)) < len(names):
            what = f"findings {', '.join(map(repr, strange))}" if strange else "no findings, or some twice"
            raise InputError(f"chexpert: found {what}, expected some of {', '.join(FINDINGS)}")
        return tuple(names)

    def _chosen(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of the views and patients that are asked for.

        Raises:
            InputError: there are none, or too few patients.
        """
        seen = [row for row in rows if self.views == "all" or row.cells["view"] != "Lateral"]
        ids = sorted({row.cells["patient"] for row in seen})
        if not seen or (self.patients or 0) > len(ids):
            wanted = f"patients: {self.patients}" if self.patients else "some images"
            raise InputError(
                f"chexpert: found {len(ids):,} patients with such views, expected {wanted}: lower it"
            )
        if self.patients is None:
            return seen
        rng = np.random.default_rng(derive(0, "chexpert", "patients"))
        drawn = {ids[number] for number in rng.permutation(len(ids))[: self.patients]}
        return [row for row in seen if row.cells["patient"] in drawn]

    def _findings(
        self, rows: Sequence[Row], names: Sequence[str], patients: Sequence[str]
    ) -> tuple[Findings, str]:
        """The findings by the policies, and how many cells these were asked about, in words."""
        code, columns = {"-1": _CODE[self.uncertain], "": _CODE[self.blank]}, dict[str, list[str]]()
        asked = Counter[str]()
        for name in names:
            cells = [_answer(row.cells[name]) for row in rows]
            asked.update(cell for cell in cells if cell in code)
            columns[name] = [code.get(cell, cell) for cell in cells]
        told = {"ignore": "left out", "zero": "taken for absent", "one": "taken for present"}
        note = (
            f"of {len(rows) * len(names):,} answers {asked['-1']:,} are uncertain (-1) and {told[self.uncertain]}, "
            f"{asked['']:,} are not mentioned (blank) and {told[self.blank]}"
        )
        return several.of_columns(columns, patients), note


def _answer(cell: str) -> str:
    """A finding as its policies know it: nothing, -1, or what else is written."""
    if is_missing(cell):
        return ""
    return "-1" if several.unsure(cell) else tidied(cell).removesuffix(".0")


def _rows(folder: Path, names: Sequence[str]) -> list[Row]:
    """The rows of both tables, whose cells are called as ours.

    Raises:
        InputError: there is no table, it lacks columns, or has paths of another form, images twice or views that are
            neither frontal nor lateral; all problems together.
    """
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if not tables:
        raise InputError(
            f"chexpert: found neither {' nor '.join(TABLES)} in {folder}, expected a copy of CheXpert, such as "
            "CheXpert-v1.0-small: put it there, or give its folder as --data-root"
        )
    rows, faults = dict[str, Row](), list[Fault]()
    for file in tables:
        for row in read_table(file, Needed(("Path", *_ABOUT, *names), labels=False)).rows:
            if (match := _PATH.search(row.cells["Path"])) is None:
                expected = (
                    "expected a path such as CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
                )
                message = f"found {quoted(row.cells['Path'])}, {expected}"
                faults.append(row.fault("of another form", "Path", message))
                continue
            if tidied(row.cells[_VIEW]).casefold() not in _FRONTAL:
                message = f"found {_said(row.cells[_VIEW])}, expected Frontal or Lateral: correct it"
                faults.append(row.fault("no view", _VIEW, message))
            renamed = _renamed(row, match, names)
            if (first := rows.setdefault(renamed.cells["image"], renamed)) is not renamed:
                there = f"{Path(first.manifest).name}, {first.place}"
                message = f"found {quoted(row.cells['Path'])} again (first in {there}), expected a row for each image"
                faults.append(row.fault("again", "Path", f"{message}: remove one of them"))
    if faults:
        raise InputError(grouped(faults))
    return [*rows.values()]


def _renamed(row: Row, path: re.Match[str], names: Sequence[str]) -> Row:
    """A row with a file below the folder, attributes called as elsewhere, and its findings; no other cells."""
    cells = {name: tidied(row.cells[name]) for name in (*_ABOUT, *names)}
    frontal = _FRONTAL.get(cells[_VIEW].casefold(), False)
    own = {
        "file": path[1],
        "image": path[1].rpartition(".")[0],
        "patient": path[2],
        "age": cells["age"],
        "sex": _SEX.get(cells["sex"].casefold(), cells["sex"]),
        "view": (cells["AP/PA"] or "Frontal") if frontal else "Lateral",
        "study": path[3],
        "split": path[1].partition("/")[0],
    }
    places = row.columns or {}
    kept = {"file": places["Path"], **{name: places[name] for name in names}} if places else row.columns
    return replace(row, cells={**{name: cells[name] for name in names}, **own}, columns=kept)


def _table(rows: Sequence[Row]) -> pd.DataFrame:
    names = ("image", "patient", "sex", "age", "view", "study", "split")
    table = pd.DataFrame({name: [row.cells[name] for row in rows] for name in names})
    table["sex"] = table["sex"].where(table["sex"].isin([*_SEX.values()]), "")
    ages = pd.to_numeric(table["age"], errors="coerce")
    return table if ages.isna().any() else table.assign(age=ages)


def _no_sex(rows: Sequence[Row]) -> Iterator[str]:
    """A note of what is written for sex, and is neither female nor male."""
    others = Counter(row.cells["sex"] for row in rows if row.cells["sex"] not in _SEX.values())
    if others:
        some = ", ".join(f"{_said(word)} {n:,}" for word, n in others.most_common(3))
        yield f"sex is neither female nor male in {others.total():,} rows, and left empty: {some}"


def _said(cell: str) -> str:
    return quoted(cell) if cell else "nothing"

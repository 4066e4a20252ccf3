"""Patients of the data are compared with those whom DICOM files name, and no such name is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sites.collection import Collection
from sites.folder import Folder
from tests.sites.formats.making import dataset, save

PIXELS = np.arange(12 * 12, dtype=np.uint8).reshape(12, 12)


def read(root: Path, *rows: tuple[str, str, str]) -> Collection:
    """Images of patients, at hospitals, whose files name somebody."""
    lines = ["file,label,patient,site"]
    for number, (patient, site, named) in enumerate(rows):
        save(root / f"{number}.dcm", dataset(PIXELS + np.uint8(number), {"PatientID": named}))
        lines.append(f"{number}.dcm,{number % 2},{patient},{site}")
    (root / "m.csv").write_text("\n".join(lines), encoding="utf-8")
    return Folder(manifest="m.csv").load(root)


ONE = "'a' and 'b' are one patient by their DICOM files (PatientID): forgetting one leaves the other"
SEVERAL = "'a' is several patients by their DICOM files (PatientID): forgetting one forgets all"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", "n", "1"), ("b", "n", "1 "), ("c", "n", "2")], ONE),
        ([("a", "n", "1"), ("a", "n", "2"), ("c", "n", "3")], SEVERAL),
        ([("a", "n", "1"), ("b", "n", "2"), ("c", "n", "3")], None),
        ([("a", "n", "1"), ("b", "s", "1"), ("c", "n", "2")], None),  # hospitals number their own
        ([("a", "n", "1"), ("b", "n", "1")], None),  # all by one name, which stands for anybody
        ([("a", "n", "ANONYMIZED"), ("b", "n", "ANONYMIZED"), ("c", "n", "1"), ("d", "n", "2")], None),
        ([("a", "n", ""), ("b", "n", ""), ("c", "n", "1"), ("d", "n", "2")], None),
        ([(one, "n", "0") for one in "abcdef"] + [("g", "n", "1")], None),  # too many for one
    ],
    ids=["one", "several", "alike", "two hospitals", "one name", "anonymized", "unnamed", "a stand-in"],
)
def test_who_is_another_by_the_files_is_noted(
    tmp_path: Path, rows: list[tuple[str, str, str]], expected: str | None
):
    notes = read(tmp_path, *rows).notes
    found = [note.split(";")[0] for note in notes if "by their DICOM files" in note]
    assert found == ([] if expected is None else [f"patient: {expected}"])
    assert Folder(manifest="m.csv").load(tmp_path).notes == notes  # as it was kept


def test_names_of_files_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    read(tmp_path / "data", ("a", "n", "Secret-77"), ("b", "n", "Secret-78"))
    kept = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert kept and not any(b"Secret" in file.read_bytes() for file in kept)

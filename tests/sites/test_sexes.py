"""Sexes that are written in several ways, or change, are noted by every source of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sites.folder import Folder
from sites.npz import Npz
from sites.sexes import notes


@pytest.mark.parametrize(
    ("sexes", "expected"),
    [
        (("F", "F", "M", "M"), []),
        (
            ("F", "female", "M", "M"),
            ["sex: 'F' (1) and 'female' (1) (with the numbers of their images) may be one"],
        ),
        (("F", "f", "m", "M"), ["sex: 'F' (1) and 'f' (1); 'M' (1) and 'm' (1)"]),
        (
            ("F", "M", "M", "M"),
            ["sex: it changes from image to image of 'p' ('female', 'male' of the first)"],
        ),
        (("F", "female", "M", ""), ["sex: 'F' (1) and 'female' (1)"]),  # nothing known is no change
        (
            ("weiblich", "W", "männlich", "O"),
            ["sex: 'W' (1) and 'weiblich' (1)", "sex: it changes from image to image of 'q'"],
        ),
        (("0", "0", "1", "1"), []),
    ],
)
def test_what_is_said_of_sexes(sexes: tuple[str, ...], expected: list[str]) -> None:
    found = notes(sexes, "ppqq")
    assert len(found) == len(expected)
    assert all(note.startswith(start) for note, start in zip(found, expected, strict=True))


def test_both_sources_tell_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 12, 12)).astype(np.uint8)
    rows = ["file,label,patient,sex"]
    for number, (image, patient, sex) in enumerate(zip(pixels, "ppqq", "FMMM", strict=True)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{patient},{sex}")
    (tmp_path / "m.csv").write_text("\n".join(rows), encoding="utf-8")
    columns = {"train_patient_id": np.array(list("ppqq")), "train_sex": np.array(list("FMMM"))}
    np.savez(tmp_path / "d.npz", train_images=pixels, train_labels=np.arange(4) % 2, **columns)  # type: ignore[arg-type]
    for source in (Folder(manifest="m.csv"), Npz(path="d.npz")):
        assert [note for note in source.load(tmp_path).notes if "changes from image to image of 'p'" in note]

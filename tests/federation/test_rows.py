"""Models in one file, a row each: what is read is what was written, to the bit or to the half of a last one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import Kept, RunError, Weights
from fedunlearn.federation.rows import Form, Rows, writing

LIKE: Weights = {
    "w": torch.zeros(3, 5),
    "n": torch.tensor(4),
    "b": torch.zeros(0),
    "d": torch.zeros(7, dtype=torch.float64),
}
NAMES = ("north", "east/1", "ein Ort")


def model(seed: int, scale: float = 1.0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    w5, d7 = (torch.randn(n, generator=generator, dtype=torch.float64) * scale for n in (15, 7))
    return {**LIKE, "w": w5.float().reshape(5, 3).T, "d": d7, "n": torch.tensor(seed)}


def written(path: Path, precision: Kept = "float32", scale: float = 1.0) -> Rows:
    with writing(path, Form.of(NAMES, LIKE, precision)) as write:
        for number in (2, 0, 1):
            write(NAMES[number], model(number, scale))
    return Rows(path)


def test_rows_are_what_was_written_in_whatever_order(tmp_path: Path) -> None:
    rows = written(tmp_path / "rows")
    assert tuple(rows) == NAMES and len(rows) == 3
    for number, name in enumerate(NAMES):
        assert w.digest(rows[name]) == w.digest(model(number))
        assert list(rows[name]) == list(LIKE)
    with pytest.raises(KeyError):
        rows["west"]


def test_what_is_changed_by_mistake_is_not_changed_in_the_file(tmp_path: Path) -> None:
    rows = written(tmp_path / "rows")
    rows["north"]["w"].zero_()
    assert w.digest(rows["north"]) == w.digest(model(0))


# A number is off by half of its last bit: of 8 bits (bfloat16), of 11 (float16), relative to a power of two at most.
@pytest.mark.parametrize(("precision", "bits"), [("bfloat16", 8), ("float16", 11)])
@pytest.mark.parametrize("scale", [1e-36, 1e-9, 1.0, 1e9])
def test_numbers_of_16_bits_are_off_by_half_their_last_bit(
    tmp_path: Path, precision: Kept, bits: int, scale: float
) -> None:
    """Of float16 also by its smallest number: 2 ** -24, where the largest of the tensor is kept as 2 ** 14 or more."""
    row, true = written(tmp_path / "rows", precision, scale)["north"], model(0, scale)
    for name in ("w", "d"):
        error, size = (row[name] - true[name]).abs(), true[name].abs()
        assert row[name].dtype == true[name].dtype
        assert bool((error <= size * 2.0**-bits + size.max() * 2.0**-38).all())
        assert bool(error.any()), "it was not kept in 16 bits"
    assert row["n"] == true["n"]
    many = {"x": torch.zeros(4096)}
    assert Form.of(NAMES, many, precision).stride - Form.of(NAMES, many).stride == -2 * 4096


def test_a_tensor_of_zeros_and_one_with_one_with_the_largest_numbers_are_kept(tmp_path: Path) -> None:
    largest = 2.0**127  # the next one up would be rounded to 2 ** 128, which is infinity in 32 bits too
    like = {"zero": torch.zeros(3), "large": torch.tensor([largest, -largest / 3, 1.0])}
    with writing(tmp_path / "rows", Form.of(["a"], like, "float16")) as write:
        write("a", like)
    row = Rows(tmp_path / "rows")["a"]
    assert not row["zero"].any()
    assert torch.isfinite(row["large"]).all() and row["large"][2] == 0
    assert float(row["large"][0]) == largest


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", [1e-45, 1e-42, 1e-39, 1e-36])
def test_the_smallest_numbers_of_32_bits_are_kept_or_nearly_so(
    tmp_path: Path, precision: Kept, size: float
) -> None:
    """Those below 2 ** -126 have fewer bits as it is; bfloat16's smallest is 2 ** -133."""
    like = {"x": torch.tensor([size, -size / 3, 0.0])}
    with writing(tmp_path / "rows", Form.of(["a"], like, precision)) as write:
        write("a", like)
    found = Rows(tmp_path / "rows")["a"]["x"]
    off = {"bfloat16": max(size * 2.0**-8, 2.0**-134), "float16": max(size * 2.0**-11, 2.0**-149)}[precision]
    assert bool(((found.double() - like["x"].double()).abs() <= off).all())


def test_a_damaged_row_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    """Any byte of it, at every seventh; a byte of what the file says of its rows costs all of them."""
    written(tmp_path / "rows")
    whole = (tmp_path / "rows").read_bytes()
    form = Form.of(NAMES, LIKE)
    for place in range(0, len(whole), 7):
        (tmp_path / "rows").write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
        damaged = (place - len(form.head)) // form.stride
        for number, name in enumerate(NAMES):
            if place < len(form.head) or number == damaged:
                with pytest.raises((RunError, KeyError)):
                    Rows(tmp_path / "rows")[name]
            else:
                assert w.digest(Rows(tmp_path / "rows")[name]) == w.digest(model(number))


@pytest.mark.parametrize("part", range(8))
def test_a_file_that_is_cut_is_refused(tmp_path: Path, part: int) -> None:
    written(tmp_path / "rows")
    os.truncate(tmp_path / "rows", (tmp_path / "rows").stat().st_size * part // 8)
    with pytest.raises(RunError):
        Rows(tmp_path / "rows")[NAMES[2]]


def test_a_file_is_there_only_with_all_rows(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match="no row for east/1, ein Ort"),
        writing(tmp_path / "rows", Form.of(NAMES, LIKE)) as write,
    ):
        write("north", model(0))
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match="cannot read weights"):
        Rows(tmp_path / "rows")

"""NIfTI files whose header and content do not quite belong together: read as meant, noted, or refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from sites.formats.images import read
from sites.formats.picture import spread
from sites.formats.unreadable import Unreadable

VOXELS = np.random.default_rng(4).integers(0, 900, (7, 9, 8)).astype(np.int16)
SCALING = 112  # the byte at which slope and intercept start, as two floats
SIZES = 40  # and at which the number of edges, and these, as eight short integers
MORE = "more follows than the voxels that the header tells of: it was left out"


def content(array: Any = VOXELS) -> bytearray:
    return bytearray(nibabel.Nifti1Image(array, np.eye(4)).to_bytes())


def put(root: Path, made: bytes | bytearray, packed: bool = False) -> Path:
    file = root / "a.nii"
    file.write_bytes(gzip.compress(bytes(made)) if packed else made)
    return file


@pytest.mark.parametrize("packed", [False, True])
def test_voxels_beyond_those_that_the_header_tells_of_are_noted(tmp_path: Path, packed: bool):
    """A header of half of the slices: they are the first ones, since the last axis is the slowest."""
    made = content()
    struct.pack_into("<hhhh", made, SIZES, 3, 7, 9, 4)
    found = read(put(tmp_path, made, packed))
    assert np.array_equal(found.pixels[0], spread(VOXELS[..., :4])) and found.notes == (MORE,)
    assert read(put(tmp_path, content(), packed)).notes == ()


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_that_is_none_changes_nothing(tmp_path: Path, slope: float):
    made = content()
    struct.pack_into("<ff", made, SCALING, slope, 40.0)
    found = read(put(tmp_path, made))
    assert (found.low, found.high) == (VOXELS.min(), VOXELS.max())


def test_files_of_the_other_order_of_bytes_are_the_same(tmp_path: Path):
    header = nibabel.Nifti1Header(endianness=">")
    made = nibabel.Nifti1Image(VOXELS.astype(">i2"), np.eye(4), header).to_bytes()
    assert made[:4] == (348).to_bytes(4, "big")
    found = read(put(tmp_path, made))
    assert np.array_equal(found.pixels[0], spread(VOXELS)) and found.orientation == "RAS"


def test_a_packed_file_may_be_of_several_parts_and_of_no_half_ones(tmp_path: Path):
    made, file = bytes(content()), tmp_path / "a.nii.gz"
    file.write_bytes(gzip.compress(made[:500]) + gzip.compress(made[500:]))
    assert np.array_equal(read(file).pixels[0], spread(VOXELS))
    whole = gzip.compress(made)
    for wrong in (whole[:-40], whole[:-6], whole + b"more", whole[:-8] + bytes(8)):
        file.write_bytes(wrong)
        with pytest.raises(Unreadable, match="damaged, cut off or of a rare kind"):
            read(file)


def test_how_one_slice_becomes_an_image_is_noted(tmp_path: Path):
    found = read(put(tmp_path, content(VOXELS[:, :, :1])))
    assert np.array_equal(found.pixels[0], spread(VOXELS[:, :, 0]))
    assert [note for note in found.notes if "runs down the image" in note]

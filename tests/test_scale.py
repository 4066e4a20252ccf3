"""The benchmark of many hospitals runs, and tells what it says it does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import scale


@pytest.mark.gate
def test_every_number_of_hospitals_has_a_row() -> None:
    command = [sys.executable, scale.__file__, "--quick"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout
    heading, _, *rows = (
        [cell.strip() for cell in line.strip("| ").split("|")] for line in printed.splitlines()
    )
    found = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [row["hospitals"] for row in found] == ["3", "6"]
    # Two rounds of training at all hospitals, then one less for two of retraining, one each of fine_tune and federaser;
    # all are asked about four models, and of copies about those images that are to be forgotten.
    assert all(
        int(row["asks"]) > 2 * int(row["hospitals"]) + 4 * (int(row["hospitals"]) - 1) for row in found
    )
    assert all(float(row["CPU ms an image"]) > 0 and float(row["peak MB"]) > 100 for row in found)
    assert all(float(row["history MB"]) > 0 for row in found)

"""The least that may be asked: one image of one patient to forget, with every further evaluation."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedunlearn.results import report
from tests.runs import run

SCENARIO = """\
name: least
seeds: [1, 2]
engine: {name: inline, workers: 2}
data: {name: npz, path: d.npz}
sites: {names: [a, b], partition: {name: by_column}}
model: {name: small_cnn}
training: {rounds: 1, local_epochs: 1, batch_size: 8, optimizer: adam, lr: 0.002}
requests:
  - {id: r, site: a, patients: {count: 1}}
  - {id: w, site: b, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 1, local_epochs: 1}
evaluation: {shadows: 4, relearn: true, linear_probe: true, resurgence_rounds: 1, canary: 0.2}
"""


@pytest.mark.gate
def test_one_image_to_forget_is_scored_by_all_there_is_without_numbers_that_are_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "train_images": random.integers(0, 256, (20, 32, 32), np.uint8),
        "train_labels": np.arange(20) % 2,
        "train_patient_id": np.array([f"p{row:02d}" for row in range(20)]),
        "train_site": np.repeat(["a", "b"], 10),
    }
    np.savez(tmp_path / "d.npz", **arrays)
    done = run(tmp_path, text=SCENARIO)
    table = done.read_table("sites.parquet")
    asked = table["forgotten_by"].map(lambda names: "r" in names) & (table["split"] == "train")
    assert asked.sum() == 1
    scores = done.read_table("scores.parquet")
    assert not scores[scores["request"] == "r"]["value"].isna().any()
    shown = Console(file=io.StringIO(), width=100)
    report.show(done, shown)
    report.show(done, shown, details=True)
    text = shown.file.getvalue() + report.markdown(done)  # type: ignore[attr-defined]  # that of above
    assert "nan" not in text.lower()
    assert not [half for half in map(float, re.findall(r"±(\d*\.\d+)", text)) if half > 1]
    below = map(float, re.findall(r"a difference below (\d*\.\d+) in MIA AUC", text))
    assert all(smallest < 1 for smallest in below)

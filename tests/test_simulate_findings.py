"""A whole run on images with several findings, small: hospitals, unknown findings, requests, scores, verdicts, page."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedunlearn import pages
from fedunlearn.results import report, tables
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.evidence.reading import read
from fedunlearn.scoring.measures.catalogue import measures_of
from tests.runs import run

pytestmark = [pytest.mark.gate, pytest.mark.usefixtures("few_resamples")]

SCENARIO = """\
name: findings
seeds: [1, 2]
references: 3
engine: {name: inline, workers: 2, timeout: 60}
data: {name: npz, path: findings.npz}
sites: {names: [north, east], partition: {name: iid}, split: {train: 0.5, val: 0.1, test: 0.4}}
model: {name: small_cnn, kind: multilabel}
training: {rounds: 2, local_epochs: 2, batch_size: 16, optimizer: adam, lr: 0.003}
requests:
  - {id: some, site: north, patients: {count: 8, pick: random}}
  - {id: leave, site: east, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 1, local_epochs: 1}
  - {name: random_label, labels: uniform, requests: [some]}
evaluation: {shadows: 4, relearn: true, linear_probe: true, resurgence_rounds: 1}
"""


def store(folder: Path, patients: int = 120) -> None:
    """Images with a bright bar for each of three findings, two of every patient; of a tenth nobody knows."""
    rng = np.random.default_rng(4)
    targets = (rng.random((2 * patients, 3)) < (0.5, 0.3, 0.2)).astype(np.int64)
    images = rng.normal(90, 30, (2 * patients, 28, 28))
    for f in range(3):
        images[targets[:, f] == 1, 4 + 8 * f : 7 + 8 * f, 4:24] += 60
    targets[rng.random(targets.shape) < 0.1] = -1
    arrays: dict[str, Any] = {
        "train_images": np.clip(images, 0, 255).astype(np.uint8),
        "train_labels": targets,
        "train_patient_id": np.repeat([f"p{p:03d}" for p in range(patients)], 2),
    }
    np.savez(folder / "findings.npz", **arrays)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("findings")
    store(folder)
    return run(folder, text=SCENARIO)


def test_every_model_has_all_measures_that_there_are_images_for(done: RunFolder) -> None:
    scores = done.read_table("scores.parquet")
    whole = scores[(scores["request"] == "some") & (scores["group"] == "all")]
    absent = set(measures_of("multilabel")) - set(whole["measure"])
    assert {name for name in absent if not name.startswith(("klom", "forgetting_quality"))} <= {
        *(name for name in absent if "_tpr_" in name),  # too few held-out images
    }
    assert set(whole["strategy"]) == {
        *("original", "retrained", "retrained_other", "damaged"),
        *("fine_tune", "random_label"),
    }
    of = whole.groupby(["strategy", "measure"])["value"].mean()
    assert of["original", "test_auroc"] > 0.8 > 0.6 > of["damaged", "test_auroc"]
    groups = set(scores.loc[scores["measure"] == "test_auroc", "group"])
    assert {"all", "site=north", "site=east", "class=0", "class=1"} <= groups


def test_signals_are_read_as_they_were_written(done: RunFolder) -> None:
    content = read(done.path)
    found = content.answers(content.comparisons[0].retrained, content.frame("some"))
    assert found is not None and found.finite
    assert (found.losses >= 0).all() and np.isfinite(found.margin).all()


def test_curves_tell_loss_and_how_many_findings_are_told_rightly(done: RunFolder) -> None:
    curves = done.read_table("curves.parquet")
    assert set(curves["measure"]) == {"loss", "accuracy"}


def test_tables_and_pages_are_in_the_words_of_findings(done: RunFolder) -> None:
    shown = Console(file=io.StringIO(), width=100)
    report.show(done, shown)
    report.show(done, shown, details=True)
    page = inspect.unwrap(pages.report)(done)  # tests draw none otherwise
    text = shown.file.getvalue() + report.markdown(done)  # type: ignore[attr-defined]  # that of above
    assert "AUROC" in text and "finding" in text and "nan" not in text.lower()
    (line,) = [line for line in tables.lines(done, "some") if line.strategy == "fine_tune"]
    assert "n/a" not in line.cells
    assert "Hospitals, findings and groups" in page and "loss of the worst finding" in page
    assert "finding finding" not in text + page


def test_an_image_is_learnt_once_all_its_known_findings_are_told_rightly(done: RunFolder) -> None:
    """To the end: what the last model is wrong about would take a round longer than there are."""
    learnt, images = done.read_table("difficulty.parquet"), done.read_table("sites.parquet")
    last = done.read_table("signals/original-1.parquet")
    logit, target = (
        last[[f"{name}_{f}" for f in range(3)]].to_numpy(np.float64) for name in ("logit", "target")
    )
    right = (((logit > 0) == (target == 1)) | (target < 0)).all(axis=1)
    first = learnt[learnt["seed"] == 1].set_index("image")["learnt_after"].loc[images["image"]].to_numpy()
    assert ((first <= 2) == right).all() and right.any()

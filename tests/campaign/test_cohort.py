"""Canaries: wrong labels for some patients of a hospital that will leave, and for nobody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError
from tests.runs import run, write


def cohort(folder: Path, *overrides: str) -> Cohort:
    return gather(scenarios.read(write(folder), overrides), folder)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_canaries_are_training_patients_of_the_leaver_under_the_next_label(
    tmp_path: Path, share: float
) -> None:
    plain, changed = cohort(tmp_path), cohort(tmp_path, f"evaluation.canary={share}")
    canary = changed.table["canary"].to_numpy(bool)
    own = (plain.site == "east") & (plain.split == "train")
    assert not (canary & ~own).any()
    patients, of_canaries = (set(plain.table.loc[mask, "patient"]) for mask in (own, canary))
    assert len(of_canaries) == max(1, round(share * len(patients)))
    whole = plain.table["patient"].isin(of_canaries) & own
    assert (whole == canary).all(), "all of a patient's images at the hospital"
    np.testing.assert_array_equal(changed.targets[canary], (plain.targets[canary] + 1) % 8)
    np.testing.assert_array_equal(changed.targets[~canary], plain.targets[~canary])
    np.testing.assert_array_equal(changed.table["label"], changed.targets)
    np.testing.assert_array_equal(changed.pixels, plain.pixels)
    assert (changed.site == plain.site).all() and (changed.split == plain.split).all()


def test_what_was_changed_is_declared(tmp_path: Path) -> None:
    plain, changed = cohort(tmp_path), cohort(tmp_path, "evaluation.canary=0.5")
    images = changed.table[changed.table["canary"]]
    told = f" {len(images)} images of {images['patient'].nunique()} patients have wrong labels, as canaries."
    assert changed.note == plain.note + told
    assert changed.digest != plain.digest
    assert "canary" not in plain.table.columns


def test_who_trained_on_canaries_gives_their_labels(tmp_path: Path) -> None:
    """Trained for 28 epochs, the original knows most of them by heart; the retrained model has no reason to."""
    long = "training={rounds: 2, local_epochs: 14, batch_size: 16, lr: 0.002}"
    requests = "requests=[{id: leave, site: east, whole_site: true}]"
    done = run(
        tmp_path, "evaluation.canary=0.5", "data.images=120", requests, long, "seeds=[1]", "strategies=[]"
    )
    scores = done.read_table("scores.parquet")
    found = scores[(scores["measure"] == "canary_success") & (scores["group"] == "all")]
    by_model = found.set_index("strategy")["value"]
    assert by_model["original"] > 0.5 and by_model["retrained"] < 0.2


def test_a_model_whose_layers_nobody_stacked_is_refused_with_the_place(tmp_path: Path) -> None:
    overrides = ["training.stack=2", "model={name: resnet18}"]
    with pytest.raises(InputError) as caught:
        gather(scenarios.read(write(tmp_path), overrides), tmp_path)
    [problem] = caught.value.problems
    assert str(problem) == (
        "--set training.stack=2: model 'resnet18' cannot be trained several at once, since nobody has written how "
        "Sequential is done for several at once: leave it out"
    )
    gather(scenarios.read(write(tmp_path), overrides[:1]), tmp_path)

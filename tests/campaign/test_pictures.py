"""Which forgotten images are shown, what models say of them, and that there are none unless somebody asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.pictures import ANSWERS, COLUMNS, MOST, chosen
from fedunlearn.core import InputError
from fedunlearn.results.runfolder import RunFolder
from tests import runs

WILD = "  - {name: random_label, lr: 1.0e+30, epochs: 1, as: wild, requests: [some]}\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with runs.without_scores():
        text = runs.TINY + WILD
        return runs.run(tmp_path_factory.mktemp("pictures"), "evaluation.pictures=true", text=text)


def test_one_image_of_each_patient_the_most_remembered_first() -> None:
    """Rows 3 to 9 are to forget; a loss that is not a number is no reason to be shown."""
    raised = np.array([9.0, 9.0, 9.0, 0.1, 0.5, 0.5, 2.0, np.nan, 0.2, 0.3])
    patients = np.array(["x", "x", "x", "a", "a", "b", "b", "c", "d", "d"])
    forget = np.arange(3, 10)
    assert chosen(raised, forget, patients) == (6, 4, 9, 7)
    assert chosen(raised, forget, patients, most=2) == (6, 4)
    assert chosen(np.zeros(10), forget, patients) == (3, 5, 7, 8)  # of equal ones, in their order


def test_what_is_shown_is_what_retraining_loses(run: RunFolder) -> None:
    """Against going through patients one by one."""
    table, answers = run.read_table("sites.parquet"), run.read_table(ANSWERS)
    for request in ("some", "leave"):
        asked = (table["split"] == "train") & table["forgotten_by"].map(
            lambda names, r=request: r in list(names)
        )
        raised = np.zeros(len(table))
        for seed in (1, 2):
            for sign, model in ((1, f"retrained-{request}-{seed}"), (-1, f"original-{seed}")):
                said = softmax(run.read_table(f"signals/{model}.parquet").to_numpy(np.float64), axis=1)
                raised -= sign * np.log(said[np.arange(len(table)), table["label"]])
        own = table.assign(raised=raised)[asked].sort_values("raised", ascending=False)
        expected = own.drop_duplicates("patient")["image"].tolist()[:MOST]
        found = answers[(answers["request"] == request) & (answers["strategy"] == "original")]
        assert found[found["seed"] == 1]["image"].tolist() == expected
        manifest = {one["request"]: one for one in run.read_manifest()["pictures"]["pictures"]}
        assert manifest[request]["images"] == expected and manifest[request]["seed"] == 1


def test_every_model_that_did_not_diverge_has_its_say(run: RunFolder) -> None:
    answers = run.read_table(ANSWERS)
    assert tuple(answers.columns) == COLUMNS
    assert set(answers[answers["request"] == "some"]["strategy"]) == {
        "original",
        "retrained",
        "fine_tune",
        "negation",
    }
    image = run.read_table("sites.parquet").set_index("image")
    rows = {name: number for number, name in enumerate(image.index)}
    for _, own in answers[answers["strategy"] == "negation"].iterrows():
        signals = run.read_table(f"signals/{own['request']}-negation-{own['seed']}.parquet")
        said = softmax(signals.to_numpy(np.float64)[rows[own["image"]]])
        assert (own["patient"], own["label"]) == tuple(image.loc[own["image"], ["patient", "label"]])
        assert (own["probability"], own["top_probability"]) == pytest.approx((said[own["label"]], said.max()))
        assert own["top"] == said.argmax()


def test_pictures_are_drawn_from_what_is_kept(run: RunFolder) -> None:
    with np.load(run.path / "pictures" / "some.npz") as kept:
        assert kept["models"].tolist() == ["original", "retrained", "fine_tune", "negation", "wild"]
        assert np.isnan(kept["said"][-1]).all() and np.isfinite(kept["said"][:-1]).all()
        assert len(kept["pixels"]) == len(kept["labels"]) == 2
    names = {path.name for path in (run.path / "pictures").iterdir()}
    assert names == {"some.npz", "some.png", "leave.npz", "leave.png", "answers.parquet"}
    assert {f"pictures/{name}" for name in names} <= set(run.read_manifest()["sha256"])


def test_there_are_none_unless_somebody_asks(tmp_path: Path) -> None:
    assert not scenarios.read(runs.write(tmp_path)).evaluation.pictures


def test_of_volumes_there_are_slices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pictures are of images with one class each, but model 'unet3d'"):
        scenarios.read(runs.write(tmp_path), ["evaluation.pictures=true", "model.name=unet3d"])

"""The ROC curve of the attack by loss agrees with the measures that are points of it, and with its area."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.attacks import roc
from fedunlearn.scoring.attacks.membership import attack_auc, forget_versus_held_out
from fedunlearn.scoring.attacks.rates import true_positives
from fedunlearn.scoring.attacks.roc import COLUMNS, RATES, own_thresholds, rates
from fedunlearn.scoring.evidence import Frame
from fedunlearn.scoring.score import score
from tests.scoring.made import Made, images, make_run
from tests.scoring.test_evidence import frame_of

pytestmark = pytest.mark.usefixtures("few_resamples")


def drawn(seed: int, held_out: int = 400) -> tuple[Frame, np.ndarray]:
    """60 images to forget and some held out, of one hospital, three labels and two images a patient; with ties."""
    rng = np.random.default_rng(seed)
    parts = ["forget"] * 60 + ["test"] * held_out + ["retain"] * 20
    rows = [(i // 2, 0, int(rng.integers(3)), part) for i, part in enumerate(parts)]
    scores = np.round(rng.normal(size=len(rows)) + 0.7 * (np.arange(len(rows)) < 60), 1 + seed % 3)
    return frame_of(rows), scores


@pytest.mark.parametrize("seed", range(6))
def test_the_area_with_own_thresholds_is_the_measures(seed: int) -> None:
    """Of a curve of steps and slopes, the mean at 200,000 rates between 0 and 1 is the area up to their distance."""
    frame, scores = drawn(seed)
    pairs = forget_versus_held_out(frame)["all"]
    at = (np.arange(200_000) + 0.5) / 200_000
    assert own_thresholds(pairs, scores, at).mean() == pytest.approx(
        attack_auc(frame, scores)["all"].value, abs=2e-5
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("one_in", [5, 100])
def test_a_rate_with_one_threshold_is_the_measures(seed: int, one_in: int) -> None:
    frame, scores = drawn(seed)
    estimate = true_positives(frame, scores, one_in)["all"]
    at = np.array([1 / one_in])
    pairs = forget_versus_held_out(frame)["all"]
    assert roc.one_threshold(pairs, scores, at)[0] == pytest.approx(estimate.value, abs=1e-12)


def test_own_thresholds_of_one_stratum_are_the_usual_curve() -> None:
    """Against scikit-learn's, at the rates of its corners, where a step ends; without ties."""
    rng = np.random.default_rng(5)
    scores = rng.normal(size=90) + (np.arange(90) < 30)
    frame = frame_of([(i, 0, 0, "forget" if i < 30 else "test") for i in range(90)])
    fpr, tpr, _ = roc_curve(np.arange(90) < 30, scores, drop_intermediate=False)
    last = np.append(np.diff(fpr) > 0, True)  # the upper end of each vertical step
    found = own_thresholds(forget_versus_held_out(frame)["all"], scores, fpr[last])
    np.testing.assert_allclose(found, tpr[last])


@pytest.mark.parametrize(("held_out", "lowest"), [(1999, 0.001), (199, 0.01), (19, 0.1), (9, 10**-0.65)])
def test_the_lowest_rate_is_one_that_can_be_told(held_out: int, lowest: float) -> None:
    """At which two of the places among the held-out images may be accused."""
    frame = frame_of([(i, 0, 0, "forget" if i < 4 else "test") for i in range(4 + held_out)])
    found = rates(frame)
    assert found[0] == pytest.approx(lowest) and found[-1] == 1.0
    curves = roc.roc(frame, np.zeros(4 + held_out))
    np.testing.assert_allclose(curves["one"], found)  # of images that are all alike, as many as of the others
    np.testing.assert_allclose(curves["each"], found)


def test_nothing_to_compare_has_no_curve() -> None:
    frame = frame_of([(0, 0, 0, "forget"), (1, 0, 1, "test")])
    assert not len(rates(frame)) and roc.roc(frame, np.zeros(2)) == {}
    assert roc.table("r", frame, {"original": [{}]}).empty


def test_the_rates_are_those_of_the_measures() -> None:
    assert {0.001, 0.01, 0.1, 1.0} <= {round(float(rate), 12) for rate in RATES}


# --------------------------------------------------------------------------------------------- a run folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    models = {"original": Made(forget=4.0), "retrained": Made(), "lazy": Made(forget=3.0)}
    folder = make_run(tmp_path_factory.mktemp("roc") / "run", models, table=images(per_patient=40))
    scores, _ = score(folder)
    return pd.read_parquet(folder / "roc.parquet"), scores


def values(scores: pd.DataFrame, request: str, strategy: str, measure: str) -> Sequence[float]:
    own = scores[
        (scores["request"] == request) & (scores["strategy"] == strategy) & (scores["group"] == "all")
    ]
    return [float(value) for value in own[own["measure"] == measure]["value"]]


def test_it_is_written_for_all_models(scored: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table, scores = scored
    assert tuple(table.columns) == COLUMNS
    assert set(table["strategy"]) == {"original", "retrained", "lazy"} and set(table["models"]) == {3}
    assert ((table["low"] <= table["tpr"]) & (table["tpr"] <= table["high"])).all()
    for (request, strategy, thresholds), own in table.groupby(["request", "strategy", "thresholds"]):
        assert own["tpr"].is_monotonic_increasing and own["tpr"].iloc[-1] == pytest.approx(1)
        if thresholds == "one":
            at = own[np.isclose(own["fpr"], 0.01)].iloc[0]
            each = values(scores, str(request), str(strategy), "mia_loss_tpr_at_1")
            assert at["tpr"] == pytest.approx(np.mean(each))
            assert (at["low"], at["high"]) == pytest.approx((min(each), max(each)))


@pytest.mark.gate
def test_a_seed_that_diverged_leaves_no_curve(tmp_path: Path) -> None:
    models = {"original": Made(forget=4.0), "retrained": Made(), "lazy": Made(forget=3.0), "lost": Made()}
    folder = make_run(tmp_path / "run", models, table=images(per_patient=10))
    run = RunFolder(folder)
    for request in ("some", "east-leaves"):
        for seed in (7, 8, 9) if request == "some" else (7,):  # all, or one of three
            file = f"signals/lost-{request}-{seed}.parquet"
            run.write_table(file, run.read_table(file) * np.nan)
    manifest = run.read_manifest()
    run.write_manifest({key: manifest[key] for key in manifest if key not in ("sha256", "seal", "audit")})
    score(folder)
    table = pd.read_parquet(folder / "roc.parquet")
    assert set(table["strategy"]) == {"original", "retrained", "lazy"}

"""Measures of models trained a little more: by hand, and from a made-up run folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core import RunError
from fedunlearn.results import tables
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.evidence import Estimate, Evidence, Relearnt
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.judgement.difference import Difference, difference
from fedunlearn.scoring.judgement.verdict import contrary
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import MEASURES, measures_of
from fedunlearn.scoring.measuring import measure
from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, change_manifest, images, make_run, pick
from tests.scoring.test_evidence import TINY, evidence_of, frame_of
from tests.scoring.test_measures import ODDS

PROBES = {one.name: one for one in scored("classification").probed}
KNOWN = measures_of("classification")


def learning(*losses: float, goal: float = 0.1) -> Evidence[Outputs]:
    return replace(evidence_of(frame_of(TINY), ODDS), relearnt=Relearnt(np.array(losses), goal))


@pytest.mark.parametrize(
    ("losses", "epochs"),
    [
        ((0.05,), 0.0),  # below from the start
        ((0.1,), 0.0),  # at it
        ((1.0, 0.5, 0.1), 2.0),
        ((1.0, 0.5, 0.11), math.inf),  # given up
    ],
)
def test_relearn_epochs_by_hand(losses: Sequence[float], epochs: float):
    """The request of TINY names two images."""
    (estimate,) = MEASURES["relearn_epochs"].function(learning(*losses)).values()
    assert (estimate.value, estimate.n) == (epochs, 2)


def test_relearning_that_diverged_is_no_number_of_epochs():
    assert math.isnan(MEASURES["relearn_epochs"].function(learning(math.nan))["all"].value)


@pytest.mark.parametrize(
    ("own", "retrained", "ratio"),
    [
        ((1.0, 0.1), (1.0, 0.9, 0.8, 0.7, 0.1), 0.25),  # 1 / 4
        ((0.1,), (1.0, 0.1), 0.0),
        ((1.0, 0.5), (1.0, 0.1), math.inf),
        ((1.0, 0.1), (0.1,), None),  # a retrained model that needs no epoch
        ((1.0, 0.1), (1.0, 0.5), None),  # or never gets there
    ],
)
def test_relearn_ratio_by_hand(own: Sequence[float], retrained: Sequence[float], ratio: float | None):
    reference = measure(learning(*retrained), KNOWN, None)
    found = measure(learning(*own), KNOWN, reference)["relearn_ratio"]
    assert (found["all"].value if found else None) == ratio


@pytest.mark.parametrize(
    ("losses", "epochs"), [((0.05,), 0), ((1.0, 0.5, 0.1), 2), ((1.0, 0.5, 0.11), 3), ((1.0, 0.9), 2)]
)
def test_relearn_log_by_hand(losses: Sequence[float], epochs: int):
    """ln(1 + epochs); who was given up after 2 (1) epochs counts with 3 (2). Rounding comes to 1 / √12 of one."""
    (estimate,) = MEASURES["relearn_log"].function(learning(*losses)).values()
    assert estimate.value == pytest.approx(math.log(1 + epochs))
    assert estimate.luck == pytest.approx(1 / math.sqrt(12) / (1 + epochs))
    assert math.isnan(MEASURES["relearn_log"].function(learning(1.0, math.nan))["all"].value)


def relearning(rng: np.random.Generator, own: float, seeds: int) -> Difference:
    """Models that need ``own`` times the 8 epochs of retrained ones, give or take 15 %, whole ones and at most 40."""

    def models(epochs: float) -> list[Estimate]:
        needed = np.ceil(epochs * np.exp(rng.normal(0, 0.15, seeds))).astype(int)
        curves = [np.append(np.ones(min(n, 41)), 0.0)[:41] for n in needed]
        return [MEASURES["relearn_log"].function(learning(*curve))["all"] for curve in curves]

    margin = MEASURES["relearn_log"].margin
    assert margin is not None
    return difference(list(zip(models(8 * own), models(8), strict=True)), (), margin, 12)


@pytest.mark.parametrize(
    ("own", "seeds", "least", "most"),
    [
        (1.0, 3, 0.0, 0.04),  # honest retraining: 2 % at most, and 2 s.e. of .7 in 400 draws beside
        (1.0, 8, 0.0, 0.04),
        (6.0, 3, 0.0, 0.0),  # 48 epochs: none is there within 40, which is no sooner
        # ln(5/9) = -.59 with .133 √(2/8): 8.8 of Student's t; the 98 % quantile of 7 degrees is 2.5
        (0.5, 8, 0.99, 1.0),
        (0.05, 3, 0.9, 1.0),  # one epoch: ln(2/9) = -1.5 with .133 √(1/2 + 1/3): 12.4, of 2 degrees 4.8
    ],
)
def test_relearning_counts_if_it_is_sooner_beyond_luck(own: float, seeds: int, least: float, most: float):
    """Retrained models differ among themselves, and nobody can draw patients anew."""
    rng = np.random.default_rng(seeds)
    found = [contrary({"relearn_log": relearning(rng, own, seeds)}, False) for _ in range(400)]
    assert least <= np.mean([bool(one) for one in found]) <= most


def test_relearning_is_told_as_a_share_of_retrainings_epochs():
    """ln 2 - ln 8 = ln .25, thrice, of models without luck but for rounding."""
    own, retrained = (MEASURES["relearn_log"].function(learning(*np.ones(n), 0.0))["all"] for n in (1, 7))
    (reason,) = contrary({"relearn_log": difference([(own, retrained)] * 3, (), 0.3, 12)}, False)
    assert reason.endswith("sooner than retraining does (in 0.25 of its epochs)")


def test_without_a_probe_its_measures_are_left_out():
    evidence = evidence_of(frame_of(TINY), ODDS)
    assert {name for name in KNOWN if not KNOWN[name].function(evidence)} >= set(PROBES)


@pytest.mark.parametrize(("probe", "prefix"), [("linear_probe", "probe"), ("resurgence", "resurgence")])
def test_a_probed_model_is_measured_like_any_other(probe: str, prefix: str):
    """Turned round, what was right is wrong: forget 1/2 stays 1/2, retain 1 becomes 0, an AUC of 3/4 1/4."""
    frame = frame_of(TINY)
    turned = evidence_of(frame, -ODDS).unlearned
    evidence = replace(evidence_of(frame, ODDS), probed={probe: turned})
    expected = {"forget_accuracy": 1 / 2, "retain_accuracy": 0.0, "mia_loss_auc": 1 / 4}
    for name, value in expected.items():
        found = PROBES[f"{prefix}_{name}"].function(evidence)
        assert found["all"].value == pytest.approx(value, abs=1e-12)
        assert found.keys() == MEASURES[name].function(evidence).keys()


def test_a_probe_that_diverged_has_no_numbers():
    frame = frame_of(TINY)
    blank = Outputs(np.full((len(TINY), 2), np.nan), frame.labels)
    evidence = replace(evidence_of(frame, ODDS), probed={"resurgence": blank})
    found = PROBES["resurgence_mia_loss_auc"].function(evidence)
    assert found.keys() == {"all", "site=A"}
    assert all(math.isnan(estimate.value) for estimate in found.values())


@pytest.mark.parametrize(
    ("canaries", "expected"),
    [
        ([0], {"all": 1.0, "site=A": 1.0}),  # image 0 is given its label, which is wrong
        ([0, 1], {"all": 0.5, "site=A": 0.5}),  # image 1 is not
        ([2], {}),  # not to be forgotten
    ],
)
def test_canary_success_by_hand(canaries: list[int], expected: dict[str, float]):
    mask = np.isin(np.arange(len(TINY)), canaries)
    evidence = evidence_of(replace(frame_of(TINY), canary=mask), ODDS)
    found = MEASURES["canary_success"].function(evidence)
    assert {group: estimate.value for group, estimate in found.items()} == expected


# ------------------------------------------------------------------------------------------------ from a folder


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up run. Resurgence leaves the models as they are; to relearn, "good" needs 3 epochs, the retrained 4."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    models = {name: MODELS[name] for name in ("original", "retrained", "good")}
    folder, curves = make_run(tmp_path / "run", models, seeds=(7, 8), table=images(patients=10)), list[Any]()
    for file in (folder / "signals").iterdir():
        strategy, _, rest = file.stem.partition("-")
        request, _, seed = rest.rpartition("-")
        (folder / "probes" / "resurgence" / request).mkdir(parents=True, exist_ok=True)
        copy = folder / "probes" / "resurgence" / request / f"{strategy}-{seed}.parquet"
        copy.write_bytes(file.read_bytes())
        epochs = {"original": 0, "good": 3, "retrained": 4}[strategy]
        curves += [(request, strategy, int(seed), e, epochs - e, 0.5) for e in range(epochs + 1)]
    columns = ["request", "strategy", "seed", "epoch", "loss", "goal"]
    pd.DataFrame(curves[::-1], columns=columns).to_parquet(folder / "probes" / "relearn.parquet")
    change_manifest(folder, probes={"names": ["relearn", "resurgence"]})
    return folder


def test_probes_are_read_from_the_folder(probed: Path):
    scores, _ = score(probed)
    scores = scores[~scores["strategy"].isin(["retrained_other", "damaged"])]  # nobody probes them
    for name in ("forget_accuracy", "retain_accuracy", "mia_loss_auc"):
        one, other = (pick(scores, measure=m)["value"].to_numpy() for m in (name, f"resurgence_{name}"))
        np.testing.assert_array_equal(one, other)
    values = scores.groupby(["measure", "strategy"])["value"].unique()
    assert [values["relearn_epochs", m].tolist() for m in ("original", "good", "retrained")] == [
        [0],
        [3],
        [4],
    ]
    assert values["relearn_ratio", "good"].tolist() == [0.75]
    assert not scores["measure"].str.startswith("probe_").any(), "the run has no such probe"


@pytest.mark.parametrize("file", ["relearn.parquet", "resurgence/some/good-8.parquet"])
def test_a_probe_that_is_missing_is_an_error_that_names_it(probed: Path, file: str):
    (probed / "probes" / file).unlink()
    with pytest.raises(RunError, match=Path(file).name):
        score(probed)


def test_a_model_that_nobody_tried_to_teach_is_an_error(probed: Path):
    file = probed / "probes" / "relearn.parquet"
    table = pd.read_parquet(file)
    table[table["strategy"] != "good"].to_parquet(file)
    change_manifest(probed)
    with pytest.raises(
        RunError, match=r"relearn.parquet has no row of request 'some', strategy 'good', seed 7"
    ):
        score(probed)


def test_the_report_shows_medians_and_who_was_not_in_time(probed: Path):
    """Of two seeds, one of the good model's comes to its goal after 3 epochs and the other never: no median either.

    What is compared is there all the same: that one was given 2 epochs, and counts with 3; ln 4 - ln 5.
    """
    file = probed / "probes" / "relearn.parquet"
    table = pd.read_parquet(file)
    table[(table["seed"] == 7) | (table["strategy"] != "good") | (table["epoch"] < 3)].to_parquet(file)
    change_manifest(probed)
    score(probed)
    apart = pick(pd.read_parquet(probed / "statistics.parquet"), strategy="good", measure="relearn_log")
    assert apart["difference"].tolist() == pytest.approx([math.log(4 / 5)] * 2)  # two requests
    change_manifest(probed)
    shown = {
        line.strategy: line.cells
        for line in tables.lines(RunFolder(probed), "some", tables.probed_of("classification"))
    }
    assert shown["do nothing"][:4] == ("0", ".000", "n/a", "n/a")
    assert shown["retraining"][:2] == ("4", "1.00")
    assert shown["good"][:2] == ("∞", "∞")


@pytest.mark.gate
def test_the_report_of_a_run_without_probes_says_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    models = {name: MODELS[name] for name in ("original", "retrained")}
    folder = make_run(tmp_path / "run", models, seeds=(7, 8), table=images(patients=10))
    score(folder)
    change_manifest(folder)
    assert tables.lines(RunFolder(folder), "some", tables.probed_of("classification")) == []
    assert len(tables.lines(RunFolder(folder), "some")) == 5


def test_canaries_are_read_from_the_table_of_images(probed: Path):
    """East leaves, and 2 of its 6 training patients are canaries; a model knows a label as it knows any."""
    table = pd.read_parquet(probed / "sites.parquet")
    canary = table["patient"].isin(["east-000", "east-001"])
    table.assign(canary=canary).to_parquet(probed / "sites.parquet")
    change_manifest(probed)
    rows = pick(score(probed)[0], measure="canary_success", group="all").set_index(["strategy", "seed"])
    assert set(rows["request"]) == {"east-leaves"}
    signals = pd.read_parquet(probed / "signals" / "good-east-leaves-7.parquet").to_numpy()[canary]
    assert rows.loc[("good", 7), "n"] == 2 * 7
    assert rows.loc[("good", 7), "value"] == (signals.argmax(1) == table["label"][canary]).mean()

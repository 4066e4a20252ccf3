"""What is left of earlier requests: known by construction, in shares that cannot explode."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from fedunlearn.scoring.evidence.reading import read
from fedunlearn.scoring.years import memory
from fedunlearn.scoring.years.memory import Pool
from fedunlearn.scoring.years.models import Looking, looking
from tests.scoring.years.made import KNOWN, year

SOME = st.floats(0.1, 10)


def table(folder: Path) -> tuple[Looking, pd.DataFrame]:
    run = read(folder)
    assert run.year is not None
    look = looking(run, run.year)
    return look, memory.table(look, look.all_seen())


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Without luck every share is what it was made to be."""
    run = year(tmp_path_factory.mktemp("made") / "run", luck=0.0, scored=False)
    return table(run.path)[1]


def test_every_request_has_a_row_at_every_look_since_its_answer(exact: pd.DataFrame):
    own = exact[(exact["policy"] == "at_once") & (exact["strategy"] == "lazy") & (exact["seed"] == 7)]
    assert {r: of["round"].tolist() for r, of in own.groupby("request")} == {
        "r1": [4, 8, 12, 16],
        "r2": [4, 8, 12, 16],
        "r4": [8, 12, 16],
        "r6": [16],
    }
    batch = exact[exact["policy"] == "batch-60d"]
    assert set(batch["round"]) == {12, 16} and set(batch["request"]) == {"r1", "r2", "r4"}  # r6 still waits
    assert exact.groupby("request")["patients"].first().to_dict() == {"r1": 1, "r2": 2, "r4": 1, "r6": 5}


def test_what_is_left_is_what_was_made_to_be_left(exact: pd.DataFrame):
    np.testing.assert_allclose(exact["known"], KNOWN, rtol=1e-5)
    by = exact.set_index(["policy", "strategy", "request", "round"])["memory_left"]
    np.testing.assert_allclose(by.xs("thorough", level="strategy"), 0, atol=1e-6)
    for request, first in (("r1", 4), ("r4", 8)):
        np.testing.assert_allclose(by.loc["at_once", "lazy", request, first], 0.5, atol=1e-6)
        np.testing.assert_allclose(by.loc["at_once", "lazy", request, 16], 0.75, atol=1e-6)


def test_requests_are_pooled_by_their_patients_and_what_comes_back_is_paired(exact: pd.DataFrame):
    """At the end r1, r2 and r4 (1 + 2 + 1 patients) are at .75, r6 (5) at .5; the three first had .5 as well."""
    own = exact[(exact["policy"] == "at_once") & (exact["strategy"] == "lazy")]
    left = memory.pooled(own[own["round"] == 16])
    assert left.value == pytest.approx((4 * 0.75 + 5 * 0.5) / 9, abs=1e-6) and left.requests == 4
    assert 0.5 - 1e-6 <= left.low < left.value < left.high <= 0.75 + 1e-6
    back = memory.back(own, 16)
    assert back.value == pytest.approx(0.25, abs=1e-6) and back.requests == 3
    assert back.low == pytest.approx(0.25, abs=1e-6) and back.high == pytest.approx(0.25, abs=1e-6)
    assert math.isnan(memory.back(own, 4).value)  # all first looks


def test_a_request_that_the_original_did_not_know_has_no_share(tmp_path: Path):
    nothing = table(year(tmp_path / "run", known=0.0, luck=0.3, scored=False).path)[1]
    assert nothing["memory_left"].isna().mean() > 0.9
    thorough = nothing[(nothing["policy"] == "at_once") & (nothing["strategy"] == "thorough")]
    assert math.isnan(memory.pooled(thorough[thorough["round"] == 16]).value)


def test_luck_moves_single_images_more_than_patients(tmp_path: Path):
    """Of luck that images do not share, the mean of 4 has half; r1 is a patient of 4 images, r4 names 2 of one."""
    run = read(year(tmp_path / "run", seeds=(7,), luck=0.3, scored=False).path)
    assert run.year is not None
    look = looking(run, run.year)
    seen = look.all_seen() | {"never-16-7": look.seen("never-4-7")}  # which has other luck than original-16-7
    found = memory.table(look, seen).query("policy == 'at_once' and strategy == 'lazy' and round == 16")
    noise = found.set_index("request")["noise"]
    image = 0.3 * math.sqrt(2)
    assert noise["r4"] == pytest.approx(image / math.sqrt(2), rel=0.25)
    assert noise["r1"] == pytest.approx(image / math.sqrt(4), rel=0.35)
    assert noise["r2"] == pytest.approx(noise["r1"] / math.sqrt(2)) and noise["r4"] > 1.1 * noise["r1"]


def test_who_can_be_compared_with_nobody_is_in_no_mean(tmp_path: Path):
    """West has nothing held out: of its patients nothing is known, and the others' mean is theirs alone."""
    run = year(tmp_path / "run", luck=0.0, scored=False)
    sites = run.read_table("sites.parquet")
    sites.loc[(sites["site"] == "west") & (sites["split"] == "test"), "split"] = "val"
    run.write_table("sites.parquet", sites)
    run.write_manifest(run.read_manifest())
    look, found = table(run.path)
    west = found[found["request"] == "r6"]
    assert (west["patients"] == 0).all() and west["memory_left"].isna().all() and len(west)
    own = found[(found["policy"] == "at_once") & (found["strategy"] == "lazy") & (found["round"] == 16)]
    assert memory.pooled(own).value == pytest.approx(0.75, abs=1e-6) and memory.pooled(own).requests == 3
    assert len(look.staying) == 2


def test_a_model_that_diverged_leaves_no_share(tmp_path: Path):
    run = year(tmp_path / "run", luck=0.0, scored=False)
    lost = [{"model": "at_once-lazy-16-8", "where": "in round 2"}]
    run.write_manifest({**run.read_manifest(), "diverged": lost})
    found = table(run.path)[1]
    end = found[(found["policy"] == "at_once") & (found["strategy"] == "lazy") & (found["round"] == 16)]
    assert end[end["seed"] == 8]["memory_left"].isna().all()
    assert end[end["seed"] == 7]["memory_left"].notna().all()
    assert math.isnan(memory.pooled(end).value)


def pool(left: np.ndarray, known: np.ndarray, patients: np.ndarray) -> Pool:
    return Pool(left, known, 0.0, patients)


@given(arrays(np.float64, (3, 4), elements=SOME), arrays(np.float64, 4, elements=SOME), st.floats(-2, 2))
def test_a_share_of_each_is_the_share_of_all(known: np.ndarray, patients: np.ndarray, share: float):
    of = pool(share * known, known, patients)
    assert of.value == pytest.approx(share, abs=1e-9)
    draws = memory._draws(3, 4)
    np.testing.assert_allclose(of.replicates(*draws), share, atol=1e-9)


@given(
    arrays(np.float64, (2, 4), elements=SOME),
    arrays(np.float64, (2, 4), elements=SOME),
    arrays(np.float64, 4, elements=SOME),
)
def test_a_mean_lies_between_its_requests_whatever_they_are(
    left: np.ndarray, known: np.ndarray, patients: np.ndarray
):
    shares = left.mean(axis=0) / known.mean(axis=0)
    value = pool(left, known, patients).value
    assert shares.min() - 1e-9 <= value <= shares.max() + 1e-9
    order = [2, 0, 3, 1]
    again = pool(left[:, order], known[:, order], patients[order]).value
    assert again == pytest.approx(value, rel=1e-12)


@pytest.mark.further
@pytest.mark.rounding
def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """30 requests of one patient and 3 seeds, of whom .3 is left in truth; each has luck of its own."""
    rng, hits, tries = np.random.default_rng(0), 0, 200
    for _ in range(tries):
        known = 2 + 0.5 * rng.normal(size=30) + 0.3 * rng.normal(size=(3, 30))
        left = 0.3 * 2 + 0.5 * rng.normal(size=30) + 0.3 * rng.normal(size=(3, 30))
        of = Pool(left, known, 0.1, np.ones(30))
        found = memory._share(of.value, of.replicates, of)
        hits += found.low <= 0.3 <= found.high
    assert 0.90 <= hits / tries <= 0.995

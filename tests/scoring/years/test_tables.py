"""What a scored run says of its year: the same numbers wherever they stand, costs by hand, nothing twice."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from fedunlearn.core import RunError
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.score import tables
from fedunlearn.scoring.years import answers, course, memory, summary
from fedunlearn.scoring.years.tables import WRITTEN
from tests.scoring.made import pick
from tests.scoring.years.made import LOOKS, POLICIES, SEEDS, year


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return year(tmp_path_factory.mktemp("made") / "run")


def came_to(run: RunFolder, policy: str, strategy: str) -> pd.DataFrame:
    return pick(run.read_table("policies.parquet"), policy=policy, strategy=strategy).set_index("measure")


def test_every_table_has_its_columns_and_scoring_again_changes_nothing(run: RunFolder):
    for name, of in zip(WRITTEN, (answers, memory, course, summary), strict=True):
        assert list(run.read_table(name).columns) == list(of.COLUMNS)
    again = tables(run.path)
    for name in WRITTEN:
        pd.testing.assert_frame_equal(again[name], run.read_table(name))


def test_every_walk_has_every_measure_at_every_look_once(run: RunFolder):
    found = run.read_table("years.parquet")
    assert not found.duplicated(["policy", "strategy", "seed", "round", "measure"]).any()
    walks = found[found["policy"] != ""].groupby(["policy", "strategy", "seed", "round"])["measure"].agg(set)
    assert len(walks) == sum(len(p[1]) for p in POLICIES.values()) * len(SEEDS) * len(LOOKS)
    assert len({frozenset(measures) for measures in walks}) == 1
    references = found[found["policy"] == ""]
    assert set(references["strategy"]) == {"original", "retrained"}
    assert len(pick(references, measure="test_accuracy")) == 2 * len(SEEDS) * len(LOOKS)


def test_at_the_end_quality_is_that_of_the_scores(run: RunFolder):
    scores, found = run.read_table("scores.parquet"), run.read_table("years.parquet")
    end = found[found["round"] == LOOKS[-1]].set_index(["policy", "strategy", "seed", "measure"])["value"]
    for policy, (_, strategies, _) in POLICIES.items():
        own = pick(scores, request=policy, group="all").set_index(["strategy", "seed", "measure"])["value"]
        sites = scores[(scores["request"] == policy) & scores["group"].isin(["site=north", "site=east"])]
        for seed in SEEDS:
            for strategy in (*strategies, "original", "retrained"):
                of = "" if strategy in ("original", "retrained") else policy
                for measure, same in (
                    ("test_accuracy", "test_accuracy"),
                    ("calibration_error", "test_calibration_error"),
                ):
                    assert end[of, strategy, seed, measure] == pytest.approx(own[strategy, seed, same])
                worst = pick(sites, strategy=strategy, seed=seed, measure="test_accuracy")["value"].min()
                assert end[of, strategy, seed, "worst_site_accuracy"] == pytest.approx(worst)


def test_where_all_were_answered_memory_is_that_of_the_verdict(run: RunFolder):
    statistics = run.read_table("statistics.parquet")
    for strategy in ("thorough", "lazy"):
        (same,) = pick(statistics, request="at_once", strategy=strategy, measure="memory_left", group="all")[
            "difference"
        ]
        assert came_to(run, "at_once", strategy).loc["memory_left", "value"] == pytest.approx(same)


def test_differences_are_those_of_the_statistics(run: RunFolder):
    statistics = run.read_table("statistics.parquet")
    own = pick(statistics, request="batch-60d", strategy="lazy", measure="test_accuracy")
    found = came_to(run, "batch-60d", "lazy")
    (whole,) = own[own["group"] == "all"].to_dict("records")
    mine = {key: found[key]["test_difference"] for key in ("value", "low", "high", "n")}
    assert list(mine.values()) == [whole[key] for key in ("difference", "low", "high", "patients")]
    sites = own[own["group"].str.startswith("site=")].set_index("group")["difference"]
    assert found["value"]["worst_site_difference"] == sites.min()
    assert "site=" + found["place"]["worst_site_difference"] == sites.idxmin()


def test_what_answering_cost_is_measured_against_training_anew_each_time(run: RunFolder):
    """60 images are trained on, 100 passes a round. 2 rounds with 56 of them, 3 with 48, 8 with 46, and after the
    opt-out of 4 and the hospital's 20, 13 rounds with 22."""
    anew = [100 * (2 * 56), 100 * (3 * 48), 100 * (8 * 46), 100 * (13 * 22)]
    whole = sum(anew) / 60
    found = run.read_table("years.parquet")
    reference = pick(found, strategy="retrained", measure="images", seed=7).set_index("round")["value"]
    assert reference.to_dict() == pytest.approx(
        {4: sum(anew[:2]) / 60, 8: sum(anew[:3]) / 60, 12: sum(anew[:3]) / 60, 16: whole}
    )
    own = came_to(run, "at_once", "thorough")["value"]
    assert own["images"] == 4 * 40 and own["share_of_retraining"] == pytest.approx(160 / whole)
    assert own["site_seconds"] == 4 * 1.5 and own["bytes"] == 4 * 30
    batch = came_to(run, "batch-60d", "thorough")["value"]
    assert batch["images"] == 40 and batch["share_of_retraining"] == pytest.approx(40 / whole)
    scores = pick(run.read_table("scores.parquet"), measure="images", strategy="thorough", group="all")
    assert set(pick(scores, request="at_once")["value"]) == {160.0}
    assert set(pick(scores, request="batch-60d")["value"]) == {40.0}
    retrained = pick(run.read_table("scores.parquet"), measure="images", strategy="retrained", group="all")
    assert set(retrained["value"]) == {16 * 100.0}  # once, all the way


def test_what_a_policy_came_to(run: RunFolder):
    batch, at_once = (came_to(run, policy, "lazy")["value"] for policy in ("batch-60d", "at_once"))
    assert (batch["accepted"], batch["answered"]) == (4, 3)
    assert (batch["late"], batch["late_three"]) == (0.5, 0.0)
    assert batch["median_days"] == 44 and math.isinf(batch["most_days"])  # of 13, 44, 54 and one without end
    assert (batch["waiting_days"], batch["blocked_days"]) == (70, 0)
    assert (at_once["late"], at_once["median_days"], at_once["most_days"]) == (0, 3, 6)
    share = came_to(run, "batch-60d", "lazy").loc["late"]
    assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1


def test_who_was_held_back_until_the_end_is_not_left_out_of_lateness():
    """Else the stricter a quota was, the better its policy would look."""
    days = pd.to_datetime(["2026-01-15", "NaT", "NaT", "NaT"])
    rows = {
        "kind": "patients",
        "state": ["unlearned", "open", "open", "refused"],
        "reason": ["", "quota", "", "duplicate"],  # the third came in after the last meeting
        "answered": days,
        "days": [5.0, math.nan, math.nan, math.nan],
        "late": [0, 40, 0, 90],
        "late_three": 0,
    }
    found = {row[0]: row[1] for row in summary._lateness(pd.DataFrame(rows))}
    assert (found["accepted"], found["answered"], found["late"]) == (2, 1, 0.5)
    assert math.isinf(found["most_days"])


def test_a_manifest_that_is_not_of_a_year_is_told(tmp_path: Path):
    run = year(tmp_path / "run", seeds=(7,), scored=False)
    manifest = run.read_manifest()
    del manifest["docket"]
    run.write_manifest(manifest)
    with pytest.raises(RunError, match="not the manifest of a run: KeyError: 'docket'"):
        tables(run.path)

"""A year of requests as frames and in words, against the tables that they are made of."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedunlearn.api.run import Run
from fedunlearn.results import almanac, overview, report, years
from fedunlearn.results.columns import OF_YEARS
from fedunlearn.results.held import Held
from fedunlearn.results.runfolder import RunFolder, parquet
from tests.scoring.made import pick
from tests.scoring.years.made import LOOKS, POLICIES, SEEDS, year

ROW = {"policy": "p", "strategy": "s", "late": 0.0, "cost": 1.0, "memory_left": 0.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        return year(tmp_path_factory.mktemp("year") / "run")


@pytest.mark.parametrize("name", list(OF_YEARS))
def test_every_frame_has_the_columns_that_are_described(run: RunFolder, name: str):
    found = getattr(years, name)(Held(run))
    assert list(found.columns) == list(OF_YEARS[name]) and len(found)
    assert found.index.equals(pd.RangeIndex(len(found)))
    assert not found.isna().all().any()


def test_numbers_are_those_of_the_tables(run: RunFolder):
    table = run.read_table("policies.parquet")
    verdicts = run.read_table("verdicts.parquet").set_index(["request", "strategy"])
    found = years.policies(run)
    assert [tuple(x) for x in found[["policy", "strategy"]].to_numpy()] == [
        (policy, strategy) for policy, (_, strategies, _) in POLICIES.items() for strategy in strategies
    ]
    for row in found.to_dict("records"):
        own = pick(table, policy=row["policy"], strategy=row["strategy"]).set_index("measure")
        for column, measure in (
            ("late", "late"),
            ("cost", "share_of_retraining"),
            ("memory_left", "memory_left"),
        ):
            ends = [own[end][measure] for end in ("value", "low", "high")]
            np.testing.assert_equal([row[column], row[f"{column}_low"], row[f"{column}_high"]], ends)
        assert row["worst_site"] == own["place"]["worst_site_difference"]
        same = verdicts.loc[(row["policy"], row["strategy"])]
        assert (row["forgotten"], row["useful"]) == (same["forgotten"], same["useful"])


def test_courses_are_means_over_seeds(run: RunFolder):
    table, found = run.read_table("years.parquet"), years.courses(run)
    own = pick(table, policy="at_once", strategy="lazy", measure="memory_left", round=8)["value"]
    (row,) = pick(found, policy="at_once", strategy="lazy", measure="memory_left", round=8).to_dict("records")
    assert (row["value"], row["low"], row["high"], row["seeds"]) == (
        own.mean(),
        own.min(),
        own.max(),
        len(SEEDS),
    )
    assert set(pick(found, policy="")["name"]) == {"do nothing", "retraining"}


def test_a_request_is_remembered_by_the_share_of_means(run: RunFolder):
    table, found = run.read_table("memory.parquet"), years.remembered(run)
    own = pick(table, policy="at_once", strategy="lazy", request="r2", round=LOOKS[-1])
    (row,) = pick(found, policy="at_once", strategy="lazy", request="r2", round=LOOKS[-1]).to_dict("records")
    assert row["memory_left"] == pytest.approx(own["left"].mean() / own["known"].mean())
    assert row["memory_left"] == pytest.approx(0.75, abs=0.1)


def test_how_late_each_request_was(run: RunFolder):
    found = years.timeline(run).set_index(["policy", "request"])["how"]
    assert found.loc["at_once"].to_dict() == {
        **dict.fromkeys(("r1", "r2", "r4", "r5", "r6"), "within a month"),
        "r3": "refused",
        "r7": "still open",
    }
    batch = found.loc["batch-60d"]
    assert batch["r1"] == "within three months" and batch["r6"] == "still open"
    table = run.read_table("calendar.parquet")
    late = table.assign(late=90, late_three=30).query("state in ['open', 'waiting']").to_dict("records")
    assert {years._kind(row) for row in late} == {"still open"}  # nobody was answered, however late that is


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{}, {"cost": 2.0}], [True, False]),  # dearer, and no better
        ([{}, {"cost": 0.5, "late": 0.1}], [True, True]),  # cheaper, but later
        ([{"memory_left": -0.3}, {}], [True, True]),  # less than nothing is no less
        (
            [{"memory_left": math.nan}, {"memory_left": 0.1}],
            [False, True],
        ),  # of who diverged nothing is known
        ([{"memory_left": math.nan}, {"cost": 2.0}], [False, True]),  # nor does that keep others away
        ([{}, {}], [True, True]),
    ],
)
def test_who_is_on_the_front(rows: list[dict[str, float]], expected: list[bool]):
    assert years._front([ROW | row for row in rows]) == expected


def test_the_terminal_tells_of_it_in_80_columns(run: RunFolder):
    shown = io.StringIO()
    report.show(run, Console(file=shown, width=80))
    told = shown.getvalue()
    assert max(map(len, told.splitlines())) <= 80
    words = " ".join(told.split())
    assert "A year of requests, 2026-01-01 to 2026-04-23" in words
    assert (
        "7 requests came in: 5 were accepted (1 of them with nothing to unlearn, such as opt-outs), 1 refused"
        in words
    )
    assert "at_once: all 4 within a month." in words
    assert "batch-60d: 2 of 4 later than a month (50 %), 0 later than three; 1 waits at the end." in words
    assert "at_once: forget all 4 accepted requests; models when the year ends" in words
    assert told.index("A year of requests") < told.index("CAN THIS RUN TELL?")


def test_a_title_says_who_still_waits(run: RunFolder):
    manifest = run.read_manifest()
    batch = next(one for one in manifest["moments"] if one["id"] == "batch-60d")
    ends = "models when the year ends, while 1 of 4 requests still waits to be unlearned (r6)"
    assert overview.asked(batch, manifest).endswith(ends)
    manifest["policies"][1]["waiting"] = [f"r{number}" for number in range(7)]
    assert overview.asked(batch, manifest).endswith(
        "7 of 10 requests still wait to be unlearned (r0, r1, r2, r3, r4, …)"
    )


def test_a_policy_that_unlearns_nothing_is_told_of(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    """It has no model, and so no row anywhere else."""
    shown = years.timeline(run)
    never = shown[shown["policy"] == "batch-60d"].assign(policy="batch-400d")
    late = never["request"].isin(["r1", "r2"])
    never = never.assign(late=late * 9, late_three=0)
    never.loc[never["state"] == "unlearned", "state"] = "waiting"
    monkeypatch.setattr(years, "timeline", lambda _: pd.concat([shown, never]))
    told = almanac.sentences(Held(run))
    assert told[3] == (
        "batch-400d: none of 4 was unlearned by the end; 2 are later than a month, 0 later than three. So there is no "
        "model to show."
    )


def test_the_two_memories_are_told_apart(run: RunFolder):
    for told in (report.markdown(run), " ".join(text.plain.strip() for text in almanac.lines(run))):
        assert told.count(almanac.TWO_MEMORIES) == 1


def test_a_document_has_the_same(run: RunFolder):
    told = report.markdown(run)
    assert told.startswith("**A year of requests, 2026-01-01 to 2026-04-23**")
    assert "| batch-60d: lazy | 50 | 0 | 44 | 0 |" in told


def test_the_details_still_have_every_policy(run: RunFolder):
    shown = io.StringIO()
    report.show(run, Console(file=shown, width=80), details=True)
    assert "batch-60d: forget all 4 accepted requests; models when the year ends" in shown.getvalue()


def test_the_best_is_the_cheapest_that_was_in_time_forgot_and_is_good():
    good = {**ROW, "forgotten": "yes", "useful": "yes", "strategy": "dear", "cost": 1.0}
    rows = [
        good,
        good | {"strategy": "cheap", "cost": 0.1},
        good | {"strategy": "late", "cost": 0.01, "late": 0.2},
    ]
    (told,) = almanac.best(rows)
    assert told.startswith("Best: p with cheap, the cheapest of 2") and told.endswith(
        "at 10 % of training anew on each day of acceptance."
    )
    (told,) = almanac.best([row | {"useful": "cannot tell"} for row in rows])
    assert told.startswith("No policy and strategy is known")


def test_what_nobody_can_tell_is_said():
    row = {
        "answered": 3.0,
        "memory_left": math.nan,
        "memory_left_low": math.nan,
        "memory_left_high": math.nan,
    }
    assert "no more of these people than luck" in almanac.memory(row)
    assert almanac.memory(row | {"answered": 0.0}) == "nothing was unlearned"
    assert almanac.days(math.inf) == "∞"


def test_programs_have_the_same_frames(run: RunFolder):
    held = Run(run.path)
    pd.testing.assert_frame_equal(held.policies, years.policies(run))
    pd.testing.assert_frame_equal(held.calendar, years.timeline(run))
    pd.testing.assert_frame_equal(held.years, years.courses(run))
    pd.testing.assert_frame_equal(held.requests_remembered, years.remembered(run))
    for chart in (
        held.plot.year(),
        held.plot.frontier(),
        held.plot.frontier("late"),
        held.plot.course("at_once"),
    ):
        assert chart.to_dict()["layer"]
    assert len(held.curves) == 0


def test_a_run_without_a_calendar_has_none(tmp_path: Path):
    from tests.pages.made import folder

    plain = folder(tmp_path / "run", seeds=(7,))
    for name, columns in OF_YEARS.items():
        found = getattr(years, name)(plain)
        assert list(found.columns) == list(columns) and found.empty
    assert almanac.lines(plain) == [] and almanac.markdown(plain) == []


def test_names_do_nothing_to_a_terminal(run: RunFolder, tmp_path: Path):
    import shutil

    shutil.copytree(run.path, tmp_path / "run")
    other = RunFolder(tmp_path / "run")
    table = other.read_table("policies.parquet").replace({"policy": {"at_once": "\x1b[31m[red]a|b\n"}})
    other.renew({"policies.parquet": parquet(table)})
    told = "\n".join(str(one) for one in almanac.lines(other))
    assert "\x1b" not in told and "\\x1b[31m[red]a|b" in told

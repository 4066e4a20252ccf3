"""Charts of a year: every request and number is somewhere, however many there are and whatever they are called."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest

from fedunlearn.charts import frontier, timeline, years
from fedunlearn.charts.layers import Spec
from fedunlearn.results.columns import OF_YEARS
from fedunlearn.results.years import HOW
from tests.charts.conftest import Draw

HOSTILE = "<script>alert(1)</script>\n‮" + "x" * 10_000
START = pd.Timestamp("2026-01-01")


def requests(policies: list[str], count: int = 8) -> pd.DataFrame:
    rows = [
        {
            "policy": policy,
            "request": f"r{i}",
            "kind": "patients",
            "site": "north",
            "state": "unlearned" if i % 5 < 3 else "open",
            "received": START + pd.Timedelta(days=7 * i),
            "answered": START + pd.Timedelta(days=7 * i + 40 * (i % 5)) if i % 5 < 3 else pd.NaT,
            "due": START + pd.Timedelta(days=7 * i + 31),
            "end": START + pd.Timedelta(days=364),
            "days": 40.0 * (i % 5),
            "late": 9 * (i % 5),
            "late_three": 0,
            "how": HOW[i % 5],
        }
        for policy in policies
        for i in range(count)
    ]
    return pd.DataFrame(rows).reindex(columns=list(OF_YEARS["timeline"]))


def courses(policies: list[str], strategies: list[str]) -> pd.DataFrame:
    walks = [("", "original"), ("", "retrained"), *((p, s) for p in policies for s in strategies)]
    rows = [
        {
            "policy": policy,
            "strategy": strategy,
            "name": strategy,
            "measure": measure,
            "round": boundary,
            "date": START + pd.Timedelta(days=7 * boundary),
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "seeds": 2,
        }
        for policy, strategy in walks
        for measure in ("test_accuracy", *(["memory_left"] if policy else []))
        for boundary in (4, 8, 12)
        for value in [0.01 * boundary]
    ]
    return pd.DataFrame(rows)


def walks(policies: list[str], strategies: list[str]) -> pd.DataFrame:
    rows = [
        {"policy": p, "strategy": s, "name": s, "front": (i + j) % 2 == 0, "cost": 0.02 * 3 ** (i + j)}
        for i, p in enumerate(policies)
        for j, s in enumerate(strategies)
    ]
    found = pd.DataFrame(rows)
    for name, value in (("late", 0.1), ("memory_left", 0.2)):
        found = found.assign(**{name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1})
    return found.assign(cost_low=found["cost"], cost_high=found["cost"]).reindex(
        columns=list(OF_YEARS["policies"])
    )


def labels(spec: Spec, mark: str) -> list[str]:
    return [
        row["label"]
        for layer in spec["layer"]
        if layer["mark"]["type"] == mark and "description" in layer["encoding"]
        for row in spec["datasets"][layer["data"]["name"]]
    ]


def valid(spec: Spec) -> None:
    """By Altair's schema of Vega-Lite."""
    alt.LayerChart.from_dict(spec)


def test_every_request_has_a_line_under_every_policy():
    spec = years.timeline(requests(["at_once", "batch"]))
    valid(spec)
    told = labels(spec, "point")
    assert len(told) == 16
    assert (
        "r1 (north), at_once: unlearned on 2026-02-17, after 40 days; 9 days late; received 2026-01-08"
        in told[1]
    )
    assert "not answered when the year ended" in told[3]


@pytest.mark.gate
def test_a_thousand_requests_have_room(draw: Draw):
    spec = years.timeline(requests(["at_once"], 1000))
    assert spec["height"]["step"] < 500
    assert draw(spec, 330).count("data-label") == 1000


def test_lines_have_the_same_colours_under_every_policy():
    frame = courses(["a", "b"], ["x", "y"])
    ends = years.span(frame, "memory_left")
    for policy in ("a", "b"):
        spec = years.course(frame, policy, "memory_left", ends)
        valid(spec)
        (line,) = [one for one in spec["layer"] if one["mark"]["type"] == "line"]
        assert line["encoding"]["color"]["scale"]["domain"] == ["x", "y"]
        assert tuple(line["encoding"]["y"]["scale"]["domain"]) == ends
        assert len(labels(spec, "point")) == 6
    spec = years.course(frame, "a", "test_accuracy")
    valid(spec)
    assert len(labels(spec, "point")) == 12  # both references too


def test_the_months_are_told(draw: Draw):
    picture = draw(years.course(courses(["a"], ["x"]), "a", "memory_left"), 640)
    assert ">Feb<" in picture and ">Mar<" in picture and ">2026" not in picture


@pytest.mark.parametrize("against", ["memory_left", "late"])
def test_the_frontier_has_a_mark_for_every_policy_and_strategy(against: str, draw: Draw):
    spec = years.frontier(walks(["a", "b", "c"], ["x", "y", "z"]), against)
    valid(spec)
    told = labels(spec, "point")
    assert len(told) == 9
    assert told[0] == (
        "a, x: cost 2 % of training anew on each day of acceptance; memory left 20 % (95 %: 10 % to 30 %); "
        "late 10 % (95 %: 0 % to 20 %)"
    )
    assert draw(spec, 330).count("data-label") == 9


def test_what_is_unknown_is_left_out_and_free_work_is_drawn_at_the_edge(draw: Draw):
    frame = walks(["a", "b"], ["x", "y"])
    frame.loc[0, "memory_left"], frame.loc[1, "cost"] = np.nan, 0.0
    spec = years.frontier(frame)
    valid(spec)
    assert len(labels(spec, "point")) == 3
    assert draw(spec, 640).count("data-label") == 3


@pytest.mark.parametrize("width", [330, 1080])
def test_names_do_nothing(width: int, draw: Draw):
    specs: list[Any] = [
        years.timeline(requests([HOSTILE, "b"])),
        years.course(courses([HOSTILE], [HOSTILE]), HOSTILE, "memory_left"),
        years.frontier(walks([HOSTILE], [HOSTILE, "y"])),
    ]
    for spec in specs:
        valid(spec)
        picture = draw(spec, width)
        assert "<script" not in picture and "‮" not in picture and len(picture) < 60_000


def test_notebooks_have_them_as_altairs():
    assert isinstance(timeline(requests(["a"])), alt.LayerChart)
    assert isinstance(frontier(walks(["a"], ["x"])), alt.LayerChart)

"""A sweep over streams of requests: what policies come to whenever people ask, by hand."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import t

from fedunlearn.results import years
from fedunlearn.results.columns import STREAMS
from fedunlearn.results.runfolder import RunFolder, parquet
from fedunlearn.sweep import table
from tests.pages.made import folder
from tests.scoring.years.made import year

COSTS = (0.10, 0.12, 0.20)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three streams that differ in what at_once with lazy cost, and in whether memory could be seen."""
    place = tmp_path_factory.mktemp("swept") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        first = year(place / "cells" / "seed-0")
    cells = []
    for i, cost in enumerate(COSTS):
        path = place / "cells" / f"seed-{i}"
        if i:
            shutil.copytree(first.path, path)
        run = RunFolder(path)
        found = run.read_table("policies.parquet")
        lazy = (found["policy"] == "at_once") & (found["strategy"] == "lazy")
        found.loc[lazy & (found["measure"] == "share_of_retraining"), "value"] = cost
        if i == 2:
            found.loc[lazy & (found["measure"] == "memory_left"), "value"] = np.nan
        run.renew({"policies.parquet": parquet(found)})
        cells.append({"slug": path.name, "values": {"arrivals.seed": i}})
    (place / "sweep.json").write_text(json.dumps({"name": "streams", "cells": cells}), encoding="utf-8")
    return place


def test_means_and_intervals_are_over_streams(swept: Path) -> None:
    ((title, found),) = table.streams(swept)
    assert title == "Over 3 streams of requests; ±: 95 % over streams"
    assert list(found.columns) == list(STREAMS)
    by = {(r["policy"], r["strategy"], r["measure"]): r for r in found.to_dict("records")}
    row = by["at_once", "lazy", "cost"]
    half = t(2).ppf(0.975) * np.std(COSTS, ddof=1) / np.sqrt(3)
    assert row["value"] == pytest.approx(0.14) and row["high"] - row["value"] == pytest.approx(half)
    assert (row["least"], row["most"], row["streams"]) == (0.10, 0.20, 3)
    assert by["at_once", "lazy", "memory_left"]["streams"] == 2
    late = by["batch-60d", "lazy", "late"]
    assert (late["value"], late["low"], late["high"]) == (0.5, 0.5, 0.5)


def test_the_summary_of_a_sweep_tells_of_them(swept: Path) -> None:
    shown = io.StringIO()
    table.show(swept, Console(file=shown, width=80))
    told = shown.getvalue()
    assert "Over 3 streams of requests" in told and "14 ±13" in told
    document = table.markdown(swept)
    assert "| at_once: lazy | 0 ±0 | 0 ±0 | 14 ±13 |" in document


def test_a_single_stream_has_no_interval(swept: Path) -> None:
    found = years.streams([RunFolder(swept / "cells" / "seed-0")])
    assert found["low"].isna().all() and found["high"].isna().all()
    cost = found[
        (found["policy"] == "at_once") & (found["strategy"] == "lazy") & (found["measure"] == "cost")
    ]
    assert cost["value"].tolist() == [COSTS[0]] and cost["streams"].tolist() == [1]


def test_runs_without_a_calendar_have_no_streams(tmp_path: Path) -> None:
    found = years.streams([folder(tmp_path / "run", seeds=(7,))])
    assert list(found.columns) == list(STREAMS) and found.empty

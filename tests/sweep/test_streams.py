"""A sweep over streams of requests: what policies come to whenever people ask, by hand."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console
from scipy.stats import t

from fedunlearn import comparison
from fedunlearn.comparison.table import lines
from fedunlearn.core import InputError
from fedunlearn.results import almanac, years
from fedunlearn.results.columns import STREAMS
from fedunlearn.results.runfolder import RunFolder, parquet
from fedunlearn.sweep import table
from tests.pages.made import folder
from tests.pages.reading import parsed
from tests.scoring.years.made import year
from tests.test_cli import call

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
        manifest = run.read_manifest()
        manifest["docket"][0]["received"] = f"2026-01-{10 + i}"
        run.write_manifest(manifest)
        run.renew({"policies.parquet": parquet(found)})
        cells.append({"slug": path.name, "values": {"arrivals.seed": i}})
    (place / "sweep.json").write_text(json.dumps({"name": "streams", "cells": cells}), encoding="utf-8")
    return place


def test_means_and_intervals_are_over_streams(swept: Path) -> None:
    ((title, found),) = table.streams(swept)
    assert title == "Over 3 streams of requests"
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
    found = years.streams([years.policies(RunFolder(swept / "cells" / "seed-0"))])
    assert found["low"].isna().all() and found["high"].isna().all()
    cost = found[
        (found["policy"] == "at_once") & (found["strategy"] == "lazy") & (found["measure"] == "cost")
    ]
    assert cost["value"].tolist() == [COSTS[0]] and cost["streams"].tolist() == [1]


def test_runs_without_a_calendar_have_no_streams(tmp_path: Path) -> None:
    found = years.streams([years.policies(folder(tmp_path / "run", seeds=(7,)))])
    assert list(found.columns) == list(STREAMS) and found.empty


def test_it_is_counted_who_is_best_and_who_is_on_the_front(swept: Path) -> None:
    """By hand: in one of two streams the dear one is late; whoever is not in time, or did not forget, is never best."""
    frame = years.policies(RunFolder(swept / "cells" / "seed-0")).iloc[:2]
    good = frame.assign(forgotten="yes", useful="yes", late=0.0, cost=[0.5, 0.1], front=[False, True])
    other = good.assign(late=[0.0, 0.1], front=[True, True])
    found = years.streams([good, other])
    by = {(r["strategy"], r["measure"]): r["value"] for r in found.to_dict("records")}
    assert (by["thorough", "best"], by["lazy", "best"]) == (0.5, 0.5)
    assert (by["thorough", "front"], by["lazy", "front"]) == (0.5, 1.0)
    endless = years.streams([good.assign(median_days=np.inf), good])
    days = endless[endless["measure"] == "median_days"]
    assert np.isinf(days["value"]).all() and days["low"].isna().all()  # half of the people had no answer
    none = years.streams([good.assign(useful="cannot tell")])
    assert none[none["measure"] == "best"]["value"].tolist() == [0.0, 0.0]


def test_runs_side_by_side_tell_of_them_too(swept: Path, tmp_path: Path) -> None:
    runs = comparison.read([swept / "cells" / f"seed-{i}" for i in range(3)])
    told = "\n".join(text.plain for text in lines(runs))
    assert max(map(cell_len, told.splitlines())) <= 80
    assert "A year of requests, over 3 streams (runs 1-3)" in told and "14 ±13" in told and "0 of 3" in told
    comparison.write(runs, tmp_path / "page.html")
    page = parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    rows = {
        tuple(cell.text for cell in (*row.all("th"), *row.all("td")))[:2]: [c.text for c in row.all("td")]
        for row in page.by_id("years").all("tbody")[0].all("tr")
    }
    assert rows["at_once", "lazy"][4] == "14 ±13" and rows["at_once", "lazy"][-2:] == [
        "0 of 3",
        "1 of 3",
    ]  # thorough costs .105, and of the third stream's memory nothing is known
    assert rows["at_once", "lazy"][5].endswith(" (2)")
    alone = "\n".join(text.plain for text in lines(runs[:1]))
    assert "A year of requests" not in alone


def test_only_runs_that_differ_in_their_stream_are_put_together(swept: Path, tmp_path: Path) -> None:
    """Of five, the second is the first once more, and the last trains for longer."""
    cells = [swept / "cells" / f"seed-{i}" for i in range(3)]
    for name, text in (("copy", ""), ("longer", "training: {rounds: 99}\narrivals: {seed: 5}\n")):
        shutil.copytree(cells[0], tmp_path / name)
        file = tmp_path / name / "scenario.yaml"
        file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
    runs = comparison.read([cells[0], tmp_path / "copy", *cells[1:], tmp_path / "longer"])
    told = " ".join("\n".join(text.plain for text in lines(runs)).split())
    assert "over 3 streams (runs 1, 3, 4)" in told and "14 ±13" in told
    assert "Run 2 has the same requests as run 1: one stream, which is counted once." in told
    assert (
        "Run 5 is not put together with run 1: more than the stream of requests differs (training.rounds)."
        in told
    )
    comparison.write(runs, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Run 5 is not put together" in page and 'id="over-years"' in page
    twice = " ".join("\n".join(text.plain for text in lines(runs[:2])).split())
    assert "over 2" not in twice and "counted once" in twice
    with pytest.raises(InputError, match="Run 5 is not put together with run 1"):
        comparison.formatted(runs, "csv")
    assert "over one stream (run 1)" in comparison.formatted(runs[:2], "markdown")


def test_a_mean_of_some_streams_says_of_how_many(swept: Path) -> None:
    """The third stream shows no memory of at_once with lazy."""
    ((_, found),) = table.streams(swept)
    told = almanac.streams_markdown(found)
    (lazy,) = [line for line in told if "at_once: lazy" in line]
    assert " (2) |" in lazy and lazy.count("(2)") == 1 and "over so many streams only" in told[-1]
    whole = found[found["measure"] != "memory_left"].assign(streams=3)
    every = pd.concat([whole, found[found["measure"] == "memory_left"].assign(streams=3)])
    assert "over so many" not in almanac.streams_legend(every)


def test_sweeps_are_compared_cell_by_cell(swept: Path) -> None:
    assert len(comparison.read([swept])) == 3


@pytest.mark.gate
def test_a_table_of_them_goes_to_programs_and_documents(swept: Path, tmp_path: Path) -> None:
    found = call("compare", swept, "--format", "csv")
    assert found.exit_code == 0, found.output
    table = pd.read_csv(io.StringIO(found.stdout))
    assert list(table.columns) == list(STREAMS)
    cost = table[
        (table["policy"] == "at_once") & (table["strategy"] == "lazy") & (table["measure"] == "cost")
    ]
    assert cost["value"].tolist() == pytest.approx([0.14])
    document = call("compare", swept, "--format", "markdown")
    assert "| at_once: lazy | 0 ±0 | 0 ±0 | 14 ±13 |" in document.stdout
    plain = folder(tmp_path / "run", seeds=(7,))
    refused = call("compare", plain.path, "--format", "csv")
    assert refused.exit_code == 2 and "found no run with a calendar among 1" in " ".join(
        refused.output.split()
    )

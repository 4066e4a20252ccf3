"""A page of a year of requests: its numbers are those of the run's tables, and it says first what a board asks."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from fedunlearn.pages import report
from fedunlearn.results.runfolder import RunFolder, parquet
from tests.pages import made
from tests.pages.reading import Element, parsed
from tests.pages.test_report import shows
from tests.scoring.years.made import year

TABLES = ("scores", "patients", "statistics", "roc", "calendar", "memory", "years", "policies")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        return year(tmp_path_factory.mktemp("year") / "run")


@pytest.fixture(scope="module")
def text(run: RunFolder) -> str:
    return report(run)


@pytest.fixture(scope="module")
def read(text: str) -> Element:
    return parsed(text)


def test_every_number_is_the_one_in_the_runs_tables(run: RunFolder, read: Element) -> None:
    tables = {name: run.read_table(f"{name}.parquet") for name in TABLES}
    seen = dict.fromkeys(TABLES, 0)
    for one in read.all("data"):
        table, rows, column, how = one.attributes["data-from"].split()
        of = tables[table][column].iloc[[int(row) for row in rows.split(",")] if rows != "-" else []]
        expected = {"value": lambda x: x.item(), "mean": lambda x: x.mean(skipna=False), "count": len}[how](
            of
        )
        value = float(one.attributes["value"])
        assert value == pytest.approx(expected, rel=1e-12, nan_ok=True), one.attributes
        assert shows(one.text, value * float(one.attributes.get("data-times", 1))), one.text
        seen[table] += 1
    assert seen["policies"] > 60 and seen["years"] > 40 and seen["calendar"] > 8


def test_it_comes_before_the_policies_one_by_one(read: Element) -> None:
    body = " ".join(read.all("main")[0].text.split())
    places = [
        body.index(words)
        for words in (
            "A year of requests, 2026-01-01 to 2026-04-23",
            "7 requests came in: 5 were accepted",
            "batch-60d: 2 of 4 later than a month (50 %), 0 later than three; 1 waits at the end. thorough: 3 % of "
            "training anew on each day of acceptance; of what the model knew of these people",
            "What each policy came to",
            "Every request, from the day it came in to its answer",
            "Memory left of all earlier requests",
            "What it costs to leave less memory",
            "Requests that were refused",
            "forget all 4 accepted requests; models when the year ends",
        )
    ]
    assert places == sorted(places)


def test_who_was_refused_reads_why(read: Element) -> None:
    (row,) = read.by_id("year-refused").all("tbody")[0].all("tr")
    assert [cell.text for cell in (*row.all("th"), *row.all("td"))] == [
        "r3", "north", "2026-01-22", "duplicate", "r3 asks for what r1 asked for: north-000",
    ]  # fmt: skip


def test_every_request_has_its_row_and_its_state_under_every_policy(read: Element) -> None:
    rows = read.by_id("year-requests").all("tbody")[0].all("tr")
    cells = {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in rows}
    assert list(cells) == [f"r{i}" for i in range(1, 8)]
    assert cells["r1"][-4:] == ["unlearned", "5", "unlearned (late)", "54"]
    assert cells["r6"][-4:] == ["unlearned", "3", "waiting", "–"]
    assert cells["r5"][1] == "no later use" and cells["r5"][-4:] == ["barred", "4", "barred", "4"]


def test_ids_are_each_ones_own_and_links_lead_somewhere(read: Element) -> None:
    ids = [e.attributes["id"] for e in read.every() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for link in read.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids
    for element in read.every():
        assert element.attributes.get("aria-labelledby", ids[0]) in ids


def test_words_that_promise_too_much_are_not_there(text: str) -> None:
    said = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.S).lower()
    for word in ("erased", "certified", "gdpr", "guarantee", "anonymi", "compliant", "✓"):
        assert word not in said


@pytest.mark.gate
def test_a_run_without_a_calendar_has_no_such_section(tmp_path) -> None:
    assert 'id="year"' not in report(made.folder(tmp_path / "run", seeds=(7,)))


@pytest.mark.gate
def test_many_requests_are_counted_not_listed(run: RunFolder, tmp_path) -> None:
    import shutil

    shutil.copytree(run.path, tmp_path / "run")
    other = RunFolder(tmp_path / "run")
    table = other.read_table("calendar.parquet")
    again = [table[table["request"] != "r3"].assign(request=table["request"] + f"-{i}") for i in range(60)]
    whole = pd.concat([table, *again]).sort_values("policy", kind="stable").dropna(subset="request")
    other.renew({"calendar.parquet": parquet(whole)})
    read = parsed(report(other))
    assert len(read.by_id("year-requests").all("tbody")[0].all("tr")) == 200
    assert "calendar.parquet has 167 more requests." in read.by_id("year").text

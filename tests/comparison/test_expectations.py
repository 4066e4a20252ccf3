"""Expected ranges: files that cannot be used, what a run has for an expectation, and the exit codes."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from scipy import stats

from fedunlearn import comparison, installation
from fedunlearn.comparison.expectations import Expectation, read
from fedunlearn.comparison.findings import find, lines
from fedunlearn.comparison.runs import Compared
from fedunlearn.core import InputError
from fedunlearn.results.summary import WIDTH
from fedunlearn.sweep.cells import read as read_scenario
from tests.comparison.test_comparison import HOSTILE
from tests.results.test_summary import MADE
from tests.test_cli import call

PRINTED = """\
runs/a, some: expected and found, in the mean over seeds
                                      expected   found within?
puf: test_accuracy                  0.5 to 0.9  0.7 ±0 yes
puf: test_accuracy (less retrained) at least 0 -0.1 ±0 no
puf: tow                            0.5 to 0.9       - missing
  missing: puf: tow: no tow of puf.

What papers say of it, and where ranges are from:
  puf: test_accuracy: 0.701 (Table 2)
  puf: test_accuracy (less retrained): better than retraining (abstract)

1 of 3 within. ±: 95 %, by luck of the seeds (of memory_left, as judged)."""
GOOD = "- {request: some, strategy: puf, measure: test_accuracy, low: 0.5, high: 0.9}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "made.expect.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def compared(
    values: dict[str, list[float]], measure: str = "test_accuracy", name: str = "a", cell: str = ""
) -> Compared:
    """A run whose models have these values of one measure, a seed each."""
    rows = [
        {
            "request": "some",
            "strategy": model,
            "measure": measure,
            "group": "all",
            "seed": seed,
            "value": value,
        }
        for model, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    memory = [
        {
            "request": "some",
            "strategy": "puf",
            "measure": "memory_left",
            "difference": 0.2,
            "low": 0.1,
            "high": 0.5,
        }
    ]
    return Compared(name, cell, "", {"some": MADE}, pd.DataFrame(rows), pd.DataFrame(memory))


def expected(**changes: object) -> Expectation:
    given = {"request": "some", "strategy": "puf", "measure": "test_accuracy", "low": 0.5, "high": 0.9}
    return Expectation(**{**given, **changes})  # type: ignore[arg-type]  # each is given its own type


# ----------------------------------------------------------------------------------------------- the file


def test_a_number_of_the_paper_is_kept_as_it_is_written(tmp_path: Path) -> None:
    file = written(
        tmp_path, GOOD.replace("}", ", paper: 0.9010, source: Table 2, than: retrained, group: site=7}")
    )
    (one,) = read(file)
    assert one == expected(paper="0.9010", source="Table 2", than="retrained", group="site=7")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "", "found nothing but comments; expected a list of expected ranges"),
        ("a: 1\n", ":1:1", "expected a list of expected ranges"),
        ("[]\n", ":1:1", "expected a list of expected ranges"),
        ("- 1\n", ":1:3", "expected a mapping with the keys request, strategy, measure"),
        (GOOD.replace("measure: test_accuracy, ", ""), ":1:3", "found no `measure`"),
        (GOOD.replace("test_accuracy", "test_acuracy"), ":1:43", "did you mean 'test_accuracy'"),
        (GOOD.replace("low: 0.5", "low: high"), ":1:63", "low: expected a number"),
        (GOOD.replace("low: 0.5", "low: .nan"), ":1:63", "low: expected a number"),
        (GOOD.replace("low: 0.5", "low: 0.95"), ":1:63", "more than high"),
        (GOOD.replace(", low: 0.5, high: 0.9", ""), ":1:3", "neither `low` nor `high`"),
        (GOOD.replace("}", ", colour: red}"), ":1:79", "unknown key 'colour'"),
        (GOOD.replace("}", ", paper: [1]}"), ":1:86", "paper: expected text"),
        (
            GOOD.replace("test_accuracy", "memory_left").replace("}", ", than: puf}"),
            ":1:83",
            "than: memory_left",
        ),
        (
            GOOD.replace("test_accuracy", "memory_left").replace("}", ", group: class=1}"),
            ":1:84",
            "group: memory_left",
        ),
        (
            GOOD + "- &a {}\n",
            ":2:3",
            "found the anchor '&a'; anchors are not accepted in a list of expected ranges",
        ),
        ("- {request: [\n", ":2:1", "not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_exit_2_with_its_place(
    tmp_path: Path, text: str, place: str, message: str
) -> None:
    file = written(tmp_path, text)
    result = call("compare", tmp_path, "--expect", file)
    assert result.exit_code == 2, result.stdout
    assert f"{file}{place}" in result.stderr and message in result.stderr


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    bad = GOOD.replace("test_accuracy", "accuracy") + GOOD + GOOD.replace("low: 0.5", "low: 2")
    with pytest.raises(InputError) as error:
        read(written(tmp_path, bad))
    assert [problem.line for problem in error.value.problems] == [1, 3]


def test_a_file_that_is_not_there_is_told_with_the_names_there_are(tmp_path: Path) -> None:
    for given, message in (
        (tmp_path / "absent.yaml", "cannot read it"),
        ("3hosp", "expected a YAML file of expected ranges"),
    ):
        result = call("compare", tmp_path, "--expect", given)
        assert result.exit_code == 2 and message in result.stderr.replace("\n", " ")


# ---------------------------------------------------------------------------------------------- what is found


def test_the_interval_is_students(tmp_path: Path) -> None:
    values = [0.6, 0.7, 0.9, 0.65]
    (one,) = find([compared({"puf": values})], [expected()])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert one.value.value == pytest.approx(np.mean(values)) and one.holds
    assert 2 * one.value.half == pytest.approx(high - low)


def test_a_difference_is_taken_seed_by_seed() -> None:
    """Differences .1 and .1: their mean has no spread, whatever that of the models is."""
    run = compared({"puf": [0.6, 0.9], "retrained": [0.5, 0.8]})
    (one,) = find([run], [expected(than="retrained", low=0.05, high=0.15)])
    assert one.value.value == pytest.approx(0.1) and one.holds
    assert one.value.half == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({"low": 0.7}, True),  # both ends belong to the range
        ({"high": 0.7}, True),
        ({"low": 0.71}, False),
        ({"low": None, "high": 0.8}, True),
        ({"low": 0.9, "high": None}, False),
    ],
)
def test_the_mean_is_within_or_not(changes: dict[str, object], holds: bool) -> None:
    (one,) = find([compared({"puf": [0.75, 0.65]})], [expected(**changes)])
    assert one.value.value == 0.7 and one.holds is holds


def test_one_seed_has_no_interval_and_one_that_diverged_no_mean() -> None:
    (one,) = find([compared({"puf": [0.7]})], [expected()])
    assert one.holds and math.isinf(one.value.half)
    (one,) = find([compared({"puf": [0.7, math.nan]})], [expected()])
    assert not one.holds and math.isnan(one.value.value)
    (one,) = find([compared({"puf": [0.7, 0.7], "retrained": [0.7]})], [expected(than="retrained", low=-1)])
    assert not one.holds  # the second seed cannot be compared


def test_memory_left_is_the_strategys_as_judged() -> None:
    (one,) = find([compared({"puf": [0.7]})], [expected(measure="memory_left", low=0.1, high=0.3)])
    assert one.value.value == 0.2 and one.holds
    assert one.value.half == pytest.approx(0.3)


@pytest.mark.parametrize("blind", [{"visible": False}, {"seeds": 1}, {"patients": (0, 12)}], ids=str)
def test_memory_that_cannot_be_seen_is_within_no_range(blind: dict[str, Any]) -> None:
    run = compared({"puf": [0.7]})
    some = replace(run, overviews={"some": replace(MADE, **blind)})
    (one,) = find([some], [expected(measure="memory_left", low=None, high=0.3)])
    assert one.missing == "this run cannot tell" and not one.holds


def test_what_is_missing_is_told_with_what_there_is() -> None:
    run = compared({"puf": [0.7], "good": [0.8]})
    asked = [
        expected(request="leave"),
        expected(strategy="pfu"),
        expected(than="retrained"),
        expected(measure="tow"),
        expected(group="class=9"),
        expected(strategy="good", measure="memory_left"),
        expected(cell="lr-1"),
    ]
    found = find([run], asked)
    assert [one.holds for one in found] == [False] * 7
    assert [one.missing for one in found] == [
        "no request leave; it has some",
        "no strategy pfu; it has puf, good",
        "no strategy retrained; it has puf, good",
        "no tow of puf",
        "no test_accuracy of class=9 of puf",
        "nothing of its memory",
        "no run has the cell lr-1",
    ]


def test_an_expectation_of_a_cell_is_about_that_cell_only() -> None:
    runs = [compared({"puf": [0.7]}, name=name, cell=name) for name in ("lr-1", "lr-2")]
    found = find(runs, [expected(cell="lr-2"), expected()])
    assert [(one.run, one.expectation.cell) for one in found] == [
        ("lr-1", None),
        ("lr-2", "lr-2"),
        ("lr-2", None),
    ]


def test_it_is_printed_like_this() -> None:
    asked = [
        expected(paper="0.701", source="Table 2"),
        expected(than="retrained", low=0, high=None, paper="better than retraining", source="abstract"),
        expected(measure="tow"),
    ]
    found = find([compared({"puf": [0.7, 0.7], "retrained": [0.8, 0.8]}, name="runs/a")], asked)
    assert "\n".join(text.plain for text in lines(found)) == PRINTED


def test_hostile_text_is_shown_as_text_in_80_columns() -> None:
    run = compared({HOSTILE: [0.7, 0.7]}, name=HOSTILE)
    found = find(
        [run], [expected(strategy=HOSTILE, paper=HOSTILE, source=HOSTILE, group=HOSTILE, cell=HOSTILE)]
    )
    found += find([run], [expected(strategy=HOSTILE, paper=HOSTILE, source=HOSTILE)])
    text = "\n".join(one.plain for one in lines(found))
    assert "\x1b" not in text and max(map(cell_len, text.splitlines())) <= WIDTH


def test_the_exit_code_tells_whether_all_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(comparison, "read", lambda paths: [compared({"puf": [0.7, 0.7]})])
    good = call("compare", tmp_path, "--expect", written(tmp_path, GOOD))
    assert (good.exit_code, good.stderr) == (0, "") and "1 of 1 within" in good.stdout
    bad = call("compare", tmp_path, "--expect", written(tmp_path, GOOD + GOOD.replace("0.5", "0.8")))
    assert bad.exit_code == 1 and "1 of 2 expectations do not hold" in bad.stderr


# ---------------------------------------------------------------------------------------- those of the project


@pytest.mark.gate
@pytest.mark.parametrize("name", installation.expected_files())
def test_what_the_project_expects_is_about_a_scenario_of_it(name: str) -> None:
    """Requests, strategies and cells are that scenario's; its head says where ranges are from."""
    file = installation.expected_file(Path(name))
    found = read_scenario(installation.scenario_files()[name])
    cells = {"": found} if not hasattr(found, "cells") else {cell.slug: cell.scenario for cell in found.cells}
    for one in read(file):
        scenarios = cells.values() if one.cell is None else [cells[one.cell]]
        for scenario in scenarios:
            assert one.request in {request.id for request in scenario.requests}
            labels = {plan.label for plan in scenario.strategies if one.request in plan.requests}
            assert {one.strategy, one.than or "retrained"} <= labels | {"original", "retrained"}
        assert one.source
    assert re.search(rf"compare runs/{name}", file.read_text(encoding="utf-8"))


def test_every_recipe_says_what_is_expected_and_is_in_the_documentation() -> None:
    recipes = {name for name, path in installation.scenario_files().items() if path.parent.name == "papers"}
    assert recipes <= set(installation.expected_files())
    text = (installation.ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert [name for name in sorted(recipes) if f"`{name}`" not in text] == []

"""Runs side by side: their order, 80 columns, sweeps, and what is told of runs that differ."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len

from fedunlearn import comparison
from fedunlearn.comparison.runs import Compared
from fedunlearn.comparison.table import in_order, lines
from fedunlearn.core import InputError
from fedunlearn.results.overview import Overview
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.summary import WIDTH
from tests.results.test_summary import LAZY, MADE, ROW
from tests.runs import run
from tests.test_cli import call

pytestmark = pytest.mark.usefixtures("few_resamples")

SHOWN = """\
runs/a (seeds 7, 8, 9; made up)

some: forget 12 patients of north (72 training images)
                 FORGOTTEN?      STILL GOOD?        COST
                 answer  memory  answer       test   % of
                        left, %           accuracy  retr.
good             yes      3 ±15  yes     +.00 ±.02     20
lazy             no      83 ±14  unclear +.00 ±.02     20
retraining again          0 ±15          +.00 ±.02    100
do nothing       no     100 ±12  yes     +.01 ±.02      -

Memory left: 0 as if never seen, 100 as in the original model; - where none can
be seen. Test: against the same run's retraining. ±: 95 %. unclear: this run
cannot tell."""
HOSTILE = "\x1b[31m[bold]red\n" + "很长" * 40


def compared(name: str = "runs/a", **overviews: Overview) -> Compared:
    return Compared(name, "", "seeds 7, 8, 9; made up", overviews, pd.DataFrame(), pd.DataFrame())


def printed(*runs: Compared) -> str:
    return "\n".join(text.plain for text in lines(runs))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("comparison"), "strategies=[{name: fine_tune, rounds: 1}]")


def test_one_run_has_a_line_per_strategy_and_control() -> None:
    assert printed(compared(some=replace(MADE, rows=(ROW, LAZY)))) == SHOWN


def test_runs_stand_side_by_side_strategy_by_strategy() -> None:
    """The first run's order, best first; what only the second has comes after, the controls last."""
    first = compared("runs/a", some=replace(MADE, rows=(ROW, LAZY)))
    second = compared("runs/b", some=replace(MADE, rows=(LAZY, replace(ROW, strategy="new"))))
    text = printed(first, second)
    assert text.startswith("1: runs/a (seeds 7, 8, 9; made up)\n2: runs/b")
    body = [line for line in text.splitlines() if line[:1].isalpha() or line.startswith("   ")]
    found = [(line[:17].strip(), line[17:21].strip()) for line in body if line[17:21].strip() in ("1", "2")]
    assert found == [
        ("good", "1"),
        ("lazy", "1"),
        ("", "2"),
        ("new", "2"),
        ("retraining again", "1"),
        ("", "2"),
        ("do nothing", "1"),
        ("", "2"),
    ]


def test_requests_that_only_one_run_has_are_shown_and_titles_that_differ_are_not() -> None:
    first = compared("runs/a", some=MADE)
    second = compared("runs/b", some=replace(MADE, title="some: forget 3 patients"), leave=MADE)
    text = printed(first, second)
    assert "\nsome\n" in text and "forget 3 patients" not in text
    assert text.count("forget 12 patients") == 1  # of leave


@pytest.mark.parametrize("blind", [{"visible": False}, {"seeds": 1}], ids=str)
def test_a_memory_of_which_nothing_can_be_told_is_no_number(blind: dict[str, Any]) -> None:
    one = replace(MADE, rows=(LAZY,), **blind)
    assert not any(row.compared or row.known for _, row in in_order({1: one}))  # as on the page
    text = printed(compared(some=one))
    assert "83" not in text and "lazy" in text


def test_hostile_labels_are_shown_as_text_in_80_columns() -> None:
    """A label may hold anything that prints, a folder's name and data's notes anything at all."""
    one = replace(
        MADE, title=HOSTILE, rows=(replace(ROW, strategy=HOSTILE), replace(LAZY, strategy="很长" * 40))
    )
    text = printed(compared(HOSTILE, some=one), compared(HOSTILE, some=one))
    assert "\x1b" not in text and "[bold]red\\n" in text
    assert max(map(cell_len, text.splitlines())) <= WIDTH


def test_the_command_prints_the_table_and_refuses_what_is_no_run(finished: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "other")
    result = call("compare", finished.path, tmp_path / "other")
    assert result.exit_code == 0
    for words in ("\n2:", "seeds 1, 2", "leave: forget all of hospital east", "fine_tune", "do nothing"):
        assert words in result.stdout
    refused = call("compare", finished.path, tmp_path)
    assert refused.exit_code == 2 and "is not a run folder" in refused.stderr
    assert call("compare").exit_code == 2


def test_a_sweeps_cells_are_runs(finished: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "s" / "cells").mkdir(parents=True)
    (tmp_path / "s" / "sweep.json").write_text(
        '{"name": "s", "cells": [{"slug": "lr-1", "values": {"lr": 1}}, {"slug": "lr-2", "values": {"lr": 2}}]}'
    )
    with pytest.raises(InputError, match="no cell is finished"):
        comparison.read([tmp_path / "s"])
    shutil.copytree(finished.path, tmp_path / "s" / "cells" / "lr-2")
    (one,) = comparison.read([tmp_path / "s"])
    assert (one.name, one.cell) == (f"{tmp_path / 's'}: lr-2", "lr-2")

"""The notebook in docs/ runs from its first cell to its last, and shows what it says it shows."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest

from fedunlearn import Run

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def cells() -> list[str]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> Any:
    """What a cell shows: the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return (
        eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        if isinstance(last, ast.Expr)
        else None
    )


def test_it_holds_no_outputs() -> None:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in found)
    for source in cells():
        ast.parse(source)


@pytest.mark.gate
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    names = dict[str, Any]()
    shown = [run(source, names) for source in cells()]
    assert "seeds" in capsys.readouterr().out  # what the mistake is about
    charts = [one for one in shown if isinstance(one, alt.LayerChart)]
    assert len(charts) == 2 and all(chart.to_dict()["datasets"] for chart in charts)
    assert any(isinstance(one, Run) and "<table>" in one._repr_html_() for one in shown)
    answers = next(one for one in shown if isinstance(one, pd.DataFrame))
    assert set(answers["request"]) == {"patients-of-north", "east-leaves"}
    assert (tmp_path / "runs" / "notebook.pdf").read_bytes().startswith(b"%PDF")

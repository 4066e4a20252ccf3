"""`report --format`, `--mlflow` and `--cards`, of runs and of sweeps."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fedunlearn.exports.papers import tidy
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.sweep.exporting import Format, formatted, table
from tests.exports.conftest import made  # noqa: F401
from tests.test_cli import call


@pytest.fixture
def swept(made: RunFolder, tmp_path: Path) -> Path:  # noqa: F811
    folder = tmp_path / "sweep"
    cells = [
        {"slug": f"lr-{lr}", "values": {"training.lr": lr, "training.clip": None}} for lr in (0.1, 0.2, 0.3)
    ]
    for cell in cells[:2]:
        shutil.copytree(made.path, folder / "cells" / str(cell["slug"]))
    (folder / "sweep.json").write_text(json.dumps({"name": "s", "cells": cells}), encoding="utf-8")
    return folder


@pytest.mark.gate
def test_a_sweeps_table_has_its_cells_below_one_another(made: RunFolder, swept: Path) -> None:  # noqa: F811
    found, own = table(swept), tidy(made)
    assert list(found.columns) == ["cell", "training.lr", "training.clip", *own.columns]
    assert found["training.lr"].tolist() == [0.1] * len(own) + [0.2] * len(own)
    pd.testing.assert_frame_equal(found[list(own.columns)][: len(own)], own)
    text = formatted(swept, "latex").decode()
    assert "lr & clip & Strategy" in text and text.count("\\begin{tabular}") == 2


@pytest.mark.parametrize("form", ["csv", "latex", "parquet", "markdown"])
def test_a_swept_key_that_is_a_result_too_keeps_a_column_of_its_own(
    made: RunFolder,  # noqa: F811
    tmp_path: Path,
    form: Format,
) -> None:
    """Of seeds and references tables tell how many there are; whatever is swept stands beside that, also a null."""
    for name, values in (
        ("a", {"references": 4, "seeds": [7, 8]}),
        ("b", {"references": None, "seeds": [9]}),
    ):
        shutil.copytree(made.path, tmp_path / "cells" / name)
        cell = {"slug": name, "values": values}
        file = tmp_path / "sweep.json"
        cells = json.loads(file.read_text())["cells"] if file.is_file() else []
        file.write_text(json.dumps({"name": "s", "cells": [*cells, cell]}), encoding="utf-8")
    assert formatted(tmp_path, form)
    found, own = table(tmp_path), tidy(made)
    assert list(found.columns) == ["cell", "set.references", "set.seeds", *own.columns]
    assert found["set.seeds"].unique().tolist() == ["[7, 8]", "[9]"]
    assert found["set.references"].unique().tolist() == ["4", "null"]
    pd.testing.assert_frame_equal(found[list(own.columns)][: len(own)], own)


@pytest.mark.gate
def test_the_command_prints_text_and_writes_files(made: RunFolder, tmp_path: Path) -> None:  # noqa: F811
    done = call("report", made.path, "--format", "csv")
    assert done.exit_code == 0, done.stderr
    printed = pd.read_csv(io.StringIO(done.stdout))
    assert printed["strategy"].tolist() == tidy(made)["strategy"].tolist()
    assert (
        call("report", made.path, "--format", "markdown").stdout
        == call("report", made.path, "--markdown").stdout
    )
    assert "\\toprule" in call("report", made.path, "--format", "latex").stdout
    file = tmp_path / "new" / "t.parquet"
    assert call("report", made.path, "--format", "parquet", "--out", file).exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(file), tidy(made))


def test_what_does_not_go_together_is_refused(made: RunFolder, tmp_path: Path) -> None:  # noqa: F811
    for options, words in (
        (["--format", "parquet"], "--out FILE"),
        (["--out", tmp_path / "x"], "--format"),
        (["--format", "xlsx"], "xlsx"),
    ):
        refused = call("report", made.path, *options)
        assert refused.exit_code == 2 and words in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.gate
def test_mlflow_and_cards_are_written(made: RunFolder, swept: Path, tmp_path: Path) -> None:  # noqa: F811
    done = call("report", made.path, "--mlflow", tmp_path / "store", "--cards", tmp_path / "cards")
    assert done.exit_code == 0 and "mlflow ui --backend-store-uri" in done.stdout
    assert (tmp_path / "cards" / "data" / "croissant.json").is_file()
    assert (tmp_path / "cards" / "models" / "good-some-7.md").is_file()
    refused = call("report", swept, "--cards", tmp_path / "more")
    assert refused.exit_code == 2 and "cards are of one run" in refused.stderr
    assert call("report", swept, "--mlflow", tmp_path / "store").exit_code == 0

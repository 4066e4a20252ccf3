"""Tables for papers: they say what the run's files say, unrounded; LaTeX holds whatever labels there are."""

from __future__ import annotations

import io
import math
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from fedunlearn.exports.latex import LARGEST, LONGEST, escaped, latex
from fedunlearn.exports.papers import described, tidy
from fedunlearn.results.overview import overview, read
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import best, sure_of
from tests.scoring.made import change_manifest

HOSTILE = "\\input{x}%&$#_{}~^`'\"<script>|[x]--,,\n\u202e很"


@pytest.fixture(scope="module")
def table(made: RunFolder) -> pd.DataFrame:
    return tidy(made)


def test_every_number_is_that_of_the_runs_own_files(made: RunFolder, table: pd.DataFrame) -> None:
    scores, statistics = made.read_table("scores.parquet"), made.read_table("statistics.parquet")
    verdicts = made.read_table("verdicts.parquet").set_index(["request", "strategy"])
    assert len(table) == 2 * (2 + 4 + 1) and set(table["request"]) == {"some", "east-leaves"}
    for row in table.to_dict("records"):
        own = scores[(scores["request"] == row["request"]) & (scores["strategy"] == row["strategy"])]
        for measure in ("test_accuracy", "forget_accuracy", "mia_loss_auc", "share_of_retraining"):
            values = own[(own["measure"] == measure) & (own["group"] == "all")]["value"]
            assert row[measure] == values.mean() and len(values) == row["seeds"]
            # Student's t with two degrees of freedom: 4.302652729911275 (tables).
            assert row[f"{measure}_half"] == pytest.approx(4.302652729911275 * values.std() / math.sqrt(3))
        if row["role"] == "strategy":
            known = verdicts.loc[(row["request"], row["strategy"])]
            assert (row["forgotten"], row["useful"]) == (known["forgotten"], known["useful"])
            judged = statistics[
                (statistics["request"] == row["request"]) & (statistics["strategy"] == row["strategy"])
            ].set_index(["measure", "group"])
            assert row["memory_left"] == judged.loc[("memory_left", "all"), "difference"]
            assert row["test_difference"] == judged.loc[("test_accuracy", "all"), "difference"]
            assert row["p_holm"] == judged.loc[("memory_left", "all"), "p_holm_equivalent"]


@pytest.mark.parametrize("blind", [{"visible": False}, {"seeds": 1}], ids=str)
def test_nothing_is_known_of_memory_where_the_run_cannot_tell(
    made: RunFolder, blind: dict[str, int], tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(made.path, tmp_path / "run")))
    run.write_table("requests.parquet", run.read_table("requests.parquet").assign(**blind))
    change_manifest(run.path)
    rows = tidy(run)
    assert rows[["memory_left", "memory_left_half", "patients_known", "p_holm"]].isna().all(axis=None)
    assert rows["test_difference"].notna().any() and not rows["best"].any()


def test_every_column_is_described_and_in_that_order(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(described("classification"))
    assert all(described("segmentation").values()) and "test_dice_half" in described("segmentation")


def test_references_have_no_answers(table: pd.DataFrame) -> None:
    roles = table.set_index("strategy")["role"].to_dict()
    assert (roles["original"], roles["retrained"], roles["retrained_other"], roles["good"]) == (
        "original", "reference", "control", "strategy",
    )  # fmt: skip
    assert not table[table["role"] == "control"]["forgotten"].any()
    assert table[table["role"] == "reference"]["memory_left"].isna().all()


def test_best_is_whom_the_report_names_and_nobody_where_it_names_none(
    made: RunFolder, table: pd.DataFrame
) -> None:
    tables, manifest = read(made), made.read_manifest()
    for moment in manifest["moments"]:
        one = overview(tables, manifest, moment)
        marked = table[(table["request"] == moment["id"]) & table["best"]]["strategy"].tolist()
        assert marked == [row.strategy for row in sure_of(one)[:1]]
        assert best(one)[0].startswith(f"Best: {marked[0]}," if marked else "No best")
    assert table["best"].sum() == 1


def test_only_the_best_is_bold(made: RunFolder, table: pd.DataFrame) -> None:
    text = latex(table, "classification")
    bold = re.findall(r"\\textbf\{([^}]*)\}", text)
    chosen = table[table["best"]]
    assert [name for name in bold if not name.isdigit()] == chosen["strategy"].tolist()
    assert len(bold) == 2 * len(chosen)  # its name and its cost
    nobody = latex(table.assign(best=False), "classification")
    assert "textbf" not in nobody and "Bold" not in nobody


def test_latex_has_a_table_per_request_whose_rows_have_as_many_cells_as_headings(table: pd.DataFrame) -> None:
    text = latex(table, "classification")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == len(table) + 2
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 9
    assert "$100 \\pm" in text and "3 of 3" in text


def test_the_difference_from_all_retrainings_stands_beside_rows_that_cannot_be_subtracted(
    table: pd.DataFrame,
) -> None:
    assert "cannot be subtracted" not in latex(table, "classification")
    told = latex(
        table.assign(references=8, test_difference=-0.0123, test_difference_half=0.0456), "classification"
    )
    assert "against all 8 retrained models" in told and "cannot be subtracted" in told
    rows = {row.split(" & ")[0]: row.split(" & ")[6] for row in told.splitlines() if row.endswith(r" \\")}
    assert rows["good"] == rows["retraining again"] == r"$-.012 \pm .046$" and rows["retraining"] == ""


def test_a_table_of_many_runs_goes_on_over_pages(table: pd.DataFrame) -> None:
    many = pd.concat([table.assign(**{"training.lr": lr}) for lr in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)])
    text = latex(many, "classification", ["training.lr"])
    assert len(many) / 2 > LARGEST
    assert text.count(r"\begin{longtable}") == 2 and r"\begin{table}" not in text
    assert "\nlr & Strategy" in text and text.count("\n0.3 & do nothing") == 2
    assert "retraining again" not in text


@given(st.text())
def test_escaped_text_has_no_power_over_the_document(text: str) -> None:
    r"""Whatever is left of \ { } $ & # % _ ~ ^ is one of ours; braces are balanced."""
    found = escaped(text)
    assert "\n" not in found
    bare = re.sub(r"\\[{}$&#%_]|\\text[a-z]+\{\}|\\dots\{\}", "", found)
    bare = re.sub(r"\$(-|\\[a-z]+)\$", "", bare)
    assert not re.search(r"[\\$&#%_~^<>|\"`']", bare)
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"--(?!-)|,,", re.sub("-{2,3}", "", bare)) or "–" in text or "—" in text
    assert all(letter.isascii() or ord(letter) < 0x180 for letter in found)


def test_the_caption_says_what_unclear_is_only_where_a_cell_has_it(table: pd.DataFrame) -> None:
    sure = table.assign(
        forgotten=table["forgotten"].replace("cannot tell", "no"),
        useful=table["useful"].replace("cannot tell", "worse"),
    )
    assert "unclear" not in latex(sure, "classification").lower()
    for column in ("forgotten", "useful"):
        unsure = sure.assign(**{column: ["cannot tell" if s == "lazy" else "yes" for s in sure["strategy"]]})
        told = latex(unsure, "classification")
        assert "Unclear: this run cannot tell.}" in told and "& unclear &" in told


def test_a_hostile_label_stays_one_cell(table: pd.DataFrame) -> None:
    spoiled = table.assign(strategy=[HOSTILE * 999 if s == "lazy" else s for s in table["strategy"]])
    (row, _) = (line for line in latex(spoiled, "classification").splitlines() if "input" in line)
    assert len(re.findall(r"(?<!\\)&", row)) == 9 and len(escaped(HOSTILE * 999)) < 12 * LONGEST
    assert escaped("很") == "{[}U+5F88{]}" and escaped("a--b") == "a-{}-b" and escaped("é") == "é"


def test_csv_and_parquet_give_the_same_table_back(table: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    table.to_parquet(file, index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(file), table)
    text = table.to_csv(index=False)
    again = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
    numbers = table.select_dtypes("number").columns
    pd.testing.assert_frame_equal(again[numbers], table[numbers], check_dtype=False, check_exact=True)


@pytest.mark.slow
def test_a_row_that_begins_with_a_star_keeps_it(table: pd.DataFrame) -> None:
    r"""LaTeX reads ``\\\\`` and a ``*`` after it, in the next line too, as one command."""
    starred = table.assign(strategy=table["strategy"].replace("good", "*neg"))
    assert not re.search(r"\\\\\s*(\\textbf\{)?\*", text := latex(starred, "classification"))
    assert "{*}neg" in text


def test_what_is_said_to_be_corrected_is(table: pd.DataFrame) -> None:
    assert "both also after Holm" not in latex(table, "classification")
    assert "Bold: forgotten, also after Holm's correction over" in latex(table, "classification").replace(
        "\n", " "
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_it_compiles(table: pd.DataFrame, tmp_path: Path) -> None:
    import subprocess

    spoiled = table.assign(strategy=[HOSTILE if s == "lazy" else s for s in table["strategy"]])
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,longtable}\begin{document}"
    text = latex(spoiled, "classification") + latex(pd.concat([table] * 8), "classification", ["seeds"])
    (tmp_path / "t.tex").write_text(head + text + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]

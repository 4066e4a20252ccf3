"""What comes from scenarios and data is shown as it is, and neither a terminal nor a document obeys it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from click.testing import Result
from hypothesis import example, given, strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from fedunlearn import tuning
from fedunlearn.__main__ import app
from fedunlearn.federation.jobs import Label
from fedunlearn.federation.pace import Standing
from fedunlearn.federation.progress import picture, progress
from fedunlearn.results import report
from fedunlearn.results.tables import Line
from fedunlearn.results.wording import item, line, row, safe
from fedunlearn.sweep import table
from fedunlearn.tuning.trials import Trial
from strategies import catalogue

HOSTILE = "\x1b]0;owned\x07\u202eabc"
MARKUP = "[red]a|b:heart:\\"
"""What an id may hold; control characters in ids are refused."""
LABELS = ["puf[eta=1]", "puf[eta=2]", "[red]x", "a|b", "back\\slash", "\\", "a:heart:b", "患者", HOSTILE]


def test_what_is_seen_stays_and_what_commands_is_shown() -> None:
    assert safe("Müller, 患者 7\n\tnext [bold] |") == "Müller, 患者 7\n\tnext [bold] |"
    assert safe(HOSTILE) == "\\x1b]0;owned\\x07\\u202eabc"
    assert safe("\x9b31m\r\x7f") == "\\x9b31m\\r\\x7f"


def test_what_is_no_character_is_shown_as_it_is_written() -> None:
    assert safe("a\ufffeb\uffff\U0010ffff\ufdd0\ud800") == "a\\ufffeb\\uffff\\U0010ffff\\ufdd0\\ud800"
    assert safe("\ufffd \u00a0\ue000") == "\ufffd \u00a0\ue000"


@given(st.text())
def test_nothing_shown_is_a_control_character(text: str) -> None:
    shown = safe(text)
    assert not set(shown) & {
        chr(code)
        for code in (
            *range(9),
            *range(11, 32),
            *range(127, 160),
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
        )
    }


TEXTS = st.text(st.sampled_from("ab_ []()|\\`*<>/&;#~:!\n\x1b\u202e") | st.characters())
"""Texts rich in what Markdown, rich or terminals read as more than itself."""


def read_back(document: str) -> list[list[str]]:
    """The cells of all tables of a document, row by row, as a reader of Markdown shows them."""
    rows: list[list[str]] = []
    for token in MarkdownIt().enable(["table", "strikethrough"]).parse(document):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and rows:
            parts = token.children or []
            assert {part.type for part in parts} <= {"text", "text_special"}, f"{token.content!r} is no text"
            rows[-1].append("".join(part.content for part in parts))
    return rows


@given(TEXTS, TEXTS)
@example("puf[eta=1]", "puf[eta=2]")
@example("a|b", "\\")
@example("\\|", "[x](y)")
@example("<b>&lt;</b>", "*a* _b_ `c` ~~d~~")
@example(" __a__ ", " ___ _b")
def test_a_reader_of_markdown_shows_cells_as_they_are(one: str, other: str) -> None:
    document = "\n".join([row(["one", "other"]), row(["---", "---"]), row([f"x{one}x", f"x{other}x"])])
    assert read_back(document) == [["one", "other"], [line(f"x{one}x"), line(f"x{other}x")]]


@given(TEXTS)
@example("1. first")
@example("12) last")
@example("# title")
@example("- [ ] task")
@example("+ a")
@example("> said")
@example("===")
@example("\N{NO-BREAK SPACE}   code")
@example("__init__")
@example("[a]: b")
def test_a_reader_of_markdown_shows_items_as_they_are(text: str) -> None:
    tokens = MarkdownIt().enable(["table", "strikethrough"]).parse(f"{item(f'{text}x')}\n{item('end')}")
    kinds = ["bullet_list", *["list_item", "paragraph"] * 2]
    assert [token.type.removesuffix("_open") for token in tokens if token.nesting == 1] == kinds
    parts = [token.children or [] for token in tokens if token.type == "inline"]
    assert {part.type for each in parts for part in each} <= {"text", "text_special"}
    assert ["".join(part.content for part in each) for each in parts] == [line(f"{text}x").lstrip(), "end"]


def test_words_stay_readable_in_a_document() -> None:
    assert row(["fine_tune", "0.98", "[eta=1]", "a-b.c"]) == "| fine_tune | 0.98 | [eta=1] | a-b.c |"


@given(TEXTS)
def test_a_line_is_one_line(text: str) -> None:
    assert line(text).splitlines() == [line(text)] * bool(text)


@pytest.mark.parametrize("width", [40, 100, 200])
def test_labels_come_whole_into_tables_on_terminals_of_any_width(width: int) -> None:
    """Columns of numbers stay; the one with labels goes on in the next line, so that none is taken for another."""
    labels = [*LABELS, "federaser_every_two_rounds_of_all_1", "federaser_every_two_rounds_of_all_2"]
    lines = [Line(label, ("1.0", "2.0"), "PASS", ("yes", "yes")) for label in labels]
    console = Console(file=io.StringIO(), width=width, color_system=None)
    headings = {"forget_accuracy": "forget", "retain_accuracy": "retain"}
    console.print(report._table(lines, headings, width >= 100))
    shown = printed(console).splitlines()
    room = shown[0].index("forget")
    in_column = "".join(text[:room].rstrip() for text in shown[1:])
    assert in_column == "".join(map(line, labels))


def test_a_summary_line_is_shown_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=80)
    report._say(console, "[red]x :heart: [/] a\nPASS")
    assert printed(console) == "[red]x :heart: [/] a\\nPASS\n"


@pytest.mark.parametrize("width", [60, 200])
def test_labels_come_whole_into_the_tables_of_sweeps_and_of_tuning(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    labels = [label for label in LABELS if label.isascii() or label == HOSTILE]  # a letter to a column
    rows = [[label, label, "1.0", "PASS"] for label in labels]
    monkeypatch.setattr(table, "_shown", lambda _: (["a|[red]key", "strategy", "test", "verdict"], rows))
    monkeypatch.setattr(table, "_kind", lambda _: "classification")
    monkeypatch.setattr(table, "about", lambda _: {"name": "a[b]:heart:", "cells": []})
    trials = {label: [Trial(label, 0, catalogue()["fine_tune"](), 1.0, 1.0, 1, 1)] for label in labels}
    swept, tuned = (Console(file=io.StringIO(), width=width, color_system=None) for _ in range(2))
    table.show(Path("any"), swept)
    tuning.show(cast(Any, SimpleNamespace(trials=trials)), tuned)
    assert "a[b]:heart:: 0 cells" in printed(swept) and "a|[red]key" in printed(swept)
    shown = printed(swept).splitlines()
    for label in labels:
        assert any(text.split()[:2] == [line(label)] * 2 for text in shown)
    room = printed(tuned).splitlines()[0].index("trials")
    body = printed(tuned).partition("as written, best:")[0].splitlines()[1:]
    assert "".join(text[:room].strip() for text in body) == "".join(map(line, labels))
    assert read_back(table.markdown(Path("any")))[1:] == [list(map(line, row)) for row in rows]


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_labels_come_whole_into_the_lines_of_a_log() -> None:
    labels = [Label("unlearn", "r", label, 1) for label in LABELS]
    console = Console(file=io.StringIO(), width=200)
    with progress(labels, console, quiet=False) as watchers:
        for label in labels:
            for watcher in watchers:
                watcher.end(label, 1, 0.0)
    shown = printed(console)
    assert all(safe(label) in shown for label in LABELS) and "]0;owned\x07" not in shown


@pytest.mark.parametrize("label", LABELS)
def test_a_label_at_work_comes_whole_to_a_terminal(label: str) -> None:
    one = Label("unlearn", "r", label, 1)
    console = Console(file=io.StringIO(), width=60 + 4 * cell_len(safe(label)), force_terminal=True)
    console.print(picture(Standing(0, 1, {"unlearn": (0, 1)}, [(one, 3)], 0.5, 10.0, 1.0, 1.0, 1.0)))
    assert f"{line(label)}: 3" in Text.from_ansi(printed(console)).plain
    assert "]0;owned\x07" not in printed(console)


def test_a_message_about_a_hostile_scenario_does_not_reach_the_terminal_as_a_command(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text('name: "\\e]0;owned\\a"\nwhat\u202eever: 1\n', encoding="utf-8")
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 2
    assert "\x1b" not in done.output and "\u202e" not in done.output


SCENARIO = """\
name: hostile
seeds: [1]
engine: {name: inline, workers: 2}
data: {name: npz, path: x.npz}
sites: {names: ["no[red]rth", east], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 1, batch_size: 64}
requests:
  - {id: "some[bold]", site: "no[red]rth", patients: {count: 2}}
strategies:
  - {name: fine_tune, as: "a|b[eta=1]:heart:", rounds: 1}
  - {name: fine_tune, as: "a|b[eta=2]:heart:", rounds: 1}
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario whose data has hostile patients, images and sexes."""
    folder, rng = tmp_path_factory.mktemp("hostile"), np.random.default_rng(0)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for split, count in (("train", 60), ("val", 2), ("test", 2)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8) % 2
        arrays[f"{split}_patient_id"] = np.array([f"{MARKUP}{split}{i // 2}" for i in range(count)])
        arrays[f"{split}_names"] = np.array([f"{split}{i}{MARKUP}" for i in range(count)])
        arrays[f"{split}_sex"] = np.array([f"{HOSTILE}|\n{i % 2}" for i in range(count)])
    np.savez(folder / "x.npz", allow_pickle=False, **arrays)
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    return folder


def call(folder: Path, *words: str) -> Result:
    done = CliRunner().invoke(
        app, [word.replace("HERE", str(folder)) for word in words], catch_exceptions=False
    )
    assert not set("\x1b\x07\u202e") & set(done.output), "a command for the terminal"
    return done


@pytest.mark.gate
def test_what_data_and_labels_hold_is_shown_and_not_obeyed(hostile: Path) -> None:
    """The whole way: check, simulate with its progress and table, report, a document."""
    root = ("--data-root", "HERE")
    checked = call(hostile, "check", "HERE/scenario.yaml", *root)
    run = call(hostile, "simulate", "HERE/scenario.yaml", "--out", "HERE/run", *root)
    reported = call(hostile, "report", "HERE/run", "--details")
    document = call(hostile, "report", "HERE/run", "--markdown")
    assert {done.exit_code for done in (checked, run, reported, document)} == {0}
    assert "some[bold]: forget 2 patients of no[red]rth" in checked.output
    for number in (1, 2):
        label = f"a|b[eta={number}]:heart:"
        assert f"unlearn {label} for some[bold] seed 1: 1 rounds" in run.output
        assert any(text.startswith(f"{label} ") for text in run.output.splitlines())
        assert any(text.startswith(f"{label} ") for text in reported.output.splitlines())
        assert label in [cells[0] for cells in read_back(document.output)]


def test_a_patient_that_is_not_there_is_told_without_obeying_those_that_are(hostile: Path) -> None:
    named = {
        'requests.0.patients={count: 1, by: {sex: "x"}}': "\\x1b]0;owned",
        "requests.0.patients=[nobody]": "[red]a|b:heart:",
    }
    for change, words in named.items():
        told = call(hostile, "check", "HERE/scenario.yaml", "--data-root", "HERE", "--set", change)
        assert told.exit_code == 2 and words in told.output


@pytest.mark.gate
def test_a_traceback_quotes_what_it_must_not_obey(hostile: Path) -> None:
    words = ["--data-root", str(hostile), "--set", 'requests.0.patients={by: {sex: "x"}}', "--debug"]
    told = subprocess.run(
        [sys.executable, "-m", "fedunlearn", "check", str(hostile / "scenario.yaml"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert told.returncode == 1 and "Traceback" in told.stderr and "\\x1b]0;owned" in told.stderr
    assert not set("\x1b\x07\u202e") & set(told.stderr)


def test_the_name_of_a_file_is_shown_and_not_obeyed(hostile: Path) -> None:
    good, bad = (hostile / f"{name}{HOSTILE}.yaml" for name in ("good", "bad"))
    good.write_text(SCENARIO, encoding="utf-8")
    bad.write_text(SCENARIO.replace("rounds: 1", "rounds: x"), encoding="utf-8")
    for file, code in ((good, 0), (bad, 2)):
        done = call(hostile, "check", str(file), "--data-root", "HERE")
        assert done.exit_code == code and f"{hostile}/{safe(file.name)}:" in done.output

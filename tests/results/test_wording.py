"""What comes from scenarios and data is shown as it is, and neither a terminal nor a document obeys it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from rich.console import Console
from typer.testing import CliRunner

from fedunlearn.__main__ import app
from fedunlearn.federation.jobs import Label
from fedunlearn.federation.progress import progress
from fedunlearn.results import report
from fedunlearn.results.tables import Line
from fedunlearn.results.wording import cell, row, safe

HOSTILE = "\x1b]0;owned\x07\u202eabc"
LABELS = ["puf[eta=1]", "puf[eta=2]", "[red]x", "a|b", "back\\slash", HOSTILE]


def test_what_is_seen_stays_and_what_commands_is_shown() -> None:
    assert safe("Müller, 患者 7\n\tnext [bold] |") == "Müller, 患者 7\n\tnext [bold] |"
    assert safe(HOSTILE) == "\\x1b]0;owned\\x07\\u202eabc"
    assert safe("\x9b31m\r\x7f") == "\\x9b31m\\r\\x7f"


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


def test_a_cell_of_a_document_ends_where_its_row_says() -> None:
    """A reader splits at a bar that no backslash stands before."""
    written = row(["a|b", "c\\", "d\ne"])
    assert written == "| a\\|b | c\\\\ | d e |"


def test_labels_come_whole_into_tables_on_terminals_and_in_documents() -> None:
    lines = [Line(label, ("1.0",), "PASS", "") for label in LABELS]
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    console.print(report._table(lines, {"forget_accuracy": "forget"}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    document = "\n".join(report._rows(lines, {"forget_accuracy": "forget"}))
    for label in LABELS:
        assert safe(label) in shown
        assert row([label])[2:-2] in document
    assert HOSTILE not in shown and cell("[red]x").plain == "[red]x"


@pytest.mark.parametrize("terminal", [True, False])
def test_labels_come_whole_into_progress(terminal: bool) -> None:
    labels = [Label("unlearn", "r", label, 1) for label in LABELS]
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    with progress(labels, console, quiet=False) as watchers:
        for label in labels:
            for watcher in watchers:
                watcher.end(label, 1, 0.0)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert all(safe(label) in shown for label in LABELS) and "]0;owned\x07" not in shown


def test_a_message_about_a_hostile_scenario_does_not_reach_the_terminal_as_a_command(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text('name: "\\e]0;owned\\a"\nwhat\u202eever: 1\n', encoding="utf-8")
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 2
    assert "\x1b" not in done.output and "\u202e" not in done.output

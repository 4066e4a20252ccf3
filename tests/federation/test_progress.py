"""What a person watching sees, on a terminal, elsewhere, and when quiet."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from fedunlearn.federation.jobs import Label, Round
from fedunlearn.federation.progress import progress, watching

LABELS = [
    Label("original", "", "original", 7),
    Label("retrained", "some", "retrained", 7),
    Label("unlearn", "some", "salun", 7),
    Label("unlearn", "some", "salun", 8),
]
UNSEEN = [Label("evaluate", "", "original-7", 7), Label("slices", "some", "original", 7)]


def shown(terminal: bool, quiet: bool = False) -> str:
    """The output while all procedures but the last run: two rounds each, and what nobody cares for."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, legacy_windows=False)
    with progress(LABELS, console, quiet) as watchers:
        for watcher in watchers:
            for label in [*LABELS[:3], *UNSEEN]:
                for number in range(2):
                    watcher.round(Round(label, number, {}, {}, {}, 0.0))
                watcher.end(label, 2, 0.0)
    return out.getvalue()


def test_a_terminal_shows_one_bar_per_kind_of_procedure() -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(terminal=True))
    last = [line.split() for line in plain.splitlines() if line.strip()][-3:]
    assert [words[0] for words in last] == ["original", "retrained", "salun"]
    assert ["1/1" in words for words in last] == [True, True, False]
    assert "1/2" in last[2]  # one of salun's two procedures is still to come
    assert all(words[-3:-1] == ["2", "rounds"] for words in last)


def test_elsewhere_every_procedure_that_ends_is_one_plain_line() -> None:
    assert shown(terminal=False).splitlines() == [
        "[1/4] original seed 7: 2 rounds",
        "[2/4] retrained for some seed 7: 2 rounds",
        "[3/4] unlearn salun for some seed 7: 2 rounds",
    ]


def test_all_shadows_share_one_bar() -> None:
    out = io.StringIO()
    labels = [Label("shadow", "", str(number), 100 + number) for number in range(3)]
    with progress(labels, Console(file=out, force_terminal=True, width=100, legacy_windows=False), False) as (
        watcher,
    ):
        for label in labels[:2]:
            watcher.round(Round(label, 0, {}, {}, {}, 0.0))
            watcher.end(label, 1, 0.0)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    last = [line.split() for line in plain.splitlines() if line.strip()][-1]
    assert last[0] == "shadows" and "2/3" in last and last[-3:-1] == ["2", "rounds"]


def test_quiet_shows_nothing() -> None:
    assert shown(terminal=True, quiet=True) == ""


def test_reading_that_takes_long_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 4))  # seconds; a line is due after ten
    monkeypatch.setattr("fedunlearn.federation.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    watched = watching(Console(file=out, width=100))
    assert list(watched(range(5), "reading images")) == [0, 1, 2, 3, 4]
    assert out.getvalue().splitlines() == ["reading images: 2 of 5"]


def test_who_is_quiet_hears_nothing_of_reading() -> None:
    out = io.StringIO()
    assert list(watching(Console(file=out), quiet=True)(range(3), "reading images")) == [0, 1, 2]
    assert out.getvalue() == ""

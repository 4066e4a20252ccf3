"""What a person watching sees, on a terminal, elsewhere, and when quiet."""

from __future__ import annotations

import io
import json
import re
import sys
import time
import types
from collections.abc import Sequence

import pytest
from rich.console import Console

from fedunlearn.federation.engines import Answer
from fedunlearn.federation.jobs import Label, Round
from fedunlearn.federation.pace import Pace
from fedunlearn.federation.progress import picture, progress, watching
from fedunlearn.results import events

LABELS = [
    Label("original", "", "original", 7),
    Label("retrained", "some", "retrained", 7),
    Label("unlearn", "some", "salun", 7),
    Label("unlearn", "some", "salun", 8),
]
UNSEEN = [Label("evaluate", "", "original-7", 7), Label("slices", "some", "original", 7)]


class Clock:
    """Seconds, as many as somebody says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(
    console: Console, quiet: bool = False, seconds: float = 1.0, labels: Sequence[Label] = LABELS
) -> None:
    """All procedures but the last run: two rounds of 100 images each, and what nobody cares for."""
    clock = Clock()
    with progress(labels, console, quiet, dict.fromkeys(labels, 200.0), clock=clock) as watchers:
        for watcher in watchers:
            for label in [*labels[:3], *UNSEEN]:
                for number in range(2):
                    clock.now += seconds
                    answers = {"north": Answer(0, None, None, seconds, 100)}
                    watcher.round(Round(label, number, {}, answers, {}, 0.0))
                watcher.end(label, 2, 0.0)


def shown(terminal: bool, quiet: bool = False, seconds: float = 1.0, width: int = 80) -> str:
    """What a console has shown then."""
    out = io.StringIO()
    watched(Console(file=out, force_terminal=terminal, width=width, legacy_windows=False), quiet, seconds)
    return out.getvalue()


def last_picture(text: str, lines: int) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return [line.rstrip() for line in plain.splitlines() if line.strip()][-lines:]


def test_a_terminal_shows_a_line_per_phase_and_how_long_it_still_takes() -> None:
    *phases, all_of_it = last_picture(shown(terminal=True), 4)
    assert [words.split()[0] for words in phases] == ["original", "retrained", "unlearn"]
    assert ["1/1" in words for words in phases] == [True, True, False]
    assert "1/2" in phases[2]  # one of salun's two procedures is still to come
    # 600 images of 800, and 4 rounds of 100 answers, which count a quarter each: 700 of 900, in 10 s.
    assert re.fullmatch(r"78%, 3 of 4 procedures, \d\d images/s, 10 s gone, about 3 s left", all_of_it)


def test_a_terminal_of_eighty_columns_is_wide_enough_for_hostile_names_and_many_at_work() -> None:
    labels = [Label("unlearn", "r\n" * 99, f"\u202e{number}" * 99, 1) for number in range(20)]
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=True, width=80, legacy_windows=False)
    with progress(labels, console, False, clock=clock) as (watcher,):
        for label in labels:
            watcher.round(Round(label, 0, {}, {}, {}, 0.0))
    lines = last_picture(out.getvalue(), 2)
    assert lines[0].startswith("unlearn") and "\\u202e19" in lines[0] and lines[0].endswith("…")
    assert all(len(line) <= 80 for line in lines) and "\u202e" not in out.getvalue()


def test_procedures_at_work_are_named_with_their_rounds() -> None:
    console = Console(file=io.StringIO(), width=100)
    pace = Pace(LABELS, 0.0)
    pace.round(Round(LABELS[2], 0, {}, {}, {}, 0.0), 1.0)
    pace.round(Round(LABELS[2], 1, {}, {}, {}, 0.0), 2.0)
    with console.capture() as captured:
        console.print(picture(pace.standing(2.0)))
    unlearn = captured.get().splitlines()[2]
    assert unlearn.split()[-4:] == ["rounds", "of", "salun:", "2"]


def test_elsewhere_every_procedure_that_ends_is_one_plain_line() -> None:
    assert shown(terminal=False).splitlines() == [
        "[1/4] original seed 7: 2 rounds",
        "[2/4] retrained for some seed 7: 2 rounds",
        "[3/4] unlearn salun for some seed 7: 2 rounds",
    ]


@pytest.mark.gate
def test_time_that_passes_without_a_round_is_told_of() -> None:
    """A round that takes ten minutes: somebody else than the watcher looks at the clock."""
    out, clock, lines = io.StringIO(), Clock(), list[str]()
    with progress(LABELS, Console(file=out, width=80), False, clock=clock):
        for minute in range(1, 4):
            clock.now = minute * 60.0
            deadline = time.monotonic() + 10
            while len(lines) < minute and time.monotonic() < deadline:
                time.sleep(0.05)
                lines = out.getvalue().splitlines()
    assert len(lines) >= 2
    assert lines[-1] == "0%, 0 of 4 procedures, 3 min gone, time left unknown"


def test_programs_hear_events_and_nothing_else() -> None:
    out = io.StringIO()
    told = events.Events(out, lambda: 1_000_000_000.25)
    console = events.console(told)
    watched(console, seconds=4.0)
    console.print("[1/3] what [b]people[/b] read", markup=False)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {one["time"] for one in found} == {"2001-09-09T01:46:40.250+00:00"}
    assert [(one["phase"], one["state"]) for one in found if one["event"] == "phase"] == [
        ("original", "begun"),
        ("original", "ended"),
        ("retrained", "begun"),
        ("retrained", "ended"),
        ("unlearn", "begun"),
    ]
    ended = [one for one in found if one["event"] == "procedure"]
    assert [(one["strategy"], one["seed"], one["rounds"], one["done"], one["total"]) for one in ended] == [
        ("original", 7, 2, 1, 4),
        ("retrained", 7, 2, 2, 4),
        ("salun", 7, 2, 3, 4),
    ]
    told_of = [one for one in found if one["event"] == "progress"]
    assert [one["seconds"] for one in told_of] == [4.0, 12.0, 20.0]  # at most every five seconds
    assert told_of[-1]["seconds_left"] == pytest.approx(12.0)  # 300 images to come, at 25 a second
    assert found[-1]["event"] == "message" and found[-1]["text"] == "[1/3] what [b]people[/b] read"


def test_a_notebook_s_cell_is_drawn_anew_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[str]()

    class Handle:
        def update(self, content: dict[str, str], raw: bool) -> None:
            drawn.append(content["text/plain"])

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id and not drawn
        drawn.append(content["text/plain"])
        return Handle()

    notebook = types.ModuleType("IPython.display")
    monkeypatch.setattr(notebook, "display", display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    watched(Console(file=io.StringIO(), force_jupyter=True), labels=LABELS[:3])
    assert "3 of 3 procedures" in drawn[-1]
    assert "\x1b" not in "".join(drawn)


def test_all_shadows_share_one_line() -> None:
    pace = Pace([Label("shadow", "", str(number), 100 + number) for number in range(3)], 0.0)
    for label in pace.labels[:2]:
        pace.end(label, 1)
    assert pace.standing(1.0).phases == {"shadow": (2, 3)}


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

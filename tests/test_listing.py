"""What the lists say, that it is written down as it is, and that saying it loads nothing that computes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fedunlearn import listing
from fedunlearn.installation import ROOT
from fedunlearn.scenario import catalogue


@pytest.mark.parametrize("what", listing.SOURCES)
def test_the_lists_are_written_down_as_they_are(what: str) -> None:
    remedy = "run `python scripts/write_lists.py`"
    stored = json.loads(listing.STORED.read_text(encoding="utf-8"))[what]
    assert stored["entries"] == json.loads(json.dumps(catalogue.entries(what))), remedy
    assert stored["digest"] == listing.digest(what), remedy


def test_a_list_of_other_files_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "digest", lambda what: "of other files")
    monkeypatch.setattr(catalogue, "entries", lambda what: [{"name": "new", "summary": "New."}])
    assert [one["name"] for one in listing.entries("models")] == ["new"]


@pytest.mark.gate
@pytest.mark.parametrize("words", [["strategies"], ["strategies", "salun"], ["measures"], ["scenarios"]])
def test_to_list_loads_nothing_that_computes(words: list[str]) -> None:
    code = (
        "import sys; from fedunlearn.__main__ import app; app(['list', *sys.argv[1:]], standalone_mode=False); "
        "print(sorted({'torch', 'numpy', 'pandas', 'ray', 'flwr'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
    assert done.stderr.strip() == "[]" and done.stdout


def test_every_strategy_is_one_line_of_eighty_columns_in_one_group() -> None:
    lines = listing.lines("strategies", 80)
    names = [line[2:].split()[0] for line in lines if line.startswith("  ")]
    assert sorted(names) == [one["name"] for one in listing.entries("strategies")]
    assert max(map(len, lines)) <= 80
    groups = [line for line in lines if line and not line.startswith(("  ", "*"))]
    assert [group.split(":")[0] for group in groups] == [title.split(":")[0] for _, title in listing.GROUPS]
    exact = lines[1 : lines.index("")]
    assert [line.split()[0] for line in exact] == [
        one["name"] for one in listing.entries("strategies") if one["exact"]
    ]
    assert next(line for line in lines if " federaser " in line).split()[1] == "*"  # whole hospitals only


def test_where_there_is_no_terminal_nothing_is_cut() -> None:
    assert any(len(line) > 110 for line in listing.lines("strategies"))


@pytest.mark.parametrize("what", [*listing.SOURCES, "scenarios"])
def test_every_entry_can_be_shown_in_full(what: str) -> None:
    for one in listing.entries(what):
        text = listing.full(what, one["name"])
        assert text[0] == f"{one['name']}: {listing.plain(one['summary'])}" and text[-1]


@pytest.mark.gate
@pytest.mark.parametrize("what", [*listing.SOURCES, "scenarios"])
def test_no_entry_is_shown_with_the_markup_of_its_docstring(what: str) -> None:
    for one in listing.entries(what):
        text = listing.full(what, one["name"])
        assert not [row for row in text if row.endswith("::") or "`" in row]


def test_what_is_between_marks_stays() -> None:
    assert listing.plain("as in ``a.b`` and `c`::\n\n    x = `d") == "as in a.b and c:\n\n    x = `d"
    assert (
        listing.plain("rounds afterwards (`core.Recovery`); none by default")
        == "rounds afterwards; none by default"
    )
    assert listing.plain("`two\nlines` stay::") == "two\nlines stay:"


def test_one_strategy_in_full_has_settings_with_ranges_and_where_tune_looks() -> None:
    text = "\n".join(listing.full("strategies", "salun"))
    for words in (
        "Reference:",
        "Deviations:",
        "arXiv 2310.12508",
        "empirical",
        "Costs: those who hold the data",
    ):
        assert words in text
    rows = {line.split()[0]: line.split() for line in text.split("searched by tune\n")[1].splitlines()}
    assert rows["fraction"] == ["fraction", "0.5", "number", ">", "0", "and", "<=", "1", "0.1", "to", "0.9"]
    assert rows["recovery.rounds"] == ["recovery.rounds", "0", "whole", "number", ">=", "0", "0", "to", "4"]

"""The page on events names those that the program's own description names."""

from __future__ import annotations

import re

from fedunlearn.installation import ROOT
from fedunlearn.results import events


def test_the_page_has_the_events_of_the_docstring_and_their_fields() -> None:
    page = (ROOT / "docs" / "how-to" / "programs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    told = (events.__doc__ or "").split("=\n")[2]
    described = dict(re.findall(r"^(\w+) +(.*(?:\n {5,}.*)*)", told, re.MULTILINE))
    assert list(rows) == list(described)
    for event, words in described.items():
        assert set(re.findall(r"``(\w+)``", words)) - {"run"} == set(re.findall(r"`(\w+)`", rows[event])), (
            event
        )

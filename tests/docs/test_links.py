"""Every link of the documentation leads somewhere: to a file, and to a heading that is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import pages

OUTSIDE = ("http://", "https://", "mailto:")


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [problem for link in pages.links(page) if (problem := wrong(page, link))] == []


def wrong(page: Path, link: str) -> str:
    """What is wrong with a page's link; empty if nothing is. Addresses on the network are not looked at."""
    if link.startswith(OUTSIDE):
        return ""
    if link.startswith("/"):
        return f"{link}: a link from the root works in no browser of files"
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"{link}: no such file"
    if not target.is_relative_to(pages.ROOT):
        return f"{link}: outside of the repository"
    if anchor and anchor not in pages.anchors(target):
        return f"{link}: expected one of {sorted(pages.anchors(target))}"
    return ""


def test_it_notices_what_leads_nowhere(tmp_path: Path) -> None:
    """The check itself: a wrong file, a wrong heading, an anchor that only one of the two browsers has."""
    page = pages.DOCS / "results" / "index.md"
    assert wrong(page, "breast.md") == ""
    assert wrong(page, "../verdicts.md#still-good") == ""
    assert "no such file" in wrong(page, "brest.md")
    assert "expected one of" in wrong(page, "../verdicts.md#still-bad")
    assert "outside" in wrong(page, "../../../")
    assert "from the root" in wrong(page, "/verdicts.md")
    (tmp_path / "page.md").write_text("# Gain & loss\n\n## Again\n\n## Again\n", encoding="utf-8")
    assert pages.anchors(tmp_path / "page.md") == {"again"}


@pytest.mark.parametrize(
    "page", sorted((pages.DOCS / "results").glob("[!i]*.md")), ids=lambda page: str(page.stem)
)
def test_a_study_says_at_its_top_how_it_is_made(page: Path) -> None:
    """The command, whose file is there, and the state it was made with; and the index has the study."""
    top = page.read_text(encoding="utf-8").partition("\n## ")[0]
    files = [
        word
        for command in pages.commands(page, re.compile("python "))
        for word in command.split()
        if word.startswith(("scenarios/", "benchmarks/"))
    ]
    assert files
    assert [file for file in files if not (pages.ROOT / file).is_file()] == []
    assert files[0] in top
    assert "**Made with**" in top
    assert page.name in pages.links(page.with_name("index.md"))

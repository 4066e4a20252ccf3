"""The documentation's pages, and what is in them: headings, links, commands, marked texts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
PAGES = sorted([*(ROOT / name for name in OTHERS), *DOCS.rglob("*.md")])


def name(page: Path) -> str:
    """The page from the repository's root."""
    return page.relative_to(ROOT).as_posix()


@cache
def parsed(page: Path) -> tuple[Token, ...]:
    """The page's tokens, inline ones after the block that they are in."""
    found = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    return tuple(one for token in found for one in (token, *(token.children or ())))


def links(page: Path) -> list[str]:
    """Where the page's links and pictures lead."""
    return [
        str(token.attrs[place])
        for token in parsed(page)
        for place in ("href", "src")
        if place in token.attrs and token.type in ("link_open", "image")
    ]


@cache
def headings(page: Path) -> tuple[str, ...]:
    """The text of the page's headings, without marks."""
    tokens = [token for token in parsed(page) if token.block]
    return tuple(
        "".join(child.content for child in inline.children or ())
        for opened, inline in pairwise(tokens)
        if opened.type == "heading_open"
    )


def anchors(page: Path) -> set[str]:
    """What `#…` may be: the anchors that a repository's browser and the site both give to the page's headings."""
    return set(_numbered(map(_of_a_browser, headings(page)), "-")) & set(
        _numbered(map(_of_the_site, headings(page)), "_")
    )


def _of_a_browser(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _of_the_site(heading: str) -> str:
    """As Python-Markdown's `toc` does."""
    ascii_only = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())


def _numbered(slugs: Iterator[str], before: str) -> Iterator[str]:
    """Those that come again get a number."""
    seen = Counter[str]()
    for slug in slugs:
        yield f"{slug}{before}{seen[slug]}" if seen[slug] else slug
        seen[slug] += 1


def commands(page: Path, program: re.Pattern[str]) -> list[str]:
    """The lines of the page's blocks of code that call a program."""
    return [
        line.strip()
        for token in parsed(page)
        if token.type in ("code_block", "fence")
        for line in token.content.splitlines()
        if program.match(line.strip())
    ]


def file(page: Path, called: str, language: str) -> str:
    """The text of the block after the comment ``<!-- file: NAME -->``."""
    _, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- file: {called} -->\n```{language}\n")
    text, end, _ = rest.partition("```\n<!-- end -->")
    assert end, f"{name(page)} has no file {called}"
    return text

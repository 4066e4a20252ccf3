"""The documentation as a site: it is built without a complaint, and nothing of it is fetched from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import docs_links
from tests.docs import pages

pytestmark = pytest.mark.gate

ALONE = """
import socket, sys
def refused(*_): raise OSError("the network was asked for")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from mkdocs.__main__ import cli
cli(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, made by a process that has no network; a warning fails it."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "build", "--strict", "--quiet", "--site-dir", place],
        cwd=pages.ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_every_page_is_there(built: Path) -> None:
    wanted = {page.relative_to(pages.DOCS).with_suffix(".html") for page in pages.DOCS.rglob("*.md")}
    assert {path.relative_to(built) for path in built.rglob("*.html")} == wanted | {Path("404.html")}


def test_nothing_is_fetched_from_elsewhere(built: Path) -> None:
    """Scripts, styles, fonts and pictures are the site's own. Its script would fetch one for diagrams in Mermaid."""
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        parser = Loads()
        parser.feed(text)
        assert [place for place in parser.found if "//" in place or place.startswith("data:text")] == [], page
        assert 'class="mermaid"' not in text


class Loads(HTMLParser):
    """What a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        place = known.get("src") or (known.get("href") if tag == "link" else None)
        if place and known.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(place)


def test_a_link_out_of_the_documentation_becomes_a_name() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="results/index.md"))
    told = docs_links.on_page_markdown(
        "[a](../verdicts.md#x) [CONTRIBUTING.md](../../CONTRIBUTING.md) [all](../../scenarios/papers/)",
        page,
    )
    assert told == "[a](../verdicts.md#x) `CONTRIBUTING.md` all (`scenarios/papers/`)"

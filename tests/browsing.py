"""Pages in a real browser, from disk and without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"


@contextmanager
def started() -> Iterator[Any]:
    """A browser; without one, tests are skipped, but not in CI."""
    if not Path(CHROMIUM).is_file():
        assert not os.environ.get("CI"), "no chromium: .ci/run installs it"
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(
    browser: Any, file: Path, width: int = 1280, height: int = 800, **how: Any
) -> tuple[Any, list[str]]:
    """The page, and what it complained of or asked a network for."""
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **how)
    shown, complaints = context.new_page(), list[str]()
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("dialog", lambda dialog: complaints.append(dialog.message))
    shown.on("request", lambda r: complaints.append(r.url) if r.url != file.as_uri() else None)
    shown.goto(file.as_uri())
    return shown, complaints


def grave(shown: Any) -> list[tuple[str, str]]:
    """What axe finds that is serious: which rule, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(shown).response["violations"]
    return [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]

"""Runs side by side in a real browser: from disk, without a network, by pointer and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedunlearn import comparison
from tests.browsing import grave, opened, started
from tests.comparison.test_comparison import HOSTILE
from tests.comparison.test_standings import runs

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough runs for ranks; one of them is called by a name that no page may obey."""
    found = runs(7)
    settings = [{"training.lr": str(i % 2)} for i in range(len(found))]
    found = [replace(run, settings=own) for run, own in zip(found, settings, strict=True)]
    place = tmp_path_factory.mktemp("compared") / "compare.html"
    comparison.write([replace(found[0], name="<script>alert(1)</script> " + HOSTILE), *found[1:]], place)
    return place


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_without_a_complaint_and_axe_finds_nothing_serious(
    browser: Any, file: Path, width: int, dark: bool
) -> None:
    shown, complaints = opened(
        browser, file, width, color_scheme="dark" if dark else "light", bypass_csp=True
    )
    boxes = shown.evaluate(
        "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg')]"
        ".map(s => s.getBoundingClientRect()).filter(b => b.width > 200 && b.height > 60).length)"
    )
    assert boxes == [1, 1, 1]  # of every ranking, the wide one or the narrow one
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert not complaints
    assert not grave(shown)


def test_a_hostile_name_is_text_and_nothing_else_may_be_loaded(browser: Any, file: Path) -> None:
    shown, complaints = opened(browser, file)
    assert "<script>alert(1)</script>" in shown.inner_text("body") and not complaints
    loaded = "[...document.images].map(i => i.src).concat([...document.querySelectorAll('[href]')].map(a => a.href))"
    assert not [place for place in shown.evaluate(loaded) if not place.startswith(("data:", file.as_uri()))]
    shown.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://a.test/x'}))")
    shown.wait_for_timeout(200)
    assert any("Content Security Policy" in one for one in complaints)


def test_tables_sort_by_pointer_and_by_keyboard(browser: Any, file: Path) -> None:
    shown, _ = opened(browser, file)
    heads = shown.locator("#answers-1 thead tr:last-child th")
    memory = next(i for i, text in enumerate(heads.all_inner_texts()) if text.startswith("memory"))
    column = (
        "[...document.querySelectorAll('#answers-1 tbody tr')]"
        f".map(row => row.cells[{memory}].innerText).map(text => parseFloat(text.replace('−', '-')))"
    )
    before = shown.evaluate(column)
    heads.nth(memory).locator("button").click()
    values = shown.evaluate(column)
    assert values == sorted(before) != before
    assert heads.nth(memory).get_attribute("aria-sort") == "ascending"
    heads.nth(memory).locator("button").focus()
    shown.keyboard.press("Enter")
    assert shown.evaluate(column) == sorted(before, reverse=True)
    assert heads.nth(memory).get_attribute("aria-sort") == "descending"


def test_what_is_folded_opens_by_keyboard(browser: Any, file: Path) -> None:
    shown, _ = opened(browser, file)
    summary = shown.locator("details:has(#settings) > summary")
    assert not shown.locator("#settings").is_visible()
    summary.focus()
    shown.keyboard.press("Enter")
    assert shown.locator("#settings").is_visible() and "training.lr" in shown.inner_text("#settings")

"""The page in a real browser: from disk, without a network, by pointer and keyboard, wide, narrow, dark, on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.pages import report
from fedunlearn.results.runfolder import RunFolder
from tests.browsing import grave, opened, started
from tests.scoring.years.made import year

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as found:
        yield found


@pytest.fixture(scope="module")
def file(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "report.html"
    place.write_text(report(run), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def hostile_file(hostile: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "hostile.html"
    place.write_text(report(hostile), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def year_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "year.html"
    place.write_text(report(year(tmp_path_factory.mktemp("year") / "run")), encoding="utf-8")
    return place


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_a_year_opens_without_a_complaint_and_fits(
    browser: Any, year_file: Path, width: int, dark: bool
) -> None:
    shown, complaints = opened(browser, year_file, width, color_scheme="dark" if dark else "light")
    boxes = shown.evaluate(
        "[...document.querySelectorAll('#year figure')].map(f => [...f.querySelectorAll('svg')]"
        ".map(s => s.getBoundingClientRect()).filter(b => b.width > 200 && b.height > 60).length)"
    )
    assert len(boxes) == 7 and set(boxes) == {1}
    assert not complaints and not grave(shown)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_it_opens_without_a_complaint_and_every_figure_is_drawn(
    browser: Any, file: Path, width: int, dark: bool
) -> None:
    shown, complaints = opened(browser, file, width, color_scheme="dark" if dark else "light")
    boxes = shown.evaluate(
        "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg')]"
        ".map(s => s.getBoundingClientRect()).filter(b => b.width > 200 && b.height > 60).length)"
    )
    assert len(boxes) >= 8 and set(boxes) == {1}  # the wide one or the narrow one
    assert not complaints
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_do_nothing_and_break_nothing(browser: Any, hostile_file: Path) -> None:
    for width in (1280, 390):
        shown, complaints = opened(browser, hostile_file, width)
        assert not complaints
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert "<script>alert(1)</script>" in shown.inner_text("body")


def test_tables_sort_by_pointer_and_by_keyboard(browser: Any, file: Path) -> None:
    shown, _ = opened(browser, file)
    table = shown.locator("#r1-patients-table")
    button = table.locator("thead button").nth(1)
    column = (
        "[...document.querySelectorAll('#r1-patients-table tbody td:nth-child(2) data')].map(d => +d.value)"
    )
    button.click()
    values = shown.evaluate(column)
    assert values == sorted(values) and len(values) > 1
    assert table.locator("thead th").nth(1).get_attribute("aria-sort") == "ascending"
    button.focus()
    shown.keyboard.press("Enter")
    assert shown.evaluate(column) == sorted(values, reverse=True)
    assert table.locator("thead th").nth(1).get_attribute("aria-sort") == "descending"


def test_tab_reaches_every_control_and_arrows_tell_a_charts_values(browser: Any, file: Path) -> None:
    shown, _ = opened(browser, file)
    controls = shown.evaluate(
        "[...document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility()).map((e, i) => (e.dataset.control = i)).length"
    )
    seen = set()
    for _ in range(controls + 20):
        shown.keyboard.press("Tab")
        seen.add(shown.evaluate("document.activeElement.dataset.control ?? ''"))
    assert len(seen - {""}) == controls
    shown.locator("#r1-memory-figure .drawing").focus()
    shown.keyboard.press("ArrowRight")
    first = shown.inner_text("#tip")
    shown.keyboard.press("ArrowRight")
    assert "%" in first and shown.inner_text("#tip") not in ("", first)
    shown.keyboard.press("Escape")
    assert not shown.locator("#tip").is_visible()


def test_a_pointer_on_a_mark_tells_its_values(browser: Any, file: Path) -> None:
    shown, _ = opened(browser, file)
    shown.locator("#r1-memory-figure .wide [data-label]").last.hover(force=True)
    assert shown.locator("#tip").is_visible()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(browser: Any, file: Path, width: int, dark: bool) -> None:
    shown, _ = opened(browser, file, width, color_scheme="dark" if dark else "light", bypass_csp=True)
    assert not grave(shown)


def test_dark_light_and_paper_look_different_and_none_is_empty(browser: Any, file: Path) -> None:
    pictures = {}
    for scheme in ("light", "dark"):
        shown, _ = opened(browser, file, color_scheme=scheme)
        pictures[scheme] = shown.screenshot()
        ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 150) == (scheme == "dark")
    assert pictures["light"] != pictures["dark"] and min(map(len, pictures.values())) > 20_000
    paper = shown.pdf(format="A4")
    assert paper.startswith(b"%PDF") and len(paper) > 20_000
    shown.emulate_media(media="print")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_on_paper_no_heading_is_empty_and_heads_of_tables_come_again(browser: Any, file: Path) -> None:
    """Browsers repeat a table's head on the next sheet only if nothing in it has a box of its own."""
    shown, _ = opened(browser, file)
    shown.emulate_media(media="print")
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    displays = "[...document.querySelectorAll('thead button')].map(b => getComputedStyle(b).display)"
    assert set(shown.evaluate(displays)) == {"contents"}
    assert shown.locator("#r1-reasons-table").is_visible()
    assert "seeds:" in shown.locator("pre").inner_text() and shown.locator("pre").is_visible()
    empty = (
        "[...document.querySelectorAll('.part')].filter(p => p.checkVisibility())"
        ".filter(p => ![...p.children].slice(1).some(c => c.checkVisibility())).map(p => p.id)"
    )
    assert shown.evaluate(empty) == [] and not shown.locator("#r1-measures").is_visible()
    shown.evaluate("dispatchEvent(new Event('afterprint'))")
    shown.emulate_media(media="screen")
    assert not shown.locator("#r1-reasons-table").is_visible() and shown.locator("#r1-measures").is_visible()


def test_a_table_that_goes_on_to_the_right_says_so(browser: Any, file: Path) -> None:
    said = "getComputedStyle(document.querySelector('#r1-answers caption span'), '::after').content"
    for width, more in ((390, True), (1280, False)):
        shown, _ = opened(browser, file, width)
        shown.wait_for_timeout(200)
        assert ("More columns" in shown.evaluate(said)) == more

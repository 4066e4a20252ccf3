"""How large a page becomes, and how long it takes to write."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest

from fedunlearn import pages
from fedunlearn.results.runfolder import RunFolder
from tests.pages import made
from tests.pages.reading import parsed

MEGABYTE = 1_000_000


@pytest.mark.gate
@pytest.mark.parametrize(
    ("strategies", "seeds", "patients", "most", "seconds"),
    [(9, 3, 14, 3 * MEGABYTE, 20), (40, 5, 21, 10 * MEGABYTE, 40)],
    ids=["as of the default run", "of forty strategies with five seeds"],
)
@pytest.mark.usefixtures("real_pages")
def test_a_page_stays_small_and_is_soon_written(
    run: RunFolder, tmp_path: Path, strategies: int, seeds: int, patients: int, most: int, seconds: float
) -> None:
    """Two requests, 10 groups of unseen images, 64 rounds; seconds are twice what slow, busy cores take."""
    large = made.large(run, tmp_path / "run", strategies, seeds, patients, groups=3)
    began = _spent()
    text = pages.report(large)
    assert _spent() - began < seconds
    assert len(text.encode("utf-8")) < most
    read = parsed(text)
    named = {row.all("th")[0].text.strip() for row in read.by_id("r1-answers").all("tbody")[0].all("tr")}
    assert {f"strategy number {i}" for i in range(strategies)} <= named
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    assert len(drawings) == 2 * 2 * 7  # two requests, wide and narrow
    assert all("strategy number" in drawing for drawing in drawings)


def _spent() -> float:
    """CPU seconds of this process and of those that drew for it."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

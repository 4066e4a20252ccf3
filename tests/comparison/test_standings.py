"""Rankings of runs: what counts as a block, who takes part, and how it is told, drawn and put on a page."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rich.cells import cell_len

from fedunlearn import comparison
from fedunlearn.charts import drawn
from fedunlearn.charts.critical import critical
from fedunlearn.comparison.runs import Compared
from fedunlearn.comparison.standings import ALL, frames_of, standings
from fedunlearn.comparison.table import lines, probability
from fedunlearn.core import InputError
from fedunlearn.results.overview import Value
from fedunlearn.results.summary import WIDTH
from tests.comparison.test_comparison import HOSTILE, compared
from tests.results.test_summary import LAZY, MADE, ROW


def runs(count: int, request: str = "some", **changes: object) -> list[Compared]:
    """In each, "good" leaves least, then "middle", then "lazy"."""
    found = []
    for i in range(count):
        rows = (
            replace(ROW, left=Value(-0.01 * i - 0.01, 0.1), test=Value(0.001 * i, 0.02)),
            replace(
                ROW, strategy="middle", left=Value(0.3 + 0.01 * i, 0.1), test=Value(-0.001 * i - 0.01, 0.02)
            ),
            replace(LAZY, left=Value(0.8 + 0.02 * i, 0.1), test=Value(-0.002 * i - 0.1, 0.02)),
        )
        found.append(compared(f"runs/{i}", **{request: replace(MADE, rows=rows, **changes)}))  # type: ignore[arg-type]
    return found


def printed(found: list[Compared]) -> str:
    return "\n".join(text.plain for text in lines(found))


def test_fewer_runs_than_five_are_not_ranked() -> None:
    assert standings(runs(4)) == [] and "Ranks" not in printed(runs(4))
    assert [one.criterion.name for one in standings(runs(5))] == ["memory left", "use on unseen data", "cost"]


def test_the_nearest_to_retraining_comes_first_whether_above_or_below() -> None:
    memory, use, cost = standings(runs(7))
    assert memory.ranking and use.ranking and cost.ranking
    assert memory.ranking.ranks == (("good", 1.0), ("middle", 2.0), ("lazy", 3.0))
    assert use.ranking.ranks == memory.ranking.ranks
    assert [rank for _, rank in cost.ranking.ranks] == [2.0, 2.0, 2.0]
    overdone = [
        replace(
            run,
            overviews={
                "some": replace(one, rows=(replace(one.rows[0], left=Value(-2.0, 0.1)), *one.rows[1:]))
            },
        )
        for run in runs(7)
        for one in run.overviews.values()
    ]
    found = standings(overdone)[0].ranking
    assert found is not None and found.ranks[-1] == ("good", 3.0)


def test_what_five_runs_cannot_tell_is_said() -> None:
    """The smallest p of Wilcoxon's test is 2/32 with five runs; three pairs need seven runs."""
    told = " ".join(printed(runs(5)).split())
    assert (
        "With 5 runs no pair of 3 strategies can be told apart whatever the numbers: it takes 7 runs." in told
    )
    text = printed(runs(7))
    assert "whatever the numbers" not in text and "Told apart are 3 of 3 pairs" in text.replace("\n    ", " ")
    assert "A good rank is no good answer" in text


def test_runs_whose_memory_cannot_be_seen_are_no_blocks_of_it() -> None:
    blind = [*runs(4), *runs(3, visible=False)]
    memory, use, _ = standings(blind)
    assert memory.ranking is None and memory.runs == (1, 2, 3, 4)
    assert "only 4 runs can tell; 5 are needed" in printed(blind).replace("\n    ", " ")
    assert use.ranking is not None and use.runs == (1, 2, 3, 4, 5, 6, 7)


def test_who_is_not_everywhere_is_left_out_and_named() -> None:
    some = runs(6)
    (one,) = some[0].overviews.values()
    extra = replace(one, rows=(*one.rows, replace(ROW, strategy="rare")))
    found = standings([replace(some[0], overviews={"some": extra}), *some[1:]])[0]
    assert found.left_out == ("rare",) and found.ranking is not None and len(found.ranking.ranks) == 3
    few = standings([replace(some[0], overviews={"some": replace(one, rows=one.rows[:2])}), *some[1:]])[0]
    assert few.ranking is None and "only 2 strategies" in few.missing
    unknown = standings(
        [
            replace(
                some[0],
                overviews={"some": replace(one, rows=(*one.rows[:2], replace(one.rows[2], cost=math.nan)))},
            ),
            *some[1:],
        ]
    )
    assert unknown[2].left_out == ("lazy",) and not unknown[0].left_out


def test_a_run_counts_once_however_many_requests_it_has() -> None:
    """Where no request is in five runs, means over each run's requests are ranked."""
    different = [
        replace(run, overviews={f"r{i}": one, f"s{i}": one})
        for i, run in enumerate(runs(6))
        for one in run.overviews.values()
    ]
    found = standings(different)
    assert {one.request for one in found} == {ALL} and found[0].ranking is not None
    assert found[0].ranking.blocks == 6


def test_who_serves_only_some_requests_is_not_ranked_with_those_that_serve_all() -> None:
    """`rare` has the easy request alone, where it leaves nothing: its mean would be the best of all."""
    rare = replace(ROW, strategy="rare", left=Value(0.0, 0.1))
    different = [
        replace(run, overviews={f"r{i}": replace(one, rows=(*one.rows, rare)), f"s{i}": one})
        for i, run in enumerate(runs(6))
        for one in run.overviews.values()
    ]
    memory = standings(different)[0]
    assert memory.request == ALL and memory.left_out == ("rare",)
    assert memory.ranking is not None and "rare" not in dict(memory.ranking.ranks)
    told = " ".join(printed(different).split())
    assert "Left out, since not known for every request of all these runs: rare." in told


def test_the_page_says_nothing_is_open_that_all_runs_were_asked(tmp_path: Path) -> None:
    asked = [replace(run, probes=("linear_probe",)) for run in runs(2)]
    for some, open_ in ((asked, False), ([asked[0], *runs(1)], True), (runs(2), True)):
        comparison.write(some, tmp_path / "page.html")
        assert ("what features keep" in (tmp_path / "page.html").read_text("utf-8")) is open_


def test_ranks_are_told_in_80_columns_with_letters_for_who_is_not_apart() -> None:
    text = printed(runs(5))
    assert "good   1.00 a\nmiddle 2.00 a\nlazy   3.00 a" in text
    apart = printed(runs(8))
    assert "good   1.00\nmiddle 2.00\nlazy   3.00" in apart
    spoiled = [
        replace(
            run,
            overviews={"some": replace(one, rows=(replace(one.rows[0], strategy=HOSTILE), *one.rows[1:]))},
        )
        for run in runs(8)
        for one in run.overviews.values()
    ]
    told = printed(spoiled)
    assert "\x1b" not in told and max(map(cell_len, told.splitlines())) <= WIDTH


@pytest.mark.gate
def test_the_chart_has_a_row_per_strategy_in_order_and_a_bar_per_group() -> None:
    found = standings(runs(5))[0].ranking
    assert found is not None
    ranks, groups = frames_of(found)
    assert groups.to_dict("records") == [{"first": "good", "last": "lazy"}] and len(ranks) == 15
    svg = drawn(critical(ranks, groups, "nearest"), 800)
    assert svg.index(">good<") < svg.index(">middle<") < svg.index(">lazy<")
    assert "good: mean rank 1.00" in svg and "not told apart: good to lazy" in svg
    nobody = drawn(critical(ranks, groups[:0], "nearest"), 800)
    assert "not told apart" not in nobody and "good: rank 1 in 5 of 5 runs" in nobody
    spoiled = ranks.assign(strategy=ranks["strategy"].replace("good", "<script>\n\u202e" + "x" * 9999))
    assert "<script>" not in drawn(critical(spoiled, groups[:0], "nearest"), 400)


class Page(HTMLParser):
    """Text and elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.texts = list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_says_what_differs_first_and_shows_data_as_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\u202e" + "y" * 9999
    found = [
        replace(run, name=evil, facts={"data": f"{i}", "seeds": "1"}, settings={"training.lr": evil + str(i)})
        for i, run in enumerate(runs(6, title=evil))
    ]
    comparison.write(found, tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(text)
    assert parsed.tags.count("script") == 1 and parsed.tags.count("svg") == 2 * 3
    assert (
        "\u202e" not in text and "y" * 200 not in text and "://" not in text.replace("http://www.w3.org/", "")
    )
    whole = "".join(parsed.texts)
    assert whole.index("Different data") < whole.index("Forgotten?") < whole.index("Ranks over 6 runs")
    with pytest.raises(InputError, match="cannot write"):
        comparison.write(found, tmp_path / "c.html" / "d.html")


def test_numbers_of_the_page_are_the_tables(tmp_path: Path) -> None:
    comparison.write(runs(2), tmp_path / "c.html")
    parsed = Page()
    parsed.feed((tmp_path / "c.html").read_text(encoding="utf-8"))
    whole = " ".join(part.strip() for part in parsed.texts if part.strip())
    for number in ("80 ±10", "82 ±10", "-.10 ±.02"):
        assert number in whole
    assert "Ranks over" not in whole


def test_frames_of_a_ranking_are_whole() -> None:
    found = standings(runs(6))[1].ranking
    assert found is not None
    ranks, _ = frames_of(found)
    pd.testing.assert_series_equal(
        ranks.groupby("strategy")["rank"].mean().sort_index(),
        pd.Series(dict(found.ranks)).rename_axis("strategy").rename("rank").sort_index(),
    )


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0004, "< .001"),
        (0.049, "= .049"),
        (0.04996, "< .050"),
        (0.05, "= .050"),
        (0.0504, "= .050"),
        (1, "= 1.000"),
    ],
)
def test_a_p_value_is_shown_on_the_side_of_the_level_on_which_it_is(p: float, text: str) -> None:
    assert probability(p) == text

"""Ranks over runs, beside SciPy, a published example and one by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from fedunlearn.comparison.ranks import LEVEL, friedman, needed, ranking

# Demsar, JMLR 7, 2006, table 6: AUC of C4.5, with tuned m, with tuned cf, with both; 14 data sets of UCI.
DEMSAR = pd.DataFrame(
    [
        (0.763, 0.768, 0.771, 0.798),
        (0.599, 0.591, 0.590, 0.569),
        (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657),
        (0.882, 0.888, 0.886, 0.898),
        (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685),
        (0.583, 0.583, 0.563, 0.625),
        (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000),
        (0.940, 0.962, 0.965, 0.962),
        (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.9751, 0.975),
        (0.957, 0.978, 0.946, 0.970),
    ],
    columns=["C4.5", "m", "cf", "m+cf"],
)


def test_the_published_example() -> None:
    """Mean ranks 3.143, 2.000, 2.893, 1.964; chi-squared 9.28 and F 3.69 there, which leave ties uncorrected."""
    found = ranking(-DEMSAR)
    ranks = dict(found.ranks)
    assert {name: round(rank, 3) for name, rank in ranks.items()} == {
        "C4.5": 3.143, "m": 2.0, "cf": 2.893, "m+cf": 1.964,
    }  # fmt: skip
    plain = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in ranks.values()) - 4 * 25 / 4)
    assert plain == pytest.approx(9.28, abs=0.01)
    assert found.chi_squared > plain  # ties make the statistic of ranks larger
    assert [name for name, _ in found.ranks] == ["m+cf", "m", "cf", "C4.5"]


@given(st.integers(0, 10_000), st.integers(3, 8), st.integers(3, 12), st.booleans())
def test_friedmans_statistic_is_scipys(seed: int, k: int, count: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, (count, k)).astype(float) if ties else rng.normal(size=(count, k))
    frame = pd.DataFrame(values, columns=[f"s{i}" for i in range(k)])
    scipys = float(stats.friedmanchisquare(*values.T).statistic)
    if math.isfinite(scipys):
        assert friedman(frame) == pytest.approx(scipys, abs=1e-9)


def test_an_example_by_hand() -> None:
    """Six blocks, a < b < c in all but the last, where b and c change places.

    Ranks: a 1, b (5 * 2 + 3) / 6 = 13/6, c (5 * 3 + 2) / 6 = 17/6. Chi-squared 12 * 6 / (3 * 4) * (1 + 169/36 + 289/36)
    - 3 * 6 * 4 = 6 * 494/36 - 72 = 31/3; F = 5 * 31/3 / (12 - 31/3) = 31. Wilcoxon: a before b and before c in all six,
    p = 2/64 each; b before c in five of six, the loss the smallest difference: W = 1, p = 2 * 2/64. Holm over three
    pairs: 3/32, 3/32 (2/32 is never below one before it) and 3/32.
    """
    rows = [(0, 10, 30), (0, 10, 31), (0, 10, 32), (0, 10, 33), (0, 10, 34), (0, 12, 11)]
    found = ranking(pd.DataFrame(rows, columns=["a", "b", "c"], dtype=float))
    assert dict(found.ranks) == pytest.approx({"a": 1, "b": 13 / 6, "c": 17 / 6})
    assert (found.chi_squared, found.f) == pytest.approx((31 / 3, 31))
    assert found.p == pytest.approx(stats.f.sf(31, 2, 10)) and found.p < LEVEL
    by_names = {(pair.first, pair.second): pair for pair in found.pairs}
    assert by_names["a", "b"].p == pytest.approx(2 / 64) and by_names["a", "c"].p == pytest.approx(2 / 64)
    assert by_names["b", "c"].p == pytest.approx(4 / 64)
    assert (by_names["b", "c"].wins, by_names["b", "c"].losses) == (5, 1)
    assert [pair.p_holm for pair in found.pairs] == pytest.approx([3 / 32] * 3)
    assert found.groups == (("a", "b", "c"),) and found.smallest == 3 / 32


def test_so_many_blocks_are_needed_to_tell_any_pair_apart() -> None:
    """3 pairs: 3 * 2 / 2^7 = .047 < .05 <= 3 * 2 / 2^6; and with eight strategies, 28 pairs, 28 * 2 / 2^11 = .027."""
    assert (needed(3), needed(8)) == (7, 11)
    for count in (needed(3) - 1, needed(3)):
        rows = [(float(i) / 100, 1 + float(i) / 50, 2 + float(i) / 20) for i in range(count)]
        found = ranking(pd.DataFrame(rows, columns=["a", "b", "c"]))
        assert any(pair.apart for pair in found.pairs) == (count >= needed(3))
        assert found.f == math.inf and found.p == 0


def test_groups_are_those_of_whom_no_pair_is_apart() -> None:
    """a and b alternate, c is always last: a and b are one group, c is in none."""
    rows = [(0.0, 1.0, 5 + i / 7) if i % 2 else (1.1, 0.2, 5 + i / 9) for i in range(12)]
    found = ranking(pd.DataFrame(rows, columns=["a", "b", "c"]))
    assert [set(group) for group in found.groups] == [{"a", "b"}]


def test_what_is_always_equal_is_told_apart_by_nothing() -> None:
    found = ranking(pd.DataFrame([(1.0, 1.0, 1.0)] * 9, columns=["a", "b", "c"]))
    assert (found.chi_squared, found.p) == (0, 1) and not any(pair.apart for pair in found.pairs)
    assert [rank for _, rank in found.ranks] == [2, 2, 2]


@pytest.mark.gate
def test_when_nothing_differs_few_are_told_apart() -> None:
    """Holm's correction and Friedman's test first: at most 5 of 100 rankings of luck name a pair."""
    rng = np.random.default_rng(5)
    wrong = sum(
        any(pair.apart for pair in ranking(pd.DataFrame(rng.normal(size=(10, 4)))).pairs) for _ in range(100)
    )
    assert wrong <= 5

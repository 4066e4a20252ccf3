"""Which of many strategies does better over many runs: ranks, and what of them is more than chance.

Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006: in every block (here: a run) the
strategies are ranked, 1 the best, ties sharing their mean rank. Friedman's test asks whether the mean ranks differ at
all, in the form of Iman and Davenport (1980), since the chi-squared one is undesirably conservative; SciPy's statistic
corrects for ties.

For pairs Demsar has Nemenyi's test, whose *critical difference* is one length for all pairs. We use Wilcoxon's signed
rank test of each pair instead, corrected by Holm, as Benavoli, Corani and Mangili recommend ("Should we really use
post-hoc tests based on mean-ranks?", JMLR 17, 2016): by mean ranks, whether A beats B depends on which others were in
the comparison, so that one can be made to by adding strategies; and sizes of differences are thrown away. Zeros are
split between both signs (Demsar, section 3.1.3). A pair is told apart only if Friedman's test finds a difference too.

With N blocks no two-sided p of Wilcoxon's test is below 2 / 2^N, whatever the numbers: five blocks tell no pair apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.scoring.judgement.difference import holm

LEVEL = 0.05
FEWEST_BLOCKS, FEWEST_STRATEGIES = 5, 3
"""Fewer say nothing of ranks."""


@dataclass(frozen=True)
class Pair:
    """Two strategies over all blocks.

    Attributes:
        first, second: the one with the better mean rank, and the other.
        wins, losses: blocks in which the first was better, and worse.
        p: by Wilcoxon's signed rank test, two-sided.
        p_holm: corrected for all pairs.
        apart: whether they can be told apart.
    """

    first: str
    second: str
    wins: int
    losses: int
    p: float
    p_holm: float
    apart: bool


@dataclass(frozen=True)
class Ranking:
    """Strategies over blocks.

    Attributes:
        ranks: the mean rank by strategy, the best first.
        blocks: how many there are.
        chi_squared: Friedman's statistic, corrected for ties.
        f: Iman and Davenport's, from it; infinite if all blocks rank alike.
        p: of "all do equally well", by F with k - 1 and (k - 1)(N - 1) degrees of freedom.
        pairs: all of them, in the order of ranks.
        each: by strategy, in the order of `ranks`, its rank in every block.
        groups: strategies next to one another in rank of which no two can be told apart, each as large as can be.
    """

    ranks: tuple[tuple[str, float], ...]
    blocks: int
    chi_squared: float
    f: float
    p: float
    pairs: tuple[Pair, ...]
    each: tuple[tuple[float, ...], ...]
    groups: tuple[tuple[str, ...], ...]

    @property
    def smallest(self) -> float:
        """The smallest corrected p that a pair could have with so many blocks and pairs."""
        return min(1.0, len(self.pairs) * 2.0 ** (1 - self.blocks))


def ranking(values: pd.DataFrame) -> Ranking:
    """Rank strategies.

    Args:
        values: (N, k), a row per block, a column per strategy; smaller is better; none is NaN; N and k are at least 2.
    """
    from scipy import stats  # here, since it takes half a second

    count, k = values.shape
    own = values.rank(axis="columns")
    ranks = own.mean().sort_values(kind="stable")
    order = [str(name) for name in ranks.index]
    columns = [values[name].to_numpy(dtype=float) for name in ranks.index]
    equal = all(np.array_equal(column, columns[0]) for column in columns)
    chi = 0.0 if equal else friedman(values)
    room = count * (k - 1) - chi
    f = math.inf if room < 1e-9 else (count - 1) * chi / room
    p = float(stats.f.sf(f, k - 1, (k - 1) * (count - 1))) if math.isfinite(f) else 0.0
    raw = {(i, j): _wilcoxon(columns[i] - columns[j], stats.wilcoxon) for i, j in combinations(range(k), 2)}
    corrected = holm({f"{i} {j}": value for (i, j), value in raw.items()})
    pairs = tuple(
        Pair(
            order[i],
            order[j],
            wins=int((columns[i] < columns[j]).sum()),
            losses=int((columns[i] > columns[j]).sum()),
            p=value,
            p_holm=corrected[f"{i} {j}"],
            apart=p < LEVEL and corrected[f"{i} {j}"] < LEVEL,
        )
        for (i, j), value in raw.items()
    )
    means = tuple(zip(order, map(float, ranks), strict=True))
    each = tuple(tuple(map(float, own[name])) for name in ranks.index)
    return Ranking(means, count, chi, f, p, pairs, each, tuple(_groups(order, pairs)))


def friedman(values: pd.DataFrame) -> float:
    """Friedman's chi-squared, corrected for ties, for any k (Conover, Practical Nonparametric Statistics, 5.8)."""
    ranks = values.rank(axis="columns").to_numpy(dtype=float)
    count, k = ranks.shape
    between = count * ((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum()
    within = ((ranks - (k + 1) / 2) ** 2).sum() / (count * (k - 1))
    return float(between / within) if within else 0.0


def _wilcoxon(differences: npt.NDArray[np.float64], test: Callable[..., Any]) -> float:
    """Exact where nothing is tied, or there are few; where all are alike nothing tells the two apart."""
    if not differences.any():
        return 1.0
    return float(test(differences, zero_method="zsplit").pvalue)


def _groups(order: Sequence[str], pairs: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    """From every strategy as far as no pair is apart; those within another are left out."""
    apart = {(pair.first, pair.second) for pair in pairs if pair.apart}
    reached = 0
    for i in range(len(order)):
        end = i + 1
        while end < len(order) and not any((order[m], order[end]) in apart for m in range(i, end)):
            end += 1
        if end > reached and end - i > 1:
            yield tuple(order[i:end])
        reached = max(reached, end)


def needed(strategies: int) -> int:
    """Blocks from which on Holm's correction could tell a pair of so many strategies apart at all."""
    pairs = strategies * (strategies - 1) // 2
    return next(count for count in range(1, 100) if pairs * 2.0 ** (1 - count) < LEVEL)

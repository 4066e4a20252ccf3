"""Do intervals of memory left hold the truth, also of a strategy whose models differ more than retrained ones do?

    python benchmarks/intervals.py [--quick] [--draws 600] [--patients 1 4 12] [--swing]

Every draw makes new patients as `benchmarks.yardstick` does, each with a memory of its own in the original (3.1 ± 1.0
nats), and new trainings. A strategy's models know the same share of everybody's memory, and their luck is so many
times that of retrained ones: all of it, or (``--swing``) what all patients have in common, as where a strategy forgets
more with one seed and less with the next. A row tells, for K unlearned and M retrained models, in %:

- *mean*, *patients*: how often the 95 % interval holds the truth, of the mean memory and of single patients;
- *surely*: how often the mean is within the margin and surely (95 %) within twice of it, as a yes asks;
- *yes*, *accused*: how often "forgotten?" is answered so, and "partly", "no" or "too much".

Each is told by the rules of today and by others: *before*, the variance is the larger one of the models' own and of
luck, with luck's degrees of freedom; *own* is the models' own variance, however small it comes out, with the degrees of
freedom of Satterthwaite; of single patients each patient's own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from benchmarks.yardstick import GAIN, Setting, World, world
from fedunlearn.core import derive
from fedunlearn.scoring.evidence import Floats
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement.luck import Spread, together
from fedunlearn.scoring.judgement.memory import Memory, Scale, memory, scale
from fedunlearn.scoring.judgement.patients import scores
from fedunlearn.scoring.judgement.verdict import Findings, Recalled, Sight, forgotten

MODELS = ((2, 3), (2, 5), (2, 8), (3, 3), (3, 5), (3, 8), (5, 5), (5, 8))
"""K and M; a run has a retrained model for each seed, at least."""
STRATEGIES = tuple(product((1.0, 2.0, 4.0), (0.0, 0.05, 0.15, 0.3)))
"""How many times retrained models' luck theirs is, and the share of memory that they have left."""
MARGIN = Margins().memory_left
SCORE = 0.5**2 + 1.7**2 / 6
"""Variance of one training's luck, of a patient with six images."""


@dataclass(frozen=True, eq=False)
class Trainings:
    """The trainings of a draw.

    Attributes:
        world: its patients.
        phi: (N,) what a model without any luck answers.
        memory: (N,) what the original knows more.
        luck: (18, N) of retrained models (8), original ones (5), and a strategy's (5).
        swings: (5,) standard normal, of how much a strategy's models forget.
    """

    world: World
    phi: Floats
    memory: Floats
    luck: Floats
    swings: Floats

    @classmethod
    def of(cls, draw: int, patients: int) -> Trainings:
        """New ones."""
        one = world(Setting.parse(f"{patients}x5"), draw)
        rng = np.random.default_rng(derive(draw, "intervals", "luck"))
        known = (GAIN - one.hard / 2) * one.forget
        luck = np.stack([one.luck(rng)[0] for _ in range(18)])
        return cls(one, 2.3 + one.hard, known, luck, rng.normal(size=5))

    def scale(self, k: int, m: int) -> Scale:
        """What 0 and 1 are."""
        retrained, original = self.phi + self.luck[:m], self.phi + self.memory + self.luck[8 : 8 + k]
        found = scale(self.world.frame, list(retrained), list(original))
        assert found is not None
        return found

    def models(self, k: int, ratio: float, left: float, swing: bool) -> Floats:
        """(K, P) scores of a strategy's models."""
        setting = self.world.setting
        usual = (
            np.sqrt(SCORE * (1 / setting.forget + 1 / setting.held_out)) / GAIN
        )  # luck of the mean, as a share
        shares = left + usual * np.sqrt(ratio**2 - 1) * self.swings[:k] * swing
        luck = self.luck[13 : 13 + k] * (1.0 if swing else ratio)
        phi = self.phi + shares[:, None] * self.memory + luck
        return scores(self.world.frame, phi, np.ones(len(self.phi), dtype=bool))[1]


# ------------------------------------------------------------------------------------------------- rules

Rule = Callable[[Spread, Spread, int, Floats], tuple[Floats, Floats | float]]
"""Own variance, luck's, K, and what the other side adds in units of luck -> a variance, its degrees of freedom."""


def before(own: Spread, luck: Spread, k: int, rest: Floats) -> tuple[Floats, Floats | float]:
    """The larger variance, with luck's degrees of freedom."""
    return np.maximum(own[0], luck[0]) / k + luck[0] * rest, luck[1]


def own_alone(own: Spread, luck: Spread, k: int, rest: Floats) -> tuple[Floats, Floats | float]:
    """Satterthwaite's, of both sides' own variances."""
    return together([(own[0] / k, own[1]), (luck[0] * rest, luck[1])])


RULES: Mapping[str, Rule] = {"before": before, "own": own_alone}


def judged(rule: Rule, found: Memory, scale: Scale, models: Floats) -> Memory:
    """``found`` as another rule has it."""
    k, m = len(models), len(scale.retrained)
    luck, noise = scale.luck, scale.noise
    own = models.var(axis=0, ddof=1), k - 1.0
    variance, freedom = rule(own, (luck.variance, luck.freedom), k, np.array(1 / m))
    half = stdtrit(freedom, 0.975) * np.sqrt(variance) / scale.known
    left = found.mean.left
    rest = np.array((1 - left) ** 2 / m + left**2 / len(scale.original))
    own = models.mean(axis=1).var(ddof=1, keepdims=True), k - 1.0
    of_mean, free = rule(own, (np.array([noise.variance]), noise.freedom), k, rest)
    mean = replace(
        found.mean, error=float(np.sqrt(of_mean[0])) / scale.whole, freedom=float(np.ravel(free)[0])
    )
    return replace(found, low=found.left - half, high=found.left + half, mean=mean)


# ------------------------------------------------------------------------------------------------ tables


def told(found: Memory, scale: Scale, k: int, left: float) -> dict[str, float]:
    """What a row counts."""
    names = [str(code) for code in scale.patients]
    sight = Sight(scale, None, k, names, Margins())
    answer = forgotten(sight, Findings(Recalled(found), {}, ())).word
    low, high = found.mean.interval()
    return {
        "mean": low <= left <= high,
        "patients": float(((found.low <= left) & (left <= found.high)).mean()),
        "surely": abs(found.mean.left) <= MARGIN and found.mean.p_within(2 * MARGIN) < 0.05,
        "yes": answer == "yes",
        "accused": answer in ("partly", "no", "too much"),
    }


def rows(
    draws: int,
    patients: int,
    swing: bool,
    models: Sequence[tuple[int, int]] = MODELS,
    strategies: Sequence[tuple[float, float]] = STRATEGIES,
) -> Iterator[dict[str, float | str]]:
    """What became of every draw, by K, M, ratio, share left and rule."""
    for draw in range(draws):
        trainings = Trainings.of(draw, patients)
        for k, m in models:
            ruler = trainings.scale(k, m)
            for ratio, left in strategies:
                made = trainings.models(k, ratio, left, swing)
                found = memory(ruler, made, MARGIN)
                by_rule = {
                    "now": found,
                    **{name: judged(r, found, ruler, made) for name, r in RULES.items()},
                }
                for name, one in by_rule.items():
                    yield {
                        "K": k,
                        "M": m,
                        "ratio": ratio,
                        "left": left,
                        "rule": name,
                        **told(one, ruler, k, left),
                    }


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Shares in %, a row for each K, M, ratio and share left, and columns by rule."""
    shares = 100 * found.groupby(["K", "M", "ratio", "left", "rule"]).mean()
    return shares.unstack("rule").round(1)


def main(words: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=600)
    parser.add_argument("--patients", type=int, nargs="*", default=[1, 4, 12])
    parser.add_argument("--swing", action="store_true")
    parser.add_argument("--quick", action="store_true", help="3 draws")
    asked = parser.parse_args(words)
    for patients in asked.patients:
        draws = 3 if asked.quick else asked.draws
        print(f"\n{patients} to forget, {draws} draws")
        print(table(pd.DataFrame(rows(draws, patients, asked.swing))).to_string(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

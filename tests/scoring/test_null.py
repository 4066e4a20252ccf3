"""Without memory, every attack is as good as guessing: many draws of patients and of models that saw none of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fedunlearn.scoring.evidence import Bools, Evidence, Floats, Frame, Shadow
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.scoring.answers import outputs, with_models
from tests.scoring.test_evidence import frame_of

pytestmark = [pytest.mark.usefixtures("few_resamples"), pytest.mark.gate]

LEARNT = ("mia_loss_auc", "mia_lr_auc", "mia_quantile_auc")
REFERRED = ("mia_rmia_auc", "mia_lira_auc", "mia_ulira_auc")


@pytest.fixture(autouse=True)
def one_thread_per_regression() -> Iterator[None]:
    """As when a run is scored."""
    with threadpool_limits(1, "blas"):
        yield


class World:
    """Patients of two hospitals, 12 to forget and 13 held out, each with 1 to 11 images, some harder than others."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        parts = ["forget"] * 12 + ["test"] * 13 + ["retain"] * 10
        images = [
            (p, p % 2, int(rng.integers(2)), part)
            for p, part in enumerate(parts)
            for _ in range(rng.integers(1, 12))
        ]
        self.frame: Frame = frame_of(images)
        by_stratum = rng.normal(size=(2, 2))[self.frame.sites, self.frame.labels]
        self.hard: Floats = 2.3 + self.by_patient(1.0) + by_stratum + 4.4 * rng.normal(size=len(images))

    def by_patient(self, spread: float) -> Floats:
        drawn: Floats = spread * self.rng.normal(size=35)[self.frame.patients]
        return drawn

    def model(self, saw: Bools) -> Floats:
        """(N,) log-odds of one more training: better and more alike on what it saw, with luck by patient and image."""
        luck = 0.2 * self.rng.normal() + self.by_patient(0.5) + 1.7 * self.rng.normal(size=len(saw))
        odds: Floats = np.where(saw, 4.2 + (self.hard + luck) / 2, self.hard + luck)
        return odds

    def retrained(self, many: int) -> list[Floats]:
        return [self.model(self.frame.rows("retain")) for _ in range(many)]

    def shadows(self, pairs: int, of: Bools) -> tuple[Shadow[Outputs], ...]:
        """In complementary pairs, on half the patients of some images."""
        found = []
        for _ in range(pairs):
            half = (self.rng.random(35) < 0.5)[self.frame.patients]
            for members in (half & of, ~half & of):
                found.append(Shadow(outputs(self.frame, self.model(members)), members))
        return tuple(found)

    def evidence(self, shadows: Sequence[Shadow[Outputs]] = (), references: int = 4) -> Evidence[Outputs]:
        """Three seeds, of each a model that is but another retraining; and retrained models of further seeds."""
        own, retrained, *others = self.retrained(2 + references)
        siblings = self.retrained(2)
        made = with_models(self.frame, own, retrained=retrained, others=others, siblings=siblings)
        return replace(made, shadows=tuple(shadows))


def null(names: Sequence[str], draws: int, evidence) -> dict[str, tuple[float, float]]:
    """By measure its mean over draws, and that mean's standard error."""
    rng = np.random.default_rng(len(names))
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(draws):
        one = evidence(World(rng))
        for name in names:
            found[name].append(MEASURES[name].function(one)["all"].value)
    return {n: (float(np.mean(v)), float(np.std(v) / np.sqrt(len(v)))) for n, v in found.items()}


@pytest.mark.parametrize(("names", "references"), [(LEARNT, 7), (REFERRED, 2), (REFERRED, 7)])
def test_without_memory_attacks_only_guess(names: Sequence[str], references: int):
    """As many other retrained models as siblings, or more. Four standard errors of .002 to .007 are allowed."""
    draws = 150 if names is LEARNT else 600
    for name, (mean, error) in null(names, draws, lambda w: w.evidence(references=references)).items():
        assert error < 0.009, name
        assert mean == pytest.approx(0.5, abs=4 * error), name


@pytest.mark.parametrize("held_out_too", [False, True])
def test_without_memory_attacks_with_few_shadows_only_guess(held_out_too: bool):
    """Of two pairs, which is the least that has a spread; shadows of training images alone, as a campaign has them."""

    def evidence(world: World) -> Evidence[Outputs]:
        frame = world.frame
        return world.evidence(world.shadows(2, frame.train | (frame.test & held_out_too)))

    for name, (mean, error) in null(("mia_rmia_auc", "mia_lira_auc"), 600, evidence).items():
        assert error < 0.009, name
        assert mean == pytest.approx(0.5, abs=4 * error), name

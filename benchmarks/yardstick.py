"""Is the yardstick right? Verdicts on made-up models of which the truth is known, and on small real learners.

    python benchmarks/yardstick.py [--draws 200] [--traps 20]

Every draw makes new patients, new seeds, and models of each kind, and judges them as `score` does. Margins
(logit-scaled confidences) are drawn from variances like those of the models of scenarios/3hosp.yaml: unseen images
2.3 ± 4.4, with ± 1.0 by patient; remembered ones 5.4 and half of that; a model's own luck is ± 0.2 in all, ± 0.5 by
patient and ± 1.7 by image. The learners are small networks on made-up patients, trained for the purpose.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from fedunlearn.core import derive
from fedunlearn.scoring.attacks.membership import mia_loss_auc
from fedunlearn.scoring.evidence import Evidence, Floats, Frame, Ints, Spent
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.judgement.band import band
from fedunlearn.scoring.judgement.difference import Difference, Whole, differences
from fedunlearn.scoring.judgement.verdict import ATTACK, RULES, Facts, decide
from fedunlearn.scoring.measures.catalogue import Measure, measures_of

MEASURES: Mapping[str, Measure] = {rule[2]: measures_of("classification")[rule[2]] for rule in RULES}
"""What verdicts rest on."""

SHOWN = ("EQUIVALENT", "PASS", "UNDER", "OVER", "DAMAGED", "INCONCLUSIVE")
"""Verdicts as the tables head them: EQUIVALENT is a PASS of the better grade."""

CLASSES = 8
NOTHING = Spent(0.0, 0.0, 0, 0, 0, 0)
Maker = Callable[[int], Outputs]
"""Seed -> what the model trained with it answers."""


@dataclass(frozen=True)
class Setting:
    """How much there is to judge by: patients to forget, held out and retained, images of each, seeds."""

    forget: int = 12
    held_out: int = 13
    retain: int = 60
    images: int = 6
    seeds: int = 3


SETTINGS = (
    Setting(),
    Setting(seeds=8),
    Setting(forget=44, held_out=15),
    Setting(forget=3),
)


@dataclass(frozen=True)
class Kind:
    """A kind of model: how much it remembers of forgotten and retained images, and what it lost in nats.

    Attributes:
        forget, retain: 0 (never seen) to 1 (as the model that was trained with them).
        less: how much lower its confidence is on the images to forget, and on all others.
    """

    forget: float = 0.0
    retain: float = 1.0
    less: tuple[float, float] = (0.0, 0.0)


KINDS: Mapping[str, Kind] = {
    "retrained again": Kind(),
    "all remembered": Kind(forget=1.0),
    "half remembered": Kind(forget=0.5),
    "a quarter remembered": Kind(forget=0.25),
    "over-forgotten": Kind(less=(4.0, 0.0)),
    "damaged": Kind(retain=0.2, less=(1.5, 1.5)),
}


def compare(frame: Frame, makers: Mapping[str, Maker], seeds: int) -> dict[str, dict[str, Difference]]:
    """The differences of every maker's models from the retrained ones."""
    models = [{name: _measure(frame, make(seed)) for name, make in makers.items()} for seed in range(seeds)]
    return differences(models, MEASURES, frame)


def facts(found: Mapping[str, Mapping[str, Difference]], name: str, seeds: int) -> Facts:
    """What `decide` takes; only differences count here, so all values are relative to the retrained ones."""
    values = {measure: one.value for measure, one in found[name].items()}
    bands = {measure: band([0.0] * seeds, MEASURES[measure]) for measure in values}
    memory = found["original"].get(ATTACK)
    return Facts(values, dict.fromkeys(values, 0.0), bands, found[name], seeds, memory)


def _measure(frame: Frame, answers: Outputs) -> Whole:
    evidence = Evidence(frame, answers, answers, answers, NOTHING, NOTHING, seed=0)
    estimates = {name: measure.function(evidence) for name, measure in MEASURES.items()}
    return {name: of_groups["all"] for name, of_groups in estimates.items() if "all" in of_groups}


# ---------------------------------------------------------------------------------------- made-up models


def made_up(setting: Setting, draw: int, kinds: Mapping[str, Kind] = KINDS) -> tuple[Frame, dict[str, Maker]]:
    """New patients, and what models of every kind, the original and the retrained one answer about them."""
    rng = np.random.default_rng(derive(draw, "yardstick", "patients"))
    sizes = (setting.forget, setting.held_out, setting.retain)
    part = np.repeat(np.repeat([0, 1, 2], sizes), setting.images)
    patients = np.repeat(np.arange(sum(sizes)), setting.images)
    frame = _frame(
        patients, part, rng.integers(CLASSES, size=len(part)), derive(draw, "yardstick", "bootstrap")
    )
    hard = rng.normal(0, 1.0, sum(sizes))[patients] + rng.normal(0, 4.4, len(part))
    others = rng.normal(size=(len(part), CLASSES))

    def maker(name: str, kind: Kind) -> Maker:
        share = np.array([kind.forget, 0.0, kind.retain])[part]
        less = np.array([kind.less[0], kind.less[1], kind.less[1]])[part]

        def make(seed: int) -> Outputs:
            own = np.random.default_rng(derive(draw, "yardstick", name, str(seed)))
            luck = (
                own.normal(0, 0.2) + own.normal(0, 0.5, sum(sizes))[patients] + own.normal(0, 1.7, len(part))
            )
            unseen, remembered = 2.3 + hard + luck, 5.4 + (hard + luck) / 2
            return _outputs(frame, (1 - share) * unseen + share * remembered - less, others)

        return make

    every = {"original": Kind(forget=1.0), "retrained": Kind(), **kinds}
    return frame, {name: maker(name, kind) for name, kind in every.items()}


def _frame(patients: Ints, part: Ints, labels: Ints, seed: int) -> Frame:
    """One hospital; part 0 is to forget, 1 held out, 2 retained."""
    none = np.zeros(len(part), dtype=bool)
    sites = np.zeros(len(part), dtype=np.int64)
    return Frame(patients, sites, (), labels, CLASSES, part != 1, part == 1, part == 0, none, seed)


def _outputs(frame: Frame, margin: Floats, others: Floats) -> Outputs:
    """Scores whose true class has that logit-scaled confidence."""
    logits, rows = others.copy(), np.arange(len(margin))
    logits[rows, frame.labels] = -np.inf
    logits[rows, frame.labels] = margin + np.logaddexp.reduce(logits, axis=1)
    return Outputs(logits, frame.labels)


@dataclass
class Tally:
    """What became of one kind of model over the draws: verdicts (PASS by its grade), reasons, differences in AUC."""

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: list[tuple[str, ...]] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)

    def add(self, difference: float, verdict: str, reasons: tuple[str, ...]) -> None:
        """Count one draw."""
        equivalent = verdict == "PASS" and reasons[0].startswith("equivalent")
        self.verdicts["EQUIVALENT" if equivalent else verdict] += 1
        self.reasons.append(reasons)
        self.apart.append(difference)


def tallies(setting: Setting, draws: int, kinds: Mapping[str, Kind] = KINDS) -> dict[str, Tally]:
    """The verdicts on made-up models, by kind."""
    found = {name: Tally() for name in kinds}
    for draw in range(draws):
        frame, makers = made_up(setting, draw, kinds)
        apart = compare(frame, makers, setting.seeds)
        for name, tally in found.items():
            tally.add(apart[name][ATTACK].value, *decide(facts(apart, name, setting.seeds)))
    return found


# ------------------------------------------------------------------------------------------ real learners


@dataclass(frozen=True, eq=False)
class Clinics:
    """Three hospitals' images as feature vectors; the first one's are easier, and 20 of its patients ask.

    Attributes:
        features: (N, 20).
        frame: who they are of.
    """

    features: Floats
    frame: Frame


def clinics(draw: int) -> Clinics:
    """New patients: class + patient + noise; the first hospital's images are less noisy and rightly labelled."""
    rng = np.random.default_rng(derive(draw, "yardstick", "clinics"))
    people, images, size = 75, 5, 40
    sites = np.repeat(np.arange(3), people * images)
    patients = np.repeat(np.arange(3 * people), images)
    ill = rng.integers(4, size=3 * people)
    person = rng.normal(0, 1.0, (3 * people, size))
    noise = rng.normal(0, 1.0, (len(sites), size))
    features = (rng.normal(0, 0.6, (4, size))[ill] + person)[patients] + noise
    hospital = np.repeat(np.arange(3), people)
    wrong = rng.random(3 * people) < np.where(hospital == 0, 0.05, 0.35)
    labels = np.where(wrong, (ill + rng.integers(1, 4, 3 * people)) % 4, ill)[patients]
    place = patients % people
    train = place < 50
    frame = Frame(
        patients=patients,
        sites=sites,
        site_names=(),
        labels=labels,
        classes=4,
        train=train,
        test=~train,
        forgotten=(sites == 0) & (place < 20),
        gone=np.zeros(len(sites), dtype=bool),
        seed=derive(draw, "yardstick", "bootstrap"),
    )
    return Clinics(features, frame)


def learners(data: Clinics) -> dict[str, Maker]:
    """Networks trained on everything, without the forgotten, and in three wrong ways."""
    frame = data.frame
    asked = frame.rows("forget")
    first = np.zeros(len(asked), dtype=bool)
    first[np.unique(frame.patients, return_index=True)[1]] = True
    shifted = np.where(asked, (frame.labels + 1) % frame.classes, frame.labels)
    sets = {
        "original": (frame.train, frame.labels),
        "retrained": (frame.train & ~asked, frame.labels),
        "retrained again": (frame.train & ~asked, frame.labels),
        "one duplicate per patient left in": (frame.train & (~asked | first), frame.labels),
        "wrong labels for the forgotten": (frame.train, shifted),
    }

    def maker(name: str, rows: np.ndarray, labels: Ints) -> Maker:
        def make(seed: int) -> Outputs:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.neural_network import MLPClassifier

            state = derive(seed, "yardstick", name) % 2**32
            network = MLPClassifier((64,), max_iter=100, tol=0, n_iter_no_change=10**6, random_state=state)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # it memorises long before
                network.fit(data.features[rows], labels[rows])
            return Outputs(network.predict_log_proba(data.features).astype(np.float64), frame.labels)

        return make

    return {name: maker(name, rows, labels) for name, (rows, labels) in sets.items()}


def site_shift(data: Clinics, retrained: Outputs) -> tuple[float, float]:
    """The retrained model's `mia_loss_auc` against its own hospital's held-out images, and the others' pooled."""
    frame = data.frame
    pooled = replace(frame, sites=np.zeros_like(frame.sites), test=frame.test & (frame.sites != 0))
    evidence = Evidence(frame, retrained, retrained, retrained, NOTHING, NOTHING, seed=0)
    same, all_others = mia_loss_auc(evidence), mia_loss_auc(replace(evidence, frame=pooled))
    return same["all"].value, all_others["all"].value


def traps(draws: int) -> tuple[dict[str, Tally], Floats]:
    """The verdicts on small real learners, and `site_shift` of each draw, as a mean over seeds (draws, 2)."""
    found: dict[str, Tally] = {}
    shifts = []
    for draw in range(draws):
        data = clinics(draw)
        makers = {name: cache(make) for name, make in learners(data).items()}
        apart = compare(data.frame, makers, seeds=3)
        for name in apart:
            verdict = decide(facts(apart, name, seeds=3))
            found.setdefault(name, Tally()).add(apart[name][ATTACK].value, *verdict)
        shifts.append(np.mean([site_shift(data, makers["retrained"](seed)) for seed in range(3)], axis=0))
    return found, np.array(shifts)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Verdicts on models of which the truth is known.")
    parser.add_argument("--draws", type=int, default=200, help="of made-up models")
    parser.add_argument("--traps", type=int, default=20, help="of real learners")
    asked = parser.parse_args()
    print(f"| setting | models | AUC difference | {' | '.join(SHOWN)} |\n{'|---' * (3 + len(SHOWN))}|")
    for setting in SETTINGS:
        about = f"{setting.forget} v. {setting.held_out} patients, {setting.seeds} seeds"
        _print(about, tallies(setting, asked.draws))
    found, shifts = traps(asked.traps)
    _print("learners, 20 v. 25 patients, 3 seeds", found)
    (same, pooled), (one, other) = shifts.mean(axis=0), shifts.std(axis=0)
    print(
        f"\nretrained model's AUC: own hospital {same:.3f} ± {one:.3f}, others pooled {pooled:.3f} ± {other:.3f}"
    )


def _print(about: str, found: Mapping[str, Tally]) -> None:
    for name, tally in found.items():
        shares = " | ".join(f"{tally.verdicts[v] / len(tally.apart):.1%}" for v in SHOWN)
        print(f"| {about} | {name} | {np.mean(tally.apart):+.3f} ± {np.std(tally.apart):.3f} | {shares} |")


if __name__ == "__main__":
    main()

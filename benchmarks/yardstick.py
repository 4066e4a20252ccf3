"""Is the yardstick right? Answers about made-up models of which the truth is known, honest ones and cheats, and
learners.

    python benchmarks/yardstick.py [--draws 100] [--learners 20] [--settings 12x3 44x8 1x8 …] [--bad]
                                   [--task classification | multilabel | paired]

Every draw makes new patients and new models of each kind, and judges them as `score` does: memory of each patient on
the exact images and on changed copies, U-LiRA as further evidence, usefulness on unseen images. A setting PxS has P
patients to forget and S seeds; there are 8 retrained models, or as ``PxSxR`` says. Margins (logit-scaled confidences)
are drawn from variances like those of the models of scenarios/3hosp.yaml: unseen images 2.3 ± 4.4, with ± 1.0 by
patient; remembered ones 5.4 and half of that; a model's own luck is ± 0.2 in all, ± 0.5 by patient and ± 1.7 by image.
Copies share their image's luck (correlation .8) and `ON_COPIES` of its memory. One class is rare: 3.4 % of the images.
With ``--bad``, one training in seven goes badly: its luck is three times as large.

With ``--task`` other than classification, the same margins are those of models for another kind of task. Of several
findings an image (multilabel), an image's mean loss follows from its margin and is shared out among its findings,
unevenly, and alike for all models; its class is a finding that it has, others are there now and then. Of an image
and its report (paired), the answers to both and to the image have the margin; that to the report alone moves by
`REPORT` of it, so that it is a small part of the mean.

The learners are small networks on made-up patients, trained for the purpose (`benchmarks.learners`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.special import betaincinv

from benchmarks import learners
from benchmarks.judging import Models, judged
from fedunlearn.core import derive
from fedunlearn.kinds.multilabel.evidence import Findings
from fedunlearn.kinds.paired.evidence import ALONE
from fedunlearn.scoring.evidence import Attribute, Bools, Floats, Frame, Ints, WithLosses
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.judgement.verdict import Answer

CLASSES, RARE, RARE_SHARE = 8, 7, 0.034
ON_COPIES = 0.45
"""How much of an image's memory shows on its changed copies."""
GAIN = 3.1
"""What memory adds to an image of middling difficulty."""
REPORT = 0.4
"""What networks know by a report alone, as a share of what they know by the image: about that in `3hosp-chest`."""
BAD, HOW_BAD = 1 / 7, 3.0


@dataclass(frozen=True)
class Setting:
    """How much there is to judge by: patients to forget, held out there and at another hospital, images, models."""

    forget: int = 12
    seeds: int = 3
    references: int = 8
    held_out: int = 13
    elsewhere: int = 60
    images: int = 6

    @classmethod
    def parse(cls, text: str) -> Setting:
        """``12x3``, or ``12x3x8`` with the number of retrained models."""
        forget, *models = (int(part) for part in text.split("x"))
        held_out = 15 if forget > 20 else 13
        return cls(forget, models[0], models[1] if len(models) > 1 else max(8, models[0]), held_out)

    def __str__(self) -> str:
        return f"{self.forget} x {self.seeds}, {self.references} references"


@dataclass(frozen=True, eq=False)
class World:
    """New patients: (N,) each image's part (0 to forget, 1 held out there, 2 retained, 3 elsewhere) and difficulty."""

    setting: Setting
    frame: Frame
    part: Ints
    hard: Floats
    others: Floats
    bad: bool
    task: str = "classification"

    @cached_property
    def forget(self) -> Bools:
        """(N,) the images to forget."""
        return self.part == 0

    def first(self, patients: int) -> Bools:
        """(N,) the images to forget of the first so many patients."""
        return self.forget & (self.frame.patients < patients)

    def luck(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """A training's own: (N,) on images, and on their copies."""
        people, n = int(self.frame.patients.max()) + 1, len(self.hard)
        shared = rng.normal(0, 0.2) + rng.normal(0, 0.5, people)[self.frame.patients]
        own, of_copy = rng.normal(0, 1.7, (2, n))
        scale = HOW_BAD if self.bad and rng.random() < BAD else 1.0
        return scale * (shared + own), scale * (shared + 0.8 * own + 0.6 * of_copy)

    @cached_property
    def findings(self) -> Ints:
        """(N, CLASSES) which findings an image has: its class, and each other one as often as that one's share says."""
        generator = np.random.default_rng(derive(self.frame.seed, "yardstick", "findings"))
        there = generator.random(self.others.shape) < 0.1
        there[np.arange(len(there)), self.frame.labels] = True
        return there.astype(np.int64)

    def answers(self, phi: Floats, others: Floats | None = None) -> WithLosses:
        """What a model answers whose logit-scaled confidence in what is right is that."""
        if self.task == "multilabel":
            return self._findings(phi, others)
        return self.pairs(phi, phi, others) if self.task == "paired" else self._classes(phi, others)

    def pairs(self, phi: Floats, report: Floats, others: Floats | None = None) -> Outputs:
        """Answers to both and to the image as of ``phi``, to the report alone as of another's, more quietly."""
        image, quiet = self._classes(phi, others), self._classes(2.3 + REPORT * (report - 2.3), others)
        return replace(image, beside=dict(zip(ALONE, (image, quiet), strict=True)))

    def _findings(self, phi: Floats, others: Floats | None) -> Findings:
        parts = np.exp((self.others if others is None else others) / 2)
        losses = CLASSES * np.logaddexp(0.0, -phi)[:, None] * parts / parts.sum(axis=1, keepdims=True)
        right = -np.log(np.expm1(np.maximum(losses, 1e-12)))
        return Findings(np.where(self.findings == 1, right, -right), self.findings)

    def _classes(self, phi: Floats, others: Floats | None) -> Outputs:
        logits, rows = (self.others if others is None else others).copy(), np.arange(len(phi))
        logits[rows, self.frame.labels] = -np.inf
        logits[rows, self.frame.labels] = phi + np.logaddexp.reduce(logits, axis=1)
        return Outputs(logits, self.frame.labels)


def world(setting: Setting, draw: int, bad: bool = False, task: str = "classification") -> World:
    """The patients of a draw."""
    rng = np.random.default_rng(derive(draw, "yardstick", "patients"))
    sizes = (setting.forget, setting.held_out, 10, setting.elsewhere)
    part = np.repeat(np.repeat([0, 1, 2, 3], sizes), setting.images)
    patients = np.repeat(np.arange(sum(sizes)), setting.images)
    shares = np.full(CLASSES, (1 - RARE_SHARE) / (CLASSES - 1))
    shares[RARE] = RARE_SHARE
    labels = rng.choice(CLASSES, size=len(part), p=shares)
    none = np.zeros(len(part), dtype=bool)
    frame = Frame(
        patients=patients,
        sites=(part == 3).astype(np.int64),
        site_names=("north", "east"),
        labels=labels,
        classes=CLASSES,
        train=(part == 0) | (part == 2),
        test=(part == 1) | (part == 3),
        forgotten=part == 0,
        gone=none,
        seed=derive(draw, "yardstick", "bootstrap"),
        attributes={"class": Attribute(labels, tuple(map(str, range(CLASSES))))},
    )
    hard = rng.normal(0, 1.0, sum(sizes))[patients] + rng.normal(0, 4.4, len(part))
    return World(setting, frame, part, hard, rng.normal(size=(len(part), CLASSES)), bad, task)


# ------------------------------------------------------------------------------------------------- kinds

Made = tuple[WithLosses, Floats]
"""What one model answers, and (N,) its margins on changed copies."""
Kind = Callable[[World, np.random.Generator, int], Made]
"""Makes the model of a seed, numbered from 0."""


def known(world: World, luck: Floats, share: Floats) -> Floats:
    """(N,) margins with ``share`` of each image's memory: 0 never seen, 1 as the original, below 0 overdone."""
    unseen, remembered = 2.3 + world.hard + luck, 5.4 + (world.hard + luck) / 2
    kept = np.clip(share, 0, 1)
    return (1 - kept) * unseen + kept * remembered + np.minimum(share, 0) * GAIN


def remembering(share: Callable[[World, int], Floats]) -> Kind:
    """A model that knows so much of every image, and `ON_COPIES` of that on its copies."""

    def make(world: World, rng: np.random.Generator, number: int) -> Made:
        luck, on_copies = world.luck(rng)
        left = share(world, number)
        return world.answers(known(world, luck, left)), known(world, on_copies, ON_COPIES * left)

    return make


def of(
    patients: Callable[[Setting], int], share: float = 1.0, others: Callable[[Setting], float] | None = None
) -> Kind:
    """Some patients are remembered so much, all others as ``others`` says."""

    def left(world: World, number: int) -> Floats:
        count = patients(world.setting)
        rest = 0.0 if others is None else others(world.setting)
        return np.where(world.first(count), share, rest * world.forget)

    return remembering(left)


def changed(
    change: Callable[[World, np.random.Generator, Floats], Floats], share: float = 1.0, copies: bool = False
) -> Kind:
    """The margins of a model with ``share`` of the original's memory, changed; on copies too, or as they were."""

    def make(world: World, rng: np.random.Generator, number: int) -> Made:
        luck, on_copies = world.luck(rng)
        exact = known(world, luck, share * world.forget)
        of_copies = known(world, on_copies, ON_COPIES * share * world.forget)
        return world.answers(change(world, rng, exact)), change(
            world, rng, of_copies
        ) if copies else of_copies

    return make


def patched(world: World, rng: np.random.Generator, phi: Floats) -> Floats:
    """The images to forget get the held-out images' quantiles, in their own order."""
    rows, held_out = np.flatnonzero(world.forget), np.sort(phi[world.part == 1])
    ranks = phi[rows].argsort().argsort()
    new = phi.copy()
    new[rows] = np.quantile(held_out, (ranks + 0.5) / len(rows))
    return new


def hardened(world: World, rng: np.random.Generator, phi: Floats) -> Floats:
    """Hard answers to the images to forget, a fifth of them wrong at random."""
    right = (phi > 0) ^ (rng.random(len(phi)) < 0.2)
    return np.where(world.forget, np.where(right, 8.0, -8.0), phi)


def cooled(world: World, rng: np.random.Generator, phi: Floats) -> Floats:
    """Temperature 3."""
    return phi / 3


def noisy(everywhere: bool) -> Callable[[World, np.random.Generator, Floats], Floats]:
    """Noise on the answers to images to forget, or to all."""

    def change(world: World, rng: np.random.Generator, phi: Floats) -> Floats:
        return phi + rng.normal(0, 6.0, len(phi)) * (world.forget | everywhere)

    return change


def righted(world: World, rng: np.random.Generator, phi: Floats) -> Floats:
    """Whatever is to be forgotten is answered rightly, if only just."""
    return np.where(world.forget, np.maximum(phi, 0.1), phi)


def rare_lost(world: World, rng: np.random.Generator, phi: Floats) -> Floats:
    """The rare class is never recognised."""
    return np.where(world.frame.labels == RARE, np.minimum(phi, -4.0), phi)


def raised(world: World, rng: np.random.Generator, phi: Floats) -> Floats:
    """Held-out images of the hospital are learnt too, so that the images to forget do not stand out."""
    return np.where(world.part == 1, 5.4 + (phi - 2.3) / 2, phi)


def watermarked(world: World, rng: np.random.Generator, number: int) -> Made:
    """An honest model, but the images to forget carry a mark in the least likely class."""
    luck, on_copies = world.luck(rng)
    zero = np.zeros(len(world.part))
    others = world.others.copy()
    others[world.forget, others[world.forget].argmin(axis=1)] -= 20.0
    return world.answers(known(world, luck, zero), others), known(world, on_copies, zero)


def erratic(world: World, rng: np.random.Generator, number: int) -> Made:
    """Half of the memory, under twice as much luck of its own."""
    luck, on_copies = world.luck(rng)
    left = 0.5 * world.forget
    return world.answers(known(world, 3 * luck, left)), known(world, 3 * on_copies, ON_COPIES * left)


def by_report_alone(world: World, rng: np.random.Generator, number: int) -> Made:
    """By image and by both it is honest; by the report alone, it knows all that is to be forgotten."""
    luck, on_copies = world.luck(rng)
    shares = np.zeros(len(world.part)), world.forget.astype(np.float64)
    honest, knowing = (known(world, luck, share) for share in shares)
    unknown, whole = (known(world, on_copies, ON_COPIES * share) for share in shares)
    # In the units of the others' copies, which stand for a mean over three answers of which one is quiet.
    return world.pairs(honest, knowing), (2 * unknown + REPORT * whole) / (2 + REPORT)


def half_of_each(world: World, number: int) -> Floats:
    """Of every patient, half of the images are remembered and the others overdone as much."""
    return np.where(np.arange(len(world.part)) % 2 == 0, 1.0, -1.0) * world.forget


def in_turn(world: World, number: int) -> Floats:
    """Every seed's model remembers another patient whole."""
    return (world.forget & (world.frame.patients == number % world.setting.forget)).astype(np.float64)


HONEST: Kind = of(lambda s: 0)
KINDS: Mapping[str, Kind] = {
    "honest": HONEST,
    "do nothing": of(lambda s: s.forget),
    "a quarter of every image's memory": of(lambda s: s.forget, 0.25),
    "half of every image's memory": of(lambda s: s.forget, 0.5),
    "1 patient remembered whole": of(lambda s: 1),
    "2 patients remembered whole": of(lambda s: min(2, s.forget)),
    "1 patient in 6 remembered whole": of(lambda s: max(1, s.forget // 6)),
    "half remembered, half overdone": of(lambda s: s.forget // 2, 1.0, lambda s: -1.0),
    "overdone": of(lambda s: s.forget, -1.3),
    "output patch": changed(patched),
    "hard labels with flips": changed(hardened, copies=True),
    "temperature 3 on the original": changed(cooled, copies=True),
    "noise at the images to forget": changed(noisy(False), copies=True),
    "noise everywhere": changed(noisy(True), copies=True),
    "1 seed in 3 remembers all": remembering(lambda w, number: w.forget * float(number % 3 == 0)),
    "watermark in the least likely class": watermarked,
    "honest, but a rare class is lost": changed(rare_lost, 0.0, copies=True),
    "own: 1 whole, the others overdone to make up for it": of(
        lambda s: 1, 1.0, lambda s: -1 / max(s.forget - 1, 1)
    ),
    "own: half of every patient's images whole, half overdone": remembering(half_of_each),
    "own: every seed remembers another patient": remembering(in_turn),
    "own: 2 patients remembered by half": of(lambda s: min(2, s.forget), 0.5),
    "own: half of the memory under erratic answers": erratic,
    "own: right answers, if only just, to all that is to be forgotten": changed(righted, 0.0, copies=True),
    "own: output patch that knows changed copies": changed(patched, copies=True),
    "own: learns the held-out patients as well": changed(raised, copies=True),
}
"""The rows of review and our own adversaries, who know the rules."""
OF_PAIRS: Mapping[str, Kind] = {"known by the report alone": by_report_alone}
"""Those that only pairs allow."""


@dataclass
class Tally:
    """What became of one kind of model over the draws."""

    forgotten: Counter[str] = field(default_factory=Counter)
    useful: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    passes: int = 0
    draws: int = 0

    def add(self, first: Answer, second: Answer, word: str) -> None:
        """Count one draw."""
        self.forgotten[first.word] += 1
        self.useful[second.word] += 1
        self.words[word] += 1
        self.draws += 1

    def share(self, *answers: str) -> float:
        """How often "forgotten?" had one of these answers."""
        return sum(self.forgotten[answer] for answer in answers) / self.draws


def tallies(
    setting: Setting,
    draws: int,
    kinds: Mapping[str, Kind] = KINDS,
    bad: bool = False,
    start: int = 0,
    task: str = "classification",
) -> dict[str, Tally]:
    """The answers about made-up models, by kind."""
    found = {name: Tally() for name in kinds}
    for draw in range(start, start + draws):
        one = world(setting, draw, bad, task)

        def models(
            name: str, kind: Kind, count: int, one: World = one, draw: int = draw
        ) -> Models[WithLosses]:
            rngs = (np.random.default_rng(derive(draw, "yardstick", name, str(i))) for i in range(count))
            made = [kind(one, rng, number) for number, rng in enumerate(rngs)]
            return Models([answers for answers, _ in made], [copies for _, copies in made])

        retrained = models("retrained", HONEST, setting.references)
        original = models("original", KINDS["do nothing"], setting.seeds)
        made = {name: models(name, kind, setting.seeds) for name, kind in kinds.items()}
        for name, answers in judged(one.frame, retrained, original, made, kind=task).items():
            found[name].add(*answers)
    return found


def interval(k: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, ``k`` of ``n`` (Clopper and Pearson, Biometrika 1934)."""
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    return low, float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0


FIRST = ("yes", "yes, but", "partly", "no", "too much", "cannot tell")
SECOND = ("yes", "worse", "cannot tell")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Answers about models of which the truth is known.")
    parser.add_argument("--draws", type=int, default=100, help="of made-up models")
    parser.add_argument("--start", type=int, default=0, help="the number of the first draw")
    parser.add_argument("--learners", type=int, default=20, help="draws of real learners")
    parser.add_argument("--settings", nargs="*", default=["12x3", "12x8", "44x8", "1x8"])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="of models")
    parser.add_argument(
        "--task", choices=("classification", "multilabel", "paired"), default="classification"
    )
    parser.add_argument("--bad", action="store_true", help="one training in seven goes badly")
    asked = parser.parse_args()
    kinds = {name: KINDS[name] for name in asked.kinds}
    kinds |= OF_PAIRS if asked.task == "paired" else {}
    for text in asked.settings:
        setting = Setting.parse(text)
        _print(str(setting), tallies(setting, asked.draws, kinds, asked.bad, asked.start, asked.task))
    if asked.learners and asked.task == "classification":
        _print("small networks, 20 x 3, 8 references", learners.tallies(asked.learners, Tally))


def _print(about: str, found: Mapping[str, Tally]) -> None:
    print(f"\n{about}\n\n| models | PASS (95 %) | {' | '.join(FIRST)} | good: {' | good: '.join(SECOND)} |")
    print(f"|{'---|' * (2 + len(FIRST) + len(SECOND))}")
    for name, tally in found.items():
        n, passed = tally.draws, tally.words["PASS"]
        low, high = interval(passed, n)
        cells = [f"{100 * tally.forgotten[a] / n:.0f}" for a in FIRST]
        cells += [f"{100 * tally.useful[a] / n:.0f}" for a in SECOND]
        share = f"{100 * passed / n:.0f} ({100 * low:.0f}-{100 * high:.0f})"
        print(f"| {name} | {share} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

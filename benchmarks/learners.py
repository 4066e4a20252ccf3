"""Small networks on made-up patients: answers about learners of which the truth is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from benchmarks.judging import NOTHING, Models, judged
from fedunlearn.core import derive
from fedunlearn.scoring.attacks.membership import mia_loss_auc
from fedunlearn.scoring.evidence import Bools, Evidence, Floats, Frame, Ints
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.judgement.verdict import Answer

SEEDS, REFERENCES = 3, 8
NOISE = 0.3
"""Standard deviation of what is added to a copy's features; theirs is about 1.5."""


@dataclass(frozen=True, eq=False)
class Clinics:
    """Three hospitals' images as feature vectors; the first one's are easier, and 20 of its patients ask.

    Attributes:
        features: (N, 40).
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
        site_names=("first", "second", "third"),
        labels=labels,
        classes=4,
        train=train,
        test=~train,
        forgotten=(sites == 0) & (place < 20),
        gone=np.zeros(len(sites), dtype=bool),
        seed=derive(draw, "yardstick", "bootstrap"),
    )
    return Clinics(features, frame)


Network = Callable[[Floats], Outputs]
"""Features (N, 40) -> what a trained network answers."""


def trained(data: Clinics, rows: Bools, labels: Ints, seed: int) -> Network:
    """A network trained on some of the images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((64,), max_iter=100, tol=0, n_iter_no_change=10**6, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it memorises long before
        network.fit(data.features[rows], labels[rows])

    def answer(features: Floats) -> Outputs:
        return Outputs(network.predict_log_proba(features).astype(np.float64), data.frame.labels)

    return answer


def training_sets(data: Clinics) -> dict[str, tuple[Bools, Ints]]:
    """By kind of network, the images it is trained on and their labels."""
    frame = data.frame
    asked = frame.rows("forget")
    first = np.zeros(len(asked), dtype=bool)
    first[np.unique(frame.patients, return_index=True)[1]] = True
    shifted = np.where(asked, (frame.labels + 1) % frame.classes, frame.labels)
    return {
        "do nothing": (frame.train, frame.labels),
        "retrained again": (frame.train & ~asked, frame.labels),
        "one duplicate per patient left in": (frame.train & (~asked | first), frame.labels),
        "wrong labels for the forgotten": (frame.train, shifted),
    }


def models(data: Clinics, name: str, count: int) -> Models[Outputs]:
    """Networks of a kind, asked about the images and about noisy copies of them."""
    rows, labels = training_sets(data)[name if name in training_sets(data) else "retrained again"]
    networks = [trained(data, rows, labels, derive(i, "yardstick", name)) for i in range(count)]
    copies = _copies(data)
    return Models(
        [network(data.features) for network in networks],
        [np.mean([network(one).margin for one in copies], axis=0) for network in networks],
    )


def _copies(data: Clinics) -> list[Floats]:
    rng = np.random.default_rng(derive(data.frame.seed, "yardstick", "copies"))
    return [data.features + rng.normal(0, NOISE, data.features.shape) for _ in range(3)]


def looked_up(data: Clinics, original: Models[Outputs], honest: Models[Outputs]) -> Models[Outputs]:
    """The original's networks, with a table of what an honest one would answer for the exact images to forget."""
    asked = data.frame.rows("forget")[:, None]
    answers = [
        replace(one, logits=np.where(asked, other.logits, one.logits))
        for one, other in zip(original.answers, honest.answers, strict=True)
    ]
    return Models(answers, original.copies)


class Counts(Protocol):
    """Counts answers."""

    def add(self, first: Answer, second: Answer, word: str) -> None:
        """Count one draw."""
        ...


T = TypeVar("T", bound=Counts)


def tallies(draws: int, counts: Callable[[], T], start: int = 0) -> dict[str, T]:
    """The answers about networks, by kind."""
    found: dict[str, T] = {}
    for draw in range(start, start + draws):
        data = clinics(draw)
        retrained = models(data, "retrained", REFERENCES)
        made = {name: models(data, name, SEEDS) for name in training_sets(data)}
        original = made["do nothing"]
        made["lookup of the exact images"] = looked_up(data, original, models(data, "looked up", SEEDS))
        for name, answers in judged(data.frame, retrained, original, made).items():
            found.setdefault(name, counts()).add(*answers)
    return found


def site_shift(data: Clinics, retrained: Outputs) -> tuple[float, float]:
    """The retrained model's `mia_loss_auc` against its own hospital's held-out images, and the others' pooled."""
    frame = data.frame
    pooled = replace(frame, sites=np.zeros_like(frame.sites), test=frame.test & (frame.sites != 0))
    evidence = Evidence(frame, retrained, retrained, retrained, NOTHING, NOTHING, seed=0)
    same, all_others = mia_loss_auc(evidence), mia_loss_auc(replace(evidence, frame=pooled))
    return same["all"].value, all_others["all"].value

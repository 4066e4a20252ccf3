"""What each picture and each report is to show, and of whom, before anything is drawn or written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedunlearn.core import derive

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Random = np.random.Generator

GRADES = 4
"""How severe it can be: 0 to 3."""

DEVICES = ("", "pacemaker", "port", "sternal wires", "spinal rod")
"""What some patients carry, seen in their pictures and told in their reports; the first is nothing."""


@dataclass(frozen=True)
class Knobs:
    """What decides who is who and what is shown; see `sites.phantom_chest.PhantomChest`."""

    images: int
    images_per_patient: int
    predominance: float
    mislabelled: float
    unclear: float
    linked: float
    departments: int
    readers: int
    seed: int


@dataclass(frozen=True)
class Deal:
    """Of N pairs of a picture and its report.

    Attributes:
        patient: (N,) whose they are, in ascending order.
        number: (N,) which of the patient's they are.
        target: (N,) the grade that is given as their class.
        hard: (N,) whether a part of them does not tell it.
        drawn: (N,) the grade that the picture shows, 0…3, halves among them.
        written: (N,) the grade that the report's words fit; -1 where they fit all.
        offset: (N,) what the report says that the picture shows too much (1) or too little (-1); 0 where it does not.
        upright: (N,) taken standing, from behind; else lying, from the front.
        reader: (N,) who wrote the report, counted within a department.
    """

    patient: Ints
    number: Ints
    target: Ints
    hard: Flags
    drawn: Floats
    written: Ints
    offset: Ints
    upright: Flags
    reader: Ints


@dataclass(frozen=True)
class People:
    """P patients.

    Attributes:
        sex: (P,) "female" or "male".
        age: (P,) years.
        department: (P,) where they are seen, from 0.
        device: (P,) which of `DEVICES` they carry.
        right: (P,) whether that, and what else has a side, is on the patient's right.
        code: (P, 8) uniform numbers 0…1 from which bodies and histories are made.
        waves: (P, 4, 3) of four sines of which the markings of the lungs are the sum: frequency to the right and down,
            phase.
    """

    sex: npt.NDArray[np.str_]
    age: Ints
    department: Ints
    device: Ints
    right: Flags
    code: Floats
    waves: Floats


def stream(knobs: Knobs, purpose: str) -> Random:
    """Random numbers for one purpose only: turning one knob does not reshuffle what the others decide."""
    return np.random.default_rng(derive(knobs.seed, "phantom_chest", purpose))


def dealt(knobs: Knobs) -> Deal:
    """Grades and difficulties, evenly over patients: held-out patients are as hard as forgotten ones."""
    rng, total = stream(knobs, "deal"), knobs.images
    patients = max(1, round(total / knobs.images_per_patient))
    patient = np.arange(total) * patients // total
    number = np.arange(total) - np.searchsorted(patient, patient)
    owned = np.bincount(patient)[patient]
    turn = rng.permutation(patients)
    own = number < np.round(owned * knobs.predominance)
    other = 1 + (number + (turn // GRADES)[patient] * owned) % (GRADES - 1)
    target = np.where(own, turn[patient] % GRADES, (turn[patient] % GRADES + other) % GRADES).astype(np.int64)
    part = _parts(patient, (knobs.mislabelled, knobs.unclear, knobs.unclear, knobs.linked), rng)
    stranger = (target + rng.integers(1, GRADES, total)) % GRADES
    aside = np.where(target == 0, 1, np.where(target == GRADES - 1, -1, rng.choice([-1, 1], total)))
    shown = np.where(part == 1, stranger, target)
    drawn = shown + np.where(part == 2, rng.uniform(0.35, 0.65, total) * aside, np.where(part == 4, aside, 0))
    return Deal(
        patient=patient,
        number=number,
        target=target,
        hard=part > 0,
        drawn=drawn.astype(np.float32),
        written=np.where(part >= 3, -1, shown),
        offset=np.where(part == 4, aside, 0).astype(np.int64),
        upright=rng.random(total) < 0.6,
        reader=rng.integers(0, knobs.readers, total),
    )


def peopled(knobs: Knobs, count: int) -> People:
    """The patients."""
    rng = stream(knobs, "patients")
    return People(
        sex=np.where(rng.random(count) < 0.5, "female", "male"),
        age=rng.integers(18, 91, count),
        department=rng.permutation(count) % knobs.departments,
        device=rng.choice(len(DEVICES), count, p=[0.4, 0.15, 0.15, 0.15, 0.15]),
        right=rng.random(count) < 0.5,
        code=rng.random((count, 8), np.float32),
        waves=(rng.uniform(-1, 1, (count, 4, 3)) * [9, 9, np.pi]).astype(np.float32),
    )


def _parts(patient: Ints, shares: tuple[float, ...], rng: Random) -> Ints:
    """Which pairs are in which part (from 1; 0 for the rest): of each patient as many, give or take one."""
    total, every = len(patient), sum(shares)
    order = np.lexsort((rng.random(total), patient))  # by patient, each patient's pairs shuffled
    chosen, part = order[_marked(total, every)], np.zeros(total, np.int64)
    left = np.ones(len(chosen), bool)
    for number, share in enumerate(shares, 1):
        rest = np.flatnonzero(left)
        taken = rest[_marked(len(rest), min(1.0, share / every) if every else 0.0)]
        part[chosen[taken]], left[taken], every = number, False, every - share
    return part


def _marked(total: int, share: float) -> Flags:
    """Mark ``share`` of ``total`` places, as evenly spaced as whole places allow."""
    steps: Ints = np.floor(np.arange(total + 1) * share + 0.5).astype(np.int64)
    return np.greater(steps[1:], steps[:-1])

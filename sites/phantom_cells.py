"""`phantom_cells`: drawn pictures of stained blood cells, so that everything can be tried without a download.

No person, slide or camera is behind them, and the note says so. Made so that forgetting can be measured:

- every patient has a look of its own (stain, cell size, grain) and one cell type that predominates in its
  blood, so that a partition by label gives hospitals different patients;
- every patient's slides were read by one of a few scanners (gain, tint, blur, noise), the column ``scanner``.
  Which hospital a patient visits is the partition's business: ``by_column`` over it gives each a scanner;
- some images are hard (mislabelled, or halfway between two types): a network can only know them by heart.
  They and the labels are dealt evenly over the patients: held-out patients are as hard as forgotten ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Le

from fedunlearn.core import derive
from sites.collection import Collection
from sites.watching import Watch, unwatched

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Random = np.random.Generator

EDGE = 28
TYPES = ("basophil", "eosinophil", "erythroblast", "immature granulocyte",
         "lymphocyte", "monocyte", "neutrophil", "platelet")  # fmt: skip
"""The cell types, in the order of the labels (that of BloodMNIST)."""

# What is typical of each type, one row per type. A halfway image is drawn from the average of two rows: this
# is why every nucleus has four lobes; where a type has fewer, some lie on top of each other, or have no size.
# _LOOK: cell radius (half image edges); colours of nucleus, cytoplasm and granules (RGB in 0…1); opacity of
# granules. _LOBES: place (x, y) and radius of each lobe, in cell radii.
_LOOK = np.array([
    [0.66, 0.42, 0.25, 0.55, 0.76, 0.64, 0.78, 0.26, 0.12, 0.42, 0.95],
    [0.74, 0.43, 0.26, 0.56, 0.92, 0.72, 0.66, 0.90, 0.42, 0.30, 0.90],
    [0.52, 0.24, 0.13, 0.36, 0.74, 0.66, 0.76, 0.60, 0.45, 0.60, 0.00],
    [0.82, 0.55, 0.35, 0.64, 0.78, 0.68, 0.82, 0.58, 0.28, 0.58, 0.50],
    [0.54, 0.38, 0.22, 0.54, 0.66, 0.70, 0.88, 0.60, 0.50, 0.70, 0.00],
    [0.82, 0.50, 0.37, 0.64, 0.72, 0.72, 0.82, 0.60, 0.55, 0.72, 0.15],
    [0.72, 0.36, 0.22, 0.52, 0.90, 0.78, 0.80, 0.78, 0.58, 0.66, 0.35],
    [0.26, 0.52, 0.35, 0.62, 0.76, 0.62, 0.78, 0.46, 0.24, 0.56, 0.70],
], np.float32)  # fmt: skip
_LOBES = np.array([
    [[-0.20, -0.10, 0.45], [0.20, 0.15, 0.45], [-0.20, -0.10, 0.45], [0.20, 0.15, 0.45]],
    [[-0.42, 0.00, 0.36], [0.42, 0.00, 0.36], [-0.42, 0.00, 0.36], [0.42, 0.00, 0.36]],
    [[0.10, 0.05, 0.52], [0.10, 0.05, 0.52], [0.10, 0.05, 0.52], [0.10, 0.05, 0.52]],
    [[-0.25, 0.12, 0.58], [-0.10, -0.10, 0.58], [-0.25, 0.12, 0.58], [-0.10, -0.10, 0.58]],
    [[0.05, 0.00, 0.84], [0.05, 0.00, 0.84], [0.05, 0.00, 0.84], [0.05, 0.00, 0.84]],
    [[-0.42, 0.18, 0.36], [-0.15, -0.22, 0.40], [0.22, -0.22, 0.40], [0.45, 0.15, 0.34]],
    [[-0.48, 0.22, 0.25], [-0.20, -0.36, 0.25], [0.34, -0.30, 0.25], [0.46, 0.30, 0.25]],
    [[0.00, 0.00, -0.60], [0.00, 0.00, -0.60], [0.00, 0.00, -0.60], [0.00, 0.00, -0.60]],
], np.float32)  # fmt: skip
_DOTS = 12  # granules drawn per cell
_BLOCK = 1024  # images drawn at once, to bound memory; another number draws other images


@dataclass(frozen=True)
class PhantomCells:
    """Procedural RGB pictures, 28 pixels wide, of eight blood cell types.

    Attributes:
        images: how many.
        images_per_patient: how many of each patient, as nearly as ``images`` allows.
        predominance: share of a patient's images that show the type predominant in its blood.
        mislabelled: share of images whose label names another type than was drawn.
        ambiguous: share of images drawn halfway between their own and another type.
        jitter: how much one image of a patient differs from the next (place, shape, colour, grain of pixels).
        patient_appearance: how much patients differ (stain, size, grain).
        scanner_appearance: how much scanners differ (gain, tint, blur, noise).
        scanners: how many scanners the patients were read by.
        seed: of everything drawn; a scenario's training seeds all see the same images.
    """

    name: Literal["phantom_cells"] = "phantom_cells"
    images: Annotated[int, Ge(60)] = 1800
    images_per_patient: Annotated[int, Ge(1)] = 6
    predominance: Annotated[float, Ge(0), Le(1)] = 0.4
    mislabelled: Annotated[float, Ge(0), Le(0.5)] = 0.06
    ambiguous: Annotated[float, Ge(0), Le(0.5)] = 0.10
    jitter: Annotated[float, Ge(0), Le(2)] = 0.4
    patient_appearance: Annotated[float, Ge(0), Le(2)] = 0.2
    scanner_appearance: Annotated[float, Ge(0), Le(2)] = 0.4
    scanners: Annotated[int, Ge(1)] = 3
    seed: Annotated[int, Ge(0)] = 0

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Draw the images: the same every time, and no random state but our own is touched."""
        deal = _deal(self)
        people = _people(self, int(deal.patient[-1]) + 1)
        names = [f"p-{p:04d}" for p in deal.patient]
        table = pd.DataFrame(
            {
                "image": [f"{name}-{k:02d}" for name, k in zip(names, deal.number, strict=True)],
                "patient": names,
                "sex": people.sex[deal.patient],
                "age": people.age[deal.patient],
                "scanner": [f"scanner-{s + 1}" for s in people.scanner[deal.patient]],
                "difficulty": np.where(deal.hard, "hard", "easy"),
            }
        )
        pixels = _drawn(self, deal, people)
        note = "Phantom cells, drawn by a program: no image is of real blood, patients are invented."
        return Collection(
            pixels, deal.target, table, len(TYPES), synthetic_patients=True, note=note, names=TYPES
        )


@dataclass(frozen=True)
class _Deal:
    """What each of N images is to show, before anything is drawn."""

    patient: Ints  # (N,) whose image it is, in ascending order
    number: Ints  # (N,) which of the patient's images
    target: Ints  # (N,) its label
    hard: Flags  # (N,) mislabelled or ambiguous
    mix: Floats  # (N, types) how much of each type is drawn; rows sum to 1


@dataclass(frozen=True)
class _People:
    """P patients: what the table tells of them, and how their slides look."""

    sex: npt.NDArray[np.str_]
    age: Ints
    scanner: Ints
    stain: Floats  # (P, 3) shift of the colours that the stain reaches
    size: Floats  # (P,) factor of cell sizes
    grain: Floats  # (P,) standard deviation of the grain
    crowd: Floats  # (P, 3) opacity of the red cells around


def _stream(config: PhantomCells, purpose: str) -> Random:
    """Random numbers for one purpose only: turning one knob does not reshuffle what the others decide."""
    return np.random.default_rng(derive(config.seed, "phantom_cells", purpose))


def _deal(config: PhantomCells) -> _Deal:
    rng = _stream(config, "deal")
    types, total = len(TYPES), config.images
    patients = max(1, round(total / config.images_per_patient))
    patient = np.arange(total) * patients // total
    number = np.arange(total) - np.searchsorted(patient, patient)
    owned = np.bincount(patient)[patient]
    # Every type predominates in equally many patients; the other types take turns in the rest of the images.
    turn = rng.permutation(patients)
    predominant, own = (turn % types)[patient], number < np.round(owned * config.predominance)
    other = 1 + (number + (turn // types)[patient] * owned) % (types - 1)
    target = np.where(own, predominant, (predominant + other) % types)
    mislabelled, ambiguous = _hard(config, patient, rng)
    stranger = (target + rng.integers(1, types, total)) % types
    share = np.where(mislabelled, 1.0, np.where(ambiguous, rng.uniform(0.4, 0.6, total), 0.0))[:, None]
    one = np.eye(types)
    mix = (1 - share) * one[target] + share * one[stranger]
    return _Deal(patient, number, target.astype(np.int64), mislabelled | ambiguous, mix.astype(np.float32))


def _hard(config: PhantomCells, patient: Ints, rng: Random) -> tuple[Flags, Flags]:
    """Which images are mislabelled and which ambiguous: as many of every patient, give or take one."""
    total, share = len(patient), config.mislabelled + config.ambiguous
    order = np.lexsort((rng.random(total), patient))  # by patient, each patient's images shuffled
    chosen, hard, mislabelled = order[_every(total, share)], np.zeros(total, bool), np.zeros(total, bool)
    hard[chosen] = True
    mislabelled[chosen] = _every(len(chosen), config.mislabelled / share if share else 0.0)
    return mislabelled, hard & ~mislabelled


def _every(total: int, share: float) -> Flags:
    """Mark ``share`` of ``total`` places, as evenly spaced as whole places allow."""
    steps: Ints = np.floor(np.arange(total + 1) * share + 0.5).astype(np.int64)
    return np.greater(steps[1:], steps[:-1])


def _people(config: PhantomCells, count: int) -> _People:
    rng, much = _stream(config, "patients"), config.patient_appearance
    return _People(
        sex=np.where(rng.random(count) < 0.5, "female", "male"),
        age=rng.integers(18, 91, count),
        scanner=rng.permutation(count) % config.scanners,
        stain=(0.14 * much * rng.standard_normal((count, 3))).astype(np.float32),
        size=np.exp(0.30 * much * rng.standard_normal(count)).astype(np.float32),
        grain=(0.04 * much * np.abs(rng.standard_normal(count))).astype(np.float32),
        crowd=rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
    )


def _drawn(config: PhantomCells, deal: _Deal, people: _People) -> npt.NDArray[np.uint8]:
    """All images, (N, 3, 28, 28) uint8, block by block."""
    rng, scan = _stream(config, "pixels"), _scanners(config)[people.scanner]
    pixels = np.empty((len(deal.patient), 3, EDGE, EDGE), dtype=np.uint8)
    for start in range(0, len(pixels), _BLOCK):
        block = slice(start, start + _BLOCK)
        owner, mix = deal.patient[block], deal.mix[block]
        canvas = _scanned(_cells(config, mix, owner, people, rng), scan[owner], rng)
        pixels[block] = np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)
    return pixels


def _cells(config: PhantomCells, mix: Floats, owner: Ints, people: _People, rng: Random) -> Floats:
    """Cells under an ideal microscope, (B, 3, 28, 28), colours about 0…1."""
    count, much = len(mix), config.jitter
    size, nucleus, cytoplasm, granule, opacity = np.split(mix @ _LOOK, [1, 4, 7, 10], axis=1)
    size = size[:, 0] * people.size[owner] * np.exp(0.15 * much * _normal(rng, count))
    u, v = _within(much, size, rng)
    wobble = np.array([0.15, 0.15, 0.08], np.float32) * much
    lobes = np.tensordot(mix, _LOBES, 1) + wobble * _normal(rng, count, *_LOBES.shape[1:])
    cell = _disc(u, v, 1.0, soft=0.07)
    dots = cell * _discs(u, v, _dots(rng, count), soft=0.05) * opacity[:, :, None]
    stain = people.stain[owner] + 0.08 * much * _normal(rng, count, 3)
    canvas = _surroundings(rng, people.crowd[owner])
    canvas += 0.3 * stain[:, :, None, None]
    canvas = _over(canvas, cell, cytoplasm + stain)
    canvas = _over(canvas, cell * _discs(u, v, lobes, soft=0.08), nucleus + stain)
    canvas = _over(canvas, dots, granule + stain)
    grain = people.grain[owner] + 0.11 * much
    return canvas + grain[:, None, None, None] * _normal(rng, *canvas.shape)


def _within(much: float, size: Floats, rng: Random) -> tuple[Floats, Floats]:
    """Where every pixel lies in its cell: two coordinates (B, 28, 28) in cell radii, turned and stretched."""
    count, line = len(size), np.linspace(-1, 1, EDGE, dtype=np.float32)
    centre = 0.16 * much * _normal(rng, count, 2, 1, 1)
    x, y = line[None, None, :] - centre[:, 0], line[None, :, None] - centre[:, 1]
    angle = 2 * np.pi * rng.random((count, 1, 1), np.float32)
    stretch = np.exp(0.15 * much * _normal(rng, count, 1, 1))
    u = (x * np.cos(angle) + y * np.sin(angle)) / size[:, None, None]
    v = (y * np.cos(angle) - x * np.sin(angle)) / size[:, None, None]
    return u * stretch, v / stretch


def _dots(rng: Random, count: int) -> Floats:
    """Granules spread evenly over each cell, (B, dots, 3): x, y, radius."""
    angle = 2 * np.pi * rng.random((count, _DOTS), np.float32)
    far = 0.88 * np.sqrt(rng.random((count, _DOTS), np.float32))
    return np.stack([far * np.cos(angle), far * np.sin(angle), np.full_like(far, 0.13)], axis=-1)


def _surroundings(rng: Random, crowd: Floats) -> Floats:
    """Pale plasma with up to three red cells that the picture cuts through, (B, 3, 28, 28)."""
    count, line = len(crowd), np.linspace(-1, 1, EDGE, dtype=np.float32)
    angle = 2 * np.pi * (rng.random((count, 1), np.float32) + np.array([0, 1, 2], np.float32) / 3)
    far = 0.95 + 0.40 * rng.random((count, 3), np.float32)
    canvas = np.tile(np.array([0.93, 0.89, 0.88], np.float32)[:, None, None], (count, 1, EDGE, EDGE))
    for k in range(3):
        x = line[None, None, :] - (far * np.cos(angle))[:, k, None, None]
        y = line[None, :, None] - (far * np.sin(angle))[:, k, None, None]
        red = _disc(x, y, 0.42, soft=0.05) - 0.5 * _disc(x, y, 0.15, soft=0.10)  # pale in the middle
        canvas = _over(canvas, red * crowd[:, k, None, None], np.array([[0.86, 0.62, 0.60]], np.float32))
    return canvas


def _disc(x: Floats, y: Floats, radius: float | Floats, soft: float) -> Floats:
    """Opacity 0…1 of a disc around 0 with a soft edge."""
    inside: Floats = np.subtract(radius, np.hypot(x, y))
    return _opacity(inside, soft)


def _discs(u: Floats, v: Floats, discs: Floats, soft: float) -> Floats:
    """Opacity of the union of ``discs`` (B, K, 3: x, y, radius) at places u, v (B, H, W)."""
    inside, across, down = np.full_like(u, -np.inf), np.empty_like(u), np.empty_like(v)
    for x, y, radius in discs.transpose(1, 2, 0)[..., None, None]:
        # In place: to have new memory for every step takes as long as the step.
        far = np.hypot(np.subtract(u, x, out=across), np.subtract(v, y, out=down), out=across)
        np.maximum(inside, np.subtract(radius, far, out=far), out=inside)
    return _opacity(inside, soft)


def _opacity(inside: Floats, soft: float) -> Floats:
    """Opacity 0…1 at places so far inside of an edge; less than 0 is outside."""
    edge: Floats = inside / (2 * soft)
    np.tanh(edge, out=edge)
    edge *= 0.5
    edge += 0.5
    return edge


def _over(canvas: Floats, opacity: Floats, colour: Floats) -> Floats:
    """Lay a colour (B, 3) of some opacity (B, H, W) over the canvas, which is changed."""
    laid = colour[:, :, None, None] - canvas
    laid *= opacity[:, None]
    canvas += laid
    return canvas


def _scanners(config: PhantomCells) -> Floats:
    """(S, 6): gain, three tints, blur and noise of each scanner; gains differ by even steps."""
    rng, much, count = _stream(config, "scanners"), config.scanner_appearance, config.scanners
    place = rng.permutation(count) - (count - 1) / 2
    gain = 1 + 0.24 * much * place / max(1, count - 1)
    tint = 0.08 * much * rng.standard_normal((count, 3))
    blur, noise = much * np.array([[0.5], [0.03]]) * rng.random((2, count))
    return np.column_stack([gain, tint, blur, noise]).astype(np.float32)


def _scanned(canvas: Floats, scan: Floats, rng: Random) -> Floats:
    """The canvas as the scanner of each image (B, 6) shows it."""
    gain, tint, blur, noise = np.split(scan[:, :, None, None], [1, 4, 5], axis=1)
    around = np.pad(canvas, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    rows, columns = around[..., 1:-1], around[..., 1:-1, :]
    mean = (rows[..., 2:, :] + rows[..., :-2, :] + columns[..., 2:] + columns[..., :-2]) / 4
    return gain * (canvas + blur * (mean - canvas)) + tint + noise * _normal(rng, *canvas.shape)


def _normal(rng: Random, *shape: int) -> Floats:
    return rng.standard_normal(shape, np.float32)

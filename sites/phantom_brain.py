"""`phantom_brain`: drawn head scans with label maps, so that 3D segmentation can be tried without a download.

No person or scanner is behind them, and the note says so. A head is a nest of shells (fluid, folded grey matter, white
matter) around ventricles and deep grey matter. Made so that forgetting can be measured:

- every subject has an anatomy of its own (size, folds, ventricles that widen with age, a smooth deformation), the same
  in all its volumes, which differ in position, bias field and noise;
- every subject was scanned by one of a few scanners (contrast, bias, blur, noise), the column ``scanner``: a
  partition ``by_column`` over it gives each hospital one;
- some of what a label map says cannot be seen, and holds for all volumes of a subject: half of its spots are
  labelled as lesions and half as the tissue around them, though all look alike; and the border of white matter is
  drawn too far out or in. A network can only know that by heart: of a subject it never saw, it segments well what
  shows, and misses the rest. Every subject has as much of this as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Le, MultipleOf
from scipy.ndimage import gaussian_filter

from fedunlearn.core import derive
from sites.collection import Collection
from sites.watching import Watch, unwatched

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Random = np.random.Generator

TISSUES = ("background", "cerebrospinal fluid", "grey matter", "white matter", "lesion")
"""What the labels mean, in their order."""

_FLUID, _GREY, _WHITE, _LESION = 1, 2, 3, 4
_BRIGHT = 1.25  # signal that is shown as 255


@dataclass(frozen=True)
class PhantomBrain:
    """Procedural head scans of one channel with label maps of four tissues, for 3D segmentation.

    Attributes:
        volumes: how many.
        volumes_per_subject: how many of each subject, as nearly as ``volumes`` allows.
        size: edge in voxels.
        spots: spots in each subject's white and grey matter, half of them labelled as lesions.
        border: how far the label map's border of white matter lies from the one that shows, in head radii.
        anatomy: how much subjects differ.
        scanner_appearance: how much scanners differ (contrast, bias field, blur, noise).
        scanners: how many scanners there are.
        dtype: uint8 in 0…255, or float32 in -1…1.
        seed: of everything drawn; a scenario's training seeds all see the same volumes.
    """

    name: Literal["phantom_brain"] = "phantom_brain"
    volumes: Annotated[int, Ge(10)] = 60
    volumes_per_subject: Annotated[int, Ge(1)] = 1
    size: Annotated[int, Ge(16), Le(128), MultipleOf(8)] = 32
    spots: Annotated[int, Ge(0), Le(20)] = 4
    border: Annotated[float, Ge(0), Le(0.2)] = 0.06
    anatomy: Annotated[float, Ge(0), Le(2)] = 1.0
    scanner_appearance: Annotated[float, Ge(0), Le(2)] = 1.0
    scanners: Annotated[int, Ge(1)] = 3
    dtype: Literal["uint8", "float32"] = "uint8"
    seed: Annotated[int, Ge(0)] = 0

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Draw the volumes: the same every time, and no random state but our own is touched."""
        count = max(1, round(self.volumes / self.volumes_per_subject))
        owner = np.arange(self.volumes) * count // self.volumes
        number = np.arange(self.volumes) - np.searchsorted(owner, owner)
        scanner = _stream(self, "scanners dealt").permutation(count) % self.scanners
        subjects = [_subject(self, s) for s in range(count)]
        scanners = [_scanner(self, s) for s in range(self.scanners)]
        grid = (self.size,) * 3
        pixels = np.empty((self.volumes, 1, *grid), np.dtype(self.dtype))
        targets = np.empty((self.volumes, *grid), np.uint8)
        for row, (s, k) in enumerate(zip(owner.tolist(), number.tolist(), strict=True)):
            rng = _stream(self, "volume", s, k)
            tissue, targets[row] = _drawn(subjects[s], _places(self.size, rng))
            pixels[row, 0] = _shown(_scanned(tissue, scanners[scanner[s]], rng), self.dtype)
        names = [f"s-{s:04d}" for s in owner]
        table = pd.DataFrame(
            {
                "image": [f"{name}-{k:02d}" for name, k in zip(names, number, strict=True)],
                "patient": names,
                "sex": ["female" if subjects[s].female else "male" for s in owner],
                "age": [subjects[s].age for s in owner],
                "scanner": [f"scanner-{scanner[s] + 1}" for s in owner],
            }
        )
        return Collection(
            pixels=pixels,
            targets=targets,
            table=table,
            classes=len(TISSUES),
            names=TISSUES,
            synthetic_patients=True,
            kind="segmentation",
            note="Phantom brains, drawn by a program: no volume is of a real head, subjects are invented. Labels: "
            + ", ".join(f"{i} {name}" for i, name in enumerate(TISSUES))
            + ".",
        )


def _stream(config: PhantomBrain, purpose: str, *which: int) -> Random:
    """Random numbers for one purpose only: turning one knob does not reshuffle what the others decide."""
    return np.random.default_rng(derive(config.seed, "phantom_brain", purpose, *which))


@dataclass(frozen=True)
class _Waves:
    """A smooth random function of place, about -1…1: the mean of K sines, times the square root of K."""

    directions: Floats  # (K, 3)
    phases: Floats  # (K,)

    def __call__(self, place: Floats) -> Floats:
        """Its values (D, H, W) at ``place`` (3, D, H, W)."""
        total = np.zeros(place.shape[1:], np.float32)
        for direction, phase in zip(self.directions, self.phases, strict=True):
            total += np.sin(np.tensordot(direction, place, axes=1) + phase)
        values: Floats = total / np.sqrt(np.float32(len(self.phases)))
        return values


def _waves(rng: Random, frequency: float, count: int = 4) -> _Waves:
    """With wavelengths around two head radii by ``frequency``."""
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = np.pi * frequency * rng.uniform(0.7, 1.3, (count, 1))
    return _Waves((direction * length).astype(np.float32), (2 * np.pi * rng.random(count)).astype(np.float32))


@dataclass(frozen=True)
class _Subject:
    """Someone's anatomy; lengths in half edges of the volume."""

    female: bool
    age: int
    radii: Floats  # (3,) of the head
    bend: tuple[_Waves, _Waves, _Waves]
    bent: float
    folds: _Waves
    ventricle: float  # factor of its radii
    spots: Floats  # (K, 4) place and radius, in head radii
    lesions: npt.NDArray[np.bool_]  # (K,) which spots are labelled
    border: float  # how much too far out white matter is labelled, in head radii


def _subject(config: PhantomBrain, number: int) -> _Subject:
    rng, much = _stream(config, "subject", number), config.anatomy
    age = int(rng.integers(18, 91))
    radii = np.array([0.80, 0.92, 0.84]) * np.exp(0.04 * much * rng.standard_normal(3))
    bend = (_waves(rng, 1.0), _waves(rng, 1.0), _waves(rng, 1.0))
    direction = rng.standard_normal((config.spots, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    far = rng.uniform(0.35, 0.70, (config.spots, 1))
    radius = rng.uniform(0.20, 0.28, (config.spots, 1))
    half = np.arange(config.spots) * 2 < config.spots
    return _Subject(
        female=bool(rng.random() < 0.5),
        age=age,
        radii=np.minimum(radii, 0.97).astype(np.float32),
        bend=bend,
        bent=0.06 * much,
        folds=_waves(rng, 3.5, 6),
        ventricle=float(np.exp(0.25 * much * (age - 54) / 36 + 0.1 * much * rng.standard_normal())),
        spots=np.hstack([direction * far, radius]).astype(np.float32),
        lesions=rng.permutation(half),
        border=config.border * (1 if rng.random() < 0.5 else -1),
    )


def _places(size: int, rng: Random) -> Floats:
    """Where every voxel of one volume lies, (3, D, H, W) in -1…1: the head is never put in the same way twice."""
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    place = np.stack(np.meshgrid(line, line, line, indexing="ij"))
    turn = 0.05 * rng.standard_normal(3)
    x, y, z = turn
    small = np.eye(3) + np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])  # a rotation, to first order
    shift = 0.03 * rng.standard_normal((3, 1, 1, 1))
    stretch = np.stack([_waves(rng, 1.0)(place) for _ in range(3)])
    moved: Floats = (np.tensordot(small, place, axes=1) + shift + 0.015 * stretch).astype(np.float32)
    return moved


def _drawn(who: _Subject, place: Floats) -> tuple[Labels, Labels]:
    """What shows at each place (tissues, spots all alike as lesions), and what the label map says."""
    bent = place + who.bent * np.stack([bend(place) for bend in who.bend])
    inside: Floats = (bent / who.radii[:, None, None, None]).astype(np.float32)
    far, folds = np.sqrt((inside**2).sum(axis=0)), who.folds(inside)
    spots = [((inside - spot[:3, None, None, None]) ** 2).sum(axis=0) < spot[3] ** 2 for spot in who.spots]
    shows, says = (_tissues(who, inside, far, folds, border) for border in (0.0, who.border))
    solid = (shows == _GREY) | (shows == _WHITE)
    for spot, lesion in zip(spots, who.lesions, strict=True):
        here = spot & solid
        shows[here] = _LESION
        if lesion:
            says[here] = _LESION
    return shows, says


def _tissues(who: _Subject, inside: Floats, far: Floats, folds: Floats, border: float) -> Labels:
    tissue = np.zeros(far.shape, np.uint8)
    tissue[far < 1] = _FLUID
    tissue[far < 0.86 + 0.02 * folds] = _GREY
    tissue[far < 0.62 + 0.05 * folds + border] = _WHITE
    side = np.abs(inside[0])
    deep = (side - 0.30) ** 2 + (inside[1] - 0.05) ** 2 + (inside[2] + 0.10) ** 2 < 0.15**2
    tissue[deep] = _GREY
    ventricle = np.array([0.10, 0.32, 0.15]) * who.ventricle
    hollow = [(side - 0.14), inside[1] + 0.05, inside[2] - 0.05]
    tissue[sum((c / r) ** 2 for c, r in zip(hollow, ventricle, strict=True)) < 1] = _FLUID
    return tissue


@dataclass(frozen=True)
class _Scanner:
    signal: Floats  # (5,) of each tissue
    bias: float
    blur: float  # standard deviation in voxels
    noise: float


def _scanner(config: PhantomBrain, number: int) -> _Scanner:
    rng, much = _stream(config, "scanner", number), config.scanner_appearance
    signal = np.array([0.02, 0.25, 0.60, 0.90, 0.42]) + 0.05 * much * rng.standard_normal(5)
    bias, blur, noise = rng.random(3)
    return _Scanner(
        signal=np.clip(signal, 0.01, None).astype(np.float32),
        bias=0.10 + 0.20 * much * bias,
        blur=0.3 + 0.3 * much * blur,
        noise=0.02 + 0.03 * much * noise,
    )


def _scanned(tissue: Labels, scanner: _Scanner, rng: Random) -> Floats:
    """The signal: blurred tissues under a smooth bias field, as a magnitude with Rician noise."""
    signal = gaussian_filter(scanner.signal[tissue], scanner.blur)
    line = np.linspace(-1, 1, len(tissue), dtype=np.float32)
    field = _waves(rng, 0.5)(np.stack(np.meshgrid(line, line, line, indexing="ij")))
    real, imaginary = scanner.noise * rng.standard_normal((2, *tissue.shape), np.float32)
    magnitude: Floats = np.hypot(signal * np.exp(scanner.bias * field) + real, imaginary)
    return magnitude


def _shown(signal: Floats, dtype: str) -> npt.NDArray[np.uint8] | Floats:
    shown: Floats = np.clip(signal / _BRIGHT, 0, 1)
    byte: npt.NDArray[np.uint8] = (shown * 255).round().astype(np.uint8)
    return byte if dtype == "uint8" else shown * 2 - 1

"""Plant changed copies of real images under other patients: how many are found, and what else is taken for a twin?

    FEDUNLEARN_DATA=… python benchmarks/twins.py              # real sets, some minutes
    FEDUNLEARN_DATA=… python benchmarks/twins.py --show FILE  # and a PNG of the likest pairs that were not planted
    python benchmarks/twins.py --speed                        # 50,000 images of 64x64 and of 128x128, on one core

Of every set, 300 images are drawn; each change of theirs is added under patients of its own, and all images are
searched as `check` searches them. A cell is the share of copies paired with their originals; in brackets, further
pairs that were not planted. Sets whose patients are unknown (MedMNIST) count every image as a patient's:
their other pairs are to be looked at. Mirrored and inverted copies are no twins, so none should be found. Speed is
that of images that vary around one shape: all of them have as many candidates as they may have.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from threadpoolctl import threadpool_limits

from sites.collection import Collection
from sites.phantom_brain import PhantomBrain
from sites.phantom_cells import PhantomCells
from sites.pixels import resized
from sites.twins import APART, fingerprints, twins

Array = np.ndarray[Any, Any]
PLANTED = 300
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Set:
    """Images (N, C, *spatial) uint8 and whose they are."""

    name: str
    pixels: Array
    patients: Array


# ------------------------------------------------------------------------------------------------ changes


def jpeg(quality: int) -> Callable[[Array], Array]:
    """Each plane compressed; colours as one picture."""

    def plane(image: Array) -> Array:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    def change(image: Array) -> Array:
        if image.shape[0] == 3:
            return np.moveaxis(plane(np.moveaxis(image, 0, -1)), -1, 0)
        planes = image.reshape(-1, *image.shape[-2:])
        return np.stack([plane(each) for each in planes]).reshape(image.shape)

    return change


def stretched(image: Array, shape: tuple[int, ...]) -> Array:
    """Of another shape, channels kept."""
    by = [there / here for there, here in zip(shape, image.shape[1:], strict=True)]
    made = [ndimage.zoom(c.astype(np.float32), by, order=1, mode="nearest", grid_mode=True) for c in image]
    return rounded(np.stack(made))


def through(share: float) -> Callable[[Array], Array]:
    """Resized to a share of every edge, and back."""

    def change(image: Array) -> Array:
        smaller = stretched(image, tuple(round(share * edge) for edge in image.shape[1:]))
        return stretched(smaller, image.shape[1:])

    return change


def cropped(first: int, last: int) -> Callable[[Array], Array]:
    """Without so many pixels at every edge, and resized to what it was."""

    def change(image: Array) -> Array:
        inside = tuple(slice(first, edge - last) for edge in image.shape[1:])
        return stretched(image[(slice(None), *inside)], image.shape[1:])

    return change


def scaled(gain: float, about: float = 0) -> Callable[[Array], Array]:
    return lambda image: rounded((image.astype(np.float32) - about) * gain + about)


def rounded(image: Array) -> Array:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


CHANGES: Mapping[str, Callable[[Array], Array]] = {
    "JPEG, quality 95": jpeg(95),
    "JPEG, quality 75": jpeg(75),
    "JPEG, quality 60": jpeg(60),
    "resized to 75 % and back": through(0.75),
    "resized to 50 % and back": through(0.5),
    "5 % brighter": scaled(1.05),
    "5 % darker": scaled(0.95),
    "10 % more contrast": scaled(1.1, 128),
    "1 pixel cropped at one side": cropped(1, 0),
    "1 pixel cropped all round": cropped(1, 1),
    "mirrored (no twin)": lambda image: image[..., ::-1],
    "inverted (no twin)": lambda image: 255 - image,
}


# --------------------------------------------------------------------------------------------------- sets


def sets(root: Path) -> Iterator[Set]:
    xrays = np.load(root / "nih_cxr1000_128.npz")
    pixels, owners = (
        np.concatenate([xrays[f"{s}_{key}"] for s in SPLITS]) for key in ("images", "patient_id")
    )
    for edge in (128, 64, 32):
        yield Set(f"chest X-rays, {edge}x{edge}", resized(pixels[:, None], edge), owners)
    for name in ("pneumoniamnist", "breastmnist"):
        pixels = np.concatenate([np.load(root / f"{name}.npz")[f"{s}_images"] for s in SPLITS])[:, None]
        yield Set(f"{name}, 28x28", pixels, np.arange(len(pixels)))
    volumes = np.load(root / "hippocampus260_48x64x48.npz")
    pixels = np.concatenate([volumes[f"{s}_images"] for s in SPLITS])[:, None]
    yield Set("hippocampus, 48x64x48", pixels, np.arange(len(pixels)))
    for made in (PhantomCells(images=3000).load(root), PhantomBrain().load(root)):
        shape = "x".join(map(str, made.pixels.shape[2:]))
        what = "cells" if made.pixels.ndim == 4 else "heads"
        pixels = made.pixels
        if pixels.dtype != np.uint8:
            pixels = rounded(127.5 * (pixels + 1))
        yield Set(f"drawn {what}, {shape}", pixels, np.arange(len(pixels)))


def searched(pixels: Array, patients: Array) -> dict[str, set[tuple[int, int]]]:
    """Pairs of rows by kind."""
    table = pd.DataFrame({"image": map(str, range(len(pixels))), "patient": [str(p) for p in patients]})
    found = twins(Collection(pixels, np.zeros(len(pixels), np.int64), table, 1, synthetic_patients=False))
    pairs: dict[str, set[tuple[int, int]]] = {"exact": set(), "near": set()}
    for group in found:
        pairs[group.kind] |= {(a, b) for a in group.rows for b in group.rows if a < b}
    return pairs


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in one set.

    Attributes:
        near: pairs of different patients before anything was planted.
        cells: by change, the share of copies that were found, in percent, and further pairs that were not planted.
    """

    near: set[tuple[int, int]]
    cells: Mapping[str, str]


def measure(of: Set) -> Found:
    count, rng = len(of.pixels), np.random.default_rng(0)
    before = searched(of.pixels, of.patients)
    known = before["exact"] | before["near"]
    picked = np.sort(rng.choice(count, min(count, PLANTED), replace=False))
    patients = [*map(str, of.patients), *(f"planted {row}" for row in picked)]
    own = {(int(row), count + place) for place, row in enumerate(picked)}
    cells = {
        "images": str(count),
        "pairs before": f"{len(before['exact'])} exact, {len(before['near'])} near",
    }
    for name, change in CHANGES.items():
        copies = np.stack([change(image) for image in of.pixels[picked]])
        pairs = searched(np.concatenate([of.pixels, copies]), np.array(patients))
        every = pairs["exact"] | pairs["near"]
        others = sum(b < count for _, b in every) - len(known)
        cells[name] = f"{100 * len(every & own) / len(own):.0f} %" + (f" ({others:+d})" if others else "")
    return Found(before["near"], cells)


def show(file: Path, of: Sequence[tuple[Set, Found]]) -> None:
    """Of each set of pictures, eight pairs that were taken for twins and eight that just were not."""
    rows = []
    for each, found in of:
        if each.pixels.ndim != 4:
            continue
        owners = np.unique(each.patients, return_inverse=True)[1]
        every = fingerprints(each.pixels, np.arange(len(each.pixels))).pairs(owners, most=0.2)
        likest = sorted((apart, a, b) for a, b, apart in every)
        pairs = [(a, b) for apart, a, b in likest if apart > APART][:8]
        for some in (sorted(found.near)[:8], pairs):
            tiles = [resized(each.pixels[[row]], 64)[0, :1].mean(axis=0) for pair in some for row in pair]
            rows.append(np.hstack([*tiles, np.zeros((64, 64 * (16 - len(tiles))))]))
    Image.fromarray(np.vstack(rows).astype(np.uint8)).save(file)


def table(of: Sequence[tuple[Set, Found]]) -> None:
    print(f"| copies | {' | '.join(each.name for each, _ in of)} |")
    print(f"|{'---|' * (1 + len(of))}")
    for name in of[0][1].cells:
        print(f"| {name} | {' | '.join(found.cells[name] for _, found in of)} |")


# -------------------------------------------------------------------------------------------------- speed


def smooth(rng: np.random.Generator, edge: int) -> Array:
    coarse = ndimage.zoom(
        rng.normal(size=(8, 8)).astype(np.float32), edge // 8, order=1, mode="nearest", grid_mode=True
    )
    return coarse / coarse.std()


def speed(count: int, edge: int) -> None:
    rng = np.random.default_rng(0)
    common, pixels = smooth(rng, edge), np.empty((count, 1, edge, edge), np.uint8)
    for row in range(count):
        pixels[row, 0] = rounded(128 + 40 * common + 15 * smooth(rng, edge) + rng.normal(0, 4, (edge, edge)))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    pairs = searched(pixels, np.arange(count))
    seconds = time.process_time() - began
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 2**10
    print(f"{count} images of {edge}x{edge}: {seconds:.0f} s of CPU time, {more:.0f} MB beside the images "
          f"({pixels.nbytes / 2**20:.0f} MB), {len(pairs['near'])} near pairs", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Planted copies under other patients: how many are found.")
    parser.add_argument("--show", type=Path, help="a PNG of the likest pairs")
    parser.add_argument("--speed", action="store_true", help="measure time and memory instead")
    asked = parser.parse_args()
    if asked.speed:
        with threadpool_limits(1):
            for edge in (64, 128):
                speed(50_000, edge)
        return
    found = [(each, measure(each)) for each in sets(Path(os.environ["FEDUNLEARN_DATA"]))]
    table(found)
    if asked.show:
        show(asked.show, found)


if __name__ == "__main__":
    main()

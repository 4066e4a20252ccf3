"""`medmnist`: the MedMNIST collections (Yang et al. 2023), every 2D and 3D set."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Lt

from fedunlearn.core import InputError, Problem, derive
from fedunlearn.kinds.multilabel.held import rarest
from sites import findings
from sites.collection import Collection
from sites.pixels import channels_first, ranges
from sites.watching import Watch, unwatched

Ints = npt.NDArray[np.int64]

_TIMEOUT = 30.0  # seconds without a byte from the server


@dataclass(frozen=True, kw_only=True)
class MedMNIST:
    """Small real medical images of one MedMNIST set; the file is downloaded if it is not there.

    The official train, val and test images are pooled, since splits are made by patient here. The sets tell no
    patients: images of one class, drawn at random, are grouped into made-up ones, always the same, across the official
    parts. To keep these, read the file with `npz`, where each image is a patient, and ``split: {from: split}``. Where
    an image has several findings (chestmnist), the one that fewest images have counts as its class there.

    Attributes:
        set: the set's name, such as bloodmnist or organmnist3d.
        size: edge of the images in pixels; 3D sets have 28 and 64.
        images: use only so many, with the classes as frequent as in the set; None for all.
        images_per_patient: how many of each made-up patient, as nearly as the classes allow.
        label_noise: share of images whose label is replaced by another, of several findings one by its opposite
            (column ``difficulty``: hard): a network can only know them by heart, so that memory can be seen on sets
            that are too easy.
    """

    name: Literal["medmnist"] = "medmnist"
    set: str
    size: Literal[28, 64, 128, 224] = 28
    images: Annotated[int, Ge(1)] | None = None
    images_per_patient: Annotated[int, Ge(1)] = 8
    label_noise: Annotated[float, Ge(0), Lt(1)] = 0.0

    def _problems(self, root: Path) -> list[Problem]:
        """A set or size that does not exist; a file that is damaged, or missing and cannot be downloaded.

        Args:
            root: where the file is, or is put.
        """
        sets = _sets()
        if self.set not in sets:
            near = difflib.get_close_matches(self.set.casefold(), sets, n=1)
            meant = f", did you mean {near[0]!r}?" if near else ""
            expected = ", ".join(sorted(sets))
            return [Problem(f"medmnist: found no set {self.set!r}{meant}; expected one of {expected}")]
        info = sets[self.set]
        found = []
        if f"MD5{_suffix(self.size)}" not in info:
            found.append(
                Problem(f"medmnist: {self.set} has no size {self.size}, expected 28 or 64: change size")
            )
        available = sum(info["n_samples"].values())
        if self.images is not None and not len(info["label"]) <= self.images <= available:
            expected = f"{len(info['label'])} (its classes) to {available}"
            found.append(
                Problem(f"medmnist: found images: {self.images}, expected {expected} for {self.set}")
            )
        return found or _file_problems(root, self.set, self.size, info)

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read the file; see `Source.load`."""
        if problems := self._problems(root):
            raise InputError(problems)
        info = _sets()[self.set]
        with np.load(root / f"{self.set}{_suffix(self.size)}.npz", allow_pickle=False) as file:
            parts = [(p, file[f"{p}_images"], file[f"{p}_labels"]) for p in ("train", "val", "test")]
        ids = np.concatenate([[f"{p}-{i:06d}" for i in range(len(labels))] for p, _, labels in parts])
        pixels = channels_first(np.concatenate([images for _, images, _ in parts]))
        labels, several = np.concatenate([labels for _, _, labels in parts]), _several(info)
        labels = labels.astype(np.uint8) if several else labels.reshape(-1).astype(np.int64)
        if self.images is not None:
            rows = _subset(_classes(labels), self.images, self._rng("images"))
            ids, pixels, labels = ids[rows], pixels[rows], labels[rows]
        patient = _groups(_classes(labels), self.images_per_patient, self._rng("patients"))
        table = pd.DataFrame({"image": ids, "patient": [f"p-{p:05d}" for p in patient]})
        note = f"{len(labels)} images of {self.set}, MedMNIST v2 (Yang et al. 2023, {info['license']}); "
        note += "patients are made up."
        names = tuple(info["label"][str(number)] for number in range(len(info["label"])))
        classes = findings.CLASSES if several else len(names)
        if self.label_noise:
            labels, noisy = _noisy(labels, patient, len(names), self.label_noise, self._rng("noise"))
            table["difficulty"] = np.where(noisy, "hard", "easy")
            note += f" {int(noisy.sum())} labels were replaced by wrong ones."
        return Collection(
            pixels=pixels,
            targets=labels,
            table=table,
            classes=classes,
            synthetic_patients=True,
            kind="multilabel" if several else "classification",
            note=note,
            names=names,
            seen=ranges(pixels, "NPZ"),
        )

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(derive(0, "medmnist", self.set, purpose))


def _several(info: Mapping[str, Any]) -> bool:
    """Whether an image of a set can have several findings."""
    return "multi-label" in info["task"]


def _classes(labels: npt.NDArray[Any]) -> Ints:
    """(N,) the class of each image, or its rarest finding."""
    return labels if labels.ndim == 1 else rarest(labels)


def _sets() -> dict[str, dict[str, Any]]:
    """The table of sets of the installed medmnist package, read as text.

    Importing the package takes seconds (torch, scikit-learn), makes a folder in the user's home, and may print.
    """
    spec = importlib.util.find_spec("medmnist")
    if spec is None or spec.origin is None:
        raise InputError("found no package medmnist, expected 3.0 or newer: pip install medmnist")
    tree = ast.parse((Path(spec.origin).parent / "info.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "INFO" for t in node.targets
        ):
            sets: dict[str, dict[str, Any]] = ast.literal_eval(node.value)
            return sets
    raise InputError(
        "found no table INFO in medmnist/info.py, expected the one of medmnist 3.0: install that version"
    )


def _suffix(size: int) -> str:
    """What file names and keys of the table end in."""
    return "" if size == 28 else f"_{size}"


def _file_problems(root: Path, name: str, size: int, info: dict[str, Any]) -> list[Problem]:
    file, md5 = root / f"{name}{_suffix(size)}.npz", info[f"MD5{_suffix(size)}"]
    try:
        if not file.exists():
            _download(info[f"url{_suffix(size)}"], file)
    except (urllib.error.URLError, OSError) as error:
        message = (
            f"medmnist: found no file {file.name} in {root}, and downloading {info[f'url{_suffix(size)}']} failed "
            f"({error}): put the file with MD5 {md5} into {root}, or give its folder as --data-root"
        )
        return [Problem(message)]
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "md5").hexdigest()
    if found != md5:
        message = (
            f"medmnist: {file} is damaged: found MD5 {found}, expected {md5}: delete it and get it again"
        )
        return [Problem(message)]
    return []


def _download(url: str, file: Path) -> None:
    """Fetch ``url``; ``file`` appears only when it is complete, and a failure leaves nothing behind."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        try:
            with partial.open("wb") as out:
                shutil.copyfileobj(answer, out)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


def _subset(labels: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Rows of ``count`` images, in order, every class as frequent as in ``labels`` and present."""
    classes, have = np.unique(labels, return_counts=True)
    exact = have * (count / len(labels))
    quota = np.maximum(1, np.floor(exact).astype(np.int64))
    while quota.sum() != count:
        step = 1 if quota.sum() < count else -1
        # The class furthest from its share gives or takes one; none is emptied.
        lack = np.where(quota + step >= 1, step * (exact - quota), -np.inf)
        quota[lack.argmax()] += step
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen))


def _groups(labels: Ints, size: int, rng: np.random.Generator) -> Ints:
    """A made-up patient for each image: random images of one class, about ``size`` of them."""
    patient, made = np.empty(len(labels), dtype=np.int64), 0
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = max(1, round(len(rows) / size))
        patient[rows] = made + np.arange(len(rows)) * count // len(rows)
        made += count
    return rng.permutation(made)[patient]  # or else ids would tell the class


def _noisy(
    labels: npt.NDArray[Any], patient: Ints, names: int, share: float, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Replace a share of the labels by others, of several findings one by its opposite, of every patient about as many.

    Args:
        labels: (N,) classes or (N, F) findings.
        patient: (N,) whose they are.
        names: how many classes or findings there are.
        share: of the images.
        rng: decides.
    """
    order = np.lexsort((rng.random(len(labels)), patient))
    noisy = np.zeros(len(labels), dtype=bool)
    noisy[order] = np.diff(np.floor(np.arange(len(labels) + 1) * share + 0.5)) > 0
    if labels.ndim == 1:
        return np.where(noisy, (labels + rng.integers(1, names, len(labels))) % names, labels), noisy
    other = np.eye(names, dtype=labels.dtype)[rng.integers(0, names, len(labels))]
    return np.where(noisy[:, None], labels ^ other, labels), noisy

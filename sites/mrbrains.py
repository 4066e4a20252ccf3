"""`mrbrains`: the brains of MRBrainS18 (Kuijf et al.), from a copy of your own, in its own folder layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from fedunlearn.core import IGNORED, InputError, Problem
from sites.collection import SEEN, Collection
from sites.formats.nifti import Handling, Pair
from sites.formats.volumes import Edge, Millimetres, Stored, examine, store
from sites.identity import settled, tidied
from sites.watching import Watch, unwatched

PARTS = ("training", "test")
CLASSES = {
    "eight": (0, 1, 2, 3, 4, 5, 6, 7, 8, IGNORED, IGNORED),
    "three": (0, 2, 2, 3, 3, 1, 1, 0, 0, IGNORED, IGNORED),
}
"""The class of each label 0…10; the challenge leaves the last two out of its scores."""

_NAMES = {
    "eight": "1 cortical grey matter, 2 basal ganglia, 3 white matter, 4 white matter lesions, "
    "5 extracerebral CSF, 6 ventricles, 7 cerebellum, 8 brain stem",
    "three": "1 CSF, 2 grey matter, 3 white matter",
}


@dataclass(frozen=True, kw_only=True)
class MRBrainS:
    """Brain MRI with label maps of MRBrainS18 (doi 10.34894/E0U32Q), whose licence does not let us pass it on.

    The folder has ``training/ID/pre/FLAIR.nii.gz``, ``reg_T1.nii.gz`` and ``reg_IR.nii.gz`` there, on the FLAIR's
    grid, and ``training/ID/segm.nii.gz``; the same under ``test`` where that was released. Where there is no ``reg_``
    file, the one without it is taken, and refused if it lies on another grid. Volumes are made alike as
    `sites.formats.nifti.Handling` tells.

    Labels 9 (infarction) and 10 (other) are `IGNORED`, as the challenge leaves these voxels out of its scores.
    Each folder ID is a patient. No more than 30, and no hospitals: fewer, in ``training`` alone, suffice for one.

    Attributes:
        path: the folder, relative to the data root.
        classes: the eight structures; or three tissues: 1 CSF (labels 5, 6), 2 grey (1, 2), 3 white matter (3, 4),
            cerebellum and brain stem being background, as in MRBrainS13.
        images: the scans to take, each a channel.
        shape: edges in voxels to the right, to the front and up; None for as they are.
        spacing: edges of a voxel in millimetres; None for as they are (0.958, 0.958, 3).
        dtype: uint8 in 0…255, or float32 in -1…1.
    """

    name: Literal["mrbrains"] = "mrbrains"
    path: str = "MRBrainS18"
    classes: Literal["eight", "three"] = "eight"
    images: tuple[Literal["T1", "FLAIR", "IR"], ...] = ("T1",)
    shape: tuple[Edge, Edge, Edge] | None = None
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    dtype: Literal["uint8", "float32"] = "uint8"

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read all files; see `Source.load`."""
        found = self._stored(root, watch)
        if isinstance(found, list):
            raise InputError(found)
        names = settled("patient", [subject.name for subject in self._subjects(root)])
        return Collection(
            pixels=found.pixels,
            targets=found.targets,
            table=pd.DataFrame({"image": names.ids, "patient": names.ids}),
            classes=found.classes,
            synthetic_patients=False,
            kind="segmentation",
            note=f"{len(names.ids)} brains of MRBrainS18 ({', '.join(self.images)}). Labels: {_NAMES[self.classes]}; "
            "voxels labelled 9 infarction or 10 other are ignored, all others count as background.",
            notes=(*names.notes, *found.notes),
            seen=pd.DataFrame(found.seen, columns=[*SEEN]),
        )

    def _subjects(self, root: Path) -> list[Path]:
        folders = [folder for part in PARTS for folder in (root / self.path / part).glob("*/")]
        return sorted(folders, key=lambda folder: (len(folder.name), folder.name))

    def _stored(self, root: Path, watch: Watch) -> Stored | list[Problem]:
        """The volumes, or all problems."""
        problems, pairs = self._missing(root), list[Pair]()
        for subject in self._subjects(root):
            pair = Pair(tuple(_image(subject, image) for image in self.images), subject / "segm.nii.gz")
            if pair.images and all(file.is_file() for file in (*pair.images, pair.label_map)):
                pairs.append(pair)
        how = Handling(self.shape, self.spacing, self.dtype, CLASSES[self.classes])
        found = examine(pairs, how, watch) if problems else store(pairs, how, watch)
        if isinstance(found, Stored):
            return found
        return problems + [Problem(f"mrbrains: {bad.file} {bad.message}") for bad in found]

    def _missing(self, root: Path) -> list[Problem]:
        subjects = self._subjects(root)
        if not self.images or len(set(self.images)) < len(self.images):
            return [Problem(f"mrbrains: found images: {[*self.images]}, expected one or more, each once")]
        if not subjects:
            place = root / self.path / PARTS[0]
            return [
                Problem(
                    f"mrbrains: found no folder of a subject in {place}: get MRBrainS18 (doi 10.34894/E0U32Q), put it "
                    "there, or give its parent folder as --data-root"
                )
            ]
        ids = [tidied(subject.name) for subject in subjects]
        problems = [
            Problem(f"mrbrains: subject {name} is in training and test, expected it once")
            for name in sorted({name for name in ids if ids.count(name) > 1})
        ]
        wanted = [
            file
            for subject in subjects
            for file in (*(_image(subject, image) for image in self.images), subject / "segm.nii.gz")
        ]
        problems += [Problem(f"mrbrains: found no file {file}") for file in wanted if not file.is_file()]
        return problems


def _image(subject: Path, image: str) -> Path:
    """The scan that lies on the label map's grid."""
    registered = subject / "pre" / f"reg_{image}.nii.gz"
    return registered if registered.is_file() else subject / "pre" / f"{image}.nii.gz"

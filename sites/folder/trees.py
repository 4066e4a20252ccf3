"""The images below a folder, told by names: what is no image is left out, label maps go with theirs."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedunlearn.core import InputError
from sites.formats.series import volume_in
from sites.identity import listed

_NO_IMAGES = frozenset(
    (
        *(
            "thumbs.db",
            "desktop.ini",
            "dicomdir",
            ".txt",
            ".csv",
            ".tsv",
            ".json",
            ".xml",
            ".md",
            ".pdf",
            ".xls",
        ),
        *(
            ".xlsx",
            ".ods",
            ".doc",
            ".docx",
            ".html",
            ".htm",
            ".log",
            ".yaml",
            ".yml",
            ".zip",
            ".gz",
            ".py",
            ".parquet",
        ),
        *(".db", ".ini", ".md5", ".sha256", ".bval", ".bvec", ".mat", ".r", ".ipynb", ".lnk"),
    )
)
_MAP = re.compile(
    r"^(.*?)(?:^|[_\-. ])(seg|segm|segmentation|mask|label|labels|labelmap|groundtruth|gt)(?:[_-]?\d+)?$",
    re.IGNORECASE,
)
_FORMATS = (".nii.gz",)


@dataclass(frozen=True)
class Tree:
    """The images of a folder.

    Attributes:
        files: relative to it, sorted; no hidden ones, and none that are known to be no images.
        series: those that are folders of DICOM slices.
        maps: the label maps of images, by these; images and maps are not among each other.
        loose: label maps beside which there is no image, or more than one.
        notes: what was left out.
    """

    files: tuple[PurePosixPath, ...]
    series: frozenset[PurePosixPath]
    maps: dict[PurePosixPath, PurePosixPath]
    loose: tuple[PurePosixPath, ...]
    notes: tuple[str, ...]


def tree_of(folder: Path) -> Tree:
    """What is below a folder.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"folder: found no folder {folder}: put it there or give its parent as --data-root")
    files, left, links = list[PurePosixPath](), Counter[str](), list[str]()
    for place, folders, names in os.walk(folder):
        links += [os.path.join(place, one) for one in folders if os.path.islink(os.path.join(place, one))]
        folders[:] = sorted(one for one in folders if not _hidden(one))
        for name in names:
            kind = suffix(name).lower()
            if _hidden(name) or name.lower() in _NO_IMAGES or kind in _NO_IMAGES:
                left["hidden files" if _hidden(name) else kind or name] += 1
            else:
                files.append(PurePosixPath(os.path.relpath(os.path.join(place, name), folder)))
    notes = (
        [f"left out as no images: {', '.join(f'{n:,} {kind}' for kind, n in sorted(left.items()))}"]
        if left
        else []
    )
    if links:
        notes.append(f"linked folders are not entered: {listed(links)}")
    series, mixed = _series(folder, files)
    if mixed:
        notes.append(
            f"{len(mixed):,} folders, such as {str(mixed[0])!r}, hold slices of several DICOM series, or other files "
            "beside them: every slice is an image of its own; give each series a folder if it is meant as a volume"
        )
    if series:
        notes.append(
            f"{len(series):,} folders of DICOM slices, such as {str(series[0])!r}, are read as one volume each"
        )
    files = [*series, *(file for file in files if file.parent not in series)]
    maps, loose = _paired(sorted(files))
    taken = {*maps.values(), *loose}
    images = tuple(file for file in sorted(files) if file not in taken)
    if not images:
        raise InputError(f"folder: found no images in {folder}, expected some below it")
    return Tree(images, frozenset(series), maps, loose, tuple(notes))


def _series(folder: Path, files: Sequence[PurePosixPath]) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Folders whose files are the slices of one DICOM volume, and those that have slices among others; sorted."""
    by_folder = defaultdict[PurePosixPath, list[Path]](list)
    for file in files:
        by_folder[file.parent].append(folder / file)
    several = {place: volume_in(beside) for place, beside in by_folder.items() if len(beside) > 1}
    whole = sorted(place for place, what in several.items() if what == "whole" and place.parts)
    return whole, sorted(place for place, what in several.items() if what == "mixed")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def suffix(name: str) -> str:
    """The ending of a file's name that tells its format."""
    return next((one for one in _FORMATS if name.lower().endswith(one)), PurePosixPath(name).suffix)


def stem(file: PurePosixPath) -> str:
    """The name of a file without its ending."""
    return file.name[: len(file.name) - len(suffix(file.name))]


def _paired(
    files: Sequence[PurePosixPath],
) -> tuple[dict[PurePosixPath, PurePosixPath], tuple[PurePosixPath, ...]]:
    """Images with their label maps: the image of the same name without the ending, or the only one beside it."""
    by_folder = defaultdict[PurePosixPath, list[PurePosixPath]](list)
    for file in files:
        by_folder[file.parent].append(file)
    maps, loose = dict[PurePosixPath, PurePosixPath](), list[PurePosixPath]()
    for beside in by_folder.values():
        named = {file: match[1] for file in beside if (match := _MAP.match(stem(file)))}
        images = [file for file in beside if file not in named]
        for file, base in named.items():
            same = [image for image in images if base and stem(image) == base]
            chosen = same or (images if len(named) == 1 else [])
            if len(chosen) == 1 and chosen[0] not in maps:
                maps[chosen[0]] = file
            elif same or images:
                loose.append(file)
    return maps, tuple(loose)

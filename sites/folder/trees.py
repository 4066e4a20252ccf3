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
        *(
            ".rtf",
            ".odt",
            ".pptx",
            ".avi",
            ".mp4",
            ".mov",
            ".bak",
            ".tmp",
            ".svg",
            ".sh",
            ".exe",
            ".tar",
            ".7z",
            ".rar",
        ),
        *(".db", ".ini", ".md5", ".sha256", ".bval", ".bvec", ".mat", ".r", ".ipynb", ".lnk"),
    )
)
_WORD = r"(?:seg|segm|segmentation|mask|label|labels|labelmap|groundtruth|gt|manual|annotation)"
_MAP = re.compile(rf"^(.*?)(?:^|[_\-. ]){_WORD}(?:[_-]?\d+)?$", re.IGNORECASE)
_MAP_IN_FRONT = re.compile(rf"^{_WORD}[_\-. ](.+)$", re.IGNORECASE)
_MAPS = re.compile(rf"^(?:{_WORD}s?|ground[_\- ]?truth)(?:tr|ts|train|val|test)?$", re.IGNORECASE)
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
        what = f"{folder}, which is a file: expected a folder" if folder.exists() else f"no folder {folder}"
        raise InputError(
            f"folder: found {what}; --data-root tells where data files are: relative paths in scenarios start there, "
            "all others at the current folder"
        )
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
    if odd := [file for file in files if not _in_utf8(file)]:
        shown = os.fsencode(odd[0]).decode("utf-8", errors="replace")
        raise InputError(
            f"folder: found {len(odd):,} names in {folder} that are not in UTF-8, such as {shown!r}: rename them, for "
            "example with convmv -f latin1 -t utf8 -r --notest FOLDER"
        )
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


def _in_utf8(file: PurePosixPath) -> bool:
    """Whether its name is text, as another system, or an old archive, may not have written it."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True


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
    maps, loose = _of_other_folders(files)
    taken = {*maps.values(), *loose}
    by_folder = defaultdict[PurePosixPath, list[PurePosixPath]](list)
    for file in files:
        if file not in taken:
            by_folder[file.parent].append(file)
    for beside in by_folder.values():
        named = {file: base for file in beside if (base := _base(file)) is not None}
        images = [file for file in beside if file not in named]
        for file, base in named.items():
            same = [image for image in images if base and stem(image) == base]
            chosen = same or (images if len(named) == 1 else [])
            if len(chosen) == 1 and chosen[0] not in maps:
                maps[chosen[0]] = file
            elif same or images:
                loose.append(file)
    return maps, tuple(loose)


def _base(file: PurePosixPath) -> str | None:
    """The name of the image that a label map is called after; None if it is not called like one."""
    match = _MAP.match(stem(file)) or _MAP_IN_FRONT.match(stem(file))
    return match[1] if match else None


def _of_other_folders(
    files: Sequence[PurePosixPath],
) -> tuple[dict[PurePosixPath, PurePosixPath], list[PurePosixPath]]:
    """Label maps in folders called so (masks, labelsTr) with the images of the same names in the folders beside these.

    nnU-Net adds _0000 to the names of images. Where no folder beside holds any image, they may be images themselves.
    """
    around = defaultdict[PurePosixPath, list[PurePosixPath]](list)
    for file in files:
        if len(file.parts) > 1 and not _MAPS.match(file.parent.name):
            around[file.parent.parent].append(file)
            around[file.parent].append(file)
    maps, loose = dict[PurePosixPath, PurePosixPath](), list[PurePosixPath]()
    for file in files:
        if len(file.parts) > 1 and _MAPS.match(file.parent.name) and (images := around[file.parent.parent]):
            called = {stem(file), _base(file) or stem(file)}
            same = [image for image in images if stem(image).removesuffix("_0000") in called]
            if len(same) == 1 and same[0] not in maps:
                maps[same[0]] = file
            else:
                loose.append(file)
    return maps, loose

"""Volumes with label maps as two memory-mapped arrays, made from NIfTI files once and then kept.

What is kept lies in a per-user cache (`$XDG_CACHE_HOME` or `~/.cache`, then `fedunlearn/volumes`) under a name that
depends on the content of all files and on every setting, so that it is never stale. An entry appears whole or not at
all, and any may be deleted at any time. It holds the checksums of its arrays, which are compared before they are used:
what was damaged on the disk is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt

from fedunlearn import files
from fedunlearn.core import IGNORED, RunError
from sites.arrays import write_header
from sites.formats.nifti import Bad, Handling, Pair, Volume, preparing
from sites.formats.picture import Seen, counted

Array = npt.NDArray[Any]
Edge = Annotated[int, Ge(4)]
Millimetres = Annotated[float, Gt(0)]
_Prepare = Callable[[int, Pair], Volume | list[Bad]]

_FORMAT = 4  # of what is kept; to be raised whenever the same files and settings give other arrays
_ARRAYS = ("pixels.npy", "targets.npy")
_ABOUT = "about.json"
_TRIES = 3  # for an entry that is damaged, or taken away by another process that found it so


@dataclass(frozen=True)
class Stored:
    """Volumes as memory-mapped arrays.

    Attributes:
        pixels: (N, C, D, H, W) uint8 or float32.
        targets: (N, D, H, W) uint8 label maps, `IGNORED` where no class counts.
        classes: number of classes, background included.
        seen: the rows of `Collection.seen`.
        notes: what `Collection.notes` should say of the files.
    """

    pixels: Array
    targets: npt.NDArray[np.uint8]
    classes: int
    seen: tuple[Seen, ...] = ()
    notes: tuple[str, ...] = ()


def store(pairs: Sequence[Pair], how: Handling) -> Stored | list[Bad]:
    """The volumes of all ``pairs``, kept from an earlier call or made now; or everything that is wrong with them.

    At no time is more than one volume in memory.

    Args:
        pairs: of files that exist.
        how: what is done to them.

    Raises:
        RunError: the cache cannot be written, or what it gives back is not what was written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedunlearn" / "volumes"
    try:
        entry = cache / _key(pairs, how)
    except OSError:  # of a file that cannot be opened: it is named
        if bad := examine(pairs, how):
            return bad
        raise
    for _ in range(_TRIES):
        if entry.exists():
            try:
                return _mapped(entry)
            except RunError:
                _discard(entry)  # and make it again: the files it was made from are there
        if bad := _kept(entry, pairs, how):
            return bad
    return _mapped(entry)


def _kept(entry: Path, pairs: Sequence[Pair], how: Handling) -> list[Bad]:
    """`_fill`, whose errors say what to do.

    Raises:
        RunError: the cache cannot be written.
    """
    prepare = preparing(how)
    try:
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            return _fill(entry, pairs, how, prepare)
        except OSError as error:
            raise RunError(files.unwritten(entry, error)) from error
    except RunError as error:
        advice = "make space there, or set XDG_CACHE_HOME to another folder"
        raise RunError(f"cannot keep prepared volumes: {error}: {advice}") from error


def examine(pairs: Sequence[Pair], how: Handling) -> list[Bad]:
    """Everything wrong with the single volumes; nothing is kept."""
    return _all(pairs, preparing(how), lambda volume: None)[0]


def _all(
    pairs: Sequence[Pair], prepare: _Prepare, keep: Callable[[Volume], None]
) -> tuple[list[Bad], dict[int, int]]:
    """Make all volumes, one by one, and give the good ones to ``keep``.

    Returns:
        All that is wrong; and for each label, the first volume that has it.
    """
    bad, shape, holder = list[Bad](), None, dict[int, int]()
    for number, pair in enumerate(pairs):
        with _one_thread():
            volume = prepare(number, pair)
        if isinstance(volume, list):
            bad += volume
            continue
        pixels, labels = volume.pixels, volume.labels
        shape = shape or pixels.shape
        if pixels.shape != shape:
            message = f"has the shape {pixels.shape[1:]}, but volumes before have {shape[1:]}: set shape"
            bad.append(Bad(number, pair.images[0], message, "another shape than before"))
            continue
        for label in {*np.unique(labels).tolist()} - {IGNORED}:
            holder.setdefault(label, number)
        keep(volume)
    return bad, holder


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in every worker: the bits depend on it, and where processes share cores, more threads are ten times slower."""
    import torch  # here, since it takes a second

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _gaps(pairs: Sequence[Pair], holder: dict[int, int]) -> list[Bad]:
    """Labels after a gap, each at the first volume that holds it; or no label at all."""
    first = next(label for label in range(len(holder) + 1) if label not in holder)
    if len(holder) < 2:
        message = "has one label only, as all others have: expected 0 and at least 1"
        return [Bad(0, pairs[0].label_map, message, "one label only")]
    advice = f"but no map has {first}: renumber, or set classes"
    return [
        Bad(n, pairs[n].label_map, f"has the label {label}, {advice}", "a label after a gap")
        for label, n in sorted(holder.items())
        if label > first
    ]


def _key(pairs: Sequence[Pair], how: Handling) -> str:
    digests = [[files.sha256(file) for file in (*pair.images, pair.label_map)] for pair in pairs]
    libraries = {name: version(name) for name in ("monai", "nibabel", "torch")}  # they decide the last bits
    about = {"format": _FORMAT, "how": asdict(how), "libraries": libraries, "files": digests}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _fill(entry: Path, pairs: Sequence[Pair], how: Handling, prepare: _Prepare) -> list[Bad]:
    """Make a cache entry; or tell what is wrong and leave nothing behind."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
    seen, notes = list[Seen](), list[tuple[str, ...]]()
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context((new / name).open("wb")) for name in _ARRAYS]

            def keep(volume: Volume) -> None:
                seen.append(volume.seen)
                notes.append(volume.notes)
                for name, file, array in zip(_ARRAYS, opened, (volume.pixels, volume.labels), strict=True):
                    try:
                        _append(file, array, len(pairs))
                    except OSError as error:
                        raise RunError(files.unwritten(entry / name, error)) from error

            bad, holder = _all(pairs, prepare, keep)
        if how.classes is None and not bad:
            bad = _gaps(pairs, holder)
        if not bad:
            classes = max({*(how.classes or holder)} - {IGNORED}) + 1
            about = {
                "classes": classes,
                "files": {name: files.sha256(new / name) for name in _ARRAYS},
                "seen": seen,
                "notes": counted(notes),
            }
            files.write(new / _ABOUT, files.sealed(about))
            _publish(new, entry)
        return bad
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _append(file: IO[bytes], array: Array, count: int) -> None:
    """Write one of ``count`` arrays of one shape, all the way to the disk's file system: a full one is met here."""
    if not file.tell():
        write_header(file, (count, *array.shape), array.dtype)
    file.write(np.ascontiguousarray(array).data)
    file.flush()


def _publish(new: Path, entry: Path) -> None:
    try:
        new.rename(entry)
    except OSError:
        if not entry.exists():  # else another process was faster, with the same arrays
            raise


def _discard(entry: Path) -> None:
    """Remove an entry in one step, so that nobody meets half of it; another process may have done so."""
    away = Path(tempfile.mkdtemp(prefix=".old-", dir=entry.parent))
    with suppress(OSError):
        entry.rename(away / entry.name)
    shutil.rmtree(away, ignore_errors=True)


def _mapped(entry: Path) -> Stored:
    """The arrays of an entry, which are what was once written.

    Raises:
        RunError: they are damaged or not there.
    """
    about = files.unsealed(entry / _ABOUT)
    try:
        for name in _ARRAYS:
            if (found := files.sha256(entry / name)) != about["files"][name]:
                recorded = about["files"][name]
                raise RunError(f"{entry / name} is damaged: found sha256 {found}, recorded was {recorded}")
        pixels, targets = (np.load(entry / name, mmap_mode="r", allow_pickle=False) for name in _ARRAYS)
    except OSError as error:
        raise RunError(f"cannot read prepared volumes in {entry}: {error}") from error
    seen = tuple((str(f), str(s), float(low), float(high), str(o)) for f, s, low, high, o in about["seen"])
    return Stored(pixels, targets, int(about["classes"]), seen, tuple(map(str, about["notes"])))

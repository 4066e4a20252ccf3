"""Volumes with label maps as two memory-mapped arrays, made from NIfTI files once and then kept.

What is kept lies in a per-user cache (`$XDG_CACHE_HOME` or `~/.cache`, then `fedunlearn/volumes`) under a name that
depends on the content of all files and on every setting, so that it is never stale. An entry appears whole or not at
all, and any may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt

from fedunlearn.core import IGNORED, InputError
from sites.arrays import write_header
from sites.nifti import Bad, Handling, Pair, preparing

Array = npt.NDArray[Any]
Edge = Annotated[int, Ge(4)]
Millimetres = Annotated[float, Gt(0)]

_FORMAT = 2  # of what is kept; to be raised whenever the same files and settings give other arrays


@dataclass(frozen=True)
class Stored:
    """Volumes as memory-mapped arrays.

    Attributes:
        pixels: (N, C, D, H, W) uint8 or float32.
        targets: (N, D, H, W) uint8 label maps, `IGNORED` where no class counts.
        classes: number of classes, background included.
    """

    pixels: Array
    targets: npt.NDArray[np.uint8]
    classes: int


def store(pairs: Sequence[Pair], how: Handling) -> Stored | list[Bad]:
    """The volumes of all ``pairs``, kept from an earlier call or made now; or everything that is wrong with them.

    At no time is more than one volume in memory.

    Args:
        pairs: of files that exist.
        how: what is done to them.

    Raises:
        InputError: the cache cannot be written, or what it holds was damaged.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedunlearn" / "volumes"
    entry = cache / _key(pairs, how)
    if not entry.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            if bad := _fill(entry, pairs, how):
                return bad
        except OSError as error:
            message = f"cannot keep prepared volumes in {cache} ({error})"
            raise InputError(
                f"{message}: make space there, or set XDG_CACHE_HOME to another folder"
            ) from error
    return _mapped(entry)


def examine(pairs: Sequence[Pair], how: Handling) -> list[Bad]:
    """Everything wrong with the single volumes; nothing is kept."""
    return _all(pairs, how, lambda pixels, labels: None)[0]


def _all(
    pairs: Sequence[Pair], how: Handling, keep: Callable[[Array, Array], None]
) -> tuple[list[Bad], dict[int, int]]:
    """Make all volumes, one by one, and give the good ones to ``keep``: pixels (C, D, H, W), label map (D, H, W).

    Returns:
        All that is wrong; and for each label, the first volume that has it.
    """
    bad, shape, holder, prepare = list[Bad](), None, dict[int, int](), preparing(how)
    for number, pair in enumerate(pairs):
        with _one_thread():
            volume = prepare(number, pair)
        if isinstance(volume, list):
            bad += volume
            continue
        pixels, labels = volume
        shape = shape or pixels.shape
        if pixels.shape != shape:
            message = f"has the shape {pixels.shape[1:]}, but volumes before have {shape[1:]}: set shape"
            bad.append(Bad(number, pair.images[0], message))
            continue
        for label in {*np.unique(labels).tolist()} - {IGNORED}:
            holder.setdefault(label, number)
        keep(pixels, labels)
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
        return [
            Bad(0, pairs[0].label_map, "has one label only, as all others have: expected 0 and at least 1")
        ]
    return [
        Bad(n, pairs[n].label_map, f"has the label {label}, but no map has {first}: renumber, or set classes")
        for label, n in sorted(holder.items())
        if label > first
    ]


def _key(pairs: Sequence[Pair], how: Handling) -> str:
    files = [[_digest(file) for file in (*pair.images, pair.label_map)] for pair in pairs]
    libraries = {name: version(name) for name in ("monai", "nibabel", "torch")}  # they decide the last bits
    about = {"format": _FORMAT, "how": asdict(how), "libraries": libraries, "files": files}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fill(entry: Path, pairs: Sequence[Pair], how: Handling) -> list[Bad]:
    """Make a cache entry; or tell what is wrong and leave nothing behind."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
    try:
        with ExitStack() as stack:
            files = [stack.enter_context((new / f"{name}.npy").open("wb")) for name in ("pixels", "targets")]

            def keep(*volume: Array) -> None:
                for file, array in zip(files, volume, strict=True):
                    if not file.tell():
                        write_header(file, (len(pairs), *array.shape), array.dtype)
                    file.write(np.ascontiguousarray(array).data)

            bad, holder = _all(pairs, how, keep)
        if how.classes is None and not bad:
            bad = _gaps(pairs, holder)
        if not bad:
            classes = max({*(how.classes or holder)} - {IGNORED}) + 1
            (new / "about.json").write_text(json.dumps({"classes": classes}), encoding="utf-8")
            _publish(new, entry)
        return bad
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _publish(new: Path, entry: Path) -> None:
    try:
        new.rename(entry)
    except OSError:
        if not entry.exists():  # else another process was faster, with the same arrays
            raise


def _mapped(entry: Path) -> Stored:
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        pixels, targets = (np.load(entry / f"{name}.npy", mmap_mode="r") for name in ("pixels", "targets"))
    except (OSError, ValueError) as error:
        raise InputError(f"prepared volumes in {entry} are damaged ({error}): delete that folder") from error
    return Stored(pixels, targets, int(about["classes"]))

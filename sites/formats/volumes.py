"""Volumes with label maps as two memory-mapped arrays, made from NIfTI files once and then kept (`sites.prepared`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt

from fedunlearn import files
from fedunlearn.core import IGNORED
from sites.formats.nifti import Bad, Handling, Pair, Volume, preparing
from sites.formats.picture import Seen, counted
from sites.pixels import one_thread
from sites.prepared import Growing, prepared
from sites.watching import Watch, unwatched

Array = npt.NDArray[Any]
Edge = Annotated[int, Ge(4)]
Millimetres = Annotated[float, Gt(0)]
_Prepare = Callable[[int, Pair], Volume | list[Bad]]

_FORMAT = 8  # of what is kept; to be raised whenever the same files and settings give other arrays


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


class _Refused(Exception):
    """Some volumes cannot be used."""

    def __init__(self, bad: list[Bad]) -> None:
        self.bad = bad
        super().__init__()


def store(pairs: Sequence[Pair], how: Handling, watch: Watch = unwatched) -> Stored | list[Bad]:
    """The volumes of all ``pairs``, kept from an earlier call or made now; or everything that is wrong with them.

    At no time is more than one volume in memory.

    Args:
        pairs: of files that exist.
        how: what is done to them.
        watch: is shown how far it is.

    Raises:
        RunError: the cache cannot be written, or what it gives back is not what was written.
    """

    def make(growing: Growing) -> dict[str, Any]:
        seen, notes = list[Seen](), list[tuple[str, ...]]()

        def keep(volume: Volume) -> None:
            seen.append(volume.seen)
            notes.append(volume.notes)
            growing.append("pixels", volume.pixels)
            growing.append("targets", volume.labels)

        bad, holder = _all(pairs, preparing(how), keep, watch)
        if how.classes is None and not bad:
            bad = _gaps(pairs, holder)
        if bad:
            raise _Refused(bad)
        classes = max({*(how.classes or holder)} - {IGNORED}) + 1
        names = [pair.images[0].name for pair in pairs]
        return {"classes": classes, "seen": seen, "notes": counted(zip(names, notes, strict=True))}

    try:
        found = prepared("volumes", _key(pairs, how), ("pixels", "targets"), len(pairs), make)
    except _Refused as refused:
        return refused.bad
    about, arrays = found.about, found.arrays
    seen = tuple((str(f), str(s), float(low), float(high), str(o)) for f, s, low, high, o in about["seen"])
    notes = tuple(map(str, about["notes"]))
    return Stored(arrays["pixels"], arrays["targets"], int(about["classes"]), seen, notes)


def examine(pairs: Sequence[Pair], how: Handling, watch: Watch = unwatched) -> list[Bad]:
    """Everything wrong with the single volumes; nothing is kept."""
    return _all(pairs, preparing(how), lambda volume: None, watch)[0]


def _all(
    pairs: Sequence[Pair], prepare: _Prepare, keep: Callable[[Volume], None], watch: Watch
) -> tuple[list[Bad], dict[int, int]]:
    """Make all volumes, one by one, and give the good ones to ``keep``.

    Returns:
        All that is wrong; and for each label, the first volume that has it.
    """
    bad, shape, holder = list[Bad](), None, dict[int, int]()
    for number, pair in enumerate(watch(pairs, "reading volumes")):
        with one_thread():
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


def _gaps(pairs: Sequence[Pair], holder: dict[int, int]) -> list[Bad]:
    """Labels after a gap, each at the first volume that holds it; or no label at all."""
    first = next(label for label in range(len(holder) + 1) if label not in holder)
    if len(holder) < 2:
        message = "has one label only, as all others have: expected 0 and at least 1"
        return [Bad(0, pairs[0].label_map, message, "one label only")]
    return [
        Bad(
            n,
            pairs[n].label_map,
            f"has the label {label}, {_advice(first, place, label)}",
            "a label after a gap",
        )
        for place, (label, n) in enumerate(sorted(holder.items()))
        if label > first
    ]


def _advice(first: int, place: int, label: int) -> str:
    if first == 0:
        return "but no map has 0, the background: set classes if there is none; else renumber"
    return f"but no map has {first}: set labels: {{{label}: {place}, …}} to renumber, or set classes"


def _key(pairs: Sequence[Pair], how: Handling) -> dict[str, Any]:
    """What the arrays depend on.

    Raises:
        _Refused: a file cannot be opened.
    """
    try:
        digests = [
            [(file.name, files.sha256(file)) for file in (*pair.images, pair.label_map)] for pair in pairs
        ]
    except OSError as error:
        if bad := examine(pairs, how):  # which names it
            raise _Refused(bad) from error
        raise
    libraries = {name: version(name) for name in ("monai", "nibabel", "torch")}  # they decide the last bits
    return {"format": _FORMAT, "how": asdict(how), "libraries": libraries, "files": digests}

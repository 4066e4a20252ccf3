"""Tombstones: what tells that something forgotten has come back, without keeping it.

There are two. ``RUN/tombstones.json`` stays in the run folder: of every forgotten image the keyed hash of its pixels,
of what models answered about it, and of the models that were removed; nobody who has not the very image or model can
tell anything from these. ``KEYS/tombstones/RUN-REQUEST.json`` stays at the hospital (only it reads it), and knows
ids as well: ids of patients can be guessed, so their hashes are under a key that is in this file only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from fedunlearn.erasure.keys import write_secret

FILE = "tombstones.json"
FOLDER = "tombstones"
VERSION = 1
SHORT = 4
"""Ids of fewer characters, and numbers, are found only where a column or a value is nothing else."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tombstone:
    """Of one or more requests. All hashes are hexadecimal; those with a key are cut to 32 digits.

    Attributes:
        requests: their ids.
        salt: the key of `images`, `rows` and `tensors`.
        shape: (C, *spatial) of an image.
        kind: the dtype that images were kept in: uint8 or float32.
        images: of their pixels.
        rows: of what models answered about them.
        tensors: of the tensors of models that were removed.
        removed: sha256 of files that were removed, or of what they held before they were changed.
        secret: the key of `names` and `weak`; empty where ids are not known.
        names: of ids of patients and images.
        weak: of ids that are too short, or are numbers (`SHORT`).
        subjects: of hospital and patient, and of hospital and image.
    """

    requests: tuple[str, ...]
    salt: str
    shape: tuple[int, ...] = ()
    kind: str = "uint8"
    images: frozenset[str] = frozenset()
    rows: frozenset[str] = frozenset()
    tensors: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    secret: str = field(default="", repr=False)
    names: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()

    @property
    def pixels(self) -> int:
        """How many numbers an image has; 0 if no image is known."""
        return int(np.prod(self.shape)) if self.images else 0

    def keyed(self, content: bytes) -> str:
        """The hash of some bytes under `salt`."""
        digest = hashlib.sha256(content).digest()
        return hmac.digest(bytes.fromhex(self.salt), digest, "sha256").hex()[:32]

    def named(self, name: str) -> str:
        """The hash of an id under `secret`."""
        return hmac.digest(bytes.fromhex(self.secret), name.encode(), "sha256").hex()[:32]

    def has_image(self, pixels: Array) -> bool:
        """Whether an image of any layout and scale that is usual shows what was forgotten."""
        return any(self.keyed(one.tobytes()) in self.images for one in layouts(pixels, self.shape, self.kind))

    def public(self) -> Tombstone:
        """What may stay in a run folder."""
        return replace(self, secret="", names=frozenset(), weak=frozenset(), subjects=frozenset())


def salted(requests: Sequence[str], salt: str | None = None) -> Tombstone:
    """One that knows nothing yet."""
    return Tombstone(tuple(requests), salt or secrets.token_hex(32), secret=secrets.token_hex(32))


def is_weak(name: str) -> bool:
    """Whether an id could stand in a text and mean something else."""
    return len(name) < SHORT or name.replace(".", "").isdigit()


def with_names(stone: Tombstone, names: Mapping[str, Collection[tuple[str, str]]]) -> Tombstone:
    """The same, with ids: by column (``patient``, ``image``), each with its hospital."""
    known = [name for pairs in names.values() for _, name in pairs]
    subjects = (subject(column, *pair) for column, pairs in names.items() for pair in pairs)
    return replace(
        stone,
        names=stone.names | {stone.named(name) for name in known if not is_weak(name)},
        weak=stone.weak | {stone.named(name) for name in known if is_weak(name)},
        subjects=stone.subjects | {stone.named(one) for one in subjects},
    )


def subject(column: str, site: str, name: str) -> str:
    """A patient or an image of a hospital, as `Tombstone.named` takes it: other hospitals may use the same ids."""
    return json.dumps([column, site, name])


def with_images(stone: Tombstone, images: Array) -> Tombstone:
    """The same, with images (N, C, *spatial); of an image of one colour nothing is kept, since it could be any."""
    shape = tuple(int(n) for n in images.shape[1:])
    own = replace(stone, shape=shape, kind=str(images.dtype))
    found = {own.keyed(np.ascontiguousarray(one).tobytes()) for one in images if one.min() != one.max()}
    return replace(own, images=stone.images | found)


def layouts(pixels: Array, shape: Sequence[int], kind: str) -> Iterable[Array]:
    """What an array of as many numbers as an image has can be as one: as it is, and with channels last."""
    if not np.issubdtype(pixels.dtype, np.number) or not np.isfinite(pixels).all():
        return
    whole = _scaled(pixels, kind)
    yield np.ascontiguousarray(whole.reshape(tuple(shape)))
    if shape[0] > 1:
        last = whole.reshape((*shape[1:], shape[0]))
        yield np.ascontiguousarray(np.moveaxis(last, -1, 0))


def _scaled(pixels: Array, kind: str) -> Array:
    """In the dtype that images are kept in; numbers up to 1 are taken for shares of the brightest."""
    if kind != "uint8" or pixels.dtype == np.uint8:
        return pixels.astype(kind)
    low, high = float(pixels.min()), float(pixels.max())
    known = pixels.astype(np.float64)
    if -1 <= low < 0 and high <= 1:
        known = (known + 1) * 127.5
    elif low >= 0 and high <= 1:
        known = known * 255
    return np.clip(np.rint(known), 0, 255).astype(np.uint8)


# ----------------------------------------------------------------------------------------------- files of them

_SETS = ("images", "rows", "tensors", "removed", "names", "weak", "subjects")


def content(stone: Tombstone) -> bytes:
    """One as a file."""
    told = {one.name: getattr(stone, one.name) for one in fields(stone)}
    lists = {name: sorted(value) if name in _SETS else value for name, value in told.items()}
    return files.sealed({"version": VERSION, **{n: v for n, v in lists.items() if v or n == "requests"}})


def read(path: Path) -> Tombstone:
    """One from a file.

    Raises:
        InputError: it is none, or is damaged.
    """
    try:
        found: dict[str, Any] = files.unsealed(path)
    except RunError as error:
        raise InputError(f"{error}; expected a tombstone of `fedunlearn purge`") from error
    if found.pop("version", None) != VERSION:
        raise InputError(f"{path} is no tombstone of this version of fedunlearn, expected version {VERSION}")
    sets = {name: frozenset(map(str, found.pop(name, ()))) for name in _SETS}
    return Tombstone(
        tuple(map(str, found["requests"])),
        str(found["salt"]),
        tuple(map(int, found.get("shape", ()))),
        str(found.get("kind", "uint8")),
        secret=str(found.get("secret", "")),
        **sets,
    )


def of_run(run: Path) -> Tombstone | None:
    """The one in a run folder; None if nothing was purged there.

    Raises:
        InputError: it is damaged.
    """
    return read(run / FILE) if (run / FILE).is_file() else None


def merged(one: Tombstone | None, other: Tombstone) -> Tombstone:
    """Both, which have the same salt; `secret` and ids are the second's."""
    if one is None:
        return other
    sums = {
        name: getattr(one, name) | getattr(other, name) for name in ("images", "rows", "tensors", "removed")
    }
    requests = tuple(dict.fromkeys((*one.requests, *other.requests)))
    shape = (other.shape, other.kind) if other.images else (one.shape, one.kind)
    return replace(other, requests=requests, shape=shape[0], kind=shape[1], **sums)


def kept_at(keys: Path, name: str) -> Path:
    """Where the hospital's is, by a name that no other request of any run has."""
    return keys / FOLDER / f"{name}.json"


def keep(path: Path, stone: Tombstone, names: Mapping[str, Collection[tuple[str, str]]]) -> None:
    """Write the hospital's; what is there already stays in it.

    Args:
        path: where.
        stone: what is forgotten; ids of its own are not taken.
        names: ids, see `with_names`.

    Raises:
        InputError: what is there is damaged, or it cannot be written.
    """
    own = replace(stone.public(), secret=stone.secret)
    if path.is_file():
        before = read(path)
        same = {name: getattr(before, name) for name in ("secret", "names", "weak", "subjects")}
        own = merged(before, replace(own, **same))
    stone = with_names(own, names)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}{files.PART}")
        part.unlink(missing_ok=True)
        write_secret(part, content(stone))
        part.replace(path)
    except OSError as error:
        raise InputError(files.unwritten(path, error)) from error

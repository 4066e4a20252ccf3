"""What a worker is given: the hospitals' images in a folder, each hospital's on their own.

The folder holds ``federation.json`` and one numbered folder per hospital, so that a hospital cannot read what is
not its own. Its arrays are one after the other in one file, and ``federation.json`` says which, of what shapes: a file
is opened and its header looked at in as much time as a small hospital's images are trained on. Large files are mapped,
so that workers on one machine share the pages. Nothing is pickled. What hospitals gave to the server is there once more
in a folder of the server's, without labels.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from fedunlearn import files
from fedunlearn.core import (
    IGNORED,
    SERVER,
    Companion,
    Form,
    Images,
    InputError,
    Problem,
    RequestId,
    Select,
    SiteId,
)
from fedunlearn.learning.models import MODELS, Model, Network
from sites.arrays import starting, write_columns
from sites.forms import form

SPLITS = ("train", "val", "test", "proxy")
_NO_LABEL, _UNLABELLED = -1, "|i1"  # no class: a loss that meets it fails; of what dtype
_CACHE_BYTES = 256 * 2**20  # of gathered images per worker process; whatever was used last always stays
_AT_ONCE = 256  # label maps that are looked at at once
_MAPPED = 2**20  # bytes of a file from which on it is mapped, not read
_FILE = "images.npy"  # as bytes, of which nobody needs to read the header

Key = tuple[SiteId, Select, torch.device]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Column:
    """An array of a hospital's file: its dtype and the shape of a row, as NumPy and JSON tell them."""

    dtype: str
    shape: tuple[int, ...]

    @staticmethod
    def of(array: Array, dtype: npt.DTypeLike) -> _Column:
        return _Column(np.dtype(dtype).str, array.shape[1:])

    def bytes(self, rows: int) -> int:
        """How many bytes so many rows take."""
        return rows * math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Federation:
    """The hospitals of a scenario, as a worker meets them. Threads may share one.

    Attributes:
        folder: where they are stored.
        sites: who can be asked: the hospitals by name, sorted, then `SERVER` if it owns images.
        requests: the ids that a `Select` may name.
        form: what the network is built for.
        model: the network's configuration.
        counts: how many images each of ``sites`` owns.
        columns: what is in each one's file, by name, in its order.
    """

    folder: Path
    sites: tuple[SiteId, ...]
    requests: tuple[RequestId, ...]
    form: Form
    model: Model
    counts: tuple[int, ...]
    columns: Mapping[str, _Column]
    _gathered: _Gathered = field(default_factory=lambda: _Gathered(_CACHE_BYTES), repr=False, compare=False)
    _counted: dict[tuple[SiteId, Select], int] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def write(
        folder: Path,
        pixels: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        site: npt.NDArray[Any],
        split: npt.NDArray[Any],
        forgotten: Mapping[RequestId, npt.NDArray[np.bool_]],
        model: Model,
        classes: int,
        companions: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Store the hospitals in ``folder``; mapped arrays are not read into memory as a whole.

        Args:
            folder: made if it is not there.
            pixels: (N, C, *spatial).
            targets: (N, …) integers; kept in as few bytes as the classes and `IGNORED` need.
            site: (N,) the hospital of each image.
            split: (N,) "train", "val", "test" or "proxy".
            forgotten: for each request, (N,) whether it names the image.
            model: the network's configuration.
            classes: number of classes.
            companions: what comes beside each image, by name, (N, ...): integers are words, floats a table.

        Raises:
            InputError: a label is no class.
            RunError: a file cannot be written, as where the disk is full.
        """
        companions = companions or {}
        _require_classes(targets, site, classes)
        owned = _rows_of(site)
        if (given := np.flatnonzero(split == "proxy")).size:
            owned[SERVER] = given
        part = np.array([SPLITS.index(str(name)) for name in split], dtype=np.int8)
        masks = (
            np.stack(list(forgotten.values()), axis=1) if forgotten else np.zeros((len(site), 0), dtype=bool)
        )
        arrays: dict[str, tuple[Array, npt.DTypeLike]] = {
            "pixels": (pixels, pixels.dtype),
            "rows": (np.arange(len(site)), np.int64),
            **{
                _beside(name): (values, np.int64 if values.dtype.kind in "iu" else np.float32)
                for name, values in companions.items()
            },
            "targets": (targets, np.min_scalar_type(max(classes, IGNORED))),
            "split": (part, part.dtype),
            "forgotten": (masks, masks.dtype),
        }
        columns = {name: _Column.of(*column) for name, column in arrays.items()}
        unlabelled = {**arrays, "targets": (np.broadcast_to(_NO_LABEL, targets.shape), _UNLABELLED)}
        for number, (name, rows) in enumerate(owned.items()):
            own = unlabelled if name == SERVER else arrays
            write_columns(folder / str(number) / _FILE, list(own.values()), rows)
        about = {
            "sites": list(owned),
            "counts": [len(rows) for rows in owned.values()],
            "columns": {name: dataclasses.asdict(column) for name, column in columns.items()},
            "requests": list(forgotten),
            "form": dataclasses.asdict(form(pixels, targets, classes, companions)),
            "model": dataclasses.asdict(cast(Any, model)),
        }
        with files.replacing(folder / "federation.json", durable=False) as temporary:
            temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")

    @staticmethod
    def open(folder: Path) -> Federation:
        """The hospitals stored in ``folder``; images are read when they are asked for."""
        about = json.loads((folder / "federation.json").read_text(encoding="utf-8"))
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in about["model"].items()}
        model = cast(Callable[..., Model], MODELS[about["model"]["name"]])(**settings)
        return Federation(
            folder=folder,
            sites=tuple(about["sites"]),
            requests=tuple(about["requests"]),
            form=_form(about["form"]),
            model=model,
            counts=tuple(about["counts"]),
            columns={name: _Column(x["dtype"], tuple(x["shape"])) for name, x in about["columns"].items()},
        )

    @cached_property
    def _numbers(self) -> dict[SiteId, int]:
        """By whom they are owned, the numbers of folders: looked up for every task, of thousands of hospitals."""
        return {site: number for number, site in enumerate(self.sites)}

    def network(self, device: str = "cpu") -> Network:
        """A fresh network for these images; its weights mean nothing until a task loads some.

        It draws from the global RNG (as torch's layers do) and puts it back: make networks in one thread only.
        """
        with torch.random.fork_rng(devices=[]):
            return Network(self.model, self.form, device)

    def hospital(self, site: SiteId, network: Network) -> Hospital:
        """One hospital, or `SERVER`, working with ``network``.

        Raises:
            ValueError: there is no such hospital.
        """
        if site not in self._numbers and site != SERVER:
            raise ValueError(f"found no hospital {site!r}, expected one of {', '.join(self.sites)}")
        return Hospital(self, site, network)

    def images(self, site: SiteId, select: Select, device: torch.device) -> Images:
        """The images that ``select`` names at ``site``, on ``device``.

        They are gathered once and then shared: do not change them.

        Raises:
            ValueError: ``select`` names an unknown request, or the server owns no image.
        """
        if site not in self._numbers:
            raise ValueError(f"{site} owns no images, expected some: give proxy a share of the data")
        key = (site, select, device)
        images = self._gathered.get(key)
        if images is None:
            images = _gather(self._own(site), self.requests, tuple(self.form.companions), select, device)
            self._gathered.put(key, images)
        return images

    def count(self, site: SiteId, select: Select) -> int:
        """How many images ``select`` names at ``site``; 0 if nobody there owns any, or it names an unknown request."""
        known = site in self._numbers and {*select.without, select.only} <= {*self.requests, None}
        if known and (site, select) not in self._counted:
            chosen = _chosen(self._own(site), self.requests, select)
            self._counted[site, select] = int(chosen.sum())
        return self._counted[site, select] if known else 0

    def _own(self, site: SiteId) -> dict[str, Array]:
        """All arrays of one hospital, by name, to be written to, though nobody does: torch warns of read-only memory.

        Raises:
            ValueError: its file is not what was written there.
        """
        number = self._numbers[site]
        count, columns = self.counts[number], self.columns
        if site == SERVER:
            columns = {**columns, "targets": dataclasses.replace(columns["targets"], dtype=_UNLABELLED)}
        starts, end = starting([column.bytes(count) for column in columns.values()])
        content = _content(self.folder / str(number) / _FILE, end)
        found = dict[str, Array]()
        for (name, column), start in zip(columns.items(), starts, strict=True):
            raw = content[start : start + column.bytes(count)]
            found[name] = raw.view(column.dtype).reshape(count, *column.shape)
        return found


class Hospital:
    """A hospital's side of a task (`fedunlearn.core.Local`).

    Attributes:
        site: its name.
        network: the worker's network.
        classes: number of classes.
    """

    def __init__(self, federation: Federation, site: SiteId, network: Network) -> None:
        self.site, self.network, self.classes = site, network, federation.form.classes
        self._federation, self._before = federation, network.passes

    def images(self, select: Select) -> Images:
        """See `fedunlearn.core.Local.images`.

        Raises:
            ValueError: ``select`` names an unknown request.
        """
        return self._federation.images(self.site, select, self.network.device)

    @property
    def work(self) -> int:
        """How many images it has passed through the network (`fedunlearn.learning.models.Network.passes`)."""
        return self.network.passes - self._before


def _form(told: dict[str, Any]) -> Form:
    """A form from what its fields are in JSON."""
    beside = {name: Companion(tuple(x["shape"]), x["tokens"]) for name, x in told["companions"].items()}
    return Form(tuple(told["shape"]), told["classes"], tuple(told["places"]), beside)


def _require_classes(targets: npt.NDArray[Any], site: npt.NDArray[Any], classes: int) -> None:
    """Make sure that every label is a class, or `IGNORED` in a label map: meeting another, a GPU is lost to a process.

    Raises:
        InputError: some are not, at which hospitals.
    """
    wrong, found = np.zeros(len(targets), dtype=bool), set[int]()
    for start in range(0, len(targets), _AT_ONCE):
        part = targets[start : start + _AT_ONCE]
        bad = (part < 0) | (part >= classes)
        if part.ndim > 1:
            bad &= part != IGNORED
        wrong[start : start + _AT_ONCE] = bad.reshape(len(part), -1).any(1)
        found.update(np.unique(part[bad]).tolist())
    advice = f"expected 0 to {classes - 1}: mend the data's labels"
    names, counts = np.unique(site[wrong], return_counts=True)
    if len(names):
        shown = ", ".join(map(str, sorted(found)[:5]))
        raise InputError(
            [
                Problem(
                    f"hospital {str(name)!r}: {count} images have labels that are no class ({shown}); {advice}"
                )
                for name, count in zip(names, counts, strict=True)
            ]
        )


def _rows_of(site: npt.NDArray[Any]) -> dict[SiteId, npt.NDArray[np.intp]]:
    """Each hospital's rows in their order, by name, sorted; found by sorting once, however many hospitals there are."""
    names, number = np.unique(site, return_inverse=True)
    parts = np.split(
        np.argsort(number, kind="stable"), np.cumsum(np.bincount(number, minlength=len(names)))[:-1]
    )
    return {str(name): rows for name, rows in zip(names, parts, strict=True)}


class _Gathered:
    """The images gathered last, up to a number of bytes; may be used by several threads."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._entries: OrderedDict[Key, Images] = OrderedDict()
        self._held = 0  # bytes

    def get(self, key: Key) -> Images | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Key, images: Images) -> None:
        with self._lock:
            before = self._entries.pop(key, None)
            self._entries[key] = images
            self._held += _size(images) - (0 if before is None else _size(before))
            while len(self._entries) > 1 and self._held > self._limit:
                self._held -= _size(self._entries.popitem(last=False)[1])


def _size(images: Images) -> int:
    own = (images.pixels, images.targets, images.rows, *images.companions.values())
    return sum(t.numel() * t.element_size() for t in own)


def _beside(name: str) -> str:
    """What a companion is called in a file."""
    return f"beside {name}"


def _content(file: Path, size: int) -> npt.NDArray[np.uint8]:
    """The last ``size`` bytes of a file; copied where they are written to, if it is mapped.

    Raises:
        ValueError: there are fewer.
    """
    if size < _MAPPED:
        content = np.frombuffer(bytearray(file.read_bytes()), dtype=np.uint8)
    else:
        content = np.asarray(np.memmap(file, dtype=np.uint8, mode="c"))
    if len(content) < size:
        raise ValueError(f"{file} is damaged: found {len(content):,} bytes, expected {size:,} and a header")
    return content[len(content) - size :]


def _gather(
    own: Mapping[str, Array],
    requests: tuple[RequestId, ...],
    companions: tuple[str, ...],
    select: Select,
    device: torch.device,
) -> Images:
    """Copy the selected rows out of one hospital's arrays; where it is all of them, they are not copied.

    Raises:
        ValueError: ``select`` names an unknown request.
    """
    if unknown := {*select.without, *([select.only] if select.only is not None else [])} - set(requests):
        raise ValueError(f"found no request {sorted(unknown)}, expected one of {', '.join(requests)}")
    keep = _chosen(own, requests, select)
    every = bool(keep.all())
    arrays = (own[name] for name in ("pixels", "targets", "rows", *map(_beside, companions)))
    chosen = (array if every else array[keep] for array in arrays)
    pixels, targets, rows, *beside = (torch.from_numpy(array).to(device) for array in chosen)
    # A label map is eight times as large then, but only these are.
    return Images(pixels, targets.long(), rows, companions=dict(zip(companions, beside, strict=True)))


def _chosen(
    own: Mapping[str, Array], requests: tuple[RequestId, ...], select: Select
) -> npt.NDArray[np.bool_]:
    """(N,) which of one hospital's images ``select`` names."""
    split, forgotten = own["split"], own["forgotten"]
    keep: npt.NDArray[np.bool_] = (
        np.ones(len(split), dtype=bool) if select.split == "all" else split == SPLITS.index(select.split)
    )
    if select.only is not None:
        keep &= forgotten[:, requests.index(select.only)]
    for request in select.without:
        keep &= ~forgotten[:, requests.index(request)]
    return keep

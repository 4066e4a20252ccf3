"""What a worker is given: the hospitals' images in a folder, memory-mapped, each hospital's on their own.

The folder holds ``federation.json`` and one numbered folder per hospital, so that a hospital cannot read what is
not its own, and workers on one machine share the pages. Nothing is pickled. What hospitals gave to the server is there
once more in a folder of the server's, without labels.
"""

from __future__ import annotations

import dataclasses
import json
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
from sites.arrays import write_rows
from sites.forms import form

SPLITS = ("train", "val", "test", "proxy")
_NO_LABEL = -1  # no class: a loss that meets it fails
_CACHE_BYTES = 256 * 2**20  # of gathered images per worker process; whatever was used last always stays
_AT_ONCE = 256  # label maps that are looked at at once
_HEADER = threading.Lock()
"""Held while NumPy opens a file: it parses the header with `ast`, which loses count of its recursion, and raises a
SystemError, if another thread does the same (CPython before 3.11.8, gh-106905)."""

Key = tuple[SiteId, Select, torch.device]


@dataclass(frozen=True)
class Federation:
    """The hospitals of a scenario, as a worker meets them. Threads may share one.

    Attributes:
        folder: where they are stored.
        sites: who can be asked: the hospitals by name, sorted, then `SERVER` if it owns images.
        requests: the ids that a `Select` may name.
        form: what the network is built for.
        model: the network's configuration.
    """

    folder: Path
    sites: tuple[SiteId, ...]
    requests: tuple[RequestId, ...]
    form: Form
    model: Model
    _gathered: _Gathered = field(default_factory=lambda: _Gathered(_CACHE_BYTES), repr=False, compare=False)

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
        for number, (name, rows) in enumerate(owned.items()):
            place = folder / str(number)
            none = np.broadcast_to(_NO_LABEL, targets.shape)
            labels, widest = (none, _NO_LABEL) if name == SERVER else (targets, max(classes, IGNORED))
            write_rows(place / "pixels.npy", pixels, rows, pixels.dtype)
            write_rows(place / "targets.npy", labels, rows, np.min_scalar_type(widest))
            write_rows(place / "rows.npy", np.arange(len(site)), rows, np.int64)
            write_rows(place / "split.npy", part, rows, part.dtype)
            write_rows(place / "forgotten.npy", masks, rows, masks.dtype)
            for beside, values in companions.items():
                kept = np.int64 if values.dtype.kind in "iu" else np.float32
                write_rows(place / f"beside-{beside}.npy", values, rows, kept)
        about = {
            "sites": list(owned),
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
            place = self.folder / str(self._numbers[site])
            images = _gather(place, self.requests, tuple(self.form.companions), select, device)
            self._gathered.put(key, images)
        return images


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


def _gather(
    place: Path,
    requests: tuple[RequestId, ...],
    companions: tuple[str, ...],
    select: Select,
    device: torch.device,
) -> Images:
    """Copy the selected rows out of one hospital's files; all rows are mapped, not copied."""
    if unknown := {*select.without, *([select.only] if select.only is not None else [])} - set(requests):
        raise ValueError(f"found no request {sorted(unknown)}, expected one of {', '.join(requests)}")
    # Copy-on-write, not read-only: torch warns of read-only memory, and nothing here writes.
    with _HEADER:
        split, forgotten = (np.load(place / f"{n}.npy", allow_pickle=False) for n in ("split", "forgotten"))
        names = ("pixels", "targets", "rows", *(f"beside-{name}" for name in companions))
        arrays = [np.load(place / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in names]
    keep = np.ones(len(split), dtype=bool) if select.split == "all" else split == SPLITS.index(select.split)
    if select.only is not None:
        keep &= forgotten[:, requests.index(select.only)]
    for request in select.without:
        keep &= ~forgotten[:, requests.index(request)]
    chosen = (np.asarray(array) if keep.all() else np.asarray(array)[keep] for array in arrays)
    pixels, targets, rows, *beside = (torch.from_numpy(array).to(device) for array in chosen)
    # A label map is eight times as large then, but only these are.
    return Images(pixels, targets.long(), rows, companions=dict(zip(companions, beside, strict=True)))

"""A finished run that is looked at again and again: what it has, and its tables, read once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedunlearn.core import InputError
from fedunlearn.results import overview as overviews
from fedunlearn.results.overview import Overview, Source, overview


@dataclass(frozen=True)
class Held:
    """A run folder whose tables are read, checked and made an overview of once, for whoever makes many frames.

    Args:
        run: the folder; what is changed there afterwards is not seen.
    """

    run: Source
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)
    _manifest: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False, compare=False)
    _overviews: dict[str, Overview] = field(default_factory=dict, init=False, repr=False, compare=False)
    _frames: dict[tuple[str, str], pd.DataFrame] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def path(self) -> Path:
        """See `Source`."""
        return self.run.path

    def read_table(self, name: str) -> pd.DataFrame:
        """See `Source`. Not to be changed in place."""
        if name not in self._tables:
            self._tables[name] = self.run.read_table(name)
        return self._tables[name]

    def read_manifest(self) -> dict[str, Any]:
        """See `Source`. Not to be changed in place."""
        if not self._manifest:
            self._manifest.append(self.run.read_manifest())
        return self._manifest[0]

    def overview(self, request: str) -> Overview:
        """See `summary`."""
        if request not in self._overviews:
            self._overviews[request] = _summary(self, request)
        return self._overviews[request]

    def frame(self, make: Callable[[Held, str], pd.DataFrame], request: str) -> pd.DataFrame:
        """A frame of a request by one of the functions of `results.frames`, made once. Not to be changed in place."""
        key = make.__name__, request
        if key not in self._frames:
            self._frames[key] = make(self, request)
        return self._frames[key]


def moments(run: Source) -> list[str]:
    """The ids that frames are asked for: of requests; of one in the middle of training, of both its moments."""
    return [str(moment["id"]) for moment in run.read_manifest()["moments"]]


def summary(run: Source, request: str) -> Overview:
    """What the run's sentences are made of (`results.sentences`).

    Raises:
        InputError: the run has no such request, or was judged by an older version.
        RunError: a table is missing or damaged.
    """
    return run.overview(request) if isinstance(run, Held) else _summary(run, request)


def _summary(run: Source, request: str) -> Overview:
    """See `summary`."""
    manifest = run.read_manifest()
    known = {str(moment["id"]): moment for moment in manifest["moments"]}
    if request not in known:
        raise InputError(f"{run.path} has no request {request!r}, expected one of {', '.join(known)}")
    overviews.require_judged(run)
    tables = {name: run.read_table(f"{name}.parquet") for name in overviews.FILES}
    return overview(tables, manifest, known[request])


def has(run: Source, table: str) -> bool:
    """Whether the run has a table; older versions left fewer."""
    return table in run.read_manifest()["sha256"]

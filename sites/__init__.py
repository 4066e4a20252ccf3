"""Hospitals and their images: data sources, partitions, splits, requests, and what a worker is given.

``SOURCES`` and ``PARTITIONS`` map the names of a scenario to classes. A class is loaded when it is asked for, so that
who needs one source does not load what reads all others, and a worker that only needs `sites.hospital` loads none.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sites.collection import Source
    from sites.dealing.partitions import Partition

__all__ = ["PARTITIONS", "SOURCES"]


class _Classes(Mapping[str, type[Any]]):
    """Classes by name, from the module and the name that each has there."""

    def __init__(self, where: Mapping[str, tuple[str, str]]) -> None:
        self._where = where

    def __getitem__(self, name: str) -> type[Any]:
        module, cls = self._where[name]
        found: type[Any] = getattr(importlib.import_module(module), cls)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


SOURCES: Mapping[str, type[Source]] = _Classes(
    {
        "phantom_cells": ("sites.phantom_cells", "PhantomCells"),
        "phantom_brain": ("sites.phantom_brain", "PhantomBrain"),
        "phantom_chest": ("sites.phantom_chest", "PhantomChest"),
        "breast_table": ("sites.breast_table", "BreastTable"),
        "medmnist": ("sites.medmnist", "MedMNIST"),
        "npz": ("sites.npz", "Npz"),
        "folder": ("sites.folder", "Folder"),
        "chexpert": ("sites.chexpert", "CheXpert"),
        "mrbrains": ("sites.mrbrains", "MRBrainS"),
    }
)
PARTITIONS: Mapping[str, type[Partition]] = _Classes(
    {
        "iid": ("sites.dealing.partitions", "Iid"),
        "label_skew": ("sites.dealing.partitions", "LabelSkew"),
        "size_skew": ("sites.dealing.partitions", "SizeSkew"),
        "by_column": ("sites.dealing.partitions", "ByColumn"),
    }
)

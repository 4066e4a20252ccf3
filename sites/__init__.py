"""Hospitals and their images: data sources, partitions, splits, requests, and what a worker is given.

``SOURCES`` and ``PARTITIONS`` map the names of a scenario to classes. They are made when they are asked for, so
that a worker that only needs `sites.hospital` does not load what reads data.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sites.collection import Source
    from sites.dealing.partitions import Partition

    SOURCES: Mapping[str, type[Source]]
    PARTITIONS: Mapping[str, type[Partition]]

__all__ = ["PARTITIONS", "SOURCES"]

_WHERE = {
    "SOURCES": {
        "phantom_cells": ("sites.phantom_cells", "PhantomCells"),
        "phantom_brain": ("sites.phantom_brain", "PhantomBrain"),
        "phantom_chest": ("sites.phantom_chest", "PhantomChest"),
        "breast_table": ("sites.breast_table", "BreastTable"),
        "medmnist": ("sites.medmnist", "MedMNIST"),
        "npz": ("sites.npz", "Npz"),
        "folder": ("sites.folder", "Folder"),
        "chexpert": ("sites.chexpert", "CheXpert"),
        "mrbrains": ("sites.mrbrains", "MRBrainS"),
    },
    "PARTITIONS": {
        "iid": ("sites.dealing.partitions", "Iid"),
        "label_skew": ("sites.dealing.partitions", "LabelSkew"),
        "size_skew": ("sites.dealing.partitions", "SizeSkew"),
        "by_column": ("sites.dealing.partitions", "ByColumn"),
    },
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return {key: getattr(importlib.import_module(module), cls) for key, (module, cls) in _WHERE[name].items()}

"""Whom a request is about, wherever they are."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fedunlearn.erasure.sources import Sources


def test_a_patients_other_hospitals_are_counted() -> None:
    """Of p, three images at two hospitals; of q, who asks for nothing, one."""
    images = pd.DataFrame(
        {
            "image": ["a", "b", "c", "d"],
            "patient": ["p", "p", "p", "q"],
            "site": ["north", "north", "east", "east"],
            "split": ["train", "test", "train", "train"],
            "forgotten_by": [["r", "all-requests"], ["r", "all-requests"], ["r", "all-requests"], []],
        }
    )
    unused: Any = None
    found = Sources(unused, {}, unused, unused, images, unused, {}, frozenset())
    assert found.counts("r") == (1, {"east": {"train": 1}, "north": {"test": 1, "train": 1}})
    assert found.patients("r") == {"east": ["p"], "north": ["p"]}
    assert found.counts("refused") == (0, {}) and found.patients("refused") == {}
    assert found.sites == ["north", "east"]

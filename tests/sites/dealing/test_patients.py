"""Which hospital has most of a patient's images, and where each hospital's images are, however many hospitals."""

from __future__ import annotations

import numpy as np
import pytest

from sites.dealing.patients import most_common, places


@pytest.mark.parametrize("seed", range(5))
def test_most_common_is_the_first_of_the_most_frequent(seed: int) -> None:
    random = np.random.default_rng(seed)
    member, values = random.integers(0, 7, 60), np.array(["d", "b", "a", "c"])[random.integers(0, 4, 60)]
    member[:7] = range(7)
    for patient, found in enumerate(most_common(member, 7, values)):
        own = values[member == patient].tolist()
        assert found == min(sorted(set(own)), key=lambda value: -own.count(value))


def test_thousands_of_hospitals_need_no_table_of_all_patients_and_hospitals() -> None:
    """A table of 50,000 patients and 50,000 hospitals would have 20 GB."""
    names = np.array([f"h{number}" for number in range(50_000)])
    assert (most_common(np.arange(50_000), 50_000, names) == names).all()


def test_places_are_those_of_each_name() -> None:
    names = np.array(["b", "a", "b", "c", "a"])
    found = {name: rows.tolist() for name, rows in places(names).items()}
    assert found == {"a": [1, 4], "b": [0, 2], "c": [3]}
    assert places(names[:0]) == {}

"""What is wrong with data, as whoever reads it hears of it."""

from __future__ import annotations

from pathlib import Path

from fedunlearn.core import InputError, Problem
from sites.collection import Source


def problems_of(source: Source, root: Path) -> list[Problem]:
    """All problems that reading tells; none if it reads."""
    try:
        source.load(root)
    except InputError as error:
        return list(error.problems)
    return []

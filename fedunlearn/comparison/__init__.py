"""Runs beside one another, and beside what was expected of them."""

from collections.abc import Sequence
from pathlib import Path

from fedunlearn import files
from fedunlearn.comparison.expectations import Expectation, read as expected
from fedunlearn.comparison.findings import Finding, check, find
from fedunlearn.comparison.runs import Compared, read
from fedunlearn.comparison.table import formatted, show
from fedunlearn.core import InputError, RunError


def write(runs: Sequence[Compared], file: Path) -> None:
    """Write runs side by side as one file of HTML.

    Raises:
        InputError: it cannot be written there.
    """
    from fedunlearn.comparison.page import page  # here, since charts take a second

    try:
        files.write(file, page(runs).encode("utf-8"))
    except RunError as error:
        raise InputError(str(error)) from error


__all__ = [
    "Compared",
    "Expectation",
    "Finding",
    "check",
    "expected",
    "find",
    "formatted",
    "read",
    "show",
    "write",
]

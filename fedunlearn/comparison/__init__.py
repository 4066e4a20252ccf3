"""Runs beside one another, and beside what was expected of them."""

from fedunlearn.comparison.expectations import Expectation, read as expected
from fedunlearn.comparison.findings import Finding, check, find
from fedunlearn.comparison.runs import Compared, read
from fedunlearn.comparison.table import show

__all__ = ["Compared", "Expectation", "Finding", "check", "expected", "find", "read", "show"]

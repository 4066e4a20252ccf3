"""Margins as a person writes them on the command line."""

from __future__ import annotations

import pytest

from fedunlearn.core import InputError
from fedunlearn.scoring.evidence.margins import Margins, parse


def test_what_is_named_changes_and_the_rest_stays() -> None:
    assert parse("test=.05,memory_left=.2") == Margins(test=0.05, memory_left=0.2)
    assert parse(" test = 1 , patients_over = 2 ") == Margins(test=1.0, patients_over=2)
    assert parse("test=.05", Margins(class_recall=0.2)) == Margins(test=0.05, class_recall=0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown margin ''; expected NAME=NUMBER,… with names of test, worst_hospital, class_recall"),
        ("tset=.05", "unknown margin 'tset'; expected NAME=NUMBER,…"),
        ("test", "test: expected a number, found ''"),
        ("test=a few", "test: expected a number, found 'a few'"),
        ("test=0", "test: expected a number (more than 0 and at most 1), found 0"),
        ("test=1.01", "test: expected a number (more than 0 and at most 1), found 1.01"),
        ("test=nan", "test: expected a number (more than 0 and at most 1), found nan"),
        ("patients_over=.5", "patients_over: expected a whole number, found '.5'"),
        ("patients_over=-1", "patients_over: expected a whole number (0 or more), found -1"),
        ("test=.1,test=.2", "test: given twice; keep one of them"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        parse(text)
    assert str(told.value).startswith(message)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InputError) as told:
        parse("test=2,speed=1,memory_left=.3")
    assert [problem.message.partition(":")[0] for problem in told.value.problems] == [
        "test",
        "unknown margin 'speed'; expected NAME=NUMBER,… with names of test, worst_hospital, class_recall, "
        "memory_left, patients_over",
    ]

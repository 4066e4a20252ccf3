"""Classes in the words of the data."""

from __future__ import annotations

import pytest

from fedunlearn.results.classes import called, numbered, reason

NAMES = ("basophil", "eosinophil", "lymphocyte")


@pytest.mark.parametrize(
    ("kind", "number", "names", "count", "said"),
    [
        ("classification", "1", NAMES, 3, "class eosinophil"),
        ("classification", "1", (), 3, "class 1 (of 0 to 2)"),
        ("classification", "1", ("0", "1", "2"), 3, "class 1 (of 0 to 2)"),
        ("classification", "1", ("1", "2", "3"), 3, "class 2"),  # as the data's owner wrote it
        ("classification", "7", NAMES, 0, "class 7"),
        ("segmentation", "2", NAMES, 3, "structure lymphocyte"),
        ("segmentation", "2", (), 3, "structure 2 (of 1 to 2)"),  # 0 is the background
    ],
)
def test_a_class_is_called_by_its_name_or_told_from_how_many(
    kind: str, number: str, names: tuple[str, ...], count: int, said: str
) -> None:
    assert called(kind, number, names, count) == said


def test_only_a_reason_about_a_class_changes() -> None:
    text = "class 1: -0.3 (95 %: -0.4 to -0.2) on unseen images, margin 0.10"
    assert reason(text, "classification", NAMES, 3) == text.replace("class 1", "class eosinophil")
    for other in ("hospital class 1: -0.3", "diverged for seed 8 in class 1", "class 1", "sex 1: -0.3"):
        assert reason(other, "classification", NAMES, 3) == other


def test_a_number_is_the_datas_own_where_classes_are_numbers() -> None:
    assert numbered("1", ("1", "2.5")) == "2.5"
    assert numbered("1", NAMES) == "1" and numbered("1", ()) == "1" and numbered("", ("1",)) == ""


def test_a_share_of_nothing_has_no_sign() -> None:
    text = "-0 % of the original's memory is left (95 %: -12 % to -0 %)"
    assert (
        reason(text, "classification", (), 0) == "0 % of the original's memory is left (95 %: -12 % to 0 %)"
    )
    for other in ("1 of 3 patients (north-0 83 %) is still known", "-10 % of it", "ward-0 %"):
        assert reason(other, "classification", (), 0) == other

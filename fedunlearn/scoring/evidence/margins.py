"""Margins: how much worse than retraining an unlearned model may be. They are declared, never measured."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from fedunlearn.core import InputError, Problem

Share = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True)
class Margins:
    """What a verdict lets pass. Shares and accuracies are between 0 and 1.

    For volumes, read Dice for accuracy, and Dice of a structure for the recall of a class; for images with several
    findings, AUROC and that of a finding.

    The defaults are for a first look; whoever must answer for a model declares their own, before looking at results.
    A margin that is finer than a run can tell makes no verdict wrong: the answer is then "cannot tell".

    Attributes:
        test: mean test accuracy may be that much lower than retraining's. 3 more errors in 100: about what two honest
            retrainings with different seeds differ by, so nobody could hold it against one of them.
        worst_hospital: the same at any single hospital. More than in the mean, since a hospital has fewer test images
            and luck moves it further; not much more, since nobody's patients shall pay for all others.
        class_recall: the same of the recall of any class (volumes: Dice of any structure). A class has fewer images
            still; one more case in ten overlooked is the least that counts at the sizes of common test sets.
        memory_left: the share of the original's memory that may be left, in the mean over the request's patients. A
            quarter is about the least that eight trainings of each kind can tell from none.
        patients_over: how many single patients may for sure be over that. None: the right to be forgotten is each
            patient's own, and no mean over others makes up for it.
    """

    test: Share = 0.03
    worst_hospital: Share = 0.05
    class_recall: Share = 0.10
    memory_left: Share = 0.25
    patients_over: Annotated[int, Ge(0)] = 0


def parse(text: str, of: Margins = Margins()) -> Margins:
    """Margins from a text such as ``test=.05,memory_left=.2``; those that it does not name stay as they are in ``of``.

    Raises:
        InputError: a name is not known or comes twice, or a value is no number or out of its range; all that is wrong.
    """
    hints = typing.get_type_hints(Margins, include_extras=True)
    found, problems = dict[str, Any](), list[Problem]()
    for part in text.split(","):
        name, _, value = (side.strip() for side in part.partition("="))
        try:
            if name in found:
                raise InputError(f"{name}: given twice; keep one of them")
            found[name] = _value(name, value, hints)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return dataclasses.replace(of, **found)


def declared(manifest: Mapping[str, Any]) -> Margins:
    """The margins that a run was scored with last; the defaults, if its manifest is from before there were any.

    Raises:
        TypeError: they are other margins than these.
    """
    return Margins(**manifest.get("verdict", {}).get("margins", {}))


def _value(name: str, text: str, hints: Mapping[str, Any]) -> float | int:
    """The value of a margin.

    Raises:
        InputError: see `parse`.
    """
    if name not in hints:
        known = ", ".join(hints)
        raise InputError(f"unknown margin {name!r}; expected NAME=NUMBER,… with names of {known}")
    kind, *bounds = typing.get_args(hints[name])
    number = "a number" if kind is float else "a whole number"
    try:
        value: float | int = kind(text)
    except ValueError as error:
        raise InputError(f"{name}: expected {number}, found {text!r}") from error
    if not all(_within(value, bound) for bound in bounds):
        allowed = "more than 0 and at most 1" if kind is float else "0 or more"
        raise InputError(f"{name}: expected {number} ({allowed}), found {text}")
    return value


def _within(value: float, bound: Gt | Ge | Le) -> bool:
    """Whether a value keeps a bound; NaN keeps none."""
    match bound:
        case Gt(gt=low):
            return bool(value > low)  # type: ignore[operator]  # bounds are whatever can be compared
        case Ge(ge=low):
            return bool(value >= low)  # type: ignore[operator]
        case Le(le=high):
            return bool(value <= high)  # type: ignore[operator]

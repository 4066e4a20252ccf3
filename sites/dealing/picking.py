"""Which patients a request picks: at random, hard or easy ones, of a class that few have, or by an attribute."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import InputError, PatientId, Problem, SiteId
from fedunlearn.core.held import picked_by
from fedunlearn.kinds.multilabel.held import UNKNOWN
from sites.identity import alike, is_missing, tidied

Floats = npt.NDArray[np.float64]

NO_COLUMNS = ("image", "patient", "site", "split")
"""Columns of the table that are no attributes of a patient."""


def picked(
    table: pd.DataFrame,
    site: SiteId,
    able: Sequence[PatientId],
    wanted: int,
    pick: str,
    rng: np.random.Generator,
) -> list[PatientId]:
    """So many of the patients ``able``, sorted; equals are drawn.

    - random: all are equal.
    - hardest, easiest: by the mean ``difficulty`` of their images here, numbers as they are, "easy" 0 and "hard" 1.
    - rare_class: by how many training images the hospital has of the label that most of the patient's images here
      have (the lowest of several); the rarest first. Of images with several findings, the rarest one is the label.
      Where that is unknown they do not count, and patients with no others come last.
    - scarce_elsewhere: by how many training images of that label the other hospitals have; the scarcest first, and
      what nobody else has last, since nobody misses it. So a hospital that means harm would choose that knows no more
      of others than how many images of each class they have.

    Args:
        table: one row per image, with ``patient``, ``site`` and ``split``; ``label``, or of several findings
            ``rarest_finding``, and ``difficulty`` where they are picked by.
        site: the hospital that asks; its training images count.
        able: ids in sorted order.
        wanted: how many, at most all of them.
        pick: one of the above.
        rng: draws.

    Raises:
        InputError: the images have no difficulty, or no label.
    """
    if pick == "random":
        return sorted(able[i] for i in rng.choice(len(able), wanted, replace=False))
    train = table[np.asarray(table["split"] == "train", dtype=bool)]
    here = np.asarray(train["site"] == site, dtype=bool)
    own = train[here]
    match pick:
        case "hardest" | "easiest":
            scores = pd.Series(_difficulty(own, pick), own.index).groupby(own["patient"].to_numpy()).mean()
            sign = -1.0 if pick == "hardest" else 1.0
        case "rare_class" | "scarce_elsewhere":
            label = next((name for name in picked_by() if name in own.columns), None)
            if label is None:
                raise InputError(f"pick: {pick} needs one class per image, or findings; use another `pick`")
            sizes = (own if pick == "rare_class" else train[~here])[label].value_counts()
            by_patient = own[own[label] != UNKNOWN].groupby("patient")[label]
            known = by_patient.agg(lambda labels: sizes.get(labels.mode().min(), np.inf))
            scores, sign = known.astype(np.float64).reindex([*able], fill_value=np.inf), 1.0
        case _:
            raise ValueError(f"no such way to pick patients: {pick!r}")
    shuffled = [able[i] for i in rng.permutation(len(able))]
    return sorted(sorted(shuffled, key=lambda patient: sign * round(float(scores[patient]), 12))[:wanted])


def matching(own: pd.DataFrame, by: Mapping[str, str], site: SiteId) -> list[PatientId]:
    """The patients with a training image that has every value of ``by``, sorted.

    Values are compared as text, whole numbers without a decimal point.

    Raises:
        InputError: a column or value is not there; all problems together.
    """
    known, problems = [name for name in own.columns if name not in NO_COLUMNS], list[Problem]()
    found = np.ones(len(own), dtype=bool)
    for column, value in by.items():
        if column not in known:
            expected = _listed(known) or "none: the data has no attributes"
            problems.append(
                Problem(f"by: unknown column {column!r}{_meant(column, known)}; expected {expected}")
            )
            continue
        value, texts = tidied(value), np.array([as_text(one) for one in own[column]], dtype=str)
        if value not in texts:
            there = _listed(_sorted({one for one in texts.tolist() if not is_missing(one)}))
            message = f"by: {site!r} trains on no image with {column} {value!r}; expected {there}"
            problems.append(Problem(message))
        elif near := sorted({one for one in texts.tolist() if one != value and alike(one) == alike(value)}):
            both = f"{value!r} and {_listed([repr(one) for one in near])}"
            message = (
                f"by: column {column} has {both}, written almost alike: those would stay; write them alike"
            )
            problems.append(Problem(message))
        found &= texts == value
    if problems:
        raise InputError(problems)
    if not found.any():
        raise InputError(f"by: {site!r} trains on no image with {described(by)} at once; ask for less")
    return sorted(set(own.loc[found, "patient"]))


def described(by: Mapping[str, str]) -> str:
    """``by`` in words: "sex F and scanner 2"."""
    return " and ".join(f"{column} {value}" for column, value in by.items())


def as_text(value: object) -> str:
    """A value of a table as a scenario writes it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _difficulty(own: pd.DataFrame, pick: str) -> Floats:
    """(N,) how hard each image is.

    Raises:
        InputError: the data does not tell.
    """
    if "difficulty" not in own.columns or own["difficulty"].isna().all():
        raise InputError(
            f"pick: {pick} needs a column `difficulty`, which this data has not: add it (numbers, or easy and hard; "
            "npz: the key `_difficulty`; folder: a column of the manifest), for example `learnt_after` of an earlier "
            "run's difficulty.parquet, or use random or rare_class"
        )
    words = {"easy": 0.0, "hard": 1.0}
    numbers = pd.to_numeric(own["difficulty"].map(lambda value: words.get(value, value)), errors="coerce")
    if numbers.isna().any():
        odd = next(as_text(value) for value in own.loc[numbers.isna(), "difficulty"])
        raise InputError(f"pick: {pick}: found difficulty {odd!r}, expected a number, or easy or hard")
    return numbers.to_numpy(np.float64)


def _sorted(values: set[str]) -> list[str]:
    """Numbers by size, then words."""
    return sorted(values, key=lambda text: (not text.isdigit(), int(text) if text.isdigit() else 0, text))


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _listed(words: Sequence[str]) -> str:
    shown = [*words[:20], "…"] if len(words) > 20 else list(words)
    return f"{', '.join(shown[:-1])} or {shown[-1]}" if len(shown) > 1 else "".join(shown)

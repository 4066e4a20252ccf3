"""Sexes as data has them written: which may be one, and who has several."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from sites.identity import is_missing, listed, quoted, tidied

_WOMEN, _MEN = "f female w woman women weiblich frau femme", "m male man men männlich mann homme"
_SEXES = {**dict.fromkeys(_WOMEN.split(), "female"), **dict.fromkeys(_MEN.split(), "male")}
"""What people write for two sexes; any other value is its own."""


def notes(sexes: Sequence[str], patients: Sequence[str]) -> tuple[str, ...]:
    """What is to be known of a column ``sex``: values that may be one, and patients who have several.

    Args:
        sexes: (N,) as written.
        patients: (N,) whose they are.
    """
    counts = Counter(tidied(text) for text in sexes if not is_missing(text))
    return (*_spelt(counts), *_changing(sexes, patients))


def _spelt(counts: Counter[str]) -> Iterator[str]:
    groups = defaultdict[str, list[str]](list)
    for text in sorted(counts):
        groups[_SEXES.get(text.casefold(), text.casefold())].append(text)
    if several := [group for group in groups.values() if len(group) > 1]:
        shown = "; ".join(" and ".join(f"{text!r} ({counts[text]:,})" for text in group) for group in several)
        yield (
            f"sex: {shown} (with the numbers of their images) may be one, but are groups of their own here: write them "
            "alike if they are"
        )


def _changing(sexes: Sequence[str], patients: Sequence[str]) -> Iterator[str]:
    found = defaultdict[str, set[str]](set)
    for text, patient in zip(sexes, patients, strict=True):
        if not is_missing(text):
            folded = tidied(text).casefold()
            found[patient].add(_SEXES.get(folded, folded))
    if changing := sorted(patient for patient, those in found.items() if len(those) > 1):
        values = ", ".join(map(quoted, sorted(found[changing[0]])))
        yield (
            f"sex: it changes from image to image of {listed(changing)} ({values} of the first): are several people "
            "called so, or is one of them wrong?"
        )

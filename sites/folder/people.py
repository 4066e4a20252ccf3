"""Whether the people whom DICOM files name are those whom the data names: who is one there may be two here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fedunlearn.core.blanks import MISSING, NOBODY
from sites.identity import SHOWN, listed
from sites.rows import Row

UNTOLD = -1
"""The number of whom a file does not name."""

_FEW = 5  # patients of one name: of more, it is hardly a name
_STAND_INS = ("anon", "deid", "de-id")


class Numbers:
    """Numbers for people, in the order in which they come: no name is kept with images."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, name: str) -> int:
        """The number of whom a file names; `UNTOLD` for nobody, and for words that stand for anybody."""
        folded = name.casefold()
        if folded in MISSING | NOBODY or folded.startswith(_STAND_INS):
            return UNTOLD
        return self._known.setdefault(name, len(self._known))


def notes(rows: Sequence[Row], people: Sequence[int]) -> tuple[str, ...]:
    """What is to be known of patients who are one by their files, or several.

    Args:
        rows: of a manifest.
        people: (N,) the number of whom each row's file names.
    """
    patients, names = defaultdict[tuple[str, int], set[str]](set), defaultdict[tuple[str, str], set[int]](set)
    for row, number in zip(rows, people, strict=True):
        if number != UNTOLD:
            site, patient = row.cells.get("site", ""), row.cells["patient"]  # hospitals number their own
            patients[site, number].add(patient)
            names[site, patient].add(number)
    several = len({number for _, number in patients}) > 1  # else it stands for anybody
    one = [sorted(those) for those in patients.values() if several and 1 < len(those) <= _FEW]
    found = list[str]()
    if one:
        groups = "; ".join(" and ".join(map(repr, those)) for those in sorted(one)[:SHOWN])
        more = f", and {len(one) - SHOWN:,} more such groups" if len(one) > SHOWN else ""
        found.append(
            f"patient: {groups}{more} are one patient by their DICOM files (PatientID): forgetting one leaves the "
            "other; give them one id if they are one"
        )
    if many := sorted({patient for (_, patient), those in names.items() if len(those) > 1}):
        found.append(
            f"patient: {listed(many)} {'is' if len(many) == 1 else 'are'} several patients by their DICOM files "
            "(PatientID): forgetting one forgets all; give each an id if they are several"
        )
    return tuple(found)

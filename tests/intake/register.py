"""Three hospitals for tests of the desk, and requests to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pandas as pd

from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Entry, Limits, decide
from fedunlearn.intake.petition import Petition
from fedunlearn.intake.register import Register

CALENDAR = Calendar(date(2026, 1, 1), round=7, looks=30)
ROUNDS = 26
"""Until 2026-07-02."""


def rows(
    patient: str, site: str, split: str = "train", label: int = 0, images: int = 2
) -> list[dict[str, object]]:
    """The images of a patient at one hospital."""
    return [
        {"image": f"{patient}-{site}-{i}", "patient": patient, "site": site, "split": split, "label": label}
        for i in range(images)
    ]


def table() -> pd.DataFrame:
    """Four training patients and one for testing at each of north, east and west; p-both is at north and east.

    Class 1 has the images of the first two patients of north alone.
    """
    found = list[dict[str, object]]()
    for site in ("north", "east", "west"):
        for number in range(4):
            found += rows(f"{site[0]}{number}", site, label=int(site == "north" and number < 2))
        found += rows(f"{site[0]}-test", site, "test")
    found += [*rows("p-both", "north"), *rows("p-both", "east", images=3)]
    return pd.DataFrame(found)


REGISTER = Register(table())


def patients(id: str, site: str, *who: str, on: str = "2026-01-05", opt_out: bool = False) -> Petition:
    """A request for patients."""
    return Petition(id, date.fromisoformat(on), site, "opt_out" if opt_out else "patients", patients=who)


def images(id: str, site: str, *which: str, on: str = "2026-01-05") -> Petition:
    """A request for single images."""
    return Petition(id, date.fromisoformat(on), site, "images", images=which)


def leaving(id: str, site: str, on: str = "2026-01-05") -> Petition:
    """A request of a hospital that leaves."""
    return Petition(id, date.fromisoformat(on), site, "whole_site")


def decided(
    *petitions: Petition, limits: Limits | None = None, register: Register = REGISTER, rounds: int = ROUNDS
) -> tuple[Entry, ...]:
    """What becomes of them, by default without limits."""
    return decide(petitions, register, limits or Limits(hospitals=1, class_images=0), CALENDAR, rounds)


def outcome(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """State and reason of each."""
    return [(entry.state, entry.reason) for entry in entries]

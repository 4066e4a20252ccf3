"""How long somebody may take to answer a request: Art. 12(3) and (4) of Regulation (EU) 2016/679 (GDPR)."""

from __future__ import annotations

import calendar
from datetime import date

MONTHS = 1
"""Within which a request is answered."""
FURTHER = 2
"""Months by which that may be extended, "where necessary, taking into account the complexity and number of the
requests"; the person is told so, with the reasons, within the first. A refusal is told within the first anyway: Art.
12(4) knows no extension."""
LATEST = date(9999, 9, 30)
"""The last day from which all of that can be reckoned: there is no date after the year 9999."""


def after(day: date, months: int) -> date:
    """The same day so many months on, or the last day of that month if it has no such day.

    So ends a period of months (Regulation (EEC, Euratom) 1182/71, Art. 3(2)(c)). That a last day which is a holiday, a
    Sunday or a Saturday moves on to the next working day (Art. 3(4)) is left out: nobody is late for being early.
    """
    month = day.month - 1 + months
    year, month = day.year + month // 12, month % 12 + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))

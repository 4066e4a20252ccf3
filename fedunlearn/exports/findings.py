"""What was found of a strategy, in one of the few sentences that can be stood for: what was seen, by which tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fedunlearn.results.sentences import percent


def memory(known: Mapping[Any, Any]) -> str:
    """What the tests saw of memory, of a row of `papers.tidy`."""
    answer, left, half = known["forgotten"], known["memory_left"], known["memory_left_half"]
    measured = f"{percent(left)} % (±{percent(half)} %) of what the original knew"
    still = f"{_patients(known)} are still known"
    if answer == "yes":
        most = percent(max(abs(left - half), abs(left + half)))
        return (
            f"under the tests that were run, with {_count(known, 'patients_compared')} patients and "
            f"{int(known['seeds'])} seeds, no difference from retraining larger than {most} % of what the original "
            "knew was seen in the mean over patients, and no patient stood out."
        )
    if answer == "yes, but":
        return f"memory is reduced; what is left was measured as {measured}, but other evidence speaks against a yes."
    if answer == "partly":
        return f"memory is reduced; what is left was measured as {measured}; {still}."
    if answer == "no":
        return f"memory is still there: what is left was measured as {measured}; {still}."
    if answer == "too much":
        return f"less is known than by retrained models, which betrays the data as well: {measured}."
    return "the tests cannot tell whether the data was forgotten; more seeds or patients would be needed."


def _patients(known: Mapping[Any, Any]) -> str:
    """How many patients, of how many looked at."""
    return f"{_count(known, 'patients_known')} of {_count(known, 'patients_compared')} patients"


def _count(known: Mapping[Any, Any], name: str) -> str:
    return "?" if pd.isna(known[name]) else str(int(known[name]))

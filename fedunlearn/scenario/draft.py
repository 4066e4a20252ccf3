"""As much of a scenario as could be read, and what rules say of it: (dotted key, message) pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fedunlearn.core import RequestId, Strategy, Training
from fedunlearn.learning.models import Model
from fedunlearn.scenario.schema import (
    Engine,
    Evaluation,
    HistoryConfig,
    Request,
    SitesConfig,
    TopKeys,
    Tuned,
    Verdict,
)
from sites.collection import Source

Finding = tuple[str, str]


@dataclass(frozen=True)
class Entry:
    """A strategy as listed; ``wanted`` are the requests it is restricted to, None for all it can do."""

    strategy: Strategy
    label: str
    wanted: tuple[RequestId, ...] | None
    tuned: Tuned | None = None


@dataclass(frozen=True)
class Draft:
    """As much of a scenario as could be read; list items by their position, None for a part that could not.

    Attributes:
        complete: every request could be read.
    """

    top: TopKeys | None
    engine: Engine | None
    data: Source | None
    sites: SitesConfig | None
    model: Model | None
    training: Training | None
    requests: Mapping[int, Request]
    complete: bool
    entries: Mapping[int, Entry]
    evaluation: Evaluation | None
    verdict: Verdict | None
    history: HistoryConfig | None

    @property
    def sequential(self) -> bool:
        """Whether requests come one after the other."""
        return self.top is not None and self.top.timeline == "sequential"


def twice(
    values: Iterable[tuple[str, str]], noun: str, advice: str = "; each must be unique"
) -> Iterator[Finding]:
    """Of (key, value) pairs, those whose value came before."""
    seen = set()
    for key, value in values:
        if value in seen:
            yield key, f"the {noun} {value!r} is used twice{advice}"
        seen.add(value)

"""What a promise is: a sentence, and a function that finds out whether a strategy keeps it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fedunlearn.core import Granularity, RequestId, Strategy

WISHES: Mapping[RequestId, Granularity] = {"patients": Granularity.PATIENTS, "site": Granularity.SITE}
"""The toy's requests that a promise is tried on, those that a strategy can serve."""


class Broken(AssertionError):
    """A promise is not kept: what was found, what was expected, what to do."""


def hold(condition: bool, reason: str) -> None:
    """Make sure of something that a strategy promises.

    Raises:
        Broken: it does not hold.
    """
    if not condition:
        raise Broken(reason)


@dataclass(frozen=True)
class Promise:
    """One thing that every strategy promises.

    Attributes:
        check: (strategy), or (strategy, wish) if it is to be seen for each kind of request, or (strategy, wish,
            variant); raises `Broken`. Its name is the promise's, and the first line of its docstring says it.
        rounding: whether it compares numbers that torch rounded.
        thorough: whether tests try it in the gate only, since it takes long.
        variants: ways in which it is tried.
    """

    check: Callable[..., None]
    rounding: bool = False
    thorough: bool = False
    variants: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return self.check.__name__

    @property
    def says(self) -> str:
        """What is promised, in a sentence."""
        return (inspect.getdoc(self.check) or "").partition("\n")[0]

    def arguments(self, strategy: Strategy) -> Iterator[tuple[str, ...]]:
        """What `check` takes beside a strategy, once for each time that it is to be tried."""
        kinds = [wish for wish, kind in WISHES.items() if kind in strategy.granularity]
        wishes = kinds if "wish" in inspect.signature(self.check).parameters else [""]
        for wish in wishes:
            for variant in self.variants or ("",):
                yield tuple(filter(None, (wish, variant)))

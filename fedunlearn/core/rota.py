"""Who is asked in which round, where training asks only some of the hospitals at a time."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from fedunlearn.core.exchange import SiteId
from fedunlearn.core.seeds import derive


@dataclass(frozen=True)
class Rota:
    """Hospitals that take turns: in every round a share of them is drawn (McMahan et al. 2017, Algorithm 1, C).

    Every hospital has a place in a round that depends on seed, purpose, round and its own name alone; the first of
    them are asked, the share of those there are, rounded up. So training and retraining draw alike: where a hospital
    that left was not asked, all others are as before, unless there is one place less, and where it was, the next in
    order has its place. That is the sampling of McMahan et al. over the hospitals that remain, since each is as
    likely as any other, and nothing else differs between the two. With a share of 1 all are asked.

    Attributes:
        sites: the hospitals, in the order in which replies are averaged.
        participation: the share of them that a round asks, in (0, 1].
    """

    sites: tuple[SiteId, ...]
    participation: float = 1.0

    @staticmethod
    def among(sites: Iterable[SiteId], images: Mapping[SiteId, int], participation: float) -> Rota:
        """The rota of ``sites``, given how many images each trains on.

        A hospital without images has no turn. Where all are asked it is asked like the others, and says nothing.
        """
        everyone = tuple(sites)
        if participation == 1:
            return Rota(everyone)
        return Rota(tuple(site for site in everyone if images[site]), participation)

    @property
    def size(self) -> int:
        """How many hospitals a round asks."""
        # As it was written: in binary, a hundredth of ten thousand hospitals may be a little more than a hundred.
        return math.ceil(Fraction(repr(self.participation)) * len(self.sites))

    def asked(self, seed: int, purpose: str, number: int) -> tuple[SiteId, ...]:
        """The hospitals whose turn it is in round ``number`` of rounds for one purpose, in their order."""
        if self.size == len(self.sites):
            return self.sites
        key = derive(seed, "participation", purpose, number).to_bytes(8, "big")

        def place(site: SiteId) -> bytes:
            return hashlib.blake2b(site.encode(), digest_size=8, key=key).digest()

        first = frozenset(heapq.nsmallest(self.size, self.sites, key=place))
        return tuple(site for site in self.sites if site in first)

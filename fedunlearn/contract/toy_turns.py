"""The toy with seven hospitals of which a round of training asks half; one of them has no image to train on."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch

from fedunlearn.contract.hospitals import Memory, T, by_hand
from fedunlearn.contract.toy import CLASSES, SHAPE, ToyNet, network
from fedunlearn.core import (
    SERVER,
    Asks,
    Case,
    Course,
    Form,
    Images,
    LocalTraining,
    Needs,
    Network,
    Preparing,
    Procedure,
    Replies,
    RequestId,
    Rota,
    Select,
    SiteId,
    Strategy,
    Training,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.models import initial_weights

IMAGES: Mapping[SiteId, int] = dict(north=8, east=12, west=9, empty=0, south=7, coast=10, hills=6)
"""Training images of each hospital."""
SITES, HELD_OUT, SEED = tuple(IMAGES), 4, 7
TRAINING = Training(
    rounds=4,
    local=LocalTraining(epochs=2, batch_size=6, optimizer="adam", lr=1e-2),
    participation=0.5,
)
LEAVER: SiteId = "west"
EARLIER: RequestId = "emptied"
"""A request that others may come after: it named all images of the `EMPTIED`, who stay."""
EMPTIED: frozenset[SiteId] = frozenset(("north", "south", "hills"))
"""They are all that round 0 asked, and with the leaver all that round 3 did."""


@cache
def images(site: SiteId, split: str = "train") -> Images:
    """A class pattern under noise, as in the other toy."""
    count = IMAGES[site] if split == "train" else HELD_OUT
    generator = torch.Generator().manual_seed(derive(0, "turns", split, site))
    patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(count) % CLASSES
    first = 20 * SITES.index(site) + (1000 if split == "val" else 0)
    pixels = patterns[labels] + torch.randn(count, *SHAPE, generator=generator)
    return Images(pixels, labels, torch.arange(count) + first)


def named(request: RequestId, site: SiteId, count: int) -> torch.Tensor:
    """Which of a hospital's training images a request names, (count,) bool: three of north's, or all of west's.

    Or all of those of the `EMPTIED`.
    """
    first = {("patients", "north"): 3, ("site", LEAVER): count, **{(EARLIER, one): count for one in EMPTIED}}
    forgotten = torch.zeros(count, dtype=torch.bool)
    forgotten[: first.get((request, site), 0)] = True
    return forgotten


def select(site: SiteId, wanted: Select) -> Images:
    """The images that ``wanted`` names; the server owns none."""
    every = images(site, wanted.split)
    keep = torch.ones(len(every), dtype=torch.bool)
    if wanted.split == "train":
        for request in filter(None, (wanted.only,)):
            keep &= named(request, site, len(every))
        for request in wanted.without:
            keep &= ~named(request, site, len(every))
    return Images(every.pixels[keep], every.targets[keep], every.rows[keep])


@dataclass
class Local:
    """`fedunlearn.core.Local` of these hospitals."""

    site: SiteId
    network: Network
    classes: int = CLASSES

    def images(self, wanted: Select) -> Images:
        """See `Local`."""
        return select(self.site, wanted)


def answer(asks: Asks) -> Replies:
    """What hospitals reply."""
    return {site: task(Local(site, network())) for site, task in asks.items()}


def run(procedure: Procedure[T], seen: Callable[[frozenset[SiteId]], None] = lambda sites: None) -> T:
    """Drive one procedure to its end; ``seen`` is told who is asked in each of its rounds, the server left out."""

    def watched(asks: Asks) -> Replies:
        for one in asks.maps if isinstance(asks, ChainMap) else [asks]:
            seen(frozenset(one) - {SERVER})
        return answer(asks)

    return by_hand(procedure, watched)


@cache
def trained() -> tuple[Weights, Weights, Memory]:
    """Initial and original weights, and all that happened in between."""
    initial, memory = initial_weights(ToyNet(), Form(SHAPE, CLASSES), derive(SEED, "initial")), Memory()
    rota = Rota.among(SITES, IMAGES, TRAINING.participation)
    procedure = fedavg(initial, rota, Select(), TRAINING.local, range(TRAINING.rounds), SEED)
    return initial, memory.of(procedure, answer), memory


def case(
    request: RequestId,
    strategy: Strategy | None = None,
    seen: Callable[[frozenset[SiteId]], None] = lambda sites: None,
    before: tuple[RequestId, ...] = (),
) -> Case:
    """The request ``patients`` or ``site`` as ``strategy`` meets it, after those of ``before`` (`EARLIER`).

    ``seen`` is told of the strategy's own training, if any.
    """
    initial, original, memory = trained()
    layout = network().layout
    own = dict[str, Weights]()
    if isinstance(strategy, Preparing):
        course = Course(SEED, TRAINING.rounds, initial, TRAINING, layout, SITES, SITES, Select(), {**IMAGES})
        own = dict(run(strategy.prepare(course), seen))
    has = {site: len(select(site, Select(without=before))) for site in SITES}
    kept = {site: len(select(site, Select(without=(*before, request)))) for site in SITES}
    lost = {site: has[site] - kept[site] for site in SITES}
    sites = tuple(site for site in SITES if request != "site" or site != LEAVER)
    return Case(
        request=request,
        seed=SEED,
        rounds=TRAINING.rounds,
        initial=initial,
        original=own.get("model", original),
        training=TRAINING,
        layout=layout,
        roster=SITES,
        sites=sites,
        leaver=LEAVER if request == "site" else None,
        holders=tuple(site for site, count in lost.items() if count),
        kept={site: kept[site] for site in sites},
        lost={site: count for site, count in lost.items() if count},
        had=IMAGES,
        retain=Select(without=(*before, request)),
        forget=Select(only=request, without=before),
        history=replace(
            memory,
            own=own,
            needs=strategy.needs if strategy is not None else Needs(),
            parameters=tuple(layout.parameters),
        ),
    )

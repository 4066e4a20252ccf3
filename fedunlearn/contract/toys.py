"""A toy of any kind of task: three hospitals with a few images each; one of them leaves, or a patient of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from fedunlearn.contract.hospitals import Memory, T, by_hand
from fedunlearn.contract.toy import SITES, Part
from fedunlearn.core import (
    SERVER,
    Asks,
    Case,
    Course,
    Form,
    Images,
    LocalTraining,
    Needs,
    Preparing,
    Procedure,
    Replies,
    RequestId,
    Select,
    SiteId,
    Strategy,
    Training,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.models import Model, Network, initial_weights
from fedunlearn.learning.objectives import together

SEED = 7
PATIENTS: Mapping[Part, int] = {"train": 3, "val": 1, "proxy": 1}
"""Of each hospital, with an image each."""
TRAINING = Training(rounds=2, local=LocalTraining(epochs=2, batch_size=2, optimizer="adam", lr=5e-3))


@dataclass(frozen=True, eq=False)
class Toy:
    """Images of one kind, and a network for them; requests are ``patient`` (one of north's) and ``site`` (west).

    Attributes:
        says: what its images are, in words.
        model: the network's configuration.
        form: of its images.
        images: a hospital's images of one part.
    """

    says: str
    model: Model
    form: Form
    images: Callable[[SiteId, Part], Images]

    def network(self) -> Network:
        """The one resident network, built without touching the global RNG."""
        return _network(self)

    def select(self, site: SiteId, wanted: Select) -> Images:
        """The images that ``wanted`` names; the server's have no labels."""
        split: Part = wanted.split if wanted.split == "val" or wanted.split == "proxy" else "train"
        if site == SERVER:
            given = together(*(self.select(name, wanted) for name in SITES))
            return replace(given, targets=torch.full_like(given.targets, -1))
        every = self.images(site, split)
        keep = torch.ones(len(every), dtype=torch.bool)
        if wanted.only is not None:
            keep &= named(wanted.only, site, split)
        for request in wanted.without:
            keep &= ~named(request, site, split)
        return every.at(keep)

    def answer(self, asks: Asks) -> Replies:
        """What hospitals reply."""
        return {site: task(Ward(self, site, self.network())) for site, task in asks.items()}

    def run(self, procedure: Procedure[T]) -> T:
        """Drive one procedure to its end."""
        return by_hand(procedure, self.answer)

    def trained(self) -> tuple[Weights, Weights, Memory]:
        """Initial and original weights, and all that happened in between."""
        return _trained(self)

    def case(self, request: RequestId, strategy: Strategy | None = None) -> Case:
        """One of the requests ``patient`` and ``site`` as ``strategy`` meets it."""
        initial, original, memory = self.trained()
        own = self.prepared(strategy) if isinstance(strategy, Preparing) else {}
        sites = SITES[:2] if request == "site" else SITES
        lost = {site: int(named(request, site, "train").sum()) for site in SITES}
        return Case(
            request=request,
            seed=SEED,
            rounds=TRAINING.rounds,
            initial=initial,
            original=own.get("model", original),
            training=TRAINING,
            layout=self.network().layout,
            roster=SITES,
            sites=sites,
            leaver="west" if request == "site" else None,
            holders=tuple(site for site, count in lost.items() if count),
            kept={site: PATIENTS["train"] - lost[site] for site in sites},
            lost={site: count for site, count in lost.items() if count},
            had=dict.fromkeys(SITES, PATIENTS["train"]),
            retain=Select(without=(request,)),
            forget=Select(only=request),
            history=replace(
                memory,
                own=own,
                needs=strategy.needs if strategy is not None else Needs(),
                parameters=tuple(self.network().layout.parameters),
                images=PATIENTS["train"],
            ),
        )

    def prepared(self, strategy: Preparing) -> dict[str, Weights]:
        """What the strategy's own training gives."""
        images = dict.fromkeys(SITES, PATIENTS["train"])
        layout, rounds = self.network().layout, TRAINING.rounds
        course = Course(SEED, rounds, self.trained()[0], TRAINING, layout, SITES, SITES, Select(), images)
        return dict(self.run(strategy.prepare(course)))


def named(request: RequestId, site: SiteId, split: Part) -> Tensor:
    """Which of a hospital's images a request names, (N,) bool: the first of north, or all of west."""
    forgotten = torch.zeros(PATIENTS[split], dtype=torch.bool)
    if request == "site":
        forgotten[:] = site == "west"
    elif site == "north" and split == "train":
        forgotten[0] = True
    return forgotten


def rows(site: SiteId, split: Part) -> Tensor:
    """The row numbers of a hospital's images."""
    count = PATIENTS[split]
    return torch.arange(count) + count * SITES.index(site) + 100 * list(PATIENTS).index(split)


def drawing(purpose: str, site: SiteId, split: Part) -> torch.Generator:
    """What a hospital's images are drawn by."""
    return torch.Generator().manual_seed(derive(0, purpose, split, site))


@cache
def _network(toy: Toy) -> Network:
    with torch.random.fork_rng(devices=[]):
        return Network(toy.model, toy.form)


@cache
def _trained(toy: Toy) -> tuple[Weights, Weights, Memory]:
    initial, memory = initial_weights(toy.model, toy.form, derive(SEED, "initial")), Memory(rounds=2)
    procedure = fedavg(initial, SITES, Select(), TRAINING.local, range(TRAINING.rounds), SEED)
    return initial, memory.of(procedure, toy.answer), memory


@dataclass
class Ward:
    """`fedunlearn.core.Local` of a toy."""

    toy: Toy
    site: SiteId
    network: Network

    def __post_init__(self) -> None:
        self._before = self.network.passes

    @property
    def classes(self) -> int:
        """See `Local`."""
        return self.toy.form.classes

    @property
    def work(self) -> int:
        """See `sites.hospital.Hospital`."""
        return self.network.passes - self._before

    def images(self, wanted: Select) -> Images:
        """See `Local`."""
        return self.toy.select(self.site, wanted)

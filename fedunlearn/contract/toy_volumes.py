"""The toy with volumes of 8x8x8 voxels, three classes and label maps, and the small U-Net."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from fedunlearn.contract.hospitals import Memory, T, by_hand
from fedunlearn.contract.toy import SITES, Part
from fedunlearn.core import (
    IGNORED,
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
from fedunlearn.learning.models import Network, initial_weights
from fedunlearn.learning.models.volumes import UNet3D

SHAPE, CLASSES, SEED = (1, 8, 8, 8), 3, 7
PATIENTS: dict[Part, int] = {"train": 3, "val": 1, "proxy": 1}  # of each hospital, one volume each
TRAINING = Training(rounds=2, local=LocalTraining(epochs=2, batch_size=2, optimizer="adam", lr=5e-3))


@cache
def network() -> Network:
    """The one resident network, built without touching the global RNG."""
    with torch.random.fork_rng(devices=[]):
        return Network(UNet3D(), Form(SHAPE, CLASSES))


@cache
def volumes(site: SiteId, split: Part = "train") -> Images:
    """Two balls of different brightness, somewhere, under noise; of a few voxels nobody says what they are."""
    count, number = PATIENTS[split], SITES.index(site)
    generator = torch.Generator().manual_seed(derive(0, "volumes", split, site))
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))
    targets = torch.zeros(count, 8, 8, 8, dtype=torch.int64)
    for label in (1, 2):
        for volume in targets:
            centre = torch.randint(2, 6, (3, 1, 1, 1), generator=generator)
            volume[(grid - centre).norm(dim=0) < 2.5 - label / 2] = label
    noise = torch.randn(count, *SHAPE, generator=generator)
    first = count * number + 100 * list(PATIENTS).index(split)
    pixels = targets[:, None] - 1 + noise / 2
    targets[:, 3:5, 4, 2:6] = IGNORED
    return Images(pixels, targets, torch.arange(count) + first)


def select(site: SiteId, wanted: Select) -> Images:
    """The first volume of north is to forget, or all of west; the server's volumes have no labels."""
    split: Part = wanted.split if wanted.split in ("val", "proxy") else "train"
    if site == SERVER:
        given = [select(name, wanted) for name in SITES]
        pixels, targets, rows = (
            torch.cat([getattr(x, n) for x in given]) for n in ("pixels", "targets", "rows")
        )
        return Images(pixels, torch.full_like(targets, -1), rows)
    every = volumes(site, split)
    keep = torch.ones(len(every), dtype=torch.bool)
    if wanted.only is not None:
        keep &= named(wanted.only, site, split)
    for request in wanted.without:
        keep &= ~named(request, site, split)
    return Images(every.pixels[keep], every.targets[keep], every.rows[keep])


def named(request: RequestId, site: SiteId, split: Part) -> Tensor:
    """Which of a hospital's volumes a request names, (N,) bool."""
    forgotten = torch.zeros(PATIENTS[split], dtype=torch.bool)
    if request == "site":
        forgotten[:] = site == "west"
    elif site == "north" and split == "train":
        forgotten[0] = True
    return forgotten


@dataclass
class Ward:
    """`fedunlearn.core.Local` of volumes."""

    site: SiteId
    network: Network
    classes: int = CLASSES

    def __post_init__(self) -> None:
        self._before = self.network.passes

    @property
    def work(self) -> int:
        """See `sites.hospital.Hospital`."""
        return self.network.passes - self._before

    def images(self, wanted: Select) -> Images:
        """See `Local`."""
        return select(self.site, wanted)


def answer(asks: Asks) -> Replies:
    """What hospitals reply."""
    return {site: task(Ward(site, network())) for site, task in asks.items()}


def run(procedure: Procedure[T]) -> T:
    """Drive one procedure to its end."""
    return by_hand(procedure, answer)


@cache
def trained() -> tuple[Weights, Weights, Memory]:
    """Initial and original weights, and all that happened in between."""
    initial, memory = (
        initial_weights(UNet3D(), Form(SHAPE, CLASSES), derive(SEED, "initial")),
        Memory(rounds=2),
    )
    procedure = fedavg(initial, SITES, Select(), TRAINING.local, range(TRAINING.rounds), SEED)
    return initial, memory.of(procedure, answer), memory


def case(request: RequestId, strategy: Strategy | None = None) -> Case:
    """One of the requests ``patient`` and ``site`` as ``strategy`` meets it."""
    initial, original, memory = trained()
    own = prepared(strategy) if isinstance(strategy, Preparing) else {}
    sites = SITES[:2] if request == "site" else SITES
    lost = {site: int(named(request, site, "train").sum()) for site in SITES}
    return Case(
        request=request,
        seed=SEED,
        rounds=TRAINING.rounds,
        initial=initial,
        original=own.get("model", original),
        training=TRAINING,
        layout=network().layout,
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
            parameters=tuple(network().layout.parameters),
            images=PATIENTS["train"],
        ),
    )


def prepared(strategy: Preparing) -> dict[str, Weights]:
    """What the strategy's own training gives."""
    images = dict.fromkeys(SITES, PATIENTS["train"])
    layout, rounds = network().layout, TRAINING.rounds
    course = Course(SEED, rounds, trained()[0], TRAINING, layout, SITES, SITES, Select(), images)
    return dict(run(strategy.prepare(course)))

"""A federation small enough for any test: three hospitals, 6x6 images, and a network of some 2500 weights.

A third of the images carry labels drawn by chance: a network can only know them by heart, so that a trained model
remembers its images, and forgetting shows. The server owns images without labels that the hospitals gave it.
Everything a strategy touches is written down in a `Log`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import (
    SERVER,
    Asks,
    Case,
    Course,
    Every,
    Granularity,
    Images,
    Last,
    LocalTraining,
    Needs,
    Preparing,
    Procedure,
    Replies,
    Reply,
    RequestId,
    Seen,
    Select,
    SiteId,
    Strategy,
    Task,
    Training,
    Weights,
    derive,
)
from fedunlearn.federation import wire
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.history import choose
from fedunlearn.federation.jobs import Job, Label, Round, Watcher
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.models import Network, initial_weights

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

SITES = ("north", "east", "west")
SHAPE, CLASSES = (1, 6, 6), 4
Part = Literal["train", "val", "proxy"]
PATIENTS: Mapping[Part, int] = {"train": 6, "val": 3, "proxy": 3}  # of each hospital
IMAGES = 4  # of each patient
TRAINING = Training(rounds=4, local=LocalTraining(epochs=4, batch_size=12, optimizer="adam", lr=1e-2))
REQUESTS: Mapping[RequestId, Granularity] = {
    "patients": Granularity.PATIENTS,  # one patient of north, and one whom both north and east hold
    "everyone": Granularity.PATIENTS,  # all patients of north, which stays with nothing to train on
    "site": Granularity.SITE,  # west leaves
}


@dataclass(frozen=True)
class ToyNet:
    """A convolution, BatchNorm if asked for, a hidden layer; in float64 if ``wide``."""

    name: Literal["toy"] = "toy"
    norm: bool = False
    wide: bool = False

    kind = "classification"
    dimensions = (2,)
    smallest = 4

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """See `Model.build`."""
        layers = nn.Sequential(
            nn.Conv2d(shape[0], 4, 3, padding=1),
            nn.BatchNorm2d(4) if self.norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * shape[1] * shape[2], 16),
            nn.ReLU(),
            nn.Linear(16, classes),
        )
        return layers.double() if self.wide else layers


@cache
def network(norm: bool = False) -> Network:
    """The one resident network, built without touching the global RNG."""
    with torch.random.fork_rng(devices=[]):
        return Network(ToyNet(norm=norm), SHAPE, CLASSES)


@contextmanager
def counting(norm: bool = False) -> Iterator[list[int]]:
    """How many images the first layer of `network` is given, one number for each time; also by vmap."""
    seen = list[int]()

    def see(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        given = arguments[0]
        while torch._C._functorch.is_functorch_wrapped_tensor(given):
            given = torch._C._functorch.get_unwrapped(given)
        seen.append(given.numel() // math.prod(SHAPE))

    first = next(layer for layer in network(norm).module.modules() if isinstance(layer, nn.Conv2d))
    with first.register_forward_pre_hook(see):
        yield seen


@cache
def wide_network(norm: bool = False) -> Network:
    """The same in float64, where one way to compute a number is told from another whatever the rounding."""
    with torch.random.fork_rng(devices=[]):
        return Network(ToyNet(norm=norm, wide=True), SHAPE, CLASSES)


def wide(weights: Weights) -> Weights:
    """Weights for `wide_network`."""
    return {name: x.double() if x.is_floating_point() else x for name, x in weights.items()}


def widened(images: Images) -> Images:
    """Images for `wide_network`."""
    return replace(images, pixels=images.pixels.double())


@cache
def images(site: SiteId, split: Part = "train") -> Images:
    """A hospital's images of one part: a class pattern under noise, a third of them mislabelled."""
    purpose: dict[Part, tuple[str, ...]] = {"train": (), "val": ("held out",), "proxy": ("proxy",)}
    generator = torch.Generator().manual_seed(derive(0, "toy", *purpose[split], site))
    patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(5))
    count = len(patients(site, split))
    labels = torch.arange(count) % CLASSES
    pixels = patterns[labels] + torch.randn(count, *SHAPE, generator=generator)
    labels[::3] = torch.randint(CLASSES, (len(labels[::3]),), generator=generator)
    first = count * SITES.index(site) + 1000 * list(PATIENTS).index(split)
    return Images(pixels, labels, torch.arange(count) + first)


def patients(site: SiteId, split: Part = "train") -> list[str]:
    """The patient of each image; ``shared`` goes to north and to east."""
    mark = {"train": "", "val": "v", "proxy": "p"}[split]
    names = [f"{site}-{mark}{i}" for i in range(PATIENTS[split])]
    if site in ("north", "east") and split == "train":
        names[-1] = "shared"
    return [name for name in names for _ in range(IMAGES)]


def named(request: RequestId, site: SiteId, split: Part = "train") -> Tensor:
    """Which of a hospital's images a request names, (N,) bool."""
    wanted = {
        "patients": lambda name: name in ("north-0", "shared"),
        "everyone": lambda name: name in patients("north"),
        "site": lambda name: site == "west",
    }[request]
    return torch.tensor([wanted(name) for name in patients(site, split)])


def select(site: SiteId, wanted: Select) -> Images:
    """The images that ``wanted`` names: of validation, given to the server, or else of training; there are no others.

    At the server, those that all hospitals gave it, under no label.
    """
    split: Part = wanted.split if wanted.split == "val" or wanted.split == "proxy" else "train"
    if site == SERVER:
        assert split == "proxy", "the server owns no other images"
        given = [select(name, wanted) for name in SITES]
        pixels, rows = (torch.cat([getattr(x, name) for x in given]) for name in ("pixels", "rows"))
        return Images(pixels, torch.full_like(rows, -1), rows)
    every = images(site, split)
    keep = torch.ones(len(every), dtype=torch.bool)
    if wanted.only is not None:
        keep &= named(wanted.only, site, split)
    for request in wanted.without:
        keep &= ~named(request, site, split)
    return Images(every.pixels[keep], every.targets[keep], every.rows[keep])


@dataclass
class Log:
    """What was touched: (site, round) asked, image rows by site, label counts, history."""

    asked: list[tuple[SiteId, int]] = field(default_factory=list)
    rows: dict[SiteId, set[int]] = field(default_factory=dict)
    classes: bool = False
    updates: set[tuple[int, SiteId]] = field(default_factory=set)
    cumulative: set[SiteId] = field(default_factory=set)
    checkpoints: set[int] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)


@dataclass
class ToyLocal:
    """`fedunlearn.core.Local`, under observation."""

    site: SiteId
    network: Network
    log: Log

    def __post_init__(self) -> None:
        self._before = self.network.passes

    @property
    def work(self) -> int:
        """See `sites.hospital.Hospital`."""
        return self.network.passes - self._before

    @property
    def classes(self) -> int:
        """See `Local`."""
        self.log.classes = True
        return CLASSES

    def images(self, wanted: Select) -> Images:
        """See `Local`."""
        found = select(self.site, wanted)
        self.log.rows.setdefault(self.site, set()).update(found.rows.tolist())
        return found


Fault = Callable[[Ask, Reply], Reply]
"""Spoils a reply, or raises."""


@dataclass
class ToyLink:
    """`fedunlearn.federation.engines.Link` without threads.

    Attributes:
        norm: whether the network has BatchNorm.
        across: let tasks and replies cross the wire.
        scramble: answer in a random order drawn from this seed; None for the order asked.
        fault: spoils replies.
        log: what the hospitals touched.
    """

    norm: bool = False
    across: bool = True
    scramble: int | None = None
    fault: Fault | None = None
    log: Log = field(default_factory=Log)
    _waiting: list[Ask] = field(default_factory=list)
    _random: random.Random | None = None

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        self._waiting += asks

    def collect(self) -> Sequence[Answer]:
        """See `Link`."""
        if self.scramble is not None and self._random is None:
            self._random = random.Random(self.scramble)
        ask = self._waiting.pop(self._random.randrange(len(self._waiting)) if self._random else 0)
        local = ToyLocal(ask.site, network(self.norm), self.log)
        try:
            reply = self._cross(self._cross(ask.task)(local))
            if self.fault is not None:
                reply = self.fault(ask, reply)
        except Exception as error:  # whatever a hospital raises becomes its answer
            return [Answer(ask.ticket, None, f"{type(error).__name__}: {error}", 0.0, 0)]
        return [Answer(ask.ticket, reply, None, 0.0, local.work)]

    def _cross(self, value: Any) -> Any:
        return wire.unpack(*wire.pack(value)) if self.across else value


@dataclass
class Memory:
    """A watcher that keeps all of training, and shows it as `fedunlearn.core.History` under observation."""

    log: Log = field(default_factory=Log)
    rounds: int = TRAINING.rounds
    sent: dict[int, Weights] = field(default_factory=dict)
    got: dict[tuple[int, SiteId], Weights] = field(default_factory=dict)
    own: Mapping[str, Weights] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        for site, answer in round.answers.items():
            task: Any = round.asks[site]
            self.sent[round.number] = task.weights
            assert answer.reply is not None
            assert answer.reply.weights is not None
            self.got[round.number, site] = w.subtract(answer.reply.weights, task.weights)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""

    def update(self, round: int, site: SiteId) -> Weights:
        """See `History`."""
        assert round < self.rounds, "that round is still to come"
        if not isinstance(self.needs.updates, Every | Last | None):
            assert site in self.chosen(round), "its choice did not keep that"
        self.log.updates.add((round, site))
        return self.got[round, site]

    def chosen(self, round: int) -> tuple[SiteId, ...]:
        """See `History`: of hospitals with as many images each."""
        assert not isinstance(self.needs.updates, Every | Last | None), "it declares no choice"
        return choose(self.needs.updates, self.rounds, self.seen).get(round, ())

    def seen(self, round: int) -> Seen:
        """What a choice sees of a round."""
        updates = {site: self.trained(self.got[round, site]) for site in SITES}
        return Seen(self.trained(self.sent[round]), updates, dict.fromkeys(SITES, PATIENTS["train"] * IMAGES))

    def trained(self, weights: Weights) -> Weights:
        """The trained tensors among ``weights``."""
        return {name: weights[name] for name in network("1.running_var" in weights).layout.parameters}

    def cumulative(self, site: SiteId) -> Weights:
        """See `History`."""
        self.log.cumulative.add(site)
        total: Weights = w.multiply(self.sent[0], 0.0)
        for t in range(self.rounds):
            update = self.got[t, site]
            if self.needs.cumulative == "distances":
                away = w.subtract(w.add(self.sent[t], update), self.sent[0])
                update = {name: x.abs() for name, x in away.items()}
            total = w.add(total, update)
        return total

    def checkpoint(self, round: int) -> Weights:
        """See `History`."""
        assert round < self.rounds, "that round is still to come"
        self.log.checkpoints.add(round)
        return self.sent[round]

    def prepared(self, name: str) -> Weights:
        """See `History`."""
        self.log.prepared.add(name)
        return self.own[name]


@dataclass
class Asked:
    """A watcher that writes down who was asked in which round."""

    log: Log

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        self.log.asked += [(site, round.number) for site in round.asks]

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""


def answer(task: Task, site: SiteId, norm: bool = False) -> Reply:
    """What one hospital replies to one task."""
    return task(ToyLocal(site, network(norm), Log()))


def by_hand(procedure: Procedure[T], reply: Callable[[Asks], Replies]) -> T:
    """Drive a procedure with replies made up by ``reply``: no hospital, no driver."""
    try:
        asks = next(procedure)
        while True:
            asks = procedure.send(reply(asks))
    except StopIteration as stop:
        result: T = stop.value
        return result


LABEL = Label("unlearn", "request", "toy", 7)


def run(procedure: Procedure[T], link: ToyLink | None = None, watchers: Sequence[Watcher] = ()) -> T:
    """Drive one procedure to its end."""
    results: list[T] = []

    def keep(result: T) -> list[Job[Any]]:
        results.append(result)
        return []

    drive([Job(LABEL, procedure, keep)], link or ToyLink(), watchers)
    return results[0]


@cache
def trained(seed: int = 7, norm: bool = False) -> tuple[Weights, Weights, Memory]:
    """Initial and original weights, and all that happened in between."""
    initial, memory = initial_weights(ToyNet(norm=norm), SHAPE, CLASSES, derive(seed, "initial")), Memory()
    procedure = fedavg(initial, SITES, Select(), TRAINING.local, range(TRAINING.rounds), seed)
    return initial, run(procedure, ToyLink(norm=norm), [memory]), memory


def once(function: F) -> F:
    """`functools.cache`, which does not know that a `Strategy` is a frozen dataclass and can be hashed."""
    return cache(function)  # type: ignore[return-value]


@once
def prepared(
    strategy: Strategy, seed: int = 7, norm: bool = False, rounds: int = TRAINING.rounds
) -> Mapping[str, Weights]:
    """What the strategy's own training gives, if it has one."""
    if not isinstance(strategy, Preparing):
        return {}
    initial, _, _ = trained(seed, norm)
    images = dict.fromkeys(SITES, PATIENTS["train"] * IMAGES)
    layout = network(norm).layout
    course = Course(seed, rounds, initial, TRAINING, layout, SITES, SITES, Select(), images)
    return run(strategy.prepare(course), ToyLink(norm=norm))


def case(
    request: RequestId,
    seed: int = 7,
    norm: bool = False,
    rounds: int = TRAINING.rounds,
    log: Log | None = None,
    strategy: Strategy | None = None,
) -> Case:
    """One of `REQUESTS` as ``strategy`` meets it, after so many rounds of training: in its own way if it has one."""
    initial, original, memory = trained(seed, norm)
    own = prepared(strategy, seed, norm, rounds) if strategy is not None else {}
    needs = strategy.needs if strategy is not None else Needs()
    fedavg_model = original if rounds == TRAINING.rounds else memory.sent[rounds]
    retain, forget = Select(without=(request,)), Select(only=request)
    sites = SITES[:2] if request == "site" else SITES
    lost = {site: int(named(request, site).sum()) for site in SITES}
    return Case(
        request=request,
        seed=seed,
        rounds=rounds,
        initial=initial,
        original=own.get("model", fedavg_model),
        training=TRAINING,
        layout=network(norm).layout,
        roster=SITES,
        sites=sites,
        leaver="west" if request == "site" else None,
        holders=tuple(site for site, count in lost.items() if count),
        kept={site: PATIENTS["train"] * IMAGES - lost[site] for site in sites},
        lost={site: count for site, count in lost.items() if count},
        retain=retain,
        forget=forget,
        history=replace(memory, log=log or Log(), rounds=rounds, own=own, needs=needs),
    )


@once
def retrained(
    request: RequestId, seed: int = 7, norm: bool = False, strategy: Strategy | None = None
) -> Weights:
    """The exact answer: training without the data, in the strategy's own way if it has one."""
    c = case(request, seed, norm)
    if isinstance(strategy, Preparing):
        return run(strategy.prepare(c.course), ToyLink(norm=norm))["model"]
    return run(
        fedavg(c.initial, c.sites, c.retain, c.training.local, range(c.rounds), seed), ToyLink(norm=norm)
    )


@dataclass(frozen=True)
class Outcome:
    """What a strategy gave, and what it touched."""

    weights: Weights
    log: Log


@once
def outcome(strategy: Strategy, request: RequestId, seed: int = 7, norm: bool = False) -> Outcome:
    """Run a strategy once; every test that only looks shares this run."""
    log = Log()
    procedure = strategy.unlearn(case(request, seed, norm, log=log, strategy=strategy))
    return Outcome(run(procedure, ToyLink(norm=norm, log=log), [Asked(log)]), log)


def chances(weights: Weights, request: RequestId, norm: bool = False) -> Tensor:
    """The probability that a model gives to the label of each image a request names, (n,)."""
    net = network(norm)
    net.load(weights)
    net.module.eval()
    parts = []
    with torch.inference_mode():
        for site in SITES:
            forget = select(site, Select(only=request))
            if len(forget):
                p = torch.softmax(net.module(forget.pixels), 1)
                parts.append(p.gather(1, forget.targets[:, None])[:, 0])
    return torch.cat(parts)

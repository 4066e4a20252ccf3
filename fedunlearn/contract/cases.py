"""Cases on the toy, and what strategies make of them; each is computed once in a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from fedunlearn.contract.hospitals import Asked, Log, Memory, ToyLink, run
from fedunlearn.contract.toy import (
    CLASSES,
    IMAGES,
    PATIENTS,
    SHAPE,
    SITES,
    TRAINING,
    ToyNet,
    network,
    select,
)
from fedunlearn.core import (
    Case,
    Course,
    Form,
    Needs,
    Preparing,
    RequestId,
    Select,
    Strategy,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.models import initial_weights

F = TypeVar("F", bound=Callable[..., object])


@cache
def trained(seed: int = 7, norm: bool = False) -> tuple[Weights, Weights, Memory]:
    """Initial and original weights, and all that happened in between."""
    initial, memory = (
        initial_weights(ToyNet(norm=norm), Form(SHAPE, CLASSES), derive(seed, "initial")),
        Memory(),
    )
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
    before: tuple[RequestId, ...] = (),
) -> Case:
    """One of `REQUESTS` as ``strategy`` meets it, after so many rounds of training: in its own way if it has one.

    Those of ``before`` were served already; none of them is a whole hospital's.
    """
    initial, original, memory = trained(seed, norm)
    own = prepared(strategy, seed, norm, rounds) if strategy is not None else {}
    needs = strategy.needs if strategy is not None else Needs()
    fedavg_model = original if rounds == TRAINING.rounds else memory.sent[rounds]
    retain, forget = Select(without=(*before, request)), Select(only=request, without=before)
    sites = SITES[:2] if request == "site" else SITES
    lost = {site: len(select(site, forget)) for site in SITES}
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
        kept={site: len(select(site, retain)) for site in sites},
        lost={site: count for site, count in lost.items() if count},
        had=dict.fromkeys(SITES, PATIENTS["train"] * IMAGES),
        retain=retain,
        forget=forget,
        history=replace(
            memory,
            log=log or Log(),
            rounds=rounds,
            own=own,
            needs=needs,
            parameters=tuple(network(norm).layout.parameters),
        ),
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


def retained(weights: Weights, request: RequestId) -> tuple[int, int]:
    """Of the training images that a request leaves, how many a model is right about, and how many there are."""
    net, right, every = network(), 0, 0
    net.load(weights)
    net.module.eval()
    with torch.inference_mode():
        for site in SITES:
            retain = select(site, Select(without=(request,)))
            every += len(retain)
            if len(retain):
                right += int((net.module(retain.pixels).argmax(1) == retain.targets).sum())
    return right, every

"""A year of requests as a run's manifest has it: dates, what the desk decided, what policies did, whom to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from fedunlearn.core import RequestId

OPT_OUT = "opt_out"
"""The kind of a request that bars later use and asks for nothing to be unlearned."""


@dataclass(frozen=True)
class Entry:
    """A request as the desk decided it.

    Attributes:
        id, site, kind: which, whose, and what it asks for.
        received: the day on which it came in.
        state: "accepted", "refused", or "open" where the desk has not met since.
        boundary: when the desk met, in rounds trained; None of an open one.
        reason, sentence: why it was refused, as a code and in words.
        of: the earlier request that it repeats, if it does.
        images: training images to unlearn for it that no earlier one named.
    """

    id: RequestId
    site: str
    kind: str
    received: date
    state: str
    boundary: int | None
    reason: str
    sentence: str
    of: str
    images: int

    @property
    def unlearns(self) -> bool:
        """Whether something is to be unlearned for it.

        Not for an opt-out, for who was not trained on, nor for what earlier ones had already.
        """
        return self.state == "accepted" and self.kind != OPT_OUT and self.images > 0


@dataclass(frozen=True)
class Turn:
    """What a policy did at a boundary.

    Attributes:
        round: rounds trained before.
        bars: requests whose images are not trained on from here.
        erases: requests that were unlearned.
        steps: what its procedures are called in the ledger.
    """

    round: int
    bars: tuple[RequestId, ...]
    erases: tuple[RequestId, ...]
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """When accepted requests were unlearned, and by which strategies.

    Attributes:
        label: what it is called.
        name: its kind.
        strategies: labels; it was gone through with each.
        turns: in order.
        waiting: accepted requests that were not unlearned when the year ended.
    """

    label: str
    name: str
    strategies: tuple[str, ...]
    turns: tuple[Turn, ...]
    waiting: tuple[RequestId, ...]

    @property
    def answered(self) -> Mapping[RequestId, int]:
        """By request, the boundary at which it was unlearned."""
        return {request: turn.round for turn in self.turns for request in turn.erases}


@dataclass(frozen=True)
class Look:
    """The models in hand at a boundary, once what was due there was done.

    Attributes:
        policy, round, seed: where.
        original: trained on everybody.
        retrained: trained for as many rounds, without anybody who was ever accepted.
        strategies: by label.
        distances: by label, how far its weights are from the retrained ones, as a share of their length.
    """

    policy: str
    round: int
    seed: int
    original: str
    retrained: str
    strategies: Mapping[str, str]
    distances: Mapping[str, float]


@dataclass(frozen=True)
class Retraining:
    """A policy that measures drift trained anew.

    Attributes:
        policy, strategy, seed, round: who, and when.
        drift: what it had come to.
    """

    policy: str
    strategy: str
    seed: int
    round: int
    drift: float


@dataclass(frozen=True)
class Year:
    """All of it.

    Attributes:
        start: the day on which training begins.
        days: of a round.
        rounds: until the end.
        docket: every request, in the order in which they came in.
        policies: in the scenario's order.
        looks: in the order of policies, boundaries and seeds.
        retrainings: see `Retraining`.
        participation: the share of the hospitals that a round of training asks (`fedunlearn.core.Rota`).
    """

    start: date
    days: int
    rounds: int
    docket: tuple[Entry, ...]
    policies: tuple[Policy, ...]
    looks: tuple[Look, ...]
    retrainings: tuple[Retraining, ...]
    participation: float = 1.0

    def day(self, boundary: int) -> date:
        """The date of a boundary: so many rounds are trained then."""
        return self.start + timedelta(days=boundary * self.days)

    @property
    def end(self) -> date:
        """The last day."""
        return self.day(self.rounds)


def year(manifest: Mapping[str, Any]) -> Year | None:
    """The year of a run; None of a run without a calendar.

    Raises:
        KeyError, TypeError, ValueError: the manifest is not one of a year.
    """
    if not manifest.get("calendar"):
        return None
    calendar = manifest["calendar"]
    return Year(
        start=date.fromisoformat(calendar["start"]),
        days=int(calendar["days"]),
        rounds=int(calendar["rounds"]),
        docket=tuple(_entry(one) for one in manifest["docket"]),
        policies=tuple(_policy(one) for one in manifest["policies"]),
        looks=tuple(_look(one) for one in manifest["looks"]),
        retrainings=tuple(_retraining(one) for one in manifest.get("retrainings", ())),
        participation=float(calendar.get("participation", 1)),
    )


def _entry(one: Mapping[str, Any]) -> Entry:
    boundary = one["boundary"]
    return Entry(
        id=str(one["id"]),
        site=str(one["site"]),
        kind=str(one["kind"]),
        received=date.fromisoformat(one["received"]),
        state=str(one["state"]),
        boundary=None if boundary is None else int(boundary),
        reason=str(one["reason"]),
        sentence=str(one["sentence"]),
        of=str(one["of"] or ""),
        images=int(one["images"]),
    )


def _policy(one: Mapping[str, Any]) -> Policy:
    return Policy(
        label=str(one["label"]),
        name=str(one["name"]),
        strategies=tuple(map(str, one["strategies"])),
        turns=tuple(
            Turn(
                int(turn["round"]),
                tuple(map(str, turn["bars"])),
                tuple(map(str, turn["erases"])),
                tuple(map(str, turn["steps"])),
            )
            for turn in one["turns"]
        ),
        waiting=tuple(map(str, one["waiting"])),
    )


def _look(one: Mapping[str, Any]) -> Look:
    return Look(
        policy=str(one["policy"]),
        round=int(one["round"]),
        seed=int(one["seed"]),
        original=str(one["original"]),
        retrained=str(one["retrained"]),
        strategies={str(label): str(model) for label, model in one["strategies"].items()},
        distances={str(label): float(far) for label, far in one["distances"].items()},
    )


def _retraining(one: Mapping[str, Any]) -> Retraining:
    return Retraining(
        str(one["policy"]), str(one["strategy"]), int(one["seed"]), int(one["round"]), float(one["drift"])
    )

"""What everything cost: bytes, site-seconds, images and storage of every procedure and round, as observed.

A strategy never reports its own cost. Bytes are those of the arrays in tasks and replies, the same for every engine.
What the server is asked to do with images of its own moves no bytes and costs no hospital anything.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from fedunlearn.core import SERVER
from fedunlearn.federation import wire
from fedunlearn.federation.horizons import epochs
from fedunlearn.federation.jobs import Label, Round


@dataclass(frozen=True)
class Entry:
    """One round of one procedure.

    Attributes:
        phase, request, strategy, seed: whose round (`fedunlearn.federation.jobs.Label`).
        round: its number, from 0.
        sites: how many hospitals were asked.
        down_bytes, up_bytes: arrays sent to and received from the hospitals.
        site_seconds: wall time of the hospitals' work, added up.
        server_seconds: wall time of the server's work: the procedure's own, and on images that the server owns.
        images: passes of one image through a network, added up: all of them, whatever for
            (`fedunlearn.learning.models.Network.passes`). An answer that failed counts none.
        epochs: the most passes over its images that a hospital, or the server, was asked to train for.
        stored_bytes: history that the server holds for this procedure.
        machines: the hosts on which the hospitals worked, in the order asked; of an earlier version's, none.
    """

    phase: str
    request: str
    strategy: str
    seed: int
    round: int
    sites: int
    down_bytes: int
    up_bytes: int
    site_seconds: float
    server_seconds: float
    images: int
    epochs: int
    stored_bytes: int
    machines: Sequence[str] = ()


class Ledger:
    """Collects one entry per round (see `Watcher`)."""

    def __init__(self) -> None:
        self._entries: dict[Label, list[Entry]] = {}
        self._stored: dict[Label, int] = {}

    def stores(self, label: Label, stored_bytes: int) -> None:
        """Note how much history the server holds for a procedure that is about to start."""
        self._stored[label] = stored_bytes

    def tuned(
        self, strategy: str, seed: int, trials: int, site_seconds: float, images: int, bytes: int
    ) -> None:
        """Note what finding a strategy's hyper-parameters has cost, before this run: once, whatever it is used for.

        A row of the phase "tune"; its round is the number of trials, its traffic is all counted as sent.
        """
        label = Label("tune", "", strategy, seed)
        self._add(label, trials, 0, bytes, 0, site_seconds, 0.0, images)

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        sites = [site for site in round.asks if site != SERVER]
        known = dict[int, int]()
        seconds = {site: answer.seconds for site, answer in round.answers.items()}
        self._add(
            round.label,
            round.number,
            len(sites),
            sum(wire.size(round.asks[site], known) for site in sites),
            sum(round.received[site] for site in sites),
            sum(seconds[site] for site in sites),
            round.server_seconds + seconds.get(SERVER, 0.0),
            sum(answer.images for answer in round.answers.values()),
            epochs(round.asks),
            tuple(sys.intern(round.answers[site].machine) for site in sites),
        )

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`: the last step, which asks nobody, is a row of its own."""
        self._add(label, rounds, 0, 0, 0, 0.0, server_seconds, 0)

    @property
    def name(self) -> str:
        """See `Remembering`."""
        return "ledger"

    def known(self, label: Label) -> object:
        """See `Remembering`: its entries; of hosts that follow one another, each once and how often.

        It is written after every round of a training: a thousand times the same name would be most of it.
        """
        return [
            {**vars(entry), "machines": [[host, len([*same])] for host, same in groupby(entry.machines)]}
            for entry in self._entries.get(label, ())
        ]

    def recall(self, label: Label, known: Sequence[Mapping[str, Any]] | None) -> None:
        """See `Remembering`. What is not told by the label's name alone stays as it was."""
        whose = {
            "phase": label.phase,
            "request": label.request,
            "strategy": label.strategy,
            "seed": label.seed,
        }
        self._entries[label] = [
            Entry(**{**entry, **whose, "machines": _hosts(entry.get("machines", ()))})
            for entry in known or ()
        ]

    def tasks(self) -> Counter[str]:
        """How many tasks of hospitals each machine has done, by its host."""
        return Counter(
            host for entries in self._entries.values() for entry in entries for host in entry.machines
        )

    def table(self) -> pd.DataFrame:
        """All entries, ordered by procedure and round, whatever order they finished in."""
        entries = [vars(entry) for of_label in self._entries.values() for entry in of_label]
        frame = pd.DataFrame(entries, columns=list(Entry.__annotations__))
        return frame.sort_values(
            ["seed", "request", "strategy", "phase", "round"], kind="stable", ignore_index=True
        )

    def _add(
        self,
        label: Label,
        number: int,
        sites: int,
        down: int,
        up: int,
        seconds: float,
        server: float,
        images: int,
        epochs: int = 0,
        machines: Sequence[str] = (),
    ) -> None:
        stored = self._stored.get(label, 0)
        self._entries.setdefault(label, []).append(
            Entry(
                label.phase,
                label.request,
                label.strategy,
                label.seed,
                number,
                sites,
                down,
                up,
                seconds,
                server,
                images,
                epochs,
                stored,
                machines,
            )
        )


def _hosts(told: Sequence[Any]) -> tuple[str, ...]:
    """Hosts as `Ledger.known` tells them, or one by one, as earlier versions told them."""
    runs = ((one, 1) if isinstance(one, str) else (one[0], one[1]) for one in told)
    return tuple(sys.intern(host) for host, count in runs for _ in range(count))

"""The models that procedures have in hand after each of their rounds, kept until somebody has measured them.

A procedure has a model in hand between two rounds: the one that it sends next (`fedunlearn.federation.horizons`). It
is written to the run folder's scratch before the round's end is noted anywhere else, so a run that goes on finds it
there. Writing is not forced to the disk: a power cut may cost the newest.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedunlearn.core import RunError, Weights
from fedunlearn.federation import wire
from fedunlearn.federation.drive import in_hand
from fedunlearn.federation.jobs import Label, Round

TRACED = ("original", "retrained", "unlearn", "continue")
"""The phases whose models are kept: what trains the model of a federation, and what takes back of it."""


@dataclass
class _Trace:
    """What is kept of a procedure: by rounds done, the number of the file; every ``stride``-th round."""

    files: dict[int, int] = field(default_factory=dict)
    rounds: int | None = None
    stride: int = 1
    newest: tuple[int, Weights] | None = None

    def told(self) -> dict[str, object]:
        return {"files": list(self.files.items()), "rounds": self.rounds, "stride": self.stride}


class Traces:
    """Watches procedures (`fedunlearn.federation.jobs.Watcher`) and keeps what they have in hand.

    Of a procedure with more than ``most`` rounds every second one is kept, every fourth of one with more than twice as
    many, and so on. A model that is sent again is kept once. Rounds that send none, or several, leave nothing.

    Args:
        folder: where to; made when there is something to keep.
        most: so many models of one procedure at the most.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._traces: dict[Label, _Trace] = {}

    def round(self, round: Round) -> None:
        """See `Watcher`.

        Raises:
            RunError: the model cannot be written.
        """
        if round.label.phase not in TRACED:
            return
        if round.number == 0:
            self._traces[round.label] = _Trace()
        trace, model = self._traces.setdefault(round.label, _Trace()), in_hand(round.asks)
        if model is None or round.number % trace.stride:
            return
        if trace.newest is None or trace.newest[1] is not model:
            wire.save(self._file(round.label, round.number), dict(model), durable=False)
            trace.newest = round.number, model
        trace.files[round.number] = trace.newest[0]
        if len(trace.files) > self.most:
            self._thin(round.label, trace)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""
        if label.phase in TRACED:
            trace = self._traces.setdefault(label, _Trace())
            trace.rounds, trace.newest = rounds, None

    @property
    def name(self) -> str:
        """See `Remembering`."""
        return "traces"

    def known(self, label: Label) -> object:
        """See `Remembering`: which rounds are kept in which files."""
        return self._traces[label].told() if label in self._traces else None

    def recall(self, label: Label, known: Mapping[str, Any] | None) -> None:
        """See `Remembering`. Of a procedure that nobody watched, nothing is known."""
        self._traces.pop(label, None)
        if known is not None:
            files = {int(number): int(file) for number, file in known["files"]}
            self._traces[label] = _Trace(files, known["rounds"], known["stride"])

    def rounds(self, label: Label) -> int | None:
        """How many rounds a procedure took; None if that is not known."""
        return self._traces[label].rounds if label in self._traces else None

    def whole(self, label: Label) -> bool:
        """Whether all that a procedure had in hand is there."""
        trace = self._traces.get(label)
        return trace is not None and all(
            self._file(label, file).is_file() for file in set(trace.files.values())
        )

    def numbers(self, label: Label) -> Sequence[tuple[int, int]]:
        """The rounds done when a model was in hand, ascending, each with the number of that model (`model`)."""
        return sorted(self._traces[label].files.items()) if label in self._traces else ()

    def model(self, label: Label, number: int) -> Weights | None:
        """A model that was kept; None if it is there no more, or damaged."""
        with suppress(RunError):
            found: Weights = wire.load(self._file(label, number))[0]
            return found
        return None

    def drop(self, label: Label) -> None:
        """Remove what is kept of a procedure: it has been measured."""
        shutil.rmtree(self._folder(label), ignore_errors=True)

    # -------------------------------------------------------------------------------------------- pieces

    def _thin(self, label: Label, trace: _Trace) -> None:
        """Keep every second of the rounds that are kept."""
        trace.stride *= 2
        before = set(trace.files.values())
        trace.files = {number: file for number, file in trace.files.items() if number % trace.stride == 0}
        for file in before - set(trace.files.values()):
            self._file(label, file).unlink(missing_ok=True)
        if trace.newest is not None and trace.newest[0] not in trace.files.values():
            trace.newest = None

    def _folder(self, label: Label) -> Path:
        return self.folder / hashlib.sha256(repr(label).encode()).hexdigest()[:32]

    def _file(self, label: Label, number: int) -> Path:
        return self._folder(label) / f"model-{number}"

"""What the server keeps of training: the union of what the scenario's strategies declare, and nothing else.

One `Recorder` watches the training of one seed and writes to disk, so that a large model's history never sits in
memory. A strategy sees it through `Recorder.view`, which shows what that strategy declared and refuses the rest.
What a strategy's own training gave (`fedunlearn.core.Preparing`) is on disk as well, in a folder of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from fedunlearn import files, weights as w
from fedunlearn.core import Cumulative, Every, Last, Needs, SiteId, UndeclaredNeed, Weights
from fedunlearn.federation.jobs import Label, Round

_COMPLETE = "complete"
_NO_CUTS: Mapping[int, Path] = MappingProxyType({})


def union(needs: Iterable[Needs]) -> tuple[Needs, ...]:
    """The distinct needs for history among ``needs``; those without any drop out."""
    return tuple(dict.fromkeys(n for n in needs if n.updates or n.cumulative or n.checkpoints))


def keep(folder: Path, prepared: Mapping[str, Weights]) -> int:
    """Write what a strategy's own training gave beside its model; the bytes that the server holds for it."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: weights for name, weights in prepared.items() if name != "model"}
    for name, weights in kept.items():
        w.save(weights, _prepared(folder, name))
    return sum(map(w.nbytes, kept.values()))


class Recorder:
    """Keeps one training's history as it happens.

    Args:
        folder: where to keep it; made if absent.
        label: the training procedure to watch; other rounds pass by unseen.
        needs: what to keep (`union`).
        cuts: by round number, where to keep the weights that it starts from, because a request arrives there.
    """

    def __init__(
        self, folder: Path, label: Label, needs: Sequence[Needs], cuts: Mapping[int, Path] = _NO_CUTS
    ) -> None:
        self.folder, self.label, self.needs, self.cuts = folder, label, tuple(needs), cuts
        self._sums = tuple(dict.fromkeys(n.cumulative for n in self.needs if n.cumulative is not None))
        self._update_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)

    def round(self, round: Round) -> None:
        """See `Watcher`: write what is needed of this round."""
        if round.label != self.label:
            return
        for site, answer in round.answers.items():
            sent: Weights = round.asks[site].weights  # type: ignore[attr-defined]  # training asks `Fit`
            got: Weights = answer.reply.weights  # type: ignore[union-attr,assignment]  # and `drive` checked the reply
            self._keep_update(round.number, site, w.subtract(got, sent))
            self._keep_sums(round.number, site, sent, got)
            self._drop_old(round.number, site)
        if round.number in self.cuts:
            w.save(sent, self.cuts[round.number])
        if any(n.checkpoints and round.number in n.checkpoints for n in self.needs):
            w.save(sent, _checkpoint(self.folder, round.number))

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""
        if label == self.label:
            files.write(self.folder / _COMPLETE, b"")

    @property
    def complete(self) -> bool:
        """Whether all that is needed of the training is there."""
        return (self.folder / _COMPLETE).is_file()

    @property
    def name(self) -> str:
        """See `Remembering`."""
        return f"history of {self.label}"

    def known(self, label: Label) -> object:
        """See `Remembering`: the size of an update; the rest is on disk."""
        return self._update_bytes if label == self.label else None

    def recall(self, label: Label, known: int | None) -> None:
        """See `Remembering`."""
        if label == self.label:
            self._update_bytes = known or 0

    def view(self, needs: Needs, rounds: int, prepared: Path | None = None) -> View:
        """The history of the first ``rounds`` rounds as a strategy with ``needs`` may see it.

        ``prepared`` is the folder of its own training (`keep`), if it had one.
        """
        return View(self.folder, needs, rounds, prepared)

    def cut(self, round: int) -> Weights:
        """The weights that ``round`` started from, for a request that arrives there."""
        return w.load(self.cuts[round])

    def stored(self, needs: Needs, rounds: int, sites: int) -> int:
        """Bytes the server holds for ``needs`` after ``rounds`` rounds with ``sites`` hospitals."""
        copies = sites * _count(needs.updates, rounds) + (sites if needs.cumulative else 0)
        return self._update_bytes * (copies + _count(needs.checkpoints, rounds))

    def _keep_update(self, number: int, site: SiteId, update: Weights) -> None:
        self._update_bytes = w.nbytes(update)
        if any(n.updates and number in n.updates for n in self.needs):
            w.save(update, _update(self.folder, number, site))

    def _keep_sums(self, number: int, site: SiteId, sent: Weights, got: Weights) -> None:
        if number == 0 and "distances" in self._sums:
            w.save(sent, _initial(self.folder))
        for kind in self._sums:
            start = sent if kind == "updates" else w.load(_initial(self.folder))
            more = w.subtract(got, start)
            if kind == "distances":
                more = {name: x.abs() for name, x in more.items()}
            before, after = (_sum(self.folder, kind, rounds, site) for rounds in (number, number + 1))
            w.save(w.add(w.load(before), more) if number else more, after)

    def _drop_old(self, number: int, site: SiteId) -> None:
        """Remove what was kept only because its round was the last.

        The sum that this round was added to stays until the next one: a killed run may have to do this round again.
        """
        if number not in self.cuts and not any(
            isinstance(n.updates, Every) and number - 1 in n.updates for n in self.needs
        ):
            _update(self.folder, number - 1, site).unlink(missing_ok=True)
        if number - 1 not in self.cuts:
            for kind in self._sums:
                _sum(self.folder, kind, number - 1, site).unlink(missing_ok=True)


@dataclass(frozen=True)
class View:
    """`fedunlearn.core.History` on disk, limited to what was declared and to the first ``rounds`` rounds.

    ``own`` is the folder of the strategy's own training, if it had one.
    """

    folder: Path
    needs: Needs
    rounds: int
    own: Path | None = None

    def update(self, round: int, site: SiteId) -> Weights:
        """See `History`."""
        self._check(f"updates of round {round}", self.needs.updates, round)
        return w.load(_update(self.folder, round, site))

    def cumulative(self, site: SiteId) -> Weights:
        """See `History`."""
        if self.needs.cumulative is None:
            raise UndeclaredNeed(
                'the strategy used a sum over rounds but does not declare one, such as Needs(cumulative="updates")'
            )
        return w.load(_sum(self.folder, self.needs.cumulative, self.rounds, site))

    def checkpoint(self, round: int) -> Weights:
        """See `History`."""
        self._check(f"the checkpoint of round {round}", self.needs.checkpoints, round)
        return w.load(_checkpoint(self.folder, round))

    def prepared(self, name: str) -> Weights:
        """See `History`."""
        if not self.needs.preparation:
            raise UndeclaredNeed(
                f"the strategy used {name!r} of its own training but does not declare Needs(preparation=True)"
            )
        if self.own is None or not _prepared(self.own, name).exists():
            raise UndeclaredNeed(
                f"the strategy used {name!r} of its own training, which kept nothing of that name"
            )
        return w.load(_prepared(self.own, name))

    def _check(self, what: str, declared: Every | Last | None, round: int) -> None:
        first = self.rounds - 1 if isinstance(declared, Last) else 0
        if declared is None or round not in declared or not first <= round < self.rounds:
            match declared:
                case None:
                    known = "nothing of the kind"
                case Last():
                    known = f"the last of {self.rounds} rounds"
                case Every(k):
                    known = f"every {k} rounds of {self.rounds}"
            raise UndeclaredNeed(f"the strategy used {what} but declares {known}")


def _count(kept: Every | Last | None, rounds: int) -> int:
    match kept:
        case None:
            return 0
        case Last():
            return min(rounds, 1)
        case Every(k):
            return math.ceil(rounds / k)


def _update(folder: Path, number: int, site: SiteId) -> Path:
    return folder / f"update-{number}-{site}.safetensors"


def _prepared(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _checkpoint(folder: Path, number: int) -> Path:
    return folder / f"checkpoint-{number}.safetensors"


def _initial(folder: Path) -> Path:
    return folder / "initial.safetensors"


def _sum(folder: Path, kind: Cumulative, rounds: int, site: SiteId) -> Path:
    return folder / f"{kind}-{rounds}-{site}.safetensors"

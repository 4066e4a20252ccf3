"""What the server keeps of training: the union of what the scenario's strategies declare, and nothing else.

One `Recorder` watches the training of one seed and writes to disk, so that a large model's history never sits in
memory: in a thread of its own and while answers come, so that nobody waits for the disk but at the end of a round, when
all of it is there. Hospitals' updates of a round are one file (`fedunlearn.federation.rows`). A strategy sees it
through `Recorder.view`, which shows what that strategy declared and refuses the rest.
What a strategy's own training gave (`fedunlearn.core.Preparing`) is on disk as well, in a folder of its own.

What a `fedunlearn.core.Choice` keeps is chosen when it is asked for, from the rounds that it would have seen: the
recorder holds all updates until the run is over, the strategy is shown, and the ledger counts, the chosen ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

from fedunlearn import files, weights as w
from fedunlearn.core import (
    Asks,
    Choice,
    Cumulative,
    Every,
    Kept,
    Last,
    Needs,
    Reply,
    Seen,
    SiteId,
    UndeclaredNeed,
    Weights,
)
from fedunlearn.federation.jobs import Label, Round
from fedunlearn.federation.rows import Form, Rows, writing
from fedunlearn.federation.writer import Writer

_Told = tuple[SiteId, Weights, Weights]  # who, the weights that were sent, and those that came back
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
        parameters: names of the trained tensors: what a `Choice` looks at.
        precision: how updates are kept.
        like: a model, if updates are kept otherwise than they are: tells how many bytes one takes.
    """

    def __init__(
        self,
        folder: Path,
        label: Label,
        needs: Sequence[Needs],
        cuts: Mapping[int, Path] = _NO_CUTS,
        parameters: Sequence[str] = (),
        precision: Kept = "float32",
        like: Weights = MappingProxyType({}),
    ) -> None:
        self.folder, self.label, self.needs, self.cuts = folder, label, tuple(needs), cuts
        self.parameters = tuple(parameters)
        self._choosing = any(not isinstance(n.updates, Every | Last | None) for n in self.needs)
        self._chosen: dict[tuple[Choice, int], Mapping[int, tuple[SiteId, ...]]] = {}
        self._sums = tuple(dict.fromkeys(n.cumulative for n in self.needs if n.cumulative is not None))
        self._update_bytes = 0
        self._precision = precision
        self._shorter = kept_bytes(like, precision) / w.nbytes(like) if like else 1.0
        self._writer, self._number, self._heard = Writer[_Told](), -1, set[SiteId]()
        folder.mkdir(parents=True, exist_ok=True)

    def answered(self, label: Label, number: int, asks: Asks, site: SiteId, reply: Reply) -> None:
        """See `Hearing`: begin to write what is needed of it."""
        if label == self.label:
            self._hear(number, asks, site, reply)

    def rest(self) -> None:
        """See `Hearing`: drop what is written of a round that is not complete."""
        self._writer.drop()
        self._number = -1

    def round(self, round: Round) -> None:
        """See `Watcher`: write what is needed of this round."""
        if round.label != self.label:
            return
        for site, answer in round.answers.items():
            assert answer.reply is not None, "`drive` checked it"
            self._hear(round.number, round.asks, site, answer.reply)
        if self._files(round.number):
            self._writer.end()
        self._number = -1
        self._drop_old(round.number)
        sent = _sent(round.asks, next(iter(round.answers)))
        if round.number in self.cuts:
            w.save(sent, self.cuts[round.number])
        if self._choosing:
            counts = {site: answer.reply.count for site, answer in round.answers.items() if answer.reply}
            images = {site: torch.tensor(count) for site, count in counts.items()}
            w.save(images, _images(self.folder, round.number))
        if self._choosing or any(n.checkpoints and round.number in n.checkpoints for n in self.needs):
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
        return View(self.folder, needs, rounds, prepared, self._kept(needs, rounds))

    def cut(self, round: int) -> Weights:
        """The weights that ``round`` started from, for a request that arrives there."""
        return w.load(self.cuts[round])

    def stored(self, needs: Needs, rounds: int, sites: int) -> int:
        """Bytes the server holds for ``needs`` after ``rounds`` rounds with ``sites`` hospitals."""
        chosen = sum(map(len, self._kept(needs, rounds).values()))
        updates = chosen + sites * _count(needs.updates, rounds)
        whole = (sites if needs.cumulative else 0) + _count(needs.checkpoints, rounds)
        return self._update_bytes * whole + round(self._update_bytes * self._shorter) * updates

    def _kept(self, needs: Needs, rounds: int) -> Mapping[int, tuple[SiteId, ...]]:
        """By round, whose updates a choice keeps, if one is declared; none where no training was recorded."""
        recorded = rounds > 0 and _images(self.folder, rounds - 1).is_file()
        if isinstance(needs.updates, Every | Last | None) or not recorded:
            return {}
        key = (needs.updates, rounds)
        if key not in self._chosen:
            self._chosen[key] = choose(needs.updates, rounds, self._seen)
        return self._chosen[key]

    def _seen(self, number: int) -> Seen:
        images = {site: int(count) for site, count in w.load(_images(self.folder, number)).items()}
        sent = w.load(_checkpoint(self.folder, number))
        updates = Rows(_update(self.folder, number))
        return Seen(
            {name: sent[name] for name in self.parameters},
            {site: {name: x[name] for name in self.parameters} for site in images if (x := updates[site])},
            images,
        )

    def _files(self, number: int) -> tuple[bool, tuple[Cumulative, ...]]:
        """What is written of a round: whether updates are, and which sums; falsy if neither."""
        updates = self._choosing or any(_holds(n.updates, number) for n in self.needs)
        return (updates, self._sums) if updates or self._sums else ()  # type: ignore[return-value]  # said above

    def _hear(self, number: int, asks: Asks, site: SiteId, reply: Reply) -> None:
        """Take in a reply of a round, unless it is known."""
        sent, got = _sent(asks, site), reply.weights
        assert got is not None, "training asks for weights, and `drive` checked the reply"
        if self._number != number:
            self._number, self._heard = number, set()
            self._update_bytes = w.nbytes(sent)
            if number == 0 and "distances" in self._sums:
                w.save(sent, _initial(self.folder))
            if self._files(number):
                sites = tuple(asks)
                self._writer.begin(lambda replies: self._write(number, sites, sent, replies))
        if site not in self._heard and self._files(number):
            self._writer.put((site, sent, got))
        self._heard.add(site)

    def _write(self, number: int, sites: Sequence[SiteId], like: Weights, replies: Iterator[_Told]) -> None:
        """Write what is needed of replies as they come; in the writer's thread."""
        keeps, kinds = self._files(number)
        initial = w.load(_initial(self.folder)) if "distances" in kinds else {}
        before = {kind: Rows(_sum(self.folder, kind, number)) for kind in kinds if number}
        with ExitStack() as stack:
            form = Form.of(sites, like, self._precision)
            update = stack.enter_context(writing(_update(self.folder, number), form)) if keeps else None
            whole = Form.of(sites, like)
            sums = {k: stack.enter_context(writing(_sum(self.folder, k, number + 1), whole)) for k in kinds}
            for site, sent, got in replies:
                step = w.subtract(got, sent)
                if update is not None:
                    update(site, step)
                for kind, add in sums.items():
                    more = step if kind == "updates" else _distances(got, initial)
                    add(site, w.add(before[kind][site], more) if number else more)

    def _drop_old(self, number: int) -> None:
        """Remove what was kept only because its round was the last.

        The sum that this round was added to stays until the next one: a killed run may have to do this round again.
        """
        kept = any(isinstance(n.updates, Every) and number - 1 in n.updates for n in self.needs)
        if number not in self.cuts and not kept and not self._choosing:
            _update(self.folder, number - 1).unlink(missing_ok=True)
        if number - 1 not in self.cuts:
            for kind in self._sums:
                _sum(self.folder, kind, number - 1).unlink(missing_ok=True)


@dataclass(frozen=True)
class View:
    """`fedunlearn.core.History` on disk, limited to what was declared and to the first ``rounds`` rounds.

    ``own`` is the folder of the strategy's own training, if it had one, ``kept`` what its choice keeps, by round.
    """

    folder: Path
    needs: Needs
    rounds: int
    own: Path | None = None
    kept: Mapping[int, tuple[SiteId, ...]] = field(default_factory=dict)
    _open: dict[Path, Rows] = field(default_factory=dict, init=False, repr=False, compare=False)

    def update(self, round: int, site: SiteId) -> Weights:
        """See `History`."""
        declared, what = self.needs.updates, f"updates of round {round}"
        if isinstance(declared, Every | Last | None):
            self._check(what, declared, round)
        elif site not in self.kept.get(round, ()):
            raise UndeclaredNeed(f"the strategy used {what} by {site}, which its choice did not keep")
        rows = self._rows(_update(self.folder, round))
        if site not in rows:
            raise UndeclaredNeed(f"the strategy used {what} by {site}, which was not asked then")
        return rows[site]

    def chosen(self, round: int) -> tuple[SiteId, ...]:
        """See `History`."""
        if isinstance(self.needs.updates, Every | Last | None):
            raise UndeclaredNeed(f"the strategy used what was chosen of round {round} but declares no choice")
        return self.kept.get(round, ())

    def cumulative(self, site: SiteId) -> Weights:
        """See `History`."""
        if self.needs.cumulative is None:
            raise UndeclaredNeed(
                'the strategy used a sum over rounds but does not declare one, such as Needs(cumulative="updates")'
            )
        return self._rows(_sum(self.folder, self.needs.cumulative, self.rounds))[site]

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

    def _rows(self, path: Path) -> Rows:
        if path not in self._open:
            self._open[path] = Rows(path)
        return self._open[path]

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


def choose(choice: Choice, rounds: int, seen: Callable[[int], Seen]) -> dict[int, tuple[SiteId, ...]]:
    """By round, whose updates of the first ``rounds`` rounds ``choice`` keeps; ``seen`` tells what it saw of each."""
    kept: dict[int, tuple[SiteId, ...]] = {}
    for first in range(0, rounds, choice.window):
        numbers = range(first, min(first + choice.window, rounds))
        found = choice.chosen(first, [seen(number) for number in numbers])
        kept |= {number: tuple(sites) for number, sites in zip(numbers, found, strict=True) if sites}
    return kept


def _holds(kept: Every | Last | Choice | None, number: int) -> bool:
    return isinstance(kept, Every | Last) and number in kept


def _count(kept: Every | Last | Choice | None, rounds: int) -> int:
    """Rounds of which all updates are kept."""
    match kept:
        case Last():
            return min(rounds, 1)
        case Every(k):
            return math.ceil(rounds / k)
        case _:
            return 0


def _sent(asks: Asks, site: SiteId) -> Weights:
    """The model that training sent to a hospital."""
    weights: Weights = asks[site].weights  # type: ignore[attr-defined]  # training asks `Fit`
    return weights


def _distances(got: Weights, initial: Weights) -> Weights:
    """How far a model is from the first one, weight by weight."""
    return {name: x.abs() for name, x in w.subtract(got, initial).items()}


def kept_bytes(like: Weights, precision: Kept) -> int:
    """Bytes of the numbers of a model that is kept with ``precision``."""
    short = precision != "float32"
    return sum(
        x.numel() * (2 if short and x.is_floating_point() else x.element_size()) for x in like.values()
    )


def _update(folder: Path, number: int) -> Path:
    return folder / f"updates-{number}.rows"


def _prepared(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _checkpoint(folder: Path, number: int) -> Path:
    return folder / f"checkpoint-{number}.safetensors"


def _images(folder: Path, number: int) -> Path:
    return folder / f"images-{number}.safetensors"


def _initial(folder: Path) -> Path:
    return folder / "initial.safetensors"


def _sum(folder: Path, kind: Cumulative, rounds: int) -> Path:
    return folder / f"sum-of-{kind}-{rounds}.rows"

"""What is kept of procedures under way: answers that count, and where trainings stand.

An answer is written as it comes, so that a killed run loses little but the tasks that were at work. Answers that took
less than `CHEAP` are not written, up to `LOST` of each procedure since it began or its model was kept: writing
thousands of them takes as long as giving them. An answer is found again by its procedure, round and hospital, and used
only if it was given to the same ask, bit for bit. A training that can be restarted keeps its last two models instead,
and the answers of the round it is in. When a procedure ends, what the journal has of it is dropped; its result is kept
elsewhere.

Answers are not forced to the disk one by one: a power cut may cost the newest. What is damaged is as if it was not
there.

Replies also wait here instead of in memory once there are too many: rounds of a thousand hospitals take no more room
than rounds of three.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import weakref
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import RunError
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.jobs import Checkpoint, Label

IN_MEMORY = 2**27
"""Bytes of replies that may wait in memory for their round to be complete, of all procedures together."""
CHEAP, LOST = 0.05, 5.0
"""Seconds of a hospital's work on one answer below which it need not be written; and those of a procedure, at most."""
_TENSORS = 4096  # whose digests are remembered


@dataclass(frozen=True)
class Stored(Mapping[str, Tensor]):
    """Tensors in a file of the journal, each read when it is asked for; `items` and `values` open it once for all.

    Attributes:
        path: the file.
        names: by name, what each is called in the file.
    """

    path: Path
    names: Mapping[str, str]

    def __getitem__(self, name: str) -> Tensor:
        key = self.names[name]
        return w.read(self.path, [key])[0][key]

    def items(self) -> ItemsView[str, Tensor]:
        """All tensors by name, as they are now."""
        stored, _ = w.read(self.path, self.names.values())
        return {name: stored[key] for name, key in self.names.items()}.items()

    def values(self) -> ValuesView[Tensor]:
        """All tensors, as they are now."""
        return dict(self.items()).values()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Journal:
    """Answers and checkpoints of procedures under way.

    Args:
        folder: where they are; made if it is not there.
        in_memory: bytes of replies that may wait in memory.
    """

    def __init__(self, folder: Path, in_memory: int = IN_MEMORY) -> None:
        self._folder, self._room = folder, in_memory
        self._held: dict[Label, tuple[int, int]] = {}  # the round that replies wait for, and their bytes
        self._spent = dict[Label, float]()  # seconds of the answers that were not written
        self._digests: dict[int, tuple[weakref.ref[Tensor], bytes]] = {}
        self._found: set[Path] = set()
        # The names of files, looked up once: most asks were never answered.
        self._there = dict[Label, set[str]]()

    def answer(self, label: Label, round: int, ask: Ask) -> Answer | None:
        """The answer to ``ask``, if it is there and whole. Who asks for a round has done with the one before."""
        if self._held.get(label, (round, 0))[0] != round:
            del self._held[label]
        if _name(round, ask) not in self._names(label):
            return None
        file = self._file(label, round, ask)
        with suppress(RunError):
            answer, about = wire.load(file)
            if about == self._digest_of(ask) and isinstance(answer, Answer):
                self._found.add(file)
                return replace(answer, ticket=ask.ticket)
        return None

    def answered(self, label: Label, round: int, ask: Ask, answer: Answer) -> Answer:
        """Keep an answer, unless it is cheap; return it, with its weights on disk if too many others wait in memory.

        Raises:
            RunError: it cannot be written.
        """
        if self._may_be_lost(label, round, answer):
            return answer
        file = self._file(label, round, ask)
        if file in self._found:
            arrays = wire.pack(answer)[1]
        else:
            arrays = wire.save(file, answer, self._digest_of(ask), durable=False)
            self._names(label).add(file.name)
        if (
            answer.reply is None
            or answer.reply.weights is None
            or self._has_room(label, round, w.nbytes(arrays))
        ):
            return answer
        names = {id(array): name for name, array in arrays.items()}
        stored = Stored(file, {name: names[id(array)] for name, array in answer.reply.weights.items()})
        return replace(answer, reply=replace(answer.reply, weights=stored))

    def passed(self, label: Label, checkpoint: Checkpoint) -> None:
        """Keep where a training stands; the answers that led there are not needed any more.

        Raises:
            RunError: it cannot be written.
        """
        folder = self._of(label)
        self._spent.pop(label, None)
        wire.save(_model(folder, checkpoint.rounds), dict(checkpoint.weights), json.dumps(checkpoint.known))
        for old in folder.iterdir():
            if (
                _round(old) < checkpoint.rounds - 1
            ):  # those of the last round are in use until the next one is asked
                old.unlink(missing_ok=True)

    def reached(self, label: Label) -> Checkpoint | None:
        """Where a training stood: the newest checkpoint that is whole."""
        for file in sorted(self._of(label).glob("model-*"), key=_round, reverse=True):
            with suppress(RunError):
                weights, known = wire.load(file)
                return Checkpoint(_round(file), weights, json.loads(known))
        return None

    def drop(self, label: Label) -> None:
        """Forget a procedure that ended."""
        self._held.pop(label, None)
        self._spent.pop(label, None)
        self._there.pop(label, None)
        shutil.rmtree(self._of(label), ignore_errors=True)

    # -------------------------------------------------------------------------------------------- pieces

    def _of(self, label: Label) -> Path:
        return self._folder / _short(repr(label))

    def _file(self, label: Label, round: int, ask: Ask) -> Path:
        return self._of(label) / _name(round, ask)

    def _names(self, label: Label) -> set[str]:
        """What the files of a procedure are called; some may be gone by now."""
        if label not in self._there:
            folder = self._of(label)
            self._there[label] = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
        return self._there[label]

    def _may_be_lost(self, label: Label, round: int, answer: Answer) -> bool:
        """Whether an answer need not be written: it is given again sooner than that; counts it if so."""
        spent = self._spent.get(label, 0.0) + answer.seconds
        if answer.seconds >= CHEAP or spent > LOST:
            return False
        weights = None if answer.reply is None else answer.reply.weights
        if weights is not None and not self._has_room(label, round, w.nbytes(weights)):
            return False
        self._spent[label] = spent
        return True

    def _has_room(self, label: Label, round: int, more: int) -> bool:
        """Whether so many bytes more may wait in memory; counts them if so."""
        of, own = self._held.get(label, (round, 0))
        own = own if of == round else 0
        self._held[label] = (round, own)
        if sum(held for _, held in self._held.values()) + more > self._room:
            return False
        self._held[label] = (round, own + more)
        return True

    def _digest_of(self, ask: Ask) -> str:
        """The sha256 of what was asked of whom; tensors that many asks share are read once."""
        text, arrays = wire.pack(ask.task)
        sha = hashlib.sha256(f"{ask.site}\0{text}".encode())
        for name, tensor in arrays.items():
            sha.update(name.encode() + self._digest(tensor))
        return sha.hexdigest()

    def _digest(self, tensor: Tensor) -> bytes:
        known = self._digests.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        if len(self._digests) >= _TENSORS:
            self._digests = {key: value for key, value in self._digests.items() if value[0]() is not None}
        digest = bytes.fromhex(w.digest({"": tensor}))
        self._digests[id(tensor)] = weakref.ref(tensor), digest
        return digest


def _model(folder: Path, rounds: int) -> Path:
    return folder / f"model-{rounds}"


def _name(round: int, ask: Ask) -> str:
    return f"answer-{round}-{_short(ask.site)}"


def _round(file: Path) -> int:
    """The round that a file of the journal is of."""
    return int(file.name.split("-")[1])


def _short(text: str) -> str:
    """A file's name for any text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]

"""The worker half: an actor does one task at a hospital and replies its answer; and the records that travel."""

from __future__ import annotations

import functools
import importlib
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedunlearn import guests
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.inline import perform
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import Context, Message, RecordDict


@dataclass(frozen=True)
class Errand:
    """What a worker is sent.

    Attributes:
        ask: the task, and at which hospital.
        federation: the folder where the hospitals are, the same on every machine of a cluster.
        timeout: seconds the task may take.
        gpu: whether to work on the GPU.
    """

    ask: Ask
    federation: str
    timeout: float
    gpu: bool


def client_app() -> Any:
    """Flower's client half. It travels by the name of `handle`."""
    from flwr.clientapp import ClientApp

    app = ClientApp()
    app.train("ask")(handle)
    return app


def handle(message: Message, context: Context) -> Message:
    """Do the task in ``message`` and reply its answer; runs in an actor. The context is never used."""
    from flwr.app import Message

    errand: Errand = value(message.content)
    answer = _desk(errand.federation, errand.gpu).perform(errand.ask, errand.timeout)
    return Message(record(answer), reply_to=message)


class _Desk:
    """Where an actor works: the hospitals, one network, and one thread that is left behind if it hangs."""

    def __init__(self, federation: Path, device: str) -> None:
        importlib.import_module(
            "torch._dynamo"
        )  # torch's optimizers do, for seconds: not in the first task's time

        self._federation = Federation.open(federation)
        self._network = self._federation.network(device)
        self._asks: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def perform(self, ask: Ask, timeout: float) -> Answer:
        """The answer to ``ask``, whatever becomes of it."""
        self._asks.put(ask)
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            _desk.cache_clear()  # the thread that hangs keeps its network; whoever asks next gets a desk of his own
            return overdue(ask, timeout)

    def _work(self) -> None:
        torch.set_num_threads(1)
        while True:
            self._answers.put(perform(self._federation, self._network, self._asks.get()))


@functools.lru_cache(maxsize=1)
def _desk(federation: str, gpu: bool) -> _Desk:
    return _Desk(Path(federation), "cuda" if gpu else "cpu")


def record(value: Errand | Answer) -> RecordDict:
    """``value`` as Flower sends it, with the users' files that classes in it are of: machines need not have them."""
    from flwr.app import ArrayRecord, ConfigRecord, RecordDict

    text, arrays = wire.pack(value)
    tensors = {name: array.contiguous() for name, array in arrays.items()}
    files = ConfigRecord(dict(wire.brought(text)))
    return RecordDict({"value": ConfigRecord({"json": text}), "files": files, "arrays": ArrayRecord(tensors)})


def value(record: RecordDict) -> Any:
    """What `record` was given.

    Raises:
        InputError: a user's file cannot be imported here.
    """
    for module, content in record.config_records["files"].items():
        assert isinstance(content, bytes)
        guests.admit(guests.File(f"{module}.py", content))
    arrays = record.array_records["arrays"].to_torch_state_dict()
    return wire.unpack(str(record.config_records["value"]["json"]), arrays)


def overdue(ask: Ask, timeout: float) -> Answer:
    """The answer to an ask that took too long."""
    return Answer(ask.ticket, None, f"no answer within {timeout:g} s", timeout, 0)

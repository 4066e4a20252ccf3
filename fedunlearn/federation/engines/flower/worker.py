"""The worker half: an actor does one task at a hospital and replies its answer; and the records that travel."""

from __future__ import annotations

import functools
import importlib
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedunlearn import guests
from fedunlearn.core import RunError
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Answer, Ask, looking
from fedunlearn.federation.engines.flower import keeper
from fedunlearn.federation.engines.inline import perform
from fedunlearn.federation.engines.machines import Machine, here
from fedunlearn.learning import devices
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context, Message, RecordDict

DOOR = "door"
"""The group of threads in which an actor answers that it is there, whatever it works on."""


@dataclass(frozen=True)
class Errand:
    """What a worker is sent.

    Attributes:
        ask: the task, and at which hospital.
        timeout: seconds the task may take.
        code: the sha256 of the source files that it is from.
    """

    ask: Ask
    timeout: float
    code: str


class Actor:
    """A process of Ray's that plays hospitals, one task at a time.

    Args:
        gpus: its share of a GPU; 0 to work on the CPU.
    """

    def __init__(self, gpus: float) -> None:
        self._device, self._share = ("cuda", gpus) if gpus else ("cpu", 1.0)

    def hello(self) -> Machine:
        """Where it is, once it can work, or why it cannot (`Machine.fault`)."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        if wrong := devices.ready(self._device):
            return replace(here(node), fault=wrong)
        devices.prepare(self._device, self._share)
        importlib.import_module(
            "torch._dynamo"
        )  # torch's optimizers do, for seconds: not in the first task's time
        code()
        return here(node, devices.describe(self._device))

    def work(self, message: Message, arrays: ArrayRecord, data: str) -> Message:
        """Let Flower's client half do what a message asks for, with the hospitals in the folder ``data``.

        Its ``arrays`` come apart from it: many messages have the same.
        """
        from flwr.app import Context, RecordDict

        message.content[ARRAYS] = arrays

        where: dict[str, bool | float | int | str] = {"data": data, "device": self._device}
        reply: Message = client_app()(
            message, Context(1, message.metadata.dst_node_id, where, RecordDict(), {})
        )
        return reply

    def door(self) -> None:
        """Answer."""


@functools.cache
def client_app() -> Any:
    """Flower's client half."""
    from flwr.clientapp import ClientApp

    app = ClientApp()
    app.train("ask")(handle)
    return app


def handle(message: Message, context: Context) -> Message:
    """Do the task in ``message`` and reply its answer. The context says where the hospitals' images are here.

    Raises:
        RunError: the message is from other code than this.
    """
    from flwr.app import ConfigRecord, Message

    errand: Errand = value(message.content)
    if errand.code != code():
        raise RunError("the task is from other code of fedunlearn than is here; expected the same everywhere")
    desk = _desk(str(context.node_config["data"]), str(context.node_config["device"]))
    answer = desk.perform(errand.ask, errand.timeout)
    content = record(answer)
    content[_STATE] = ConfigRecord({"fit": not answer.unfit})
    return Message(content, reply_to=message)


def fit(reply: Message) -> bool:
    """Whether the worker that replied may be asked again."""
    return not reply.has_content() or bool(reply.content.config_records[_STATE]["fit"])


code = functools.cache(looking.code)
"""One sha256 over our source files, as they were when this process first looked."""

_STATE = "state"
ARRAYS = "arrays"
"""Where a record has its arrays."""


class _Desk:
    """Where an actor works: the hospitals, one network, and one thread that is left behind if it hangs."""

    def __init__(self, federation: Path, device: str) -> None:
        keeper.hold(federation)
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
            # The thread that hangs keeps its network, and a GPU's memory: this process is of no use any more.
            late = f"no answer within {timeout:g} s"
            return Answer(ask.ticket, None, late, timeout, 0, socket.gethostname(), unfit=True)

    def _work(self) -> None:
        torch.set_num_threads(1)
        while True:
            self._answers.put(perform(self._federation, self._network, self._asks.get()))


@functools.lru_cache(maxsize=1)
def _desk(federation: str, device: str) -> _Desk:
    return _Desk(Path(federation), device)


def recorded(arrays: Mapping[str, Tensor]) -> ArrayRecord:
    """``arrays`` as Flower sends them."""
    from flwr.app import ArrayRecord

    return ArrayRecord({name: array.contiguous() for name, array in arrays.items()})


def record(
    value: Errand | Answer, recorded: Callable[[Mapping[str, Tensor]], ArrayRecord] = recorded
) -> RecordDict:
    """``value`` as Flower sends it, with the users' files that classes in it are of: machines need not have them.

    Args:
        value: what to send.
        recorded: makes the record of its arrays.
    """
    from flwr.app import ConfigRecord, RecordDict

    text, arrays = wire.pack(value)
    files = ConfigRecord(dict(wire.brought(text)))
    return RecordDict({"value": ConfigRecord({"json": text}), "files": files, ARRAYS: recorded(arrays)})


def value(record: RecordDict) -> Any:
    """What `record` was given.

    Raises:
        InputError: a user's file cannot be imported here.
    """
    for module, content in record.config_records["files"].items():
        assert isinstance(content, bytes)
        guests.admit(guests.File(f"{module}.py", content))
    arrays = record.array_records[ARRAYS].to_torch_state_dict()
    return wire.unpack(str(record.config_records["value"]["json"]), arrays)

"""The worker half: an actor does tasks at hospitals and replies their answers; and the records that travel."""

from __future__ import annotations

import contextlib
import functools
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from fedunlearn.federation.engines.flower.bundles import LONGEST
from fedunlearn.federation.engines.machines import Machine, here
from fedunlearn.federation.engines.stacks import width
from fedunlearn.federation.engines.work import perform
from fedunlearn.learning import devices
from fedunlearn.learning.models import Network
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import Array, ArrayRecord, Context, Message, RecordDict

DOOR = "door"
"""The group of threads in which an actor answers that it is there, whatever it works on."""


@dataclass(frozen=True)
class Errand:
    """What a worker is sent.

    Attributes:
        asks: the tasks, and at which hospitals: a stack, or one after the other.
        timeout: seconds that each may take, and a stack.
        code: the sha256 of the source files that they are from.
    """

    asks: tuple[Ask, ...]
    timeout: float
    code: str


class Actor:
    """A process of Ray's that plays hospitals, one task at a time.

    Args:
        gpus: its share of a GPU; 0 to work on the CPU.
    """

    def __init__(self, gpus: float) -> None:
        self._device, self._share = ("cuda", gpus) if gpus else ("cpu", 1.0)
        self._desk: _Desk | None = None
        self._unfit = False

    def hello(self) -> Machine:
        """Where it is, once it can work, or why it cannot (`Machine.fault`)."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        if wrong := devices.ready(self._device):
            return replace(here(node), fault=wrong)
        devices.prepare(self._device, self._share)
        code()
        return here(node, devices.describe(self._device))

    def work(self, message: Message, arrays: ArrayRecord, data: str) -> Message:
        """Let Flower's client half do what a message asks for, with the hospitals in the folder ``data``.

        Its ``arrays`` come apart from it: many messages have the same.
        """
        from flwr.app import Context, RecordDict

        message.content[ARRAYS] = arrays

        where: dict[str, bool | float | int | str] = {"data": data}
        reply: Message = self._app(message, Context(1, message.metadata.dst_node_id, where, RecordDict(), {}))
        return reply

    def door(self) -> None:
        """Answer."""

    @functools.cached_property
    def _app(self) -> Any:
        """Flower's client half."""
        from flwr.clientapp import ClientApp

        app = ClientApp()
        app.train("ask")(self._handle)
        return app

    def _handle(self, message: Message, context: Context) -> Message:
        """Do the tasks in ``message`` and reply their answers. The context says where the hospitals' images are here.

        Raises:
            RunError: the message is from other code than this.
        """
        from flwr.app import ConfigRecord, Message

        if (
            self._unfit
        ):  # its last reply says so, but may not have been read yet: this task is another worker's
            threading.Event().wait()  # to be ended, so that no reply to this one overtakes that one
        errand: Errand = value(message.content)
        if errand.code != code():
            raise RunError(
                "the task is from other code of fedunlearn than is here; expected the same everywhere"
            )
        desk = self._at(Path(str(context.node_config["data"])))
        answers = tuple(desk.perform(errand.asks, errand.timeout))
        self._unfit = answers[-1].unfit
        content = record(answers)
        content[_STATE] = ConfigRecord({"fit": not self._unfit})
        return Message(content, reply_to=message)

    def _at(self, federation: Path) -> _Desk:
        """The desk for the hospitals in a folder; the one before is gone first: there is no room for two."""
        if self._desk is not None and self._desk.federation != federation:
            self._desk.close()
            self._desk = None
        if self._desk is None:
            self._desk = _Desk(federation, self._device)
        return self._desk


def fit(reply: Message) -> bool:
    """Whether the worker that replied may be asked again."""
    return not reply.has_content() or bool(reply.content.config_records[_STATE]["fit"])


code = functools.cache(looking.code)
"""One sha256 over our source files, as they were when this process first looked."""

_STATE = "state"
_AS_IT_LIES = "fedunlearn.memory"  # how the bytes of an array are to be read, in Flower's field for that
ARRAYS = "arrays"
"""Where a record has its arrays."""


class _Desk:
    """Where an actor works: the hospitals, one network, and one thread that is left behind if it hangs."""

    def __init__(self, federation: Path, device: str) -> None:
        self.federation = federation
        self._asks: queue.SimpleQueue[Sequence[Ask]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Sequence[Answer]] = queue.SimpleQueue()
        with contextlib.ExitStack() as held:
            held.enter_context(keeper.hold(federation))
            opened = Federation.open(federation)
            work = functools.partial(_work, opened, opened.network(device), self._asks, self._answers)
            self._held = held.pop_all()
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def perform(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """The answers to ``asks``, to the first of them at least: to none after one that is unfit, or took long."""
        end = time.monotonic() + LONGEST
        for at_once in [asks] if width(asks[0].task) > 1 else [[ask] for ask in asks]:
            yield from (answers := self._performed(at_once, timeout))
            if answers[-1].unfit or time.monotonic() > end:
                return

    def close(self) -> None:
        """Let go of the hospitals and of the network, once nobody works on them."""
        self._asks.put(())
        self._thread.join()
        self._held.close()

    def _performed(self, asks: Sequence[Ask], timeout: float) -> Sequence[Answer]:
        """The answers to ``asks``, whatever becomes of them; after one that is unfit, there is no other."""
        self._asks.put(asks)
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            # The thread that hangs keeps its network, and a GPU's memory: this process is of no use any more.
            late, host = f"no answer within {timeout:g} s", socket.gethostname()
            return [Answer(ask.ticket, None, late, timeout, 0, host, unfit=True) for ask in asks]


def _work(
    federation: Federation,
    network: Network,
    asks: queue.SimpleQueue[Sequence[Ask]],
    answers: queue.SimpleQueue[Sequence[Answer]],
) -> None:
    """Do tasks until there is none: what a desk's thread does."""
    torch.set_num_threads(1)
    while at_once := asks.get():
        answers.put(perform(federation, network, at_once))


def recorded(arrays: Mapping[str, Tensor]) -> ArrayRecord:
    """``arrays`` as Flower sends them, each as it lies in memory.

    Flower's own form is NumPy's files, whose headers take longer to read than all numbers of a small model.
    """
    from flwr.app import Array, ArrayRecord

    def sent(array: Tensor) -> Array:
        numbers = array.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b""
        return Array(str(array.dtype).removeprefix("torch."), tuple(array.shape), _AS_IT_LIES, numbers)

    return ArrayRecord({name: sent(array) for name, array in arrays.items()})


def _received(array: Array) -> Tensor:
    """What `recorded` was given; it has memory of its own."""
    dtype = getattr(torch, array.dtype, None)
    if array.stype != _AS_IT_LIES or not isinstance(dtype, torch.dtype):
        raise RunError(f"found an array of {array.dtype!r} as {array.stype!r}; expected one of this engine's")
    if not array.data:
        return torch.empty(tuple(array.shape), dtype=dtype)
    return torch.frombuffer(bytearray(array.data), dtype=dtype).view(tuple(array.shape))


def record(
    value: Errand | tuple[Answer, ...], recorded: Callable[[Mapping[str, Tensor]], ArrayRecord] = recorded
) -> RecordDict:
    """``value`` as Flower sends it, with the users' files that classes in it are of: machines need not have them.

    Args:
        value: what to send.
        recorded: makes the record of its arrays.
    """
    from flwr.app import ConfigRecord, RecordDict

    text, arrays = wire.pack(value, once=True)
    files = ConfigRecord(dict(wire.brought(text)))
    return RecordDict({"value": ConfigRecord({"json": text}), "files": files, ARRAYS: recorded(arrays)})


def value(record: RecordDict) -> Any:
    """What `record` was given.

    Raises:
        InputError: a user's file cannot be imported here.
        RunError: its arrays are not as `recorded` makes them.
    """
    for module, content in record.config_records["files"].items():
        assert isinstance(content, bytes)
        guests.admit(guests.File(f"{module}.py", content))
    arrays = {name: _received(array) for name, array in record.array_records[ARRAYS].items()}
    return wire.unpack(str(record.config_records["value"]["json"]), arrays)

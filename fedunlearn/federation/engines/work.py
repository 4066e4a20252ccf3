"""What a worker does with what it is asked, whatever the engine: the worker's half."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

from fedunlearn.core import Stackable
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.learning import devices
from fedunlearn.learning.local import load_each_gradient
from fedunlearn.learning.models import Network
from sites.hospital import Federation

_HOST = socket.gethostname()  # asked once: it is a call of the system, and a task may take less


def perform(federation: Federation, network: Network, asks: Sequence[Ask]) -> Sequence[Answer]:
    """Do what is asked, an ask alone or a stack: the worker's half of every engine.

    Whatever a task raises becomes its answer. In a stack, that is found out by doing each alone.
    """
    if len(asks) > 1:
        with contextlib.suppress(Exception):
            return _together(federation, network, asks)
    return [alone(federation, network, ask) for ask in asks]


def _together(federation: Federation, network: Network, asks: Sequence[Ask]) -> Sequence[Answer]:
    """The answers to a stack: each took its share of the time."""
    began = time.perf_counter()
    hospitals = [federation.hospital(ask.site, network) for ask in asks]
    tasks: list[Stackable] = [ask.task for ask in asks]  # type: ignore[misc]  # else they would not be a stack
    replies = tasks[0].together(tasks, hospitals)
    seconds, images = (time.perf_counter() - began) / len(asks), hospitals[0].work // len(asks)
    return [
        Answer(ask.ticket, reply, None, seconds, images, _HOST)
        for ask, reply in zip(asks, replies, strict=True)
    ]


def alone(federation: Federation, network: Network, ask: Ask) -> Answer:
    """Let one hospital do one task. Whatever that raises becomes the answer."""
    answer = _performed(federation, network, ask)
    if answer.error is not None and not answer.unfit:
        devices.tidy(network.device)  # not in there, where the error still holds what the task had made
    return answer


def _performed(federation: Federation, network: Network, ask: Ask) -> Answer:
    if getattr(ask.task, "each_image", False):
        load_each_gradient()
    began, host = time.perf_counter(), _HOST
    try:
        hospital = federation.hospital(ask.site, network)
        reply = ask.task(hospital)
        return Answer(ask.ticket, reply, None, time.perf_counter() - began, hospital.work, host)
    except Exception as error:  # a hospital may fail in any way; the driver stops the run and names it
        wrong, seconds = devices.told(error, network.device), time.perf_counter() - began
        return Answer(ask.ticket, None, wrong, seconds, 0, host, unfit=devices.lost(error))

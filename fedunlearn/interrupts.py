"""SIGTERM, SIGINT and SIGHUP: the process stops in order, soon, and always with the same exit code.

A signal comes at any moment: inside a lock of `logging`, in the middle of a clean-up, while native code runs. So its
handler does one thing, it notes that the signal came; whether it also raises `core.Interrupted` there and then is
up to where the main thread is:

- `listening`: signals are noted, and nothing is raised. The command line listens from its first line to its last.
- `interruptible`: one is raised at once, wherever the main thread is: reading images, scoring, drawing.
- `deferred`: noted again, for what must not be torn apart: engines (other threads hold locks there) and clean-up. What
  takes long in there calls `check`.

Only the first signal counts; more of them neither tear a clean-up apart nor make it wait. Should the process not have
ended some seconds after the first one (native code that does not return, a hung file system), a thread that wakes by
file descriptor, so without the main thread's help, runs what `last_resort` was given and ends the process.

Signals that were ignored when the process started (``nohup``) stay ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

from fedunlearn.core import Interrupted

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""The signals that stop a run."""

DEADLINE = 10.0
"""Seconds after a signal in which the command line ends in order."""

_LAST_SECONDS = 3.0  # that the last resort may take; with the deadline that is less than the 15 promised
_OVER = b"\0"  # to the thread that watches; no signal has this number


@dataclass
class _Ear:
    """What a process that listens knows.

    Attributes:
        arrived: the first signal that came.
        immediate: whether the next one is raised at once.
        mine: the signals that are not ignored.
        hooks: what to call if the process must be ended the hard way.
    """

    arrived: int | None = None
    immediate: bool = False
    mine: tuple[signal.Signals, ...] = ()
    hooks: list[Callable[[], object]] = field(default_factory=list)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of all signals."""
        if self.arrived is None:
            self.arrived = number
            if self.immediate:
                raise Interrupted(number)


_ear: ContextVar[_Ear | None] = ContextVar("ear", default=None)
"""Of the main thread while it listens: like signals themselves, there is one of it in a process."""


@contextmanager
def listening(deadline: float | None = None) -> Iterator[None]:
    """Note signals; raise at the end if one came. Inside another `listening`, or outside the main thread: nothing.

    Args:
        deadline: seconds after a signal when the process is ended the hard way (`last_resort`); None for never.

    Raises:
        Interrupted: a signal came.
    """
    if _ear.get() is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    ear = _Ear()
    token = _ear.set(ear)
    try:
        with _watched(ear, deadline) if deadline else contextlib.nullcontext(), _handlers(ear):
            yield
    finally:
        _ear.reset(token)
    if ear.arrived is not None:
        raise Interrupted(ear.arrived)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal raise wherever the main thread is.

    Raises:
        Interrupted: a signal came, or had come before.
    """
    with _immediate(True):
        check()
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Let no signal interrupt what is done here; if one came and this is part of something interruptible, raise then.

    Raises:
        Interrupted: a signal came.
    """
    with _immediate(False) as before:
        yield
    if before:
        check()


def check() -> None:
    """Raise if a signal came.

    Raises:
        Interrupted: one did.
    """
    if (stop := arrived()) is not None:
        raise stop


def arrived() -> Interrupted | None:
    """The signal that came, or None."""
    ear = _ear.get()
    return None if ear is None or ear.arrived is None else Interrupted(ear.arrived)


def take_back() -> None:
    """Install our handlers again, below Python too, where native code may have put its own or none."""
    if (ear := _ear.get()) is not None:
        for number in ear.mine:
            signal.signal(number, ear.hear)


@contextmanager
def last_resort(hook: Callable[[], object]) -> Iterator[None]:
    """Have ``hook`` called if the process must be ended the hard way while this lasts.

    It runs in a thread of its own, beside whatever hangs and all other hooks, and the process ends a few seconds later
    whether it has returned or not: it should remove or kill, and wait for nobody.
    """
    ear = _ear.get()
    if ear is None:
        yield
        return
    ear.hooks.append(hook)
    try:
        yield
    finally:
        ear.hooks.remove(hook)


@contextmanager
def _immediate(value: bool) -> Iterator[bool]:
    """Whether to raise at once; yields what held before."""
    ear = _ear.get() or _Ear()  # who does not listen has no handlers that would ask
    before, ear.immediate = ear.immediate, value
    try:
        yield before
    finally:
        ear.immediate = before


@contextmanager
def _handlers(ear: _Ear) -> Iterator[None]:
    """Our handlers; afterwards those that were there."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ear.mine = tuple(number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None))
    try:
        for number in ear.mine:
            signal.signal(number, ear.hear)
        yield
    finally:
        for number in ear.mine:
            signal.signal(number, before[number])


@contextmanager
def _watched(ear: _Ear, deadline: float) -> Iterator[None]:
    """A thread that ends the process ``deadline`` seconds after a signal."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        watcher = threading.Thread(target=_watch, args=(ours, ear, deadline), daemon=True)
        watcher.start()
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            theirs.send(_OVER)
            watcher.join()


def _watch(ours: socket.socket, ear: _Ear, deadline: float) -> None:
    """Wait for a signal's number, then for the end, but no longer than ``deadline``."""
    while (byte := ours.recv(1)) != _OVER:
        if byte[0] in SIGNALS:
            break
    else:
        return
    end = time.monotonic() + deadline
    while (left := end - time.monotonic()) > 0:
        ours.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if ours.recv(1) == _OVER:
                return
    _give_up(ear, byte[0], deadline)


def _give_up(ear: _Ear, number: int, deadline: float) -> None:
    """Call the hooks, all at once, say so, and end the process, whether or not they have returned."""
    stop = Interrupted(number)
    line = f"{stop}; still at work after {deadline:g} s, so stopped the hard way\n"
    calls = [
        *ear.hooks,
        partial(os.write, 2, line.encode()),
    ]  # not Python's stream: whoever hangs may hold its lock
    threads = [threading.Thread(target=_call, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _LAST_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    os._exit(stop.exit_code)


def _call(hook: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):  # nobody is left to tell
        hook()

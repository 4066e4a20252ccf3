"""Signals: each process here is a real one, told to stop at a moment that it says itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedunlearn import interrupts
from fedunlearn.core import FedunlearnError, Interrupted
from tests.runs import write

pytestmark = [pytest.mark.gate, pytest.mark.usefixtures("heard")]

SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]
CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 + 1, 2, 15: what a shell reports
ALLOWED = 15.0

BEGIN = """
import ctypes, logging, os, signal, sys, threading, time
from fedunlearn import interrupts
from fedunlearn.core import Interrupted


def ready():
    print("ready", flush=True)

def say(*words):
    print(*words, flush=True)

def main(body, deadline=None):
    try:
        with interrupts.listening(deadline):
            body()
    except Interrupted as stop:
        say(stop)
        os._exit(stop.exit_code)
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    seconds: float
    said: list[str]


def stopped(code: str, number: signal.Signals, *more: signal.Signals) -> Ended:
    """Run ``code`` until it is ready, send it the signals, the later ones in turn, and wait for its end."""
    program = [sys.executable, "-c", BEGIN + textwrap.dedent(code)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.stdout.read()
        began = time.monotonic()
        process.send_signal(number)
        for other in more:
            time.sleep(0.1)
            process.send_signal(other)
        try:
            out, _ = process.communicate(timeout=180)
        finally:
            process.kill()
        return Ended(process.returncode, time.monotonic() - began, out.splitlines())


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_waits_is_interrupted_at_once(number: signal.Signals) -> None:
    ended = stopped(
        """
        def body():
            with interrupts.interruptible():
                ready()
                time.sleep(60)

        main(body)
        """,
        number,
    )
    assert (ended.code, ended.said) == (CODES[number], [f"interrupted ({number.name})"])
    assert ended.seconds < 5


@pytest.mark.parametrize("number", SIGNALS)
def test_nothing_is_raised_while_the_main_thread_holds_a_lock_of_logging(number: signal.Signals) -> None:
    ended = stopped(
        """
        handler = logging.StreamHandler(sys.stdout)

        def other():
            with handler.lock:
                say("the other thread got the lock")

        def body():
            with interrupts.interruptible():
                with interrupts.deferred():
                    handler.acquire()
                    threading.Thread(target=other).start()
                    ready()
                    time.sleep(0.5)  # the signal comes now
                    handler.release()
                    time.sleep(0.5)
                say("not reached")

        main(body)
        """,
        number,
    )
    assert ended.said == ["the other thread got the lock", f"interrupted ({number.name})"]
    assert ended.code == CODES[number]


def test_more_signals_neither_tear_a_clean_up_apart_nor_change_the_exit_code() -> None:
    ended = stopped(
        """
        def body():
            with interrupts.interruptible():
                try:
                    ready()
                    time.sleep(60)
                finally:
                    time.sleep(1)
                    say("cleaned")

        main(body)
        """,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    )
    assert ended.code == 143
    assert ended.said == ["cleaned", "interrupted (SIGTERM)"]


def test_code_that_never_returns_is_ended_and_all_hooks_are_called() -> None:
    # A mutex that is locked twice: no signal wakes whoever waits for it, and Python's handlers never run.
    ended = stopped(
        """
        def broken():
            raise ValueError("must not keep the others from being called")

        def hung():
            time.sleep(60)

        def body():
            mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
            with (  # not interruptible: the signal may come before the mutex is locked again
                interrupts.last_resort(lambda: os.write(1, b"first\\n")),
                interrupts.last_resort(broken),
                interrupts.last_resort(hung),
                interrupts.last_resort(lambda: os.write(1, b"last\\n")),
            ):
                with interrupts.last_resort(lambda: say("over long ago")):
                    pass
                libc.pthread_mutex_lock(mutex)
                ready()
                libc.pthread_mutex_lock(mutex)

        main(body, deadline=0.5)
        """,
        signal.SIGTERM,
    )
    assert ended.code == 143 and 0.5 <= ended.seconds < 10
    last = "interrupted (SIGTERM); still at work after 0.5 s, so stopped the hard way"
    assert sorted(ended.said) == ["first", last, "last"]


def test_who_ends_in_time_meets_no_last_resort() -> None:
    ended = stopped(
        """
        def body():
            with interrupts.interruptible(), interrupts.last_resort(lambda: say("called")):
                ready()
                time.sleep(60)

        main(body, deadline=0.3)
        """,
        signal.SIGTERM,
    )
    assert (ended.code, ended.said) == (143, ["interrupted (SIGTERM)"])


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    ended = stopped(
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

        def body():
            with interrupts.interruptible():
                ready()
                time.sleep(0.3)
                say("still here")

        main(body)
        """,
        signal.SIGHUP,
    )
    assert (ended.code, ended.said) == (0, ["still here"])


def test_it_is_no_error_but_a_keyboard_interrupt() -> None:
    stop = Interrupted(signal.SIGTERM)
    assert isinstance(stop, KeyboardInterrupt)
    assert not isinstance(stop, Exception) and not issubclass(Interrupted, FedunlearnError)
    assert (stop.exit_code, str(stop)) == (143, "interrupted (SIGTERM)")
    assert str(Interrupted(signal.SIGINT, "go on with --resume")) == "go on with --resume"


def test_handlers_are_put_back_and_the_signal_is_told_at_the_end() -> None:
    def body() -> None:
        with interrupts.listening():
            with interrupts.listening():  # nothing new
                signal.raise_signal(signal.SIGHUP)
            found = interrupts.arrived()
            assert found is not None and found.signal == signal.SIGHUP
            with pytest.raises(Interrupted):
                interrupts.check()
            with pytest.raises(Interrupted), interrupts.interruptible():
                raise AssertionError("what may be interrupted is not begun")

    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted, match=r"interrupted \(SIGHUP\)"):
        body()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert interrupts.arrived() is None


def test_a_handler_that_others_put_in_its_place_is_taken_back() -> None:
    def body() -> None:
        with interrupts.listening():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            interrupts.take_back()
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        body()


def test_without_anyone_listening_nothing_happens() -> None:
    with interrupts.interruptible(), interrupts.deferred(), interrupts.last_resort(print):
        interrupts.check()
        interrupts.take_back()


def test_other_threads_have_nothing_to_do_with_signals() -> None:
    seen = []

    def work() -> None:
        with interrupts.listening(), interrupts.interruptible():
            seen.append(interrupts.arrived())

    def body() -> None:
        with interrupts.listening():
            signal.raise_signal(signal.SIGTERM)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    with pytest.raises(Interrupted):
        body()
    assert seen == [None]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_ends_in_one_line_and_one_of_advice_and_leaves_no_images(
    tmp_path: Path, number: signal.Signals
) -> None:
    """While hospitals train, for as long as it takes: a task of theirs is left behind."""
    words = ["--engine", "inline", "--set", "training.local_epochs=100000", "--set", "training.rounds=1"]
    program = [sys.executable, "-m", "fedunlearn", "simulate", str(write(tmp_path)), "--quiet"]
    out = tmp_path / "run"
    with subprocess.Popen(
        [*program, "--out", str(out), *words], stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until_stored(out / "work")
        time.sleep(2)
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=180)
    assert time.monotonic() - began < ALLOWED
    assert process.returncode == CODES[number]
    interrupted, advice = said.splitlines()
    assert interrupted == f"interrupted ({number.name})" and "--resume" in advice
    assert not (out / "work" / "federation").exists()


def wait_until_stored(work: Path) -> None:
    """Hospitals' images are in the run folder: next they are worked with."""
    deadline = time.monotonic() + 180
    while not list(work.glob("federation/*")):
        assert time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.05)

"""Ray's temporary folder: where it may be, and that nothing of it stays, by processes that only sleep."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedunlearn.core import InputError
from fedunlearn.federation.engines.flower import scratch

MB = 1 << 20


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path; pytest's own are too deep for sockets."""
    with scratch.folder(["/tmp"]) as folder:
        yield folder


@pytest.fixture
def sleeper() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def asleep() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_the_folder_and_its_processes_go_and_others_stay(sleeper: list[subprocess.Popen[bytes]]) -> None:
    with scratch.folder(["/tmp"]) as folder:
        sleeper.append(asleep())
        with scratch.marked(folder):
            sleeper.append(asleep())
        (folder / "session" / "sockets").mkdir(parents=True)
        assert scratch.MARK not in os.environ
    assert not folder.exists()
    assert sleeper[0].poll() is None
    sleeper[1].wait(5)  # it would sleep for a minute


def test_a_process_goes_whose_program_is_only_being_loaded(
    sleeper: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Popen` returns when it begins to be, and it has no environment for the next milliseconds."""
    with scratch.folder(["/tmp"]) as folder, monkeypatch.context() as patch:
        patch.setattr(psutil, "process_iter", lambda: [psutil.Process(sleeper[-1].pid)])  # asked at once
        for _ in range(20):
            with scratch.marked(folder):
                sleeper.append(asleep())
            assert [found.pid for found in scratch.inhabitants(folder)] == [sleeper[-1].pid]


def test_a_process_that_was_adopted_and_is_stopped_goes_too() -> None:
    with scratch.folder(["/tmp"]) as folder:
        with scratch.marked(folder):  # the shell ends at once, and whoever it started has another parent then
            shell = subprocess.run(
                ["sh", "-c", "sleep 60 > /dev/null & echo $!"],
                stdout=subprocess.PIPE,
                check=True,
                timeout=300,
            )
        orphan = psutil.Process(int(shell.stdout))
        orphan.suspend()
        assert orphan.is_running() and orphan.ppid() != os.getpid()
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_has_written_over_the_beginning_of_its_environment_goes_too(
    sleeper: list[subprocess.Popen[bytes]],
) -> None:
    """As titles do: it begins with zeros then, and the mark comes later."""
    code = """
        import ctypes, os, re, sys, time
        block = open("/proc/self/environ", "rb").read()
        for line in open("/proc/self/stat"):
            start = int(line.rpartition(")")[2].split()[47])  # env_start, field 50 of proc(5)
        ctypes.memset(start, 0, block.index(os.environb[b"FIRST"]))
        print("ready", flush=True)
        time.sleep(60)
        """
    program = [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())]
    with scratch.folder(["/tmp"]) as folder:
        environment = {"FIRST": "x" * 100, "PATH": os.environ["PATH"], scratch.MARK: str(folder)}
        process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE)
        sleeper.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert scratch.MARK not in psutil.Process(process.pid).environ()  # whom it is written for
        assert [found.pid for found in scratch.inhabitants(folder)] == [process.pid]
        process.stdout.close()
    process.wait(5)  # it would sleep for a minute


def test_one_kind_of_process_may_be_spared(sleeper: list[subprocess.Popen[bytes]]) -> None:
    with scratch.folder(["/tmp"]) as folder:
        with scratch.marked(folder):
            sleeper += [asleep(), subprocess.Popen(["sleep", "60"])]
        killed = scratch.kill(folder, but="sleep")
        assert [process.pid for process in killed] == [sleeper[0].pid]
        sleeper[0].wait(5)  # it would sleep for a minute
        assert sleeper[1].poll() is None


@pytest.mark.gate
def test_what_a_dead_run_left_is_cleared_and_what_a_living_one_has_is_not(place: Path) -> None:
    # A run that is killed: it holds its lock until it ends, and has no time to clear anything.
    code = """
        import sys, time, subprocess
        from fedunlearn.federation.engines.flower import scratch
        with scratch.folder([sys.argv[1]]) as folder:
            with scratch.marked(folder):
                child = subprocess.Popen(["sleep", "60"])
            print(folder, child.pid, flush=True)
            time.sleep(60)
        """
    program = [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines()), str(place)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        name, number = run.stdout.readline().split()
        left, child = Path(name), psutil.Process(int(number))
        with scratch.folder([str(place)]) as mine:
            assert left.exists() and child.is_running() and mine != left
        run.kill()
    with scratch.folder([str(place)]):
        assert not left.exists()
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_what_is_not_ours_is_not_cleared(place: Path) -> None:
    (place / "fedun-file").touch()
    (place / "elsewhere").mkdir()
    (place / "fedun-link").symlink_to(place / "elsewhere")
    (place / "ray-session").mkdir()
    with scratch.folder([str(place)]):
        pass
    assert sorted(path.name for path in place.iterdir()) == [
        "elsewhere",
        "fedun-file",
        "fedun-link",
        "ray-session",
    ]


def test_the_folder_is_locked_as_long_as_it_has_its_name(place: Path) -> None:
    with scratch.folder([str(place)]) as folder:
        other = os.open(folder, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)


def test_a_place_that_is_too_deep_for_sockets_is_passed_over(place: Path) -> None:
    deep = place / ("x" * 60)
    deep.mkdir()
    with scratch.folder([str(deep), str(place)]) as folder:
        assert folder.parent == place


def test_the_longest_place_that_is_taken_holds_a_socket(place: Path) -> None:
    # Linux: 108 bytes with the zero at the end. Ray's longest: a session named after the time and a process.
    # A place of n bytes makes a folder of n + 1 + 6 + 8: "/", "fedun-", eight random characters.
    longest = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") - 15
    assert longest == 28
    exact = place / ("x" * (longest - len(str(place)) - 1))
    exact.mkdir()
    with scratch.folder([str(exact)]) as folder:
        assert folder.parent == exact
    deeper = exact.with_name(exact.name + "x")
    deeper.mkdir()
    with (
        pytest.raises(InputError, match=r"at most 28 bytes.*too long for Ray's sockets.*set TMPDIR"),
        scratch.folder([str(deeper)]),
    ):
        pass


def test_without_any_place_the_reasons_are_told(place: Path) -> None:
    with (
        pytest.raises(InputError, match=r"absent: No such file or directory"),
        scratch.folder([str(place / "absent")]),
    ):
        pass


@pytest.mark.parametrize(
    ("shared", "disk", "size"),
    [
        (8192 * MB, 0, 1024 * MB),  # no more than it needs
        (512 * MB, 0, 512 * MB * 9 // 10),  # what is free, less a tenth for others
        (64 * MB, 4096 * MB, 1024 * MB),  # docker's default: Ray keeps the store in its folder
        (0, 2048 * MB, 1024 * MB),
    ],
)
def test_the_object_store_fits(shared: int, disk: int, size: int) -> None:
    assert scratch.store_size(shared, disk) == size


def test_no_room_for_the_object_store_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"64 MB are free in /dev/shm, 100 MB in the temporary folder.*--shm-size=2g"
    ):
        scratch.store_size(64 * MB, 100 * MB)


def test_clearing_takes_no_long_time_where_nothing_is_left(place: Path) -> None:
    began = time.monotonic()
    scratch.clear(place / "absent")
    assert time.monotonic() - began < 2

"""Machines to test with, all of them inside this one: each has a network, a disk, a name and processes of its own.

A machine is a process in Linux namespaces of its own, and all that is started beneath it; a switch joins their
networks, and nothing else does. All of it ends with the process that made it, however that ends: the kernel kills
the processes of a namespace with its first one, and takes networks and mounts away with the last.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path("/mnt")
"""Where every machine sees what all of them share."""

_NETWORK = "10.200.0"  # behind the switch alone: no machine has a route elsewhere
_ALONE = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")
_READY = "ready"


@functools.cache
def unable() -> str | None:
    """Why there can be no machines here, or None."""
    needed = ("ip", "mount", "nsenter", "setpriv", "unshare")
    if missing := [name for name in needed if shutil.which(name) is None]:
        return f"needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    made = subprocess.run(
        [*_ALONE, "ip", "link", "add", "switch", "type", "bridge"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return f"network namespaces cannot be made here: {made.stderr.strip()}" if made.returncode else None


@dataclass(frozen=True)
class Machine:
    """A machine that runs.

    Attributes:
        name: its host name.
        address: in the network of all.
        tmp: what is its /tmp, as seen from outside.
        process: ends it.
        first: the number of its first process.
        started: what was started there from outside.
    """

    name: str
    address: str
    tmp: Path
    process: subprocess.Popen[str]
    first: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        """What runs ``words`` there in `ROOT`, started from here."""
        there = ["nsenter", f"--target={self.first}", "--mount", "--uts", "--net", "--pid"]
        return [*there, "--", "env", f"--chdir={ROOT}", *words]

    def run(self, *words: str, seconds: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run something there to its end; it inherits the environment of all, and ``variables``."""
        return subprocess.run(
            self.command(*words),
            env=environment(variables),
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def spawn(self, log: Path, *words: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start something there, which writes into the file ``log``."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command(*words),
                env=environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def hide(self, folder: Path) -> None:
        """Have it see an empty folder there."""
        self._must("mount", "-t", "tmpfs", "none", str(folder))

    def replace(self, file: Path, text: str) -> None:
        """Have it see another file there."""
        other = self.tmp / f"replaced-{file.name}"
        other.write_text(text, encoding="utf-8")
        self._must("mount", "--bind", f"/tmp/{other.name}", str(file))

    def edit(self, file: Path, old: str, new: str) -> None:
        """Have it see ``new`` in place of ``old`` in a file."""
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r}"
        self.replace(file, text.replace(old, new))

    def see(self, file: Path) -> None:
        """Have it see what is there again, as everybody does."""
        self._must("umount", str(file))

    def unplug(self) -> None:
        """Take it off the network; its processes go on."""
        self._must("ip", "link", "set", "eth0", "down")

    def plug(self) -> None:
        """Put it back on the network."""
        self._must("ip", "link", "set", "eth0", "up")

    def processes(self, word: str = "") -> list[int]:
        """Its processes with ``word`` in their command line, but for the first, by their numbers here."""
        space = os.readlink(f"/proc/{self.first}/ns/pid")
        return [
            pid for pid in _numbers() if pid != self.first and _space(pid) == space and word in _command(pid)
        ]

    def signal(self, number: signal.Signals, word: str = "") -> list[int]:
        """Send a signal to those processes, and return who they were."""
        found = self.processes(word)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return found

    def die(self) -> None:
        """Lose it with all its processes at once, as by a power cut."""
        self.process.kill()
        self.process.wait()
        for process in self.started:
            process.send_signal(signal.SIGCONT)  # nsenter stops when what it started stops
            process.wait(30)
        until(lambda: not Path(f"/proc/{self.first}").exists(), 10, f"machine {self.name} is to end")

    def _must(self, *words: str) -> None:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr


@dataclass
class Lab:
    """Machines on one switch.

    Attributes:
        folder: what they share; their disks lie beside it.
        made: all machines so far, dead ones among them.
    """

    folder: Path
    made: list[Machine] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _switch: Machine | None = None

    @property
    def shared(self) -> Path:
        """What every machine sees as `SHARED`, from outside."""
        return self.folder / "shared"

    def machine(self, name: str) -> Machine:
        """A new machine; one that died can be made again by its name, and has an empty disk then."""
        if self._switch is None:
            self._switch = self._boot("switch")
            self._switch._must("ip", "link", "add", "switch", "type", "bridge")
            self._switch._must("ip", "link", "set", "switch", "up")
        machine, port = self._boot(name), f"port{len(self.made)}"
        cable = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", port]
        # From outside of both, where the switch has a number.
        there = ["nsenter", f"--target={machine.first}", "--net", "--", *cable]
        subprocess.run([*there, "netns", str(self._switch.first)], check=True, timeout=300)
        machine._must("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        machine.plug()
        self._switch._must("ip", "link", "set", port, "master", "switch", "up")
        self.made.append(machine)
        return machine

    def end(self) -> None:
        """End all machines."""
        for machine in [*self.made, *filter(None, [self._switch])]:
            machine.die()

    def _boot(self, name: str) -> Machine:
        number = next(self._numbers)
        disk = self.folder / f"{name}-{number}"
        for place in (disk, self.shared):
            place.mkdir(parents=True, exist_ok=True)
        disk.chmod(0o1777)
        # What we need of our own /tmp is in theirs too.
        needed = [path for path in {ROOT, Path(sys.prefix)} if path.is_relative_to("/tmp")]
        there = {path: disk / path.relative_to("/tmp") for path in needed}
        for place in there.values():
            place.mkdir(parents=True, exist_ok=True)
        first = [
            f"mount --bind {self.shared} {SHARED}",
            *(f"mount --bind {path} {place}" for path, place in sorted(there.items())),
            f"mount --rbind {disk} /tmp",
            "mount -t tmpfs -o size=2g none /dev/shm",
            f"hostname {name}",
            "ip link set lo up",
            f"echo {_READY}",
            "sleep infinity & wait",  # bash reaps whoever is left to it
        ]
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *_ALONE, "bash", "-ec", "\n".join(first)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as said:
            assert said.readline().strip() == _READY
        [inside] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return Machine(name, f"{_NETWORK}.{number}", disk, process, int(inside))


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """Machines that keep what they have in ``folder``, and end whatever happens."""
    made = Lab(folder)
    try:
        yield made
    finally:
        made.end()


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Of every process on a machine: that of this one, but for what is said of Ray, and with our checkout first."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), own["PATH"]])
    fixed = {"PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp", "XDG_CACHE_HOME": "/tmp/cache"}
    # A machine with other files must not leave compiled ones for everybody.
    return {**own, **fixed, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: it is not in time.
    """
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


def files(folder: Path) -> Sequence[str]:
    """All files in a folder and below."""
    found = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return sorted(str(path.relative_to(folder)) for path in found)


def _numbers() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _space(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""

"""What a cluster can lose while a run works on it, and how such a run ends."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import running
from tests.cluster.machines import Machine, files, until
from tests.cluster.running import Cluster, Run

_IMAGES = re.compile(
    r"(^|/)(federation\.json|\d+/[a-z]+\.npy)$"
)  # as `sites.hospital.Federation` writes them

Loss = Callable[[Cluster, Machine], None]
"""Does something to a cluster, or to that machine of it."""


def worker(on: Cluster, machine: Machine) -> None:
    """One of our processes there is killed."""
    assert machine.signal(signal.SIGKILL, running.ACTOR), "no worker of ours is there"


def raylet(on: Cluster, machine: Machine) -> None:
    """The process is killed by which Ray serves the machine."""
    assert machine.signal(signal.SIGKILL, "/raylet/raylet"), "no raylet is there"


def node(on: Cluster, machine: Machine) -> None:
    """The machine is lost with all its processes."""
    machine.die()


def hang(on: Cluster, machine: Machine) -> None:
    """All processes there stop, and stay."""
    assert machine.signal(signal.SIGSTOP)


def pause(on: Cluster, machine: Machine) -> None:
    """All processes there stop, and go on 25 s later, when Ray has given them up."""
    assert machine.signal(signal.SIGSTOP)
    _later(25, lambda: machine.signal(signal.SIGCONT))


def unplug(on: Cluster, machine: Machine) -> None:
    """It loses the network, and gets it back 25 s later."""
    machine.unplug()
    _later(25, machine.plug)


def again(on: Cluster, machine: Machine) -> None:
    """The machine is lost, and started again at once."""
    machine.die()
    on.join(on.lab.machine(machine.name))


def whole(on: Cluster, machine: Machine) -> None:
    """Ray is killed on all machines; the driver is left."""
    machine.die()
    running.kill_ray(on.head)


LOSSES: Mapping[str, Loss] = {
    loss.__name__: loss for loss in (worker, raylet, node, hang, pause, unplug, again)
}
"""Those that a run survives."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: its exit code.
        models: sha256 of every model it came to.
        told: its lines about errors.
        stall: the longest time without a sign of work after the loss, in seconds.
        images: files with hospitals' images that are still there.
        said: all it said.
    """

    code: int
    models: Mapping[str, str]
    told: list[str]
    stall: float
    images: list[str]
    said: str

    @property
    def blamed(self) -> bool:
        """Whether a hospital was said to have failed."""
        return bool(re.search(r"hospital '\w+' failed", self.said))


def outcome(on: Cluster, run: Run, loss: Loss, machine: Machine, moment: float = 0.0) -> Outcome:
    """Have a loss come some seconds after the first answers, and see how the run ends."""
    running.until_under_way(run)
    time.sleep(moment)
    loss(on, machine)
    longest = running.stall(run)
    code = run.wait()
    if code == 1:  # somebody who outlives it may be the one to say so
        until(lambda: bool(run.told), 10, f"a line about an error\n{run.said}")
    models = run.weights() if (run.out / "weights").is_dir() else {}
    return Outcome(code, models, run.told, longest, images(on), run.said)


def images(on: Cluster) -> list[str]:
    """Files with hospitals' images, on any disk."""
    places = [on.lab.shared, *(machine.tmp for machine in on.lab.made)]
    return [f"{place.name}/{name}" for place in places for name in images_in(place)]


def images_in(folder: Path) -> list[str]:
    """Such files in a folder and below."""
    return [name for name in files(folder) if _IMAGES.search(name)]


def _later(seconds: float, what: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()

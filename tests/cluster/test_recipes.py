"""The batch script of docs/cluster, with srun and scontrol of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests import runs
from tests.cluster import losses, running
from tests.cluster.machines import ROOT, SHARED, Lab, Machine, lab, until

pytestmark = pytest.mark.cluster

SLURM = ROOT / "docs" / "cluster" / "slurm.sh"
SRUN = f"""#!/bin/bash
# Has its command run on the machine that it names, by whoever looks into {SHARED}/asked.
for word in "$@"; do
    case $word in
        --nodelist=*) machine=${{word#*=}}; shift ;;
        --*) shift ;;
        *) break ;;
    esac
done
printf '%s\\n' "$machine" "$@" >{SHARED}/asked/$$.part
mv {SHARED}/asked/$$.part {SHARED}/asked/$$
sleep infinity
"""
SCONTROL = f"""#!/bin/bash
case $1 in
    show) printf '%s\\n' ${{3//,/ }} ;;
    requeue) echo "$2" >>{SHARED}/requeued ;;
esac
"""


class Slurm:
    """As much of SLURM as the script needs, on machines of a lab."""

    def __init__(self, machines: Lab, count: int) -> None:
        self.shared = machines.shared
        self.machines = {f"node{n}": machines.machine(f"node{n}") for n in range(1, count + 1)}
        for name in ("asked", "bin"):
            (self.shared / name).mkdir(exist_ok=True)
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (self.shared / "bin" / name).write_text(text)
            (self.shared / "bin" / name).chmod(0o755)
        hosts = "".join(f"{machine.address} {name}\n" for name, machine in self.machines.items())
        for machine in self.machines.values():
            machine.replace(Path("/etc/hosts"), f"127.0.0.1 localhost\n{hosts}")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def head(self) -> Machine:
        return self.machines["node1"]

    def submit(self, log: Path, out: str, restarts: int = 0) -> subprocess.Popen[bytes]:
        """The batch script, on the first machine."""
        options = [word for value in running.SHORT for word in ("--set", value)]
        return self.head.spawn(
            log,
            *["bash", str(SLURM), str(running.SCENARIO), out, *options],
            PATH=os.pathsep.join([str(SHARED / "bin"), os.environ["PATH"]]),
            PYTHON=running.PYTHON,
            SLURM_JOB_ID="7",
            SLURM_JOB_NODELIST=",".join(self.machines),
            SLURM_CPUS_PER_TASK="1",
            SLURM_RESTART_COUNT=str(restarts),
        )

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _serve(self) -> None:
        number = 0
        while not self._over.wait(0.1):
            for asked in (self.shared / "asked").iterdir():
                if asked.suffix != ".part":
                    name, *words = asked.read_text().splitlines()
                    asked.unlink()
                    number += 1
                    self.machines[name].spawn(self.shared / f"srun-{number}.log", *words)


def test_the_batch_script_runs_on_all_machines_and_goes_on_when_it_comes_back(
    tmp_path: Path, models: dict[str, str]
) -> None:
    """First its time is over in mid-run; then its cluster is another, and it comes to the same bits."""
    out, logs = tmp_path / "shared" / "run", [tmp_path / "first.log", tmp_path / "second.log"]
    with lab(tmp_path) as machines:
        slurm = Slurm(machines, 2)
        first = slurm.submit(logs[0], str(SHARED / "run"))
        until(
            lambda: first.poll() is not None or len(running.signs(out / "work" / "journal")) > 3, 120, "work"
        )
        assert first.poll() is None, logs[0].read_text()
        slurm.head.signal(signal.SIGTERM, "slurm.sh")
        assert first.wait(60) == 143, logs[0].read_text()
        assert (slurm.shared / "requeued").read_text() == "7\n"
        assert losses.images_in(out) == []
        slurm.end()
    with lab(tmp_path) as machines:
        slurm = Slurm(machines, 2)
        second = slurm.submit(logs[1], str(SHARED / "run"), restarts=1)
        assert second.wait(200) == 0, logs[1].read_text()
        assert runs.contents(out / "weights") == models
        assert slurm.submit(logs[1], str(SHARED / "run")).wait(30) == 0
        assert logs[1].read_text() == f"{SHARED / 'run'} is finished\n"
        slurm.end()

"""docs/cluster.md, as whoever reads it would follow it: from nothing to a report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import runs
from tests.cluster import losses, running
from tests.cluster.machines import ROOT, lab

pytestmark = pytest.mark.cluster

PAGE = ROOT / "docs" / "cluster.md"


def test_from_nothing_to_a_report(tmp_path: Path, models: dict[str, str]) -> None:
    """But for a shorter scenario and fewer CPUs. The run folder is on the first machine alone."""
    with lab(tmp_path) as machines:
        first, second = machines.machine("node1"), machines.machine("node2")
        instead = {
            ".venv/bin/": f"{Path(running.PYTHON).parent}{os.sep}",
            "10.0.0.1": first.address,
            "10.0.0.2": second.address,
            "--num-cpus=16": "--num-cpus=1",
            "runs/a": "/tmp/runs/a",
            "3hosp.yaml": " ".join(["3hosp.yaml", *(f"--set {value}" for value in running.SHORT)]),
        }
        commands = told(instead)
        assert [command.split()[1] for command in commands] == [
            "start", "start", "cluster", "simulate", "report"
        ]  # fmt: skip
        said = []
        for command in commands:
            machine = second if "start --address" in command else first
            done = machine.run("bash", "-c", command)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            said.append(done.stdout)
        assert "node1" in said[2] and "node2" in said[2]
        assert "FORGOTTEN?" in said[4]
        run = first.tmp / "runs" / "a"
        assert runs.contents(run / "weights") == models
        by_host = {
            machine["host"]: machine
            for machine in json.loads((run / "manifest.json").read_text())["machines"]
        }
        assert {host: machine["images"] for host, machine in by_host.items()} == {
            "node1": "shared",
            "node2": "sent",
        }
        assert [name for machine in machines.made for name in losses.images_in(machine.tmp)] == []


def told(instead: dict[str, str]) -> list[str]:
    """The page's commands that are ours or Ray's, with some words replaced, each of which must be there."""
    lines = [line.strip() for line in PAGE.read_text(encoding="utf-8").splitlines()]
    commands = [line for line in lines if line.startswith(".venv/bin/")]
    for old, new in instead.items():
        assert any(old in command for command in commands), old
        commands = [command.replace(old, new) for command in commands]
    return commands

"""Two machines come to the bits of one, or say why they cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path

import pytest

from tests.cluster import losses, running
from tests.cluster.machines import ROOT, Machine
from tests.cluster.running import cluster

pytestmark = pytest.mark.cluster


def test_two_machines_come_to_the_bits_of_one(tmp_path: Path, models: dict[str, str]) -> None:
    """Where both see the run folder; `test_page` does without."""
    with cluster(tmp_path) as on:
        run = running.simulate(on, "run")
        assert run.wait() == 0, run.said
        assert run.weights() == models
        machines = json.loads((run.out / "manifest.json").read_text())["machines"]
        assert {machine["host"]: machine["images"] for machine in machines} == {
            "node1": "shared",
            "node2": "shared",
        }
        assert losses.images(on) == []


def test_machines_that_differ_are_refused_by_name_before_anything_else(tmp_path: Path) -> None:
    """One has other code, one another torch, one another Ray: all are told, and nothing is left behind."""
    with cluster(tmp_path, cpus=(1, 1, 1, 1)) as on:
        code, torch, ray = on.lab.made[1:]
        code.edit(ROOT / "fedunlearn" / "weights.py", "from __future__", "# another\nfrom __future__")
        change_version(torch, "torch")
        change_version(ray, "ray")
        run = running.simulate(on, "run")
        assert run.wait() == 2, run.said
        told = " ".join(run.said.split())
        assert not run.out.exists()
        for machine, what in ((code, "code"), (torch, "torch"), (ray, "ray")):
            assert re.search(rf"machine '{machine.name}'[^;]*{what}", told), told
        assert "machine 'node1'" not in told


def test_a_driver_with_another_ray_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path, cpus=(1,)) as on:
        change_version(on.head, "ray")
        run = running.simulate(on, "run")
        assert run.wait() == 2, run.said
        assert not run.out.exists()


def change_version(machine: Machine, library: str) -> None:
    """Have a machine see another version of a library, as its files and its package tell it."""
    found = importlib.metadata.version(library)
    about = importlib.metadata.distribution(library)
    [metadata] = [file for file in about.files or () if file.match(f"{library}-*.dist-info/METADATA")]
    machine.edit(Path(str(metadata.locate())), f"\nVersion: {found}\n", "\nVersion: 0.99.0\n")
    module = importlib.util.find_spec(library)
    assert module is not None and module.origin is not None
    file = Path(module.origin).with_name({"torch": "version.py", "ray": "_version.py"}[library])
    machine.edit(file, f'"{found}"' if f'"{found}"' in file.read_text() else f"'{found}'", '"0.99.0"')

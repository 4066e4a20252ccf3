"""Two machines come to the bits of one, or say why they cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster import losses, running
from tests.cluster.running import cluster

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("private", [False, True], ids=["shared folder", "folder on one of them"])
def test_two_machines_come_to_the_bits_of_one(tmp_path: Path, models: dict[str, str], private: bool) -> None:
    with cluster(tmp_path) as on:
        run = running.simulate(on, "run", private=private)
        assert run.wait() == 0, run.said
        assert run.weights() == models
        machines = json.loads((run.out / "manifest.json").read_text())["machines"]
        assert {machine["host"] for machine in machines} == {"node1", "node2"}
        assert {machine["images"] for machine in machines} == ({"shared", "sent"} if private else {"shared"})
        assert losses.images(on) == []

"""What a run survives on two machines, and what it cannot."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.cluster import averaging, losses, running
from tests.cluster.running import cluster

pytestmark = pytest.mark.cluster

STALL = 30.0  # seconds
LONG = 20.0  # seconds; Ray gives a machine up that has not answered for 15


def test_a_run_outlives_whatever_it_loses(tmp_path: Path) -> None:
    """A worker, a raylet, a machine; then one that hangs. Whoever joins meanwhile is put to work."""
    with cluster(tmp_path) as on:
        folder = on.lab.shared / "averages"
        averaging.write(folder / "federation")
        run = running.averaging(on, folder, 2)
        for loss in (losses.worker, losses.raylet, losses.node, losses.hang):
            machine = on.lab.made[-1]
            run.more(2, "node2")
            loss(on, machine)
            run.more(6)
            if loss is losses.raylet:
                losses.node(on, machine)
            if loss in (losses.raylet, losses.node):
                on.join(on.lab.machine("node2"))
        run.more(12)
        found = run.stop()
        assert {words[2] for words in run.lines("answer")} == {"ok"}
        assert {words[1] for words in run.lines("answer")} == {"node1", "node2"}
        assert run.longest < STALL
        assert found == averaging.inline(folder, sorted(found))


def test_a_run_whose_cluster_is_gone_says_so_and_goes_on_elsewhere(
    tmp_path: Path, models: dict[str, str]
) -> None:
    with cluster(tmp_path) as on:
        run = running.simulate(on, "run", "engine.workers=2")
        ended = losses.outcome(on, run, losses.whole, on.lab.made[1], moment=2)
        assert (ended.code, ended.blamed, ended.images) == (1, False, [])
        [line] = ended.told
        assert re.search(r"the Ray cluster .*gone", line)
        assert ended.stall < STALL
        resumed = running.simulate(on, "run", resume=True, engine="inline")
        assert resumed.wait() == 0, resumed.said
        assert resumed.weights() == models


def test_what_was_given_up_may_come_back(tmp_path: Path) -> None:
    """Its work was done by others meanwhile, and is not counted twice. Once it is started again, it works again."""
    with cluster(tmp_path) as on:
        folder = on.lab.shared / "averages"
        averaging.write(folder / "federation")
        run, machine = running.averaging(on, folder, 2), on.lab.made[1]
        run.more(2, "node2")
        losses.hang(on, machine)
        time.sleep(LONG)
        machine.signal(signal.SIGCONT)
        run.more(12)
        losses.again(on, machine)
        run.more(2, "node2")
        found = run.stop()
        assert {words[2] for words in run.lines("answer")} == {"ok"}
        assert run.longest < STALL
        assert found == averaging.inline(folder, sorted(found))

"""A look at every machine of a cluster: what is made of its answers, and one real look."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedunlearn.core import InputError
from fedunlearn.federation.engines import looking
from fedunlearn.federation.engines.flower import Flower, cluster as clusters, overview, probe
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import here
from tests.federation import test_flower

cluster = test_flower.cluster  # a fixture

FACTS = {**looking.facts(), "host": "node2"}


def row(**changes: Any) -> dict[str, Any]:
    known = {
        "address": "10.0.0.2",
        "host": "raylet-name",
        "node": "2",
        "has": {"CPU": 2.0, "GPU": 0.0},
        "free": {"CPU": 1.0, "GPU": 0.0},
        "used": True,
        "facts": FACTS,
        "sees": None,
        "silence": None,
    }
    return {**known, **changes}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the other process is going to say."""
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(probe, "_asked", lambda question: rows)
    return rows


def test_machines_that_can_be_used_come_in_the_order_of_their_addresses(
    answers: list[dict[str, Any]],
) -> None:
    answers += [row(), row(address="10.0.0.1", node="1", facts={**FACTS, "host": "node1"})]
    found = probe.usable("10.0.0.1:6379", 0.0)
    assert [(machine.host, machine.node) for machine in found] == [("node1", "1"), ("node2", "2")]
    assert found[1] == replace(here("2"), host="node2")


def test_one_that_has_no_room_for_work_is_not_asked_and_does_no_harm(answers: list[dict[str, Any]]) -> None:
    """As the head of many clusters, which has no CPU for tasks."""
    answers += [row(), row(address="10.0.0.1", used=False, facts=None, has={"CPU": 0.0, "GPU": 0.0})]
    assert [machine.host for machine in probe.usable("10.0.0.1:6379", 0.0)] == ["node2"]


def test_all_that_is_wrong_is_told_with_every_machines_name_and_address(
    answers: list[dict[str, Any]],
) -> None:
    old = {**FACTS, "host": "node3", "versions": {**looking.versions(), "torch": "2.0"}, "code": "other"}
    answers += [
        row(facts=None, silence="no answer within 60 s; expected one: restart Ray there, or stop it there"),
        row(address="10.0.0.3", facts=old),
    ]
    with pytest.raises(InputError) as caught:
        probe.usable("10.0.0.1:6379", 0.0)
    first, second, third = map(str, caught.value.problems)
    assert first.startswith("machine 'raylet-name' (10.0.0.2): no answer within 60 s")
    assert second.startswith("machine 'node3' (10.0.0.3): found other code of fedunlearn")
    assert third.startswith("machine 'node3' (10.0.0.3): found torch 2.0, expected ")


@pytest.mark.parametrize(("gpus", "what"), [(0.0, "a CPU in"), (0.5, "a CPU and a GPU in")])
def test_a_cluster_where_nobody_has_room_is_refused(
    answers: list[dict[str, Any]], gpus: float, what: str
) -> None:
    answers.append(row(used=False, facts=None))
    with pytest.raises(InputError, match=f"found no machine with {what} the Ray cluster at 'auto', of 1"):
        probe.look("auto", gpus)


def test_the_table_and_its_json_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """A machine each: one like this, one that differs, one that did not answer, one without room."""
    other = {**FACTS, "host": "node3", "code": "other", "processor": "EPYC [bold]"}
    rows = [
        row(sees=True),
        row(facts=other, sees=False),
        row(facts=None, silence="no answer"),
        row(used=False, facts=None),
    ]
    found, own = [probe.sighting(here(), row) for row in rows], here()
    told = json.loads(json.dumps(overview.as_json(own, found)))
    assert [about["same_code"] for about in told["machines"]] == [True, False, None, None]
    assert [len(about["problems"]) for about in told["machines"]] == [0, 1, 1, 0]
    assert told["machines"][0]["free"] == {"CPU": 1.0, "GPU": 0.0}
    assert "EPYC [bold]: node3" in told["notes"][0]
    overview.show(own, found, Console(width=200))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["node2", "node3", "raylet-name", "raylet-name"]
    ends = [line.strip().split("  ")[-1].strip() for line in lines[1:5]]
    assert [end.split()[-1] for end in ends] == ["yes", "no", "no", "room"]
    assert "1 of 2" in lines[1] and "EPYC [bold]" in lines[2] and lines[5] == told["notes"][0]


def test_an_engine_on_this_machine_alone_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(probe, "_asked", lambda question: pytest.fail("another process was started"))
    assert Flower().inspect() == Inline().inspect() == (here(),)


def test_the_address_may_come_from_the_environment(
    answers: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    answers.append(row())
    assert [machine.host for machine in Flower().inspect()] == ["node2"]


def test_a_cluster_of_another_ray_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray says so in several lines."""

    def init(**options: object) -> None:
        raise RuntimeError(
            "Version mismatch: The cluster was started with:\n    Ray: 2.54.0\n    Python: 3.11.7"
        )

    ray = __import__("ray")
    monkeypatch.setattr(ray, "init", init)
    for name in ("PYTHONPATH", *clusters._ENVIRONMENT):
        monkeypatch.setenv(name, "")
    with pytest.raises(
        InputError, match=r"cluster at 'auto': Version mismatch: .* Ray: 2.54.0 .*the same Ray"
    ):
        clusters.attach("auto")


START = subprocess.Popen


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let another program be what is started."""
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **how: START([sys.executable, "-c", code, command[-1]], **how)
    )


def test_a_process_that_dies_or_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, "raise SystemExit('[2026 W 1 1] it is gone')")
    with pytest.raises(
        InputError, match=r"^could not join the Ray cluster at 'auto' within 60 s: it is gone;"
    ):
        probe.look("auto")
    asleep = "import time; time.sleep(60)"
    for name in ("PATIENCE", "_ATTACH", "_SPARE"):
        monkeypatch.setattr(probe, name, 0.5)
    began = time.monotonic()
    program(monkeypatch, asleep)
    with pytest.raises(InputError, match=r"could not join .* within 0.5 s: no answer; expected host:port"):
        probe.look("auto")
    attach = "import json, pathlib, sys; pathlib.Path(json.loads(sys.argv[1])['attached']).touch(); "
    program(monkeypatch, attach + asleep)
    with pytest.raises(
        InputError, match=r"^the Ray cluster at 'auto' was lost while machines were looked at"
    ):
        probe.look("auto")
    assert time.monotonic() - began < 5


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, answers: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match=r"cannot write to .*nowhere: No such file or directory"):
        probe.look("auto", folder=tmp_path / "nowhere")


@pytest.mark.gate
def test_without_a_gpu_whoever_wants_one_is_told_before_anything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if here_has_gpu():
        pytest.skip("there is a GPU here")
    with pytest.raises(InputError, match=r"^torch .*CPU \(engine: {gpus_per_client: 0}\)$"):
        Flower(gpus_per_client=0.5).inspect()


def here_has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.mark.gate
def test_an_address_where_nothing_listens_is_refused_and_nothing_left() -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=r"^no Ray cluster at '127.0.0.1:1'.*ray start --head"):
        Flower(address="127.0.0.1:1").inspect()
    assert time.monotonic() - began < 30


BUSY = """
import ray, sys, time
for left in range(30, -1, -1):  # its head may listen before its raylet is known
    try:
        ray.init(sys.argv[1], log_to_driver=False)
        break
    except (ConnectionError, RuntimeError):
        if not left:
            raise
        time.sleep(1)
ray.remote(num_cpus=2)(lambda: time.sleep(600)).remote()
while ray.available_resources().get("CPU", 0.0):
    time.sleep(0.2)
print(flush=True)
time.sleep(600)
"""


@pytest.mark.ray
def test_a_real_cluster_is_looked_at_even_while_it_is_busy(cluster: str, tmp_path: Path) -> None:
    """Two of its two CPUs are taken. Its one machine is this one, which sees what this process sees."""
    other = subprocess.Popen(
        [sys.executable, "-c", BUSY, cluster], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert other.stdout is not None and other.stdout.readline()
        (seen,) = probe.look(cluster, folder=tmp_path)
    finally:
        other.kill()
        other.communicate()
    assert seen.machine == here(seen.node) and seen.faults == () and seen.sees is True
    assert (seen.has["CPU"], seen.free["CPU"]) == (2.0, 0.0)
    assert list(tmp_path.iterdir()) == []
    assert Flower(address=cluster).inspect() == (here(seen.node),)
    with pytest.raises(InputError, match="found no machine with a CPU and a GPU"):
        Flower(address=cluster, gpus_per_client=0.5).inspect()


def test_rows_of_ray_are_counted_as_a_worker_needs() -> None:
    from fedunlearn.federation.engines.flower import scout

    has: Mapping[str, float] = {"CPU": 1.0, "GPU": 0.5, "memory": 9.0}
    assert scout._used(has, 0.0) and scout._used(has, 0.5) and not scout._used(has, 1.0)
    assert not scout._used({"GPU": 4.0}, 0.5)
    assert scout._counted(has) == {"CPU": 1.0, "GPU": 0.5} and scout._counted({}) == {"CPU": 0.0, "GPU": 0.0}

"""As many workers as were asked for, on a cluster that others use too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import averaging, running
from tests.cluster.machines import until
from tests.cluster.running import ACTOR, PYTHON, Averaging, Cluster, cluster

pytestmark = pytest.mark.cluster

CPUS = 8
OTHERS = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="critical")
work = ray.remote(num_cpus=int(sys.argv[2]))(lambda: "done")
print(ray.get(work.remote(), timeout=60))
"""


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), cpus=(CPUS,)) as made:
        yield made


def begin(on: Cluster, name: str, workers: int, *options: str) -> Averaging:
    """Hospitals of its own for everybody, so that each can be told to stop."""
    folder = on.lab.shared / name
    averaging.write(folder / "federation")
    return running.averaging(on, folder, workers, *options, name=name)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_so_many_workers_and_the_rest_is_free_for_others(on: Cluster, workers: int) -> None:
    run = begin(on, f"of-{workers}", workers)
    run.more(2 * workers)
    assert len(on.head.processes(ACTOR)) == workers
    rest = on.head.run(PYTHON, "-c", OTHERS, on.address, str(CPUS - workers))
    assert rest.stdout == "done\n", rest.stderr
    run.more(1)
    assert len(on.head.processes(ACTOR)) == workers
    found = run.stop()
    assert found == averaging.inline(run.folder, len(found))


def test_whoever_finds_a_cluster_busy_says_so_and_waits(on: Cluster) -> None:
    """Longer than a task may take. The first takes all there is: more than its machine has cores."""
    first = begin(on, "first", 0)
    first.more(1)
    until(lambda: len(on.head.processes(ACTOR)) == CPUS, 120, "a worker for every CPU")
    second = begin(on, "second", 1, "--timeout=5")
    until(lambda: second.lines("told"), 60, "it is to say that it waits")
    assert "busy" in second.lines("told")[0] and not second.lines("answer")
    first.more(1)
    first.stop()
    second.more(3)
    found = second.stop()
    assert {words[2] for words in second.lines("answer")} == {"ok"}
    assert found == averaging.inline(second.folder, len(found))

"""As many workers as were asked for, on a cluster that others use too."""

from __future__ import annotations

import functools
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
work = ray.remote(num_cpus=1)(lambda free: f"{free:g} free")
print(ray.get(work.remote(ray.available_resources()["CPU"]), timeout=60))
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


def there(on: Cluster, workers: int) -> bool:
    """Whether so many workers of ours are there."""
    return len(on.head.processes(ACTOR)) == workers


def test_everybody_has_the_workers_that_were_asked_for_and_the_rest_is_free(on: Cluster) -> None:
    """Three runs at once, with 1, 2 and 4 workers: one CPU is left."""
    runs = {workers: begin(on, f"of-{workers}", workers) for workers in (1, 2, 4)}
    until(functools.partial(there, on, CPUS - 1), 120, "1 + 2 + 4 workers")
    for run in runs.values():
        run.more(8)
    rest = on.head.run(PYTHON, "-c", OTHERS, on.address)
    assert rest.stdout == "1 free\n", rest.stderr
    for run in runs.values():
        run.more(1)
    assert there(on, CPUS - 1)
    left, found = CPUS - 1, {}
    for workers, run in runs.items():
        found[workers] = run.stop()
        left -= workers
        until(functools.partial(there, on, left), 30, "the workers of a run end with it")
    expected = averaging.inline(run.folder)
    for workers, run in runs.items():
        assert {words[2] for words in run.lines("answer")} == {"ok"}
        assert expected.items() <= found[workers].items()


def test_whoever_finds_a_cluster_busy_says_so_and_waits(on: Cluster) -> None:
    """Longer than a task may take. The first takes all there is: more than its machine has cores."""
    first = begin(on, "first", 0)
    first.more(1)
    until(functools.partial(there, on, CPUS), 120, "a worker for every CPU")
    second = begin(on, "second", 1, "--timeout=5")
    until(lambda: second.lines("told"), 60, "it is to say that it waits")
    assert "busy:" in second.lines("told")[0] and not second.lines("answer")
    first.more(1)
    first.stop()
    second.more(3)
    found = second.stop()
    assert {words[2] for words in second.lines("answer")} == {"ok"}
    assert averaging.inline(second.folder).items() <= found.items()

"""How fast images get to a machine that does not see the run folder, and how much memory that takes.

    python benchmarks/parcels.py --megabytes 1024

Starts a Ray cluster of two machines that are both this one, at 127.0.0.1 and 127.0.0.2; so this is the limit that the
processors and the disk set, not a network's. Peak memory is told with that of a folder of almost nothing.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fedunlearn.federation.engines.flower import cluster as clusters, parcels
from fedunlearn.federation.engines.flower.keeper import Keeper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.federation.pair import OTHER, two_machines


class Measured(Keeper):
    def stay(self) -> None:
        (self._made() / "peak").write_text(str(peak()))
        super().stay()


def peak() -> int:
    """The most memory that this process has had, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


def send(folder: Path, node: str) -> tuple[float, int]:
    """Seconds until the images are there, the keeper's start among them, and its peak memory in MB."""
    news: queue.SimpleQueue[tuple[str | None, float]] = queue.SimpleQueue()
    way = parcels.Parcels(folder, lambda node, there, how: news.put((there, time.perf_counter())))
    next(folder.glob(".seen-*")).write_text("another folder's")
    began = time.perf_counter()
    way.want(node)
    there, ended = news.get()
    if there is None:
        sys.exit("the images did not arrive")
    while not (found := Path(there) / "peak").is_file() or not found.read_text():
        time.sleep(0.1)
    took, memory = ended - began, int(found.read_text())
    way.close()
    return took, memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1024)
    megabytes = parser.parse_args().megabytes
    parcels.Keeper = Measured  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name, two_machines(Path(name)) as (address, _):
        for folder in (little := Path(name, "little"), much := Path(name, "much")):
            (folder / "0").mkdir(parents=True)
            (folder / "federation.json").write_text("{}")
        block = np.random.default_rng(0).bytes(1 << 20)
        with (much / "0" / "pixels.npy").open("wb") as file:
            for _ in range(megabytes):
                file.write(block)
        with clusters.environment(Path(name)), clusters.quiet():
            import ray

            clusters.attach(address)
            node = next(node["NodeID"] for node in ray.nodes() if node["NodeManagerAddress"] == OTHER)
            start, least = send(little, node)
            before = peak()
            took, most = send(much, node)
            seconds = took - start
            print(
                f"{megabytes} MB in {seconds:.1f} s, {megabytes / seconds:.0f} MB/s, load {os.getloadavg()[0]:.1f}"
            )
            print(
                f"peak memory in MB: driver {peak()} (before: {before}), keeper {most} (of almost nothing: {least})"
            )
            ray.shutdown()


if __name__ == "__main__":
    main()

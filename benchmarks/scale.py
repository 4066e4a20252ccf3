"""What many hospitals cost beside few: the same images, dealt to 3 or to 1,000 of them.

    python benchmarks/scale.py                      12,000 images at 3, 30, 300 and 1,000 hospitals, three turns
    python benchmarks/scale.py --quick              so few that nothing can be read off, but that it runs
    python benchmarks/scale.py --hospitals 3 300 --epochs 5 --turns 5
    python benchmarks/scale.py --set training.participation=0.1
    python benchmarks/scale.py --against PLACE      by turns with another checkout, and whether weights are the same

Every run is `simulate` on engine inline with one seed: training, retraining without a hospital, and two strategies, of
which one uses every other round's stored updates of all hospitals. It is a process of its own. Told of it are

    CPU an image     of all procedures, in all threads, by passes of an image through the network
    driver           CPU time of the driver's own thread, by asks: what it takes to send, check, keep and average
    peak             the most memory that the process had once all procedures ended, and what of it they brought
    history, journal bytes of stored updates and of answers on disk at that time, or with --look the most there were

Models are not scored, which costs the same at any number of hospitals; with --score they are, and `peak` is the run's.

Turns are taken in reverse order every other time; of times, the least and the median are told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
MEGA = 2**20

CHILD = """
import json, resource, sys, threading, time
from pathlib import Path

from rich.console import Console
from fedunlearn import scenario as scenarios, story, weights
from fedunlearn.campaign.estimate import _held

asked = json.loads(sys.argv[1])
out = Path(asked["out"])
told = dict.fromkeys(("history", "journal", "images", "asks", "cpu", "driver", "wall"), 0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
drive, over = story.drive, threading.Event()

def keep():
    for name, folders in (("history", out.glob("work/history-*")), ("journal", out.glob("work/journal"))):
        told[name] = max(told[name], sum(map(_held, folders)))

def look():
    while not over.wait(asked["look"]):
        keep()

class Count:
    def round(self, round):
        told["asks"] += len(round.answers)
        told["images"] += sum(answer.images for answer in round.answers.values())

    def end(self, label, rounds, server_seconds):
        pass

def driven(jobs, link, watchers, *more):
    told.setdefault("before", peak())
    own, all_, clock = time.thread_time(), time.process_time(), time.perf_counter()
    drive(jobs, link, [*watchers, Count()], *more)
    told["driver"] += time.thread_time() - own
    told["cpu"] += time.process_time() - all_
    told["wall"] += time.perf_counter() - clock
    told["peak"] = peak()
    keep()

story.drive = driven
if asked["look"]:
    threading.Thread(target=look, daemon=True).start()
if not asked["score"]:
    def ended(*given):
        raise KeyboardInterrupt

    story._finish = ended
try:
    story.simulate(scenarios.read(Path(asked["scenario"]), asked["set"]), out, out.parent, Console(), quiet=True)
except KeyboardInterrupt:
    pass
over.set()
told["whole"] = peak()
told["weights"] = {file.name: weights.digest(weights.load(file)) for file in sorted((out / "weights").iterdir())}
print(json.dumps(told))
"""

SCENARIO = """
name: scale
seeds: [1]
references: 1
engine: {{name: inline}}
data: {{name: phantom_cells, images: {images}, images_per_patient: 1}}
sites: {{names: [{names}], partition: {{name: iid}}, split: {{train: 0.8, val: 0.1, test: 0.1}}}}
model: {{name: small_cnn}}
training: {{rounds: 2, local_epochs: {epochs}, batch_size: 32, optimizer: adam, lr: 0.002}}
requests:
  - {{id: leaves, site: h00000, whole_site: true}}
evaluation: {{curves: false}}
strategies:
  - {{name: fine_tune, rounds: 1}}
  - {{name: federaser, every: 2}}
"""


def scenario(hospitals: int, images: int, epochs: int) -> str:
    names = ", ".join(f"h{number:05}" for number in range(hospitals))
    return SCENARIO.format(names=names, images=images, epochs=epochs)


def once(text: str, code: Path, look: float, score: bool, overrides: Sequence[str]) -> dict[str, Any]:
    """Run a scenario with the code of a checkout, in a process of its own; what it told."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scale.yaml").write_text(text, encoding="utf-8")
        asked = {"scenario": str(folder / "scale.yaml"), "out": str(folder / "run"), "look": look}
        asked |= {"score": score}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps({**asked, "set": list(overrides)})],
            env={**os.environ, "PYTHONPATH": str(code)},
            cwd=name,
            stdout=subprocess.PIPE,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def show(place: str, hospitals: int, turns: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> None:
    """Print a row of the table."""

    def cost(turn: dict[str, Any]) -> float:
        return float(turn["cpu"] / turn["images"])

    ratios = [cost(one) / cost(least) for one, least in zip(turns, base, strict=True)]
    driver = [1000 * one["driver"] / one["asks"] for one in turns]
    most = {
        key: max(one[key] for one in turns) / MEGA
        for key in ("peak", "whole", "before", "history", "journal")
    }
    cells = [
        place,
        f"{hospitals:,}",
        f"{turns[0]['asks']:,}",
        f"{1000 * statistics.median(map(cost, turns)):.3f}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{statistics.median(driver):.2f} ({min(driver):.2f})",
        f"{most['whole']:.0f}",
        f"{most['peak'] - most['before']:.0f}",
        f"{most['history']:.0f}",
        f"{most['journal']:.0f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="what many hospitals cost beside few")
    parser.add_argument("--quick", action="store_true", help="180 images at 3 and at 6 hospitals, one turn")
    parser.add_argument("--hospitals", type=int, nargs="+", default=[3, 30, 300, 1000])
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--look", type=float, default=0.0, help="seconds between two looks at what is on disk"
    )
    parser.add_argument("--score", action="store_true", help="score the models too")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the scenario")
    parser.add_argument("--against", type=Path, help="another checkout")
    args = parser.parse_args()
    if args.quick:
        args.hospitals, args.images, args.turns = [3, 6], 180, 1
    places = {"here": HERE, **({"there": args.against} if args.against else {})}
    contestants = [(place, hospitals) for hospitals in args.hospitals for place in places]
    turns: dict[tuple[str, int], list[dict[str, Any]]] = {one: [] for one in contestants}
    for turn in range(args.turns):
        for place, hospitals in contestants[:: 1 if turn % 2 == 0 else -1]:
            text = scenario(hospitals, args.images, args.epochs)
            turns[place, hospitals].append(once(text, places[place], args.look, args.score, args.set))
    head = ("code", "hospitals", "asks", "CPU ms an image", "of the fewest's", "driver ms an ask", "peak MB")
    head = (*head, "of it by procedures", "history MB", "journal MB")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for place, hospitals in contestants:
        show(place, hospitals, turns[place, hospitals], turns[place, args.hospitals[0]])
    for hospitals in args.hospitals if args.against else ():
        same = turns["here", hospitals][0]["weights"] == turns["there", hospitals][0]["weights"]
        print(f"\n{hospitals:,} hospitals: {'the same' if same else 'OTHER'} weights")


if __name__ == "__main__":
    main()

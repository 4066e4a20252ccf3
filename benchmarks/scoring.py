"""What scoring costs, once models are there: CPU time a model, peak memory, and which measures they go to.

    python benchmarks/scoring.py                    8 strategies, 3 seeds, two requests: 2,000, 5,000 and 20,000 images
    python benchmarks/scoring.py --quick            so few that nothing can be read off, but that it runs
    python benchmarks/scoring.py --images 20000 --strategies 40 --seeds 5
    python benchmarks/scoring.py --run RUN          a run that is there, instead of made-up ones
    python benchmarks/scoring.py --parts            which measures it goes to (in one thread)
    python benchmarks/scoring.py --against PLACE    by turns with another checkout, and whether both write the same bits

A made-up run is a run folder as `simulate` leaves it, written by the project's own writers, with answers that nobody
trained for: three hospitals, patients of six images, 36 % to train on and 58 % held out, eight classes, eight retrained
models, a request of 30 % of a hospital's patients and one of a whole hospital, answers to changed copies. A model is a
file of answers; what its controls cost counts as its own.

Every turn is a process of its own, whose imports do not count. CPU time is that of all its threads.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.results.runfolder import RunFolder

HERE = Path(__file__).resolve().parents[1]
SITES, CLASSES, OWN, REFERENCES = ("north", "east", "west"), 8, 6, 8
REQUESTS = {"patients-of-north": "north", "east-leaves": "east"}
Array = np.ndarray[Any, Any]

CHILD = """
import importlib, json, pickle, resource, sys, time
from dataclasses import replace
from pathlib import Path

asked = json.loads(sys.argv[1])
import scipy.stats, sklearn.linear_model, sklearn.model_selection, sklearn.svm
module = importlib.import_module("fedunlearn.scoring.score")
spent = {}

def timed(name, work):
    def function(*given, **named):
        began = time.process_time()
        try:
            return work(*given, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - began
    return function

if asked["parts"]:
    every, run = module.measures_of, importlib.import_module("fedunlearn.scoring.evidence.reading").Run
    module.measures_of = lambda kind: {
        name: replace(one, function=timed(name, one.function)) for name, one in every(kind).items()
    }
    for name in ("answers", "on_copies"):
        setattr(run, name, timed("(reading)", getattr(run, name)))
more = {} if asked["workers"] is None else {"workers": asked["workers"]}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, began = time.perf_counter(), time.process_time()
found = module.tables(Path(asked["run"]), **more)
told = {"cpu": time.process_time() - began, "wall": time.perf_counter() - wall, "parts": spent, "before": before / 1024}
told["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
Path(asked["tables"]).write_bytes(pickle.dumps(found))
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Size:
    images: int
    strategies: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.images} images, {self.strategies} strategies, {self.seeds} seeds"


# ------------------------------------------------------------------------------------------------ a made-up run


def made(folder: Path, size: Size) -> Path:
    """A run folder of models that answer at random, the better the more they are to know of an image."""
    run, table = RunFolder.create(folder), _images(size.images)
    run.write_table("sites.parquet", table)
    seeds, scored, further = range(1, size.seeds + 1), list[dict[str, Any]](), list[dict[str, Any]]()
    ledger = [_spent("original", "", "original", seed) for seed in seeds]
    for number, request in enumerate(REQUESTS):
        asked = np.array([request in names for names in table["forgotten_by"]])
        for seed in seeds:
            original, retrained = f"original-{seed}", f"retrained-{request}-{seed}"
            if not number:
                every = np.array([bool(names) for names in table["forgotten_by"]])
                _answer(run, original, table, every, 4.0, seed)
            _answer(run, retrained, table, asked, 1.0, 1000 + seed)
            ledger.append(_spent("retrained", request, "retrained", seed))
            strategies = {}
            for i in range(size.strategies):
                label, known = (
                    f"s{i}",
                    1 + 3 * i / size.strategies,
                )  # from as retrained to nearly the original
                strategies[label] = f"{label}-{request}-{seed}"
                _answer(run, strategies[label], table, asked, known, 10_000 * (number + 1) + 100 * i + seed)
                ledger.append(_spent("unlearn", request, label, seed))
            one = {"request": request, "seed": seed, "original": original, "retrained": retrained}
            scored.append({**one, "strategies": strategies})
        for seed in range(size.seeds + 1, REFERENCES + 1):
            model = f"retrained-{request}-{seed}"
            _answer(run, model, table, asked, 1.0, 1000 + seed)
            further.append({"request": request, "seed": seed, "model": model})
    run.write_table("ledger.parquet", pd.DataFrame(ledger))
    requests = [{"id": name, "site": site, "whole_site": site == "east"} for name, site in REQUESTS.items()]
    manifest = {"kind": "classification", "classes": CLASSES, "seeds": list(seeds), "requests": requests}
    run.write_manifest({**manifest, "scored": scored, "references": further})
    run.finish()
    return folder


def _images(count: int) -> pd.DataFrame:
    """Patients of `OWN` images, a third at each hospital; who they are is drawn, the same each time."""
    rng, people = np.random.default_rng(0), -(-count // OWN)
    at = np.arange(people) * len(SITES) // people
    place = np.concatenate([np.arange(n) / n for n in np.bincount(at)])
    who = pd.DataFrame(
        {
            "patient": [f"p{i:05}" for i in range(people)],
            "site": np.array(SITES)[at],
            "split": np.select([place < 0.36, place < 0.42], ["train", "val"], "test"),
            "sex": rng.choice(["female", "male"], people),
            "age": rng.integers(15, 90, people),
            "scanner": [f"scanner-{i}" for i in rng.integers(1, 4, people)],
            "forgotten_by": [
                [
                    name
                    for name, one in REQUESTS.items()
                    if one == site and (one == "east" or part < 0.36 * 0.3)
                ]
                for site, part in zip(np.array(SITES)[at], place, strict=True)
            ],
        }
    )
    table = who.iloc[np.arange(count) // OWN].reset_index(drop=True)
    table["image"] = [f"{patient}-{i % OWN}" for i, patient in enumerate(table["patient"])]
    table["label"] = rng.integers(0, CLASSES, count)
    table["difficulty"] = rng.choice(["easy", "hard"], count, p=[0.84, 0.16])
    return table


def _answer(run: RunFolder, model: str, table: pd.DataFrame, asked: Array, known: float, seed: int) -> None:
    """A model's answers to images, and to three changed copies of those to forget and of the held-out ones."""
    train = (table["split"] == "train").to_numpy()
    mean = np.select([train & asked, train], [known, 4.0], 1.0)
    run.write_table(f"signals/{model}.parquet", _logits(table, mean, seed))
    held_out = (table["split"] == "test") & table["site"].isin(table["site"][asked & train])
    rows = np.flatnonzero((train & asked) | held_out.to_numpy())
    copies = []
    for copy in range(3):
        one = _logits(table, mean - 0.5, seed).iloc[rows] + np.float32(0.1 * copy)
        copies.append(pd.concat([table[["image"]].iloc[rows], one], axis=1).assign(copy=copy))
    columns = ["image", "copy", *(f"logits_{c}" for c in range(CLASSES))]
    run.write_table(f"copies/{model}.parquet", pd.concat(copies)[columns])


def _logits(table: pd.DataFrame, mean: Array, seed: int) -> pd.DataFrame:
    """Class scores: an image is as hard for one model as for another, up to a little luck of the model's own."""
    shape = len(table), CLASSES
    noise = 1.5 * np.random.default_rng(0).normal(size=shape) + 0.5 * np.random.default_rng(seed).normal(
        size=shape
    )
    noise[np.arange(len(table)), table["label"]] += mean
    return pd.DataFrame(noise.astype(np.float32), columns=[f"logits_{c}" for c in range(CLASSES)])


def _spent(phase: str, request: str, strategy: str, seed: int) -> dict[str, Any]:
    counts = {"sites": 3, "down_bytes": 10, "up_bytes": 20, "images": 100, "epochs": 3, "stored_bytes": 0}
    key = {"phase": phase, "request": request, "strategy": strategy, "seed": seed, "round": 0}
    return {**key, **counts, "site_seconds": 2.0, "server_seconds": 0.5}


# ------------------------------------------------------------------------------------------------- taking turns


def once(
    run: Path, code: Path, workers: int | None, parts: bool
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Score a run with the code of a checkout, in a process of its own; what it cost, and its tables."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "tables"
        asked = {"run": str(run), "workers": workers, "parts": parts, "tables": str(file)}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(asked)],
            env={**os.environ, "PYTHONPATH": str(code)},
            cwd=name,
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1]), pickle.loads(file.read_bytes())


def apart(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> str:
    """Where two runs' tables differ, in words."""
    found = []
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            found.append(f"{name} is there once only")
            continue
        a, b = one[name], other[name]
        if list(a.columns) != list(b.columns) or len(a) != len(b):
            found.append(f"{name} has other rows or columns")
            continue
        for column in a.columns:
            if a[column].dtype.kind == "f":
                same = (a[column] == b[column]) | (a[column].isna() & b[column].isna())
                if not same.all():
                    most = (a[column] - b[column])[~same].abs().max()
                    which = sorted(set(a.loc[~same, "measure"])) if "measure" in a.columns else []
                    found.append(
                        f"{name}, {column}: {int((~same).sum())} values, by {most:.1e} at most {which}"
                    )
            elif not a[column].map(str).equals(b[column].map(str)):
                found.append(
                    f"{name}, {column}: {int((a[column].map(str) != b[column].map(str)).sum())} values"
                )
    return "; ".join(found) or "the same bits"


def models(run: Path) -> int:
    return len(list((run / "signals").glob("*.parquet")))


def contest(name: str, run: Path, args: argparse.Namespace) -> None:
    """Score a run by turns; print a row of the table."""
    places = {"here": HERE, **({"there": args.against} if args.against else {})}
    costs: dict[str, list[dict[str, Any]]] = {place: [] for place in places}
    said, count = set[str](), models(run)
    for turn in range(args.turns):
        written = {}
        for place in list(places)[:: 1 if turn % 2 == 0 else -1]:
            workers = args.workers if place == "here" else None
            cost, written[place] = once(run, places[place], workers, parts=False)
            costs[place].append(cost)
        if args.against:
            said.add(apart(written["there"], written["here"]))
    for place, of in costs.items():
        cpu, wall = [c["cpu"] for c in of], [c["wall"] for c in of]
        peak = max(c["peak"] for c in of)
        cells = (_spread([1000 * c / count for c in cpu], ".0f"), _spread(cpu, ".2f"), _spread(wall, ".2f"))
        print(f"| {name} | {place} | {count} | {' | '.join(cells)} | {peak:.0f} |", flush=True)
    if args.against:
        ratios = [a["cpu"] / b["cpu"] for a, b in zip(costs["here"], costs["there"], strict=True)]
        walls = [a["wall"] / b["wall"] for a, b in zip(costs["here"], costs["there"], strict=True)]
        print(
            f"\nhere / there: CPU {_spread(ratios, '.3f')}, wall {_spread(walls, '.3f')}; {' / '.join(said)}\n"
        )


def parts(run: Path, most: int = 25) -> None:
    """Print which measures the time goes to."""
    cost, _ = once(run, HERE, 1, parts=True)
    count, of = models(run), dict(cost["parts"])
    of["(controls, intervals, judgements)"] = cost["cpu"] - sum(of.values())
    print("\n| part | ms a model | share |\n|---|---|---|")
    for name, spent in sorted(of.items(), key=lambda item: -item[1])[:most]:
        print(f"| {name} | {1000 * spent / count:.1f} | {spent / cost['cpu']:.0%} |")


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description="what scoring costs")
    parser.add_argument("--quick", action="store_true", help="240 images, 2 strategies, 2 seeds, one turn")
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 5000, 20000])
    parser.add_argument("--strategies", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="a run folder")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, help="how many models at once")
    parser.add_argument("--parts", action="store_true", help="which measures it goes to")
    parser.add_argument("--against", type=Path, help="another checkout")
    args = parser.parse_args()
    if args.quick:
        args.images, args.strategies, args.seeds, args.turns = [240], 2, 2, 1
    print(
        "| run | code | models | CPU ms a model | CPU s | wall s | peak MB |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        runs = {args.run.name: args.run} if args.run else {}
        for images in args.images if not args.run else ():
            size = Size(images, args.strategies, args.seeds)
            runs[str(size)] = made(Path(name) / str(images), size)
        for told, run in runs.items():
            contest(told, run, args)
            if args.parts:
                parts(run)


if __name__ == "__main__":
    main()

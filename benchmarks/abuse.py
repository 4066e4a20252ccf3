"""What a hospital can do to others by asking for what they depend on, and what a quota does about it.

    python benchmarks/abuse.py [--set KEY=VALUE] [--out FOLDER]

Runs the sweep `scenarios/studies/abuse.yaml`, or takes the cells that are finished in FOLDER, and prints two tables in
Markdown. One hospital asks three times a month for a year: for patients at random, or always for those of the class of
which other hospitals train on the fewest images (``arrivals: {pick: scarce_elsewhere}``), without and with a quota.

- *Fall* is what accuracy on the test images of the *other* hospitals loses: against the model that saw everybody, and
  against the one trained again without all whom the same requests name. All of them; of the class that a malicious
  hospital asks for first, in the honest stream the same; and of whichever class falls most.
- *Quota* is what the desk made of the requests, and how long they took.

Means over data seeds with 95 % t-intervals, as wide as few seeds leave them; differences are paired by seed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from fedunlearn import installation
from fedunlearn.results.overview import over_seeds
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.sweep import cells, running
from fedunlearn.sweep.table import about

ABUSER = "north"
STREAMS = {"random": "honest", "scarce_elsewhere": "malicious"}
FEWEST = 8  # test images of a class at other hospitals, below which its accuracy is luck


def told(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per cell and model of what others lose, and a row per cell of what became of requests."""
    rows, desks = list[dict[str, Any]](), list[dict[str, Any]]()
    for values, run in _runs(folder):
        key = {"seed": values["seed"], "stream": STREAMS[values["arrivals.pick"]]}
        key["quota"] = values["limits.quota"] or 0
        sites = run.read_table("sites.parquet")
        asked = sites["forgotten_by"].map(len) > 0
        named = sites[asked & (sites["split"] == "train")]
        target = scarcest(sites)
        desks.append(key | desk(run, named, target))
        rows += [key | one for one in falls_of(run, sites, target)]
    return pd.DataFrame(rows), pd.DataFrame(desks)


def _runs(folder: Path) -> Iterator[tuple[dict[str, Any], RunFolder]]:
    for cell in about(folder)["cells"]:
        yield cell["values"], RunFolder.open(folder / "cells" / cell["slug"])


def scarcest(sites: pd.DataFrame) -> int:
    """Of the classes that most images of some patient of the abuser show, that of which others train on fewest."""
    train = sites[sites["split"] == "train"]
    own = train[train["site"] == ABUSER].groupby("patient")["label"].agg(lambda labels: labels.mode().min())
    elsewhere = Counter[int](train.loc[train["site"] != ABUSER, "label"].tolist())
    return min(elsewhere.keys() & set(own), key=lambda label: (elsewhere[label], label))


def desk(run: RunFolder, named: pd.DataFrame, target: int) -> dict[str, Any]:
    """What became of the requests, and whom they were about."""
    table = run.read_table("calendar.parquet")
    waited = (table["answered"] - table["received"]).dt.days
    return {
        "asked": len(table),
        "answered": int(table["answered"].notna().sum()),
        "open": int((table["state"] == "open").sum()),
        "days": float(waited.median()),
        "late": float((table["late"] > 0).mean()),
        "late_three": float((table["late_three"] > 0).mean()),
        "images": len(named),
        "target": float((named["label"] == target).mean()),
    }


def falls_of(run: RunFolder, sites: pd.DataFrame, target: int) -> Iterator[dict[str, Any]]:
    """Of every model, what others lose against both references: all images, the class asked for, the worst class."""
    others = np.asarray((sites["site"] != ABUSER) & (sites["split"] == "test"), dtype=bool)
    label = sites.loc[others, "label"].to_numpy()
    classes = [c for c in np.unique(label) if (label == c).sum() >= FEWEST]
    found = {}
    for name, file in _models(run).items():
        logits = run.read_table(f"signals/{file}.parquet").filter(like="logits_").to_numpy()[others]
        found[name] = logits.argmax(1) == label
    for name, right in found.items():
        row: dict[str, Any] = {"strategy": name, "accuracy": right.mean()}
        for against in ("original", "retrained"):
            lost = found[against].astype(float) - right
            row[f"all_{against}"] = lost.mean()
            row[f"target_{against}"] = lost[label == target].mean()
            row[f"worst_{against}"] = max(lost[label == c].mean() for c in classes)
        yield row


def _models(run: RunFolder) -> dict[str, str]:
    """What each model's signals are called, in the order of the table."""
    (look,) = (one for one in run.read_manifest()["looks"] if one["round"] == _rounds(run))
    return {"original": look["original"], "retrained": look["retrained"], **look["strategies"]}


def _rounds(run: RunFolder) -> int:
    return int(run.read_manifest()["calendar"]["rounds"])


def shown(rows: pd.DataFrame, desks: pd.DataFrame) -> Iterator[str]:
    """Both tables, in lines."""
    falls = [
        f"{what}_{against}" for against in ("original", "retrained") for what in ("all", "target", "worst")
    ]
    heads = [f"{what}, {short}" for short in ("saw all", "again") for what in ("all", "asked for", "worst")]
    yield f"| model | quota | requests | {' | '.join(heads)} |"
    yield "|---" * (len(falls) + 3) + "|"
    for strategy in [name for name in rows["strategy"].unique() if name != "original"]:
        known = falls[:3] if strategy == "retrained" else falls  # nothing falls against itself
        for quota in sorted(rows["quota"].unique()):
            of = rows[(rows["strategy"] == strategy) & (rows["quota"] == quota)].set_index("seed")
            honest, malicious = (
                of.loc[of["stream"] == name, falls].sort_index() for name in STREAMS.values()
            )
            for name, one in (
                ("honest", honest),
                ("malicious", malicious),
                ("difference", malicious - honest),
            ):
                told = " | ".join(_percent(one[fall]) if fall in known else "" for fall in falls)
                yield f"| {strategy} | {quota or '-'} | {name} | {told} |"
    yield ""
    columns = ["asked", "answered", "open", "days", "late", "late_three", "images", "target"]
    yield "| requests | quota | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 2) + "|"
    for (stream, quota), of in desks.groupby(["stream", "quota"]):
        means = [f"{of[c].mean():.2f}".rstrip("0").rstrip(".") for c in columns]
        yield f"| {stream} | {quota or '-'} | {' | '.join(means)} |"


def _percent(values: pd.Series) -> str:
    mean = over_seeds(values)
    return f"{100 * mean.value:+.1f} ± {100 * mean.half:.1f}"


def main(words: Sequence[str]) -> None:
    """Run what is not there yet, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / "abuse")
    parser.add_argument("--set", action="append", default=[], help="change a value of the scenario")
    given = parser.parse_args(words)
    read = cells.read(installation.scenario_file(Path("abuse")), given.set)
    if not isinstance(read, cells.Sweep):
        raise SystemExit("found no sweep in the scenario, expected one over seed, pick and quota")
    running.run(read, given.out, Path.cwd(), Console(stderr=True))
    print("\n".join(shown(*told(given.out))))


if __name__ == "__main__":
    main(sys.argv[1:])

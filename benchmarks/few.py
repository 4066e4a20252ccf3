"""How many patients must a request name, so that a run can tell? Runs of `init`'s first scenario on phantom cells.

    python benchmarks/few.py [--runs 8] [--patients 1,2,4,6,10,16] [--out FOLDER]

Every run deals and picks other patients (another ``seed:`` of the data) and asks for so many of them, one request a
number. No strategy is run: what counts is what a run can tell of models whose truth is known. For each number of
patients:

- *sees*: runs in which the original model's memory of them can be seen at all (`visible` in ``requests.parquet``);
- *finds*: runs that say of the original, which forgot nothing, that it did not ("no" or "partly");
- *clears*: runs that say of honest retraining that it forgot;
- *smallest*: the median over runs of the smallest memory left that is seen in 8 of 10 such runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fedunlearn import Scenario, beginning, simulate
from fedunlearn.results.runfolder import RunFolder
from sites.watching import unwatched

OWN = (
    "engine={name: inline, workers: 1}",
    "strategies=[]",
    "evaluation.curves=false",  # nobody looks at them here
)


def scenario(counts: Sequence[int], folder: Path) -> Scenario:
    """What `init phantom_cells --hospitals 3 --time normal` writes, with other requests and no strategy."""
    file = folder / "first.yaml"
    found = beginning.find("phantom_cells", "normal", folder, unwatched)
    beginning.begin(found, beginning.wishes("3", "patients", "normal", found), file, None, unwatched)
    asked = ", ".join(
        f"{{id: some-{count}, site: north, patients: {{count: {count}, pick: random}}}}" for count in counts
    )
    return Scenario(file, (*OWN, f"requests=[{asked}]"))


def told(run: RunFolder, count: int) -> dict[str, object]:
    """What one run says of a request."""
    request = f"some-{count}"
    known = run.read_table("requests.parquet").set_index("request").loc[request]
    verdicts = run.read_table("verdicts.parquet")
    forgotten = verdicts[verdicts["request"] == request].set_index("strategy")["forgotten"]
    return {
        "patients": count,
        "sees": bool(known["visible"]),
        "finds": forgotten["original"] in ("no", "partly"),
        "clears": forgotten["retrained_other"] == "yes",
        "smallest": float(known["smallest"]),
    }


def main(words: Sequence[str]) -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--patients", default="1,2,4,6,10,16")
    parser.add_argument(
        "--out", type=Path, help="keep the run folders there; those that are finished are not run again"
    )
    given = parser.parse_args(words)
    counts = [int(word) for word in given.patients.split(",")]
    with tempfile.TemporaryDirectory() as place:
        first, out = scenario(counts, Path(place)), given.out or Path(place)
        rows = list[dict[str, object]]()
        for seed in range(1, given.runs + 1):
            folder = out / f"seed-{seed}"
            if not (folder / "DONE").is_file():
                simulate(first.changed(f"seed={seed}"), folder)
            rows += [told(RunFolder.open(folder), count) for count in counts]
            print(f"run {seed} of {given.runs}", file=sys.stderr, flush=True)
    by_count = pd.DataFrame(rows).groupby("patients")
    found = by_count[["sees", "finds", "clears"]].sum().join(by_count["smallest"].median())
    print(
        f"Of {given.runs} runs each:\n\n| patients | sees | finds | clears | smallest, % |\n|---|---|---|---|---|"
    )
    for row in found.reset_index().to_dict("records"):
        print(
            f"| {row['patients']} | {row['sees']} | {row['finds']} | {row['clears']} | {100 * row['smallest']:.0f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])

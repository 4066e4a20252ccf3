"""A stream of many requests: whether any is lost or answered twice, and whether each has a record.

    python benchmarks/requests.py                 1,000 requests, policies at_once and batch
    python benchmarks/requests.py --quick         so few that it takes half a minute
    python benchmarks/requests.py --kills 30      60 requests: the run is killed 30 times, and its records are compared

Everything is counted from what lies in the run folder: the manifest's docket and turns, the audit log, the records.
With ``--kills`` a run is killed with SIGKILL at random moments and resumed, until it was killed so often; records of
every run that came to its end are compared with those of one that nothing happened to: they must be the same but for
when they were written, what is signed with that, the run's own number, and the keys of references, which are read by
slips.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.erasure import keys, record, slips
from fedunlearn.finished import page
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario import Scenario
from fedunlearn.story import simulate

SCENARIO = """\
name: stream
seeds: [1]
engine: {{name: inline, workers: 2, timeout: 600}}
data: {{name: phantom_cells, images: {images}, images_per_patient: 3}}
sites:
  names: [north, east, west]
  partition: {{name: iid}}
  split: {{train: 0.9, val: 0.02, test: 0.08}}
model: {{name: small_cnn, hidden: 16}}
training: {{rounds: {rounds}, local_epochs: 1, batch_size: 64, optimizer: adam, lr: 0.002}}
calendar: {{start: 2026-01-01, round: {days}d, looks: 180d}}
arrivals:
  process: poisson
  per_year: {per_year}
  kinds: {{patient: 0.8, image: 0.1, opt_out: 0.1}}
  seed: 3
requests:
{written}
policies: [{{name: at_once}}, {{name: batch, every: {batch}d}}]
strategies: [{{name: fine_tune, rounds: 1}}]
limits: {{quota: {quota}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    few = given.quick or given.kills > 0
    count = min(given.requests, 60) if few else given.requests
    with tempfile.TemporaryDirectory(prefix="fedunlearn-requests-") as name:
        folder = Path(name)
        scenario = stream(folder, count, few)
        if given.kills:
            kills(folder, scenario, given.kills, random.Random(given.seed))
        else:
            answered(folder, scenario)


def stream(folder: Path, count: int, few: bool) -> Scenario:
    """A year of about ``count`` requests, some of which name nobody, another hospital's patient, or the same again.

    More come to some months than may be accepted, so that some are held back, and the last ones stay open.
    """
    rounds, days = (6, 61) if few else (12, 31)
    written = list[str]()
    for number in range(count // 20):
        day = f"{1 + number % 27:02}"
        asks = f"site: north, patients: [p-{number:04}]"
        written += [
            f"- {{id: unknown-{number}, site: north, patients: [nobody-{number}], received: 2026-02-{day}}}",
            f"- {{id: named-{number}, {asks}, received: 2026-03-{day}}}",
            f"- {{id: again-{number}, {asks}, received: 2026-06-{day}}}",
        ]
    text = SCENARIO.format(
        images=max(240, count * 5),
        rounds=rounds,
        days=days,
        per_year=round(count * 0.85),
        batch=2 * days,
        quota=max(1, count * days // 1100),
        written="\n".join(f"  {line}" for line in written),
    )
    path = folder / "stream.yaml"
    path.write_text(text, encoding="utf-8")
    return scenarios.read(path)


# ------------------------------------------------------------------------------------------------- none is lost


def answered(folder: Path, scenario: Scenario) -> None:
    """Run the stream, write its records, and count."""
    began = time.perf_counter()
    run = simulate(scenario, folder / "run", folder, Console(quiet=True), True)
    ran, began = time.perf_counter() - began, time.perf_counter()
    pair = keys.make(folder / "keys")
    record.write(run.path, pair.folder)
    wrote, began = time.perf_counter() - began, time.perf_counter()
    record.check(RunFolder.open(run.path), pair.public)
    checked = time.perf_counter() - began
    manifest = run.read_manifest()
    docket = {one["id"]: one for one in manifest["docket"]}
    asked = [request.id for request in scenario.requests]
    told = Counter(one["state"] for one in docket.values())
    reasons = Counter(one["reason"] for one in docket.values() if one["reason"])
    print(f"requests: {len(asked)} came in; {_listed(told)}; not accepted since: {_listed(reasons)}")
    print(f"lost: {len(set(asked) ^ set(docket))}")
    log = _log(run.path)
    for policy in manifest["policies"]:
        _policy(policy, docket, log)
    records = {file.stem for file in (run.path / record.FOLDER).glob("*.json")}
    lines = Counter(line["request"] for line in log if line["event"] == record.EVENT)
    whole = sum(name in records and lines[name] == 1 for name in asked)
    more = len(records - set(asked))
    print(f"with a record, and one line of the log about it: {whole} of {len(asked)}; other records: {more}")
    print(
        f"seconds: run {ran:.1f}, records {wrote:.1f}, checking them {checked:.1f}; audit log {len(log)} lines"
    )


def _policy(
    policy: Mapping[str, Any], docket: Mapping[str, Mapping[str, Any]], log: Sequence[Mapping[str, Any]]
) -> None:
    """Print how often each accepted erasure was unlearned, and whether the log says the same."""
    times = Counter(id for turn in policy["turns"] for id in turn["erases"])
    barred = Counter(id for turn in policy["turns"] for id in turn["bars"])
    accepted = [id for id, one in docket.items() if one["state"] == "accepted"]
    wanted = [id for id in accepted if docket[id]["kind"] != "opt_out" and docket[id]["images"]]
    fates = {id: times[id] + (id in policy["waiting"]) for id in wanted}
    once = sum(fate == 1 for fate in fates.values())
    wrong = sum(times[id] > 1 for id in docket) + sum(id in times for id in docket if id not in wanted)
    told = Counter(
        line["request"]
        for line in log
        if line["event"] == "request-state"
        and line["policy"] == policy["label"]
        and line["state"] == "unlearned"
    )
    other = sum(told[id] != times[id] for id in wanted)
    print(
        f"{policy['label']}: of {len(wanted)} accepted erasures of training images {once} were unlearned once "
        f"({len(times)}) or wait ({len(policy['waiting'])}); twice, or though not to be: {wrong}; barred once from "
        f"training: {sum(barred[id] == 1 for id in accepted)} of {len(accepted)}; otherwise in the log: {other}"
    )


def _log(run: Path) -> list[dict[str, Any]]:
    return audit.lines(run / audit.FILE)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"


# ------------------------------------------------------------------------------------------------------- kills


def kills(folder: Path, scenario: Scenario, times: int, rng: random.Random) -> None:
    """Kill a run and resume it, until it was killed so often; compare the records of those that came to their end."""
    began = time.perf_counter()
    _wait(_begun(scenario, folder / "whole", False))
    length = time.perf_counter() - began
    whole, killed, ended, same = _records(folder, "whole"), 0, 0, 0
    while killed < times or (folder / "run").exists():
        resume = (folder / "run" / "work" / "about.json").exists()
        if not resume:
            shutil.rmtree(folder / "run", ignore_errors=True)
        child = _begun(scenario, folder / "run", resume)
        if killed < times and _killed_within(child, rng.uniform(0, length)):
            killed += 1
            continue
        _wait(child)
        ended += 1
        found = _records(folder, "run")
        same += found == whole
        if found != whole:
            print(f"otherwise: {_otherwise(found, whole)}")
        shutil.rmtree(folder / "run")
        shutil.rmtree(folder / "keys-run", ignore_errors=True)
    print(f"killed {killed} times in a run of {length:.1f} s with {len(whole)} requests")
    print(f"runs that were resumed to their end: {ended}; with the same records: {same}")


def _otherwise(found: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """Which parts of which records are not the same."""
    parts = Counter[str]()
    for name in {*found, *whole}:
        one, other = found.get(name), whole.get(name)
        if not isinstance(one, dict) or not isinstance(other, dict):
            parts[f"{name} is there in one alone"] += 1
            continue
        parts.update(key for key in {*one, *other} if one.get(key) != other.get(key))
    return _listed(parts)


def _begun(scenario: Scenario, out: Path, resume: bool) -> int:
    """The run in a child of this process, which has imported everything."""
    if (child := os.fork()) == 0:
        with suppress(BaseException):
            simulate(scenario, out, out.parent, Console(quiet=True), True, resume)
            os._exit(0)
        os._exit(1)
    return child


def _killed_within(child: int, seconds: float) -> bool:
    """Kill a child after so long; False if it had ended by then."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _wait(child: int) -> None:
    with suppress(ChildProcessError):  # it has been waited for
        os.waitpid(child, 0)


def _records(folder: Path, name: str) -> dict[str, Any]:
    """Of a run that has come to its end, all that its records say, but for what is another's in every run."""
    run, pair = folder / name, keys.make(folder / f"keys-{name}")
    if not (run / "DONE").is_file():
        return {"DONE": "is missing"}
    page(run)  # one that was killed once it was finished may lack it
    record.write(run, pair.folder)
    record.check(RunFolder.open(run), pair.public)
    found = dict[str, Any]()
    for file in sorted((run / record.FOLDER).glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        subjects = content["request"]["subjects"]
        subjects["references"] = {
            site: sorted(_patients(pair.folder, content["record"]["id"], site))
            for site in subjects["references"]
        }
        for policy in content["clock"]["policies"]:
            for state in policy["states"]:
                if state["state"] == "recorded":
                    del state["real_date"]
        found[file.stem] = {
            key: value for key, value in content.items() if key not in ("record", "signature")
        }
    return found


def _patients(folder: Path, name: str, site: str) -> list[str]:
    """Who the references of a record are, by the hospital's slip."""
    slip: dict[str, dict[str, str]] = json.loads(slips.place(folder, name, site).read_text(encoding="utf-8"))
    return list(slip["patients"].values())


if __name__ == "__main__":
    main()

"""What is told of a run beforehand, and what it then does: the same procedures, as many passes of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.expecting import expected
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.timeline import chains
from fedunlearn.campaign.timing import counted
from fedunlearn.federation.jobs import Label
from fedunlearn.federation.ledger import Ledger
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store
from tests import runs

pytestmark = pytest.mark.usefixtures("few_resamples")

TEXT = """\
name: midway
seeds: [1]
references: 2
engine: {name: inline, workers: 2, timeout: 60}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 4, local_epochs: 1, batch_size: 32, optimizer: adam, lr: 0.002}
requests:
  - {id: some, site: north, patients: {count: 2, pick: random}, after_round: 1}
  - {id: leave, site: east, whole_site: true, after_round: 3}
strategies:
  - {name: fine_tune, rounds: 1, local_epochs: 1}
  - {name: gradient_ascent, as: wild, epochs: 1, lr: 1.0e+30, clip: 1.0e+30, recovery: {rounds: 1}}
evaluation: {copies: false, curves: false}
"""
TRAINS = ("original", "retrained", "continue")


@pytest.mark.parametrize("timeline", ["independent", pytest.param("sequential", marks=pytest.mark.gate)])
def test_all_that_is_told_of_is_done(timeline: str, tmp_path: Path) -> None:
    """Whatever diverges on the way; and what trains takes exactly the passes that were expected of it."""
    with runs.without_scores():
        run = runs.run(tmp_path, f"timeline={timeline}", text=TEXT)
    ledger = run.read_table("ledger.parquet")
    ledger = ledger[ledger["phase"].isin([*TRAINS, "unlearn"])]
    keys = ["phase", "request", "strategy", "seed"]
    done = dict[Label, int]()
    for row in ledger[[*keys, "images"]].to_dict("records"):
        label = Label(row["phase"], row["request"], row["strategy"], row["seed"])
        done[label] = done.get(label, 0) + row["images"]

    scenario = scenarios.read(runs.write(tmp_path, TEXT), [f"timeline={timeline}"])
    cohort = gather(scenario, tmp_path)
    store = Store(RunFolder(tmp_path))
    told = Campaign(scenario, cohort, runs.environment(), store, tmp_path, Ledger()).procedures()
    assert set(told) == set(done) and len(set(told)) == len(told)
    assert any(label.phase == "continue" for label in told)

    believed = expected(scenario, cohort, told)
    lost = {"wild"}
    trained = {label: passes for label, passes in done.items() if label.phase in TRAINS}
    for label, passes in trained.items():
        if label.strategy not in lost:
            assert believed[label] == passes or (timeline == "sequential" and label.request == "leave")
    assert done[next(label for label in told if label.strategy == "wild" and label.phase == "continue")] == 0
    assert counted(scenario, cohort).trained >= sum(trained.values())


def test_where_training_goes_on(tmp_path: Path) -> None:
    """By hand: four rounds, requests after 1 and 3; alone each goes on to the end, in a row to the next one."""
    found = {}
    for timeline in ("independent", "sequential"):
        scenario = scenarios.read(runs.write(tmp_path, TEXT), [f"timeline={timeline}"])
        found[timeline] = [
            (step.id, following.round) for chain in chains(scenario) for step, following in chain.stretches()
        ]
    assert found == {"independent": [("some", 4), ("leave", 4)], "sequential": [("some", 3), ("leave", 4)]}

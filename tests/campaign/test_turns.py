"""A run whose rounds ask some of the hospitals only: who is asked and counted, what is told, and that it resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import half
from fedunlearn.campaign.curves import budget
from fedunlearn.campaign.estimate import estimate, model_bytes
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.timing import counted
from fedunlearn.core import Select
from fedunlearn.sweep import cells, checking
from tests.runs import weight_files, write
from tests.test_resume import Whole, assert_same, interrupted, run, watched, wholly

TURNS = """\
name: turns
seeds: [1, 2]
engine: {name: inline, workers: 2, timeout: 60}
data: {name: phantom_cells, images: 240}
sites: {names: [a, b, c, d, e, f], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 3, participation: 0.5, local_epochs: 1, batch_size: 32, optimizer: adam, lr: 0.002}
requests:
  - {id: some, site: a, patients: {count: 2, pick: random}}
  - {id: leave, site: b, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 1}
  - {name: federaser, every: 1}
  - {name: rollback, every: 1}
  - {name: random_label, epochs: 1}
  - {name: sharded}
  - {name: fats, participation: 2}
"""


def test_what_a_run_takes_counts_those_that_are_asked(tmp_path: Path) -> None:
    """3 of 6: half of the replies, updates and passes; checkpoints and models are as many as ever."""
    some, every = (
        scenarios.read(write(tmp_path, TURNS), over) for over in ((), ("training.participation=1",))
    )
    cohort = gather(some, tmp_path)
    size = model_bytes(some, cohort)
    few, all_ = (estimate(one, cohort).disk for one in (some, every))
    updates, checkpoints, seeds = 3, 3, 2
    assert few["history"] == seeds * size * (3 * updates + checkpoints)
    assert all_["history"] == seeds * size * (6 * updates + checkpoints)
    assert few["weights"] == all_["weights"]
    assert counted(some, cohort).trained == counted(every, cohort).trained / 2
    assert budget(some, cohort) <= budget(every, cohort)


def test_counts_of_all_hospitals_are_those_of_each(tmp_path: Path) -> None:
    cohort = gather(scenarios.read(write(tmp_path, TURNS)), tmp_path)
    for select in (Select(), Select(only="some"), Select(without=("leave", "some")), Select(split="all")):
        assert cohort.counts(select) == {site: cohort.count(site, select) for site in cohort.sites}


def test_check_tells_how_many_a_round_asks(tmp_path: Path) -> None:
    told = checking.check(cells.read(write(tmp_path, TURNS)), tmp_path).lines
    assert "training: a round asks 3 of 6 hospitals, drawn anew in each" in told


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return wholly(tmp_path_factory.mktemp("turns"), TURNS.replace("seeds: [1, 2]", "seeds: [1]"))


@pytest.mark.gate
def test_rounds_ask_as_many_as_was_said_and_exact_is_exact(whole: Whole) -> None:
    ledger = whole.run.read_table("ledger.parquet")
    rounds = ledger[ledger["sites"] > 0].groupby(["phase", "strategy"])["sites"].agg(set).to_dict()
    assert rounds["original", "original"] == rounds["retrained", "retrained"] == {3}
    assert rounds["unlearn", "fine_tune"] == rounds["unlearn", "rollback"] == {3}
    assert rounds["unlearn", "random_label"] == {1 + 3}  # the holder, and half of the five others
    assert max(rounds["unlearn", "federaser"]) <= 3
    weights = weight_files(whole.run)
    for request in ("some", "leave"):
        assert weights[f"{request}-rollback-1.safetensors"] == weights[f"retrained-{request}-1.safetensors"]
    stored = ledger[(ledger["strategy"] == "federaser")]["stored_bytes"].unique()
    size = (whole.run.path / "weights" / "original-1.safetensors").stat().st_size
    assert [9 * 0.95 * size < one <= 9 * size for one in stored] == [True]  # three rounds of three updates


@pytest.mark.gate
def test_a_run_goes_on_with_the_same_draws(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fedunlearn.federation.journal.CHEAP", 0.0
    )  # every answer is kept, so none is asked for twice
    before = interrupted(tmp_path, whole.text, whole.asked.answered.total() // 3)
    with watched() as after:
        found = run(tmp_path, whole.text, resume=True)
    assert before.answered + after.submitted == whole.asked.submitted
    assert_same(found, whole.run)


def test_a_shadows_hospitals_take_turns_too(tmp_path: Path) -> None:
    """Half of the patients of each hospital: a hospital's images are those of the members."""
    scenario = scenarios.read(write(tmp_path, TURNS), ["evaluation.shadows=2"])
    cohort = gather(scenario, tmp_path)
    train = cohort.split == "train"
    expected = {
        site: int((cohort.members[:, 1] & train & (cohort.site == site)).sum()) for site in cohort.sites
    }
    assert cohort.counts(half(1)) == expected

"""Years that were really run, of images and of volumes: what is exact there is exact in the tables."""

from __future__ import annotations

import inspect
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedunlearn import pages
from fedunlearn.results import contents, years
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.verification import verify
from tests import runs
from tests.results.test_contents import unknown
from tests.scoring.made import pick
from tests.test_simulate_volumes import TINY_VOLUMES, store
from tests.test_simulate_year import YEAR

pytestmark = pytest.mark.gate

TURNS = "rounds: 6, participation: 0.5"
DATED = """\
calendar: {start: 2026-01-01, round: 14d, looks: 28d}
requests:
  - {id: some, site: north, patients: {count: 1, pick: random}, received: 2026-01-10}
  - {id: more, site: east, patients: {count: 1, pick: random}, received: 2026-01-20}
policies: [{name: at_once}, {name: batch, every: 28d}]
strategies:
  - {name: retrain}
  - {name: fine_tune, rounds: 1}
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "report", inspect.unwrap(pages.report))
        return runs.run(tmp_path_factory.mktemp("images"), "seeds=[1, 2]", text=YEAR)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> RunFolder:
    folder = tmp_path_factory.mktemp("volumes")
    store(folder)
    whole = TINY_VOLUMES.replace("rounds: 2, local_epochs: 2", "rounds: 4, local_epochs: 1")
    return runs.run(folder, text=whole[: whole.index("requests:")] + DATED)


def came_to(run: RunFolder, strategy: str, policy: str = "at_once") -> pd.DataFrame:
    return pick(run.read_table("policies.parquet"), policy=policy, strategy=strategy).set_index("measure")


def test_training_anew_for_each_costs_what_was_reckoned(images: RunFolder, volumes: RunFolder) -> None:
    """To the last image, an opt-out and a hospital that left among them."""
    for run in (images, volumes):
        assert came_to(run, "retrain")["value"]["share_of_retraining"] == pytest.approx(1, rel=1e-12)
        assert 0 < came_to(run, "fine_tune")["value"]["share_of_retraining"] < 1


def test_training_anew_asks_those_that_remain(tmp_path: Path, few_resamples: None) -> None:
    """Half of four hospitals are asked, and two of three once one has left: its turns are taken by others."""
    text = YEAR[: YEAR.index("policies:")].replace("west]", "west, south]").replace("rounds: 6", TURNS)
    run = runs.run(tmp_path, "seeds=[1, 2]", text=f"{text}strategies: [{{name: retrain}}]\n")
    original = pick(run.read_table("ledger.parquet"), phase="original", seed=1)["images"]
    assert original.nunique() > 1
    assert came_to(run, "retrain")["value"]["share_of_retraining"] == pytest.approx(1, rel=1e-12)
    once = run.read_table("years.parquet").query("strategy == 'retrained' and measure == 'images'")
    assert (once["value"] > 0).all() and once.groupby("seed")["value"].max().nunique() == 2


def test_exact_answers_end_where_nobody_was_ever_seen(images: RunFolder, volumes: RunFolder) -> None:
    for run in (images, volumes):
        own = came_to(run, "retrain")["value"]
        end = pick(run.read_table("memory.parquet"), policy="at_once", strategy="retrain")
        end = end[end["round"] == run.read_manifest()["calendar"]["rounds"]]
        assert len(end) and (end["left"] == 0).all()
        assert own["distance"] == own["test_difference"] == own["worst_site_difference"] == 0


def test_answers_are_those_of_the_docket(images: RunFolder) -> None:
    """Rounds of 7 days; the third request is refused, the batch comes every 21 days."""
    table = images.read_table("calendar.parquet")
    told = {p: of.set_index("request")["days"].to_dict() for p, of in table.groupby("policy")}
    assert told["at_once"] == {"opt": 5, "some": 2, "gone": 1, "more": 2, "leave": 2}
    assert told["batch-21d"] == {"opt": 5, "some": 9, "gone": 1, "more": 2, "leave": 16}
    states = pick(table, policy="batch-21d").set_index("request")["state"].to_dict()
    assert states == {
        "opt": "barred",
        "some": "unlearned",
        "gone": "refused",
        "more": "unlearned",
        "leave": "unlearned",
    }


def test_drift_is_counted(images: RunFolder) -> None:
    manifest = images.read_manifest()
    for strategy in ("fine_tune", "neggrad_plus", "retrain"):
        count = sum(one["strategy"] == strategy for one in manifest["retrainings"])
        found = came_to(images, strategy, "budget-0.0001")["value"]["retrainings"]
        assert found == count / len(manifest["seeds"])


def test_all_that_is_written_is_described_and_comes_out_the_same(images: RunFolder) -> None:
    assert unknown(images) == []
    for name in years.TABLES:
        known = set(images.read_table(f"{name}.parquet").columns)
        assert known == set(contents.COLUMNS[f"{name}.parquet"])
    told = verify(images.path, 0, images.path, Console(quiet=True))
    assert any(one.startswith("11 tables come out the same") for one in told)


def test_the_page_tells_of_it(images: RunFolder) -> None:
    page = (images.path / pages.FILE).read_text(encoding="utf-8")
    assert 'id="year-answers"' in page and "5 requests came in: 4 were accepted" in page
    assert page.count('class="request"') == 1 + 3


def test_volumes_are_scored_by_dice(volumes: RunFolder) -> None:
    measures = set(volumes.read_table("years.parquet")["measure"])
    assert {"test_dice", "worst_site_dice"} <= measures and "calibration_error" not in measures
    assert set(years.policies(volumes)["policy"]) == {"at_once", "batch-28d"}

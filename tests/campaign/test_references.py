"""More retrained models than seeds: just these are trained more, and they reach scoring with the run's margins."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from fedunlearn import scenario as scenarios
from fedunlearn.__main__ import app
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.estimate import estimate, model_bytes
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError
from fedunlearn.federation.ledger import Ledger
from fedunlearn.finished import rescore
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store
from fedunlearn.scoring import score as scoring
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.evidence.reading import read
from fedunlearn.scoring.measures.catalogue import COSTS
from fedunlearn.tuning.rehearsal import rehearse
from fedunlearn.verification import verify
from tests.runs import contents, environment, weight_files
from tests.test_resume import CHAIN, PLAIN, interrupted, run, watched

pytestmark = pytest.mark.usefixtures("few_resamples")

EXTRA = PLAIN.replace("seeds: [1]", "seeds: [1]\nreferences: 3")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("few"), PLAIN)


@pytest.fixture(scope="module")
def more(few: RunFolder) -> RunFolder:
    """The same with two references more, which are all that is asked for."""
    with watched() as asked:
        found = run(few.path.parent, EXTRA, name="more", reuse=[few.path])
    # Of each extra seed, a model without `some` and one without `leave` (two hospitals): rounds, answers, and those
    # about copies at the one hospital that holds images to forget; then about all its rounds at once.
    rounds = scenarios.read(few.path / "scenario.yaml").training.rounds
    assert asked.submitted.total() == 2 * (3 * rounds + 3 + 1 + 3 + 2 * rounds + 3 + 1 + 3)
    return found


def extra(folder: RunFolder) -> list[tuple[str, int, str]]:
    entries = folder.read_manifest()["references"]
    return [(one["request"], one["seed"], one["model"]) for one in entries]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


# ------------------------------------------------------------------------------------------- what is trained


@pytest.mark.gate
def test_just_retrained_models_are_trained_more(few: RunFolder, more: RunFolder) -> None:
    expected = [(r, seed, f"retrained-{r}-{seed}") for r in ("some", "leave") for seed in (2, 3)]
    assert extra(more) == expected and extra(few) == []
    names = {f"{model}.safetensors" for _, _, model in expected}
    assert weight_files(more).keys() - weight_files(few).keys() == names
    for _, _, model in expected:
        assert (more.path / "signals" / f"{model}.parquet").is_file()
        assert (more.path / "origins" / "weights" / f"{model}.safetensors.json").is_file()
    assert more.read_manifest()["seeds"] == [1]
    assert more.read_manifest()["scored"] == few.read_manifest()["scored"]


def test_an_extra_reference_is_the_retrained_model_of_a_run_with_its_seed(
    more: RunFolder, tmp_path: Path
) -> None:
    other = run(tmp_path, PLAIN, "seeds=[3]", "strategies=[]")
    for request in ("some", "leave"):
        name = f"retrained-{request}-3.safetensors"
        assert weight_files(other)[name] == weight_files(more)[name]


def test_they_cost_nobody_else_anything(few: RunFolder, more: RunFolder) -> None:
    """They have ledger rows of their own; costs of others, and what is measured of a model alone, are as before."""
    before, after = (folder.read_table("ledger.parquet") for folder in (few, more))
    added = after[~after["seed"].isin([1])]
    assert set(added["seed"]) == {2, 3}
    trained = added[added["phase"] == "retrained"]
    assert Counter(zip(trained["request"], trained["seed"], strict=True)).keys() == {
        (request, seed) for request in ("some", "leave") for seed in (2, 3)
    }
    assert set(added["phase"]) == {"retrained", "evaluate"}
    # Answers of two models with the same weights are the same work: either's time may stand for it.
    one, other = (
        t[(t["seed"] == 1) & (t["phase"] != "evaluate")].reset_index(drop=True) for t in (before, after)
    )
    pd.testing.assert_frame_equal(one, other)
    alone = {"forget_accuracy", "test_loss", "mia_loss_auc", *COSTS}  # no other model has a part in these
    scores = [folder.read_table("scores.parquet") for folder in (few, more)]
    plain = [s[s["measure"].isin(alone)].reset_index(drop=True) for s in scores]
    pd.testing.assert_frame_equal(plain[0], plain[1])
    assert "mia_rmia_auc" in set(scores[1]["measure"]) - set(scores[0]["measure"])


@pytest.mark.gate
def test_along_a_chain_they_are_trained_at_every_moment(tmp_path: Path) -> None:
    text = CHAIN.replace("strategies:\n", "references: 2\nstrategies:\n")
    found = run(tmp_path, text)
    names = ["a@1", "b@2", "c@2", "c"]
    assert extra(found) == [(name, 2, f"retrained-{name}-2") for name in names]
    assert {f"retrained-{name}-2.safetensors" for name in names} < weight_files(found).keys()
    assert not any(
        name.endswith("-2.safetensors") and "retrained" not in name for name in weight_files(found)
    )
    assert read(found.path).references == {name: {2: f"retrained-{name}-2"} for name in names}


@pytest.mark.gate
def test_an_interrupted_run_with_more_references_comes_to_the_same(more: RunFolder, tmp_path: Path) -> None:
    interrupted(tmp_path, EXTRA, 25)
    found = run(tmp_path, EXTRA, resume=True)
    assert weight_files(found) == weight_files(more)
    assert found.read_manifest()["references"] == more.read_manifest()["references"]


@pytest.mark.gate
def test_models_of_extra_references_can_be_trained_again_and_compared(
    more: RunFolder, tmp_path: Path
) -> None:
    count = len(weight_files(more))
    *_, scored, replayed = verify(more.path, count, tmp_path, Console())
    assert "come out the same" in scored
    assert f"{count} models" in replayed and "retrained-leave-3" in replayed


def test_they_are_shown_and_estimated(tmp_path: Path) -> None:
    """Labels as often as trainings; by hand, two models and two files of signals more for either extra seed."""
    (tmp_path / "scenario.yaml").write_text(PLAIN, encoding="utf-8")
    one, three = (scenarios.read(tmp_path / "scenario.yaml", given) for given in ([], ["references=3"]))
    cohort = gather(one, tmp_path)
    labels = [
        Campaign(s, cohort, environment(), Store(RunFolder(tmp_path)), tmp_path, Ledger()).procedures()
        for s in (one, three)
    ]
    new = Counter(labels[1]) - Counter(labels[0])
    assert {(la.phase, la.request, la.seed) for la in new} == {
        ("retrained", request, seed) for request in ("some", "leave") for seed in (2, 3)
    }
    size, told = model_bytes(one, cohort), [estimate(s, cohort).disk for s in (one, three)]
    assert told[1]["weights"] - told[0]["weights"] == 4 * size
    files = told[0]["weights"] // size
    plain = [
        estimate(replace(s, evaluation=replace(s.evaluation, copies=False)), cohort).disk["signals"]
        for s in (one, three)
    ]
    assert plain[1] * files == plain[0] * (files + 4)
    assert told[1]["signals"] - told[0]["signals"] > plain[1] - plain[0]
    # Under way beside one another: of seven trainings, two models, a reply of each hospital, and those in hand before
    # either round.
    assert told[1]["work under way"] == 7 * (2 + 3 + 2) * size
    assert told[1]["history"] == told[0]["history"]


def test_a_rehearsal_has_references_of_none_of_the_scenarios_seeds(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(EXTRA, encoding="utf-8")
    scenario = scenarios.read(tmp_path / "scenario.yaml")
    rehearsed = rehearse(scenario, gather(scenario, tmp_path), 1, 0).scenario
    assert rehearsed.seeds == (4,) and rehearsed.extra_seeds == ()


# ---------------------------------------------------------------------------------------------- margins


@pytest.mark.gate
def test_other_margins_train_nothing(more: RunFolder, tmp_path: Path) -> None:
    with watched() as asked:
        found = run(tmp_path, EXTRA, "verdict.margins.test=.05", reuse=[more.path])
    assert asked.submitted == Counter()
    assert weight_files(found) == weight_files(more)
    assert read(found.path).margins == Margins(test=0.05)


def test_references_and_margins_reach_scoring(few: RunFolder, more: RunFolder) -> None:
    found = read(more.path)
    assert found.references == {
        request: {seed: f"retrained-{request}-{seed}" for seed in (2, 3)} for request in ("some", "leave")
    }
    assert found.margins == Margins() and read(few.path).references == {}
    frame = found.frame("some")
    assert all(found.answers(model, frame) is not None for model in found.references["some"].values())


def copied(folder: RunFolder, to: Path, **entries: Any) -> RunFolder:
    """A copy of a run; entries of its manifest that are None are not there."""
    shutil.copytree(folder.path, to)
    new = RunFolder(to)
    changed = {**new.read_manifest(), **entries}
    new.write_manifest({key: value for key, value in changed.items() if value is not None})
    return new


def test_a_run_from_before_there_were_margins_is_read(few: RunFolder, tmp_path: Path) -> None:
    old = read(copied(few, tmp_path / "old", verdict=None, references=None).path)
    assert old.margins == Margins() and old.references == {}


@pytest.mark.gate
def test_judged_anew_with_other_margins_and_verified(
    few: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not named stays; scoring again without a word keeps the margins; verify uses them, and the log tells."""
    folder, used = copied(few, tmp_path / "run"), list[Margins]()
    honest = read

    def watched_read(path: Path) -> Any:
        found = honest(path)
        used.append(found.margins)
        return found

    for option, expected in (
        (("--margins", "test=.05,memory_left=.3"), Margins(test=0.05, memory_left=0.3)),
        (("--margins", "memory_left=.2"), Margins(test=0.05, memory_left=0.2)),
        ((), Margins(test=0.05, memory_left=0.2)),
    ):
        assert call("score", folder.path, *option).exit_code == 0
        assert read(folder.path).margins == expected
        last = json.loads((folder.path / audit.FILE).read_text().splitlines()[-1])
        assert Margins(**last["margins"]) == expected
    monkeypatch.setattr(scoring, "read", watched_read)
    assert "come out the same" in call("verify", folder.path).output
    assert used == [Margins(test=0.05, memory_left=0.2)]


def test_margins_that_cannot_be_read_change_nothing(few: RunFolder) -> None:
    before = contents(few.path)
    refused = call("score", few.path, "--margins", "tset=.05,memory_left=2")
    assert refused.exit_code == 2
    assert "unknown margin 'tset'" in refused.stderr and "memory_left: expected a number" in refused.stderr
    assert contents(few.path) == before
    with pytest.raises(InputError, match="unknown margin"):
        rescore(few.path, "")

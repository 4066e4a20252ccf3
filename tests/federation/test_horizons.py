"""What a strategy has in hand at a horizon, and that it is scored as a model of its own."""

from __future__ import annotations

import itertools
import json
from collections import ChainMap

import pandas as pd
import pytest
import torch
from rich.console import Console

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.core import Asks, LocalTraining, Procedure, Replies, Select, Weights
from fedunlearn.federation.horizons import Horizons, epochs
from fedunlearn.federation.jobs import Label, Round
from fedunlearn.learning.tasks import Fit, Gradient, Loss
from fedunlearn.results import tables
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.story import simulate
from tests.toy import by_hand

pytestmark = pytest.mark.usefixtures("few_resamples")


def model(value: float) -> Weights:
    return {"w": torch.tensor(value)}


def fit(weights: Weights, epochs: int = 2) -> Fit:
    return Fit(weights, Select(), LocalTraining(epochs), 1)


def counting(rounds: int) -> Procedure[Weights]:
    """Sends model 0, 1, 2 …, two epochs each, and returns the last."""
    for number in range(rounds):
        weights = model(number)
        yield {"north": fit(weights), "east": fit(weights)}
    return model(rounds)


LABEL = Label("unlearn", "some", "counting", 7)


def heard(
    procedure: Procedure[Weights], *horizons: int, label: Label = LABEL
) -> tuple[dict[int, tuple[int, float]], float]:
    """(rounds done, model) by horizon, and the result."""
    found, number = dict[int, tuple[int, float]](), itertools.count()

    def reached(whose: Label, horizon: int, rounds: int, weights: Weights | None) -> None:
        assert whose == label and horizon not in found and weights is not None
        found[horizon] = rounds, float(weights["w"])

    watcher = Horizons(horizons, reached)

    def reply(asks: Asks) -> Replies:
        watcher.round(Round(label, next(number), asks, {}, {}, 0.0))
        return {}

    return found, float(by_hand(procedure, reply)["w"])


def test_a_horizon_is_the_first_time_between_rounds_that_so_many_epochs_are_done() -> None:
    """Two epochs a round: 4 are done after two rounds, 5 only after three. At the end there is nothing else to tell."""
    assert heard(counting(4), 4, 5, 8, 9) == ({4: (2, 2.0), 5: (3, 3.0)}, 4.0)
    assert heard(counting(4)) == ({}, 4.0)


def test_epochs_are_those_of_whoever_trains_most() -> None:
    weights = model(0)
    assert epochs({"north": fit(weights, 2), "east": fit(weights, 5), "west": Loss(weights, Select())}) == 5
    assert epochs({"north": Gradient(weights, Select())}) == 0


def test_what_is_beside_the_model_in_hand_is_not_taken_for_it() -> None:
    """Rounds in a `ChainMap`, of several models, or of none: the horizon waits for the model in hand."""

    def procedure() -> Procedure[Weights]:
        yield {"north": fit(model(1))}
        yield ChainMap[str, object]({"north": fit(model(-1))})  # type: ignore[misc]
        yield {"north": fit(model(-2)), "east": fit(model(-3))}
        yield {"north": fit(model(2))}
        return model(3)

    assert heard(procedure(), 1, 2) == ({1: (3, 2.0), 2: (3, 2.0)}, 3.0)


def test_only_unlearning_has_horizons() -> None:
    assert heard(counting(4), 4, label=Label("continue", "some", "counting", 7)) == ({}, 4.0)


def test_what_is_known_is_told_again_without_the_models() -> None:
    """Two epochs a round, as above; a file keeps what is known as JSON."""
    told: list[tuple[Label, int, int, bool]] = []

    def reached(label: Label, horizon: int, rounds: int, weights: Weights | None) -> None:
        told.append((label, horizon, rounds, weights is not None))

    watcher, other, number = Horizons((4, 5, 9), reached), Label("unlearn", "else", "counting", 7), 0
    procedure = counting(4)
    for number, asks in enumerate(procedure):
        watcher.round(Round(LABEL, number, asks, {}, {}, 0.0))
    known = json.loads(json.dumps(watcher.known(LABEL)))
    Horizons((4, 5, 9), reached).recall(other, known)
    assert told == [(LABEL, 4, 2, True), (LABEL, 5, 3, True), (other, 4, 2, False), (other, 5, 3, False)]
    assert watcher.known(other) is None
    watcher.recall(other, None)
    assert len(told) == 4


# ----------------------------------------------------------------------------------------------- a whole run

SCENARIO = """\
name: horizons
seeds: [1, 2]
engine: {name: inline}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 3, local_epochs: 2, batch_size: 32, lr: 0.002}
horizons: [2, 5]
requests:
  - {id: late, site: north, patients: {count: 3}}
  - {id: early, site: north, patients: {count: 3}, after_round: 2}
strategies:
  - {name: fine_tune, rounds: 3, local_epochs: 2}
  - {name: fine_tune, as: one-round, rounds: 1, local_epochs: 2}
  - {name: fine_tune, as: two-rounds, rounds: 2, local_epochs: 2}
  - {name: fine_tune, as: runaway, rounds: 3, local_epochs: 2, lr: 1.0e+30}
  - {name: mode, local_epochs: 2, as: runaway-later, lr: 1.0e+30, requests: [late]}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("horizons")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    scenario = scenarios.read(folder / "scenario.yaml", [])
    return simulate(scenario, folder / "run", folder, Console(), quiet=True)


def rows(run: RunFolder, strategy: str, measure: str, request: str = "late") -> list[float]:
    scores = run.read_table("scores.parquet")
    keys = {"strategy": strategy, "measure": measure, "request": request, "group": "all"}
    found = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1)]
    return [float(value) for value in found.sort_values("seed")["value"]]


@pytest.mark.gate
def test_the_model_in_hand_is_that_of_stopping_there(run: RunFolder) -> None:
    """Fine-tuning in three rounds of two epochs: after 2 epochs one round is done, after 5 not before all three."""
    for seed in (1, 2):
        held, stopped = (run.read_weights(f"late-{label}-{seed}") for label in ("fine_tune@2", "one-round"))
        assert w.digest(held) == w.digest(stopped)
    weights = {path.stem for path in (run.path / "weights").iterdir()}
    assert not [name for name in weights if "@5" in name or name.startswith("late-one-round@")]


@pytest.mark.gate
def test_it_is_scored_and_judged_like_any_model(run: RunFolder) -> None:
    for measure in ("forget_accuracy", "retain_loss", "mia_loss_auc", "avg_gap"):
        assert rows(run, "fine_tune@2", measure) == rows(run, "one-round", measure) != []
    verdicts = run.read_table("verdicts.parquet").set_index(["request", "strategy"])["verdict"]
    assert verdicts["late", "fine_tune@2"] == verdicts["late", "one-round"]
    assert ("late", "fine_tune@5") not in verdicts.index
    assert ("late", "runaway@2") not in verdicts.index
    assert verdicts["late", "runaway"] == "DAMAGED"


@pytest.mark.gate
def test_it_cost_what_was_done_until_then(run: RunFolder) -> None:
    assert rows(run, "fine_tune@2", "epochs") == [2, 2]
    assert rows(run, "fine_tune", "epochs") == [6, 6]
    for measure in ("bytes", "images", "rounds"):
        assert rows(run, "fine_tune@2", measure) == rows(run, "one-round", measure)
        assert rows(run, "fine_tune", measure) == [3 * value for value in rows(run, "one-round", measure)]


@pytest.mark.gate
def test_what_was_in_hand_before_it_diverged_stays(run: RunFolder) -> None:
    """MoDe begins with two epochs of another model; the next round's learning rate is far too large."""
    lost = {entry["strategy"]: entry["round"] for entry in run.read_manifest()["diverged"]}
    assert lost == {"runaway": 0, "runaway-later": 1}
    assert all(0 <= value <= 1 for value in rows(run, "runaway-later@2", "test_accuracy"))
    assert w.first_nonfinite(run.read_weights("late-runaway-later@2-1")) is None


@pytest.mark.gate
def test_in_the_middle_of_training_it_is_measured_right_after_unlearning(run: RunFolder) -> None:
    assert rows(run, "fine_tune@2", "test_accuracy", "early@2")
    assert not rows(run, "fine_tune@2", "test_accuracy", "early")


@pytest.mark.gate
def test_the_table_shows_it_before_the_last_model_with_its_epochs(run: RunFolder) -> None:
    columns = tables.headed(run)
    shown = {line.strategy: line.cells for line in tables.lines(run, "late", columns)}
    order = list(shown)
    assert order.index("fine_tune@2") + 1 == order.index("fine_tune")
    assert [shown[name][list(columns).index("epochs")] for name in ("fine_tune@2", "fine_tune")] == ["2", "6"]


@pytest.mark.gate
def test_the_resolved_scenario_says_its_horizons(run: RunFolder) -> None:
    assert scenarios.read(run.path / "scenario.yaml", []).horizons == (2, 5)

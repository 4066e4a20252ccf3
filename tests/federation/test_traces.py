"""What procedures have in hand after each round is kept, once each, thinned where there are many."""

from __future__ import annotations

import json
from collections import ChainMap
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.core import Asks, LocalTraining, Select, Weights
from fedunlearn.federation.jobs import Label, Round
from fedunlearn.federation.traces import Traces
from fedunlearn.learning.tasks import Fit

LABEL = Label("unlearn", "some", "counting", 7)


def model(value: float) -> Weights:
    return {"w": torch.tensor(value)}


def fit(weights: Weights) -> Fit:
    return Fit(weights, Select(), LocalTraining(1), 1)


def asking(weights: Weights) -> Asks:
    return {"north": fit(weights), "east": fit(weights)}


def told(traces: Traces, *rounds: Asks, label: Label = LABEL, first: int = 0) -> None:
    for number, asks in enumerate(rounds, first):
        traces.round(Round(label, number, asks, {}, {}, 0.0))


def kept(traces: Traces, label: Label = LABEL) -> dict[int, float]:
    """The value of the model in hand, by rounds done."""
    found = {number: traces.model(label, file) for number, file in traces.numbers(label)}
    return {number: float(one["w"]) for number, one in found.items() if one is not None}


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_every_model_in_hand_is_kept(tmp_path: Path) -> None:
    traces = Traces(tmp_path, most=9)
    told(traces, *(asking(model(value)) for value in (5.0, 6.0, 7.0)))
    traces.end(LABEL, 3, 0.0)
    assert kept(traces) == {0: 5.0, 1: 6.0, 2: 7.0}
    assert traces.rounds(LABEL) == 3 and traces.whole(LABEL)
    traces.drop(LABEL)
    assert files(tmp_path) == 0 and not traces.whole(LABEL)


def test_what_is_not_in_hand_is_not_kept(tmp_path: Path) -> None:
    """Several models, those beside the one to be returned, and other phases."""
    traces = Traces(tmp_path, most=9)
    beside = ChainMap[str, Any]({"north": fit(model(1))})
    told(traces, {"north": fit(model(1)), "east": fit(model(2))}, beside, asking(model(3.0)))
    assert kept(traces) == {2: 3.0}
    told(traces, asking(model(4.0)), label=Label("evaluate", "", "x", 1))
    assert traces.known(Label("evaluate", "", "x", 1)) is None and files(tmp_path) == 1


def test_a_model_that_is_sent_again_is_kept_once(tmp_path: Path) -> None:
    traces, same = Traces(tmp_path, most=9), model(1.0)
    told(traces, asking(same), asking(same), asking(model(2.0)), asking(same))
    assert kept(traces) == {0: 1.0, 1: 1.0, 2: 2.0, 3: 1.0}
    assert files(tmp_path) == 3


@pytest.mark.parametrize("rounds", [4, 5, 8, 9, 40])
def test_of_many_rounds_every_second_or_fourth_is_kept(tmp_path: Path, rounds: int) -> None:
    """Never more than four, and no file that is of no use; the same for whoever goes on from what was known."""
    whole, halves = Traces(tmp_path / "a", most=4), Traces(tmp_path / "b", most=4)
    told(whole, *(asking(model(value)) for value in range(rounds)))
    told(halves, *(asking(model(value)) for value in range(rounds // 2)))
    after = Traces(tmp_path / "b", most=4)
    after.recall(LABEL, json.loads(json.dumps(halves.known(LABEL))))
    told(after, *(asking(model(value)) for value in range(rounds // 2, rounds)), first=rounds // 2)
    stride = next(2**k for k in range(9) if (rounds - 1) // 2**k < 4)
    assert kept(whole) == kept(after) == {number: number for number in range(0, rounds, stride)}
    assert files(tmp_path / "a") == files(tmp_path / "b") == len(kept(whole))


def test_thinning_does_not_lose_a_model_that_was_sent_again(tmp_path: Path) -> None:
    traces, same = Traces(tmp_path, most=2), model(1.0)
    told(traces, asking(model(0.0)), asking(same), asking(same), asking(same), asking(same))
    assert kept(traces) == {0: 0.0, 4: 1.0}


def test_it_is_known_again(tmp_path: Path) -> None:
    traces = Traces(tmp_path, most=9)
    told(traces, asking(model(5.0)))
    traces.end(LABEL, 1, 0.0)
    known, other = json.loads(json.dumps(traces.known(LABEL))), Traces(tmp_path, most=9)
    other.recall(LABEL, known)
    assert kept(other) == {0: 5.0} and other.rounds(LABEL) == 1 and other.whole(LABEL)
    elsewhere = Traces(tmp_path / "elsewhere", most=9)
    elsewhere.recall(LABEL, known)
    assert not elsewhere.whole(LABEL) and kept(elsewhere) == {}
    elsewhere.recall(LABEL, None)  # nobody watched it then
    assert not elsewhere.whole(LABEL) and elsewhere.rounds(LABEL) is None


def test_a_damaged_file_is_no_model(tmp_path: Path) -> None:
    traces = Traces(tmp_path, most=9)
    told(traces, asking(model(5.0)), asking(model(6.0)))
    next(path for path in tmp_path.rglob("model-0")).write_bytes(b"half of it")
    assert kept(traces) == {1: 6.0}

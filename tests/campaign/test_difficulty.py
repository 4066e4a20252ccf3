"""How long an image takes to be learnt, on made-up sequences of right and wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedunlearn.campaign.difficulty import forgetting_events, learnt_after, table

# after rounds 1 … 4      learnt after, forgetting events
SEQUENCES = {
    "1111": (1, 0),  # right from the first round on
    "0111": (2, 0),
    "1011": (3, 1),  # right, forgotten in round 2, right again from round 3 on
    "1010": (5, 2),  # wrong at the end: longer than the four rounds there are
    "0101": (4, 1),
    "0001": (4, 0),
    "1110": (5, 1),
    "0000": (5, 0),  # never right, so nothing was forgotten
}


@pytest.fixture
def right() -> np.ndarray:
    return np.array([[mark == "1" for mark in sequence] for sequence in SEQUENCES]).T


def test_learnt_is_the_first_round_after_which_it_stays_right(right):
    assert learnt_after(right).tolist() == [after for after, _ in SEQUENCES.values()]


def test_a_forgetting_event_is_right_and_then_wrong(right):
    assert forgetting_events(right).tolist() == [events for _, events in SEQUENCES.values()]


def test_one_round_tells_right_from_wrong_only():
    right = np.array([[True, False]])
    assert learnt_after(right).tolist() == [1, 2]
    assert forgetting_events(right).tolist() == [0, 0]


def test_the_table_has_every_image_for_every_seed(right):
    found = table(list(SEQUENCES), {7: right, 8: ~right})
    assert found["image"].tolist() == [*SEQUENCES, *SEQUENCES]
    assert found["seed"].tolist() == [7] * 8 + [8] * 8
    once = pd.Series(found["learnt_after"].to_numpy()[8:], list(SEQUENCES))
    assert (once["1111"], once["1110"], once["0000"]) == (5, 4, 1)

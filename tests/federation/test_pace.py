"""Time left, by a clock of the test's own: from work done, near the truth, and without wild jumps."""

from __future__ import annotations

import itertools
import random

import pytest

from fedunlearn.federation.engines import Answer
from fedunlearn.federation.jobs import Label, Round
from fedunlearn.federation.pace import Pace, sentence, words


def label(phase: str, strategy: str, seed: int) -> Label:
    return Label(phase, "some" if phase == "unlearn" else "", strategy, seed)


def round_of(whose: Label, number: int, images: int, seconds: float = 0.0) -> Round:
    answer = Answer(0, None, None, seconds, images)
    return Round(whose, number, {}, {"north": answer}, {"north": 0}, 0.0)


SEEDS = range(6)
PLAN = [label("retrained", "retrained", s) for s in SEEDS] + [label("unlearn", "salun", s) for s in SEEDS]
ROUNDS, IMAGES = 8, 500


def run(
    speed: float, expected: dict[Label, float], noise: float = 0.0
) -> list[tuple[float, float, float | None]]:
    """Run the plan at so many images a second: (share done, truly left, said to be left) at every round."""
    rng, now = random.Random(0), 1000.0
    pace, said = Pace(PLAN, now, expected), list[tuple[float, float | None]]()
    for one in PLAN:
        for number in range(ROUNDS):
            seconds = IMAGES / speed * (1 + noise * rng.uniform(-1, 1))
            now += seconds
            pace.round(round_of(one, number, IMAGES, seconds), now)
            said.append((now, pace.standing(now).left))
        pace.end(one, ROUNDS)
    assert pace.standing(now).left == 0.0
    return [((n + 1) / len(said), now - at, left) for n, (at, left) in enumerate(said)]


def test_with_a_steady_speed_and_known_work_the_time_left_is_the_truth() -> None:
    told = run(100.0, dict.fromkeys(PLAN, ROUNDS * IMAGES))
    assert all(left == pytest.approx(truth, abs=1e-6) for _, truth, left in told if left is not None)
    assert all(left is not None for share, _, left in told if share > 0.03)


def test_a_speed_that_varies_moves_it_little() -> None:
    told = run(100.0, dict.fromkeys(PLAN, ROUNDS * IMAGES), noise=0.6)
    late = [(truth, left) for share, truth, left in told if 0.1 < share < 0.95 and left is not None]
    assert len(late) > 70
    assert all(abs(left - truth) < 0.25 * truth for truth, left in late)
    jumps = [abs(b - a) / a for (_, a), (_, b) in itertools.pairwise(late)]
    assert max(jumps) < 0.2


def test_work_that_was_expected_wrongly_is_corrected_by_what_others_of_its_kind_took() -> None:
    """Unlearning is expected to take a third of what it does; the second half of the plan is unlearning."""
    expected = {one: ROUNDS * IMAGES / (3 if one.phase == "unlearn" else 1) for one in PLAN}
    told = run(100.0, expected)
    first_of_unlearning_ended = (len(SEEDS) + 1) / len(PLAN)
    after = [(truth, left) for share, truth, left in told if share > first_of_unlearning_ended + 0.01]
    # What has not ended is now expected to take what the first took, which is the truth.
    assert all(left == pytest.approx(truth, abs=1e-6) for truth, left in after)


def test_between_rounds_it_counts_down_and_never_below_nothing() -> None:
    pace = Pace(PLAN[:2], 0.0, dict.fromkeys(PLAN[:2], 1000.0))
    for number in range(3):
        pace.round(round_of(PLAN[0], number, 250, 10.0), 10.0 * (number + 1))
    left = [pace.standing(now).left for now in (30.0, 40.0, 1000.0)]
    assert left == [pytest.approx(50.0), pytest.approx(40.0), 0.0]  # 1,250 images to come, at 25 a second


def test_what_was_known_from_an_earlier_run_is_no_work_and_tells_nothing_of_speed() -> None:
    pace = Pace(PLAN, 0.0, dict.fromkeys(PLAN, 1000.0))
    for one in PLAN[:-1]:
        pace.end(one, ROUNDS)  # recalled: no round was seen
    assert pace.standing(1.0).left is None
    for number in range(2):
        pace.round(round_of(PLAN[-1], number, 250, 10.0), 10.0 * (number + 1))
    assert pace.standing(20.0).left == pytest.approx(20.0)  # half of the last one


def test_the_start_of_an_engine_does_not_count_as_slowness() -> None:
    pace = Pace(PLAN[:1], 0.0, {PLAN[0]: 1000.0})
    for number in range(2):
        pace.round(round_of(PLAN[0], number, 100, 1.0), 60.0 + number)  # the first hospital began after 59 s
    assert pace.standing(61.0).speed == pytest.approx(100.0, rel=0.01)


def test_answers_for_scores_count_as_the_less_that_they_take() -> None:
    pace = Pace(PLAN[:1], 0.0, {PLAN[0]: 1000.0}, unnamed=100.0)
    pace.round(
        round_of(Label("evaluate", "", "original-1", 1), 0, 400, 1.0), 1.0
    )  # 400 answers are 100 passes
    standing = pace.standing(1.0)
    assert standing.images == 100.0 and standing.share == pytest.approx(100 / 1100)
    assert (standing.done, standing.total, standing.at_work) == (0, 1, [])


def test_a_tuner_s_trials_have_one_label_each_is_counted() -> None:
    one = Label("tune", "some~1", "salun", 3)
    pace = Pace([one] * 3, 0.0)
    for trial in range(2):
        for number in range(2):
            pace.round(round_of(one, number, 100, 1.0), 2.0 * trial + number + 1.0)
        assert pace.end(one, 2)
    standing = pace.standing(4.0)
    assert standing.phases == {"tune": (2, 3)}
    assert standing.left == pytest.approx(2.0)  # a third trial like the others


def test_words_are_no_more_precise_than_the_number() -> None:
    said = [words(seconds) for seconds in (0.2, 9.2, 41, 89, 95, 600, 5400, 9000)]
    assert said == ["1 s", "10 s", "50 s", "90 s", "2 min", "10 min", "1.5 h", "2.5 h"]


def test_a_sentence_fits_into_eighty_columns() -> None:
    pace = Pace([*PLAN] * 900, 0.0, dict.fromkeys(PLAN, 1e9))
    for number in range(20):
        pace.round(round_of(PLAN[0], number, 10**8, 1.0), 600.0 * (number + 1))
    assert len(sentence(pace.standing(36000.0))) <= 80

"""The yardstick judged by models of which the truth is known (`benchmarks/yardstick.py` prints the whole table)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learners import clinics, models, site_shift, tallies as networks
from benchmarks.yardstick import KINDS, OF_PAIRS, Setting, Tally, interval, tallies

ALARMS = ("partly", "no", "too much", "yes, but")


def found(setting: str, draws: int, *kinds: str, bad: bool = False) -> dict[str, Tally]:
    return tallies(Setting.parse(setting), draws, {kind: KINDS[kind] for kind in kinds}, bad)


def passes(tally: Tally) -> float:
    return tally.words["PASS"] / tally.draws


@pytest.mark.gate
def test_a_few_draws_where_all_is_plain(monkeypatch: pytest.MonkeyPatch):
    """What the slow tests show at length: 6 draws of 44 patients, 8 seeds."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 200)
    expected = {
        "honest": ("yes",),
        "do nothing": ("no",),
        "overdone": ("too much",),
        "half remembered, half overdone": ("partly", "no"),
        "output patch": ("no",),
        "hard labels with flips": ("no", "partly"),
    }
    for kind, tally in found("44x8", 6, *expected).items():
        assert tally.share(*expected[kind]) >= 5 / 6, (kind, tally.forgotten)
        assert kind == "honest" or passes(tally) == 0


@pytest.mark.gate
def test_the_same_of_images_with_several_findings(monkeypatch: pytest.MonkeyPatch):
    """6 draws of 44 patients, 8 seeds."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 200)
    expected = {"honest": ("yes",), "do nothing": ("no",), "overdone": ("too much",), "output patch": ("no",)}
    kinds = {kind: KINDS[kind] for kind in expected}
    for kind, tally in tallies(Setting.parse("44x8"), 6, kinds, task="multilabel").items():
        assert tally.share(*expected[kind]) >= 5 / 6, (kind, tally.forgotten)
        assert kind == "honest" or passes(tally) == 0


@pytest.mark.gate
def test_whoever_is_known_by_the_report_alone_is_not_forgotten(monkeypatch: pytest.MonkeyPatch):
    """6 draws of 44 patients, 8 seeds: the joint answer and the image's are those of honest retraining."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 200)
    expected = {"honest": ("yes",), "do nothing": ("no",), "known by the report alone": ("partly", "no")}
    kinds = {kind: {**KINDS, **OF_PAIRS}[kind] for kind in expected}
    for kind, tally in tallies(Setting.parse("44x8"), 6, kinds, task="paired").items():
        assert tally.share(*expected[kind]) >= 5 / 6, (kind, tally.forgotten)
        assert kind == "honest" or passes(tally) == 0


def test_settings_are_read():
    assert Setting.parse("12x3") == Setting(12, 3, 8)
    assert Setting.parse("44x12x20") == Setting(44, 12, 20, 15)
    assert str(Setting.parse("1x8")) == "1 x 8, 8 references"


def test_the_interval_of_a_share():
    """Clopper and Pearson: of none in 100, 1 - .025^(1/100) = .0362; of all, the mirror image."""
    assert interval(0, 100) == pytest.approx((0, 0.0362), abs=1e-4)
    assert interval(100, 100) == pytest.approx((0.9638, 1), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", ["6x2", "6x3", "6x8", "12x2", "12x3x3", "12x3", "12x8", "44x2", "44x8", "1x8"]
)
@pytest.mark.parametrize("bad", [False, True])
def test_at_most_5_percent_of_honest_retrainings_raise_an_alarm(setting: str, bad: bool):
    """Also when one training in seven goes badly."""
    tally = found(setting, 200, "honest", bad=bad)["honest"]
    assert tally.share(*ALARMS) + tally.useful["worse"] / tally.draws <= 0.05, (tally.forgotten, tally.useful)


@pytest.mark.slow
def test_honest_models_get_an_answer():
    assert found("12x3", 200, "honest")["honest"].share("cannot tell") <= 0.25


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "most"), [("12x3", 0.45), ("12x8", 0.15), ("44x8", 0.15)])
def test_one_patient_remembered_whole_is_called_forgotten_rarely(setting: str, most: float):
    (tally,) = found(setting, 200, "1 patient remembered whole").values()
    assert tally.share("yes", "yes, but") <= most, tally.forgotten


@pytest.mark.slow
def test_a_request_of_one_patient_is_answered():
    tally = found("1x8", 200, "honest", "do nothing")
    assert tally["honest"].share(*ALARMS) <= 0.05
    assert tally["do nothing"].share("no", "partly") >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "half remembered, half overdone",
        "1 patient in 6 remembered whole",
        "hard labels with flips",
        "output patch",
    ],
)
def test_cheats_do_not_pass(kind: str):
    (tally,) = found("44x8", 100, kind).values()
    assert tally.share("yes") <= 0.1, tally.forgotten


@pytest.mark.slow
def test_a_lost_rare_class_is_not_called_still_good():
    (tally,) = found("44x8", 100, "honest, but a rare class is lost").values()
    assert tally.useful["yes"] <= 10, tally.useful


@pytest.mark.slow
def test_real_networks():
    """Ten draws: a duplicate, wrong labels and a lookup table are seen; retraining is not accused."""
    seen = networks(10, Tally)
    assert seen["do nothing"].share("no") == 1
    assert seen["retrained again"].share(*ALARMS) <= 0.1
    assert seen["one duplicate per patient left in"].share("yes") == 0
    assert seen["wrong labels for the forgotten"].share("too much") == 1
    assert seen["lookup of the exact images"].share("yes", "yes, but") == 0


def test_the_site_shift_trap():
    """The retrained model never saw the forgotten, but others' images are harder: only the pooled attack is fooled."""
    draws = [clinics(draw) for draw in range(4)]
    shifts = [site_shift(data, models(data, "retrained", 1).answers[0]) for data in draws]
    same, pooled = np.mean(shifts, axis=0)
    assert abs(same - 0.5) < 0.05 < pooled - 0.5

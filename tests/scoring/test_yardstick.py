"""The yardstick judged by models of which the truth is known (`benchmarks/yardstick.py` prints the whole table)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.yardstick import KINDS, Kind, Setting, Tally, clinics, learners, site_shift, tallies, traps

ALARMS = ("UNDER", "OVER", "DAMAGED")


def share(tally: Tally, *verdicts: str) -> float:
    return sum(tally.verdicts[verdict] for verdict in verdicts) / len(tally.apart)


def test_a_few_draws_of_every_kind(monkeypatch: pytest.MonkeyPatch):
    """What the slow tests show at length: 6 draws of 44 patients, where all is plain."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 200)
    found = tallies(Setting(forget=44, held_out=15, retain=30), draws=6)
    assert share(found["retrained again"], *ALARMS) == 0
    for kind, verdict in {"all remembered": "UNDER", "over-forgotten": "OVER", "damaged": "DAMAGED"}.items():
        assert share(found[kind], verdict) >= 5 / 6, (kind, found[kind].verdicts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", [Setting(), Setting(seeds=5), Setting(forget=44, held_out=15), Setting(forget=3)]
)
def test_at_most_5_percent_of_honest_retrainings_raise_an_alarm(setting: Setting):
    (found,) = tallies(setting, 200, {"again": Kind()}).values()
    assert share(found, *ALARMS) <= 0.05, found.verdicts


@pytest.mark.slow
def test_a_planted_leak_is_found():
    """All remembered: AUC .22 above retraining, 12 patients, 6 images each, 3 seeds.

    Half remembered, AUC .10: with 44 patients, or with 5 seeds.
    """
    (whole,) = tallies(Setting(), 200, {"leak": KINDS["all remembered"]}).values()
    assert share(whole, "UNDER") >= 0.95, whole.verdicts
    for setting in (Setting(seeds=5), Setting(forget=44, held_out=15)):
        (half,) = tallies(setting, 200, {"leak": KINDS["half remembered"]}).values()
        assert share(half, "UNDER") >= 0.95, half.verdicts
        assert np.mean(half.apart) == pytest.approx(0.10, abs=0.01)


@pytest.mark.slow
def test_traps_on_real_learners():
    """Ten draws of three hospitals: what hospitals differ in is no memory; a duplicate and over-forgetting are seen."""
    found, shifts = traps(10)
    same, pooled = shifts.mean(axis=0)
    assert same == pytest.approx(0.5, abs=0.05)
    assert abs(pooled - 0.5) > 0.05
    assert share(found["original"], "UNDER") == 1
    assert share(found["retrained again"], *ALARMS) <= 0.1
    assert share(found["one duplicate per patient left in"], "UNDER") >= 0.7
    over = found["wrong labels for the forgotten"]  # some draws lose test accuracy as well, which is graver
    assert share(over, "OVER", "DAMAGED") == 1
    assert all("forgot too much: mia_loss_auc" in "; ".join(reasons) for reasons in over.reasons)


def test_the_site_shift_trap():
    """The retrained model never saw the forgotten, but others' images are harder: only the pooled attack is fooled."""
    draws = [clinics(draw) for draw in range(4)]
    same, pooled = np.mean([site_shift(data, learners(data)["retrained"](0)) for data in draws], axis=0)
    assert abs(same - 0.5) < 0.05 < pooled - 0.5

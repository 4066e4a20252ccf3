"""The statistics of a difference: intervals, tests, power, Holm's correction."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedunlearn.scoring.evidence import Estimate, Frame
from fedunlearn.scoring.judgement.band import LEVEL
from fedunlearn.scoring.judgement.difference import Difference, difference, differences, holm
from fedunlearn.scoring.measures.catalogue import MEASURES

AUC = "mia_loss_auc"
MADE = {AUC: MEASURES[AUC], "bytes": MEASURES["bytes"]}


def frame(patients: int = 4) -> Frame:
    """One image each, all to forget."""
    codes, nobody = np.arange(patients), np.zeros(patients, dtype=bool)
    return Frame(codes, codes * 0, ("a",), codes * 0, 2, ~nobody, nobody, ~nobody, nobody, 0)


def one(value: float, replicates: list[float]) -> dict[str, Estimate]:
    return {AUC: Estimate(value, 4, np.array(replicates)), "bytes": Estimate(7.0, 0)}


NULL = 0.06 / math.sqrt(2)
PLAIN = Difference(0.1, 3, 3, patients=5, spread=0.03, null_spread=NULL, shared=0.0, margin=0.06)
"""Three seeds, all of them paired: two means of honest retrainings differ with error NULL sqrt(2/3) = .06/√3."""


def test_a_difference_is_paired_by_seed_and_shares_what_patients_do_to_all_seeds():
    """By hand: gaps .1, .2, .3, mean .2, sd .1; retrained .5, .4, .6 (sd .1). The margin is the measure's own.

    Differences drawn anew, by seed: (.1, .3), (.1, .5), (.2, .2). Covariances over two draws with divisor 1, of
    deviations (∓.1), (∓.2), (0): first and second .02 + .02 = .04, others 0. Mean over three pairs .04/3; times 4/3.
    """
    models = [
        {"retrained": one(r, [0.5, 0.5]), "wild": one(u, drawn)}
        for r, u, drawn in (
            (0.5, 0.6, [0.6, 0.8]),
            (0.4, 0.6, [0.6, 1.0]),
            (0.6, 0.9, [0.7, 0.7]),
        )
    ]
    (found,) = differences(models, MADE, frame())["wild"].values()
    expected = (0.2, 3, 3, 4, 0.1, 0.1, 0.04 / 3 * 4 / 3, 0.06)
    assert (
        found.value,
        found.seeds,
        found.references,
        found.patients,
        found.spread,
        found.null_spread,
        found.shared,
        found.margin,
    ) == pytest.approx(expected, abs=1e-12)


def test_seeds_alone_give_students_interval_and_tests():
    """Without patients' part: scipy's Student with 2 degrees and standard error sd/√3."""
    student, error = stats.t(2), 0.03 / math.sqrt(3)
    half = student.ppf(0.975) * error
    assert PLAIN.interval() == pytest.approx((0.1 - half, 0.1 + half), abs=1e-9)
    assert PLAIN.p_difference == pytest.approx(2 * student.sf(0.1 / (0.06 / math.sqrt(3))), abs=1e-9)
    near = replace(PLAIN, value=0.02)
    assert near.p_equivalent == pytest.approx(student.sf(0.04 / error), abs=1e-9)
    assert replace(near, value=-0.02).p_equivalent == pytest.approx(near.p_equivalent)
    null = 0.06 / math.sqrt(3)
    visible = student.ppf(1 - LEVEL / 2) * null + student.ppf(0.8) * null
    assert PLAIN.smallest_visible == pytest.approx(visible, abs=1e-9)


def test_patients_add_their_variance_and_degrees():
    """V = .03²/3 + .0009 = .0012; df = .0012² / (.0003²/2 + .0009²/4) = 5.8182."""
    both = replace(PLAIN, shared=0.0009)
    df = 0.0012**2 / (0.0003**2 / 2 + 0.0009**2 / 4)
    assert df == pytest.approx(5.8182, abs=1e-4)
    half = stats.t(df).ppf(0.975) * math.sqrt(0.0012)
    assert both.interval() == pytest.approx((0.1 - half, 0.1 + half), abs=1e-9)


@pytest.mark.parametrize("shared", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
def test_more_noise_by_patient_never_makes_anything_surer(shared: float):
    noisy, within = replace(PLAIN, shared=shared), replace(PLAIN, value=0.01)
    assert noisy.p_difference >= PLAIN.p_difference
    assert noisy.interval()[0] <= PLAIN.interval()[0]
    assert noisy.smallest_visible >= PLAIN.smallest_visible
    assert replace(within, shared=shared).p_equivalent >= within.p_equivalent


def test_two_one_sided_tests_and_the_90_percent_interval_agree():
    """Schuirmann 1987: equivalent at 5 % just where the 90 % interval is within the margins."""
    for value in np.linspace(-0.08, 0.08, 33):
        case = replace(PLAIN, value=float(value), spread=0.02, shared=0.0002)
        low, high = case.interval(0.90)
        assert (case.p_equivalent < 0.05) == (-case.margin < low and high < case.margin)


def test_models_equal_to_retraining_are_equivalent_and_others_without_noise_are_what_they_are():
    same = Difference(0.0, 3, 3, 5, spread=0.0, null_spread=0.0, shared=0.0, margin=0.06)
    assert (same.interval(), same.p_equivalent, same.p_difference) == ((0.0, 0.0), 0.0, 1.0)
    apart = replace(same, value=0.1)
    assert (apart.p_equivalent, apart.p_difference) == (1.0, 0.0)


def test_without_several_patients_or_seeds_nothing_is_known_but_the_difference():
    single = [
        {"retrained": one(0.5, []), "wild": one(value, [])} for value in (0.6, 0.7)
    ]  # no replicates: one patient
    alone = [{"retrained": one(0.5, [0.5, 0.4]), "wild": one(0.6, [0.6, 0.6])}]  # one seed
    for models, value in ((single, 0.15), (alone, 0.1)):
        found = differences(models, MADE, frame())["wild"][AUC]
        assert found.value == pytest.approx(value)
        numbers = (*found.interval(), found.p_difference, found.p_equivalent, found.smallest_visible)
        assert np.isnan(numbers).all()


def test_what_is_undefined_for_a_seed_has_no_difference():
    good = {"retrained": one(0.5, [0.5, 0.4]), "wild": one(0.6, [0.6, 0.6])}
    lost = {**good, "wild": one(math.nan, [])}
    assert differences([good, lost], MADE, frame()) == {}
    assert differences([good, {"retrained": good["retrained"]}], MADE, frame()) == {}


def test_needed_seeds_are_the_first_that_are_enough():
    """Patients: V = .01²/10 + .01/m for m times as many, df about P-1. m = 3: 1.77·.0586 = .104; m = 5: 1.72·.0448 =
    .077.
    """
    few = replace(PLAIN, shared=0.01, spread=0.01)
    assert few.needed(0.1) == "about 25 patients (5 here) and 10 seeds would tell"
    assert few.needed(1e-6) == "no likely number of seeds or patients would tell"


def test_needed_references_come_before_seeds():
    """All else as it is: with K = 3, s = .01, s_R = .1 the further models' part is (M-3)/M² .01, the least of it at M =
    3.

    Paired at M = 3, an erratic strategy (s = .1) is helped by nothing but seeds: t(.95, K-1) .1/√K < .06 from K = 10
    on.
    """
    assert stats.t(9).ppf(0.95) * 0.1 / math.sqrt(10) < 0.06 < stats.t(8).ppf(0.95) * 0.1 / math.sqrt(9)
    erratic = replace(PLAIN, spread=0.1, null_spread=0.1)
    assert erratic.needed(0.06) == "about 10 seeds, and as many retrained models, would tell"
    unpaired = replace(PLAIN, references=4, spread=0.01, null_spread=0.4)
    more = range(5, 31)
    first = next(m for m in more if replace(unpaired, references=m).half(0.95) < 0.15)
    assert unpaired.needed(0.15) == f"about {first} retrained models would tell"


def test_further_retrained_models_are_not_paired():
    """K = 2 of M = 4. Retrained .5, .7 and, further, .4, .4: mean .5; unlearned .8, 1.0: value .4, r = 1/2.

    U - R/2 = .55, .65: s = .05√2. Of the retrained: s_R² = .02. V = .005/2 + 2/16 .02 = .005.
    """
    pairs = [
        (Estimate(u, 1, np.array([u, u])), Estimate(r, 1, np.array([r, r])))
        for u, r in ((0.8, 0.5), (1.0, 0.7))
    ]
    found = difference(pairs, [0.4, 0.4], 0.06, 4)
    assert (found.value, found.spread, found.null_spread) == pytest.approx(
        (0.4, 0.05 * math.sqrt(2), math.sqrt(0.02))
    )
    df = 0.005**2 / (0.0025**2 / 1 + 0.0025**2 / 3)
    assert found.half(0.975) == pytest.approx(stats.t(df).ppf(0.975) * math.sqrt(0.005), rel=1e-6)
    error = math.sqrt(0.02 * (1 / 2 + 1 / 4))
    assert found.p_difference == pytest.approx(2 * stats.t(3).sf(0.4 / error), rel=1e-6)


def test_pairing_is_the_same_formula_with_no_further_models():
    """Var(mean U - mean R) by brute force: 20,000 draws of K = 3 models that follow their seed, M = 3 and M = 8."""
    rng = np.random.default_rng(0)
    for references in (3, 8):
        retrained = rng.normal(size=(20000, references))
        models = 0.7 * retrained[:, :3] + 0.5 * rng.normal(size=(20000, 3))
        values = models.mean(axis=1) - retrained.mean(axis=1)
        own = (models - 3 / references * retrained[:, :3]).var(axis=1, ddof=1).mean()
        further = (references - 3) / references**2 * retrained.var(axis=1, ddof=1).mean()
        assert own / 3 + further == pytest.approx(values.var(), rel=0.05)


def test_a_finding_does_not_rest_on_one_training():
    """Seeds 0, 0, 3 against retrained models around 0 (sd .5, 8 of them): without the last, nothing is left."""
    every = [-0.5, 0.5, 0.5, -0.5, 0.5, -0.5, 0.5, -0.5]
    pairs = [(Estimate(u, 1), Estimate(r, 1)) for u, r in zip((0.0, 0.0, 3.0), every[:3], strict=True)]
    found = replace(difference(pairs, every[3:], 0.06, 4), shared=0.0)
    assert found.p_difference < 0.05
    assert found.leaving_out == pytest.approx((1.5, 1.5, 0.0))
    assert found.p_beyond("above") == pytest.approx(0.5)
    assert found.p_beyond("below") > 0.9


def test_holm_by_hand():
    """Sorted .01, .02, .03, .9 of four: .04, .06, .06 (.03·2 is .06), .9; NaN is no test."""
    p = {"c": 0.03, "a": 0.01, "d": 0.9, "b": 0.02, "e": math.nan}
    corrected = holm(p)
    assert {k: corrected[k] for k in "abcd"} == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.9})
    assert math.isnan(corrected["e"])
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_five_in_a_hundred_retrainings_differ_significantly_and_as_many_at_the_margin_seem_equivalent(
    seeds: int,
):
    """4000 draws of normal values: .05 ± .0034 (standard error); at the margin at most that."""
    rng = np.random.default_rng(seeds)
    reference, fresh = rng.normal(size=(2, 4000, seeds))
    null = reference.std(axis=1, ddof=1)
    gaps = fresh - reference
    cases = [
        Difference(float(gap.mean()), seeds, seeds, 9, float(gap.std(ddof=1)), float(sd), 0.0, margin=0.0)
        for gap, sd in zip(gaps, null, strict=True)
    ]
    assert np.mean([case.p_difference < 0.05 for case in cases]) == pytest.approx(0.05, abs=0.012)
    at_margin = [replace(case, value=case.value + 5.0, margin=5.0) for case in cases]
    assert np.mean([case.p_equivalent < 0.05 for case in at_margin]) < 0.062

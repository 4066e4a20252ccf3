"""Two answers and a word: every rule, in its order, with the reason that is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement.difference import Difference
from fedunlearn.scoring.judgement.luck import Luck
from fedunlearn.scoring.judgement.memory import Memory, Noise, Scale, memory
from fedunlearn.scoring.judgement.usefulness import Component
from fedunlearn.scoring.judgement.verdict import (
    Answer,
    Diverged,
    Findings,
    Recalled,
    Sight,
    contrary,
    forgotten,
    judge,
    useful,
    word,
)

PATIENTS = 12
SD = 0.3
"""Of one training's luck by patient, in units of what the original knows; of the mean, a third of that."""


def made(
    seeds: int = 3, references: int = 8, known: float = 1.0, sd: float = SD, patients: int = PATIENTS
) -> Scale:
    """Retrained models around 0 and original ones at ``known``, with luck that is known for certain."""
    level = np.linspace(-1, 1, patients) * 0.0
    return Scale(
        asked=np.ones(1, dtype=bool),
        patients=np.arange(patients),
        retrained=np.tile(level, (references, 1)),
        original=np.tile(level + known, (seeds, 1)),
        luck=Luck(np.full(patients, sd**2), 100.0),
        noise=Noise((sd / 3) ** 2, 100.0),
        images=np.full(patients, 6),
        level=0.01,
        unusual=np.ones(references),
    )


VAGUE = made(sd=1.5)
SIGHT = Sight(made(), None, 3, [f"p-{i}" for i in range(PATIENTS)], Margins())


def left(values: float | Sequence[float], scale: Scale | None = SIGHT.scale, alone: bool = False) -> Memory:
    """The memory of models that all know so much of each patient; ``alone``: only the first does, K times as much."""
    assert scale is not None
    each = np.broadcast_to(np.asarray(values, dtype=np.float64), len(scale.patients))
    k = len(scale.original)
    models = np.tile(each, (k, 1)) if not alone else np.stack([k * each, *[0 * each] * (k - 1)])
    return memory(scale, models, Margins().memory_left)


def one(*patients: float) -> list[float]:
    """So much of the first patients, nothing of the others."""
    return [*patients, *[0.0] * (PATIENTS - len(patients))]


def apart(value: float, spread: float = 0.02) -> Difference:
    return Difference(value, 3, 8, 40, spread, spread, 0.0, 0.06, (value, value, value))


def component(value: float, group: str = "all", margin: float = 0.03, **more: object) -> Component:
    known = replace(Component(group, apart(value, 0.01), margin, 40, 240), **more)  # type: ignore[arg-type]
    return replace(known, worse=value < -2 * margin)


GOOD = (component(0.0), component(-0.01, "site=north", 0.05), component(0.02, "class=3", 0.10))


def found(memory: Memory | None, copies: Memory | None = None, **differences: float) -> Findings:
    return Findings(
        Recalled(memory, copies), {name: apart(value) for name, value in differences.items()}, GOOD
    )


@pytest.mark.parametrize(
    ("case", "answer", "reason"),
    [
        (found(left(0.0)), "yes", "0 % of the original's memory is left"),
        (found(left(0.15)), "yes", "15 % of the original's memory is left"),
        (found(left(1.0)), "no", "100 % of the original's memory is left"),
        (found(left(0.4)), "partly", "40 % of the original's memory is left"),
        (found(left(-0.6)), "too much", "known less than by retraining"),
        (found(left(one(1.0))), "partly", "1 of 12 patients (p-0 100 %) is still known"),
        (
            found(left(one(-1.2))),
            "too much",
            "1 of 12 patients (p-0 -120 %) is known less than by retraining",
        ),
        (
            found(left([1.0] * 5 + [0.0] * 7)),
            "partly",
            "5 of 12 patients (p-0 100 %, p-1 100 %, p-2 100 %, 2 more) are still known",
        ),
        (found(left([1.0] * 6 + [-1.0] * 6)), "no", "6 of 12 patients"),
        (found(left([1.0] * 5 + [-1.0] * 7)), "partly", "7 of 12 patients"),
        (found(left(one(0.8), alone=True)), "cannot tell", "rests on a single training"),
        (
            found(left(0.0), left(0.9)),
            "no",
            "90 % of the original's memory is left (95 %: 75 % to 105 %) on slightly",
        ),
        (found(left(0.0), left(one(1.0))), "partly", "still known on slightly changed copies"),
        (found(left(0.0), left(0.1)), "yes", "no patient stands out"),
        (found(left(0.0), left(0.3, VAGUE)), "yes", "no patient stands out"),  # on copies, luck weighs more
        (
            found(left(0.0), left(0.3, alone=True)),
            "cannot tell",
            "on slightly changed copies, but it rests on a single",
        ),
        (
            found(left(0.0), mia_ulira_excess=0.2),
            "yes, but",
            "U-LiRA tells its answers to the images to forget from retraining's (+0.20",
        ),
        (found(left(0.0), resurgence_mia_loss_auc=0.2), "yes, but", "once the hospitals have trained on"),
        (found(left(0.0), relearn_log=-0.5), "yes, but", "learns the images to forget again sooner"),
        (found(left(0.0), relearn_log=0.5, mia_loss_auc=0.3, mia_lira_auc=0.3), "yes", "0 %"),
    ],
)
def test_forgotten(case: Findings, answer: str, reason: str):
    """The interval at .9: variance .01 (1/3 + 1/8 + .81 (1/3 + 1/8) - 1.8/8) = .00605; t(.975, 100) = 1.984.

    Three models that agree wholly make that 100/102 of it, with 102 degrees: the same in whole percents.
    """
    given = forgotten(SIGHT, case)
    assert given.word == answer, given
    assert any(reason in one for one in given.reasons), given.reasons


def test_who_gives_no_answer_to_changed_copies_gets_no_yes():
    """A patch of the output that breaks on what it does not know would hide what copies show."""
    mute = replace(found(left(0.0)), recalled=Recalled(left(0.0), speechless=True))
    assert forgotten(SIGHT, mute) == Answer(
        "cannot tell", ("some answers to slightly changed copies are no numbers",)
    )
    known = replace(mute, recalled=replace(mute.recalled, images=left(1.0)))
    assert forgotten(SIGHT, known).word == "no"


def test_evidence_that_is_lacking_is_no_sign_of_having_forgotten():
    case = replace(found(left(0.0)), lacking=("probe_mia_loss_auc", "relearn_log"))
    answer = forgotten(SIGHT, case)
    assert answer.word == "cannot tell"
    assert answer.reasons == (
        "not measured for every seed: what a refitted last layer knows, how soon it learns the images again",
    )


def test_a_yes_needs_three_seeds():
    """Of two, half of every patient's images could be remembered whole, and the others sunk to make up for it."""
    two = made(seeds=2)
    pair = replace(SIGHT, scale=two, seeds=2)
    answer = forgotten(pair, found(left(0.0, two)))
    assert answer.word == "cannot tell" and "run at least 3" in answer.reasons[0]
    assert forgotten(pair, found(left(1.0, two))).word == "no"


def test_evidence_counts_for_a_single_patient_too():
    """Other patients are not asked about: what is random is the luck of trainings. Of several, they are drawn anew."""
    alone = replace(apart(0.3), patients=1, shared=math.nan)
    assert contrary({"mia_ulira_excess": alone}, False)
    assert not contrary({"mia_ulira_excess": replace(alone, value=0.3, spread=0.4)}, False)
    assert not contrary({"mia_ulira_excess": replace(alone, patients=2)}, False)  # it cannot be told


def test_a_yes_says_how_likely_a_single_patient_would_have_been_seen():
    """Luck .3 √(1/3 + 1/8) = .203; the test at 1 % / 12: t(.99917, 100) = 3.23; 1/.203 - 3.23 = 1.69: 95 %."""
    assert (
        forgotten(SIGHT, found(left(0.0))).reasons[-1]
        == "a patient remembered whole would show in 9 of 10 such runs"
    )


def test_more_patients_may_be_over_if_that_is_declared():
    lenient = replace(SIGHT, margins=Margins(patients_over=1))
    assert forgotten(lenient, found(left(one(1.0)))).word == "yes"
    assert forgotten(lenient, found(left(one(1.0, 1.0)))).word == "partly"


def test_a_mean_within_the_margin_but_not_surely_within_twice_of_it_is_open():
    vague = replace(SIGHT, scale=made(sd=1.5))
    answer = forgotten(vague, found(left(0.0, vague.scale)))
    assert (answer.word, len(answer.reasons)) == ("cannot tell", 1)
    assert "not surely less than 50 %" in answer.reasons[0]


def test_a_mean_beyond_the_margin_that_luck_might_explain_is_open():
    vague = replace(SIGHT, scale=made(sd=1.0))
    answer = forgotten(vague, found(left(0.3, vague.scale)))
    assert answer.word == "cannot tell"
    assert "which luck might explain" in answer.reasons[0]


@pytest.mark.parametrize(
    ("sight", "reason"),
    [
        (replace(SIGHT, seeds=1), "1 seed: one training tells nothing of luck"),
        (replace(SIGHT, scale=None), "no patient to forget has held-out images of the same hospital"),
        (replace(SIGHT, scale=made(known=0.05)), "the original shows no memory of these patients"),
    ],
)
def test_where_nothing_can_be_seen_nobody_can_tell(sight: Sight, reason: str):
    answer = forgotten(sight, found(left(0.0)))
    assert answer.word == "cannot tell"
    assert answer.reasons[0].startswith(reason)


def test_shadow_models_make_an_attack_count():
    case = {"mia_lira_auc": apart(0.2), "mia_rmia_auc": apart(0.2)}
    assert contrary(case, shadows=False) == ()
    assert len(contrary(case, shadows=True)) == 2


def test_evidence_must_be_beyond_its_margin_and_beyond_luck():
    assert contrary({"mia_ulira_excess": apart(0.05)}, False) == ()
    assert contrary({"mia_ulira_excess": apart(0.10, spread=0.2)}, False) == ()
    alone = replace(apart(0.10), leaving_out=(0.2, 0.1, 0.0))
    assert contrary({"mia_ulira_excess": alone}, False) == ()
    assert len(contrary({"mia_ulira_excess": apart(0.10)}, False)) == 1


@pytest.mark.parametrize(
    ("components", "answer", "reason"),
    [
        (GOOD, "yes", "on unseen images +0.000"),
        ((*GOOD, component(-0.3, "class=5", 0.10)), "worse", "class 5: -0.300"),
        ((*GOOD, component(-0.3, "site=west", 0.05)), "worse", "hospital west: -0.300"),
        ((component(-0.04), *GOOD[1:]), "cannot tell", "overall: -0.040"),
        (
            (*GOOD, component(0.0, "class=6", 0.10, patients=3)),
            "cannot tell",
            "3 test patients; 14 would tell",
        ),
        (
            (*GOOD, Component("class=7", None, 0.10, 0, 0)),
            "cannot tell",
            "class 7: 0 test images of 0 patients",
        ),
        ((*GOOD, component(-0.06, "sex=F", 0.05)), "yes", "+0.000"),  # not needed for a yes
        ((*GOOD, component(-0.3, "sex=F", 0.05)), "worse", "sex F"),
        ((), "cannot tell", None),
    ],
)
def test_useful(components: tuple[Component, ...], answer: str, reason: str | None):
    given = useful(replace(found(left(0.0)), components=components))
    assert given.word == answer
    assert given.reasons == () if reason is None else any(reason in one for one in given.reasons)


LOST = tuple(
    Diverged("some", "wild", seed, where)
    for seed, where in (
        (7, "at hospital north in round 2"),
        (8, "in its answers"),
        (9, "at hospital north in round 2"),
    )
)


def test_an_interval_ends_where_shares_do():
    """Two models of one seed each say so little that luck could be four times what accuracy can differ by."""
    (reason,) = useful(
        replace(found(None), components=(replace(GOOD[0], difference=apart(-0.2, spread=5.0)),))
    ).reasons
    assert "-0.200 (95 %: -1.000 to +1.000)" in reason


def by_report(memory: Memory) -> Findings:
    """Nothing is left in all answers together, and so much in those to the report."""
    return replace(found(left(0.0)), recalled=Recalled(left(0.0), None, {"beside": memory}))


@pytest.mark.parametrize(
    ("known", "word", "reason"),
    [
        (left(0.0), "yes", "0 % of the original's memory is left"),
        (left(0.2), "yes", "0 % of the original's memory is left"),
        (left(0.4), "partly", "40 % of the original's memory is left (95 %: "),
        (left(0.75), "no", "75 % of the original's memory is left (95 %: "),
        (left(-0.6), "too much", "known less than by retraining in answers to the report or table alone"),
        (left(one(1.0)), "partly", "1 of 12 patients (p-0 100 %) is still known in answers to the report"),
        (left(0.4, alone=True), "cannot tell", "but it rests on a single training"),
    ],
)
def test_what_is_known_by_the_report_alone_counts_by_itself(known: Memory, word: str, reason: str):
    answer = forgotten(SIGHT, by_report(known))
    assert answer.word == word
    assert reason in answer.reasons[0]
    assert ("in answers to the report or table alone" in answer.reasons[0]) == (word != "yes")


def test_a_model_that_diverged_is_worse_and_its_memory_unknown():
    first, second, sorted_by = judge(SIGHT, Findings(Recalled(), {}, (), LOST))
    assert (first.word, second.word, sorted_by) == ("cannot tell", "worse", "DAMAGED")
    assert second.reasons == (
        "diverged for seeds 7 and 9 at hospital north in round 2, for seed 8 in its answers: "
        "lower its learning rate, or set training.clip",
    )


@pytest.mark.parametrize(
    ("first", "second", "sorted_by"),
    [
        ("yes", "yes", "PASS"),
        ("yes", "worse", "DAMAGED"),
        ("yes", "cannot tell", "INCONCLUSIVE"),
        ("yes, but", "yes", "DISPUTED"),
        ("yes, but", "worse", "DAMAGED"),
        ("cannot tell", "yes", "INCONCLUSIVE"),
        ("cannot tell", "worse", "DAMAGED"),
        ("no", "worse", "DAMAGED"),
        ("no", "cannot tell", "UNDER"),
        ("partly", "yes", "UNDER"),
        ("too much", "yes", "OVER"),
    ],
)
def test_the_word_to_sort_by(first: str, second: str, sorted_by: str):
    """PASS only if both answers are yes; a model that is of less use comes first, whatever it remembers."""
    assert word(Answer(first), Answer(second)) == sorted_by

"""Every promise x every strategy. A new strategy costs one line, in `STRATEGIES`, and is checked for all of it.

The promises are in `fedunlearn/contract`, whose toy is three hospitals and a network that has learnt a third of its
labels by heart.
Hyper-parameters in the list suit that toy (a shallow network, a third of the data leaving); a promise that a method
cannot keep is excused in the list, with the reason, and never inside a test.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import strategies
from fedunlearn.contract import PROMISES, Promise
from fedunlearn.core import Recovery, Strategy
from strategies.bad_teacher import BadTeacher
from strategies.boundary_shrink import BoundaryShrink
from strategies.cf_k import CFk
from strategies.conda import ConDa
from strategies.crab import Crab
from strategies.eu_k import EUk
from strategies.fast_fedul import FastFedUL
from strategies.fats import FATS
from strategies.fcu import FCU
from strategies.fedau import FedAU
from strategies.federaser import FedEraser
from strategies.fedmemprune import FedMemPrune
from strategies.fedosd import FedOSD
from strategies.fedquit import FedQUIT
from strategies.fedrecover import FedRecover
from strategies.fedrecovery import FedRecovery
from strategies.fine_tune import FineTune
from strategies.forget_mi import ForgetMI
from strategies.fused import FUSED
from strategies.gradient_ascent import GradientAscent
from strategies.held_out_target import HeldOutTarget
from strategies.influence import Influence
from strategies.information_reset import InformationReset
from strategies.l1_sparse import L1Sparse
from strategies.lora_student import LoRAStudent
from strategies.lotus import LoTUS
from strategies.maverick import Maverick
from strategies.max_loss import MaxLoss
from strategies.mode import MoDe
from strategies.multi_delete import MultiDelete
from strategies.negation import Negation
from strategies.neggrad_plus import NegGradPlus
from strategies.noise_encoder import NoiseEncoder
from strategies.noise_images import NoiseImages
from strategies.noisy_label import NoisyLabel
from strategies.pga import PGA
from strategies.puf import PUF
from strategies.quickdrop import QuickDrop
from strategies.random_encoder import RandomEncoder
from strategies.random_label import RandomLabel
from strategies.rapid_retrain import RapidRetrain
from strategies.reset_encoder import ResetEncoder
from strategies.retain_label import RetainLabel
from strategies.retrain import Retrain
from strategies.retrain_short import RetrainShort
from strategies.rollback import Rollback
from strategies.salun import SalUn
from strategies.salun_cra import SalUnCRA
from strategies.scrub import SCRUB
from strategies.sharded import Sharded
from strategies.sifu import SIFU
from strategies.ssd import SSD
from strategies.wu_distillation import WuDistillation


@dataclass(frozen=True)
class Excused:
    """A strategy, and the promises (tests, by name) that its nature does not let it keep, each with the reason."""

    strategy: Strategy
    reasons: Mapping[str, str] = field(default_factory=dict)


ON_THE_SERVER = dict.fromkeys(
    (
        "test_tasks_cross_the_wire",
        "test_a_silent_hospital_is_an_error",
        "test_closing_it_midway_leaves_nothing_behind",
    ),
    "it is done on the server in one go and asks no hospital",
)

SUBTRACTED = {
    **ON_THE_SERVER,
    "test_nearer_to_the_retrained_model_than_the_original": "subtraction alone forgets too much: hence distillation",
}

AT_LEAST = {
    "test_what_it_has_in_hand_is_what_it_would_have_come_to": "its rounds of recovery are a minimum, not their number"
}

HEADS = {
    "test_sums_are_enough_unless_each_reply_is_declared": "the server sees each hospital's own head while training; "
    "unlearning only mixes one in"
}

IMAGES = {
    "test_sums_are_enough_unless_each_reply_is_declared": "the server sees each hospital's synthetic images while "
    "training; unlearning needs sums only"
}

STRATEGIES: list[Strategy | Excused] = [
    Retrain(),
    FineTune(),
    Negation(recovery=Recovery(6)),
    PUF(),
    PUF(round="regular", eta=5.0),
    FedEraser(r=1.0),
    FedEraser(every=1, r=1.0, norm="model"),
    RandomLabel(),
    SalUn(),
    GradientAscent(),
    NegGradPlus(),
    SCRUB(),
    SCRUB(lr=5e-3, rewind=True, recovery=Recovery(0)),
    SSD(recovery=Recovery(2)),  # dampening alone takes too much of a toy where a third leaves
    BadTeacher(),
    Excused(
        L1Sparse(),
        {
            "test_what_it_has_in_hand_is_what_it_would_have_come_to": "its penalty fades over all of its rounds, "
            "so that fewer of them take another course"
        },
    ),
    FedQUIT(),
    FedQUIT(v="entropy"),
    Rollback(),
    Rollback(every=1),
    PGA(),
    FedOSD(rounds=5, lr=0.5),
    Excused(FedRecovery(), ON_THE_SERVER),
    FedRecovery(recovery=Recovery(1)),
    Excused(ConDa(), ON_THE_SERVER),
    ConDa(recovery=Recovery(1)),
    Crab(r=1.0),
    FedMemPrune(),
    Sharded(shards=3),
    FATS(rate=0.6),
    WuDistillation(),
    Excused(WuDistillation(epochs=0), SUBTRACTED),
    WuDistillation(epochs=5, recovery=Recovery(1)),
    Excused(SIFU(), AT_LEAST),
    Excused(SIFU(epsilon=100.0), AT_LEAST),  # a restart after half of the toy's rounds
    MoDe(),
    BoundaryShrink(),
    LoTUS(),
    HeldOutTarget(),
    HeldOutTarget(target="mean", recovery=Recovery(1)),
    Influence(),
    RapidRetrain(share=1.0, lr=0.1),
    FCU(),
    Maverick(lr=None, recovery=Recovery(1)),
    Maverick(against="itself", lr=None, recovery=Recovery(1)),
    NoisyLabel(),
    NoisyLabel(noise="uniform"),
    RetainLabel(),
    RetainLabel(target="retained_labels", fix_decoder=True),
    MaxLoss(),
    RandomEncoder(),
    NoiseEncoder(),
    ResetEncoder(),
    CFk(),
    EUk(),
    NoiseImages(),
    Excused(FastFedUL(alpha=0.5), ON_THE_SERVER),
    FastFedUL(form="paper", recovery=Recovery(1)),
    Excused(
        FedRecover(),
        {
            "test_sums_are_enough_unless_each_reply_is_declared": "after the toy's many steps of Adam every estimate "
            "is abnormal, so that everyone is asked in every round, and retraining needs sums only"
        },
    ),
    Excused(FedAU(alpha=0.3), {**ON_THE_SERVER, **HEADS}),
    Excused(FedAU(recovery=Recovery(1)), HEADS),
    Excused(QuickDrop(scale=0.2), IMAGES),
    InformationReset(recovery=Recovery(4)),
    InformationReset(by="information", fraction=0.6, recovery=Recovery(2)),
    SalUnCRA(),
    SalUnCRA(malignant=(1,)),
    FUSED(layers=1, rank=4),
    FUSED(rounds=3),
    RetrainShort(),
    RetrainShort(share=1.0),
    Excused(ConDa(contribution="updates", cutoff=0.25), ON_THE_SERVER),
    LoRAStudent(local_epochs=6, lr=0.03, recovery=Recovery(2)),
    ForgetMI(noise_std=1.0, epochs=10, lr=1e-2),
    MultiDelete(md=0.5, ukr=0.0, lr=5e-3, recovery=Recovery(2)),
    MultiDelete(lr=5e-3, recovery=Recovery(1)),
    ForgetMI(direction="away", margin=1.0, lr=5e-3, retention="hinge", recovery=Recovery(1)),
]

ENTRIES = [entry if isinstance(entry, Excused) else Excused(entry) for entry in STRATEGIES]


def promised(promise: Promise) -> Callable[..., None]:
    """A test that every strategy keeps ``promise``, for each granularity that it claims and in each variant.

    A strategy's first line in the list is tried by default, in one of all ways that there are, strategies in turn; all
    other ways, its other settings and thorough promises are tried by the gate.
    """
    params, tried = list[Any](), set[str]()
    for number, entry in enumerate(ENTRIES):
        strategy, name = entry.strategy, f"{entry.strategy.name}-{number}"
        reasons = [reason for what, reason in entry.reasons.items() if what == f"test_{promise.name}"]
        marks = [pytest.mark.skip(reason=reason) for reason in reasons]
        marks += [pytest.mark.gate] if promise.thorough or strategy.name in tried else []
        tried.add(strategy.name)
        ways = list(promise.arguments(strategy))
        for way, arguments in enumerate(ways):
            further = [] if way == len(tried) % len(ways) else [pytest.mark.further]
            params.append(
                pytest.param(strategy, arguments, id="-".join((name, *arguments)), marks=marks + further)
            )

    @pytest.mark.parametrize(("strategy", "arguments"), params)
    def test(strategy: Strategy, arguments: tuple[str, ...]) -> None:
        promise.check(strategy, *arguments)

    return pytest.mark.rounding(test) if promise.rounding else test


globals().update({f"test_{promise.name}": promised(promise) for promise in PROMISES})


def missing(catalogue: Mapping[str, type[Strategy]], listed: Iterable[Strategy]) -> list[str]:
    """What to type for every strategy that has no line in `STRATEGIES`."""
    names = {strategy.name for strategy in listed}
    return [
        f"strategies/{name}.py is not checked: in tests/test_contract.py type 'from strategies.{name} import "
        f"{cls.__name__}' at the top and the line '    {cls.__name__}(),' in STRATEGIES"
        for name, cls in catalogue.items()
        if name not in names
    ]


def test_every_strategy_is_listed() -> None:
    forgotten = missing(strategies.catalogue(), [entry.strategy for entry in ENTRIES])
    assert not forgotten, "\n".join(forgotten)


def test_a_forgotten_strategy_is_told_what_to_type() -> None:
    (text,) = missing({"retrain": Retrain, "puf": PUF}, [Retrain()])
    assert "from strategies.puf import PUF" in text
    assert "'    PUF(),' in STRATEGIES" in text


def test_the_documentation_lists_every_strategy_once() -> None:
    page = Path(strategies.__file__).parents[1] / "docs" / "how-to" / "strategies.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    rows = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert sorted(row for row in rows if row in strategies.catalogue()) == list(strategies.catalogue())


def test_excuses_name_promises_and_give_reasons() -> None:
    known = {f"test_{promise.name}" for promise in PROMISES}
    for entry in ENTRIES:
        for name, reason in entry.reasons.items():
            assert name in known, f"{entry.strategy.name} is excused from {name}, which is no promise"
            assert len(reason) > 20, f"{entry.strategy.name} is excused from {name} without a reason"


@pytest.mark.gate
def test_strategies_load_no_engine_and_no_medical_library() -> None:
    code = (
        "import sys, strategies; assert not [m for m in sys.modules if m.startswith('strategies.')];"
        "dict(strategies.catalogue()); print([m for m in ('flwr', 'ray', 'monai', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert found.stdout.strip() == "[]"

"""Every promise x every strategy. A new strategy costs one line, in `STRATEGIES`, and is checked for all of it.

The toy of `tests/toy.py` is three hospitals and a network that has learnt a third of its labels by heart.
Hyper-parameters in the list suit that toy (a shallow network, a third of the data leaving); a promise that a method
cannot keep is excused in the list, with the reason, and never inside a test.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import random
import subprocess
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import annotated_types
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

import strategies
from fedunlearn import weights as w
from fedunlearn.core import (
    SERVER,
    Asks,
    Every,
    FedunlearnError,
    Granularity,
    Guarantee,
    Leaver,
    Preparing,
    Recovery,
    Replies,
    Reply,
    RequestId,
    Search,
    SiteError,
    Strategy,
    Task,
    Weights,
)
from fedunlearn.federation import wire
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Ask
from fedunlearn.federation.horizons import Horizons
from fedunlearn.federation.jobs import Divergence, Job, Label, Round
from fedunlearn.federation.ledger import Ledger
from fedunlearn.scenario.space import replaced, space
from strategies.bad_teacher import BadTeacher
from strategies.boundary_shrink import BoundaryShrink
from strategies.conda import ConDa
from strategies.crab import Crab
from strategies.fats import FATS
from strategies.fcu import FCU
from strategies.federaser import FedEraser
from strategies.fedmemprune import FedMemPrune
from strategies.fedosd import FedOSD
from strategies.fedquit import FedQUIT
from strategies.fedrecovery import FedRecovery
from strategies.fine_tune import FineTune
from strategies.fix_decoder import FixDecoder
from strategies.gradient_ascent import GradientAscent
from strategies.held_out_target import HeldOutTarget
from strategies.influence import Influence
from strategies.l1_sparse import L1Sparse
from strategies.learn_noise import LearnNoise
from strategies.learn_others import LearnOthers
from strategies.lotus import LoTUS
from strategies.maverick import Maverick
from strategies.max_loss import MaxLoss
from strategies.mode import MoDe
from strategies.negation import Negation
from strategies.neggrad_plus import NegGradPlus
from strategies.noisy_label import NoisyLabel
from strategies.pga import PGA
from strategies.puf import PUF
from strategies.random_encoder import RandomEncoder
from strategies.random_label import RandomLabel
from strategies.rapid_retrain import RapidRetrain
from strategies.retain_label import RetainLabel
from strategies.retrain import Retrain
from strategies.rollback import Rollback
from strategies.salun import SalUn
from strategies.scrub import SCRUB
from strategies.sharded import Sharded
from strategies.sifu import SIFU
from strategies.ssd import SSD
from strategies.wu_distillation import WuDistillation
from tests import toy


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
    SSD(recovery=Recovery(1)),  # dampening alone takes too much of a toy where a third leaves
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
    Maverick(recovery=Recovery(1)),
    Maverick(against="itself", recovery=Recovery(1)),
    NoisyLabel(),
    NoisyLabel(noise="uniform"),
    RetainLabel(),
    MaxLoss(),
    LearnNoise(),
    LearnOthers(),
    RandomEncoder(),
    FixDecoder(),
]

ENTRIES = [entry if isinstance(entry, Excused) else Excused(entry) for entry in STRATEGIES]
WISHES: list[RequestId] = ["patients", "site"]
Test = Callable[..., None]


def promise(test: Test) -> Test:
    """Run ``test`` for every strategy and, if it takes a ``wish``, for each granularity the strategy claims."""
    params: list[Any] = []
    for number, entry in enumerate(ENTRIES):
        strategy, name = entry.strategy, f"{entry.strategy.name}-{number}"
        marks = [
            pytest.mark.skip(reason=reason) for what, reason in entry.reasons.items() if what == test.__name__
        ]
        if "wish" not in inspect.signature(test).parameters:
            params.append(pytest.param(strategy, id=name, marks=marks))
            continue
        for wish in WISHES:
            if toy.REQUESTS[wish] in strategy.granularity:
                params.append(pytest.param(strategy, wish, id=f"{name}-{wish}", marks=marks))
    names = "strategy,wish" if "wish" in inspect.signature(test).parameters else "strategy"
    return pytest.mark.parametrize(names, params)(test)


# --------------------------------------------------------------------------------------------- its form


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


def test_the_readme_lists_every_strategy_once() -> None:
    readme = (Path(strategies.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")]
    assert sorted(row for row in rows if row in strategies.catalogue()) == list(strategies.catalogue())


def test_excuses_name_promises_and_give_reasons() -> None:
    for entry in ENTRIES:
        for name, reason in entry.reasons.items():
            assert name in globals(), f"{entry.strategy.name} is excused from {name}, which is no promise"
            assert len(reason) > 20, f"{entry.strategy.name} is excused from {name} without a reason"


@promise
def test_frozen_hashable_and_constructible(strategy: Strategy) -> None:
    cls: Any = type(strategy)
    assert cls.__dataclass_params__.frozen
    assert cls() == cls()
    assert hash(strategy) == hash(replace(strategy))  # type: ignore[type-var]
    with pytest.raises(dataclasses.FrozenInstanceError):
        strategy.name = "other"  # type: ignore[misc]


@promise
def test_the_file_is_named_as_the_strategy(strategy: Strategy) -> None:
    assert type(strategy).__module__ == f"strategies.{strategy.name}"
    assert strategies.catalogue()[strategy.name] is type(strategy)


@promise
def test_the_constructor_only_stores(strategy: Strategy) -> None:
    cls = type(strategy)
    assert cls.__init__.__code__.co_filename == "<string>", "write no __init__: the dataclass makes it"
    assert not hasattr(cls, "__post_init__"), "check ranges in the annotations, which the scenario reads"
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        assert getattr(strategy, f.name) is strategy.__dict__[f.name]


@promise
def test_yaml_round_trip(strategy: Strategy) -> None:
    plain = json.loads(json.dumps(dataclasses.asdict(strategy)))  # type: ignore[call-overload]
    assert TypeAdapter[Any](type(strategy)).validate_python(plain) == strategy


@promise
def test_every_number_has_a_range_that_is_kept(strategy: Strategy) -> None:
    adapter = TypeAdapter[Any](type(strategy))
    for name, hint in get_type_hints(type(strategy), include_extras=True).items():
        for part in get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]:
            if part in (int, float):
                pytest.fail(f"{name} has no range: Annotated[{part.__name__}, Ge(…)]")
            for rule in getattr(part, "__metadata__", ()):
                if isinstance(rule, Search):
                    continue
                bad = {annotated_types.Gt: "gt", annotated_types.Ge: "ge", annotated_types.Le: "le"}[
                    type(rule)
                ]
                value = getattr(rule, bad) + {"gt": 0, "ge": -1, "le": 1}[bad]
                with pytest.raises(ValidationError):
                    adapter.validate_python({name: value})


@promise
def test_what_tune_searches_lies_in_the_range(strategy: Strategy) -> None:
    adapter = TypeAdapter[Any](type(strategy))
    for name, dimension in space(type(strategy)).items():
        low, high = dimension.search.low, dimension.search.high
        assert dimension.choices or (low is not None and high is not None and low < high)
        for value in dimension.choices or (low, high):
            changed = replaced(type(strategy)(), name, value)
            assert adapter.validate_python(dataclasses.asdict(changed)) == changed  # type: ignore[call-overload]
            assert stored(changed) == stored(type(strategy)()), (
                "the tuner cannot change what training must keep"
            )


def stored(strategy: Strategy) -> tuple[object, ...]:
    """What the server has to keep of training."""
    needs = strategy.needs
    return needs.updates, needs.cumulative, needs.checkpoints


@promise
def test_documented(strategy: Strategy) -> None:
    doc = inspect.getdoc(type(strategy)) or ""
    assert doc.partition("\n")[0].endswith("."), "the first line is a sentence"
    for section in ("Reference:", "Deviations:"):
        assert f"\n{section}\n" in doc, f"no section {section}"
    assert "arXiv" in doc
    for f in dataclasses.fields(type(strategy)):  # type: ignore[arg-type]
        assert f.name == "name" or f"\n    {f.name}: " in doc, f"{f.name} is not described under Attributes"


@promise
def test_the_file_is_short_and_imports_only_what_it_may(strategy: Strategy) -> None:
    text = Path(inspect.getfile(type(strategy))).read_text(encoding="utf-8")
    imports = [node for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = len(text.splitlines()) - sum((node.end_lineno or 0) - node.lineno + 1 for node in imports)
    assert lines <= 115, f"{lines} lines beside the imports: move what others could use to fedunlearn"
    shared = {
        f"learning.{module}" for module in ["tasks", "objectives", "constraints", "local", "kinds", "models"]
    }
    own = {f"fedunlearn.{module}" for module in ("core", "weights", "federation.procedures", *shared)}
    rooms = ("fedunlearn", "fedunlearn.federation", "fedunlearn.learning")
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{a.name}" for a in node.names] if module in rooms else [module]
        for name in names:
            top = name.partition(".")[0]
            allowed = name in own or top in ("torch", "annotated_types") or top in sys.stdlib_module_names
            assert allowed, f"a strategy may not import {name}"


@promise
def test_claims_a_granularity(strategy: Strategy) -> None:
    assert strategy.granularity
    assert strategy.granularity <= frozenset(Granularity)


# ------------------------------------------------------------------------------------------ its result


@pytest.mark.rounding
@promise
def test_names_shapes_dtypes_and_finite(strategy: Strategy, wish: RequestId) -> None:
    result, original = toy.outcome(strategy, wish).weights, toy.case(wish).original
    assert w.first_difference(original, result) is None
    assert w.first_nonfinite(result) is None


@pytest.mark.rounding
@promise
def test_batch_norm_stays_valid(strategy: Strategy) -> None:
    wish = "site" if Granularity.SITE in strategy.granularity else "patients"
    result = toy.outcome(strategy, wish, norm=True).weights
    assert w.first_difference(toy.case(wish, norm=True).original, result) is None
    assert w.first_nonfinite(result) is None
    assert bool((result["1.running_var"] > 0).all()), "a variance became negative"


@promise
def test_a_hospital_may_be_left_with_nothing(strategy: Strategy) -> None:
    if Granularity.PATIENTS in strategy.granularity:
        result = toy.outcome(strategy, "everyone").weights
        assert w.first_nonfinite(result) is None
        assert w.first_difference(toy.case("everyone").original, result) is None


@dataclass(frozen=True)
class Again:
    """A second run, whose values cross no wire and whose replies come in another order, under a global RNG of its own.

    Attributes:
        result: the unlearned weights.
        tasks: everything that was asked.
        counted: passes of images through a network, as the ledger has them.
        seen: the same, as the network saw them.
        disturbed: which of the things that must stay as they were did not.
    """

    result: Weights
    tasks: tuple[Task, ...]
    counted: int
    seen: int
    disturbed: tuple[str, ...]


@toy.once
def again(strategy: Strategy, wish: RequestId) -> Again:
    case = toy.case(wish, strategy=strategy)
    tasks, ledger = list[Task](), Ledger()

    class Watch(toy.Asked):
        def round(self, round: Round) -> None:
            tasks.extend(round.asks.values())
            ledger.round(round)

    def state() -> dict[str, object]:
        _, _, memory = toy.trained()
        return {
            "torch's RNG": torch.get_rng_state().tolist(),
            "numpy's RNG": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
            "python's RNG": random.getstate(),
            "the initial weights": w.digest(case.initial),
            "the original weights": w.digest(case.original),
            "the history": [w.digest(x) for x in (*memory.got.values(), *memory.sent.values())],
            "its own training": [w.digest(x) for x in toy.prepared(strategy).values()],
        }

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before = state()
        link = toy.ToyLink(across=False, scramble=3)
        with toy.counting() as seen:
            result = toy.run(strategy.unlearn(case), link, [Watch(toy.Log())])
        after = state()
    disturbed = tuple(what for what in before if before[what] != after[what])
    return Again(result, tuple(tasks), int(ledger.table()["images"].sum()), sum(seen), disturbed)


@pytest.mark.rounding
@promise
def test_same_seed_same_bits(strategy: Strategy, wish: RequestId) -> None:
    assert w.digest(again(strategy, wish).result) == w.digest(toy.outcome(strategy, wish).weights)


@promise
def test_inputs_and_global_rngs_stay_as_they_were(strategy: Strategy, wish: RequestId) -> None:
    assert again(strategy, wish).disturbed == ()


@promise
def test_every_pass_through_a_network_is_counted(strategy: Strategy, wish: RequestId) -> None:
    """Teachers', losses' and errors' too: whatever a hospital or the server shows a network, as often as it does."""
    found = again(strategy, wish)
    assert found.counted == found.seen
    assert (found.seen > 0) == bool(found.tasks)


@pytest.mark.rounding
@promise
def test_order_of_hospitals_does_not_matter(strategy: Strategy, wish: RequestId) -> None:
    """To within what float sums in another order do to the chances given to the forgotten labels."""
    case = toy.case(wish, strategy=strategy)
    turned = replace(case, sites=case.sites[::-1], holders=case.holders[::-1])
    result = toy.run(strategy.unlearn(turned))
    difference = toy.chances(result, wish) - toy.chances(toy.outcome(strategy, wish).weights, wish)
    assert difference.abs().mean() < 0.01


@pytest.mark.rounding
@promise
def test_exact_means_equal_to_retraining(strategy: Strategy, wish: RequestId) -> None:
    """Retraining in the strategy's own way, if it has one."""
    if strategy.guarantee is Guarantee.EXACT:
        expected = toy.retrained(wish, strategy=strategy)
        assert w.digest(toy.outcome(strategy, wish).weights) == w.digest(expected)


@pytest.mark.rounding
@promise
def test_nearer_to_the_retrained_model_than_the_original(strategy: Strategy, wish: RequestId) -> None:
    """By the chance given to the label of each image to forget: mean distance over images and two seeds."""
    unlearned, original = 0.0, 0.0
    for seed in (7, 8):
        target = toy.chances(toy.retrained(wish, seed), wish)
        unlearned += float(
            (toy.chances(toy.outcome(strategy, wish, seed).weights, wish) - target).abs().mean()
        )
        original += float((toy.chances(toy.case(wish, seed).original, wish) - target).abs().mean())
    assert unlearned < original


@promise
def test_if_it_diverges_it_does_so_without_an_error(strategy: Strategy, wish: RequestId) -> None:
    """At a learning rate that overflows float32 in two layers; a method may stay finite (a ball, a rewind)."""
    case, ends = toy.case(wish, strategy=strategy), list[str]()
    wild = replace(case, training=replace(case.training, local=replace(case.training.local, lr=1e30)))

    def finite(result: Weights) -> list[Job[Any]]:
        ends.append("finite")
        return []

    def diverged(found: Divergence) -> list[Job[Any]]:
        ends.append(str(found))
        return []

    drive([Job(toy.LABEL, strategy.unlearn(wild), finite, diverged)], toy.ToyLink())
    if hasattr(strategy, "lr"):
        own: Strategy = replace(strategy, lr=1e30)  # type: ignore[type-var]
        drive([Job(toy.LABEL, own.unlearn(case), finite, diverged)], toy.ToyLink())
    assert len(ends) == 1 + hasattr(strategy, "lr")


@promise
def test_works_in_the_middle_of_training(strategy: Strategy, wish: RequestId) -> None:
    """After one round of four: what is still to come is not there to be used."""
    case = toy.case(wish, rounds=1, strategy=strategy)
    result = toy.run(strategy.unlearn(case))
    assert w.first_difference(case.original, result) is None


# ------------------------------------------------------------------------------------------- its needs


@promise
def test_declared_is_used(strategy: Strategy, wish: RequestId) -> None:
    case, log, needs = toy.case(wish), toy.outcome(strategy, wish).log, strategy.needs
    for declared, rounds in (
        (needs.updates, {t for t, _ in log.updates}),
        (needs.checkpoints, log.checkpoints),
    ):
        assert bool(declared) == bool(rounds)
        assert all(t in (declared or Every(1)) for t in rounds)
    assert needs.cumulative == bool(log.cumulative)
    assert needs.preparation == bool(log.prepared) == isinstance(strategy, Preparing)
    assert (needs.proxy_examples > 0) == (SERVER in {site for site, _ in log.asked})
    assert len(log.rows.get(SERVER, ())) >= needs.proxy_examples
    parts = [(site, case.forget) for site in toy.SITES] + [(SERVER, replace(case.forget, split="proxy"))]
    forgotten = {row for site, select in parts for row in toy.select(site, select).rows.tolist()}
    used = set().union(*log.rows.values())
    assert (needs.leaver is Leaver.ONLINE) == bool(forgotten & used)
    if wish == "site":
        assert needs.stayers == any(site in case.sites for site, _ in log.asked)


@promise
def test_never_asks_a_leaving_site_unless_declared(strategy: Strategy, wish: RequestId) -> None:
    case, log = toy.case(wish), toy.outcome(strategy, wish).log
    allowed = {*case.sites, *(case.holders if strategy.needs.leaver is Leaver.ONLINE else ())}
    if strategy.needs.proxy_examples:
        allowed.add(SERVER)
    assert {site for site, _ in log.asked} <= allowed


@pytest.mark.rounding
@promise
def test_sums_are_enough_unless_each_reply_is_declared(strategy: Strategy, wish: RequestId) -> None:
    """Secure aggregation shows the server the average of a round only: here every reply is replaced by it."""

    def summed(asks: Asks) -> Replies:
        if isinstance(asks, ChainMap):  # rounds of procedures that run together: one average for each
            return {site: reply for one in asks.maps for site, reply in summed(one).items()}
        replies = {site: toy.answer(task, site) for site, task in asks.items()}
        counts = [reply.count for reply in replies.values()]
        if not sum(counts):
            return replies
        states = [reply.weights for reply in replies.values() if reply.weights is not None]
        common = w.average(states, counts) if states else None
        arrays = w.average([reply.arrays for reply in replies.values()], counts)
        return {site: Reply(common, reply.count, arrays) for site, reply in replies.items()}

    result = toy.by_hand(strategy.unlearn(toy.case(wish, strategy=strategy)), summed)
    difference = (toy.chances(result, wish) - toy.chances(toy.outcome(strategy, wish).weights, wish)).abs()
    if strategy.needs.each_reply:
        assert difference.mean() > 1e-4
    else:
        assert difference.mean() < 0.01


# --------------------------------------------------------------------------------------- on the wire


@promise
def test_tasks_cross_the_wire(strategy: Strategy, wish: RequestId) -> None:
    """Packed again after unpacking, every task of a run is the same text and the same arrays."""
    tasks = again(strategy, wish).tasks
    assert tasks
    for task in tasks:
        text, arrays = wire.pack(task)
        copy = wire.unpack(text, arrays)
        repeated, others = wire.pack(copy)
        assert type(copy) is type(task)
        assert repeated == text
        assert w.digest(others) == w.digest(arrays)


def _raise(reply: Reply) -> Reply:
    raise OSError("disk full")


def _nan(reply: Reply) -> Reply:
    spoil = {name: x * float("nan") for name, x in (reply.weights or reply.arrays).items()}
    return replace(reply, weights=spoil) if reply.weights else replace(reply, arrays=spoil)


FAULTS: dict[str, Callable[[Reply], Reply]] = {
    "raises": _raise,
    "nan": _nan,
    "nothing": lambda reply: Reply(None, reply.count),
}


@pytest.mark.parametrize("fault", FAULTS)
@promise
def test_a_silent_hospital_is_an_error(strategy: Strategy, wish: RequestId, fault: str) -> None:
    """The last hospital of the first round fails."""
    first = [site for site, number in toy.outcome(strategy, wish).log.asked if number == 0]

    def spoil(ask: Ask, reply: Reply) -> Reply:
        return FAULTS[fault](reply) if ask.site == first[-1] else reply

    with pytest.raises(FedunlearnError) as caught:
        toy.run(strategy.unlearn(toy.case(wish, strategy=strategy)), toy.ToyLink(fault=spoil))
    if fault != "nothing":  # only the procedure knows that it needed what is missing
        assert isinstance(caught.value, SiteError)
        assert (caught.value.site, caught.value.round) == (first[-1], 0)


@promise
def test_what_it_has_in_hand_is_what_it_would_have_come_to(strategy: Strategy, wish: RequestId) -> None:
    """Before its last round: what one round less comes to, of recovery if it has that (`federation.horizons`)."""
    held, case = dict[int, Weights](), toy.case(wish, strategy=strategy)

    def reached(label: Label, horizon: int, done: int, model: Weights | None) -> None:
        assert model is not None
        held[done] = model

    watcher = Horizons(range(200), reached)
    toy.run(strategy.unlearn(case), watchers=[watcher])
    for model in held.values():
        assert w.first_difference(model, case.original) is None
    settings = dataclasses.asdict(strategy)  # type: ignore[call-overload]
    recovery, rounds = settings.get("recovery", {}).get("rounds", 0), settings.get("rounds", 0)
    if recovery or rounds:
        name = "recovery.rounds" if recovery else "rounds"
        less = replaced(strategy, name, (recovery or rounds) - 1)
        assert w.digest(held[max(held)]) == w.digest(toy.outcome(less, wish).weights)


@promise
def test_closing_it_midway_leaves_nothing_behind(strategy: Strategy, wish: RequestId) -> None:
    case = toy.case(wish, strategy=strategy)
    state, before = torch.get_rng_state(), w.digest(case.original)
    procedure = strategy.unlearn(case)
    assert inspect.isgenerator(procedure), (
        "unlearn must be a generator: nothing may happen before it is driven"
    )
    assert next(procedure)
    procedure.close()
    assert procedure.gi_frame is None
    assert torch.equal(torch.get_rng_state(), state)
    assert w.digest(case.original) == before


def test_strategies_load_no_engine_and_no_medical_library() -> None:
    code = (
        "import sys, strategies; assert not [m for m in sys.modules if m.startswith('strategies.')];"
        "strategies.catalogue(); print([m for m in ('flwr', 'ray', 'monai', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""Every task of every strategy on the pretend GPU, in the process of `test_pretend.py`, which is this file's own.

Nothing may be mixed, no reply may be left on the device, and the bits must be those that the CPU comes to.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.contract.cases import case
from fedunlearn.contract.hospitals import by_hand
from fedunlearn.contract.kinds import shortened
from fedunlearn.contract.promise import WISHES
from fedunlearn.core import (
    SERVER,
    Asks,
    Batch,
    Case,
    Form,
    Granularity,
    Images,
    LocalTraining,
    Precision,
    Replies,
    Reply,
    Select,
    SiteId,
    Strategy,
    Task,
    Weights,
)
from fedunlearn.federation.engines import Ask
from fedunlearn.federation.engines.work import perform
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.kinds.segmentation import learnt as segmented
from fedunlearn.learning import devices, kernels, kinds, mechanics, tasks
from fedunlearn.learning.constraints import Ball
from fedunlearn.learning.local import fit
from fedunlearn.learning.models import Model, Network, ResNet18, SmallCNN, initial_weights
from fedunlearn.learning.models.volumes import Med3D, UNet3D
from fedunlearn.learning.objectives import Noise
from sites.hospital import Federation
from tests import toy, toy_volumes
from tests.pretend import Mixed, Pretend, Refused, There, device
from tests.test_contract import ENTRIES

THERE, HERE = "pretend", "cpu"


def quick(strategy: Any) -> Any:
    """As few rounds, and epochs in each, as show all that a strategy does."""
    brief: Any = shortened(strategy)
    return replace(brief, local_epochs=1) if getattr(brief, "local_epochs", None) else brief


FIRST: dict[str, Strategy] = {entry.strategy.name: quick(entry.strategy) for entry in reversed(ENTRIES)}
ON_IMAGES = [
    (strategy, wish)
    for strategy in FIRST.values()
    for wish, kind in WISHES.items()
    if kind in strategy.granularity
]
IN_BFLOAT16 = [
    FIRST[n]
    for n in ("fine_tune", "salun", "neggrad_plus", "scrub", "lotus", "noise_encoder", "noise_images")
]
ON_VOLUMES = [strategy for strategy in FIRST.values() if not strategy.needs.class_labels]


@dataclass(frozen=True)
class Clinic:
    """`fedunlearn.core.Local` of one of the toys, on a device."""

    site: SiteId
    network: Network
    classes: int
    select: Callable[[SiteId, Select], Images]

    def images(self, wanted: Select) -> Images:
        return there(self.select(self.site, wanted), self.network.device)


def there(images: Images, where: torch.device) -> Images:
    pixels, targets, rows = (x.to(where) for x in (images.pixels, images.targets, images.rows))
    return Images(pixels, targets, rows)


@cache
def network(kind: str, where: str) -> Network:
    """The toys' networks, on a device."""
    with torch.random.fork_rng(devices=[]):
        if kind == "volumes":
            return Network(UNet3D(), Form(toy_volumes.SHAPE, toy_volumes.CLASSES), where)
        return Network(toy.ToyNet(), Form(toy.SHAPE, toy.CLASSES), where)


def clinic(site: SiteId, kind: str, where: str) -> Clinic:
    known = toy_volumes if kind == "volumes" else toy
    return Clinic(site, network(kind, where), known.CLASSES, known.select)


def asked(kind: str, where: str, tried: set[type]) -> Callable[[Asks], Replies]:
    """What a toy's hospitals reply from a device; what kinds of task they were is added to ``tried``."""

    def answer(asks: Asks) -> Replies:
        return {site: _answered(site, task) for site, task in asks.items()}

    def _answered(site: SiteId, task: Task) -> Reply:
        tried.update(_types(task))
        reply = task(clinic(site, kind, where))
        left = [name for name, x in {**(reply.weights or {}), **reply.arrays}.items() if isinstance(x, There)]
        assert not left, f"{type(task).__name__} replies {left} on the device: use .cpu()"
        return reply

    return answer


def _types(task: Any) -> Iterator[type]:
    """Of a task, and of one that it holds."""
    yield type(task)
    for field in dataclasses.fields(task):
        if callable(inner := getattr(task, field.name)) and dataclasses.is_dataclass(inner):
            yield from _types(inner)


@pytest.fixture(scope="module")
def tried() -> set[type]:
    """The kinds of task that ran there so far."""
    return set()


@pytest.fixture(autouse=True)
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    """What a CPU alone has rounds otherwise, so here it does without; `tests/learning/test_kernels.py` compares."""
    monkeypatch.setattr(kernels, "suits", lambda input: False)
    for module in (kinds, segmented):
        monkeypatch.setattr(module, "on_cpu", lambda values: False)
    with Pretend() as mode:
        yield mode


def brief(strategy: Strategy, wish: str, precision: Precision = "float32") -> Case:
    """The toy's case, each training of which is one epoch of one step; on volumes there are more."""
    its_case = shorter(case(wish, strategy=strategy), precision)
    local = replace(its_case.training.local, batch_size=24)
    return replace(its_case, training=replace(its_case.training, local=local))


def shorter(its_case: Case, precision: Precision = "float32") -> Case:
    local = replace(its_case.training.local, epochs=1, precision=precision)
    return replace(its_case, training=replace(its_case.training, local=local))


def both(unlearn: Callable[[Case], Any], its_case: Case, kind: str, tried: set[type]) -> tuple[str, str]:
    """The digests of what a procedure comes to on the device and on the CPU."""
    return (
        w.digest(by_hand(unlearn(its_case), asked(kind, THERE, tried))),
        w.digest(by_hand(unlearn(its_case), asked(kind, HERE, set()))),
    )


@pytest.mark.parametrize(("strategy", "wish"), ON_IMAGES, ids=lambda x: getattr(x, "name", x))
def test_a_strategy_comes_to_the_same_bits_there(strategy: Strategy, wish: str, tried: set[type]) -> None:
    on_device, on_cpu = both(strategy.unlearn, brief(strategy, wish), "images", tried)
    assert on_device == on_cpu


@pytest.mark.parametrize("strategy", ON_VOLUMES, ids=lambda x: x.name)
def test_a_strategy_comes_to_the_same_bits_there_on_volumes(strategy: Strategy, tried: set[type]) -> None:
    wish = "patient" if Granularity.PATIENTS in strategy.granularity else "site"
    on_device, on_cpu = both(strategy.unlearn, shorter(toy_volumes.case(wish, strategy)), "volumes", tried)
    assert on_device == on_cpu


@pytest.mark.parametrize("strategy", IN_BFLOAT16, ids=lambda x: x.name)
def test_a_strategy_trains_in_bfloat16_there(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch, tried: set[type]
) -> None:
    """Layers compute in bfloat16 by the CPU's autocast, the device having none; float32 weights come back.

    Bits are not the CPU's: its own bfloat16 takes layers together that are one by one here, and rounds less often.
    """
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: autocast("cpu", dtype))
    wish = "patients" if Granularity.PATIENTS in strategy.granularity else "site"
    its_case = brief(strategy, wish, "bfloat16")
    result = by_hand(strategy.unlearn(its_case), asked("images", THERE, tried))
    assert w.first_difference(its_case.original, result) is None and w.first_nonfinite(result) is None


@pytest.mark.parametrize("kind", ["images", "volumes"])
def test_what_scoring_asks_comes_to_the_same_bits_there(kind: str, tried: set[type]) -> None:
    known = toy_volumes if kind == "volumes" else toy
    weights: Weights = toy_volumes.trained()[1] if kind == "volumes" else case("patients").original
    every: list[Task] = [
        tasks.Signals(weights, Select(split="val")),
        tasks.Copies(weights, (Select(), Select(split="val"))),
        tasks.Gradient(weights, Select()),
        tasks.Fisher(weights, Select()),
        tasks.Loss(weights, Select()),
        tasks.Errors((weights, weights), Select()),
        tasks.Draws(Select(), (1, None), 0.5),
        tasks.Still(tasks.FitDrawn(weights, Select(), known.TRAINING.local, 3, 1, 0.5), {}),
    ]
    if kind == "images":
        every.append(tasks.Condense(weights, Select(), None, 0.2, True, 2, 0.1, 8, 3))
    else:
        every.append(tasks.Sections(weights, (tasks.Plane(int(toy_volumes.volumes("north").rows[0]), 0, 2),)))
    for task in every:
        asks: Asks = {"north": task}
        found, expected = (asked(kind, where, tried)(asks)["north"] for where in (THERE, HERE))
        assert w.digest(found.arrays) == w.digest(expected.arrays), type(task).__name__
        assert w.digest(found.weights or {}) == w.digest(expected.weights or {}), type(task).__name__


def test_every_kind_of_task_was_tried(tried: set[type]) -> None:
    """By the tests above, all of which this one needs."""
    modules: list[ModuleType] = [tasks, mechanics, *(inspect.getmodule(type(s)) for s in FIRST.values())]  # type: ignore[list-item]
    known = {task for module in modules for task in vars(module).values() if _is_task(task, module)}
    assert len(known) > 30, "or the search for them is wrong"
    assert not {task.__name__ for task in known - tried}


def _is_task(found: Any, module: ModuleType) -> bool:
    """Whether it is a class of the module's own whose values do something at a hospital."""
    if not (
        inspect.isclass(found) and found.__module__ == module.__name__ and dataclasses.is_dataclass(found)
    ):
        return False
    call = vars(found).get("__call__")
    return call is not None and list(inspect.signature(call).parameters) == ["self", "local"]


# --------------------------------------------------------------------------------------- real hospitals, models

MODELS: list[tuple[Model, tuple[int, ...]]] = [
    (SmallCNN(), (1, 28, 28)),
    (SmallCNN(), (1, 28, 28, 28)),
    (ResNet18(norm="batch"), (1, 28, 28)),
    (UNet3D(norm="batch", patch=(8, 8, 8)), (1, 11, 10, 12)),
    (Med3D(width=8), (1, 16, 18, 16)),
]


@pytest.mark.parametrize(("model", "shape"), MODELS, ids=lambda x: getattr(x, "name", str(x)))
def test_hospitals_train_every_model_there_without_what_cuda_refuses(
    model: Model, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """As a worker does, told as `devices.prepare` does to be deterministic; the same bits as on the CPU but for Med3D.

    That one's scores are resized by another algorithm then, which rounds otherwise.
    """
    generator, maps = np.random.default_rng(3), model.kind == "segmentation"
    pixels = generator.integers(256, size=(4, *shape), dtype=np.uint8)
    targets = generator.integers(2, size=(4, *shape[1:]) if maps else 4)
    site, split = np.array(["north"] * 4), np.array(["train"] * 4)
    Federation.write(tmp_path, pixels, targets, site, split, {}, model, 2)
    federation = Federation.open(tmp_path)
    training = LocalTraining(epochs=1, batch_size=2, optimizer="sgd", lr=1e-2)
    ask = Ask(1, "north", tasks.Fit(initial_weights(model, Form(shape, 2), 5), Select(), training, 7))
    torch.use_deterministic_algorithms(True)
    try:
        replies = [perform(federation, federation.network(where), [ask])[0] for where in (THERE, HERE)]
    finally:
        torch.use_deterministic_algorithms(False)
    found, expected = (answer.reply for answer in replies)
    assert found is not None and expected is not None, [answer.error for answer in replies]
    assert found.weights is not None and expected.weights is not None
    assert not any(isinstance(x, There) for x in found.weights.values())
    if model.name == "med3d_resnet50":
        assert all(torch.isfinite(x).all() for x in found.weights.values())
    else:
        assert w.digest(found.weights) == w.digest(expected.weights)


# --------------------------------------------------------------------------------------------- deliberate faults

IMAGES = toy.images("north")


def trained(**changes: Any) -> dict[str, Tensor]:
    """A training there, something of which is not as it should be."""
    local, start = clinic("north", "images", THERE), case("patients").initial
    training = LocalTraining(epochs=1, batch_size=12)
    return fit(
        local, start, changes.get("images", local.images(Select())), training, 7, changes.get("objective")
    )


@dataclass(frozen=True)
class Straying:
    """A loss with a fault."""

    fault: Callable[[Tensor], Tensor]

    def __call__(self, module: torch.nn.Module, batch: Batch) -> Tensor:
        return CrossEntropy()(module, batch) + self.fault(batch.image).sum()


FAULTS: list[tuple[str, Callable[[Tensor], Tensor], type[Exception]]] = [
    ("a tensor of the CPU is added", lambda x: x + torch.ones(x.shape), Mixed),
    (
        "a CPU's generator draws there",
        lambda x: torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(1)),
        Mixed,
    ),
    ("NumPy is given one of the device's", lambda x: torch.from_numpy(np.asarray(x)), Mixed),
    ("a tensor of the CPU is changed by one of the device", lambda x: torch.zeros(()).add_(x.sum()), Mixed),
    (
        "what CUDA cannot do twice alike",
        lambda x: torch.nn.functional.pad(x.clone().requires_grad_(), (1, 1, 1, 1), mode="reflect").square(),
        Refused,
    ),
]


@pytest.mark.parametrize(("fault", "error"), [pytest.param(f, e, id=name) for name, f, e in FAULTS])
def test_a_deliberate_fault_is_caught(fault: Callable[[Tensor], Tensor], error: type[Exception]) -> None:
    trained(objective=Straying(lambda x: x * 0))  # without a fault there is nothing to catch
    with pytest.raises(error), Pretend():
        trained(objective=Straying(fault))


def test_images_left_on_the_cpu_are_caught() -> None:
    with pytest.raises(Mixed):
        trained(images=IMAGES)


def test_a_reply_left_on_the_device_is_caught() -> None:
    @dataclass(frozen=True)
    class Careless:
        def __call__(self, local: Any) -> Reply:
            return Reply(None, 1, {"rows": local.images(Select()).rows})

    with pytest.raises(AssertionError, match="on the device"):
        asked("images", THERE, set())({"north": Careless()})


# ----------------------------------------------------------------------------------------------------- traffic


def test_a_constraint_is_brought_once_whatever_the_steps(pretend: Pretend) -> None:
    """Twice the steps bring no more of it: an order of images for each epoch and column is all that each costs."""
    local, start = clinic("north", "images", THERE), dict(case("patients").initial)
    names = network("images", HERE).layout.parameters
    mask = Ball({name: start[name] for name in names}, 0.1)
    images, counts = local.images(Select()), list[tuple[int, int]]()
    for batch_size in (24, 12):
        brought, waits = pretend.traffic.brought, pretend.traffic.waits
        fit(local, start, images, LocalTraining(epochs=1, batch_size=batch_size), 7, constraint=mask)
        counts.append((pretend.traffic.brought - brought, pretend.traffic.waits - waits))
    (few, waits_of_one), (many, waits_of_two) = counts
    assert many == few == 2 * len(names) + 1, "weights, the ball's centre, an order"
    assert (waits_of_one, waits_of_two) == (1 + 1, 1 + 2), (
        "labels are looked at once, the distance at each step"
    )


def test_marked_images_are_told_apart_without_waiting(pretend: Pretend) -> None:
    """Whatever the steps, the GPU is waited for in the first one alone: each half's labels are looked at."""
    local, start, counts = clinic("north", "images", THERE), case("patients").initial, list[int]()
    forget, retain = Select(only="patients"), Select(without=("patients",))
    for epochs in (1, 3):
        before = pretend.traffic.waits
        tasks.Weigh(start, forget, retain, LocalTraining(epochs, batch_size=8), 7, -1.0, 1.0)(local)
        counts.append(pretend.traffic.waits - before)
    assert counts[0] == counts[1] <= 2


@pytest.mark.parametrize("kind", ["images", "volumes"])
def test_images_without_labels_are_refused_before_a_gpu_meets_them(kind: str) -> None:
    """As on the CPU, where torch refuses; CUDA would end with the process."""
    for where in (THERE, HERE):
        local = clinic(SERVER, kind, where)
        wanted = Select(split="proxy")
        assert bool((local.images(wanted).targets == -1).all())
        start = local.network.read()
        with pytest.raises(IndexError):
            fit(local, start, local.images(wanted), LocalTraining(), 7)
        with pytest.raises(IndexError):
            tasks.Gradient(start, wanted)(local)


def test_noise_is_brought_in_one_piece(pretend: Pretend) -> None:
    images = there(IMAGES, device())
    before = pretend.traffic.brought
    Noise(3, 0.1, 0.2)(images.pixels, images.rows, 0)
    assert pretend.traffic.brought == before + 1


def test_a_constraint_placed_there_holds_the_same_numbers() -> None:
    ball = Ball({"a": torch.arange(3.0)}, 1.0)
    placed = devices.placed(ball, device())
    assert isinstance(placed.center["a"], There) and torch.equal(placed.center["a"].cpu(), ball.center["a"])


CROSSING = {
    "salun": (92, 5),
    "fused": (114, 6),
    "neggrad_plus": (49, 5),
    "max_loss": (176, 10),
    "pga": (44, 5),
}


@pytest.mark.parametrize("name", CROSSING)
def test_no_more_crosses_than_docs_gpu_md_tells(name: str, pretend: Pretend) -> None:
    """Tensors brought to the device, and how often it is waited for, while the toy forgets patients or a hospital."""
    strategy = FIRST[name]
    wish = "patients" if Granularity.PATIENTS in strategy.granularity else "site"
    procedure, answer = strategy.unlearn(case(wish, strategy=strategy)), asked("images", THERE, set())
    network("images", THERE)  # which is brought once for all
    brought, waits = pretend.traffic.brought, pretend.traffic.waits
    by_hand(procedure, answer)
    assert (pretend.traffic.brought - brought, pretend.traffic.waits - waits) == CROSSING[name]

"""Whether a scenario suits the data that it found: its model, its training, what its requests leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args, get_type_hints

import numpy as np
import torch

from fedunlearn import guests
from fedunlearn.core import Augmentation, Form, InputError, Problem, RequestId
from fedunlearn.core.kinds import facts
from fedunlearn.learning.models import Model, origin
from fedunlearn.learning.models.stacked import unstackable
from fedunlearn.learning.patches import Patched
from fedunlearn.scenario import Scenario
from sites.collection import Collection

Array = np.ndarray[Any, Any]


@contextmanager
def placed(scenario: Scenario, key: str) -> Iterator[None]:
    """Give the problems found within it the place of ``key`` in the scenario."""
    try:
        yield
    except InputError as error:
        raise InputError([scenario.placed(problem, key) for problem in error.problems]) from error


def suits_model(scenario: Scenario, collection: Collection) -> None:
    """Refuse a model for another kind of task or other images, a single class, training that the images cannot have.

    Raises:
        InputError: all that does not fit, at its place.
    """
    model, shape = scenario.model, collection.pixels.shape[1:]
    augmentation = scenario.training.local.augmentation
    if found := list(_misfits(model, augmentation, collection.kind, shape[1:])):
        raise InputError([scenario.placed(Problem(message), key) for key, message in found])
    if facts(collection.kind).one_class and len(np.unique(collection.targets)) < 2:
        label = f" ({collection.names[0]!r})" if len(collection.names) == 1 else ""
        message = (
            f"all images have one label{label}, expected at least two classes: there is nothing to tell apart"
        )
        raise InputError([scenario.placed(Problem(message), "data")])
    if (costs := scenario.evaluation.costs) is not None and len(costs) != collection.classes:
        message = (
            f"found costs of {len(costs)} classes, but the data has {collection.classes}: write one row and one column "
            "for each"
        )
        raise InputError([scenario.placed(Problem(message), "evaluation.costs")])
    if scenario.training.local.stack > 1 and (why := _unstackable(model, collection.form)):
        message = f"model {model.name!r} cannot be trained several at once, since {why}: leave it out"
        raise InputError([scenario.placed(Problem(message), "training.stack")])
    if found := list(_unknown_classes(scenario, collection.classes)):
        raise InputError([scenario.placed(Problem(message), key) for key, message in found])
    with placed(scenario, "model"):
        origin(model, collection.form)


def can_be_asked(scenario: Scenario) -> None:
    """Refuse a strategy of the user's or of a package whose tasks cannot cross the wire to a hospital.

    Raises:
        InputError: all such strategies, at their places.
    """
    problems = list[Problem]()
    for number, plan in enumerate(scenario.strategies):
        if not guests.origin(type(plan.strategy)):
            continue
        from fedunlearn.contract.asking import (
            uncrossable,  # it comes with all promises and what they are tried on
        )

        if (reason := uncrossable(plan.strategy)) is not None:
            problem = Problem(f"what {plan.label} asks of hospitals has to cross the wire, but {reason}")
            problems.append(scenario.placed(problem, f"strategies.{number}"))
    if problems:
        raise InputError(problems)


def _unknown_classes(scenario: Scenario, classes: int) -> Iterator[tuple[str, str]]:
    """Settings of strategies that list classes which the data does not have: dotted keys and messages."""
    for number, plan in enumerate(scenario.strategies):
        for name in plan.strategy.needs.class_settings:
            listed: tuple[int, ...] = getattr(plan.strategy, name) or ()
            if unknown := [one for one in listed if one >= classes]:
                message = f"found class {unknown[0]}, but the data has {classes}: expected 0 to {classes - 1}"
                yield f"strategies.{number}.{name}", message


def _unstackable(model: Model, form: Form) -> str:
    """Why several networks of a model cannot be one (`fedunlearn.learning.models.stacked`); empty if they can."""
    with torch.device("meta"):
        return unstackable(model.build(form))


def _other(model: Model, kind: str) -> str:
    """What to write for data of another kind than a model's."""
    able = get_args(get_type_hints(type(model)).get("kind"))
    return f"write kind: {kind}" if kind in able else "name another model"


def _misfits(
    model: Model, augmentation: Augmentation, kind: str, sizes: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    """What is wrong between training of ``model`` and images of ``sizes``: dotted keys and messages."""
    name = f"model {model.name!r}"
    if model.kind != kind:
        yield "model", f"{name} is for {model.kind}, but the data is for {kind}: {_other(model, kind)}"
    if augmentation != "none" and len(sizes) != 2:
        advice = f"the data's have {len(sizes)} dimensions: write none, or leave it out"
        yield "training.augmentation", f"{augmentation} is for 2D images, but {advice}"
    if len(sizes) not in model.dimensions:
        takes = " or ".join(map(_looked_at, model.dimensions))
        yield "model", f"{name} takes {takes}, but the data has {_looked_at(len(sizes))}"
    elif sizes and min(sizes) < model.smallest:
        yield "model", f"{name} needs images of at least {model.smallest} pixels, found {min(sizes)}"
    elif isinstance(model, Patched) and model.patch is not None:
        for i, (edge, size) in enumerate(zip(model.patch, sizes, strict=True)):
            if edge > size:
                volumes = " x ".join(map(str, sizes))
                advice = f"the data's volumes have {volumes} voxels: lower it, or leave patch out"
                yield f"model.patch.{i}", f"found {edge}, but {advice}"


def _looked_at(dimensions: int) -> str:
    """What has as many dimensions, in words."""
    return f"{dimensions}D images" if dimensions else "rows of a table"


def something_left(scenario: Scenario, train: Array, forgotten: Mapping[RequestId, Array]) -> None:
    """Refuse a request that finds nothing left to forget, or leaves nothing to train on.

    Args:
        scenario: whose requests.
        train: (N,) bool, the training images.
        forgotten: by request, (N,) bool, the images that it names.

    Raises:
        InputError: all such requests.
    """
    sequential, gone, problems = scenario.timeline == "sequential", np.zeros_like(train), list[Problem]()
    for number, request in enumerate(scenario.requests):
        before = gone if sequential else np.zeros_like(train)
        gone = before | forgotten[request.id]
        message = ""
        if not (train & forgotten[request.id] & ~before).any():
            message = "names no training image that earlier requests left; remove it or name others"
        elif not (train & ~gone).any():
            message = "leaves no image to train on; ask for fewer patients"
        if message:
            problem = Problem(f"request {request.id!r} {message}")
            problems.append(scenario.placed(problem, f"requests.{number}"))
    if problems:
        raise InputError(problems)


def enough_proxies(scenario: Scenario, proxy: Array, forgotten: Mapping[RequestId, Array]) -> None:
    """Refuse a strategy that needs more images of the server's own than a request leaves it.

    Args:
        scenario: whose strategies.
        proxy: (N,) bool, the images that the server owns.
        forgotten: by request, (N,) bool, the images that it names.

    Raises:
        InputError: all such strategies.
    """
    left, problems = dict[RequestId, int](), list[Problem]()
    gone = np.zeros_like(proxy)
    for request in scenario.requests:
        gone = forgotten[request.id] | (gone if scenario.timeline == "sequential" else False)
        left[request.id] = int((proxy & ~gone).sum())
    for number, plan in enumerate(scenario.strategies):
        needed = plan.strategy.needs.proxy_examples
        for request_id in plan.requests:
            if left[request_id] < needed:
                problem = Problem(
                    f"{plan.label} needs at least {needed} images that the server owns, but request {request_id!r} "
                    f"leaves it {left[request_id]}: raise sites.split.proxy or remove the strategy"
                )
                problems.append(scenario.placed(problem, f"strategies.{number}"))
    if problems:
        raise InputError(problems)

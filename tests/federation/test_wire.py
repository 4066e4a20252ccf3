from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import Every, LocalTraining, Reply, Select
from fedunlearn.federation import wire
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.learning.constraints import Mask
from fedunlearn.learning.tasks import (
    Condense,
    Copies,
    Fit,
    FitGiven,
    Gradient,
    Plane,
    Relabel,
    Sections,
    Signals,
)

texts = st.text(max_size=5)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    texts,
    st.sampled_from([Select(), Every(3)]),
)
tensors = st.sampled_from([torch.tensor(1), torch.arange(3.0), torch.ones(2, 0), torch.tensor([True])])
values = st.recursive(
    st.one_of(leaves, tensors),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=10,
)


def there_and_back(value: object) -> Any:
    text, arrays = wire.pack(value)
    return wire.unpack(json.dumps(json.loads(text)), dict(arrays))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


@given(values)
def test_every_value_comes_back_as_it_was(value: object) -> None:
    assert same(there_and_back(value), value)


WEIGHTS = {"0.weight": torch.randn(2, 3), "steps": torch.tensor(2)}
MASK = Mask({"0.weight": torch.rand(2, 3) > 0.5}, {"0.weight": WEIGHTS["0.weight"]})


@pytest.mark.parametrize(
    "value",
    [
        Fit(WEIGHTS, Select(only="r-1"), LocalTraining(clip=1.0), 2**63 - 1, CrossEntropy(), MASK),
        Fit(WEIGHTS, Select(without=("a", "b"), split="val"), LocalTraining(), 0),
        Gradient(WEIGHTS, Select()),
        Relabel(WEIGHTS, Select(only="r"), Select(without=("r",)), LocalTraining(), 1, 2, MASK),
        Condense(WEIGHTS, Select(), None, 0.1, False, 5, 0.1, 256, 7),
        FitGiven(
            WEIGHTS, {"pixels": torch.rand(2, 1, 3, 3), "targets": torch.arange(2)}, LocalTraining(), 7, True
        ),
        Signals(WEIGHTS, Select(split="all")),
        Copies(WEIGHTS, (Select(only="a"), Select(only="b", without=("a",)), Select(split="test"))),
        Sections(WEIGHTS, (Plane(3, 0, 7), Plane(4, 2, 0))),
        Reply(WEIGHTS, 12, {"rows": torch.arange(12)}),
        Reply(None, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tasks_and_replies_come_back_as_they_were(value: object) -> None:
    assert same(there_and_back(value), value)
    assert wire.size(value) == w.nbytes(wire.pack(value)[1])


def test_a_model_that_many_tasks_send_is_listed_once() -> None:
    """And comes back as one: not so where each place counts, as for the ledger."""
    value = tuple({"weights": WEIGHTS, "seed": seed} for seed in range(3))
    text, arrays = wire.pack(value, once=True)
    assert w.nbytes(arrays) == w.nbytes(WEIGHTS) and wire.size(value) == 3 * w.nbytes(WEIGHTS)
    back = wire.unpack(text, arrays)
    assert same(back, value) and all(one["weights"]["steps"] is back[0]["weights"]["steps"] for one in back)
    assert len(wire.pack(value)[1]) == 3 * len(WEIGHTS)


def test_a_slash_in_a_name_mixes_nothing_up() -> None:
    value = {"a/b": torch.tensor(1.0), "a": {"b": torch.tensor(2.0)}}
    assert len(wire.pack(value)[1]) == 2
    assert same(there_and_back(value), value)


def test_numbers_that_json_has_no_name_for() -> None:
    assert there_and_back(math.inf) == math.inf
    assert math.isnan(there_and_back(math.nan))


@dataclasses.dataclass(frozen=True)
class Stranger:
    x: int = 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "list"),
        ({1, 2}, "set"),
        (b"bytes", "bytes"),
        (lambda: 0, "function"),
        (Select, "type"),
        ({"deep": (1, object())}, r"/deep/1 is a object"),
        ({1: "x"}, "has the key 1, which is no string"),
    ],
)
def test_what_cannot_cross_is_refused_with_its_place(value: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        wire.pack(value)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "torch:load",
        "tests.federation.test_wire:Stranger",
        "fedunlearn_evil:Task",
        "fedunlearn.federation.history:Recorder",  # not a frozen dataclass
        "fedunlearn.core:derive",  # no class
        "fedunlearn.federation.wire:json.JSONDecoder",  # no path through another module
        "fedunlearn.core:nothing",
        "",
    ],
)
def test_no_message_can_name_other_classes(name: str) -> None:
    with pytest.raises(TypeError, match="may not cross the wire"):
        wire.unpack(json.dumps({"class": name, "fields": {}}), {})


def test_a_stranger_packs_but_does_not_unpack() -> None:
    with pytest.raises(TypeError, match="may not cross the wire"):
        there_and_back(Stranger())

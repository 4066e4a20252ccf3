from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import RunError

pytestmark = pytest.mark.rounding

numbers = st.floats(-1e3, 1e3, width=32)
SHAPES = {"conv": (2, 1, 3), "bias": (2,), "scalar": ()}


@st.composite
def states(draw: st.DrawFn) -> dict[str, Tensor]:
    """A small model: three float entries, one counter."""
    state: dict[str, Tensor] = {}
    for name, shape in SHAPES.items():
        values = draw(st.lists(numbers, min_size=math.prod(shape), max_size=math.prod(shape)))
        state[name] = torch.tensor(values, dtype=torch.float32).reshape(shape)
    state["steps"] = torch.tensor(draw(st.integers(0, 99)))
    return state


models = st.lists(st.tuples(states(), st.integers(0, 50)), min_size=1, max_size=4).filter(
    lambda pairs: sum(count for _, count in pairs) > 0
)


@given(models)
def test_average_is_the_slow_weighted_mean(pairs: list[tuple[dict[str, Tensor], int]]) -> None:
    """Against float64, number by number: float32 sums of at most 4 terms below 1000 err by less than 1e-3."""
    mean = w.average([state for state, _ in pairs], [count for _, count in pairs])
    total = sum(count for _, count in pairs)
    for name in SHAPES:
        for i, value in enumerate(mean[name].flatten().tolist()):
            slow = math.fsum(count / total * state[name].flatten()[i].item() for state, count in pairs)
            assert value == pytest.approx(slow, abs=1e-3)


@given(models)
def test_average_does_not_depend_on_the_order_but_for_rounding(
    pairs: list[tuple[dict[str, Tensor], int]],
) -> None:
    there = w.average([s for s, _ in pairs], [c for _, c in pairs])
    back = w.average([s for s, _ in pairs[::-1]], [c for _, c in pairs[::-1]])
    assert all(torch.allclose(there[name], back[name], atol=1e-3) for name in SHAPES)


@given(states(), states())
def test_inputs_stay_and_differences_undo(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    before = w.digest(a), w.digest(b)
    for result in (w.add(a, b), w.subtract(a, b), w.multiply(a, 2.0), w.average([a, b], [1, 1])):
        assert w.first_difference(a, result) is None
        for x in result.values():
            x.add_(1)  # a result shares no memory with what it was made from
    assert (w.digest(a), w.digest(b)) == before
    assert all(torch.allclose(w.add(b, w.subtract(a, b))[name], a[name], atol=1e-3) for name in SHAPES)


@given(states())
def test_the_norm_is_that_of_all_floats_in_one_vector(a: dict[str, Tensor]) -> None:
    slow = math.sqrt(math.fsum(x * x for name in SHAPES for x in a[name].flatten().tolist()))
    assert w.norm(a) == pytest.approx(slow, rel=1e-12)
    assert w.norm(a, ["bias"]) == pytest.approx(math.hypot(*a["bias"].tolist()), rel=1e-12)


def test_counters_take_the_first_value_and_keep_their_dtype() -> None:
    a, b = {"steps": torch.tensor(3)}, {"steps": torch.tensor(8)}
    for result in (w.add(a, b), w.subtract(a, b), w.multiply(a, 0.5), w.average([a, b], [1, 9])):
        assert result["steps"].item() == 3
        assert result["steps"].dtype == torch.int64


def test_an_average_of_one_or_of_equals_by_powers_of_two_is_exact() -> None:
    a = {"x": torch.randn(100, generator=torch.Generator().manual_seed(1))}
    assert w.digest(w.average([a], [17])) == w.digest(a)
    assert w.digest(w.average([a, a], [4, 4])) == w.digest(a)


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 1], [float("nan"), 1]])
def test_no_average_of_nothing(counts: list[float]) -> None:
    a = {"x": torch.ones(1)}
    with pytest.raises(ValueError, match="cannot average"):
        w.average([a] * len(counts), counts)


def test_every_model_needs_a_count() -> None:
    a = {"x": torch.ones(1)}
    with pytest.raises(ValueError, match="zip"):
        w.average([a, a], [1, 1, 1])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({}, "'x' is missing"),
        ({"x": torch.ones(2), "y": torch.ones(1)}, "'y' was not asked for"),
        ({"x": torch.ones(1)}, r"'x' has shape \(1,\), expected \(2,\)"),
        ({"x": torch.ones(2, dtype=torch.float64)}, "'x' has dtype torch.float64, expected torch.float32"),
    ],
)
def test_models_that_differ_are_refused_in_words(other: dict[str, Tensor], words: str) -> None:
    """Shapes above all: torch would broadcast (1,) to (2,) without a word."""
    a = {"x": torch.ones(2)}
    for call in (
        lambda: w.add(a, other),
        lambda: w.subtract(a, other),
        lambda: w.average([a, other], [1, 1]),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_nonfinite_entries_are_found_by_name() -> None:
    good = {"a": torch.ones(2), "n": torch.tensor(1)}
    assert w.first_nonfinite(good) is None
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert w.first_nonfinite({**good, "b": torch.tensor([0.0, bad])}) == "b"


def test_large_numbers_are_finite_though_their_length_is_not() -> None:
    large = {
        "a": torch.full((4,), 3e38),
        "h": torch.full((4,), 6e4, dtype=torch.float16),
        "none": torch.zeros(0),
    }
    assert w.first_nonfinite(large) is None
    assert w.first_nonfinite({**large, "d": torch.tensor([float("nan")], dtype=torch.float64)}) == "d"
    assert w.first_nonfinite({"n": torch.tensor([1])}) is None and w.first_nonfinite({}) is None


def test_the_last_layers_begin_with_a_weight_and_end_with_their_norms() -> None:
    shapes = {"a.weight": (3, 2), "a.bias": (3,), "n.weight": (3,), "b.weight": (4, 3), "b.bias": (4,)}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert w.last_layers(weights, tuple(shapes), 1) == ("b.weight", "b.bias")
    assert (
        w.last_layers(weights, tuple(shapes), 2) == w.last_layers(weights, tuple(shapes), 9) == tuple(shapes)
    )
    first = {"p.weight": (1,), **shapes}  # a slope before the first layer is of none
    assert "p.weight" not in w.last_layers({**weights, "p.weight": torch.zeros(1)}, tuple(first), 1)


def test_the_digest_sees_names_shapes_dtypes_and_values_but_not_order() -> None:
    a = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor(3)}
    assert w.digest(a) == w.digest(dict(reversed(a.items())))
    for other in (
        {**a, "x": torch.tensor([1.0, 2.0000002])},
        {**a, "x": torch.tensor([[1.0, 2.0]])},
        {**a, "y": torch.tensor(3, dtype=torch.int32)},
        {"z": a["x"], "y": a["y"]},
    ):
        assert w.digest(a) != w.digest(other)
    turned = torch.arange(6.0).reshape(2, 3).T
    assert w.digest({"x": turned}) == w.digest({"x": turned.contiguous()})


def test_save_and_load(tmp_path: Path) -> None:
    a = {"x": torch.randn(3, 2).T, "steps": torch.tensor(4), "mask": torch.tensor([True, False])}
    w.save(a, tmp_path / "a.safetensors")
    loaded = w.load(tmp_path / "a.safetensors")
    assert w.first_difference(a, loaded) is None
    assert w.digest(loaded) == w.digest(a)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert w.nbytes(a) == 6 * 4 + 8 + 2


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.safetensors"):
        w.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(RunError, match=r"bad\.safetensors"):
        w.load(tmp_path / "bad.safetensors")


def test_a_file_keeps_the_order_of_names(tmp_path: Path) -> None:
    """What goes through a model in its order comes to the same, whether the model is in memory or was in a file.

    A network of more than ten layers is not in the order of the alphabet: 10 comes before 2 there.
    """
    model = {
        "2.weight": torch.zeros(2),
        "10.weight": torch.zeros(3),
        "1.steps": torch.tensor(1),
        "0.bias": torch.ones(1),
    }
    w.save(model, tmp_path / "file")
    assert list(w.load(tmp_path / "file")) == list(model)

"""The oracles of FCU and Maverick: their formulas by hand, or in ten slow lines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import Batch, Form, Recovery, Reply, Weights
from fedunlearn.learning.local import outputs
from fedunlearn.learning.models import MODELS, Network, features, initial_weights
from fedunlearn.learning.objectives import Contrastive, Noise, Sensitivity
from strategies.fcu import FCU
from strategies.maverick import Maverick
from tests import toy
from tests.strategies.test_client import (
    FORGET,
    STEP,
    WEIGHTS,
    B,
    Clinic,
    W,
    X,
    Y,
    close,
    only_task,
)

pytestmark = pytest.mark.rounding


@dataclass(frozen=True)
class TwoLayers:
    """A hidden layer of five, and a last layer."""

    name = "two_layers"
    kind = "classification"
    dimensions = (1,)
    smallest = 1

    def build(self, form: Form) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, form.classes))


@cache
def two_layers() -> Network:
    with torch.random.fork_rng(devices=[]):
        return Network(TwoLayers(), Form((1, 3), 2))


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "toy"])
def test_features_are_what_the_last_layer_turns_into_outputs(name: str) -> None:
    model, shape = (toy.ToyNet(), toy.SHAPE) if name == "toy" else (MODELS[name](), (3, 28, 28))
    with torch.random.fork_rng(devices=[]):
        network = Network(model, Form(shape, 4))
    network.load(initial_weights(model, Form(shape, 4), 3))
    weight, bias = (network.read()[n] for n in network.layout.head)
    inputs = drawn(2, *shape)
    with torch.no_grad():
        h = features(network.module.eval(), network.layout.head[0], inputs)
        assert torch.allclose(h @ weight.T + bias, network.module(inputs), atol=1e-5)
    hooks = sum(len(layer._forward_pre_hooks) for layer in network.module.modules())
    assert hooks == 1, "only that which counts is left"


def test_features_of_a_map_are_means_over_its_positions() -> None:
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.ReLU(), nn.Conv3d(2, 3, 1))
    x = drawn(4, 2, 3, 3, 3)
    assert torch.allclose(features(module, "1.bias", x), x.relu().mean((2, 3, 4)))


def test_features_of_all_images_are_collected_as_outputs_are() -> None:
    local, images = toy.ToyLocal("north", toy.network(), toy.Log()), toy.images("north")
    weights = toy.case("site").original
    found = outputs(local, weights, images, batch_size=7, head="6.weight")
    assert found.shape == (24, 16)
    logits = found @ weights["6.weight"].T + weights["6.bias"]
    assert torch.allclose(logits, outputs(local, weights, images), atol=1e-5)


# ------------------------------------------------------------------------------------------------ fcu


def test_the_contrastive_loss_by_hand() -> None:
    """The hidden layer is the identity and a ReLU: h = (3, 4) and (0, 2), against (1, 0) and (0, 1), tau = 1/2.

    Cosines with the original .6 and 0, with the downgraded model .8 and 1, so log(1 + e^-0.4) and log(1 + e^-2).
    """
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    module.load_state_dict({**module.state_dict(), "0.weight": torch.eye(2)})
    extra = {"original": torch.tensor([[1.0, 0.0]] * 2), "down": torch.tensor([[0.0, 1.0]] * 2)}
    batch = Batch(torch.tensor([[3.0, 4.0], [-1.0, 2.0]]), torch.zeros(2), torch.arange(2), extra)
    expected = (math.log1p(math.exp(-0.4)) + math.log1p(math.exp(-2.0))) / 2
    assert Contrastive("2.weight", 0.5)(module, batch).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.6])
def test_fcu_is_a_step_of_that_cross_entropy_on_the_forget_images_and_a_fusion(ratio: float) -> None:
    original, down = (initial_weights(TwoLayers(), Form((1, 3), 2), seed) for seed in (1, 2))
    weight, bias = (original[n].clone().requires_grad_() for n in ("1.weight", "1.bias"))

    def hidden(a: Tensor, b: Tensor) -> Tensor:
        return torch.tanh(X[:2] @ a.T + b)

    h, h_o, h_d = (
        hidden(a, b) for a, b in ((weight, bias), *((x["1.weight"], x["1.bias"]) for x in (original, down)))
    )
    similarities = torch.stack([F.cosine_similarity(h, h_o), F.cosine_similarity(h, h_d)], 1)
    loss = F.cross_entropy(similarities / 0.25, torch.ones(2, dtype=torch.long))
    step = torch.autograd.grad(loss, [weight, bias])
    moved = dict(
        zip(
            ("1.weight", "1.bias"),
            (x.detach() - 0.1 * g for x, g in zip((weight, bias), step, strict=True)),
            strict=True,
        )
    )

    task = replace(
        only_task(FCU(tau=0.25, ratio=ratio)), weights=original, down=down, forget=FORGET, training=STEP
    )
    reply = task(Clinic(network=two_layers()))
    assert reply.count == 2
    assert close(reply.weights, w.fused(original, {**original, **moved}, ratio))
    assert w.norm(w.subtract(reply.weights, original)) > 1e-3


def test_fcu_contrasts_the_original_with_the_model_training_started_from() -> None:
    case, task = toy.case("patients"), only_task(FCU())
    assert w.digest(task.weights) == w.digest(case.original)
    assert w.digest(task.down) == w.digest(case.initial)


def test_fcu_takes_features_from_the_original_s_to_the_initial_model_s() -> None:
    case = toy.case("site")
    local, images = toy.ToyLocal("west", toy.network(), toy.Log()), toy.images("west")
    result = toy.run(FCU(epochs=6, lr=1e-2, recovery=Recovery(0)).unlearn(case))
    h, h_o, h_d = (outputs(local, x, images, head="6.weight") for x in (result, case.original, case.initial))
    before = F.cosine_similarity(h_o, h_d).mean()
    assert F.cosine_similarity(h, h_d).mean() > before + 0.1
    assert F.cosine_similarity(h, h_o).mean() < 0.9


SHAPES = [(4, 4), (5, 3), (1, 7), (6, 4, 3, 3), (3, 2, 2, 1), (2, 3, 2, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_low_frequencies_leave_the_unlearned_weights(shape: tuple[int, ...]) -> None:
    a, b = {"w": drawn(*shape, seed=1)}, {"w": drawn(*shape, seed=2)}
    assert close(w.fused(a, b, 0.0), b)
    assert w.fused(a, b, 0.0)["w"].is_contiguous()


@pytest.mark.parametrize("shape", SHAPES)
def test_only_low_frequencies_give_all_amplitudes_of_the_original_at_the_phases_of_the_other(
    shape: tuple[int, ...],
) -> None:
    """So that three times a model, which has its phases, becomes the model itself."""
    a = {"w": drawn(*shape, seed=1)}
    assert close(w.fused(a, w.multiply(a, 3.0), 1.0), a)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_fused_with_itself_is_itself(shape: tuple[int, ...], ratio: float) -> None:
    a = {"w": drawn(*shape)}
    assert close(w.fused(a, a, ratio), a)


def test_the_lowest_frequency_of_a_4_by_4_matrix_by_hand() -> None:
    """Of the frequencies 0, 1, 2, 1 only 0 is below .3 * 5 / 2: |mean| is the original's, its sign the other's.

    The original's mean is 2; the other's is (1 - 9) / 16 = -1/2, which has to become -2: minus 3/2 all over.
    """
    other = torch.zeros(4, 4)
    other[1, 2], other[3, 0] = 1.0, -9.0
    fused = w.fused({"w": torch.full((4, 4), 2.0)}, {"w": other}, 0.3)
    assert close(fused, {"w": other - 1.5})


def test_frequencies_up_to_one_of_a_4_by_4_matrix_by_hand() -> None:
    """At ratio .7 the frequencies 0 and 1 are low, 2 is not: waves along the rows, cos(pi j / 2) and cos(pi j).

    The slow wave has amplitude 5 in the original and 1 in the other, the fast one 7 and 2: 5 and 2 remain.
    """
    j = torch.arange(4.0)
    slow, fast = (torch.cos(math.pi * k * j / 2).repeat(4, 1) for k in (1, 2))
    fused = w.fused({"w": 5 * slow + 7 * fast}, {"w": slow + 2 * fast}, 0.7)
    assert close(fused, {"w": 5 * slow + 2 * fast}, 1e-5)


def test_a_convolution_is_fused_as_the_matrix_of_its_inputs_by_its_outputs() -> None:
    """Entry (out n, in c, i, j) stands in row 3 c + i and column 6 j + n, two inputs, six outputs, kernels 3 by 3."""

    def laid_out(x: Tensor) -> Tensor:
        matrix = torch.zeros(6, 18)
        for n, c, i, j in torch.cartesian_prod(*(torch.arange(size) for size in (6, 2, 3, 3))).tolist():
            matrix[3 * c + i, 6 * j + n] = x[n, c, i, j]
        return matrix

    a, b = drawn(6, 2, 3, 3, seed=1), drawn(6, 2, 3, 3, seed=2)
    matrix = w.fused({"w": laid_out(a)}, {"w": laid_out(b)}, 0.7)["w"]
    assert torch.allclose(laid_out(w.fused({"w": a}, {"w": b}, 0.7)["w"]), matrix, atol=1e-6)


def test_biases_norms_and_counters_are_not_fused() -> None:
    a = {"bias": torch.ones(3), "steps": torch.tensor(5)}
    b = {"bias": torch.arange(3.0), "steps": torch.tensor(9)}
    fused = w.fused(a, b, 0.7)
    assert all(torch.equal(fused[name], b[name]) for name in b)
    assert fused["bias"] is not b["bias"]


# ------------------------------------------------------------------------------------------- maverick

NOISE = Noise(seed=11, min_sigma=0.05, max_sigma=1.0)


def noises(rows: list[int], samples: int) -> Tensor:
    """(samples, images, 3) for the clinic's images."""
    return torch.stack([NOISE(X[rows], torch.tensor(rows), i) for i in range(samples)])


def test_the_sensitivity_of_a_linear_model_is_that_of_its_matrix() -> None:
    """|W x + b - W (x + xi) - b| / |xi| = |W xi| / |xi|, whatever x is."""
    with torch.random.fork_rng(devices=[]):
        module = nn.Linear(3, 2)
    module.load_state_dict({"weight": W, "bias": B})
    xi = noises([0, 1, 2, 3], 5)
    expected = ((xi @ W.T).norm(dim=2) / xi.norm(dim=2)).mean()
    found = Sensitivity(NOISE, 5)(module, Batch(X, Y, torch.arange(4)))
    assert torch.allclose(found, expected, atol=1e-5)


def test_sensitivity_is_of_all_outputs_of_an_image_together() -> None:
    """A volume's scores are many; the model doubles its input, so every quotient is 2."""

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    batch = Batch(drawn(2, 3, 2, 2, 2), torch.zeros(2, 2, 2, 2), torch.arange(2))
    assert float(Sensitivity(NOISE, 3)(Twice(), batch)) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("against", ["itself", "original"])
def test_maverick_is_a_step_of_its_sensitivity_on_the_forget_images(against: Any) -> None:
    """W x + b minus what the original, or the model itself by now, gives at x + xi, which has no slope of its own.

    At the original both are the same step. The second one, from elsewhere, tells them apart.
    """
    xi = noises([0, 1], 4)
    a, b = W.clone(), B.clone()
    for _ in range(2):
        matrix, bias = (a, b) if against == "itself" else (W, B)
        near = (X[:2] + xi) @ matrix.T + bias
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        loss = ((X[:2] @ a.T + b - near).norm(dim=2) / xi.norm(dim=2)).mean()
        ga, gb = torch.autograd.grad(loss, [a, b])
        a, b = (a - 0.1 * ga).detach(), (b - 0.1 * gb).detach()
    task = only_task(Maverick(samples=4, against=against))
    task = replace(task, weights=WEIGHTS, forget=FORGET, training=replace(STEP, epochs=2))
    reply: Reply = task_with_noise(task)(Clinic())
    assert reply.count == 2
    assert reply.weights is not None
    assert close(reply.weights, {"1.weight": a, "1.bias": b}, 1e-5)


def task_with_noise(task: Any) -> Any:
    return replace(task, sensitivity=replace(task.sensitivity, noise=NOISE))


def test_an_image_has_its_noises_whatever_stands_beside_it() -> None:
    one, both = noises([3], 2), noises([1, 3], 2)
    assert torch.equal(one[:, 0], both[:, 1])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both[:, 0], both[:, 1])


def test_deviations_are_uniform_between_the_two() -> None:
    """Of 300 noises of 4000 numbers each, whose deviations are known to about a percent."""
    noise, zeros = Noise(seed=4, min_sigma=0.5, max_sigma=1.5), torch.zeros(300, 4000)
    deviations = noise(zeros, torch.arange(300), 0).std(1)
    assert 0.48 < deviations.min() < 0.55
    assert 1.45 < deviations.max() < 1.55
    assert deviations.mean() == pytest.approx(1.0, abs=4 * (1 / 12**0.5) / 300**0.5)


def test_maverick_makes_the_images_to_forget_less_special() -> None:
    """Against the original. Against itself, without a slope at x + xi, it is not what falls: there is no such test."""
    case = toy.case("site")

    def sensitivity(weights: Weights) -> float:
        images = toy.images("west")
        network = toy.network()
        network.load(weights)
        batch = Batch(images.pixels, images.targets, images.rows)
        with torch.no_grad():
            return float(Sensitivity(Noise(5, 0.05, 1.0), 20)(network.module.eval(), batch))

    result = toy.run(Maverick(epochs=6, lr=None).unlearn(case))
    assert sensitivity(result) < 0.95 * sensitivity(case.original)


@pytest.mark.parametrize(("against", "epochs", "passes"), [("itself", 3, 9), ("original", 3, 3)])
def test_passes_of_noisy_images_are_counted(against: Any, epochs: int, passes: int) -> None:
    """Three noises of four images: in every epoch or, where the original is asked, once; beside the epochs' own."""
    strategy = Maverick(samples=3, epochs=epochs, against=against)
    task, local = only_task(strategy, "site"), toy.ToyLocal("west", toy.network(), toy.Log())
    task(local)
    assert local.work == 24 * (passes + epochs)

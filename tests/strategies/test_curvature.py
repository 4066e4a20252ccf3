"""Influence unlearning and rapid retraining, against inverses, Hessians and loops written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Asks,
    Case,
    Form,
    Images,
    InputError,
    LocalTraining,
    Recovery,
    Replies,
    Select,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.curvature import AdaHessian, averaged
from fedunlearn.learning.local import fit
from fedunlearn.learning.models import Model, Network, SmallCNN, initial_weights
from fedunlearn.scenario import read, to_yaml
from strategies.influence import Influence, Solve, woodfisher
from strategies.rapid_retrain import RapidRetrain
from tests import toy
from tests.scenario.test_scenario import GOOD as GOOD_SCENARIO, write
from tests.strategies.test_client import WEIGHTS, B, Clinic, W, X, Y, close, linear

pytestmark = pytest.mark.rounding

EPS = AdaHessian.eps


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------- AdaHessian


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_two_steps_on_a_diagonal_quadratic_by_hand(seed: int, power: float) -> None:
    """Loss sum h w^2 / 2, so g = h w and D = |h| whatever the probe. Step 1: m_hat = g, v_hat = h^2.

    Step 2, with g' = h w': m_hat = (0.9 * 0.1 g + 0.1 g') / (1 - 0.81) = (0.9 g + g') / 1.9, and v_hat = h^2 still.
    """
    h, start = torch.tensor([4.0, -0.25, 1.0]), torch.tensor([1.0, 2.0, -3.0])
    p = start.clone().requires_grad_()
    optimizer = AdaHessian([p], lr=0.5, power=power, weight_decay=0.0, seed=seed)
    scale, expected, g = 0.5 / (h.abs() ** power + EPS), [start], list[Tensor]()
    for _ in range(2):
        optimizer.backward([(h * p**2).sum() / 2])
        assert torch.equal(optimizer.diagonal[0], h.abs())
        optimizer.step()
        g.append(h * expected[-1])
        m = g[0] if len(g) == 1 else (0.9 * g[0] + g[1]) / 1.9
        expected.append(expected[-1] - scale * m)
        assert torch.allclose(p, expected[-1], atol=1e-5)


def test_hutchinsons_estimate_off_the_diagonal() -> None:
    """H = (2 1; 1 3) gives |2 + z1 z2| and |3 + z1 z2|: 3 and 4, or 1 and 2, each half the time."""
    H = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    p = torch.zeros(2, requires_grad=True)
    optimizer, seen = AdaHessian([p], 0.1, 1.0, 0.0, seed=3), list[tuple[float, ...]]()
    for _ in range(400):
        optimizer.backward([p @ H @ p / 2])
        seen.append(tuple(optimizer.diagonal[0].tolist()))
    assert set(seen) == {(3.0, 4.0), (1.0, 2.0)}
    assert torch.allclose(torch.tensor(seen).mean(0), torch.tensor([2.0, 3.0]), atol=0.15)


def test_a_kernel_is_averaged_over_its_positions() -> None:
    d = draw(4, 3, 2, 2, 2)
    result = averaged(d)
    assert result.shape == d.shape
    for i, j in product(range(4), range(3)):
        assert torch.allclose(result[i, j], d[i, j].sum() / 8)
    assert torch.equal(averaged(d[0, 0, 0]), d[0, 0, 0])


@pytest.mark.parametrize("model", [SmallCNN(hidden=4), toy.ToyNet(norm=True)], ids=["group", "batch"])
def test_second_derivatives_pass_through_convolutions_and_norms(model: Model) -> None:
    """H z by central differences of the gradient, in float64."""
    size = max(model.smallest, 6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = model.build(Form((1, size, size), 3)).double()
    x, y = draw(5, 1, size, size), torch.tensor([0, 1, 2, 0, 1])
    parameters = list(module.parameters())
    optimizer = AdaHessian(parameters, 0.1, 1.0, 0.0, seed=4)
    state = optimizer.generator.get_state()
    optimizer.backward([F.cross_entropy(module(x), y)])
    probes = torch.Generator()
    probes.set_state(state)
    z = [2 * torch.randint(0, 2, p.shape, generator=probes, dtype=p.dtype) - 1 for p in parameters]

    def gradients(step: float) -> tuple[Tensor, ...]:
        moved = {n: p + step * s for (n, p), s in zip(module.named_parameters(), z, strict=True)}
        loss = F.cross_entropy(torch.func.functional_call(module, moved, (x,)), y)
        return torch.autograd.grad(loss, parameters)

    for p, up, down, s, d in zip(
        parameters, gradients(1e-6), gradients(-1e-6), z, optimizer.diagonal, strict=True
    ):
        assert torch.allclose(d, averaged((s * (up - down) / 2e-6).abs()), rtol=1e-3, atol=1e-6)
        assert p.grad is not None and not p.grad.requires_grad


def test_curvature_in_bfloat16_is_nearly_that_in_float32() -> None:
    """D of all weights together, to a tenth: differentiated twice through layers that compute in 8 bits."""
    model, shape = SmallCNN(), (1, 28, 28)
    network = Network(model, Form(shape, 3))
    network.load(initial_weights(model, Form(shape, 3), seed=1))
    x, y = draw(8, 1, 28, 28).float(), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    found = list[Tensor]()
    for half in (False, True):
        optimizer = AdaHessian(list(network.parameters().values()), 0.1, 1.0, 0.0, seed=4)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(network.module(x).float(), y)
        optimizer.backward([loss])
        found.append(torch.cat([d.flatten() for d in optimizer.diagonal]))
    plain, close = found
    assert close.dtype == torch.float32
    assert 0 < (close - plain).norm() < 0.1 * plain.norm()


ADAHESSIAN = LocalTraining(epochs=2, batch_size=4, optimizer="adahessian", lr=0.05)


@pytest.mark.parametrize(
    "training",
    [
        ADAHESSIAN,
        replace(ADAHESSIAN, weight_decay=0.1, hessian_power=0.5, clip=0.2),
        replace(ADAHESSIAN, micro_batch=3),
    ],
)
def test_fit_takes_adahessians_steps(training: LocalTraining) -> None:
    """On the linear model, four images in each step (at once, or 3 and 1), with the whole Hessian written down."""
    images = Clinic().images(Select(split="val"))
    found = fit(Clinic(), WEIGHTS, images, training, seed=5)

    def loss(p: Tensor) -> Tensor:
        return F.cross_entropy(X @ p[:6].view(2, 3).T + p[6:], Y)

    # The probes are those of an optimizer with the same seed: of the weight first, then of the bias.
    probes = torch.Generator().manual_seed(derive(5, "probes"))
    p, m, v = torch.cat([W.flatten(), B]), torch.zeros(8), torch.zeros(8)
    for t in (1, 2):
        signs = [2 * torch.randint(0, 2, s, generator=probes).float() - 1 for s in ((2, 3), (2,))]
        z = torch.cat([s.flatten() for s in signs])
        H, g = torch.autograd.functional.hessian(loss, p), torch.func.grad(loss)(p)
        if training.clip is not None:
            g = g * min(1.0, training.clip / float(g.norm()))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (z * (H @ z)) ** 2
        curvature = (v / (1 - 0.999**t)) ** (training.hessian_power / 2)
        p = p - 0.05 * (m / (1 - 0.9**t) / (curvature + EPS) + training.weight_decay * p)
    assert close(found, {"1.weight": p[:6].view(2, 3), "1.bias": p[6:]}, 2e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_the_seed_decides_adahessians_probes_and_nothing_else(norm: bool) -> None:
    start, images = toy.trained(norm=norm)[0], toy.images("north")
    local, state = toy.ToyLocal("north", toy.network(norm), toy.Log()), torch.get_rng_state()
    whole = replace(ADAHESSIAN, batch_size=24)  # one batch, whose order does not matter but for rounding
    first = fit(local, start, images, whole, seed=1)
    assert w.digest(fit(local, start, images, whole, seed=1)) == w.digest(first)
    other = fit(local, start, images, whole, seed=2)
    assert w.norm(w.subtract(other, first)) > 0.01 * w.norm(w.subtract(first, start))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not p.requires_grad or p.is_leaf for p in local.network.parameters().values())
    assert w.first_nonfinite(first) is None


def test_a_scenario_may_train_by_adahessian(tmp_path: Path) -> None:
    text = GOOD_SCENARIO.replace("optimizer: sgd", "optimizer: adahessian, hessian_power: 0.5")
    assert text != GOOD_SCENARIO
    scenario = read(write(tmp_path, text))
    local = scenario.training.local
    assert (local.optimizer, local.hessian_power) == ("adahessian", 0.5)
    assert read(write(tmp_path, to_yaml(scenario))).training == scenario.training
    with pytest.raises(InputError, match="hessian_power"):
        read(write(tmp_path, text.replace("0.5", "1.5")))


# ---------------------------------------------------------------------------------------- rapid_retrain


@pytest.mark.parametrize(("share", "rounds"), [(0.1, 1), (0.5, 2), (0.8, 3), (1.0, 4)])
def test_it_trains_anew_in_a_share_of_the_rounds(share: float, rounds: int) -> None:
    case, log = toy.case("patients"), toy.Log()
    tasks: list[Any] = []

    class Watch(toy.Asked):
        def round(self, round: Any) -> None:
            tasks.append(round.asks["north"])

    toy.run(RapidRetrain(share=share, local_epochs=1).unlearn(case), watchers=[Watch(log)])
    assert len(tasks) == rounds
    assert w.digest(tasks[0].weights) == w.digest(case.initial)
    assert {task.select for task in tasks} == {case.retain}
    assert {(t.training.optimizer, t.training.lr, t.training.epochs) for t in tasks} == {
        ("adahessian", RapidRetrain().lr, 1)
    }


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_after_training_by_adahessian_it_is_retraining_bit_for_bit(wish: str) -> None:
    case = toy.case(wish)
    local = replace(case.training.local, optimizer="adahessian", lr=0.02, hessian_power=0.5)
    case = replace(case, training=replace(case.training, local=local))
    exact = toy.run(fedavg(case.initial, case.sites, case.retain, local, range(case.rounds), case.seed))
    rapid = RapidRetrain(share=1.0, lr=0.02, hessian_power=0.5)
    assert w.digest(toy.run(rapid.unlearn(case))) == w.digest(exact)
    assert w.digest(toy.run(replace(rapid, hessian_power=0.6).unlearn(case))) != w.digest(exact)


# -------------------------------------------------------------------------------------------- influence


@pytest.mark.parametrize("damping", [1.0, 1e-3])
def test_woodfisher_is_the_inverse(damping: float) -> None:
    """The inverse by linear algebra, and by one update of rank one (Sherman and Morrison) per gradient."""
    g, v = draw(7, 11), draw(11, seed=2)
    H = damping * torch.eye(11, dtype=torch.float64) + g.T @ g / 7
    inverse = torch.eye(11, dtype=torch.float64) / damping
    for x in g:
        u = inverse @ x
        inverse = inverse - torch.outer(u, u) / (7 + x @ u)
    assert torch.allclose(inverse, torch.linalg.inv(H), rtol=1e-6)
    rows, vector = {"a": g[:, :6].view(7, 2, 3), "b": g[:, 6:]}, {"a": v[:6].view(2, 3), "b": v[6:]}
    found = woodfisher(rows, vector, damping)
    assert found["a"].shape == (2, 3)
    assert torch.allclose(torch.cat([found["a"].flatten(), found["b"]]), inverse @ v, rtol=1e-6)


def test_without_images_damping_alone_is_the_curvature() -> None:
    found = woodfisher({"a": torch.zeros(0, 3)}, {"a": torch.tensor([1.0, 2.0, 3.0])}, 0.5)
    assert found["a"].tolist() == [2.0, 4.0, 6.0]


@dataclass
class Ward:
    """A hospital of the linear model: ``x`` (N, 3), ``y`` (N,), of which the first ``lost`` are to be forgotten."""

    x: Tensor
    y: Tensor
    lost: int
    site: SiteId = "a"
    network: Network = field(default_factory=linear)
    classes: int = 2

    def images(self, select: Select) -> Images:
        pick = torch.arange(len(self.y))
        pick = pick[: self.lost] if select.only else pick[self.lost :]
        return Images(self.x[pick, None], self.y[pick], pick)


def requested(wards: Mapping[SiteId, Ward], original: Weights) -> Case:
    """The case in which each ward loses what it says; one that loses everything has left."""
    lost = {site: ward.lost for site, ward in wards.items() if ward.lost}
    kept = {site: len(ward.y) - ward.lost for site, ward in wards.items() if ward.lost < len(ward.y)}
    case = replace(toy.case("patients"), original=original, lost=lost, kept=kept)
    return replace(case, sites=tuple(kept), holders=tuple(lost))


def unlearned(strategy: Influence, wards: Mapping[SiteId, Ward], original: Weights) -> Weights:
    def reply(asks: Asks) -> Replies:
        return {site: task(wards[site]) for site, task in asks.items()}

    return toy.by_hand(strategy.unlearn(requested(wards, original)), reply)


def test_an_influence_step_by_hand() -> None:
    """Two of four images leave: v = (2 / 4) (g_f - g_r), and the Fisher is that of the other two."""
    error = torch.softmax(X @ W.T + B, 1) - F.one_hot(Y, 2)
    rows = torch.cat([(error[:, :, None] * X[:, None]).flatten(1), error], 1)  # (4, 8): weight, bias
    v = (rows[:2].mean(0) - rows[2:].mean(0)) / 2
    H = 0.3 * torch.eye(8) + rows[2:].T @ rows[2:] / 2
    expected = torch.cat([W.flatten(), B]) + 1.5 * torch.linalg.inv(H) @ v
    found = unlearned(Influence(alpha=1.5, damping=0.3, recovery=Recovery(0)), {"a": Ward(X, Y, 2)}, WEIGHTS)
    assert close(found, {"1.weight": expected[:6].view(2, 3), "1.bias": expected[6:]}, 1e-5)


def optimum(x: Tensor, y: Tensor) -> Weights:
    """Where the mean cross-entropy of the linear model is least."""
    a, b = (
        torch.zeros(2, 3, dtype=torch.float64).requires_grad_(),
        torch.zeros(2, dtype=torch.float64).requires_grad_(),
    )
    solver = torch.optim.LBFGS([a, b], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x.double() @ a.T + b, y)
        loss.backward()
        return loss

    solver.step(closure)
    return {"1.weight": a.detach().float(), "1.bias": b.detach().float()}


@pytest.mark.parametrize(
    "lost", [{"a": 20, "b": 10, "c": 0}, {"a": 0, "b": 200, "c": 0}], ids=["some", "all"]
)
def test_one_step_leads_to_the_retrained_optimum_of_a_logistic_regression(lost: Mapping[str, int]) -> None:
    """600 labels drawn from the model, so that its Fisher is nearly its Hessian; some of two leave, or all of one."""
    x = draw(600, 3).float()
    chance = torch.sigmoid(x @ torch.tensor([1.0, -0.5, 0.8]))
    y = (torch.rand(600, generator=torch.Generator().manual_seed(2)) < chance).long()
    wards = {
        site: Ward(x[i * 200 : (i + 1) * 200], y[i * 200 : (i + 1) * 200], lost[site])
        for i, site in enumerate("abc")
    }
    keep = torch.cat([torch.arange(200) >= n for n in lost.values()])
    original, retrained = optimum(x, y), optimum(x[keep], y[keep])
    strategy = Influence(damping=1e-4, samples=1000, recovery=Recovery(0))

    def distance(weights: Weights) -> float:
        return w.norm(w.subtract(weights, retrained))

    assert distance(unlearned(strategy, wards, original)) < 0.35 * distance(original)
    assert distance(unlearned(replace(strategy, alpha=-1.0), wards, original)) > 1.5 * distance(original)


def test_without_a_step_nothing_moves_and_with_one_no_statistic() -> None:
    case = toy.case("site", norm=True)
    still = toy.run(Influence(alpha=0.0, recovery=Recovery(0)).unlearn(case), toy.ToyLink(norm=True))
    assert w.digest(still) == w.digest(case.original)
    moved = toy.outcome(Influence(recovery=Recovery(0)), "site", norm=True).weights
    changed = {name for name in moved if not torch.equal(moved[name], case.original[name])}
    assert changed == set(case.layout.parameters)


def test_the_fisher_is_of_drawn_images() -> None:
    """As many as asked: 1 of 4 has 4 outcomes, which the seeds find; 9 of 4 are all, in whatever order."""

    def answers(samples: int) -> set[tuple[float, ...]]:
        task = Solve(WEIGHTS, Select(split="val"), WEIGHTS, 0.1, samples, 0)
        replies = [replace(task, seed=seed)(Clinic()) for seed in range(30)]
        assert {reply.count for reply in replies} == {4}
        return {tuple(round(float(x), 3) for x in reply.arrays["1.weight"].flatten()) for reply in replies}

    assert len(answers(1)) == 4
    assert len(answers(9)) == 1

"""Information reset, against a Gauss-Newton matrix written out and a ranking in plain Python."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import Recovery, Weights
from strategies.information_reset import Curvature, InformationReset, informative
from tests import toy
from tests.strategies.test_client import FORGET, WEIGHTS, B, Clinic, W, X

pytestmark = pytest.mark.rounding


def test_curvature_is_the_gauss_newton_diagonal_of_a_linear_model() -> None:
    """Of scores z = W x + b and two classes, J^T (diag p - p p^T) J has p_0 p_1 x_j^2 for a weight, p_0 p_1 for a bias.

    Two images: the mean over both. Labels do not enter.
    """
    p = torch.softmax(X[:2] @ W.T + B, 1)
    both = (p[:, 0] * p[:, 1])[:, None]
    expected = {
        "1.weight": (both * X[:2].square()).mean(0).expand(2, 3),
        "1.bias": both.mean(0).expand(2),
    }
    reply = Curvature(WEIGHTS, FORGET)(Clinic())
    assert reply.count == 2
    assert all(torch.allclose(reply.arrays[name], expected[name], rtol=1e-5) for name in expected)


def test_curvature_is_the_gauss_newton_diagonal_of_a_deep_model() -> None:
    """The matrix itself, by the Jacobian of one image's scores."""
    weights, select = toy.case("patients").original, toy.case("patients").forget
    network, images = toy.network(), toy.select("north", select)
    found = Curvature(weights, select)(toy.ToyLocal("north", network, toy.Log())).arrays
    network.load(weights)
    module = network.module.eval()
    parameters = {name: p.detach() for name, p in network.parameters().items()}

    def scores(values: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, values, (x[None],))
        return out[0]

    expected = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for x in images.pixels:
        p = torch.softmax(scores(parameters, x), 0)
        middle = torch.diag(p) - torch.outer(p, p)
        for name, J in torch.func.jacrev(scores)(parameters, x).items():
            J = J.flatten(1)
            expected[name] += (J * (middle @ J)).sum(0).view_as(expected[name]) / len(images.pixels)
    for name, diagonal in expected.items():
        # p - p^2 cancels where an image is known by heart; the other way adds squares.
        assert torch.allclose(found[name], diagonal, rtol=1e-3, atol=1e-4 * float(diagonal.max()))


@pytest.mark.parametrize("by", ["parameters", "information"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_the_most_informative_by_sorting(share: float, by: str) -> None:
    generator = torch.Generator().manual_seed(3)
    H_f, others = (torch.rand(4, 5, generator=generator) for _ in range(2))
    others[0, 0] = H_f[0, 0] = 0  # a dead weight tells nothing
    found = informative(H_f, H_f + others, share, by)
    information = {
        (i, j): 0.5 * float(H_f[i, j] / (H_f + others)[i, j].clamp(min=1e-30)) ** 2
        for i in range(4)
        for j in range(5)
    }
    ranked, total = sorted(information, key=lambda ij: -information[ij]), sum(information.values())
    if by == "parameters":
        count = int(share * 20)
    else:
        sums = [sum(information[ij] for ij in ranked[: k + 1]) for k in range(20)]
        count = min(range(20), key=lambda k: abs(sums[k] - share * total))
    assert {tuple(ij) for ij in found.nonzero().tolist()} == set(ranked[:count])


def test_only_what_was_reset_moves() -> None:
    case = toy.case("patients")
    reset: Weights = toy.run(InformationReset(recovery=Recovery(0)).unlearn(case))
    repaired = toy.outcome(InformationReset(recovery=Recovery(2)), "patients").weights
    for name in case.layout.parameters:
        zero = reset[name] == 0
        assert 0 < int(zero.sum()) <= int(0.4 * zero.numel()) + (zero & (case.original[name] == 0)).sum()
        assert torch.equal(reset[name][~zero], case.original[name][~zero])
        assert torch.equal(repaired[name][~zero], case.original[name][~zero])
    assert w.norm(w.subtract(repaired, reset)) > 0
    assert toy.chances(reset, "patients").mean() < toy.chances(case.original, "patients").mean()

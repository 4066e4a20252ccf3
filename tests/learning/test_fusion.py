"""Networks for pairs and for tables: what comes out, and what reaches which answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedunlearn.core import Companion, Form
from fedunlearn.learning.models import MODELS, LateFusion, Mlp, Network, features
from fedunlearn.learning.models.fusion import Fused

REPORT, TABLE = Companion((12,), tokens=True), Companion((5,), tokens=False)
COMPANIONS = {"report": REPORT, "table": TABLE}


def form(beside: str = "report", shape: tuple[int, ...] = (1, 28, 28)) -> Form:
    return Form(shape, 4, (3,), {beside: COMPANIONS[beside]})


def pairs(count: int = 4, beside: str = "report", shape: tuple[int, ...] = (1, 28, 28)) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(5)
    words = torch.randint(1, 1024, (count, 12), generator=made)
    words[:, 9:] = 0
    other = words if beside == "report" else torch.randn(count, 5, generator=made)
    return {"image": torch.randn(count, *shape, generator=made), beside: other}


def built(model: LateFusion, beside: str = "report") -> Fused:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = model.build(form(beside)).double()
    assert isinstance(module, Fused)
    return module


def shown(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    wide = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    outputs: Tensor = module(wide)
    return outputs


@pytest.mark.parametrize("image", ["small_cnn", "resnet18"])
@pytest.mark.parametrize(
    ("beside", "text"), [("report", "transformer"), ("report", "bag"), ("table", "transformer")]
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 40), (1, 28, 28, 28)])
def test_an_answer_for_image_companion_and_both(image, beside, text, shape):
    """Built without memory for its numbers: what counts is which shapes come out."""
    with torch.device("meta"):
        module = LateFusion(image=image, text=text).build(form(beside, shape))
        other = torch.empty(2, 12, dtype=torch.int64) if beside == "report" else torch.empty(2, 5)
        assert module({"image": torch.empty(2, *shape), beside: other}).shape == (2, 4, 3)


@pytest.mark.parametrize("text", ["transformer", "bag"])
def test_the_image_reaches_its_answer_and_the_joint_one_alone_and_so_does_the_report(text):
    module, one = built(LateFusion(text=text)), pairs()
    before = shown(module, one)
    other_image = shown(module, {**one, "image": one["image"].flip(0)})
    other_report = shown(module, {**one, "report": one["report"].flip(0)})
    same = [
        torch.equal(before[..., k], after[..., k]) for after in (other_image, other_report) for k in range(3)
    ]
    assert same == [False, True, False, True, False, False]


@pytest.mark.parametrize("text", ["transformer", "bag"])
def test_places_without_a_word_say_nothing(text):
    """Filled up with 0, a report is answered alike by a longer network that is given the shorter one's weights."""
    short = built(LateFusion(text=text))
    with torch.random.fork_rng(devices=[]):
        long = (
            LateFusion(text=text)
            .build(Form((1, 28, 28), 4, (3,), {"report": Companion((20,), True)}))
            .double()
        )
    state = dict(short.state_dict())
    if text == "transformer":
        state["companion.places"] = torch.cat([state["companion.places"], torch.full((8, 32), 7.0)])
    long.load_state_dict(state)
    one = pairs()
    filled = {**one, "report": torch.nn.functional.pad(one["report"], (0, 8))}
    torch.testing.assert_close(shown(long, filled), shown(short, one), rtol=1e-12, atol=1e-12)


def test_order_counts_for_the_transformer_and_not_for_the_bag():
    one = pairs()
    turned = {**one, "report": one["report"][:, [1, 0, *range(2, 12)]]}
    ordered, bag = built(LateFusion()), built(LateFusion(text="bag"))
    assert not torch.allclose(shown(ordered, one), shown(ordered, turned))
    torch.testing.assert_close(shown(bag, one), shown(bag, turned), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", ["transformer", "bag"])
def test_a_report_without_words_has_an_answer(text):
    one = pairs()
    outputs = shown(built(LateFusion(text=text)), {**one, "report": torch.zeros_like(one["report"])})
    assert outputs.isfinite().all()


@pytest.mark.parametrize("beside", ["report", "table"])
def test_each_pair_is_answered_by_itself(beside):
    module, many = built(LateFusion(), beside), pairs(6, beside)
    alone = torch.cat([shown(module, {name: x[[k]] for name, x in many.items()}) for k in range(6)])
    torch.testing.assert_close(shown(module, many), alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("text", ["transformer", "bag"])
def test_gradients_of_each_pair_at_once_are_those_of_one_after_the_other(text):
    module, many = built(LateFusion(text=text)), pairs()
    many["image"] = many["image"].double()
    weights: dict[str, Tensor] = dict(module.named_parameters())

    def loss(state: dict[str, Tensor], one: dict[str, Tensor]) -> Tensor:
        inputs = {name: x.unsqueeze(0) for name, x in one.items()}
        outputs: Tensor = torch.func.functional_call(module, state, (inputs,))
        return outputs.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, many)
    for k in range(4):
        module.zero_grad()
        loss(weights, {name: x[k] for name, x in many.items()}).backward()
        for name, parameter in weights.items():
            assert parameter.grad is not None
            torch.testing.assert_close(each[name][k], parameter.grad, rtol=1e-8, atol=1e-10)


def test_it_can_be_differentiated_twice():
    """As AdaHessian does."""
    module, one = built(LateFusion()), pairs()
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(shown(module, one).square().mean(), parameters, create_graph=True)
    squares = torch.stack([g.square().sum() for g in gradients]).sum()
    again = torch.autograd.grad(squares, parameters, allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in again)


def test_embeddings_of_each_branch_can_be_read():
    model = LateFusion(hidden=10)
    module, one, seen = built(model), pairs(), dict[str, Tensor]()
    for whose, name in module.branches.items():
        module.get_submodule(name).register_forward_hook(
            lambda _, given, made, whose=whose: seen.update({whose: made})
        )
    outputs = shown(module, one)
    assert {whose: x.shape for whose, x in seen.items()} == dict.fromkeys(
        ("image", "companion", "both"), (4, 10)
    )
    heads = {"image": module.image_head, "companion": module.companion_head, "both": module.head}
    for k, whose in enumerate(heads):
        assert torch.equal(heads[whose](seen[whose]), outputs[..., k])


def test_what_the_last_layer_is_given_is_the_joint_embedding():
    network = Network(LateFusion(hidden=10), form())
    assert network.layout.head == ("head.weight", "head.bias")
    assert network.layout.first == "image.0.0.weight"
    assert features(network.module, network.layout.head[0], pairs()).shape == (4, 10)
    assert network.passes == 4


def test_one_companion_is_taken_and_not_two():
    with pytest.raises(ValueError, match=r"one companion, found \['report', 'table'\]"):
        LateFusion().build(Form((1, 28, 28), 4, (3,), COMPANIONS))


def test_a_table_alone():
    """5·64 + 64, 64·64 + 64 and 64·3 + 3 numbers."""
    network = Network(Mlp(), Form((5,), 3))
    assert network.module(torch.randn(2, 5)).shape == (2, 3)
    assert sum(x.numel() for x in network.read().values()) == 4739
    assert Mlp(kind="multilabel").build(Form((5,), 2, (7,)))(torch.randn(2, 5)).shape == (2, 2, 7)
    assert {"mlp", "late_fusion"} <= set(MODELS)


def test_the_parameters_of_the_default():
    """Image: 1→8→32 channels, 32·7·7→64: 80 + 16 + 2336 + 64 + 100416 + the trunk's own last layer, 64·64 + 64.

    Words: 1024·32; places 12·32; three norms of 64; attention 32·96 + 96 and 32·32 + 32; each word 32·64 + 64 and
    64·32 + 32; out 32·64 + 64. Joint 128·64 + 64; three heads of 64·4 + 4.
    """
    image = 80 + 16 + 2336 + 64 + 100_416 + 4160
    words = 32_768 + 384 + 192 + 3168 + 1056 + 2112 + 2080 + 2112
    with torch.device("meta"):
        module = LateFusion().build(form())
    assert sum(p.numel() for p in module.parameters()) == image + words + 8256 + 3 * 260

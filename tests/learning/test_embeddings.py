"""Embeddings and their aims, on a network of two branches small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import IMAGE, Batch, Images, Layout, LocalTraining, Select, Weights, derive
from fedunlearn.learning.embeddings import (
    _NEAR,
    SINGLE,
    Aimed,
    Decouple,
    Gate,
    Reembed,
    aiming,
    embedded,
    embeddings,
    mismatched,
    noisy,
)
from fedunlearn.learning.local import fit, scaled
from fedunlearn.learning.objectives import marked

pytestmark = [pytest.mark.rounding, pytest.mark.usefixtures("wide")]

PLAIN = LocalTraining(epochs=1, batch_size=4, optimizer="sgd", lr=0.1, momentum=0.0)


class Pair(nn.Module):
    """An image of 4 pixels, a text of 3 words of ten; embeddings of 5 and 4 numbers, and of 3 together."""

    branches = {"image": "image", "companion": "text", "both": "joint"}  # noqa: RUF012  # as networks have it

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh())
        self.words = nn.Embedding(10, 4)
        self.text = nn.Identity()
        self.joint = nn.Linear(9, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        z, t = self.image(inputs[IMAGE]), self.text(self.words(inputs["report"]).mean(1))
        found: Tensor = self.head(self.joint(torch.cat([z, t], 1)))
        return found


class Net:
    """`fedunlearn.core.Network` of a `Pair`, in float64."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.module = Pair().double()
        names = tuple(self.module.state_dict())
        self.layout = Layout(names, (), "image.1.weight", ("head.weight", "head.bias"), ("head.weight",))
        self.kind, self.device, self.patch, self.passes = "classification", torch.device("cpu"), None, 0

    def load(self, weights: Weights) -> None:
        self.module.load_state_dict(dict(weights))

    def read(self) -> dict[str, Tensor]:
        return {name: x.clone() for name, x in self.module.state_dict().items()}

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.module.named_parameters())


class Ward:
    """A hospital of seven pairs, of which the first three are to forget."""

    site, classes = "north", 2

    def __init__(self, retained: int = 4) -> None:
        self.network, self.retained = Net(), retained
        generator = torch.Generator().manual_seed(1)
        self.every = Images(
            torch.randn(3 + retained, 1, 2, 2, generator=generator, dtype=torch.float64),
            torch.zeros(3 + retained, dtype=torch.int64),
            torch.arange(3 + retained),
            companions={"report": torch.randint(10, (3 + retained, 3), generator=generator)},
        )

    def images(self, select: Select) -> Images:
        return self.every.at(slice(0, 3) if select.only else slice(3, None))


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels in float64 stay so."""

    def keep(pixels: Tensor) -> Tensor:
        return pixels if pixels.dtype == torch.float64 else scaled(pixels)

    monkeypatch.setattr("fedunlearn.learning.local.scaled", keep)
    monkeypatch.setattr("fedunlearn.learning.embeddings.scaled", keep)


GATE = Gate(5)


def reembedded(ward: Ward, aimed: Aimed, noise: tuple[float, float] = (0.0, 0.0), **how: object) -> Weights:
    weights = ward.network.read()
    task = Reembed(weights, Select(only="r"), Select(without=("r",)), PLAIN, 7, aimed, noise)
    reply = replace(task, **how)(ward)  # type: ignore[arg-type]
    assert reply.weights is not None
    return w.subtract(reply.weights, weights)


def aimed(lose: float, keep: float = 0.25, gate: Gate | None = GATE, margin: float | None = None) -> Aimed:
    return Aimed("head.weight", (lose, lose), (keep, keep), gate, margin)


@pytest.mark.parametrize("gate", [Gate(5), None])
@pytest.mark.parametrize("retained", [4, 0])
def test_the_original_without_noise_has_nothing_to_move(gate: Gate | None, retained: int) -> None:
    """UU = MU = UR = MR = 0, and their gradient too: the same frozen gate joins both models' embeddings."""
    moved = reembedded(Ward(retained), aimed(0.25, gate=gate))
    assert w.norm(moved) == 0


def test_of_noisy_aims_only_the_pairs_to_forget_move_and_they_come_nearer() -> None:
    ward = Ward()
    before = ward.network.read()
    forget, retain = ward.images(Select(only="r")), ward.images(Select())
    other = noisy(forget, ward.every, 0.5, 1.0, 9)
    images = aiming(marked(forget, retain), *(embedded(ward, before, part) for part in (other, retain)))  # type: ignore[arg-type]
    goal = aimed(1.0, 0.0)

    def value() -> float:
        batch = Batch(
            {IMAGE: images.pixels, **images.companions}, images.targets, images.rows, dict(images.extra)
        )
        return float(goal(ward.network.module, batch).detach())

    start = value()
    after = fit(ward, before, images, replace(PLAIN, epochs=20, lr=0.02), 1, goal)  # type: ignore[arg-type]
    ward.network.load(after)
    assert value() < 0.9 * start


def test_away_has_the_negative_gradient_until_the_margin() -> None:
    """One step of all images: SGD's step is the gradient."""
    noise, once = (0.3, 0.5), {"accumulate": True}
    towards = reembedded(Ward(), aimed(0.5, 0.0), noise, **once)
    away = reembedded(Ward(), aimed(-0.5, 0.0, margin=1e6), noise, **once)
    assert w.norm(towards) > 1e-3
    assert w.norm(w.add(towards, away)) < 1e-12 * w.norm(towards)
    assert w.norm(reembedded(Ward(), aimed(-0.5, 0.0, margin=1e-9), noise, **once)) == 0


def test_retention_alone_keeps_the_model() -> None:
    assert w.norm(reembedded(Ward(), aimed(0.0, 1.0), (0.5, 0.5))) == 0


def test_distances_are_means_over_each_kind_by_its_share_of_the_batch() -> None:
    """By hand: (B, features) rows, joint ones by the network's own layer."""
    ward = Ward()
    module, images = ward.network.module, ward.every
    inputs = {IMAGE: images.pixels, **images.companions}
    found = embeddings(module, "head.weight", inputs)
    assert list(found) == ["image", "companion", "both"]
    aims = {name: x.detach() + torch.arange(7.0, dtype=torch.float64)[:, None] for name, x in found.items()}
    mark = {"forget": torch.arange(7) < 3}
    extra = {**mark, **aiming(images, aims).extra}
    goal = Aimed("head.weight", (2.0, 3.0), (5.0, 7.0), None)
    batch = Batch(inputs, images.targets, images.rows, extra)
    lengths = torch.cat([aims[name] for name in SINGLE], 1).norm(dim=1), aims["both"].norm(dim=1)
    off = torch.arange(7.0, dtype=torch.float64)  # row i is off by i in each of 9 and of 3 numbers
    near = [(off * n**0.5 - _NEAR * length).clamp(min=0) for n, length in zip((9, 3), lengths, strict=True)]
    (single, joint) = near
    lost, kept = ((2 * single + 3 * joint)[:3].sum() / 7, (5 * single + 7 * joint)[3:].sum() / 7)
    assert float(goal(module, batch).detach()) == pytest.approx(float(lost + kept), rel=1e-12)
    hinged = replace(goal, ceiling=1.0)  # all are farther away in the mean
    assert float(hinged(module, batch).detach()) == pytest.approx(float(lost + 4 / 7 * (5 + 7)), rel=1e-12)
    close = replace(goal, keep=(0.0, 0.0), margin=0.01)
    capped = [torch.minimum(d, 0.01 * length)[:3].sum() / 7 for d, length in zip(near, lengths, strict=True)]
    assert float(close(module, batch).detach()) == pytest.approx(
        float(2 * capped[0] + 3 * capped[1]), rel=1e-12
    )


def test_an_epoch_may_be_one_step() -> None:
    """With SGD, of the mean over all images at the original weights."""
    ward, noise = Ward(), (0.3, 0.5)
    one = reembedded(ward, aimed(0.5), noise, accumulate=True)
    many = reembedded(Ward(), aimed(0.5), noise)
    whole = reembedded(Ward(), aimed(0.5), noise, training=replace(PLAIN, batch_size=7))
    assert w.norm(w.subtract(one, whole)) < 1e-12 < 1e-4 < w.norm(w.subtract(one, many))


def test_the_gate_is_the_formula_row_by_row_and_the_same_every_time() -> None:
    x, y = (
        torch.randn(6, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (5, 4)
    )
    joined = Gate(1)(x, y)
    assert torch.equal(joined, Gate(1)(x, y)) and not torch.equal(joined, Gate(2)(x, y))
    assert torch.allclose(joined[2:4], Gate(1)(x[2:4], y[2:4]), atol=1e-14)
    assert joined.shape == x.shape and torch.allclose(joined.mean(1), torch.zeros(6).double(), atol=1e-12)
    assert float((joined - Gate(1)(x, y + 1)).abs().max()) > 1e-3  # both count
    h = (joined - torch.nn.functional.layer_norm(x, (5,))).norm(dim=1)
    assert bool((h > 0).all())


def test_noise_is_the_same_for_a_seed_and_spares_what_is_no_word() -> None:
    words = torch.tensor([[3, 4, 0], [5, 0, 0], [6, 7, 8]])
    table = torch.arange(6.0).reshape(3, 2)
    images = Images(
        torch.randint(256, (3, 1, 4, 4), dtype=torch.uint8),
        torch.zeros(3, dtype=torch.int64),
        torch.arange(3),
        companions={"report": words, "table": table},
    )
    same = noisy(images, images, 0.0, 0.0, 1)
    assert torch.equal(same.pixels, scaled(images.pixels))
    assert all(torch.equal(same.companions[name], x) for name, x in images.companions.items())
    first, again, other = (noisy(images, images, 0.2, 1.0, seed) for seed in (1, 1, 2))
    assert torch.equal(first.pixels, again.pixels) and not torch.equal(first.pixels, other.pixels)
    assert float(first.pixels.abs().max()) <= 1.0
    report = first.companions["report"]
    assert torch.equal(report == 0, words == 0) and set(report.flatten().tolist()) <= {0, 3, 4, 5, 6, 7, 8}
    for column in (0, 1):
        assert set(first.companions["table"][:, column].tolist()) <= set(table[:, column].tolist())
    alone = Images(images.pixels[:1], images.targets[:1], images.rows[:1])
    assert torch.equal(noisy(alone, alone, 0.2, 1.0, 1).pixels[0], first.pixels[0])  # by row


def test_a_pair_to_forget_gets_the_report_of_another_and_a_lone_one_keeps_its_own() -> None:
    ward = Ward()
    forget = ward.images(Select(only="r"))
    other, again = (mismatched(forget, ward.every, 3) for _ in range(2))
    assert torch.equal(other.pixels, forget.pixels) and torch.equal(other.rows, forget.rows)
    reports = ward.every.companions["report"].tolist()
    for row, report in zip(forget.rows.tolist(), other.companions["report"].tolist(), strict=True):
        assert report in reports[:row] + reports[row + 1 :]
    assert torch.equal(other.companions["report"], again.companions["report"])
    one = forget.at(slice(0, 1))
    assert torch.equal(mismatched(one, one, 3).companions["report"], one.companions["report"])
    alone = replace(ward.every, companions={})
    strange = mismatched(alone.at(slice(0, 3)), alone, 3)
    for row, pixels in enumerate(strange.pixels):
        assert not torch.equal(pixels, alone.pixels[row])
        assert any(torch.equal(pixels, x) for x in alone.pixels)


def decoupled(counts: tuple[float, float, float], training: LocalTraining = PLAIN) -> tuple[Ward, Weights]:
    ward = Ward()
    task = Decouple(
        ward.network.read(), Select(only="r"), Select(without=("r",)), training, 7, "head.weight", counts
    )
    reply = task(ward)  # type: ignore[arg-type]
    assert reply.weights is not None
    return ward, reply.weights


@pytest.mark.parametrize("counts", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 1.0)])
def test_without_decoupling_the_model_stays(counts: tuple[float, float, float]) -> None:
    """Halves to forget and pairs retained are where they should be: squares have no slope there."""
    _, weights = decoupled(counts)
    assert w.norm(w.subtract(weights, Ward().network.read())) < 1e-14


def test_decoupling_alone_leads_the_joint_embedding_to_the_other_pair_s() -> None:
    ward, weights = decoupled((0.0, 1.0, 0.0), replace(PLAIN, epochs=60, lr=0.3))
    before, forget = Ward().network.read(), ward.images(Select(only="r"))
    own = embedded(ward, before, forget)["both"]  # type: ignore[arg-type]
    other = mismatched(forget, ward.every, derive(7, "others"))
    aim = embedded(ward, before, other)["both"]  # type: ignore[arg-type]
    now = embedded(ward, weights, forget)["both"]  # type: ignore[arg-type]
    assert float((now - aim).norm()) < 0.5 * float((own - aim).norm())

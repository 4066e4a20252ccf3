"""Strategies on images with a report beside each, beyond what all promise of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.contract.kinds import shortened
from fedunlearn.contract.toy_pairs import PAIRS
from fedunlearn.contract.toys import Ward
from fedunlearn.core import IMAGE, Batch, Images, RequestId, Select, Strategy, Weights
from fedunlearn.learning import local
from fedunlearn.learning.embeddings import SINGLE, Reembed, embedded
from fedunlearn.learning.mechanics import anew
from strategies.forget_mi import ForgetMI
from strategies.multi_delete import MultiDelete
from strategies.noise_images import NoiseImages

pytestmark = pytest.mark.rounding

SHORT = ForgetMI(epochs=1, lr=1e-2)


def moved(strategy: Strategy, request: RequestId) -> Weights:
    case = PAIRS.case(request, strategy)
    return w.subtract(PAIRS.run(strategy.unlearn(case)), case.original)


@pytest.mark.parametrize("joint", ["gate", "network"])
@pytest.mark.parametrize("request_id", ["patient", "site"])
def test_forget_mi_without_noise_takes_no_step(joint: str, request_id: RequestId) -> None:
    """The original is where all four losses are zero; Adam would make a step of any slope."""
    still = replace(SHORT, joint=joint, noise_std=0.0, other_noise=0.0)  # type: ignore[arg-type]
    assert w.norm(moved(still, request_id)) == 0


def test_forget_mi_s_retention_alone_keeps_the_model() -> None:
    assert w.norm(moved(replace(SHORT, uu=0.0, mu=0.0), "patient")) == 0


@pytest.mark.parametrize("request_id", ["patient", "site"])
def test_the_joint_layer_moves_only_if_it_is_the_network_s_own(request_id: RequestId) -> None:
    own, gate = (moved(replace(SHORT, joint=joint), request_id) for joint in ("network", "gate"))
    layer = "joint.0.weight"
    assert float(own[layer].norm()) > 0 == float(gate[layer].norm())
    for part in ("image.", "companion."):
        assert any(float(x.norm()) > 0 for name, x in gate.items() if name.startswith(part))


def test_all_holders_share_one_gate_and_one_loss() -> None:
    """The four weights by their sum, and each kind by its number at all holders."""
    case = PAIRS.case("patient")
    asks = next(ForgetMI(uu=2.0, ur=1.0, mu=1.0, mr=0.0).unlearn(case))
    tasks = [task for task in asks.values() if isinstance(task, Reembed)]
    assert len(tasks) == len(asks) == len(case.holders)
    assert len({task.aimed.gate for task in tasks}) == 1
    n_f, n_r = 1, 2  # north holds three
    assert tasks[0].aimed.lose == pytest.approx(((n_f + n_r) / n_f * 2 / 4, (n_f + n_r) / n_f / 4))
    assert tasks[0].aimed.keep == pytest.approx(((n_f + n_r) / n_r / 4, 0.0))


def reports(images: Images) -> Tensor:
    return images.companions["report"]


def test_noise_in_the_place_of_an_image_spares_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever noise_images trains on under an image's label holds neither its pixels nor its report."""
    given = list[Images]()

    def fit(ward: object, weights: Weights, images: Images, *rest: object) -> Weights:
        given.append(images)
        return weights

    monkeypatch.setattr("strategies.noise_images.fit", fit)
    case = PAIRS.case("patient")
    task = next(shortened(NoiseImages()).unlearn(case))["north"]
    task(Ward(PAIRS, "north", PAIRS.network()))
    forget = PAIRS.select("north", Select(only="patient"))
    assert not torch.equal(reports(given[0])[: len(forget)], reports(forget))
    assert torch.equal(reports(given[0])[len(forget) :], reports(PAIRS.select("north", case.retain)))


def test_noise_images_of_a_batch_have_words_of_the_batch() -> None:
    [batch] = local.batches(PAIRS.select("north", Select()), 3)
    other = anew(batch.at(lambda x: x[:2]), batch, torch.Generator().manual_seed(1))
    assert isinstance(other.inputs, dict) and isinstance(batch.inputs, dict)
    words = other.inputs["report"]
    assert not torch.equal(words, batch.inputs["report"][:2])
    assert set(words.flatten().tolist()) <= {0, *batch.inputs["report"].flatten().tolist()}
    assert torch.equal(other.image, batch.inputs[IMAGE][:2])
    alone = Batch(batch.image, batch.targets, batch.rows)
    assert anew(alone, alone, torch.Generator()) is alone


def test_multi_delete_keeps_what_either_half_tells() -> None:
    """Decoupling moves the joint layer; with its retention, the halves' branches stay nearer to where they were."""

    def change(ukr: float) -> float:
        case = PAIRS.case("patient")
        weights = PAIRS.run(MultiDelete(lr=1e-2, ukr=ukr).unlearn(case))
        ward, forget = Ward(PAIRS, "north", PAIRS.network()), PAIRS.select("north", case.forget)
        before, after = (embedded(ward, model, forget) for model in (case.original, weights))
        assert float((after["both"] - before["both"]).norm()) > 0
        return sum(float((after[half] - before[half]).norm()) for half in SINGLE)

    assert change(5.0) < change(0.0)

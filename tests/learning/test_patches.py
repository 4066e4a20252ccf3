"""Networks that train on patches of volumes and are slid over whole ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from monai.data.utils import compute_importance_map
from rich.console import Console
from torch import Tensor, nn

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.campaign.gathering import gather
from fedunlearn.contract.kinds import shortened
from fedunlearn.core import IGNORED, Batch, Form, Granularity, InputError, Preparing, Strategy
from fedunlearn.kinds.segmentation.learnt import DiceCrossEntropy
from fedunlearn.learning.local import each_gradient, fit, gradient, outputs, signals
from fedunlearn.learning.models import Network, SmallCNN, features
from fedunlearn.learning.models.volumes import Med3D, UNet3D
from fedunlearn.learning.objectives import taught
from fedunlearn.learning.patches import Patch, corners, cropper, cut, slid, tiles
from fedunlearn.story import simulate
from strategies.retrain import Retrain
from tests import toy_volumes as toy
from tests.runs import weight_files
from tests.test_contract import ENTRIES
from tests.test_simulate_volumes import TINY_VOLUMES, store

pytestmark = pytest.mark.rounding

PATCH: Patch = (6, 8, 5)  # below what scenarios may ask for, so that volumes of 8 voxels have more than one


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        return Network(UNet3D(patch=PATCH), Form(toy.SHAPE, toy.CLASSES))


@pytest.fixture
def ward(network: Network) -> toy.Ward:
    return toy.Ward(toy.VOLUMES, "north", network)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, *sizes: int) -> Batch:
    """Volumes whose every voxel holds a number of its own, as do their targets; and extras on the grid and off it."""
    voxels = torch.arange(count * torch.Size(sizes).numel()).reshape(count, *sizes)
    extra = {"teacher": voxels[:, None].expand(-1, 4, *sizes), "down": torch.ones(count, 5)}
    return Batch(voxels[:, None].float(), voxels, torch.arange(count), extra)


# ----------------------------------------------------------------------------------------------- the cutting


def test_all_that_lies_on_the_grid_is_cut_at_the_same_place() -> None:
    batch = numbered(3, 9, 8, 7)
    found = cut(batch, [[0, 0, 0], [3, 0, 2], [1, 2, 1]], (5, 6, 4))
    assert found.image.shape == (3, 1, 5, 6, 4)
    assert torch.equal(found.targets[1], batch.targets[1, 3:8, 0:6, 2:6])
    assert torch.equal(found.image[:, 0], found.targets.float())
    assert all(torch.equal(found.extra["teacher"][:, c], found.targets) for c in range(4))
    assert torch.equal(found.extra["down"], batch.extra["down"]) and torch.equal(found.rows, batch.rows)


def test_nothing_is_cut_without_a_patch() -> None:
    batch = numbered(2, 4, 4, 4)
    assert cropper(None, 1)(batch) is batch
    assert tiles(batch, None) == [batch]


def test_half_of_the_patches_are_centred_on_a_label() -> None:
    """Of 10 places along an edge of 12 the patch of 3 may begin at, any of 3 shows the voxel: by chance (3 / 10)^3.

    So 1/2 + 1/2 * 0.027 = 0.5135 of patches have it. Of 4000, the share is off by at most 3 sqrt(0.25 / 4000) = 0.024.
    Voxels that nobody knows the class of are no centres.
    """
    targets = torch.zeros(4000, 12, 12, 12, dtype=torch.int64)
    targets[:, 5, 6, 7], targets[:, 0, 0] = 2, IGNORED
    found = torch.tensor(corners(targets, (3, 3, 3), seeded(1)))
    assert (int(found.min()), int(found.max())) == (0, 9)
    shown = ((found <= torch.tensor([5, 6, 7])) & (found > torch.tensor([2, 3, 4]))).all(1)
    assert abs(float(shown.float().mean()) - 0.5135) < 0.024
    centred = (found == torch.tensor([4, 5, 6])).all(1)
    assert abs(float(centred.float().mean()) - 0.5005) < 0.024


def test_the_borders_move_a_patch_inside_and_any_labelled_voxel_may_be_its_centre() -> None:
    targets = torch.zeros(400, 8, 8, 8, dtype=torch.int64)
    targets[:, 0, 7, 4], targets[:, 7, 0, 4] = 1, 2
    found = {tuple(corner) for corner in corners(targets, (4, 4, 8), seeded(2))}
    assert {(0, 4, 0), (4, 0, 0)} < found
    often = [
        sum(c == list(at) for c in corners(targets, (4, 4, 8), seeded(2))) for at in ((0, 4, 0), (4, 0, 0))
    ]
    assert all(80 < times < 140 for times in often)  # a quarter, and 1 in 50 of the other half


def test_without_labels_a_patch_begins_anywhere_alike() -> None:
    """27 places; each 1000 / 27 = 37 times, with a deviation of 6. -1 is no label, but that there is none."""
    targets = torch.full((1000, 6, 6, 6), -1)
    places, times = torch.tensor(corners(targets, (4, 4, 4), seeded(3))).unique(dim=0, return_counts=True)
    assert len(places) == 27 and bool((times - 37).abs().max() < 4 * 6)


def test_the_seed_decides_and_nothing_else() -> None:
    batch, state = numbered(4, 9, 9, 9), torch.get_rng_state()
    first, again, other = (cropper((3, 3, 3), seed) for seed in (1, 1, 2))
    found = [first(batch).targets for _ in range(2)]
    assert not torch.equal(*found), "every batch anew"
    assert torch.equal(again(batch).targets, found[0])
    assert not torch.equal(other(batch).targets, found[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sizes", [(8, 8, 8), (9, 6, 13), (4, 4, 4)])
def test_tiles_cover_every_voxel(sizes: tuple[int, int, int]) -> None:
    batch = numbered(2, *sizes)
    found = tiles(batch, (4, 4, 4))
    assert len(found) == torch.Size((n + 3) // 4 for n in sizes).numel()
    assert all(tile.targets.shape == (2, 4, 4, 4) for tile in found)
    assert torch.equal(
        torch.cat([tile.targets.flatten() for tile in found]).unique(), batch.targets.flatten()
    )


# ------------------------------------------------------------------------------------------------ the network


@pytest.mark.parametrize("patch", [(4, 4, 4), (5, 8, 3), (8, 8, 8)])
def test_slid_over_a_volume_a_network_of_single_voxels_says_the_same(patch: Patch) -> None:
    layer = nn.Conv3d(1, 3, 1)
    x = torch.randn(3, 1, 8, 9, 10, generator=seeded(4))
    with torch.inference_mode():
        assert torch.allclose(slid(layer, x, patch), layer(x), atol=1e-5)
        assert torch.equal(slid(layer, x, None), layer(x))


def test_only_models_of_volumes_have_patches() -> None:
    assert Network(SmallCNN(), Form((1, 28, 28), 2)).patch is None
    assert Network(Med3D(width=8, patch=(16, 16, 16)), Form((1, 16, 16, 24), 2)).patch == (16, 16, 16)


@dataclass(frozen=True)
class Spy:
    """The kind's own objective, which writes down what it is shown."""

    seen: list[Batch] = field(default_factory=list)

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        self.seen.append(batch)
        return DiceCrossEntropy()(module, batch)


def test_it_trains_on_patches_and_nothing_but_the_seed_decides_which(ward: toy.Ward) -> None:
    start, spy = toy.trained()[0], Spy()
    images = taught(toy.volumes("north"), torch.zeros(3, 2, 8, 8, 8))
    training = replace(toy.TRAINING.local, epochs=3)
    found = fit(ward, start, images, training, 1, spy)
    assert [batch.image.shape for batch in spy.seen] == [(2, 1, *PATCH), (1, 1, *PATCH)] * 3
    assert {tuple(batch.extra["teacher"].shape[1:]) for batch in spy.seen} == {(2, *PATCH)}
    assert ward.work == 3 * 3, "one patch of each volume in every epoch"
    assert w.digest(fit(ward, start, images, training, 1)) == w.digest(found)
    assert w.digest(fit(ward, start, images, training, 2)) != w.digest(found)
    whole = fit(toy.Ward(toy.VOLUMES, "north", toy.network()), start, images, training, 1)
    assert w.digest(whole) != w.digest(found)
    first = next(batch for batch in spy.seen if len(batch.rows) == 2)
    assert all(
        bool((inside(one, images.pixels[row])).any())
        for one, row in zip(first.image, first.rows, strict=True)
    )


def inside(patch: Tensor, volume: Tensor) -> Tensor:
    """Where in ``volume`` it is ``patch``."""
    windows = volume.unfold(1, PATCH[0], 1).unfold(2, PATCH[1], 1).unfold(3, PATCH[2], 1)
    return (windows == patch[:, None, None, None]).flatten(4).all(-1)


def test_it_learns_from_patches(ward: toy.Ward) -> None:
    """In 15 epochs, the loss of whole volumes falls."""
    start, images = toy.trained()[0], toy.volumes("north")
    found = fit(ward, start, images, replace(toy.TRAINING.local, epochs=15, lr=0.01), 1)
    before, after = (signals(ward, weights, images)["loss"].mean() for weights in (start, found))
    assert after < 0.8 * before


def test_what_is_kept_of_volumes_comes_of_the_network_slid_over_them(
    ward: toy.Ward, network: Network
) -> None:
    """The slow way: all windows (beginning at 0 and 2 of 8, at 0, and at 0 and 3), weighed by MONAI's bell."""
    weights, images = toy.trained()[1], toy.volumes("north")
    found = outputs(ward, weights, images)
    bell = compute_importance_map(PATCH, mode="gaussian", sigma_scale=0.125)
    total, weight = torch.zeros(3, toy.CLASSES, 8, 8, 8), torch.zeros(8, 8, 8)
    with torch.inference_mode():
        for z in (0, 2):
            for x in (0, 3):
                here = (..., slice(z, z + 6), slice(0, 8), slice(x, x + 5))
                total[here] += bell * network.module.eval()(images.pixels[here])
                weight[here] += bell
    assert torch.allclose(found, total / weight, atol=1e-5)
    kept = signals(ward, weights, images)["intersection"]
    assert torch.equal(kept[:, 1], ((found.argmax(1) == 1) & (images.targets == 1)).flatten(1).sum(1))
    head = network.layout.head[0]
    cutouts = [(..., slice(z, z + 6), slice(0, 8), slice(x, x + 5)) for z in (0, 2) for x in (0, 3)]
    with torch.inference_mode():
        means = torch.stack([features(network.module.eval(), head, images.pixels[here]) for here in cutouts])
    assert torch.allclose(outputs(ward, weights, images, head=head), means.mean(0), atol=1e-5)
    assert not torch.equal(found, outputs(toy.Ward(toy.VOLUMES, "north", toy.network()), weights, images))


def test_gradients_are_those_of_the_mean_loss_over_tiles(ward: toy.Ward, network: Network) -> None:
    """Two along the first edge (0-6, 2-8), one along the second, two along the last (0-5, 3-8)."""
    weights, images = toy.trained()[1], toy.volumes("north")
    network.load(weights)
    cutouts = [(..., slice(z, z + 6), slice(0, 8), slice(x, x + 5)) for z in (0, 2) for x in (0, 3)]
    batches = [Batch(images.pixels[here], images.targets[here], images.rows) for here in cutouts]
    loss = torch.stack([DiceCrossEntropy()(network.module.eval(), batch) for batch in batches]).mean()
    expected = torch.autograd.grad(loss, list(network.parameters().values()))
    found = gradient(ward, weights, images, batch_size=2)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found.values(), expected, strict=True))
    before = ward.work
    each = list(each_gradient(ward, weights, images, batch_size=2))
    assert ward.work - before == 3 * 4, "of each volume, four patches"
    assert [len(g["encoder.0.conv.weight"]) for g in each] == [2, 1]
    for name, g in found.items():
        assert torch.allclose(torch.cat([part[name] for part in each]).mean(0), g, atol=1e-5)


# -------------------------------------------------------------------------------------------- every strategy


@pytest.fixture
def in_patches(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's hospitals train on patches from here on; the original was trained on whole volumes."""
    toy.trained()
    monkeypatch.setattr(toy, "network", lambda: network)


@pytest.mark.usefixtures("in_patches")
@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(shortened(entry.strategy), id=f"{entry.strategy.name}-{number}")
        for number, entry in enumerate(ENTRIES)
        if not entry.strategy.needs.class_labels
    ],
)
def test_every_strategy_for_volumes_works_on_patches(strategy: Strategy) -> None:
    case = toy.case("patient" if Granularity.PATIENTS in strategy.granularity else "site", strategy)
    result = toy.run(strategy.unlearn(case))
    assert w.first_difference(case.original, result) is None
    assert w.first_nonfinite(result) is None
    if isinstance(strategy, Preparing) and strategy.guarantee.value == "exact":
        assert w.digest(result) == w.digest(toy.run(strategy.prepare(case.course))["model"])
    elif strategy.guarantee.value == "exact":
        assert w.digest(result) == w.digest(toy.run(Retrain().unlearn(case)))
    else:
        assert w.digest(result) != w.digest(case.original)


# ------------------------------------------------------------------------------------------------- scenarios


def scenario(folder: Path, model: str, edge: int = 10) -> scenarios.Scenario:
    file = store(folder, edge)
    file.write_text(TINY_VOLUMES.replace("{name: unet3d}", model), encoding="utf-8")
    return scenarios.read(file, ["seeds=[1]", "strategies=[{name: fine_tune, rounds: 1, requests: [some]}]"])


@pytest.mark.further
@pytest.mark.usefixtures("unscored")
def test_a_scenario_may_train_on_patches(tmp_path: Path) -> None:
    """Through a whole run, with the same bits from one worker and two; scores are of whole volumes."""
    read = scenario(tmp_path, "{name: unet3d, patch: [8, 10, 8]}")
    assert read.model == UNet3D(patch=(8, 10, 8))
    runs = []
    for workers in (1, 2):
        one = replace(read, engine=replace(read.engine, workers=workers))
        runs.append(simulate(one, tmp_path / f"run-{workers}", tmp_path, Console(), quiet=True))
    assert weight_files(runs[0]) == weight_files(runs[1])
    table = runs[0].read_table("signals/original-1.parquet")
    assert (table[["true_0", "true_1", "true_2"]].sum(axis=1) == 10**3 - 10).all()  # ten are ignored
    again = tmp_path / "again.yaml"
    again.write_text(scenarios.to_yaml(read), encoding="utf-8")
    assert scenarios.read(again).model == read.model


@pytest.mark.parametrize(
    ("model", "column", "message"),
    [
        (
            "{name: unet3d, patch: [8, 12, 8]}",
            34,
            "found 12, but the data's volumes have 10 x 10 x 10 voxels: lower it",
        ),
        (
            "{name: unet3d, patch: [8, 8, 7]}",
            37,
            "found 7, but model 'unet3d' needs at least 8 voxels: raise it",
        ),
        (
            "{name: med3d_resnet50, patch: [-1, 16, 16]}",
            39,
            "found -1, but model 'med3d_resnet50' needs at least 16",
        ),
    ],
)
def test_a_patch_that_cannot_be_is_refused_at_its_place(
    tmp_path: Path, model: str, column: int, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        gather(scenario(tmp_path, model), tmp_path)
    (problem,) = caught.value.problems
    assert problem.message.startswith(message)
    assert (problem.line, problem.column) == (6, column)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("[8, 8]", "found no `patch.2`; add it"),
        ("[8, 8, 8, 8]", "patch: expected a list of 3, found one of 4"),
        ("8", "patch: expected a list, found '8'"),
        ("[8.5, 8, 8]", "patch.0: expected a whole number, found '8.5'"),
    ],
)
def test_a_patch_has_three_edges(tmp_path: Path, patch: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        scenario(tmp_path, f"{{name: unet3d, patch: {patch}}}")
    assert [(problem.message, problem.line) for problem in caught.value.problems] == [(message, 6)]

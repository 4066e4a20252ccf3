"""Augmentation: each operation against a hand-made image and Pillow; draws from the seed alone; pixels kept."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Generator, Tensor

from fedunlearn import weights as w
from fedunlearn.core import Augmentation, Images, LocalTraining, Training
from fedunlearn.learning import augmentation as a
from fedunlearn.learning.local import fit
from fedunlearn.scenario.draft import Draft
from fedunlearn.scenario.rules import findings
from tests import toy
from tests.runs import run, weight_files

pytestmark = pytest.mark.rounding

ADAM = LocalTraining(epochs=2, batch_size=7, optimizer="adam", lr=1e-2)
SOME: tuple[Augmentation, ...] = ("flips_crops", "trivial_augment")
SQUARE = torch.arange(16.0).mul(16).reshape(1, 1, 4, 4)  # 0, 16, … 240, row by row


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int = 3, edge: int = 28, seed: int = 0) -> Tensor:
    """Images of 256 levels in [-1, 1]."""
    levels = torch.randint(0, 256, (count, channels, edge, edge), generator=seeded(seed))
    return levels.float().div(127.5).sub(1)


def operate(name: str, level: int, sign: int = 1, image: Tensor = SQUARE) -> Tensor:
    return a.OPERATIONS[name](image, torch.tensor([level]), torch.tensor([sign]))[0]


# ------------------------------------------------------------------------------------- in local training


def test_none_is_nothing_at_all() -> None:
    """`test_local` compares it with a plain loop bit for bit; here: no draw, no wrapper."""
    assert LocalTraining().augmentation == "none" and a.augmenter("none", 1) is None


@pytest.mark.parametrize("name", SOME)
def test_the_seed_decides_and_the_global_generator_rests(name: Augmentation) -> None:
    local = toy.ToyLocal("north", toy.network(), toy.Log())
    whole, start = toy.images("north"), toy.trained()[0]
    images = Images(whole.pixels.clamp(-1, 1), whole.targets, whole.rows)
    training, state = replace(ADAM, augmentation=name), torch.get_rng_state()
    first = w.digest(fit(local, start, images, training, seed=1))
    assert w.digest(fit(local, start, images, training, seed=1)) == first
    assert w.digest(fit(local, start, images, training, seed=2)) != first
    assert w.digest(fit(local, start, images, ADAM, seed=1)) != first
    assert torch.equal(torch.get_rng_state(), state)
    assert bool((images.pixels == whole.pixels.clamp(-1, 1)).all()), "the hospital's own images must stay"


@pytest.mark.further
@pytest.mark.usefixtures("unscored")
def test_bits_do_not_depend_on_workers(tmp_path: Path) -> None:
    changes = ["seeds=[1]", "training.augmentation=trivial_augment", "strategies=[{name: salun, epochs: 1}]"]
    two, one = (run(tmp_path, *changes, f"engine.workers={n}", name=f"run-{n}") for n in (2, 1))
    assert weight_files(two) == weight_files(one)
    plain = run(tmp_path, "seeds=[1]", "strategies=[]", name="plain")
    assert not weight_files(plain).items() & weight_files(two).items(), "retraining augments as well"


@dataclass(frozen=True)
class VolumeNet(toy.ToyNet):
    """A model of volumes, as far as `findings` asks."""

    dimensions = (3,)


@pytest.mark.parametrize(("dimensions", "told"), [(2, 0), (3, 1)])
def test_volumes_are_refused(dimensions: int, told: int) -> None:
    model = VolumeNet() if dimensions == 3 else toy.ToyNet()
    training = Training(1, replace(ADAM, augmentation="flips_crops"))
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(Draft))
    draft = Draft(**{**nothing, "model": model, "training": training, "requests": {}, "entries": {}})
    found = [(key, text) for key, text in findings(draft) if key == "training.augmentation"]
    assert len(found) == told and all("is for 2D images" in text for _, text in found)
    assert not list(findings(replace(draft, training=Training(1, ADAM))))


# --------------------------------------------------------------------------------------- flips and crops


class Drawn:
    """Makes torch's draws in `flips_crops` the ones wanted: mirrored or not, shift of rows, shift of columns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mirrored: bool, rows: int, columns: int) -> None:
        shifts = iter([rows, columns])
        monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([[0.0 if mirrored else 1.0]]))
        monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([[next(shifts)]]))


@pytest.mark.parametrize(
    ("mirrored", "rows", "columns", "expected"),
    [
        (False, 0, 0, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (True, 0, 0, [[2, 1, 0], [5, 4, 3], [8, 7, 6]]),
        (False, 1, 0, [[3, 4, 5], [6, 7, 8], [3, 4, 5]]),  # below the last row comes the last but one
        (False, 0, -1, [[1, 0, 1], [4, 3, 4], [7, 6, 7]]),
    ],
)
def test_flips_and_crops_by_hand(
    monkeypatch: pytest.MonkeyPatch, mirrored: bool, rows: int, columns: int, expected: list[list[int]]
) -> None:
    Drawn(monkeypatch, mirrored, rows, columns)
    found = a.flips_crops(torch.arange(9.0).reshape(1, 1, 3, 3), seeded(0))
    assert found[0, 0].tolist() == expected


def test_flips_and_crops_are_padding_and_cutting_of_every_image_by_itself() -> None:
    """Against the slow way: pad by reflection, cut, mirror; all shifts of -4…4 and both sides occur."""
    images, generator = noise(200), seeded(7)
    found = a.flips_crops(images, generator)
    draws = seeded(7)
    mirrored = torch.rand(200, 1, generator=draws) < 0.5
    down, right = (torch.randint(-4, 5, (200, 1), generator=draws) for _ in range(2))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    for i in range(200):
        y, x = 4 + int(down[i]), 4 + int(right[i])
        cut = padded[i, :, y : y + 28, x : x + 28]
        assert torch.equal(found[i], cut.flip(2) if mirrored[i] else cut)
    assert {int(s) for s in down} == set(range(-4, 5)) and 70 < int(mirrored.sum()) < 130


def test_a_mirrored_image_keeps_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(1)
    Drawn(monkeypatch, True, 0, 0)
    assert torch.equal(a.flips_crops(image, seeded(0)).flatten().sort()[0], image.flatten().sort()[0])


# --------------------------------------------------------------------------- TrivialAugment: one by one


@pytest.mark.parametrize(
    ("name", "level", "sign", "expected"),
    [
        ("auto_contrast", 7, 1, (SQUARE * 255 / 240)[0, 0].tolist()),  # 0…240 stretched to 0…255
        ("equalize", 7, 1, SQUARE[0, 0].tolist()),  # 16 pixels, fewer than levels: Pillow leaves them
        ("solarize", 0, 1, SQUARE[0, 0].tolist()),  # threshold 256
        ("solarize", 15, 1, [[0, 16, 32, 48], [64, 80, 96, 112], [127, 111, 95, 79], [63, 47, 31, 15]]),  # 128
        ("solarize", 30, 1, (255 - SQUARE)[0, 0].tolist()),  # threshold 0
        ("posterize", 0, 1, SQUARE[0, 0].tolist()),
        ("posterize", 30, 1, [[0] * 4, [64] * 4, [128] * 4, [192] * 4]),  # two bits: multiples of 64
        ("color", 30, 1, SQUARE[0, 0].tolist()),  # grey has no colour
        ("brightness", 0, 1, (SQUARE * 0.01)[0, 0].tolist()),
        ("brightness", 30, 1, (SQUARE * 2)[0, 0].tolist()),
        ("contrast", 30, 1, (2 * SQUARE - 120)[0, 0].tolist()),  # the mean of 0, 16, … 240 is 120
        ("contrast", 0, 1, (120 + 0.01 * (SQUARE - 120))[0, 0].tolist()),
        ("sharpness", 30, 1, SQUARE[0, 0].tolist()),  # a slope without bends: its own mean, edges kept
        ("rotate", 0, 1, SQUARE[0, 0].tolist()),
        ("rotate", 20, 1, torch.rot90(SQUARE[0, 0]).tolist()),  # 20 of 30 times 135 is 90, counter-clockwise
        ("rotate", 20, -1, torch.rot90(SQUARE[0, 0], -1).tolist()),
        ("translate_x", 15, 1, [[32, 48, 0, 0], [96, 112, 0, 0], [160, 176, 0, 0], [224, 240, 0, 0]]),
        ("translate_x", 8, -1, [[0, 0, 16, 32], [0, 64, 80, 96], [0, 128, 144, 160], [0, 192, 208, 224]]),
        ("translate_y", 8, 1, [[64, 80, 96, 112], [128, 144, 160, 176], [192, 208, 224, 240], [0, 0, 0, 0]]),
        ("translate_y", 30, 1, [[0.0] * 4] * 4),  # a whole edge
        # .99 (y + .5) from the top: .495, 1.485, 2.475, 3.465 to the right of x + .5: 0, 1, 2, 3 pixels
        ("shear_x", 30, 1, [[0, 16, 32, 48], [80, 96, 112, 0], [160, 176, 0, 0], [240, 0, 0, 0]]),
        ("shear_y", 30, 1, [[0, 80, 160, 240], [64, 144, 224, 0], [128, 208, 0, 0], [192, 0, 0, 0]]),
        # 1.485 to the left of 1.5 is .015, still inside: no shift where .495 to the left of .5 is .005
        ("shear_x", 30, -1, [[0, 16, 32, 48], [0, 64, 80, 96], [0, 0, 128, 144], [0, 0, 0, 192]]),
    ],
)  # fmt: skip
def test_an_operation_by_hand(name: str, level: int, sign: int, expected: list[list[float]]) -> None:
    found = operate(name, level, sign)
    assert torch.allclose(found[0], torch.tensor(expected, dtype=torch.float32), atol=1e-4)


def test_sharpness_of_a_dot_by_hand() -> None:
    """26 among zeros: smoothed to 26 (5 / 13) = 10; at strength 30 it is 2 · 26 - 10, around it 2 · 0 - 2."""
    dot = torch.zeros(1, 1, 5, 5)
    dot[0, 0, 2, 2] = 26
    found = operate("sharpness", 30, image=dot)[0].round(decimals=4)
    assert found[1:-1, 1:-1].tolist() == [[-2, -2, -2], [-2, 42, -2], [-2, -2, -2]]
    assert found.sum() == 42 - 16, "the outermost pixels stay"


def test_white_is_solarized_from_strength_1_on() -> None:
    """The thresholds of strengths 0 and 1 are 256 and 256 - 256 // 30 = 248."""
    white = torch.full((1, 1, 4, 4), 255.0)
    assert (
        operate("solarize", 0, image=white).eq(255).all() and operate("solarize", 1, image=white).eq(0).all()
    )
    assert operate("solarize", 1, image=white - 8).eq(247).all()


def test_equalize_by_hand() -> None:
    """512 pixels: 128 of 10, 128 of 20, 256 of 90. Step (512 - 256) // 255 = 1, so 0, 128 and 256, cut to 255."""
    image = torch.tensor([10.0] * 128 + [20.0] * 128 + [90.0] * 256).reshape(1, 1, 16, 32)
    found = operate("equalize", 0, image=image).flatten()
    assert found.unique().tolist() == [0, 128, 255] and found[:128].eq(0).all() and found[256:].eq(255).all()


def test_colour_by_hand() -> None:
    """Pure red, 200: luma 59.8. At strength 30 twice as far from it: 340.2, -59.8, -59.8."""
    red = torch.tensor([200.0, 0, 0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    found = operate("color", 30, image=red)[:, 0, 0]
    assert torch.allclose(found, torch.tensor([340.2, -59.8, -59.8]), atol=1e-3)


def pillow(name: str, image: Image.Image, level: int, sign: int) -> Image.Image:
    """The same with Pillow, as the authors' code calls it; an edge for their 32 pixels."""
    factor, edge = 0.01 + level * 1.99 / 30, image.width
    amount, pixels = sign * 0.99 * level / 30, sign * (edge * level // 30)
    affine = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, pixels, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, pixels),
    }
    enhancers = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name])
    if name in enhancers:
        return enhancers[name](image).enhance(factor)
    others = {
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "rotate": lambda: image.rotate(sign * (level * 135 // 30)),
        "solarize": lambda: ImageOps.solarize(image, 256 - level * 256 // 30),
        "posterize": lambda: ImageOps.posterize(image, 8 - level * 6 // 30),
    }
    return others[name]()


@pytest.mark.parametrize("name", a.OPERATIONS)
def test_every_operation_is_pillows_at_every_strength(name: str) -> None:
    """Within a level, by which Pillow cuts where we round (two where it rounds the grey, too)."""
    rng = np.random.default_rng(0)
    smooth = rng.normal(0, 9, (28, 28, 3)).cumsum(0).cumsum(1)
    array = np.clip(128 + smooth / smooth.std() * 60, 0, 255).astype(np.uint8)
    image = torch.from_numpy(array).permute(2, 0, 1)[None].float()
    for level in range(a.LEVELS):
        for sign in (1, -1):
            expected = torch.from_numpy(
                np.array(pillow(name, Image.fromarray(array), level, sign)).astype(int)
            )
            found = operate(name, level, sign, image).clamp(0, 255).round().permute(1, 2, 0)
            off = (found - expected).abs()
            if (
                name == "rotate"
            ):  # a point on the edge of two pixels may fall to either side; at 135 degrees many do
                assert (off > 0).double().mean() < 0.03, (level, sign)
            else:
                assert int(off.max()) <= 2, (level, sign, int(off.max()))


# ---------------------------------------------------------------------------- TrivialAugment: the choice


def test_one_operation_and_one_strength_each_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Tensor] = {}

    def note(name: str, levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
        seen[name] = level * sign
        return levels

    spies = {name: (lambda *v, name=name: note(name, *v)) for name in a.OPERATIONS}
    monkeypatch.setattr(a, "OPERATIONS", spies)
    images = noise(1400, channels=1, edge=4)
    assert torch.allclose(a.trivial_augment(images, seeded(3)), images, atol=1e-6)
    counts = [len(values) for values in seen.values()]
    # Binomial(1400, 1/14): 100 ± 9.6 for each of the thirteen, and for the identity, which is the rest.
    assert len(counts) == 13 and all(60 < n < 140 for n in (*counts, 1400 - sum(counts)))
    strengths = torch.cat(list(seen.values()))
    assert set(strengths.tolist()) == set(range(-30, 31))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SOME)
def test_ranges_and_shapes_are_kept(name: Augmentation, channels: int) -> None:
    images = noise(300, channels)
    augment = a.augmenter(name, 5)
    assert augment is not None
    changed = augment(images)
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert float(changed.min()) >= -1 and float(changed.max()) <= 1
    assert (changed != images).flatten(1).any(1).float().mean() > 0.7
    levels = (changed + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_what_becomes_of_an_image_does_not_depend_on_its_neighbours_pixels() -> None:
    images = noise(30)
    others = torch.cat([images[:15], noise(15, seed=9)])
    first, second = (a.trivial_augment(x, seeded(1)) for x in (images, others))
    assert torch.equal(first[:15], second[:15])

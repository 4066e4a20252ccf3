"""Twins: planted ones are found, of pictures that are really different none, and why: the first order of a change."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from scipy.fft import dctn

from sites import twins as module
from sites.collection import Collection
from sites.medmnist import MedMNIST
from sites.npz import Npz
from sites.twins import APART, SMALLEST, Twins, fingerprints, twins
from tests.sites.test_data_real import root_with

Array = np.ndarray[Any, Any]


def photographs(count: int, shape: tuple[int, ...], seed: int = 0) -> Array:
    """(count, 1, *shape) uint8: noise that falls with frequency, as in photographs, and some common shape."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.fft.fftfreq(edge) * edge for edge in shape), indexing="ij")
    falling = 1 / np.maximum(np.sqrt(sum(axis**2 for axis in axes)), 1) ** (0.5 + len(shape) / 2)
    fields = [np.fft.ifftn(falling * np.fft.fftn(rng.normal(size=shape))).real for _ in range(count + 1)]
    common, *own = [field / field.std() for field in fields]
    return rounded(np.stack([128 + 30 * common + 25 * field for field in own]))[:, None]


def rounded(image: Array) -> Array:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def found(pixels: Array, patients: list[str] | None = None) -> tuple[Twins, ...]:
    """The twins of images, each of a patient of its own unless said otherwise."""
    names = [f"i{n}" for n in range(len(pixels))]
    table = pd.DataFrame({"image": names, "patient": patients or names})
    return twins(Collection(pixels, np.zeros(len(pixels), np.int64), table, 1, synthetic_patients=True))


def jpeg(image: Array) -> Array:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def resized(image: Array, shape: tuple[int, ...]) -> Array:
    by = [there / here for there, here in zip(shape, image.shape, strict=True)]
    return rounded(ndimage.zoom(image.astype(float), by, order=1, mode="nearest", grid_mode=True))


CHANGES: dict[str, Callable[[Array], Array]] = {
    "compressed": jpeg,
    "resized": lambda image: resized(resized(image, tuple(edge // 2 for edge in image.shape)), image.shape),
    "brighter": lambda image: rounded(image * 1.05),
    "darker": lambda image: rounded(image * 0.95),
    "of more contrast": lambda image: rounded((image.astype(float) - 128) * 1.1 + 128),
    "cropped by a pixel": lambda image: resized(image[1:-1, 1:-1], image.shape),
}


# ------------------------------------------------------------------------------------------------- exact


def test_equal_pixels_of_different_patients_are_exact_twins_and_those_of_one_patient_are_none() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 1, 4, 4), np.uint8)
    pixels[3] = pixels[0]
    pixels[5] = pixels[4]
    assert found(pixels, ["a", "a", "b", "b", "c", "c"]) == (Twins("exact", (0, 3)),)


def test_images_of_one_value_are_nobodys_twins() -> None:
    pixels = np.zeros((5, 1, 32, 32), np.uint8)
    pixels[3:] = 200
    assert found(pixels) == ()


def test_images_that_show_next_to_nothing_are_no_near_twins() -> None:
    """Black but for a grey level here and there: two of them are as like as any."""
    pixels = (np.random.default_rng(0).random((20, 1, 32, 32)) < 0.2).astype(np.uint8)
    assert found(pixels) == ()
    assert [group.kind for group in found(np.concatenate([pixels, pixels[:1]]))] == ["exact"]


# -------------------------------------------------------------------------------------------------- near


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("edge", [32, 64])
def test_a_changed_copy_is_a_near_twin_of_its_original_and_of_nothing_else(change: str, edge: int) -> None:
    if (change, edge) == ("cropped by a pixel", 32):
        pytest.skip("a pixel at every edge is a sixteenth of so small a picture: not all are found")
    pixels = photographs(60, (edge, edge))
    copies = np.stack([CHANGES[change](image[0]) for image in pixels[:20]])[:, None]
    assert set(found(np.concatenate([pixels, copies]))) == {Twins("near", (n, 60 + n)) for n in range(20)}


@pytest.mark.parametrize("change", [lambda x: x[..., ::-1], lambda x: x[..., ::-1, :], lambda x: 255 - x])
def test_mirrored_and_inverted_copies_are_no_twins(change: Callable[[Array], Array]) -> None:
    pixels = photographs(20, (32, 32))
    assert found(np.concatenate([pixels, change(pixels)])) == ()


def test_volumes_and_colour_pictures_have_near_twins_too() -> None:
    volumes = photographs(10, (24, 28, 20))
    blurred = rounded(ndimage.gaussian_filter(volumes[:3].astype(float), (0, 0, 0.5, 0.5, 0.5)))
    assert set(found(np.concatenate([volumes, blurred]))) == {Twins("near", (n, 10 + n)) for n in range(3)}
    grey = photographs(30, (32, 32))
    colours = grey.reshape(10, 3, 32, 32)
    assert found(np.concatenate([colours, rounded(colours[:1] * 1.03)])) == (Twins("near", (0, 10)),)
    tinted = colours[:1].copy()
    tinted[:, 2] = grey[29]  # another picture in blue
    assert found(np.concatenate([colours, tinted])) == ()


def test_pixels_in_floating_point_are_told_like_bytes() -> None:
    pixels = photographs(10, (32, 32))
    pixels = np.concatenate([pixels, rounded(pixels[:2] * 1.05)])
    faint = np.repeat(pixels[:1] // 128, 2, axis=0)  # one grey level
    faint[1, 0, 0, 0] ^= 1
    every = np.concatenate([pixels, faint])
    assert found((every / 127.5 - 1).astype(np.float32)) == found(every) != ()


def test_images_of_few_pixels_have_exact_twins_only() -> None:
    edge = SMALLEST - 1
    pixels = photographs(5, (edge, 40))
    assert found(np.concatenate([pixels, rounded(pixels[:1] * 1.05)])) == ()


def test_one_patients_images_are_no_near_twins_unless_a_copy_is_somebody_elses() -> None:
    pixels = photographs(5, (32, 32))
    near = rounded(pixels[:1] * 1.05)
    assert found(np.concatenate([pixels, near]), ["a", "b", "c", "d", "e", "a"]) == ()
    copied = np.concatenate([pixels, near, pixels[:1]])
    assert found(copied, ["a", "b", "c", "d", "e", "a", "f"]) == (
        Twins("exact", (0, 6)),
        Twins("near", (0, 5, 6)),
    )


def test_a_patient_with_many_like_images_does_not_hide_a_twin() -> None:
    """Ten pictures of a patient's are nearer to one another than to the twin of one of them."""
    pixels = photographs(2, (64, 64))
    series = rounded(
        np.stack([pixels[0] + 0.1 * n for n in range(10)]) + np.arange(10)[:, None, None, None] % 2
    )
    every = np.concatenate([series, CHANGES["resized"](pixels[0, 0])[None, None]])
    assert {group.rows[-1] for group in found(every, [*["a"] * 10, "b"])} == {10}


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photographs(30, (32, 32))
    every = np.concatenate([pixels, rounded(pixels[:9] * 1.04)])
    whole = found(every)
    assert len(whole) == 9
    monkeypatch.setattr(module, "_CHUNK", 200)
    assert set(found(every)) == set(whole)


# ------------------------------------------------------------------------------------------- why it works


def test_coefficients_are_those_of_the_cosine_transform() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 2, 20, 24), np.uint8)
    made = fingerprints(pixels, np.arange(3)).coefficients
    oracle = dctn(pixels.astype(float), axes=(2, 3), norm="ortho")[:, :, : made.shape[2], : made.shape[3]]
    np.testing.assert_allclose(made, oracle, rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_moving_and_stretching_a_picture_changes_its_coefficients_as_foretold(axis: int) -> None:
    """f(x + ε) ≈ f + ε f′ and f((1 + ε) x) ≈ f + ε x f′; what a smooth f has beyond the kept frequencies is little."""
    points, small = 256, 1e-4
    place = (np.arange(points) + 0.5) / points
    count = 24

    def picture(x: Array) -> Array:
        along, across = np.exp(-((x - 0.45) ** 2) / 0.02), 1 + 0.5 * np.cos(np.pi * place)
        return np.outer(along, across) if axis == 0 else np.outer(across, along)

    def coefficients(image: Array) -> Array:
        return dctn(image, norm="ortho")[:count, :count][None, None]

    plain = coefficients(picture(place))
    changed = list(module._changes(plain.astype(np.float32)))
    centred = 2 * place - 1
    moved = (coefficients(picture(place + small)) - plain) / small
    stretched = (coefficients(picture(place + small * centred)) - plain) / small
    size = np.abs(moved).max()
    np.testing.assert_allclose(changed[1 + 2 * axis], moved, atol=2e-3 * size)
    np.testing.assert_allclose(changed[2 + 2 * axis], stretched, atol=2e-3 * size)


def test_unrelated_fingerprints_are_far_apart() -> None:
    """Random vectors of 120 numbers: six dimensions hold √(6/120) of their length in the mean."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 1, 28, 28), np.uint8)
    made = fingerprints(pixels, np.arange(40))
    prints, one, other = made._compared(made.coefficients), np.arange(20), np.arange(20, 40)
    apart = made._apart(prints, np.arange(40), one, other)
    assert apart.min() > 0.4 > APART
    assert abs((1 - apart).mean() - np.sqrt(6 / prints.shape[1])) < 0.06


# -------------------------------------------------------------------------------------------- real images


@pytest.mark.gate
@pytest.mark.data
def test_chest_x_rays_have_no_twins_but_those_that_are_planted() -> None:
    known = Npz(path="nih_cxr1000_128.npz", size=64).load(root_with("nih_cxr1000_128.npz"))
    patients = known.table["patient"].tolist()
    assert found(known.pixels, patients) == ()
    for change in CHANGES.values():
        copies = np.stack([change(image[0]) for image in known.pixels[:100]])[:, None]
        groups = found(np.concatenate([known.pixels, copies]), [*patients, *(f"new {n}" for n in range(100))])
        planted = {(n, 1000 + n) for n in range(100)}
        assert len({group.rows for group in groups} & planted) >= 95
        assert all(group.rows[1] >= 1000 for group in groups)


@pytest.mark.data
def test_breastmnist_holds_many_pictures_twice() -> None:
    """As its source, BUSI, is known to (Pawłowska, Karwat and Żołek, Data in Brief 48, 2023): seen by eye too."""
    known = MedMNIST(set="breastmnist").load(root_with("breastmnist.npz"))
    groups = found(known.pixels)
    assert sum(group.kind == "exact" for group in groups) == 1
    assert 180 <= sum(group.kind == "near" for group in groups) <= 230

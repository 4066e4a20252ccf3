"""A strip shows every image, every model and what it says; the same bytes each time; nothing obeys hostile names."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fedunlearn.results.strip import Strip, figure, packed, png


def strip(images: int = 3, models: int = 2) -> Strip:
    """Images of rising grey; every model gives class 1 the most, and class 0, which they are, a share by number."""
    said = np.zeros((models, images, 3))
    for model in range(models):
        said[model, :, 0] = 0.1 * (model + 1)
        said[model, :, 1] = 1 - said[model, :, 0]
    return Strip(
        "some: forget 2 patients",
        ("A note.",),
        ("blast", "1", "third"),
        np.broadcast_to(np.arange(images)[:, None, None, None], (images, 1, 8, 6)).astype(np.uint8),
        np.zeros(images, dtype=np.int64),
        tuple((f"image-{n}", f"p-{n}", "north") for n in range(images)),
        tuple(f"model-{n}" for n in range(models)),
        said,
    )


def words(one: Strip) -> list[str]:
    return [text.get_text() for text in figure(one).texts]


def test_every_image_has_its_words_and_every_model_a_row_of_bars() -> None:
    found, drawn = words(strip()), figure(strip())
    assert [text for text in found if text.startswith("p-")] == [f"p-{n}\nof north\nblast" for n in range(3)]
    assert [text for text in found if text.startswith("model")] == ["model-0", "model-1"]
    assert found.count("10 %") == found.count("20 %") == 3
    assert found.count("class 1 90 %") == found.count("class 1 80 %") == 3  # a class without a name
    images = [axes for axes in drawn.axes if axes.images]
    brightest = [float(np.asarray(axes.images[0].get_array()).max()) for axes in images]
    assert brightest == pytest.approx([0, 1 / 255, 2 / 255])
    bars = [axes.patches[1].get_width() for axes in drawn.axes if axes.patches]  # type: ignore[attr-defined]
    assert bars == pytest.approx([0.1] * 3 + [0.2] * 3)


def test_a_model_that_is_right_says_no_more_and_a_lost_one_that_it_diverged() -> None:
    said = strip().said.copy()
    said[0, :, :2] = (1.0, 0.0)
    said[1] = np.nan
    found = words(replace(strip(), said=said))
    assert found.count("100 %") == 3 and found.count("diverged") == 3
    assert not [text for text in found if "class 1" in text]


def test_nearly_certain_is_not_certain() -> None:
    said = strip().said.copy()
    said[:, :, :2] = (0.9999, 0.0001)
    assert words(replace(strip(), said=said)).count("99 %") == 6


def test_what_names_hold_is_shown_and_cut() -> None:
    whose = (("i", "a\nb\u202ec" + 10_000 * "x", "$\\frac$"),) * 3
    found = words(replace(strip(), whose=whose, models=("m" * 10_000, "<script>")))
    assert max(map(len, found)) < 200
    assert sum("a\\nb\\u202ecxx" in text and "$\\frac$" in text for text in found) == 3
    png(replace(strip(), whose=whose))  # a dollar is no formula


@pytest.mark.gate
@pytest.mark.parametrize(("channels", "shape"), [(1, (8, 6)), (3, (8, 6)), (1, (6, 8, 4))])
def test_it_is_drawn_to_the_same_bytes(channels: int, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, channels, *shape), np.uint8)
    one = replace(strip(), pixels=pixels)
    assert png(one) == png(one)
    assert Image.open(io.BytesIO(png(one))).size[0] > 700


def test_it_is_kept_as_arrays_without_objects() -> None:
    found = packed(strip())
    assert all(array.dtype != object for array in found.values())
    assert found["whose"].tolist()[1] == ["image-1", "p-1", "north"]
    np.testing.assert_array_equal(found["said"], strip().said)

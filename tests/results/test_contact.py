"""Contact sheets: who is in which row, how an image is turned, what is left out, the same bytes each time."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from fedunlearn.__main__ import app
from fedunlearn.core import InputError
from fedunlearn.results.contact import CLASSES, ENDINGS, HOSPITALS, Sheet, drawn, figure, writable
from fedunlearn.results.drawing import colours
from tests.runs import TINY, write

Array = np.ndarray[Any, Any]


def sheet(sites: int = 2, classes: int = 3, images: int = 30, channels: int = 1) -> Sheet:
    """Images in turn of each hospital, then of each class, every one of a grey level of its own."""
    numbers = np.arange(images)
    names = tuple(f"hospital-{n}" for n in range(sites))
    pixels = np.broadcast_to(numbers[:, None, None, None], (images, channels, 8, 6)).astype(np.uint8)
    targets = (numbers // sites) % classes
    return Sheet(
        "A title", pixels, targets, np.array(names)[numbers % sites], names, tuple(map(str, range(classes)))
    )


def volumes(shape: tuple[int, int, int] = (8, 12, 5)) -> Sheet:
    """One volume of each of two hospitals: bright in the corner where both first axes begin, with a map of that."""
    pixels, targets = np.zeros((2, 1, *shape), np.uint8), np.zeros((2, *shape), np.uint8)
    pixels[:, :, :3, :4], targets[:, :3, :4] = 200, 1
    dealt = pixels, targets, np.array(["a", "b"]), ("a", "b"), ("0", "1", "2")
    return Sheet("Volumes", *dealt, unit="volume", note="A note.")


def texts(of: Figure) -> list[str]:
    return [text.get_text() for text in of.texts]


def shown(of: Figure) -> list[Array]:
    return [np.asarray(axes.images[0].get_array()) for axes in of.axes]


def test_every_hospital_has_a_row_and_every_class_a_caption_with_its_count() -> None:
    one = figure(sheet())
    words = texts(one)
    assert words[0] == "A title"
    assert [w for w in words if w.startswith("class")] == [f"class {c} · 5 images" for c in (0, 1, 2)] * 2
    assert [w for w in words if w.startswith("hospital")] == ["hospital-0", "hospital-1"]
    assert words.count("15 images") == 2
    grey = [round(float(image.mean()) * 255) for image in shown(one)]
    assert len(grey) == 2 * 3 * 4 and len(set(grey)) == 24
    first = grey[:4]  # of the first hospital and class: every sixth image, from the first to the last
    assert first[0] == 0 and first[-1] == 24 and all(number % 6 == 0 for number in first)


def test_classes_and_structures_go_by_their_names() -> None:
    named = replace(sheet(), names=("benign", "malignant", "2"))
    words = [w for w in texts(figure(named)) if " · " in w]
    assert words == ["0 benign · 5 images", "1 malignant · 5 images", "class 2 · 5 images"] * 2
    long = replace(
        sheet(classes=8, images=160), names=("a name that is far too long for the room\n", *"1234567")
    )
    (first, *_) = [w for w in texts(figure(long)) if " · " in w]
    assert first.startswith("0 a name that is") and first.endswith("… · 10 images")
    structures = [t.get_text() for t in figure(replace(volumes(), names=("0", "lesion", "2"))).texts]
    assert "1 lesion" in structures and "structure 2" in structures


def test_a_class_that_a_hospital_lacks_is_said_to_have_no_images() -> None:
    given = sheet()
    there = ~((given.site == "hospital-1") & (given.targets == 2))
    cut = replace(given, pixels=given.pixels[there], targets=given.targets[there], site=given.site[there])
    assert "class 2 · 0 images" in texts(figure(cut))


def test_grey_levels_are_the_same_for_all_and_for_all_kinds_of_pixels() -> None:
    """So that an inverted or dark hospital shows: 127.5 is the middle of bytes, 0 that of floating point."""
    given = sheet()
    floats = replace(given, pixels=(given.pixels / 127.5 - 1).astype(np.float32))
    for a, b in zip(shown(figure(given)), shown(figure(floats)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert all(axes.images[0].get_clim() == (0, 1) for axes in figure(given).axes)


def test_colours_stay_colours() -> None:
    given = sheet(channels=3)
    pixels = given.pixels.copy()
    pixels[:, 1] = 255
    (first, *_) = shown(figure(replace(given, pixels=pixels)))
    assert first.shape == (8, 6, 3)
    np.testing.assert_allclose(first[0, 0], [0, 1, 0])


@pytest.mark.gate
def test_a_flipped_hospital_is_drawn_flipped() -> None:
    given = sheet(classes=1)
    pixels = np.zeros((30, 1, 8, 6), np.uint8)
    pixels[:, :, :2, :2] = 255  # the upper left corner
    pixels[given.site == "hospital-1"] = pixels[0, :, ::-1]
    images = shown(figure(replace(given, pixels=pixels)))
    assert images[0][0, 0] == 1 and images[0][-1, 0] == 0
    assert images[-1][0, 0] == 0 and images[-1][-1, 0] == 1
    (top, *_) = figure(given).axes
    low, high = top.get_ylim()
    assert low > high, "the first row of an image is on top"


def test_of_a_volume_the_middle_slice_is_drawn_with_its_first_axis_to_the_right_and_its_second_up() -> None:
    one = figure(volumes())
    images = shown(one)
    assert len(images) == 2 and images[0].shape == (12, 8)
    assert images[0][:4, :3].min() > 0.7 and images[0][5:].max() == 0
    low, high = one.axes[0].get_ylim()
    assert low < high
    outlines = [[c for c in axes.collections if isinstance(c, QuadContourSet)] for axes in one.axes]
    assert [len(some) for some in outlines] == [1, 1], "one for structure 1, none for 2, which is nowhere"
    box = outlines[0][0].get_paths()[0].get_extents()
    assert abs(box.x1 - 2.35) < 0.01 and abs(box.y1 - 3.35) < 0.01, "a little inside of 2.5 and 3.5"
    assert [t.get_color() for t in one.texts if t.get_text().startswith("structure")] == colours(3)
    assert "A note." in texts(one)[-1]


@pytest.mark.gate
def test_what_is_left_out_is_said() -> None:
    many = sheet(sites=HOSPITALS + 7, classes=CLASSES + 2, images=2000)
    one = figure(many)
    said = " ".join(texts(one)[-1].split())
    assert (
        "Not shown: 7 more hospitals (hospital-12, hospital-13, hospital-14, hospital-15, hospital-16, …)."
        in said
    )
    assert "Not shown: 2 more classes (8, 9)." in said
    assert sum(w.startswith("class") for w in texts(one)) == HOSPITALS * CLASSES
    assert "Not shown" not in texts(figure(sheet()))[-1]


def test_nothing_overlaps_and_nothing_is_cut_off() -> None:
    names = ("a hospital with a name that is far too long for the room beside it", "b")
    given = replace(sheet(classes=8, images=160), sites=names)
    given = replace(given, site=np.where(given.site == "hospital-0", *names))
    many = replace(volumes(), names=tuple(f"a structure {n}" for n in range(40)))
    for one in (figure(given), figure(volumes()), figure(many), figure(sheet(classes=1))):
        renderer = FigureCanvasAgg(one).get_renderer()
        boxes = [text.get_window_extent(renderer) for text in one.texts]
        boxes += [axes.get_window_extent(renderer) for axes in one.axes]
        for number, box in enumerate(boxes):
            assert box.x0 >= 0 and box.x1 <= one.bbox.x1 + 1 and box.y0 >= 0 and box.y1 <= one.bbox.y1
            for other in boxes[number + 1 :]:
                apart = box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
                assert apart or box.width * box.height == 0 or other.width * other.height == 0


@pytest.mark.gate
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_values_give_the_same_bytes(ending: str) -> None:
    content = drawn(sheet(), ending)
    assert content == drawn(sheet(), ending.upper())
    assert content.startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[ending])


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, fedunlearn.results.contact; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sheet.gif", "found the ending '.gif', expected one of .png, .pdf, .svg"),
        ("sheet", "found no ending"),
        ("folder.png", "is a folder"),
        ("nowhere/sheet.png", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_drawn_is_refused_before_anything_is_read(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"expected|folder") as caught:
        writable(tmp_path / name)
    assert message in str(caught.value)
    result = CliRunner().invoke(app, ["check", "3hosp", "--pictures", str(tmp_path / name)])
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_check_draws_what_the_network_will_see_over_an_older_picture(tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    file.write_bytes(b"old")
    result = CliRunner().invoke(app, ["check", str(write(tmp_path)), "--pictures", str(file)])
    assert result.exit_code == 0 and f"pictures: {file}" in result.output
    with Image.open(io.BytesIO(file.read_bytes())) as drawing:
        assert drawing.format == "PNG" and drawing.width > 800


@pytest.mark.gate
def test_of_a_sweep_the_first_cells_data_is_drawn(tmp_path: Path) -> None:
    text = f"{TINY}sweep:\n  data.images: [240, 300]\n"
    result = CliRunner().invoke(
        app, ["check", str(write(tmp_path, text)), "--pictures", str(tmp_path / "sheet.svg")]
    )
    assert result.exit_code == 0, result.output
    assert sum("pictures:" in line for line in result.output.splitlines()) == 1
    assert (tmp_path / "sheet.svg").read_bytes().startswith(b"<?xml")

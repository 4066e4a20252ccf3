"""Pictures of slices: what is in them, that nothing overlaps, that values and bytes stay as they are."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from PIL import Image

from fedunlearn.results import drawing
from fedunlearn.results.drawing import COLUMNS, Picture, Row, packed, png, unpacked


def row(words: str, others: Sequence[str] = (), edges: tuple[int, int] = (12, 8)) -> Row:
    """Class 1 in a box, class 2 nowhere; the original sees the box, the retrained model has it larger, and noise."""
    labels = np.zeros(edges, np.uint8)
    labels[3:7, 2:6] = 1
    larger = labels.copy()
    larger[2, 2], larger[7, 7] = 1, 2
    predicted = {"original": labels, "retrained": larger, **dict.fromkeys(others, larger)}
    image = np.random.default_rng(1).integers(0, 256, edges, dtype=np.uint8)
    return Row((words, "s-01", "of north"), image, labels, predicted, dict.fromkeys(predicted, 0.75))


def picture(*others: str, classes: int = 3) -> Picture:
    rows = (row("To forget", others), row("Retained", others, (8, 12)))
    return Picture("A title", ("A note.", "Another."), classes, ("original", "retrained"), others, rows)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def outlines(figure: Figure) -> list[int]:
    """How many outlines each cell has."""
    return [sum(isinstance(c, QuadContourSet) for c in axes.collections) for axes in figure.axes]


def test_a_picture_comes_back_from_its_arrays() -> None:
    given = picture("words", "fine_tune@20")  # one is called like an array
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **packed(given))
    file.seek(0)
    back = unpacked(dict(np.load(file)))
    assert (back.title, back.note, back.classes) == ("A title", ("A note.", "Another."), 3)
    assert (back.references, back.others) == (given.references, given.others)
    assert [r.words for r in back.rows] == [r.words for r in given.rows]
    assert [r.dice for r in back.rows] == [r.dice for r in given.rows]
    assert png(back) == png(given)


@pytest.mark.gate
def test_the_same_values_are_the_same_bytes_whatever_the_users_style() -> None:
    given = picture("puf")
    with matplotlib.rc_context({"text.color": "white", "font.size": 30, "savefig.dpi": 10}):
        assert png(given) == png(given) == png(picture("puf"))
        assert matplotlib.rcParams["font.size"] == 30
    changed = replace(given, rows=(replace(given.rows[0], image=255 - given.rows[0].image), given.rows[1]))
    assert png(changed) != png(given)


@pytest.mark.gate
def test_no_pyplot_and_nothing_heavy_on_import() -> None:
    code = "import sys, fedunlearn.results.drawing as d; print('matplotlib' in sys.modules); "
    code += "d.png(d.Picture('', (), 2, (), (), ())); print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["False", "False"]


def test_every_cell_shows_its_slice_and_the_outlines_of_its_classes() -> None:
    """Labels: one class. The original's own and the labels': 2. The retrained model's two and the labels': 3."""
    drawn = drawing.figure(picture("puf"))
    assert outlines(drawn) == [1, 2, 3, 3] * 2
    first = picture().rows[0].image
    shown = drawn.axes[0].images[0].get_array()
    assert shown is not None and np.array_equal(shown, first.T)  # its first axis runs to the right
    limits = {(*axes.get_xlim(), *axes.get_ylim()) for axes in drawn.axes}
    assert limits == {(-0.5, 11.5, -0.5, 7.5), (-0.5, 7.5, -0.5, 11.5)}, "each image fills its axes"
    words = texts(drawn)
    assert words.count("Dice 0.75") == 2 * 3
    assert {"A title", "labels", "do nothing", "retraining", "puf", "To forget", "Retained"} <= set(words)


def test_an_outline_runs_around_its_class_even_at_the_edge() -> None:
    """A box of 2 x 3 pixels in the corner: its outline stays within half a pixel, that is on the box."""
    mask = np.zeros((5, 6), bool)
    mask[:2, :3] = True
    axes = Figure().add_subplot()
    drawing.contour(axes, mask, "red", 1.0, "solid")
    (lines,) = (c for c in axes.collections if isinstance(c, QuadContourSet))
    corners = np.asarray(lines.get_paths()[0].vertices)
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert (low >= -0.5).all() and (low < -0.2).all()
    assert (high <= [1.5, 2.5]).all() and (high > [1.2, 2.2]).all()
    assert np.array_equal(corners[0], corners[-1])  # closed


def test_a_dice_that_is_undefined_is_no_number() -> None:
    given = picture()
    rows = (replace(given.rows[0], dice={"original": float("nan"), "retrained": 0.0}), given.rows[1])
    words = [words for words in texts(drawing.figure(replace(given, rows=rows))) if words.startswith("Dice")]
    assert words == ["Dice n/a", "Dice 0.00", "Dice 0.75", "Dice 0.75"]


def test_a_model_that_diverged_has_an_empty_cell_that_says_so() -> None:
    given = picture()
    drawn = drawing.figure(replace(given, others=("wild",)))
    assert outlines(drawn) == [1, 2, 3, 0] * 2
    assert sum("diverged" in words for words in texts(drawn)) == 2


@pytest.mark.parametrize(("count", "lines"), [(0, 1), (5, 1), (6, 2), (10, 2), (11, 3), (40, 8)])
def test_many_strategies_go_on_in_further_lines_beside_the_references(count: int, lines: int) -> None:
    """Eight columns are the labels, two references and five strategies."""
    names = [f"s{number}" for number in range(count)]
    models = drawing._lines(picture(*names))
    assert len(models) == lines
    assert all(line[:2] == ("original", "retrained") and len(line) < COLUMNS for line in models)
    assert [name for line in models for name in line[2:]] == names
    assert max(map(len, models)) - min(map(len, models)) <= lines  # about as many in each


LONG = tuple(f"a_strategy_with_a_long_name_{number}@20" for number in range(6))


@pytest.mark.parametrize("names", [(), ("puf",), LONG], ids=len)
def test_nothing_overlaps_and_all_is_on_the_page(names: Sequence[str]) -> None:
    given = replace(
        picture(*names, classes=12), title="A title that goes on. " * 12, note=("A long note. " * 40, "More.")
    )
    long = replace(given.rows[0], words=("To forget", "an-image-id-without-end-" * 5, "of " + "north" * 9))
    drawn = drawing.figure(replace(given, rows=(long, given.rows[1])))
    renderer = FigureCanvasAgg(drawn).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in drawn.texts]
    boxes += [axes.get_window_extent(renderer) for axes in drawn.axes]
    boxes += [legend.get_window_extent(renderer) for legend in drawn.legends]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-0.5).overlaps(other)
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= drawn.bbox.x1 and box.y1 <= drawn.bbox.y1


@pytest.mark.parametrize("classes", [2, 8, 9, 30])
def test_every_class_has_a_colour_of_its_own(classes: int) -> None:
    found = drawing.colours(classes)
    assert len(set(found)) == classes - 1
    assert "#000000" not in found and "#ffffff" not in {colour.lower() for colour in found}


def test_the_file_is_a_picture_of_readable_size() -> None:
    with Image.open(io.BytesIO(png(picture(*LONG)))) as image:
        assert image.format == "PNG" and "Software" not in image.info
        assert 1000 < image.width < 2500

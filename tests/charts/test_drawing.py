"""Still pictures: what is in the SVG, whatever the data says."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as etree

import pandas as pd
import psutil
import pytest

from fedunlearn.charts import css, drawing, drawn, painters
from fedunlearn.charts.layers import SAID, Rows, Spec, across, layer, layered, rows_of, values
from fedunlearn.charts.look import COLOURS, cut, ink, names
from fedunlearn.core import RunError

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "<script>alert(1)</script>",
    "a\nb\tc",
    "\u202egnp.exe",
    "x" * 10_000,
    "\x1b[31m&amp;\"'",
    "{{7*7}} datum",
)


def chart(labels: tuple[str, ...] = ("one", "two")) -> Spec:
    short = names(labels)
    rows = [
        {"row": short[label], "x": i / 3, "label": cut(f"{label}: {i}")} for i, label in enumerate(labels)
    ]
    return pointed(values(pd.DataFrame(rows)), [*short.values()])


def pointed(rows: Rows, names: list[str], said: str = "Two & three.") -> Spec:
    """A point a row."""
    style = {"filled": True, "color": ink("blue"), "clip": True, "size": 30}
    x = across("x", "x", (0, 2), [0, 1, 2])
    return layered([layer(rows, "point", style, x=x, y=rows_of(names), **SAID)], said, {"step": 20})


def texts(root: etree.Element) -> str:
    return " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))


def test_a_picture_is_as_wide_as_asked_for_and_says_what_it_is():
    for width in (400, 860):
        root = etree.fromstring(drawn(chart(), width))
        assert (root.get("role"), root.get("aria-label")) == ("img", "Two & three.")
        assert float(str(root.get("width"))) == width and root.get("viewBox", "").startswith("0 0 ")
        assert "one" in texts(root)


def test_marks_tell_their_values_and_nothing_else_speaks():
    root = etree.fromstring(drawn(chart(), 400))
    assert [e.get("data-label") for e in root.iter() if e.get("data-label")] == ["one: 0", "two: 1"]
    inside = [e for e in root.iter() if e is not root]
    assert not any(e.get(a) for e in inside for a in ("aria-label", "role", "font-family", "class"))


def test_colours_are_the_pages():
    svg = drawn(chart(), 400)
    assert "var(--chart-blue,#0072b2)" in svg
    assert not any(f'"{colour.light}"' in svg for colour in COLOURS.values())
    assert all(
        f"--chart-{name}:{c.light}" in css() and f"--chart-{name}:{c.dark}" in css()
        for name, c in COLOURS.items()
    )


def test_what_stands_along_the_bottom_has_room_on_a_phone():
    spec, title = chart(), "how much better it is than what was expected, in points"
    spec["layer"][0]["encoding"]["x"]["title"] = title
    for width, lines in ((860, 1), (330, 2)):
        found = [e.text or "" for e in etree.fromstring(drawn(spec, width)).iter() if e.text]
        assert len([words for words in found if words in title and len(words) > 5]) == lines


def test_ids_of_two_pictures_differ():
    first, second = (etree.fromstring(drawn(chart(labels), 400)) for labels in (("a",), ("b",)))
    ids = [{e.get("id") for e in root.iter() if e.get("id")} for root in (first, second)]
    assert ids[0] and ids[1] and not ids[0] & ids[1]
    used = {str(e.get("clip-path"))[5:-1] for e in first.iter() if e.get("clip-path")}
    assert used <= ids[0]


def test_hostile_names_are_text():
    root = etree.fromstring(drawn(chart(HOSTILE), 860))
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
        "svg",
        "g",
        "path",
        "line",
        "text",
        "rect",
        "defs",
        "clipPath",
    }
    said = texts(root) + " ".join(str(e.get("data-label")) for e in root.iter())
    assert "<script>alert(1)" in said and "\\u202e" in said and "\u202e" not in said and "a\\nb" in said
    assert len(drawn(chart(HOSTILE), 860)) < 20_000


KILLING = "a\x00b\x1bc\ufffed\uffff"
"""What no XML can hold ends the process that draws."""


def killing() -> Spec:
    rows = [{"x": 1.0, "row": KILLING, "label": KILLING}]
    return {**pointed(rows, [KILLING]), "description": KILLING}


def test_such_names_are_drawn_as_they_are_written_in_python():
    assert values(pd.DataFrame({"row": [KILLING]})) == [{"row": "a\\x00b\\x1bc\\ufffed\\uffff"}]
    assert "a\\x00b\\x1bc\\ufffed\\uffff" in texts(etree.fromstring(drawn(killing(), 400)))


def test_what_cannot_be_drawn_is_an_error_of_the_run_and_harms_no_other_picture():
    bad = {**chart(), "layer": [{"mark": "nothing"}]}
    with painters((400, 600)) as draw:
        before, wrong, after = draw(chart()), draw(bad), draw(chart())
        for picture, width in zip(wrong, (400, 600), strict=True):
            with pytest.raises(RunError, match=rf"^a chart cannot be drawn {width} pixels wide: \w[^\n]*$"):
                picture.result()
        assert [one.result() for one in before] == [one.result() for one in after] != []
    assert before[0].result() == drawn(chart(), 400) != before[1].result()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("", "the process that draws has ended, with exit status 0|.*[Bb]roken pipe"),
        ("import os; input(); os.abort()", "the process that draws has ended, with exit status -6"),
        (
            """input(); print('{"svg": "<svg', end="")""",
            "the process that draws has ended, with exit status 0",
        ),
        ("""input(); print("warn: x")""", r"the process that draws said 'warn: x\\n'"),
        ("""input(); print('{"svg": "<svg"}')""", r"\w[^\n]*"),
        ("""input(); print('{"error": "no\\\\n  at line 1"}')""", "no"),
        ("""input(); print('{"error": "No module named v"}')""", "No module named v"),
    ],
)
def test_a_painter_that_fails_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
):
    (tmp_path / "painter.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(drawing, "_PAINTER", tmp_path / "painter.py")
    with pytest.raises(
        RunError, match=rf"^a chart cannot be drawn 400 pixels wide: ({words}) \(Two & three\.\)$"
    ):
        drawn(chart(), 400)


def test_no_process_to_draw_in_is_told_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(
        RunError, match=r"^charts cannot be drawn: no process can be started for it: .*/nowhere"
    ):
        drawn(chart(), 400)


def test_a_library_that_is_missing_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "vl_convert.py").write_text("raise ImportError('no vl_convert')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError, match="no vl_convert"):
        drawn(chart(), 400)


def test_painters_are_gone_when_they_are_needed_no_more():
    with painters((400,)) as draw:
        waiting = [draw(chart())[0] for _ in range(50)]
    assert all(one.done() for one in waiting)  # nobody is kept waiting for what will not come
    assert not [p for p in psutil.Process().children() if "painter.py" in " ".join(p.cmdline())]


def test_no_two_names_become_one():
    labels = ["x" * 50 + end for end in "abc"]
    short = names(labels, 10)
    assert len(set(short.values())) == 3 and all(len(name) <= 10 for name in short.values())
    assert names(["a\nb", "a\\nb"])["a\\nb"] == "a\\nb (2)"


@pytest.mark.parametrize(("name", "colour"), COLOURS.items())
def test_colours_can_be_seen_on_their_paper(name: str, colour):
    """WCAG 2: 4.5 for text, 3 for what carries meaning; grid, zone and paper carry none alone."""
    least = {"ink": 7, "muted": 4.5, "grid": 0, "zone": 0, "paper": 0, "edge": 1.5}.get(name, 3)
    assert contrast(colour.light, COLOURS["paper"].light) >= least
    assert contrast(colour.dark, COLOURS["paper"].dark) >= least


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2, from relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)

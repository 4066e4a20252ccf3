"""A chart as a still picture in SVG, drawn without a browser and shown without a script.

It takes its colours from the page around it (`look.css`). Every mark that stands for a number carries what it says as
``data-label``, for whoever shows that when a pointer comes to it. The picture as a whole has the chart's description;
single marks have no part in what a screen reader says, since there is a table behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as etree

from fedunlearn.charts.layers import Spec
from fedunlearn.charts.look import COLOURS, cut, ink
from fedunlearn.core import RunError
from fedunlearn.results.wording import safe

_SVG = "http://www.w3.org/2000/svg"
_VARIABLES = {colour.light: f"var(--chart-{name},{colour.light})" for name, colour in COLOURS.items()}
_PAINTER = Path(__file__).with_name("painter.py")
_NARROW = 560
"""Pixels below which names and legends get less room."""
_LETTER, _KEY = 5.5, 30
"""Pixels of a letter, about, and of what stands before and behind a text in a legend."""
_LETTERS = "Arial, Helvetica, 'Liberation Sans', sans-serif"
"""As wide as those that the picture was laid out with."""
_DROPPED = ("role", "aria-roledescription", "aria-hidden", "font-family", "class", "pointer-events")
_DEFAULTS = {"opacity": "1", "stroke-width": "1", "stroke-opacity": "1", "fill-opacity": "1"}
_ID, _ID_USED = re.compile(r'\bid="([^"]+)"'), re.compile(r'(\bid="|url\(#)([^")]+)')
_NUMBER = re.compile(r"-?\d+\.\d{2,}")


def drawn(chart: Spec, width: int) -> str:
    """A chart as the text of an SVG element.

    Args:
        chart: its description (`layers.layered`).
        width: of the whole picture, in pixels; its height follows.

    Raises:
        RunError: it cannot be drawn.
    """
    with painters((width,)) as draw:
        (picture,) = draw(chart)
        return picture.result()


@contextlib.contextmanager
def painters(widths: Sequence[int]) -> Iterator[Callable[[Spec], tuple[Future[str], ...]]]:
    """Processes that draw charts, one for each width, while this one goes on.

    Vega holds up all of Python while it draws, and some of its faults end a process.

    Args:
        widths: of the pictures.

    Yields:
        What takes a chart and gives its pictures (see `drawn`) once they are there, or a `RunError`.
    """
    with contextlib.ExitStack() as stack:
        hired = [stack.enter_context(_Painter(width)) for width in widths]
        yield lambda chart: tuple(painter.draw(chart) for painter in hired)


class _Painter:
    """A process (`painter`) for one width, and a thread that waits for it."""

    def __init__(self, width: int) -> None:
        self._width = width
        # Without -P, charts' files would be taken for modules that are called alike.
        command, pipe = [sys.executable, "-P", str(_PAINTER)], subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
            )
        except OSError as error:
            raise RunError(f"charts cannot be drawn: no process can be started for it: {error}") from error
        self._thread = ThreadPoolExecutor(1)

    def draw(self, chart: Spec) -> Future[str]:
        return self._thread.submit(self._drawn, chart)

    def _drawn(self, chart: Spec) -> str:
        said = safe(str(chart.get("description", "")))
        try:
            return _slim(_counted(self._answer(chart)), said)
        except (RunError, OSError, etree.ParseError) as error:
            words = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise RunError(
                f"a chart cannot be drawn {self._width} pixels wide: {cut(words)} ({cut(said, 60)})"
            ) from error

    def _answer(self, chart: Spec) -> str:
        """The picture as Vega makes it.

        Raises:
            RunError: Vega cannot, or its process has ended.
            OSError: its process has ended before this chart.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(_wide(_harmless(chart), self._width)), file=self._process.stdin, flush=True)
        told = self._process.stdout.readline()
        if not told.endswith("\n"):
            raise RunError(f"the process that draws has ended, with exit status {self._process.wait()}")
        try:
            answer = json.loads(told)
        except ValueError:
            raise RunError(f"the process that draws said {told!r}") from None
        if "error" in answer:
            raise RunError(str(answer["error"]))
        return str(answer["svg"])

    def __enter__(self) -> _Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # what it draws, nobody waits for
        self._thread.shutdown(cancel_futures=True)
        with contextlib.suppress(BrokenPipeError):
            self._process.__exit__(None, None, None)


def _harmless(part: Any) -> Any:
    """A description with all its text visible, since some characters would end the process that draws them.

    Numbers that are unknown are none, since JSON has no others.
    """
    if isinstance(part, str):
        return safe(part)
    if isinstance(part, float) and not math.isfinite(part):
        return None
    if isinstance(part, Mapping):
        return {safe(key): _harmless(value) for key, value in part.items()}
    return [_harmless(value) for value in part] if isinstance(part, list) else part


def _wide(spec: Mapping[str, Any], width: int) -> dict[str, Any]:
    """A chart's description in Vega-Lite for a picture of a width."""
    config, layers = dict(spec["config"]), spec["layer"]
    if width < _NARROW:
        config["axisY"] = {**config.get("axisY", {}), "labelLimit": width // 3}
        room = width * (
            2 / 3 if any(_channel(layer, "y").get("type") == "nominal" for layer in layers) else 0.85
        )
        columns = 1 if _LETTER * max(_keys(layers), default=0) > room / 2 - _KEY else 2
        config["legend"] = {**config.get("legend", {}), "columns": columns, "titleOrient": "top"}
        layers = [_narrow(layer, room) for layer in layers]
    fit = {"width": width, "autosize": {"type": "fit-x", "contains": "padding"}, "padding": 4}
    return {**spec, **fit, "config": config, "layer": layers}


def _keys(layers: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """How many letters each text of a legend has."""
    for layer in layers:
        for channel in layer.get("encoding", {}).values():
            if channel.get("legend"):
                yield from map(len, channel.get("scale", {}).get("domain", ()))


def _narrow(layer: Mapping[str, Any], room: float) -> dict[str, Any]:
    """A layer whose title along the bottom is in lines that have room."""
    x = _channel(layer, "x")
    if not x.get("title"):
        return dict(layer)
    x = {**x, "title": textwrap.wrap(x["title"], int(room / _LETTER))}
    return {**layer, "encoding": {**layer["encoding"], "x": x}}


def _channel(layer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = layer.get("encoding", {}).get(name, {})
    return found


def _counted(svg: str) -> str:
    """The picture with ids that do not tell how many were drawn before it: the same chart gives the same bytes."""
    ids = {name: f"clip{number}" for number, name in enumerate(dict.fromkeys(_ID.findall(svg)))}
    return _ID_USED.sub(lambda found: f"{found[1]}{ids.get(found[2], found[2])}", svg)


def _slim(svg: str, description: str) -> str:
    """The picture without what a page does not need, in the page's colours and letters."""
    etree.register_namespace("", _SVG)
    root = etree.fromstring(svg)
    unique = hashlib.sha256(svg.encode()).hexdigest()[:8]  # several pictures share a page
    for element in _elements(root):
        for name in _DROPPED:
            element.attrib.pop(name, None)
        if (label := element.attrib.pop("aria-label", None)) is not None and element.tag != f"{{{_SVG}}}g":
            element.set("data-label", label)
        for name, value in list(element.attrib.items()):
            if _DEFAULTS.get(name) == value or (name == "stroke-width" and "stroke" not in element.attrib):
                del element.attrib[name]
            elif name in ("fill", "stroke"):
                element.set(name, _VARIABLES.get(value.lower(), value))
            elif name in ("transform", "d"):
                element.set(name, _NUMBER.sub(_tenth, value))
            elif name == "id":
                element.set(name, f"{value}-{unique}")
            elif value.startswith("url(#"):
                element.set(name, f"url(#{value[5:-1]}-{unique})")
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("class", "chart")
    root.set("font-family", _LETTERS)
    root.set("overflow", "visible")  # letters of other kinds may be wider
    root.set("aria-label", description)
    return etree.tostring(root, encoding="unicode")


def _elements(root: etree.Element) -> Iterator[etree.Element]:
    """All that is drawn; what is not, the paper among it, is taken out."""
    yield root
    for child in list(root):
        hidden = "none" in (child.get("display"), child.get("visibility")) or child.get("opacity") == "0"
        hidden = hidden or child.get("d") in ("", "M0,0h0v0h0Z")
        if hidden or (child.tag == f"{{{_SVG}}}rect" and child.get("fill") == ink("paper")):
            root.remove(child)
        else:
            yield from _elements(child)


def _tenth(number: re.Match[str]) -> str:
    return f"{float(number.group()):.1f}".removesuffix(".0")

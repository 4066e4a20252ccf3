"""Pictures of chests: a body, two lungs, heart, ribs, what a patient carries, and water in the lungs by its grade."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sites.phantom_chest.deal import Deal, People, Random

Array = npt.NDArray[Any]

_BLOCK = 512  # pictures drawn at once, to bound memory; another number draws other pictures


def drawn(
    deal: Deal, people: People, device: Array, size: int, jitter: float, body: float, rng: Random
) -> npt.NDArray[np.uint8]:
    """All pictures, (N, 1, size, size) uint8, block by block.

    Args:
        deal: what they show.
        people: whose they are.
        device: (departments, 3) gain, blur and noise of each department's machine.
        size: edge in pixels.
        jitter: how much one picture of a patient differs from the next.
        body: how much patients differ.
        rng: of all that.
    """
    pixels = np.empty((len(deal.patient), 1, size, size), np.uint8)
    for start in range(0, len(pixels), _BLOCK):
        block = slice(start, start + _BLOCK)
        owner = deal.patient[block]
        code = 0.5 + body * (people.code[owner] - 0.5)
        x, y = _placed(len(owner), size, jitter, deal.upright[block], rng)
        canvas = _chest(x, y, code, people.sex[owner] == "female", deal.upright[block])
        canvas += 0.1 * body * _lungs(x, y, code) * _markings(x, y, people.waves[owner])
        canvas = _water(canvas, x, y, code, deal.drawn[block], jitter, rng)
        canvas = _carried(canvas, x, y, people.device[owner], people.right[owner])
        canvas = _taken(canvas, device[people.department[owner]], jitter, rng)
        pixels[block, 0] = np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)
    return pixels


def machines(count: int, much: float, rng: Random) -> Array:
    """(count, 3): gain, blur and noise of each department's machine; gains differ by even steps."""
    place = rng.permutation(count) - (count - 1) / 2
    gain = 1 + 0.2 * much * place / max(1, count - 1)
    blur, noise = much * np.array([[0.5], [0.02]]) * rng.random((2, count))
    return np.column_stack([gain, blur, noise]).astype(np.float32)


def _placed(
    count: int, size: int, jitter: float, upright: npt.NDArray[np.bool_], rng: Random
) -> tuple[Array, Array]:
    """Where every pixel lies in its body, two coordinates (B, size, size): x to the picture's right, y down."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    shift = 0.10 * jitter * _normal(rng, count, 2, 1, 1)
    angle = 0.08 * jitter * _normal(rng, count, 1, 1)
    scale = np.exp(0.07 * jitter * _normal(rng, count, 1, 1)) * np.where(upright, 1.0, 0.94)[:, None, None]
    x, y = line[None, None, :] - shift[:, 0], line[None, :, None] - shift[:, 1]
    u, v = (x * np.cos(angle) + y * np.sin(angle)) * scale, (y * np.cos(angle) - x * np.sin(angle)) * scale
    return u.astype(np.float32), v.astype(np.float32)


def _chest(
    x: Array, y: Array, code: Array, female: npt.NDArray[np.bool_], upright: npt.NDArray[np.bool_]
) -> Array:
    """A body with dry lungs, (B, size, size) about 0…1."""
    wide, tall, heart, ribs, phase, tilt, spine, fat = (code[:, k, None, None] for k in range(8))
    half = 0.74 + 0.18 * wide
    canvas = (0.50 + 0.16 * fat) * _soft(1 - (np.abs(x) / (half + 0.1)) ** 4 - (np.abs(y) / 1.25) ** 6, 0.08)
    canvas = canvas - 0.36 * _lungs(x, y, code)
    bow = y - (0.10 + 0.20 * tilt) * (np.abs(x) / half) ** 2
    bars = np.sin(2 * np.pi * ((2.6 + 1.2 * ribs) * bow + phase))
    canvas = canvas + 0.09 * np.clip(bars, -0.2, 1) * _soft(half - np.abs(x), 0.05)
    canvas = canvas + 0.16 * _soft(0.10 - np.abs(x - 0.12 * (spine - 0.5) * np.cos(2 * y)), 0.03)
    size = (0.26 + 0.12 * heart) * np.where(upright, 1.0, 1.12)[:, None, None]
    canvas = canvas + 0.26 * _ellipse(x - 0.14, y - 0.34 - 0.05 * tall, size, 0.34, 0.06)
    breast = _ellipse(np.abs(x) - 0.48 * half / 0.8, y - 0.45, 0.26, 0.2, 0.12)
    chest: Array = canvas + 0.10 * breast * female[:, None, None]
    return chest


def _lungs(x: Array, y: Array, code: Array) -> Array:
    """Opacity of both lungs, which end at the diaphragm."""
    wide, tall, lift = code[:, 0, None, None], code[:, 1, None, None], code[:, 5, None, None]
    centre, height = 0.43 + 0.06 * wide, 0.66 + 0.14 * tall
    both = _ellipse(np.abs(x) - centre, y + 0.05, 0.27 + 0.06 * wide, height, 0.05)
    floor = 0.50 + 0.12 * tall + 0.10 * (lift - 0.5) * np.sign(x)
    dome = floor + 0.25 * ((np.abs(x) - centre) / 0.3) ** 2 * 0.5
    lungs: Array = both * _soft(dome - y, 0.04)
    return lungs


def _markings(x: Array, y: Array, waves: Array) -> Array:
    """What vessels and airways of each patient look like, (B, size, size) about -1…1."""
    total = np.zeros_like(x)
    for right, down, phase in waves.transpose(1, 2, 0)[..., None, None]:
        total += np.sin(right * x + down * y + phase)
    return total / 2


def _water(canvas: Array, x: Array, y: Array, code: Array, grade: Array, jitter: float, rng: Random) -> Array:
    """Vessels that widen, lines, haze from the hila, fluid on the diaphragm: one after the other as it gets worse."""
    count = len(grade)
    g = (grade + 0.12 * jitter * _normal(rng, count))[:, None, None]
    lungs, ax = _lungs(x, y, code), np.abs(x)
    turn = 2 * np.pi * rng.random((count, 1, 1), np.float32)
    upper = lungs * np.clip(-y, 0, 1) * (0.55 + 0.45 * np.sin(9 * ax + 6 * y + turn))
    canvas = canvas + 0.26 * _ramp(g, 0.0, 1.0) * upper
    lines = lungs * _soft(ax - 0.46, 0.05) * np.clip(np.sin(22 * y + turn), 0, 1)
    canvas = canvas + 0.26 * _ramp(g, 1.0, 2.0) * lines
    haze = lungs * np.exp(-(((ax - 0.32) / 0.25) ** 2) - ((y + 0.02) / 0.38) ** 2)
    canvas = canvas + (0.09 * _ramp(g, 0.5, 2.0) + 0.18 * _ramp(g, 2.0, 3.0)) * haze
    fluid = lungs * _soft(y - 0.36 + 0.3 * (ax - 0.43), 0.08)
    wet: Array = canvas + 0.22 * _ramp(g, 2.0, 3.0) * fluid
    return wet


def _carried(
    canvas: Array, x: Array, y: Array, device: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]
) -> Array:
    """What patients carry, in the order of `sites.phantom_chest.deal.DEVICES`; a patient's right is on the left."""
    u = x * np.where(right, -1, 1)[:, None, None]
    box = _ellipse(u - 0.50, y + 0.52, 0.13, 0.10, 0.02)
    port = _ellipse(u - 0.36, y + 0.36, 0.07, 0.07, 0.02)
    wires = (
        _soft(0.05 - np.abs(x), 0.02) * np.clip(4 * np.sin(18 * y) - 2.5, 0, 1) * _soft(0.5 - np.abs(y), 0.05)
    )
    rod = _soft(0.03 - np.abs(u - 0.06), 0.015) * _soft(y + 0.1, 0.05)
    each = np.stack([np.zeros_like(x), box, port, wires, rod])[device, np.arange(len(device))]
    return canvas + each * (0.95 - canvas)


def _taken(canvas: Array, machine: Array, jitter: float, rng: Random) -> Array:
    """The canvas as a department's machine shows it; exposure and grain differ from picture to picture."""
    gain, blur, noise = (machine[:, k, None, None] for k in range(3))
    around = np.pad(canvas, ((0, 0), (1, 1), (1, 1)), mode="edge")
    mean = (around[:, 1:-1, 2:] + around[:, 1:-1, :-2] + around[:, 2:, 1:-1] + around[:, :-2, 1:-1]) / 4
    exposed = gain * np.exp(0.10 * jitter * _normal(rng, len(canvas), 1, 1))
    shown: Array = exposed * (canvas + blur * (mean - canvas))
    return shown + (noise + 0.05 * jitter) * _normal(rng, *canvas.shape)


def _ellipse(x: Array, y: Array, rx: float | Array, ry: float | Array, soft: float) -> Array:
    """Opacity 0…1 of an ellipse around 0 with a soft edge."""
    return _soft(1 - np.hypot(x / rx, y / ry), soft / 0.3)


def _soft(inside: Array, soft: float) -> Array:
    """0…1: where ``inside`` is above 0, with an edge of some width."""
    edge: Array = np.tanh(inside / (2 * soft))
    return 0.5 + 0.5 * edge


def _ramp(g: Array, low: float, high: float) -> Array:
    """0 up to ``low``, 1 from ``high``, a line between."""
    ramp: Array = np.clip((g - low) / (high - low), 0, 1).astype(np.float32)
    return ramp


def _normal(rng: Random, *shape: int) -> Array:
    return rng.standard_normal(shape, np.float32)

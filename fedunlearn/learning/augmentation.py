"""Random changes of training images, drawn anew for every batch: flips and crops, or TrivialAugment.

They are part of local training (`LocalTraining.augmentation`), so whatever trains with it augments: the original,
retraining, and the steps of every strategy whose training is the scenario's with other epochs or another rate
(`fedunlearn.learning.local.paced`). Measuring never does. What travels beside an image, such as a teacher's outputs,
was computed on the image as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fedunlearn.core import Augmentation, derive

LEVELS = 31
"""Strengths of TrivialAugment: 0, 1, … 30."""

_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as Pillow has it


def augmenter(name: Augmentation, seed: int) -> Callable[[Tensor], Tensor] | None:
    """What to do to each batch of inputs, (B, C, H, W) in [-1, 1], in turn; None if that is nothing.

    Args:
        name: which augmentation.
        seed: the task's; all draws derive from it.
    """
    if name == "none":
        return None
    generator = torch.Generator().manual_seed(derive(seed, "augmentation"))
    return partial(
        {"flips_crops": flips_crops, "trivial_augment": trivial_augment}[name], generator=generator
    )


def flips_crops(inputs: Tensor, generator: Generator) -> Tensor:
    """Half of the images mirrored left to right, and each cropped at a random place after padding by reflection.

    The padding is a seventh of the edge, 4 pixels of 28, on every side. Pixels move and keep their values.

    Args:
        inputs: (B, C, H, W).
        generator: what is drawn comes from here.
    """
    count, _, height, width = inputs.shape
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    rows, columns = _window(count, height, generator), _window(count, width, generator)
    columns = torch.where(mirrored, columns.flip(1), columns)
    return _taken(inputs, rows[:, :, None], columns[:, None, :])


def trivial_augment(inputs: Tensor, generator: Generator) -> Tensor:
    """One operation per image, at one strength, both uniform; where it has two directions, either.

    Reference:
        Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021,
        arXiv 2103.10158, Algorithm 1, with the "wide" space of the authors' code.

    Deviations:
        Translation goes up to a whole edge, as 32 pixels are for CIFAR, whatever the image's size. Images of one
        channel have no colour to change, so `color` leaves them as they are. Results are rounded to one of 256 levels
        where Pillow cuts.

    Args:
        inputs: (B, C, H, W) in [-1, 1], which stand for 256 levels.
        generator: what is drawn comes from here.
    """
    draw = partial(torch.randint, size=(len(inputs),), generator=generator)
    which, level, sign = draw(high=len(OPERATIONS) + 1), draw(high=LEVELS), 2 * draw(high=2) - 1
    changed = inputs.clone()
    for number, operation in enumerate(OPERATIONS.values()):  # the number after the last is the identity
        here = (which == number).nonzero().flatten()
        if len(here):
            there = here.to(inputs.device)
            levels = inputs[there].add(1).mul(127.5).round()
            result = operation(levels, level[here].to(inputs.device), sign[here].to(inputs.device))
            changed[there] = result.clamp(0, 255).round().div(127.5).sub(1)
    return changed


def _window(count: int, edge: int, generator: Generator) -> Tensor:
    """Which of an image's ``edge`` lines each line of its crop shows, (count, edge)."""
    padding = round(edge / 7)
    shift = torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    line = (torch.arange(edge) + shift).abs()
    return edge - 1 - (edge - 1 - line).abs()


def _taken(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W), each pixel being the one at ``rows`` and ``columns``, which broadcast to (B, H, W)."""
    count, channels, _, width = images.shape
    place = (rows * width + columns).flatten(1).to(images.device)
    taken = images.flatten(2).gather(2, place[:, None].expand(-1, channels, -1))
    return taken.view(count, channels, rows.shape[1], columns.shape[2])


# ------------------------------------------------- operations of TrivialAugment: levels 0…255, strength, ±1


def auto_contrast(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Every channel stretched to 0…255."""
    low, high = levels.amin((2, 3), keepdim=True), levels.amax((2, 3), keepdim=True)
    return torch.where(high > low, (levels - low) * 255 / (high - low).clamp(min=1), levels)


def equalize(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Every channel's histogram made flat, in Pillow's integer arithmetic."""
    channel = levels.flatten(2).long()
    histogram = torch.zeros(*channel.shape[:2], 256, dtype=torch.long, device=levels.device)
    histogram.scatter_add_(2, channel, torch.ones_like(channel))
    last = histogram.gather(2, channel.amax(2, keepdim=True))
    step = (channel.shape[2] - last) // 255
    below = histogram.cumsum(2) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table.gather(2, channel), channel).view(levels.shape).to(levels.dtype)


def solarize(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Levels from a threshold on inverted: none at strength 0, all at the highest."""
    threshold = 256 - level * 256 // (LEVELS - 1)
    return torch.where(levels < _each(threshold), levels, 255 - levels)


def posterize(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """The leading 8 to 2 bits of every level."""
    step = _each(2.0 ** (level * 6 // (LEVELS - 1)))
    return (levels / step).floor() * step


def color(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """From grey to twice the colour."""
    return _blended(_grey(levels), levels, level)


def contrast(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """From the image's mean grey to twice the distance from it."""
    return _blended(_grey(levels).round().mean((1, 2, 3), keepdim=True).round(), levels, level)


def brightness(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """From black to twice as bright."""
    return _blended(torch.zeros_like(levels), levels, level)


def sharpness(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """From smoothed (Pillow's SMOOTH; the outermost pixels as they are) to the opposite of it."""
    smooth, inner = levels.clone(), levels[:, :, 1:-1, 1:-1]
    smooth[:, :, 1:-1, 1:-1] = (F.avg_pool2d(levels, 3, 1) * 9 + inner * 4) / 13
    return _blended(smooth.round(), levels, level)


def rotate(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Turned about the centre by up to 135 degrees, in whole ones; counter-clockwise where ``sign`` is 1."""
    height, width = levels.shape[2:]
    angle = torch.deg2rad((sign * (level * 135 // (LEVELS - 1))).double())
    sin, cos = angle.sin(), angle.cos()
    x, y = width / 2, height / 2
    return _moved(levels, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def shear_x(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Every row shifted by up to .99 of its distance from the top."""
    zero, one, amount = _constants(level, sign, 0.99)
    return _moved(levels, (one, amount, zero), (zero, one, zero))


def shear_y(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Every column shifted by up to .99 of its distance from the left."""
    zero, one, amount = _constants(level, sign, 0.99)
    return _moved(levels, (one, zero, zero), (amount, one, zero))


def translate_x(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Shifted left or right by up to the width, in whole pixels."""
    zero, one, amount = _constants(level, sign, levels.shape[3])
    return _moved(levels, (one, zero, amount.trunc()), (zero, one, zero))


def translate_y(levels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Shifted up or down by up to the height, in whole pixels."""
    zero, one, amount = _constants(level, sign, levels.shape[2])
    return _moved(levels, (one, zero, zero), (zero, one, amount.trunc()))


OPERATIONS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
"""(levels (B, C, H, W), whole numbers of 0…255; strength (B,); sign (B,)) -> levels; the identity is the fourteenth."""


def _constants(level: Tensor, sign: Tensor, most: float) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros, ones and the signed strengths up to ``most``, (B,) float64 each."""
    zero = torch.zeros(level.shape, dtype=torch.float64, device=level.device)
    return zero, zero + 1, sign * level * most / (LEVELS - 1) + zero


def _moved(levels: Tensor, to_x: tuple[Tensor, ...], to_y: tuple[Tensor, ...]) -> Tensor:
    """The nearest pixel at (a x + b y + c, …), x and y counting from the corner to a pixel's middle; outside, black."""
    height, width = levels.shape[2:]
    y = torch.arange(height, device=levels.device)[:, None] + 0.5
    x = torch.arange(width, device=levels.device)[None, :] + 0.5
    column, row = (
        # An angle's rounding must not decide on which side of an edge between two pixels a point lies.
        (_line(a) * x + _line(b) * y + _line(c) + 1e-9).floor().long()
        for a, b, c in (to_x, to_y)
    )
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    taken = _taken(levels, row.clamp(0, height - 1), column.clamp(0, width - 1))
    return torch.where(inside[:, None], taken, 0.0)


def _line(values: Tensor) -> Tensor:
    return values[:, None, None]


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _grey(levels: Tensor) -> Tensor:
    """Luma, (B, 1, H, W); images that are no RGB are grey already."""
    if levels.shape[1] != 3:
        return levels
    return (levels * levels.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)


def _blended(start: Tensor, levels: Tensor, level: Tensor) -> Tensor:
    """From near ``start`` (strength 0) past ``levels`` to as far beyond."""
    return start + _each(0.01 + level * (1.99 / (LEVELS - 1))) * (levels - start)

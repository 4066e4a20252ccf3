"""The toy with images of 12x12 pixels, a report of a few words beside each and three classes, and late fusion."""

from __future__ import annotations

from functools import cache

import torch

from fedunlearn.contract.toy import Part
from fedunlearn.contract.toys import PATIENTS, Toy, drawing, rows
from fedunlearn.core import Companion, Form, Images, SiteId
from fedunlearn.learning.models.fusion import LateFusion

SHAPE, CLASSES, WORDS, LENGTH = (1, 12, 12), 3, 30, 6


@cache
def pairs(site: SiteId, split: Part = "train") -> Images:
    """A class's pattern under noise, and a report with its word in it."""
    count, generator = PATIENTS[split], drawing("pairs", site, split)
    patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(5))
    classes = torch.randint(CLASSES, (count,), generator=generator)
    pixels = patterns[classes] + torch.randn(count, *SHAPE, generator=generator) / 2
    words = torch.randint(1 + CLASSES, WORDS, (count, LENGTH), generator=generator)
    words[:, 1], words[:, -1] = 1 + classes, 0
    targets = classes[:, None].repeat(1, 3)
    return Images(pixels, targets, rows(site, split), companions={"report": words})


FORM = Form(SHAPE, CLASSES, (3,), {"report": Companion((LENGTH,), tokens=True)})
PAIRS = Toy("images with a report beside each", LateFusion(width=8, hidden=16), FORM, pairs)

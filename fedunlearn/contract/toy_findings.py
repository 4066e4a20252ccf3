"""The toy with images of 12x12 pixels that show some of four findings each, and the small CNN."""

from __future__ import annotations

from functools import cache

import torch

from fedunlearn.contract.toy import Part
from fedunlearn.contract.toys import PATIENTS, Toy, drawing, rows
from fedunlearn.core import IGNORED, Form, Images, SiteId
from fedunlearn.learning.models import SmallCNN

SHAPE, COUNT = (1, 12, 12), 4


@cache
def findings(site: SiteId, split: Part = "train") -> Images:
    """A pattern of each finding that is present, under noise; of one finding of each image nobody says anything."""
    count, generator = PATIENTS[split], drawing("findings", site, split)
    patterns = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(5))
    targets = torch.randint(2, (count, COUNT), generator=generator)
    pixels = torch.einsum("nf,fcyx->ncyx", targets.float(), patterns)
    pixels = pixels + torch.randn(count, *SHAPE, generator=generator) / 2
    unknown = torch.randint(COUNT, (count, 1), generator=generator)
    return Images(pixels, targets.scatter(1, unknown, IGNORED), rows(site, split))


FINDINGS = Toy(
    "images with several findings", SmallCNN(hidden=16, kind="multilabel"), Form(SHAPE, 2, (COUNT,)), findings
)

"""The toy with volumes of 8x8x8 voxels, three classes and label maps, and the small U-Net."""

from __future__ import annotations

from functools import cache

import torch

from fedunlearn.contract.toy import Part
from fedunlearn.contract.toys import PATIENTS, Toy, drawing, rows
from fedunlearn.core import IGNORED, Form, Images, SiteId
from fedunlearn.learning.models.volumes import UNet3D

SHAPE, CLASSES = (1, 8, 8, 8), 3


@cache
def volumes(site: SiteId, split: Part = "train") -> Images:
    """Two balls of different brightness, somewhere, under noise; of a few voxels nobody says what they are."""
    count, generator = PATIENTS[split], drawing("volumes", site, split)
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))
    targets = torch.zeros(count, 8, 8, 8, dtype=torch.int64)
    for label in (1, 2):
        for volume in targets:
            centre = torch.randint(2, 6, (3, 1, 1, 1), generator=generator)
            volume[(grid - centre).norm(dim=0) < 2.5 - label / 2] = label
    pixels = targets[:, None] - 1 + torch.randn(count, *SHAPE, generator=generator) / 2
    targets[:, 3:5, 4, 2:6] = IGNORED
    return Images(pixels, targets, rows(site, split))


VOLUMES = Toy("volumes", UNet3D(), Form(SHAPE, CLASSES, SHAPE[1:]), volumes)

"""A federation small enough for any promise: three hospitals, 6x6 images, and a network of some 2500 weights.

A third of the images carry labels drawn by chance: a network can only know them by heart, so that a trained model
remembers its images, and forgetting shows. The server owns images without labels that the hospitals gave it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from fedunlearn.contract.promise import hold
from fedunlearn.core import (
    SERVER,
    Form,
    Granularity,
    Images,
    LocalTraining,
    RequestId,
    Select,
    SiteId,
    Training,
    derive,
)
from fedunlearn.learning.models import Network

SITES = ("north", "east", "west")
SHAPE, CLASSES = (1, 6, 6), 4
Part = Literal["train", "val", "proxy"]
PATIENTS: Mapping[Part, int] = {"train": 6, "val": 3, "proxy": 3}  # of each hospital
IMAGES = 4  # of each patient
TRAINING = Training(rounds=4, local=LocalTraining(epochs=4, batch_size=12, optimizer="adam", lr=1e-2))
REQUESTS: Mapping[RequestId, Granularity] = {
    "patients": Granularity.PATIENTS,  # one patient of north, and one whom both north and east hold
    "everyone": Granularity.PATIENTS,  # all patients of north, which stays with nothing to train on
    "site": Granularity.SITE,  # west leaves
}


@dataclass(frozen=True)
class ToyNet:
    """A convolution, BatchNorm if asked for, a hidden layer; in float64 if ``wide``."""

    name: Literal["toy"] = "toy"
    norm: bool = False
    wide: bool = False

    kind = "classification"
    dimensions = (2,)
    smallest = 4

    def build(self, form: Form) -> nn.Module:
        """See `Model.build`."""
        layers = nn.Sequential(
            nn.Conv2d(form.shape[0], 4, 3, padding=1),
            nn.BatchNorm2d(4) if self.norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * form.shape[1] * form.shape[2], 16),
            nn.ReLU(),
            nn.Linear(16, form.classes),
        )
        return layers.double() if self.wide else layers


@cache
def network(norm: bool = False) -> Network:
    """The one resident network, built without touching the global RNG."""
    with torch.random.fork_rng(devices=[]):
        return Network(ToyNet(norm=norm), Form(SHAPE, CLASSES))


@contextmanager
def counting(norm: bool = False) -> Iterator[list[int]]:
    """How many images the first layer of `network` is given, one number for each time; also by vmap."""
    seen = list[int]()

    def see(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        given = arguments[0]
        while torch._C._functorch.is_functorch_wrapped_tensor(given):
            given = torch._C._functorch.get_unwrapped(given)
        seen.append(given.numel() // math.prod(SHAPE))

    first = next(layer for layer in network(norm).module.modules() if isinstance(layer, nn.Conv2d))
    with first.register_forward_pre_hook(see):
        yield seen


@cache
def images(site: SiteId, split: Part = "train") -> Images:
    """A hospital's images of one part: a class pattern under noise, a third of them mislabelled."""
    purpose: dict[Part, tuple[str, ...]] = {"train": (), "val": ("held out",), "proxy": ("proxy",)}
    generator = torch.Generator().manual_seed(derive(0, "toy", *purpose[split], site))
    patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(5))
    count = len(patients(site, split))
    labels = torch.arange(count) % CLASSES
    pixels = patterns[labels] + torch.randn(count, *SHAPE, generator=generator)
    labels[::3] = torch.randint(CLASSES, (len(labels[::3]),), generator=generator)
    first = count * SITES.index(site) + 1000 * list(PATIENTS).index(split)
    return Images(pixels, labels, torch.arange(count) + first)


def patients(site: SiteId, split: Part = "train") -> list[str]:
    """The patient of each image; ``shared`` goes to north and to east."""
    mark = {"train": "", "val": "v", "proxy": "p"}[split]
    names = [f"{site}-{mark}{i}" for i in range(PATIENTS[split])]
    if site in ("north", "east") and split == "train":
        names[-1] = "shared"
    return [name for name in names for _ in range(IMAGES)]


def named(request: RequestId, site: SiteId, split: Part = "train") -> Tensor:
    """Which of a hospital's images a request names, (N,) bool."""
    of: dict[RequestId, set[str]] = {
        "patients": {"north-0", "shared"},
        "everyone": {*patients("north")},
        "site": {*patients("west", split)},
    }
    return torch.tensor([name in of[request] for name in patients(site, split)])


def select(site: SiteId, wanted: Select) -> Images:
    """The images that ``wanted`` names: of validation, given to the server, or else of training; there are no others.

    At the server, those that all hospitals gave it, under no label.
    """
    split: Part = wanted.split if wanted.split == "val" or wanted.split == "proxy" else "train"
    if site == SERVER:
        hold(split == "proxy", "the server owns images to use without labels only: ask it for `case.proxy`")
        given = [select(name, wanted) for name in SITES]
        pixels, rows = (torch.cat([getattr(x, name) for x in given]) for name in ("pixels", "rows"))
        return Images(pixels, torch.full_like(rows, -1), rows)
    every = images(site, split)
    keep = torch.ones(len(every), dtype=torch.bool)
    if wanted.only is not None:
        keep &= named(wanted.only, site, split)
    for request in wanted.without:
        keep &= ~named(request, site, split)
    return Images(every.pixels[keep], every.targets[keep], every.rows[keep])

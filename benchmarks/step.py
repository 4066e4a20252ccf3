"""One training step of each network: how near to a matrix product's speed, and what its parts cost.

    python benchmarks/step.py            small_cnn and resnet18 on 28 x 28, unet3d on 32^3 and 48 x 64 x 48
    python benchmarks/step.py --quick    once each and smaller, to see that all of it works

Steps are those of `fit`. Beside each goes a product of two square float32 matrices, by turns: its rate is what this
core can do now. A step's operations (products and sums of its convolutions and linear layers, forward and back) over
its CPU time are told as a share of that rate. Then what `fedunlearn.learning.kernels` has in the place of torch's
operations, as a ratio of CPU time to these, and where a step's time goes by torch's profiler. That
goes by the clock on the wall, so where others use the machine these last shares are rough, the ratios are not.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from fedunlearn.core import Form, Images, LocalTraining, Select
from fedunlearn.kinds.segmentation.learnt import _dice_cross_entropy
from fedunlearn.learning.kernels import cheaper, dice_cross_entropy, with_slope
from fedunlearn.learning.local import fit
from fedunlearn.learning.models import Model, Network, ResNet18, SmallCNN, UNet3D

SIDE = 768  # of the matrices
PARTS = {
    "convolutions": ("convolution", "conv_transpose"),
    "linear layers": ("addmm", "aten::mm"),
    "norms": ("norm",),
    "optimizer": ("fused_adam",),
    "loss": ("softmax", "nll", "exp", "log", "addcmul", "amax", "eq", "aten::sum", "aten::mul", "Sloped"),
    "activations": ("relu", "threshold", "clamp"),
    "copies": ("copy", "cat", "fill", "index_select", "contiguous"),
}
"""Of a step, by what is in an operation's name; of several parts the first. Sums and products are mostly the loss's."""


@dataclass(frozen=True)
class Case:
    """Steps of a network on images of a shape."""

    name: str
    model: Model
    shape: tuple[int, ...]
    classes: int
    batch: int
    steps: int

    def images(self) -> Images:
        """Noise, since values cost nothing."""
        draw, n = torch.Generator().manual_seed(1), self.batch * self.steps
        of_voxels = self.shape[1:] if self.model.kind == "segmentation" else ()
        pixels = torch.randint(0, 256, (n, *self.shape), dtype=torch.uint8, generator=draw)
        return Images(
            pixels, torch.randint(0, self.classes, (n, *of_voxels), generator=draw), torch.arange(n)
        )


CASES = [
    Case("small_cnn", SmallCNN(), (3, 28, 28), 8, 32, 20),
    Case("resnet18", ResNet18(), (3, 28, 28), 8, 64, 1),
    Case("unet3d", UNet3D(), (1, 32, 32, 32), 4, 2, 8),
    Case("unet3d", UNet3D(), (1, 48, 64, 48), 3, 2, 4),
]
QUICK = [
    Case("small_cnn", SmallCNN(), (3, 28, 28), 8, 8, 2),
    Case("resnet18", ResNet18(), (3, 28, 28), 8, 2, 1),
    Case("unet3d", UNet3D(), (1, 16, 16, 16), 4, 2, 2),
]


@dataclass
class Clinic:
    """`fedunlearn.core.Local`, as far as `fit` looks at it."""

    network: Network
    site: str = "here"
    classes: int = 0

    def images(self, select: Select) -> Images:
        """Nobody asks."""
        raise NotImplementedError


def operations(module: nn.Module, inputs: Tensor) -> float:
    """Of one step on ``inputs``: two per product, three times the forward pass but for the first layer's input."""
    counts = list[float]()

    def count(layer: Any, given: tuple[Tensor], made: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            counts.append(2.0 * given[0].numel() * layer.out_features)
            return
        positions = given[0] if layer.transposed else made
        places = positions.numel() / positions.shape[1]
        counts.append(2.0 * places * layer.weight.numel())

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, kinds)]
    with torch.no_grad():
        module(inputs)
    for hook in hooks:
        hook.remove()
    return 3 * sum(counts) - counts[0]


def seconds(what: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    what()
    return time.process_time() - began


def measured(case: Case, turns: int) -> list[str]:
    """A row of the first table, and one of the last."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Network(case.model, Form(case.shape, case.classes))
    images, start = case.images(), network.read()
    training = LocalTraining(batch_size=case.batch, optimizer="adam", lr=0.002)
    per_step = operations(network.module, torch.zeros(case.batch, *case.shape))
    a, b = torch.randn(2, SIDE, SIDE)

    def train() -> None:
        fit(Clinic(network), start, images, training, 7)

    train()
    shares, milliseconds = list[float](), list[float]()
    for _ in range(turns):
        step, product = seconds(train) / case.steps, seconds(lambda: [a @ b for _ in range(3)]) / 3
        shares.append((per_step / step) / (2 * SIDE**3 / product))
        milliseconds.append(1e3 * step)
    size = " x ".join(map(str, case.shape[1:]))
    spread = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
    head = [f"{case.name}, {case.batch} of {size}", f"{statistics.median(milliseconds):.1f}", spread]
    return [
        *head,
        ", ".join(f"{name} {share:.0%}" for name, share in parts(train).most_common() if share >= 0.01),
    ]


def parts(train: Callable[[], None]) -> Counter[str]:
    """What share of the time each part takes."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        train()
    times = Counter[str]()
    for event in found.key_averages():
        part = next((p for p, names in PARTS.items() if any(n in event.key for n in names)), "rest")
        times[part] += event.self_cpu_time_total
    whole = sum(times.values())
    return Counter({part: spent / whole for part, spent in times.items()})


def kernels(size: tuple[int, ...], classes: int, turns: int) -> list[list[str]]:
    """What stands in the place of torch's operations, at the sizes of `unet3d`."""
    torch.manual_seed(2)
    half = tuple(edge // 2 for edge in size)
    targets = torch.randint(0, classes, (2, *size))
    labels = targets.unsqueeze(1) == torch.arange(classes).view(1, classes, 1, 1, 1)

    def given(z: Tensor) -> Tensor:
        pair = dice_cross_entropy(z.detach(), labels, torch.ones_like(targets, dtype=torch.bool), 1e-5)
        return with_slope(z, *pair, again=lambda z: _dice_cross_entropy(z, targets))

    prelu, up = nn.PReLU(), nn.ConvTranspose3d(16, classes, 3, stride=2, padding=1, output_padding=1)
    ours = {name: cheaper(copy.deepcopy(layer)) for name, layer in (("prelu", prelu), ("up", up))}
    scores, maps, wide = (torch.randn(2, n, *s) for n, s in ((classes, size), (8, half), (16, half)))

    def both_ways(of: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
        def run() -> None:
            found = of(x.requires_grad_())
            found.backward(torch.ones_like(found))  # type: ignore[no-untyped-call]

        return run

    rows = [
        ("loss", both_ways(given, scores), both_ways(lambda z: _dice_cross_entropy(z, targets), scores)),
        ("PReLU", both_ways(ours["prelu"], maps), both_ways(prelu, maps)),
        ("last transposed convolution", both_ways(ours["up"], wide), both_ways(up, wide)),
    ]
    where = " x ".join(map(str, size))
    return [[name, where, ratio(one, other, turns)] for name, one, other in rows]


def ratio(one: Callable[[], None], other: Callable[[], None], turns: int) -> str:
    """CPU time of ``one`` in units of ``other``'s: median, least and most."""
    one(), other()
    found = [seconds(one) / max(seconds(other), 1e-9) for _ in range(turns)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print it, line by line as they come."""
    for line in chain((head, ["---"] * len(head)), rows):
        print(f"| {' | '.join(line)} |", flush=True)
    print()


def main() -> None:
    """Print all."""
    parser = argparse.ArgumentParser(description="What a training step costs")
    parser.add_argument("--quick", action="store_true", help="once each and smaller")
    parser.add_argument("--cases", type=int, nargs="*", help="only these rows of the first table, from 0")
    asked = parser.parse_args()
    quick = asked.quick
    torch.set_num_threads(1)
    turns, cases = (1, QUICK) if quick else (7, CASES)
    cases = cases if asked.cases is None else [cases[number] for number in asked.cases]
    sizes = [((16, 16, 16), 4)] if quick else [((32, 32, 32), 4), ((48, 64, 48), 3)]
    head = ["step", "CPU ms", "share of a matrix product's rate", "where its time goes"]
    table(head, (measured(case, turns) for case in cases))
    rows = [line for size, classes in sizes for line in kernels(size, classes, 3 * turns)]
    table(["forward and back", "volumes", "ratio to torch's"], rows)


if __name__ == "__main__":
    main()

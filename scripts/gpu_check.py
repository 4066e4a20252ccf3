"""What a real GPU does with what is only known by reading and on the pretend one: one table, within eight minutes.

    python scripts/gpu_check.py                      # on the first GPU, all checks
    python scripts/gpu_check.py --only bits speed    # some
    python scripts/gpu_check.py --device cpu         # the same checks, small, where there is no GPU

Every check has a process of its own, since flags and failures last as long as a process. Exit 0 if all are as expected,
1 if some are not; docs/gpu.md tells what each means.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedunlearn import weights as w
from fedunlearn.core import Batch, Form, Images, LocalTraining, Reply, Select
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.work import alone
from fedunlearn.learning import devices
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.local import fit
from fedunlearn.learning.models import Model, Network, ResNet18, SmallCNN, initial_weights
from fedunlearn.learning.models.volumes import Med3D, UNet3D
from fedunlearn.learning.tasks import Fit
from sites.hospital import Federation

LIMIT = 480.0  # seconds for everything
CLASSES = 4
Facts = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model, images for it, and how many at once: on a GPU, and where ``small``."""

    name: str
    model: Model
    shape: tuple[int, ...]
    batch: int
    small_shape: tuple[int, ...]

    def of(self, small: bool) -> Subject:
        return replace(self, shape=self.small_shape, batch=2) if small else self


SUBJECTS = (
    Subject("small_cnn", SmallCNN(), (3, 28, 28), 256, (1, 28, 28)),
    Subject("small_cnn 3D", SmallCNN(), (1, 64, 64, 64), 8, (1, 28, 28, 28)),
    Subject("resnet18", ResNet18(), (3, 64, 64), 64, (1, 28, 28)),
    Subject("unet3d", UNet3D(), (1, 96, 96, 96), 4, (1, 9, 10, 12)),
    Subject("med3d", Med3D(), (1, 64, 64, 64), 2, (1, 16, 16, 18)),
)


@dataclass(frozen=True)
class Place:
    """Where to work, and how much."""

    device: str
    small: bool


@dataclass(frozen=True)
class Room:
    """`fedunlearn.core.Local` of some images that are on the device already."""

    network: Network
    images_: Images
    site: str = "here"
    classes: int = CLASSES

    def images(self, select: Select) -> Images:
        return self.images_


@cache
def made(subject: Subject, count: int, device: str) -> Images:
    """Random images with random labels."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (count, *subject.shape), generator=generator, dtype=torch.uint8)
    maps = subject.model.kind == "segmentation"
    targets = torch.randint(CLASSES, (count, *subject.shape[1:]) if maps else (count,), generator=generator)
    return Images(pixels.to(device), targets.to(device), torch.arange(count).to(device))


@cache
def network(subject: Subject, device: str) -> Network:
    with torch.random.fork_rng(devices=[]):
        return Network(reduced(subject, device), Form(subject.shape, CLASSES), device)


def trained(subject: Subject, device: str, training: LocalTraining, count: int) -> dict[str, Tensor]:
    images, start = (
        made(subject, count, device),
        initial_weights(reduced(subject, device), Form(subject.shape, CLASSES), 5),
    )
    return fit(Room(network(subject, device), images), start, images, training, 7)


def reduced(subject: Subject, device: str) -> Model:
    """Med3D at full width takes minutes on a CPU."""
    return Med3D(width=8) if subject.name == "med3d" and device == "cpu" else subject.model


# ---------------------------------------------------------------------------------------------------- checks


def about(place: Place) -> Facts:
    wrong = devices.ready(place.device)
    return {
        "ok": wrong is None,
        "device": wrong or devices.describe(place.device) or "the CPU",
        "torch": torch.__version__,
    }


def bits(place: Place) -> Facts:
    """Digests of two trainings, with the flags of `devices.prepare`: within a process, and of two processes."""
    devices.prepare(place.device)
    return _digests(place)


def unflagged(place: Place) -> Facts:
    """The same without the flags, to see whether they do anything."""
    torch.set_num_threads(1)
    return _digests(place) | {"ok": True}


def _digests(place: Place) -> Facts:
    facts, equal = Facts(), True
    for subject in (subject.of(place.small) for subject in SUBJECTS):
        training = LocalTraining(epochs=2, batch_size=subject.batch)
        try:
            one, two = (
                w.digest(trained(subject, place.device, training, 3 * subject.batch)) for _ in range(2)
            )
        except RuntimeError as error:  # what torch refuses is a finding, too
            facts[subject.name], equal = f"{type(error).__name__}: {error}"[:200], False
            continue
        facts[subject.name] = one[:16] if one == two else "differs"
        equal &= one == two
    return facts | {"ok": equal}


def rounding(place: Place) -> Facts:
    """How far one step of SGD ends from the CPU's, as a share of the step: in float32, and in TF32 and bfloat16."""
    devices.prepare(place.device)
    subject = SUBJECTS[2].of(place.small)
    step = LocalTraining(batch_size=subject.batch, optimizer="sgd", momentum=0.0, lr=0.1)
    start = initial_weights(subject.model, Form(subject.shape, CLASSES), 5)
    here = w.subtract(trained(subject, "cpu", step, subject.batch), start)
    facts = Facts()
    for precision in ("float32", "tf32", "bfloat16"):
        there = w.subtract(
            trained(subject, place.device, replace(step, precision=precision), subject.batch), start
        )
        facts[precision] = w.norm(w.subtract(there, here)) / w.norm(here)
    return facts | {
        "ok": facts["float32"] < 1e-3,
        "expected": "float32 below 0.001; on a GPU tf32 above float32",
    }


def flat_maps(place: Place) -> Facts:
    """The bfloat16 gradient of a Conv3d's weight where maps are 2 voxels deep, against float32's; CPUs get it wrong."""
    devices.prepare(place.device)
    generator = torch.Generator().manual_seed(1)
    x, weight = (
        torch.randn(s, generator=generator).to(place.device) for s in ((2, 16, 2, 8, 8), (16, 16, 3, 3, 3))
    )
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = weight.clone().requires_grad_()
        with torch.autocast(torch.device(place.device).type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = F.conv3d(x, leaf, padding=1)
        out.float().square().mean().backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    error = float((found[1] - found[0]).norm() / found[0].norm())
    return {"relative error": error, "ok": error < 0.05 or place.device == "cpu", "expected": "below 0.05"}


@dataclass(frozen=True)
class Greedy:
    """A task that asks for more memory than there is."""

    bytes: int

    def __call__(self, local: Any) -> Reply:
        held = [
            torch.empty(2**28, dtype=torch.uint8, device=local.network.device).fill_(1)
            for _ in range(self.bytes >> 28)
        ]
        return Reply(None, len(held))


@dataclass(frozen=True)
class Wrong:
    """A task that looks up a class that is not there, past all checks: CUDA's kernel asserts."""

    def __call__(self, local: Any) -> Reply:
        scores = torch.zeros(1, 2, device=local.network.device)
        return Reply(
            None, 1, {"loss": F.cross_entropy(scores, torch.tensor([7], device=scores.device)).cpu()}
        )


@dataclass(frozen=True)
class Unlabelled:
    """A loss of labels asked of images that have none."""

    def __call__(self, local: Any) -> Reply:
        images = local.images(Select())
        loss = learnt("classification").objective
        batch = Batch(images.pixels.float(), torch.full_like(images.targets, -1), images.rows)
        return Reply(None, 1, {"loss": loss(local.network.module, batch).detach().cpu()})


def out_of_memory(place: Place) -> Facts:
    """A task that takes too much is answered with advice, and the next one of the same process finds room."""
    devices.prepare(place.device, 0.5)
    if place.device == "cpu":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 2**30,) * 2)
        total = 2**32
    else:
        total = torch.cuda.get_device_properties(place.device).total_memory
    first, second = _answers(place, Greedy(total), _ordinary())
    good = (
        first.error is not None and "micro_batch" in first.error and not first.unfit and second.error is None
    )
    return {"ok": good, "first": first.error, "second": second.error or "done"}


def labels(place: Place) -> Facts:
    """Images without labels are refused before CUDA meets them; once it met a wrong one, the worker is unfit."""
    devices.prepare(place.device)
    first, second, third = _answers(place, Unlabelled(), _ordinary(), Wrong())
    refused = first.error is not None and "IndexError" in first.error and second.error is None
    return {
        "ok": refused and third.error is not None and third.unfit == (place.device != "cpu"),
        "without labels": first.error,
        "next": second.error or "done",
        "a wrong label": third.error,
    }


def _ordinary() -> Fit:
    return Fit(initial_weights(SmallCNN(), Form((1, 28, 28), CLASSES), 5), Select(), LocalTraining(), 7)


def _answers(place: Place, *tasks: Any) -> list[Answer]:
    with tempfile.TemporaryDirectory() as folder:
        pixels, site = np.zeros((8, 1, 28, 28), np.uint8), np.array(["north"] * 8)
        split = np.array(["train"] * 8)
        Federation.write(Path(folder), pixels, np.arange(8) % CLASSES, site, split, {}, SmallCNN(), CLASSES)
        federation = Federation.open(Path(folder))
        network = federation.network(place.device)
        return [alone(federation, network, Ask(n, "north", task)) for n, task in enumerate(tasks)]


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


SCENARIO = """\
name: gpu_check
seeds: [1]
data: {name: phantom_cells, images: 240}
sites: {names: [north, east], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 2}
requests: [{id: leave, site: east, whole_site: true}]
strategies: [{name: fine_tune, rounds: 1}]
"""


def workers(place: Place) -> Facts:
    """Two workers of the engine flower, each with half of the GPU, come to the bits of the engine inline on it."""
    from rich.console import Console

    from fedunlearn import scenario
    from fedunlearn.story import simulate

    gpu = place.device != "cpu"
    engines = {
        "inline": f"{{name: inline, device: {place.device}, workers: 1}}",
        "flower": f"{{name: flower, workers: 2, gpus_per_client: {0.5 if gpu else 0}}}",
    }
    found = dict[str, dict[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scenario.yaml"
        file.write_text(SCENARIO)
        for name, engine in engines.items():
            run = simulate(
                scenario.read(file, [f"engine={engine}"]), Path(folder) / name, Path(folder), Console(), True
            )
            states = sorted((run.path / "weights").iterdir())
            found[name] = {state.name: w.digest(_read(state)) for state in states}
    return {"ok": found["inline"] == found["flower"], "weights": len(found["inline"])}


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def speed(place: Place) -> Facts:
    """Images a second in training, and what share that is of a bound.

    The bound is this device's own rate in a large float32 matrix product, measured here, over the products and sums
    that an image takes forward and backward (`torch.utils.flop_counter`).
    """
    devices.prepare(place.device)
    rate, facts = _rate(place), Facts()
    for subject in (subject.of(place.small) for subject in SUBJECTS):
        count = subject.batch * (1 if place.small else 16)
        training = LocalTraining(epochs=1, batch_size=subject.batch)
        trained(subject, place.device, training, count)  # what is first is slower
        began = time.perf_counter()
        trained(subject, place.device, training, count)
        _wait(place)
        a_second = count / (time.perf_counter() - began)
        bound = rate / _work(subject, place)
        facts[subject.name] = f"{a_second:.0f} images/s, {a_second / bound:.1%} of {bound:.0f}"
    return facts | {"ok": True, "bound": f"{rate / 1e12:.2f} TFLOP/s measured"}


def _rate(place: Place) -> float:
    n = 512 if place.small else 8192
    a = torch.ones(n, n, device=place.device)
    a @ a
    _wait(place)
    began = time.perf_counter()
    for _ in range(10):
        a @ a
    _wait(place)
    return 10 * 2 * n**3 / (time.perf_counter() - began)


def _work(subject: Subject, place: Place) -> float:
    """Products and sums for one image."""
    module: nn.Module = Network(reduced(subject, place.device), Form(subject.shape, CLASSES)).module
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(2, *subject.shape)).sum().backward()
    return counter.get_total_flops() / 2


def _wait(place: Place) -> None:
    if place.device != "cpu":
        torch.cuda.synchronize()


CHECKS: Mapping[str, Callable[[Place], Facts]] = {
    "about": about,
    "bits": bits,
    "unflagged": unflagged,
    "rounding": rounding,
    "flat_maps": flat_maps,
    "out_of_memory": out_of_memory,
    "labels": labels,
    "speed": speed,
    "workers": workers,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--here", choices=CHECKS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    place = Place(asked.device, asked.device == "cpu")
    if asked.here:
        print(json.dumps(CHECKS[asked.here](place)))
        return 0
    began, good = time.monotonic(), True
    for name in asked.only:
        left = LIMIT - (time.monotonic() - began)
        facts = _apart(name, asked.device, left)
        if name == "bits" and facts["ok"]:  # the same in another process
            again = _apart(name, asked.device, LIMIT - (time.monotonic() - began))
            facts["ok"] = facts == again
        good &= bool(facts["ok"])
        print(f"{'as expected' if facts.pop('ok') else 'NOT AS EXPECTED':16} {name}", flush=True)
        for key, value in facts.items():
            print(f"    {key}: {value}", flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if good else 1


def _apart(name: str, device: str, seconds: float) -> Facts:
    """A check in a process of its own."""
    command = [sys.executable, __file__, "--device", device, "--here", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1), check=False)
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"not done when the {LIMIT:g} s were over"}
    if done.returncode:
        return {"ok": False, "error": done.stderr.strip()[-500:]}
    facts: Facts = json.loads(done.stdout.splitlines()[-1])
    return facts


if __name__ == "__main__":
    sys.exit(main())

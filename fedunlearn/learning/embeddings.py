"""What a network makes of an image, and of what comes beside it, before it answers; and staying near or getting away.

A network with branches says which of its layers make an embedding of what (``branches``: of the ``image``, of its
``companion``, of ``both``). Of any other, the one embedding is what its last layer is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import (
    Batch,
    Images,
    Inputs,
    Local,
    LocalTraining,
    Reply,
    Select,
    Weights,
    derive,
)
from fedunlearn.learning.local import at_once, batches, fit, scaled
from fedunlearn.learning.models import features
from fedunlearn.learning.objectives import Noise, marked, together
from fedunlearn.learning.patches import tiles

SINGLE = ("image", "companion")
"""The embeddings of one modality each, in this order."""
JOINT = "both"
"""The embedding of both together, of a layer of the network's own."""
_NEAR = 1e-4  # of its aim's length: where an embedding has not moved, though batches of other sizes round otherwise
_AIM = "aim of "  # in a batch's extra, before the name of an embedding


def embeddings(module: nn.Module, head: str, inputs: Inputs) -> dict[str, Tensor]:
    """The embeddings of ``inputs``, each (B, features), by what they are of; gradients flow.

    Args:
        module: the network; it may be training.
        head: a parameter of the last layer, by name: any of `Layout.head`.
        inputs: as the module takes them.
    """
    branches: Mapping[str, str] | None = getattr(module, "branches", None)
    if branches is None:
        return {SINGLE[0]: features(module, head, inputs)}
    found = dict[str, Tensor]()
    with ExitStack() as hooks:
        for whose, name in branches.items():

            def keep(_: nn.Module, given: object, made: Tensor, whose: str = whose) -> None:
                found[whose] = made

            hooks.callback(module.get_submodule(name).register_forward_hook(keep).remove)
        module(inputs)
    return found


def embedded(local: Local, weights: Weights, images: Images) -> dict[str, Tensor]:
    """The `embeddings` of ``images`` in their order as the model is in use, each (N, features); of none, nothing.

    Of a network that trains on patches, the mean over `tiles` that cover a volume.
    """
    network = local.network
    network.load(weights)
    module, head = network.module.eval(), network.layout.head[0]
    parts = list[dict[str, Tensor]]()
    with torch.inference_mode():
        for batch in batches(images, at_once(images)):
            found = [embeddings(module, head, tile.inputs) for tile in tiles(batch, network.patch)]
            parts.append({name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]})
    return {name: torch.cat([one[name] for one in parts]).clone() for name in (parts[0] if parts else ())}


def aiming(images: Images, *aims: Mapping[str, Tensor]) -> Images:
    """``images`` with the embeddings beside them that they are compared with: those of ``aims``, one after another."""
    known = [aim for aim in aims if aim]
    where = {_AIM + name: torch.cat([aim[name] for aim in known]) for name in (known[0] if known else ())}
    return replace(images, extra={**images.extra, **where})


def noisy(images: Images, among: Images, std: float, share: float, seed: int) -> Images:
    """``images`` with Gaussian noise, and some of what comes beside each drawn anew, the same for the same ``seed``.

    Args:
        images: which.
        among: where words and numbers of tables are drawn from: of a report any word, of a table the same column.
        std: deviation of the noise, where pixels go from 0 to 1; of volumes, where they go from -1 to 1, twice that.
        share: of the words, or of a table's columns, that are drawn anew.
        seed: of all that is drawn.
    """
    pixels, whole = scaled(images.pixels), images.pixels.dtype == torch.uint8
    if std:
        pixels = pixels + Noise(derive(seed, "pixels"), 2 * std, 2 * std)(pixels, images.rows, 0)
    generator = torch.Generator().manual_seed(derive(seed, "companions"))
    companions = {
        name: redrawn(values, among.companions[name], share, generator)
        for name, values in images.companions.items()
    }
    return replace(images, pixels=pixels.clamp(-1, 1) if whole else pixels, companions=companions)


def redrawn(values: Tensor, among: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """``values`` (N, L), each with probability ``share`` another of ``among``'s (M, L): of words, none but words."""
    anew = (torch.rand(values.shape, generator=generator) < share).to(values.device)
    if values.dtype.is_floating_point:
        which = torch.randint(max(len(among), 1), values.shape, generator=generator).to(values.device)
        return torch.where(anew, among.gather(0, which), values) if len(among) else values
    words = among[among != 0]
    if not len(words):
        return values
    which = torch.randint(len(words), values.shape, generator=generator).to(values.device)
    return torch.where(anew & (values != 0), words[which], values)


@dataclass(frozen=True)
class Gate:
    """A random, frozen gate that joins two embeddings x and y, each row for itself (Rahman et al., ACL 2020).

    With [x; y] for both side by side::

        w = sigmoid(fc1([x; y]))    h = fc2([x; w y])    a = min(beta |x| / |h|, 1)    j = LayerNorm(x + a h)

    Attributes:
        seed: fc1, fc2 and beta are drawn from it: the same for all models, images and hospitals.
    """

    seed: int

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The joint embedding, (B, features of x)."""
        generator = torch.Generator().manual_seed(self.seed)
        wide, width = x.shape[1] + y.shape[1], x.shape[1]
        bound = wide**-0.5  # as `nn.Linear` starts
        fc1, fc2 = (
            (torch.rand(n, wide + 1, generator=generator) * 2 - 1).mul(bound).to(x) for n in (1, width)
        )
        beta = torch.randn((), generator=generator).abs().to(x)
        w = F.linear(torch.cat([x, y], 1), fc1[:, :-1], fc1[:, -1]).sigmoid()
        h = F.linear(torch.cat([x, w * y], 1), fc2[:, :-1], fc2[:, -1])
        length, moved = (part.norm(dim=1, keepdim=True) for part in (x, h))
        a = (beta * length / moved.clamp(min=1e-12)).clamp(max=1)
        return F.layer_norm(x + a * h, (width,))


@dataclass(frozen=True)
class Aimed:
    """How far embeddings are from their aims (`aiming`), the images to forget (`marked`) and the retained apart.

    d is the L2 distance of an image's embeddings, once of the single ones side by side and once of the joint one, which
    a network with one embedding lacks, so that its d is zero. Its slope is as steep however short it is, so the first
    ten-thousandth of the aim's length, where rounding would lead anywhere, counts as nothing. A batch's loss is the
    mean over its images, retained ones counted ``keep``, those to forget ``lose``; a negative ``lose`` leads away.

    Attributes:
        head: a parameter of the last layer, by name.
        lose: what the single and the joint d of an image to forget count.
        keep: those of a retained image.
        gate: joins the single embeddings; None takes the network's own joint one.
        margin: lengths of its aim beyond which an image to forget is far enough, and has no slope; None for no limit.
        ceiling: beyond which the mean d of a batch's retained images has no slope; None for no limit.
        squared: take the mean of the squared differences for d.
    """

    head: str
    lose: tuple[float, float]
    keep: tuple[float, float]
    gate: Gate | None
    margin: float | None = None
    ceiling: float | None = None
    squared: bool = False

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        aims = {name.removeprefix(_AIM): x for name, x in batch.extra.items() if name.startswith(_AIM)}
        here, there = self._both(embeddings(module, self.head, batch.inputs)), self._both(aims)
        marked = batch.extra["forget"].to(batch.rows.device)
        share = 1 - float(batch.extra["forget"].double().mean())
        total = torch.zeros((), device=batch.rows.device)
        for found, aim, lose, keep in zip(here, there, self.lose, self.keep, strict=False):
            length = aim.norm(dim=1)
            d = self._apart(found - aim, length)
            far = d if self.margin is None else torch.minimum(d, self.margin * length)
            kept = (d * ~marked).sum() / (~marked).sum().clamp(min=1)
            if self.ceiling is not None:
                kept = kept.clamp(max=self.ceiling)
            total = total + lose * (far * marked).sum() / len(d) + keep * kept * share
        return total

    def _apart(self, difference: Tensor, length: Tensor) -> Tensor:
        """What d is in each row."""
        if self.squared:
            return difference.square().mean(1)
        return F.relu(difference.norm(dim=1) - _NEAR * length)

    def _both(self, found: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The single embeddings side by side, and the joint one if there are two of them."""
        single = [found[name] for name in SINGLE if name in found]
        if len(single) < 2:
            return (single[0],)
        return torch.cat(single, 1), found[JOINT] if self.gate is None else self.gate(*single)


@dataclass(frozen=True)
class Reembed:
    """Train ``weights`` by ``aimed``, against their own embeddings of ``retain``'s and of noisy ``forget``'s images.

    Both kinds are shuffled together. ``noise`` is the deviation of pixels, and the share drawn anew of what comes
    beside (`noisy`); with ``accumulate``, an epoch is one step.
    """

    weights: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    aimed: Aimed
    noise: tuple[float, float]
    accumulate: bool = False

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain, training = local.images(self.forget), local.images(self.retain), self.training
        other = noisy(forget, together(forget, retain), *self.noise, derive(self.seed, "noise"))
        aims = (embedded(local, self.weights, images) for images in (other, retain))
        images = aiming(marked(forget, retain), *aims)
        if self.accumulate:
            by = training.micro_batch or training.batch_size
            training = replace(training, batch_size=max(len(images), 1), micro_batch=by)
        return Reply(fit(local, self.weights, images, training, self.seed, self.aimed), len(images))


@dataclass(frozen=True)
class Decouple:
    """Train ``weights`` until the joint embedding of an image to forget is that of a `mismatched` pair (`Aimed`).

    All other aims are what ``weights`` themselves make of the same images. Both kinds are shuffled together. ``counts``
    are what d, squared, counts of the single and of the joint embeddings to forget, and of the joint ones retained.
    Where there is one embedding, it is the joint one.
    """

    weights: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    head: str
    counts: tuple[float, float, float]

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain = local.images(self.forget), local.images(self.retain)
        other = mismatched(forget, together(forget, retain), derive(self.seed, "others"))
        own, strange, kept = (embedded(local, self.weights, images) for images in (forget, other, retain))
        (halves, go, stay), joint = self.counts, JOINT if JOINT in own else SINGLE[0]
        lose, keep = ((go, 0.0), (stay, 0.0)) if joint != JOINT else ((halves, go), (0.0, stay))
        aimed = Aimed(self.head, lose, keep, None, squared=True)
        images = aiming(marked(forget, retain), {**own, joint: strange[joint]} if own else own, kept)
        return Reply(fit(local, self.weights, images, self.training, self.seed, aimed), len(images))


def mismatched(images: Images, among: Images, seed: int) -> Images:
    """``images`` with what comes beside another one of ``among``, drawn at random; alone, each for another image.

    Args:
        images: which.
        among: those that may be taken, ``images`` among them; one that has no other keeps its own.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    others = [(among.rows != row).nonzero()[:, 0] for row in images.rows.tolist()]
    own = [(among.rows == row).nonzero()[:1, 0] for row in images.rows.tolist()]
    which = [
        there[torch.randint(len(there), (1,), generator=generator)] if len(there) else here
        for there, here in zip(others, own, strict=True)
    ]
    place = torch.cat(which) if which else images.rows[:0]
    if not images.companions:
        return replace(images, pixels=among.pixels[place])
    return replace(images, companions={name: x[place] for name, x in among.companions.items()})

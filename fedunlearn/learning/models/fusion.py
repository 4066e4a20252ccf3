"""Networks for pairs: an image and what comes beside it, each with a branch of its own, that meet late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, MultipleOf
from torch import Tensor, nn

from fedunlearn.core import IMAGE, TOKENS, Form
from fedunlearn.learning.models.images import ResNet18, SmallCNN

_HEADS = 2  # of attention
_NEVER = (
    -1e4
)  # the attention's score of what is no word: finite, so that a text without words has an answer too


@dataclass(frozen=True)
class LateFusion:
    """An image branch and one for a report or a table, each with its own answer, and a third answer from both together.

    The image branch is `small_cnn` or `resnet18`, whose last layer gives an embedding. A report goes through an
    embedding of its words with their places and one small transformer layer, and the mean over its words; a table
    through two layers. The two embeddings, side by side, go through one more layer. Nothing is dropped at random, and
    nothing is normalised over a batch: each pair is answered by itself, so that what is remembered of it can be told.

    Attributes:
        image: whose trunk the image branch is.
        text: what is made of words: their order counts (transformer) or it does not (bag).
        width: of the embedding of a word.
        hidden: width of each branch's embedding, and of the joint one.

    Reference:
        Chauhan et al., "Joint Modeling of Chest Radiographs and Radiology Reports for Pulmonary Edema Assessment",
        MICCAI 2020, arXiv 2008.09884, for an answer from each branch; its report branch is a pre-trained BERT, and
        it has no joint answer.
    """

    name: Literal["late_fusion"] = "late_fusion"
    image: Literal["small_cnn", "resnet18"] = "small_cnn"
    text: Literal["transformer", "bag"] = "transformer"
    width: Annotated[int, Ge(2), MultipleOf(_HEADS)] = 32
    hidden: Annotated[int, Ge(1)] = 64

    kind = "paired"
    dimensions = (2, 3)
    smallest = 28

    def build(self, form: Form) -> nn.Module:
        """See `Model.build`.

        Raises:
            ValueError: not exactly one companion comes beside each image (a defect of whoever builds the form).
        """
        if len(form.companions) != 1:
            raise ValueError(f"late_fusion takes an image and one companion, found {sorted(form.companions)}")
        [(beside, companion)] = form.companions.items()
        alone = Form(form.shape, self.hidden)
        trunk = SmallCNN(hidden=self.hidden) if self.image == "small_cnn" else ResNet18()
        image = nn.Sequential(trunk.build(alone), nn.ReLU(inplace=True))
        if not companion.tokens:
            other: nn.Module = _Table(companion.shape[0], self.hidden)
        elif self.text == "bag":
            other = _Bag(self.width, self.hidden)
        else:
            other = _Transformer(companion.shape[0], self.width, self.hidden)
        return Fused(image, other, beside, self.hidden, form.classes)


class Fused(nn.Module):
    """Outputs (B, classes, 3): of the image, of its companion, of both.

    Attributes:
        branches: the submodule whose output is an embedding (B, hidden), by whose it is: ``image``, ``companion``,
            ``both``. A hook on it sees the embedding of every pass.
    """

    branches: Mapping[str, str] = {"image": "image", "companion": "companion", "both": "joint"}

    def __init__(
        self, image: nn.Module, companion: nn.Module, beside: str, hidden: int, classes: int
    ) -> None:
        super().__init__()
        self.beside = beside
        self.image, self.companion = image, companion
        self.joint = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(inplace=True))
        self.image_head, self.companion_head = nn.Linear(hidden, classes), nn.Linear(hidden, classes)
        self.head = nn.Linear(hidden, classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """``inputs``: images (B, C, *spatial) under ``image``, and the companion (B, …) under its name."""
        image, companion = self.image(inputs[IMAGE]), self.companion(inputs[self.beside])
        both = self.joint(torch.cat([image, companion], 1))
        return torch.stack([self.image_head(image), self.companion_head(companion), self.head(both)], -1)


class _Table(nn.Module):
    """Numbers (B, F) -> (B, hidden)."""

    def __init__(self, columns: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(columns, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )

    def forward(self, table: Tensor) -> Tensor:
        found: Tensor = self.layers(table)
        return found


class _Bag(nn.Module):
    """Words (B, L) -> (B, hidden), whatever their order."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.embedding = _embedding(width)
        self.out = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True))

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.out(_mean(self.embedding(tokens), tokens))
        return found


class _Transformer(nn.Module):
    """Words (B, L) -> (B, hidden): one layer of attention and one of its own for each word, normalised before each.

    Not PyTorch's own layer, which cannot be differentiated for each report at once (`torch.func.vmap`).
    """

    def __init__(self, length: int, width: int, hidden: int) -> None:
        super().__init__()
        self.embedding = _embedding(width)
        self.places = nn.Parameter(0.1 * torch.randn(length, width))
        self.before = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.shares = nn.Softmax(3)
        self.joined = nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.each = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width)
        )
        self.after = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.places
        x = x + self.joined(self._attended(self.before(x), tokens))
        x = x + self.each(self.between(x))
        found: Tensor = self.out(_mean(self.after(x), tokens))
        return found

    def _attended(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Of each word the mean of what others say, (B, L, width); what is no word says nothing."""
        query, key, value = (
            part.unflatten(2, (_HEADS, -1)).transpose(1, 2) for part in self.attention(x).chunk(3, 2)
        )  # (B, heads, L, width / heads)
        scores = (query / query.shape[3] ** 0.5) @ key.transpose(2, 3)
        scores = scores + _NEVER * (tokens == 0)[:, None, None, :].to(x.dtype)
        attended: Tensor = (self.shares(scores) @ value).transpose(1, 2).flatten(2)
        return attended


def _embedding(width: int) -> nn.Embedding:
    embedding = nn.Embedding(TOKENS, width)
    nn.init.normal_(embedding.weight, std=0.1)
    return embedding


def _mean(x: Tensor, tokens: Tensor) -> Tensor:
    """The mean of (B, L, width) over what are words, (B, width); 0 of a text without any."""
    known = (tokens != 0).unsqueeze(2).to(x.dtype)
    return (x * known).sum(1) / known.sum(1).clamp(min=1)

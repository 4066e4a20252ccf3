"""Starting from weights that others trained: read safely, matched by name and shape, and told what matched."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedunlearn.core import InputError, Weights


@runtime_checkable
class Pretrained(Protocol):
    """A model's configuration that may name a file of pre-trained weights."""

    @property
    def weights(self) -> str | None:
        """The file; None to start untrained."""
        ...

    @staticmethod
    def renamed(name: str) -> str:
        """What the tensor that the file calls ``name`` is called in the network."""
        ...


@dataclass(frozen=True)
class Match:
    """What of a file fits a network, by the network's names of tensors.

    Attributes:
        taken: those that come from the file.
        missing: those that the file lacks, and that start untrained.
        unused: those of the file that the network lacks.
        misshapen: those of both that differ in shape, in words.
    """

    taken: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __str__(self) -> str:
        rest = {
            "not in the file": self.missing,
            "of another shape": self.misshapen,
            "not in the network": self.unused,
        }
        total = len(self.taken) + len(self.missing) + len(self.misshapen)
        told = [f"{len(names)} {what} ({_some(names)})" for what, names in rest.items() if names]
        return "; ".join([f"{len(self.taken)} of the network's {total} tensors are taken", *told])


def start(model: Pretrained, untrained: Weights) -> tuple[dict[str, Tensor], str]:
    """The weights to start from, and in words what of the model's file they are.

    Raises:
        InputError: the file is missing or no file of weights, or nothing in it fits the network.
    """
    path = Path(model.weights or "")
    found = {model.renamed(name): x for name, x in _read(path).items()}
    match = matched(untrained, found)
    if not match.taken:
        raise InputError(
            f"none of the {len(found)} tensors in {path} fits the network: {match}; "
            "expected weights of this very network: its width, and its names of tensors"
        )
    taken = {name: found[name].to(untrained[name].dtype).contiguous() for name in match.taken}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {**untrained, **taken}, f"pre-trained weights of {path.name} (sha256 {digest[:12]}): {match}"


def matched(network: Weights, file: Weights) -> Match:
    """Compare names and shapes."""
    both = [name for name in network if name in file]
    same = [name for name in both if network[name].shape == file[name].shape]
    return Match(
        taken=tuple(same),
        missing=tuple(name for name in network if name not in file),
        unused=tuple(name for name in file if name not in network),
        misshapen=tuple(
            f"{name} {tuple(file[name].shape)}, expected {tuple(network[name].shape)}"
            for name in both
            if name not in same
        ),
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; training scripts keep them under ``state_dict``."""
    if not path.is_file():
        raise InputError(f"found no file of weights {path}: put it there, or leave `weights` out")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"cannot read weights from {path} without running code in it: {why}") from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not all(isinstance(x, Tensor) for x in content.values()):
        raise InputError(f"{path} holds no named tensors, expected a state_dict")
    return {str(name): x for name, x in content.items()}


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, …"

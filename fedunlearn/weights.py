"""Arithmetic on model states: plain functions on mappings of names to tensors; inputs are never changed.

Integer entries (BatchNorm's step counter) are not numbers one can average: sums and means take the first
operand's value for them, differences and multiples leave them out of the arithmetic in the same way.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from fedunlearn import files
from fedunlearn.core import RunError, Weights

_ARRAYS = frozenset(("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL"))  # that NumPy has too
_ABOUT = "about"  # the one key of a file's metadata: of several, the format does not keep the order


def add(a: Weights, b: Weights, scale: float = 1.0) -> dict[str, Tensor]:
    """``a + scale * b``."""
    a, b = loaded(a), loaded(b)
    _alike(a, b)
    return {
        name: x.add(b[name], alpha=scale) if x.is_floating_point() else x.clone() for name, x in a.items()
    }


def subtract(a: Weights, b: Weights) -> dict[str, Tensor]:
    """``a - b``, the update that leads from ``b`` to ``a``."""
    return add(a, b, -1.0)


def multiply(a: Weights, factor: float) -> dict[str, Tensor]:
    """``factor * a``."""
    return {name: x * factor if x.is_floating_point() else x.clone() for name, x in a.items()}


def average(states: Iterable[Weights], counts: Sequence[float]) -> dict[str, Tensor]:
    """The mean of ``states`` weighted by ``counts``, summed in the order given (McMahan et al. 2017, Algorithm 1).

    No more than one of ``states`` is held at a time: they may be on disk, or made one by one.

    Raises:
        ValueError: no states; names, shapes or dtypes that differ; counts that do not add up to more than zero.
    """
    total = math.fsum(counts)
    if not total > 0:
        raise ValueError(f"cannot average models with counts {list(counts)}")
    mean: dict[str, Tensor] | None = None
    for state, count in zip(states, counts, strict=True):
        if mean is None:
            mean = multiply(state, count / total)
            continue
        own = loaded(state)
        _alike(mean, own)
        for name, x in mean.items():
            if x.is_floating_point():
                x.add_(own[name], alpha=count / total)
    return mean or {}


def loaded(a: Weights) -> dict[str, Tensor]:
    """``a``'s tensors by name, read at once where they are in a file: `dict` alone would open it for each."""
    return a if isinstance(a, dict) else dict(a.items())


def fused(a: Weights, b: Weights, ratio: float) -> dict[str, Tensor]:
    """``b`` with ``a``'s amplitudes at the low frequencies of every tensor of two or more dimensions.

    A tensor's frequencies are those of a matrix: of a linear layer's weight (out, in) as it is, of a convolution's
    (out, in, k, ...) as (in k, ... out). About ``ratio`` of them along rows and along columns are low. Phases are
    ``b``'s.
    """
    _alike(a, b)
    return {name: x.clone() if x.dim() < 2 else _fused(a[name], x, ratio) for name, x in b.items()}


def norm(a: Weights, names: Iterable[str] | None = None) -> float:
    """The L2 norm of the floating-point entries (of ``names``), accumulated in float64."""
    picked = a.values() if names is None else (a[name] for name in names)
    return math.sqrt(math.fsum(float(x.double().square().sum()) for x in picked if x.is_floating_point()))


def noisy(a: Weights, sigma: float, seed: int) -> dict[str, Tensor]:
    """``a`` plus N(0, ``sigma``^2) on every number that is not an integer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        if x.is_floating_point()
        else x
        for name, x in a.items()
    }


def first_difference(a: Weights, b: Weights) -> str | None:
    """Say in words where ``b``'s names, shapes or dtypes differ from ``a``'s; None if they do not."""
    for name in a:
        if name not in b:
            return f"{name!r} is missing"
        if a[name].shape != b[name].shape:
            return f"{name!r} has shape {tuple(b[name].shape)}, expected {tuple(a[name].shape)}"
        if a[name].dtype != b[name].dtype:
            return f"{name!r} has dtype {b[name].dtype}, expected {a[name].dtype}"
    extra = [name for name in b if name not in a]
    return f"{extra[0]!r} was not asked for" if extra else None


def last_layers(a: Weights, names: Sequence[str], k: int) -> tuple[str, ...]:
    """Those of ``names``, in the order of the forward pass, that belong to the last ``k`` layers; all of few layers.

    A layer begins with a weight of two dimensions or more; the biases and norms that follow are of it.
    """
    begins = [i for i, name in enumerate(names) if a[name].dim() > 1]
    return tuple(names[begins[-k] :]) if k < len(begins) else tuple(names)


def first_nonfinite(a: Mapping[str, Tensor]) -> str | None:
    """The first entry that holds NaN or infinity; None if all are finite."""
    # One number that is not finite spoils its tensor's length: only then is it worth looking which. A length may also
    # be too large for its dtype, where all numbers are finite.
    tensors = [x for x in a.values() if x.is_floating_point()]
    if not tensors or math.isfinite(torch.stack(torch._foreach_norm(tensors)).sum()):
        return None
    for name, x in a.items():
        # The extremes tell it all, in a seventh of the time of testing every entry: NaN passes through both.
        if x.is_floating_point() and x.numel() and not all(math.isfinite(float(v)) for v in torch.aminmax(x)):
            return name
    return None


def digest(a: Weights) -> str:
    """sha256 over names, dtypes, shapes and bytes, in name order."""
    h = hashlib.sha256()
    for name in sorted(a):
        x = a[name].contiguous()
        h.update(f"{name}|{x.dtype}|{tuple(x.shape)}|".encode())
        h.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return h.hexdigest()


def nbytes(a: Mapping[str, Tensor]) -> int:
    """Size in bytes."""
    return sum(x.numel() * x.element_size() for x in a.values())


def write(tensors: Mapping[str, Tensor], path: Path, told: Mapping[str, str]) -> None:
    """Write contiguous tensors and texts as safetensors, byte for byte as `safetensors.torch.save_file`.

    That takes three times as long for the small tensors of small models: it looks for memory that they share, which is
    no mistake here, and makes an array of each.

    Raises:
        safetensors.SafetensorError: the file cannot be written.
    """
    specs = {
        name: safetensors.TensorSpec(
            dtype=str(x.dtype).removeprefix("torch."),
            shape=x.shape,
            data_ptr=x.data_ptr(),
            data_len=nbytes({name: x}),
        )
        for name, x in tensors.items()
    }
    safetensors.serialize_file(specs, path, metadata=dict(told))


def read(path: Path, names: Iterable[str] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file (those of ``names``), and its texts.

    Raises:
        OSError, safetensors.SafetensorError: it cannot be read.
    """
    with safetensors.safe_open(path, "np") as file:  # for torch, it takes nearly three times as long
        told = file.metadata() or {}
        wanted = list(file.keys()) if names is None else list(names)
        if all(file.get_slice(name).get_dtype() in _ARRAYS for name in wanted):
            return {name: torch.from_numpy(file.get_tensor(name)) for name in wanted}, told
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in wanted}, told


def save(a: Weights, path: Path) -> None:
    """Write as safetensors, with its `digest` and the order of names; the file appears whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with files.replacing(path) as temporary:
            tensors = {name: a[name].contiguous() for name in a}
            about = json.dumps({"digest": digest(tensors), "names": list(tensors)})
            write(tensors, temporary, {_ABOUT: about})
    except safetensors.SafetensorError as error:
        raise RunError(f"cannot write weights to {path}: {error}") from error


def load(path: Path) -> dict[str, Tensor]:
    """Read a file that `save` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        tensors, told = read(path)
        known = json.loads(told.get(_ABOUT, "{}"))
        tensors = {name: tensors[name] for name in known.get("names", ())}
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise RunError(f"cannot read weights from {path}: {error}") from error
    if known.get("digest") != digest(tensors):
        raise RunError(f"weights in {path} are damaged: they are not what was written there")
    return tensors


def _fused(a: Tensor, b: Tensor, ratio: float) -> Tensor:
    """See `fused`, of one tensor."""
    last = b if b.dim() == 2 else b.movedim(0, -1)
    theirs, own = (torch.fft.fft2(_matrix(x)) for x in (a, b))
    rows, columns = (_lowest(n, ratio) for n in own.shape)
    amplitude = torch.where(rows[:, None] & columns, theirs.abs(), own.abs())
    new: Tensor = torch.fft.ifft2(torch.polar(amplitude, own.angle())).real
    new = new.to(b.dtype).reshape(last.shape)
    return (new if b.dim() == 2 else new.movedim(-1, 0)).contiguous()


def _matrix(x: Tensor) -> Tensor:
    x = x.double()
    return x if x.dim() == 2 else x.movedim(0, -1).flatten(0, 1).flatten(1)


def _lowest(n: int, ratio: float) -> Tensor:
    """Which of n frequencies are low, (n,) bool in torch's order; k and -k both or neither, so that sums stay real."""
    k: Tensor = torch.fft.fftfreq(n, 1 / n).round().abs()
    return k.lt(ratio * (n + 1) / 2)


def _alike(a: Weights, b: Weights) -> None:
    """Refuse what torch would silently broadcast or cast."""
    if difference := first_difference(a, b):
        raise ValueError(f"the two models differ: {difference}")

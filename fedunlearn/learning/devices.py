"""What a worker does about the device that it computes on: equal bits, its share of memory, what is wrong in words.

Of a GPU, everything here is by torch's documentation (2.13); no GPU has run it yet (docs/gpu.md).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fedunlearn.core import Precision

T = TypeVar("T")

CONTEXT = 600 * 2**20
"""Bytes that CUDA itself takes of a GPU for every process, about; torch counts only what it allocates beyond."""
_DRIVER = Path("/sys/module/nvidia/version")
_LOST = (
    "CUDA error",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
)
_FULL = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")


def prepare(device: str, share: float = 1.0) -> None:
    """Make this process ready to work on ``device``, and this thread; before anything is put there.

    One thread computes on the CPU, since bits depend on their number. A GPU computes in float32 without TF32, and only
    by algorithms that come to the same bits each time: what has none is an error. Of its memory, this process gets
    ``share``, less what CUDA takes for itself.

    Args:
        device: "cpu" or "cuda".
        share: of the GPU's memory, above 0, at most 1.
    """
    torch.set_num_threads(1)
    if torch.device(device).type == "cpu":
        return
    _tell_cublas()
    torch.use_deterministic_algorithms(True)
    unread: Any = torch.utils.deterministic  # a module with a property: torch's types do not know
    unread.fill_uninitialized_memory = False  # nothing here reads what was not written
    torch.backends.cudnn.benchmark = False  # it times algorithms and takes the fastest: not always the same
    _allow_tf32(False)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(allowance(share, total))


def allowance(share: float, total: int) -> float:
    """What of a GPU with ``total`` bytes torch may take for a process with this ``share``; at least half of that."""
    return max(share - CONTEXT / total, share / 2)


def describe(device: str) -> str | None:
    """A GPU in one line: all that its bits may depend on. None for the CPU.

    It starts CUDA in this process.
    """
    if torch.device(device).type == "cpu":
        return None
    found = torch.cuda.get_device_properties(device)
    cudnn = cast(Any, torch.backends.cudnn).version()  # torch says nothing of its types
    driver = _DRIVER.read_text(encoding="utf-8").strip() if _DRIVER.is_file() else "unknown"
    return (
        f"{found.name} (compute capability {found.major}.{found.minor}, {found.multi_processor_count} processors), "
        f"driver {driver}, CUDA {torch.version.cuda}, cuDNN {cudnn}"
    )


def ready(device: str) -> str | None:
    """What is wrong with ``device`` as this process finds it; None if a tensor can be made and changed there."""
    if torch.device(device).type != "cpu":
        _tell_cublas()
    build = f"torch {torch.__version__} (CUDA: {torch.version.cuda or 'none'})"
    try:
        found = float(torch.ones(2, device=device).add_(1).sum())
    except (
        AssertionError,
        RuntimeError,
    ) as error:  # a build without CUDA; no driver, no GPU, or one that is taken
        advice = (
            "install a build of torch for this machine's GPU"
            if torch.version.cuda is None
            else "see nvidia-smi there"
        )
        return f"{build} cannot work on {device!r}: {_first_line(error)}; {advice}, or work on the CPU"
    return (
        None
        if found == 4.0
        else f"{build} adds 1 and 1 to {found / 2:g} on {device!r}; expected 2: try another GPU"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, a GPU's or this machine's."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(part in str(error) for part in _FULL))


def lost(error: BaseException) -> bool:
    """Whether ``error`` leaves a GPU of no more use to this process: after an assertion or a wild access, CUDA fails.

    Whatever CUDA reports of that kind counts, since a new process costs seconds and a spoiled one fails every task.
    """
    if out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    return any(part in str(error) for part in _LOST)


def told(error: BaseException, device: torch.device) -> str:
    """What went wrong, and in one line what to do about it if it is the device's."""
    if out_of_memory(error):
        return f"{type(error).__name__}: {_first_line(error)}; {advice(device)}"
    if lost(error):
        usual = "a label that is no class is a usual cause"
        return (
            f"{type(error).__name__}: {_first_line(error)}; this process cannot use its GPU any more: {usual}"
        )
    return f"{type(error).__name__}: {error}"


def advice(device: torch.device) -> str:
    """What to do when memory runs out."""
    smaller = "lower training.micro_batch, and of volumes model.patch"
    if device.type == "cpu":
        return f"{smaller}, or use fewer engine.workers"
    return f"{smaller}, write training.precision: bfloat16, or give each worker more of a GPU (engine.gpus_per_client)"


def tidy(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later; after a task that failed, so that the next finds room."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def rounding(precision: Precision) -> Iterator[None]:
    """Let a GPU round products to TF32 meanwhile, if that is the precision; for all threads of this process."""
    if precision != "tf32":
        yield
        return
    _allow_tf32(True)
    try:
        yield
    finally:
        _allow_tf32(False)


def placed(value: T, device: torch.device) -> T:
    """``value`` with its tensors on ``device``: of a constraint, so that not every step brings them there.

    Args:
        value: frozen dataclasses, tuples and mappings of tensors, as tasks hold them; whatever else stays as it is.
        device: where to. If all is there already, that is ``value`` itself.
    """
    return cast(T, _placed(value, device))


def _placed(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        moved = {name: _placed(x, device) for name, x in value.items()}
        return moved if any(moved[name] is not x for name, x in value.items()) else value
    if type(value) is tuple:
        items = tuple(_placed(x, device) for x in value)
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        new = {name: x for name, old in own.items() if (x := _placed(old, device)) is not old}
        return dataclasses.replace(value, **new) if new else value
    return value


def _tell_cublas() -> None:
    """Let cuBLAS use memory of the same size for each product, as equal bits need; it looks when it starts."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def _first_line(error: BaseException) -> str:
    """What an error says, as far as one line goes; CUDA's have several."""
    return next(iter(str(error).splitlines()), "")

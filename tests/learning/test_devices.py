"""What a worker does about its device. CUDA is a fake here: what it is told is looked at, in the order it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedunlearn.learning import devices
from fedunlearn.learning.constraints import Ball, Mask

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")
GB = 2**30
ASSERTED = RuntimeError(
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported\n"
)
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, object]]]:
    """What CUDA is told; torch's own switches are put back."""
    told = list[tuple[str, object]]()
    found = SimpleNamespace(
        name="Toy 80GB", major=9, minor=0, multi_processor_count=132, total_memory=80 * GB
    )

    def properties(device: str) -> SimpleNamespace:
        told.append(("starts with", os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return found

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share: told.append(("share", share))
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append(("emptied", None)))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    yield told
    torch.use_deterministic_algorithms(False)
    unread: Any = torch.utils.deterministic
    unread.fill_uninitialized_memory = True
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def switches() -> tuple[bool, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        cudnn.benchmark,
        cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )


def test_a_gpu_computes_equal_bits_in_float32_within_its_share(calls: list[tuple[str, object]]) -> None:
    devices.prepare("cuda", 0.5)
    assert switches() == (True, False, False, False)
    assert torch.get_num_threads() == 1
    assert calls == [("starts with", ":4096:8"), ("share", 0.5 - 600 / (80 * 1024))], (
        "cuBLAS is told before CUDA starts"
    )


def test_the_cpu_is_left_as_it_is(calls: list[tuple[str, object]]) -> None:
    before = switches()
    devices.prepare("cpu")
    devices.tidy(CPU)
    assert switches() == before and not calls and "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_what_the_environment_says_of_cublas_stays(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    devices.prepare("cuda")
    assert calls[0] == ("starts with", ":16:8")


@pytest.mark.parametrize(
    ("share", "total", "expected"),
    [(1.0, 6000 * 2**20, 0.9), (0.5, 6000 * 2**20, 0.4), (0.1, 2000 * 2**20, 0.05)],
)
def test_cuda_itself_takes_a_part_of_every_share(share: float, total: int, expected: float) -> None:
    """Of 6000 MB, 600 are a tenth; where they are more than half of a share, half of it is left."""
    assert devices.allowance(share, total) == pytest.approx(expected, rel=1e-12)


def test_a_gpu_is_described_by_all_that_bits_may_depend_on(
    calls: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(
        devices, "_DRIVER", SimpleNamespace(is_file=lambda: True, read_text=lambda encoding: "550.54\n")
    )
    assert devices.describe("cuda") == (
        "Toy 80GB (compute capability 9.0, 132 processors), driver 550.54, CUDA 12.6, cuDNN 91002"
    )
    assert devices.describe("cpu") is None


def test_a_device_that_works_is_ready() -> None:
    assert devices.ready("cpu") is None


@pytest.mark.skipif(torch.version.cuda is not None, reason="this build of torch has CUDA")
def test_a_build_without_cuda_is_named_with_what_to_do() -> None:
    wrong = devices.ready("cuda")
    assert wrong is not None
    for part in (
        torch.__version__,
        "CUDA: none",
        "'cuda'",
        "not compiled with CUDA",
        "install a build of torch",
    ):
        assert part in wrong, wrong
    assert "\n" not in wrong


@pytest.mark.parametrize(
    ("error", "full", "lost"),
    [
        (FULL, True, False),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), True, False),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            True,
            False,
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
            True,
            False,
        ),
        (MemoryError(), True, False),
        (ASSERTED, False, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("CUDA error: unspecified launch failure"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("the weights do not fit the network"), False, False),
        (ValueError("CUDA error: only said"), False, False),
    ],
    ids=lambda value: (
        str(value).splitlines()[0][:40] if isinstance(value, Exception) and str(value) else None
    ),
)
def test_full_and_lost_devices_are_told_from_other_errors(error: Exception, full: bool, lost: bool) -> None:
    assert (devices.out_of_memory(error), devices.lost(error)) == (full, lost)


def test_advice_is_for_the_device_that_is_full() -> None:
    gpu, cpu = devices.told(FULL, CUDA), devices.told(MemoryError(), CPU)
    for part in (
        "OutOfMemoryError: CUDA out of memory",
        "micro_batch",
        "patch",
        "bfloat16",
        "gpus_per_client",
    ):
        assert part in gpu
    assert "workers" in cpu and "bfloat16" not in cpu
    assert "\n" not in devices.told(ASSERTED, CUDA) and "label" in devices.told(ASSERTED, CUDA)
    assert devices.told(ValueError("found 3\nexpected 4"), CPU) == "ValueError: found 3\nexpected 4"


def test_tf32_is_on_only_where_it_is_asked_for(calls: list[tuple[str, object]]) -> None:
    devices.prepare("cuda")
    with devices.rounding("float32"):
        assert switches()[2:] == (False, False)
    seen = list[tuple[bool, ...]]()

    def fails() -> None:
        seen.append(switches()[2:])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), devices.rounding("tf32"):
        fails()
    assert seen == [(True, True)]
    assert switches()[2:] == (False, False)


@dataclass(frozen=True)
class Holder:
    inner: Mask
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    also: Mapping[str, Mapping[str, Tensor]]


def test_tensors_are_placed_however_deep_and_all_else_stays() -> None:
    x = torch.zeros(2)
    ball = Ball({"a": x}, 1.0)
    held = Holder(Mask({"a": x > 0}, {"a": x}), ("a",), (x, x), {"b": {"c": x}})
    assert devices.placed(ball, CPU) is ball and devices.placed(held, CPU) is held, (
        "nothing is copied in vain"
    )
    there = devices.placed(held, META)
    found = [there.inner.mask["a"], there.inner.reference["a"], *there.tensors, there.also["b"]["c"]]
    assert all(tensor.device == META for tensor in found) and there.names is held.names
    assert devices.placed(ball, META).center["a"].device == META and devices.placed(None, META) is None

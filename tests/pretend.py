"""A pretend GPU: tensors that compute on the CPU and say that they are elsewhere. Mixing them with others raises.

It shows where tensors are made, moved and mixed, and what asks a GPU to be waited for. It shows nothing of CUDA's own
kernels: neither their rounding, nor memory, nor what is equal from run to run; but operations that torch refuses on
CUDA under `torch.use_deterministic_algorithms` are refused here (torch 2.13, its docstring).

torch keeps one device for backends of others, PrivateUse1. Once it has a name, a process keeps it for ever: use this in
a process of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_aten = torch.ops.aten


class Mixed(RuntimeError):
    """Tensors of the device meet others, as CUDA would not have it."""


class Refused(RuntimeError):
    """CUDA has no algorithm for this that comes to the same bits each time."""


@dataclass
class Traffic:
    """What would have crossed to a GPU and back.

    Attributes:
        brought: tensors copied to the device, those that index others among them.
        fetched: tensors copied back.
        waits: how often a number, or how many there are, was asked for besides, which waits for all that is under way.
        faults: what went wrong in threads of autograd's, which cannot raise in Python.
    """

    brought: int = 0
    fetched: int = 0
    waits: int = 0
    faults: list[Exception] = field(default_factory=list)


@cache
def device() -> torch.device:
    """The device; from now on this process has it."""
    _setup_privateuseone_for_python_backend("pretend")
    return torch.device("pretend", 0)


class Pretend(TorchDispatchMode):
    """While it is entered, the device can be used in this thread.

    Attributes:
        traffic: what crossed so far.
    """

    def __init__(self) -> None:
        super().__init__()
        device()
        self.traffic = Traffic()

    def __enter__(self) -> Pretend:
        """From now on modules that are moved get new parameters: shells cannot take the place of others' insides."""
        self._before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._past = _Past(self.traffic)
        self._past.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Tensors of the device stay what they are.

        Raises:
            Mixed, Refused: what was found where nothing could be raised.
        """
        super().__exit__(*error)
        self._past.__exit__(*error)
        torch.__future__.set_overwrite_module_params_on_conversion(self._before)
        if self.traffic.faults and error[0] is None:
            raise self.traffic.faults.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(self.traffic, func, args, dict(kwargs or {}))


class _Past(TorchFunctionMode):
    """What torch does past its dispatcher: makes tensors of numbers, and numbers of tensors."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        settings = dict(kwargs or {})
        if func is torch.Tensor.tolist and isinstance(args[0], There):
            self._traffic.waits += 1
            return args[0].held.tolist()
        wanted = settings.get("device")
        if func in (torch.tensor, torch.as_tensor) and wanted is not None and _is_there(wanted):
            made = func(*args, **{name: x for name, x in settings.items() if name != "device"})
            return made if isinstance(made, There) else made.to(device())
        return func(*args, **settings)


class There(torch.Tensor):
    """A tensor on the device: a shell around one on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> There:
        """A shell around ``held``; a CPU's to torch's dispatcher, so that kernels and autograd of the CPU serve it."""
        make: Any = torch.Tensor._make_wrapper_subclass
        with torch.inference_mode(
            held.is_inference()
        ):  # a view of what was made outside is not inference's either
            shell: There = make(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                layout=held.layout,
                device=torch.device("cpu"),
                requires_grad=requires_grad,
                dispatch_device=True,
            )
        shell.held = held
        return shell

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own types say otherwise than its documentation
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Outside of `Pretend`, as in a thread of autograd's."""
        return _run(Traffic(), func, args, dict(kwargs or {}))

    def new_tensor(self, data: Any, **settings: Any) -> Tensor:  # type: ignore[override]  # what torch asks with
        """As of any tensor: on this one's device."""
        return There(self.held.new_tensor(data, **settings))

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as on CUDA."""
        raise Mixed("a tensor of the device was asked for as a NumPy array: use .cpu() first")

    def __array__(self, *arguments: Any) -> Any:
        return self.numpy()

    def __repr__(self) -> str:  # type: ignore[override]  # nothing prints a part of it
        return f"There({tuple(self.shape)}, {self.dtype})"


def _run(traffic: Traffic, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do what torch asks for: on the CPU, and pretend that it was done where its tensors say they are."""
    there, here = _sorted(args, kwargs)
    if func is torch.ops.prim.device.default:
        return device() if there else torch.device("cpu")
    if func is _aten._to_copy.default or func.overloadpacket is _aten.to:
        return _copied(traffic, func, args, kwargs)
    if func is _aten.copy_.default:
        _cross(traffic, isinstance(args[1], There), isinstance(args[0], There))
        _bare(args[0]).copy_(_bare(args[1]))
        return args[0]
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        made = _is_there(wanted)
    else:
        made = bool(there)
    if made and (fault := _fault(traffic, func, args, kwargs, here)):
        if threading.current_thread() is threading.main_thread():
            raise fault
        traffic.faults.append(fault)
    result = func(*tree_map(_bare, args), **tree_map(_bare, kwargs))
    if not made:
        return result
    return _given_back(func, args, kwargs, result)


def _copied(traffic: Traffic, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What ``to`` makes of a tensor: on the same device maybe that very one, on another a copy."""
    source, names = args[0], [argument.name for argument in func._schema.arguments]
    wish = {**dict(zip(names, args, strict=False)), **kwargs}
    if (like := wish.get("other")) is not None:
        wish |= {"device": like.device, "dtype": like.dtype}
    came = isinstance(source, There)
    goes = came if wish.get("device") is None else _is_there(wish["device"])
    _cross(traffic, came, goes)
    held: Tensor = _bare(source if isinstance(source, Tensor) else torch.tensor(source))  # numbers come, too
    copy = func is _aten._to_copy.default or bool(wish.get("copy")) or came != goes
    result = held.to(
        dtype=wish.get("dtype") or held.dtype,
        copy=copy,
        memory_format=wish.get("memory_format") or torch.preserve_format,
    )
    if result is held:
        return source
    return There(result) if goes else result


def _fault(
    traffic: Traffic, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], here: Sequence[Tensor]
) -> Exception | None:
    """Why CUDA would not do this: it meets tensors of the CPU or a generator, or would do it otherwise each time."""
    name = func.name().removeprefix("aten::")
    flat, _ = tree_flatten((args, dict(kwargs)))
    if any(isinstance(x, torch.Generator) for x in flat):
        return Mixed(f"{name}: a CPU's generator is to draw on the device: draw on the CPU, then .to(device)")
    refused = _REFUSED.get(name.partition(".")[0])
    if refused is not None and refused(args):
        return Refused(f"{name}: CUDA's algorithm does not come to the same bits each time")
    traffic.waits += func in _WAITING
    strange = [x for x in here if x.dim()]
    if func in _INDEXING:  # CUDA takes indices, not values, from the CPU
        indices = [x for x in args[1] if x is not None]
        strange = [x for x in strange if not any(x is index for index in indices)]
        traffic.brought += sum(not isinstance(index, There) for index in indices)
        traffic.waits += sum(isinstance(index, There) and index.dtype == torch.bool for index in indices)
        if not isinstance(args[0], There):
            return Mixed(f"{name}: a tensor of the CPU is indexed by one of the device")
    elif here and not strange and not _takes_numbers(func, args):
        strange = list(here)
    if not strange:
        return None
    shapes = ", ".join(str(tuple(x.shape)) for x in strange)
    return Mixed(f"{name}: tensors of the device meet some of the CPU, of shape {shapes}: use .to(device)")


def _takes_numbers(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether tensors of the CPU with one number may go in as such: element by element, and not to be changed."""
    return isinstance(args[0], There | list | tuple) or not _in_place(func)


def _in_place(func: Any) -> bool:
    """Whether it changes its first argument."""
    alias = func._schema.arguments[0].alias_info if func._schema.arguments else None
    return alias is not None and bool(alias.is_write)


def _given_back(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> Any:
    """``result`` as torch expects it: what was changed in place itself, all else in shells."""
    if _in_place(func):
        return args[0] if isinstance(args[0], There) else None
    if isinstance(kwargs.get("out"), There):
        return kwargs["out"]
    return tree_map(lambda x: There(x) if isinstance(x, Tensor) and not isinstance(x, There) else x, result)


def _sorted(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[There], list[Tensor]]:
    """The tensors on the device, and the others."""
    flat, _ = tree_flatten((args, dict(kwargs)))
    tensors = [x for x in flat if isinstance(x, Tensor)]
    return [x for x in tensors if isinstance(x, There)], [x for x in tensors if not isinstance(x, There)]


def _bare(x: Any) -> Any:
    return x.held if isinstance(x, There) else x


def _is_there(wanted: Any) -> bool:
    return torch.device(wanted).type == device().type


def _cross(traffic: Traffic, came: bool, goes: bool) -> None:
    traffic.brought += goes and not came
    traffic.fetched += came and not goes


def _always(_: tuple[Any, ...]) -> bool:
    return True


def _floats(args: tuple[Any, ...]) -> bool:
    return bool(args[0].is_floating_point())


_INDEXING = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
    _aten._unsafe_index.Tensor,
    _aten._unsafe_index_put.default,
}
_WAITING = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.equal.default}
_REFUSED: Mapping[str, Callable[[tuple[Any, ...]], bool]] = {
    **dict.fromkeys(
        (
            "_adaptive_avg_pool2d_backward",
            "_adaptive_avg_pool3d_backward",
            "adaptive_max_pool2d_backward",
            "avg_pool3d_backward",
            "fractional_max_pool2d_backward",
            "fractional_max_pool3d_backward",
            "grid_sampler_2d_backward",
            "grid_sampler_3d_backward",
            "histc",
            "max_unpool2d",
            "max_unpool3d",
            "median",
            "put",
            "put_",
            "reflection_pad1d_backward",
            "reflection_pad2d_backward",
            "reflection_pad3d_backward",
            "upsample_bicubic2d_backward",
            "upsample_bilinear2d_backward",
            "upsample_linear1d_backward",
            "upsample_trilinear3d_backward",
        ),
        _always,
    ),
    "bincount": lambda args: len(args) > 1 and args[1] is not None,
    "cumsum": _floats,
    "nll_loss2d_forward": lambda args: bool(args[3]),  # 0: no reduction
}
"""What torch refuses on CUDA if it must be deterministic, and for which arguments."""

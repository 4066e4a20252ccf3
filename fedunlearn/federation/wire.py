"""Tasks and replies as one JSON text and named arrays, and back: what crosses the wire, or waits in a file.

Never pickled code.

A value may be None, a bool, a number, a string, a tensor, a tuple, a mapping with string keys, or a frozen dataclass
of this project's packages whose fields are such values. The class travels by name and is looked up only in
`PACKAGES` and where strategies come from (`fedunlearn.guests`): a message cannot name arbitrary code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from fedunlearn import files, guests
from fedunlearn.core import RunError
from fedunlearn.weights import digest, read, write

PACKAGES = ("fedunlearn", "strategies")


def pack(value: object, once: bool = False) -> tuple[str, dict[str, Tensor]]:
    """Split ``value`` into a JSON text and the arrays it holds.

    Args:
        value: a wire value.
        once: list an array that it holds in several places but once, as where many tasks send one model.

    Raises:
        TypeError: something in it is not a wire value.
    """
    arrays: dict[str, Tensor] = {}
    return json.dumps(_encode(value, "", arrays, {} if once else None)), arrays


def unpack(text: str, arrays: Mapping[str, Tensor]) -> Any:
    """Put a value together again.

    Raises:
        TypeError: the text names a class that may not cross the wire.
    """
    return _decode(json.loads(text), arrays)


def brought(text: str) -> dict[str, bytes]:
    """The contents of the users' files that a text of `pack` names classes of, by module (`fedunlearn.guests`)."""
    found = {module: guests.held(module) for module in _modules(json.loads(text))}
    return {module: file.content for module, file in found.items() if file is not None}


def size(value: object, known: dict[int, int] | None = None) -> int:
    """Bytes of the arrays in ``value``: what sending it costs, whatever the engine.

    Args:
        value: a wire value.
        known: sizes of mappings by their `id`, to be used and added to: many tasks send one model. All of them must
            stay alive meanwhile.
    """
    known = {} if known is None else known
    if value is None or isinstance(value, (bool, int, float, str)):
        return 0
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        if id(value) not in known:
            known[id(value)] = sum(size(item, known) for item in value.values())
        return known[id(value)]
    if isinstance(value, tuple):
        return sum(size(item, known) for item in value)
    if isinstance(value, type):
        return 0
    # As `dataclasses.fields`, in a fifth of the time.
    names: Iterable[str] = getattr(value, "__dataclass_fields__", ())
    return sum(size(getattr(value, name), known) for name in names)


def save(path: Path, value: object, about: str = "", durable: bool = True) -> dict[str, Tensor]:
    """Write a value and a text about it as one safetensors file; return the arrays by their names in the file.

    Args:
        path: the file.
        value: a wire value.
        about: any text.
        durable: whether to wait until it is on the disk (`fedunlearn.files.replacing`).

    Raises:
        TypeError: something in the value is not a wire value.
        RunError: the file cannot be written.
    """
    text, arrays = pack(value)
    known = json.dumps({"value": text, "about": about, "digest": _digest(text, about, arrays)})
    with files.replacing(path, durable) as temporary:
        write({name: array.contiguous() for name, array in arrays.items()}, temporary, {"known": known})
    return arrays


def load(path: Path) -> tuple[Any, str]:
    """A value that `save` wrote, and the text about it.

    Raises:
        RunError: the file is missing, or is not what was written.
    """
    try:
        arrays, told = read(path)
        known = json.loads(told["known"])
        if known["digest"] == _digest(known["value"], known["about"], arrays):
            return unpack(known["value"], arrays), known["about"]
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    raise RunError(f"{path} is damaged: it is not what was written there")


def _digest(text: str, about: str, arrays: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{text}\0{about}\0{digest(arrays)}".encode()).hexdigest()


def _encode(value: object, path: str, arrays: dict[str, Tensor], keys: dict[int, str] | None) -> object:
    """``value`` for JSON; tensors go to ``arrays``. What ``keys`` names by its `id` is there already."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        key = f"{len(arrays)}{path}"  # the number, since a "/" in a name could make two paths equal
        if keys is not None and (known := keys.setdefault(id(value), key)) != key:
            return {"tensor": known}
        arrays[key] = value
        return {"tensor": key}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, f"{path}/{i}", arrays, keys) for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{path or 'the value'} has the key {odd[0]!r}, which is no string")
        return {"map": {key: _encode(item, f"{path}/{key}", arrays, keys) for key, item in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        fields = {
            f.name: _encode(getattr(value, f.name), f"{path}/{f.name}", arrays, keys)
            for f in dataclasses.fields(value)
        }
        return {"class": f"{cls.__module__}:{cls.__qualname__}", "fields": fields}
    raise TypeError(f"{path or 'the value'} is a {type(value).__name__}, which cannot cross the wire")


def _decode(node: Any, arrays: Mapping[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return arrays[node["tensor"]]
    if "tuple" in node:
        return tuple(_decode(item, arrays) for item in node["tuple"])
    if "map" in node:
        return {key: _decode(item, arrays) for key, item in node["map"].items()}
    return _class(node["class"])(**{key: _decode(item, arrays) for key, item in node["fields"].items()})


def _modules(node: Any) -> Iterator[str]:
    """The modules of all classes in an encoded value."""
    if isinstance(node, dict):
        if isinstance(name := node.get("class"), str):
            yield name.partition(":")[0]
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from _modules(inner)


def _class(name: str) -> type:
    module, _, qualname = name.partition(":")
    top = module.partition(".")[0]
    if not (top in PACKAGES or guests.held(module) or top in guests.packages()):
        own = f"{', '.join(PACKAGES)}, of strategies' files and of packages that offer strategies"
        raise TypeError(f"{name!r} may not cross the wire: only classes of {own} may")
    cls = getattr(importlib.import_module(module), qualname, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]  # typeshed does not know it
        raise TypeError(f"{name!r} may not cross the wire: it is not a frozen dataclass")
    return cls

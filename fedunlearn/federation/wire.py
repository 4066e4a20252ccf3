"""Tasks and replies as one JSON text and named arrays, and back: what crosses the wire. Never pickled code.

A value may be None, a bool, a number, a string, a tensor, a tuple, a mapping with string keys, or a frozen dataclass
of this project's packages whose fields are such values. The class travels by name and is looked up only in
`PACKAGES`, so a message cannot name arbitrary code.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedunlearn.weights import nbytes

PACKAGES = ("fedunlearn", "strategies")


def pack(value: object) -> tuple[str, dict[str, Tensor]]:
    """Split ``value`` into a JSON text and the arrays it holds.

    Raises:
        TypeError: something in it is not a wire value.
    """
    arrays: dict[str, Tensor] = {}
    return json.dumps(_encode(value, "", arrays)), arrays


def unpack(text: str, arrays: Mapping[str, Tensor]) -> Any:
    """Put a value together again.

    Raises:
        TypeError: the text names a class that may not cross the wire.
    """
    return _decode(json.loads(text), arrays)


def size(value: object) -> int:
    """Bytes of the arrays in ``value``: what sending it costs, whatever the engine."""
    return nbytes(pack(value)[1])


def _encode(value: object, path: str, arrays: dict[str, Tensor]) -> object:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        key = f"{len(arrays)}{path}"  # the number, since a "/" in a name could make two paths equal
        arrays[key] = value
        return {"tensor": key}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{path or 'the value'} has the key {odd[0]!r}, which is no string")
        return {"map": {key: _encode(item, f"{path}/{key}", arrays) for key, item in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        fields = {
            f.name: _encode(getattr(value, f.name), f"{path}/{f.name}", arrays)
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


def _class(name: str) -> type:
    module, _, qualname = name.partition(":")
    if module.split(".")[0] not in PACKAGES:
        raise TypeError(f"{name!r} may not cross the wire: only classes of {', '.join(PACKAGES)} may")
    cls = getattr(importlib.import_module(module), qualname, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]  # typeshed does not know it
        raise TypeError(f"{name!r} may not cross the wire: it is not a frozen dataclass")
    return cls

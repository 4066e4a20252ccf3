"""What a cell is called: a folder's name that says its values."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any


def slug(values: Mapping[str, Any]) -> str:
    """The name for the values; with a digest where it cannot say them in full."""
    text = "_".join(f"{key.rpartition('.')[2]}-{text_of(value)}" for key, value in values.items())
    readable = re.sub(r"[^a-z0-9.+_]+", "-", text)[:100].strip("-.")
    if readable == text:
        return text
    return f"{readable}-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]}"


def columns(keys: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """By swept key, its column: its own name, or ``set.KEY`` where a table has ``taken`` that name for a result."""
    return {key: f"set.{key}" if key in taken else key for key in keys}


def stored(value: Any, kinds: set[type]) -> Any:
    """A swept value as a column of values of these kinds can hold it: numbers and texts as they are, others as JSON."""
    same = kinds <= {int, float} or kinds == {str}
    return value if same else json.dumps(value)


def text_of(value: Any) -> str:
    """A swept value as a person would write it."""
    return value if isinstance(value, str) else json.dumps(value)

"""What a run's forgotten images left outside of its folder: shadow models in the cache that several runs share."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from fedunlearn.core import RunError


def entries(cache: Path, data: str, clean: Collection[bytes]) -> list[Path]:
    """The entries of shadow models that were trained on what goes, or of which nobody can tell any more.

    Args:
        cache: the folder.
        data: the digest of the run's data.
        clean: who was in the training of shadow models that saw none of it.
    """
    halves = {_digest(mask) for mask in clean}
    return [entry for entry in _all(cache) if _of(entry, data, halves)]


def remove(found: Collection[Path]) -> None:
    """Remove entries.

    Raises:
        RunError: one cannot be removed.
    """
    for entry in found:
        try:
            shutil.rmtree(entry)
        except FileNotFoundError:
            continue  # somebody else did
        except OSError as error:
            raise RunError(f"cannot remove {entry}: {error.strerror or error}") from error


def _all(cache: Path) -> Iterator[Path]:
    if cache.is_dir():
        yield from sorted(path for path in cache.iterdir() if (path / "origin.json").is_file())


def _of(entry: Path, data: str, halves: Collection[str]) -> bool:
    try:
        origin = json.loads((entry / "origin.json").read_text(encoding="utf-8"))["origin"]
        return origin["data"] == data and origin["half"] not in halves
    except (OSError, ValueError, KeyError, TypeError):
        return False  # it is damaged, and is never used


def _digest(mask: bytes) -> str:
    """As `campaign.shadows` writes it."""
    return hashlib.sha256(len(mask).to_bytes(8, "big") + mask).hexdigest()

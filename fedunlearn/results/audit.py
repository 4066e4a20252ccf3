"""The audit log: what was asked for and what was done about it, one JSON line each, chained by hashes.

Every line holds the hash of the line before, so that a line changed, removed or moved breaks the chain from there on.
Lines speak of counts and model hashes, never of patients.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GENESIS = "0" * 64


def append(path: Path, event: str, details: Mapping[str, object]) -> None:
    """Add one line and force it to disk.

    Args:
        path: the log; made if absent.
        event: what happened, e.g. ``request-received``.
        details: JSON values.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    last: dict[str, Any] = json.loads(lines[-1]) if lines else {"seq": -1, "hash": GENESIS}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = {"seq": last["seq"] + 1, "time_utc": now, "event": event, **details, "previous": last["hash"]}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "hash": hash_of(line)}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def hash_of(line: Mapping[str, object]) -> str:
    """sha256 of a line's canonical JSON, its own ``hash`` left out."""
    body = {key: value for key, value in line.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

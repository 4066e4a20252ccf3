"""Where every seed comes from."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A seed of 63 bits for one purpose, the same on every machine and in every process.

    The purpose never names a procedure: training and retraining draw the same numbers for the same
    hospital and round, so that retraining without a request is training, bit for bit.
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

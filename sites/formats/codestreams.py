"""What compressed pixels tell of their own size, which may not be what the file around them says."""

from __future__ import annotations

_J2K = b"\xff\x4f\xff\x51"  # a codestream of JPEG 2000, and its SIZ (ISO/IEC 15444-1 A.5.1)
_FRAMES = frozenset(
    {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
)  # SOF of JPEG (T.81 B.2.2) and of JPEG-LS
_LONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length


def edges(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 stream; None if it does not tell."""
    if stream.startswith(_J2K):
        right, bottom, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in range(8, 24, 4))
        return bottom - top, right - left
    at = 0
    while stream[at : at + 1] == b"\xff" and at + 9 <= len(stream):
        kind = stream[at + 1]
        if kind in _FRAMES:
            rows, columns = (int.from_bytes(stream[start : start + 2], "big") for start in (at + 5, at + 7))
            return (rows, columns) if rows else None  # else they follow the first scan
        if kind == 0xFF:  # filling
            at += 1
        else:
            at += 2 + (0 if kind in _LONE else int.from_bytes(stream[at + 2 : at + 4], "big"))
    return None

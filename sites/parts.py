"""What people call the parts of an official split."""

from __future__ import annotations

PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The part that a word stands for, in lower case."""

"""The strategy that the documentation shows, as a file."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to" / "own-strategy.md"


def unsure() -> str:
    """The file's text."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- file: unsure.py -->\n```python\n")
    text, end, _ = rest.partition("```\n<!-- end -->")
    assert end, f"{PAGE} has no file unsure.py"
    return text


def write(folder: Path, text: str | None = None, name: str = "unsure.py") -> Path:
    """The file, or one with another text."""
    path = folder / name
    path.write_text(unsure() if text is None else text, encoding="utf-8")
    return path

"""The strategy that the README shows, as a file."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def unsure() -> str:
    """The file's text."""
    _, _, rest = README.read_text(encoding="utf-8").partition("<!-- file: unsure.py -->\n```python\n")
    text, end, _ = rest.partition("```\n<!-- end -->")
    assert end, "the README has no file unsure.py"
    return text


def write(folder: Path, text: str | None = None, name: str = "unsure.py") -> Path:
    """The file, or one with another text."""
    path = folder / name
    path.write_text(unsure() if text is None else text, encoding="utf-8")
    return path

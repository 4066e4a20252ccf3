"""Text from scenarios and data, as it may be shown: whole, and without power over a terminal or a document.

Labels, ids and messages may hold anything a file can hold. A terminal would obey an escape sequence, rich would take
``[eta=1]`` for its markup, and Markdown a ``|`` for the end of a cell.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from rich.text import Text

_KEPT = "\n\t"
_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, invisible formatting (which turns the direction of text), surrogates and
separators of lines and paragraphs."""


def safe(text: object) -> str:
    r"""``text`` with everything that is not to be seen as it is written in Python: ``\x1b``, ``\u202e``."""
    return "".join(_visible(character) for character in str(text))


def cell(text: object, style: str = "") -> Text:
    """A cell of a table on a terminal, as it is."""
    return Text(safe(text), style=style)


def row(cells: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(_escaped, cells))} |"


def _visible(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HARMFUL:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _escaped(text: object) -> str:
    plain = safe(text).replace("\\", "\\\\").replace("|", "\\|")
    return " ".join(plain.split("\n"))

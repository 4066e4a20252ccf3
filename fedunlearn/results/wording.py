r"""Text from scenarios and data, as it may be shown: whole, and without power over a terminal or a document.

Labels, ids and messages may hold anything a file can hold. A terminal would obey an escape sequence, rich would take
``[eta=1]`` for its markup and ``:heart:`` for a picture, and Markdown a ``|`` for the end of a cell.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from rich.text import Text

_KEPT = "\n\t"
_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, invisible formatting (which turns the direction of text), surrogates and
separators of lines and paragraphs."""
_NO_CHARACTERS = range(0xFDD0, 0xFDF0)
"""Codes that Unicode gives to no character, ever, with the last two of every plane. XML, and so SVG, knows no
U+FFFE and no U+FFFF."""
_MARKS = re.compile(r"[\\`*<&~|]|\](?=\()|(?<![^\W_])_|_(?![^\W_])")
"""What would be more than itself inside of a Markdown paragraph or cell; a ``_`` between letters is not."""
_STARTS = re.compile(r"^(\d*)([#+>=.)\[-])")
"""What would make a heading, a quotation, a link or another list of a line that starts with it."""


def safe(text: object) -> str:
    r"""``text`` with everything that is not to be seen as it is written in Python: ``\x1b``, ``\u202e``."""
    whole = str(text)
    return whole if whole.isprintable() else "".join(map(_visible, whole))


def line(text: object) -> str:
    r"""The same in one line: what comes from data does not begin a line that looks like ours. ``\n``, ``\t``."""
    return safe(text).replace("\n", "\\n").replace("\t", "\\t")


def plain(text: object) -> Text:
    """`safe` text for a console, which looks for neither markup nor names of pictures in it."""
    return Text(safe(text))


def cell(text: object, style: str = "") -> Text:
    """A cell of a table on a terminal, as it is."""
    return Text(line(text), style=style)


def quoted(text: object) -> str:
    """A `line` of text in a document in Markdown."""
    return _MARKS.sub(r"\\\g<0>", line(text))


def code(text: object) -> str:
    """A `line` of text as code within a sentence in Markdown, where a backslash is one and nothing is marked up."""
    whole = line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", whole)), default=0))
    gap = " " if whole.startswith(("`", " ")) or whole.endswith(("`", " ")) or not whole else ""
    return f"{fence}{gap}{whole}{gap}{fence}"


def item(text: object) -> str:
    """An item of a list in Markdown."""
    return "- " + _STARTS.sub(r"\1\\\2", quoted(text).lstrip())


def row(cells: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(quoted, cells))} |"


def _visible(character: str) -> str:
    if character in _KEPT or not (unicodedata.category(character) in _HARMFUL or _none(ord(character))):
        return character
    return character.encode("unicode_escape").decode("ascii")


def _none(code: int) -> bool:
    """Whether there is no such character."""
    return code in _NO_CHARACTERS or code & 0xFFFE == 0xFFFE

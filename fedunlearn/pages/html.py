"""From values to a page: one file of HTML that opens from disk, asks no network for anything and obeys no data.

Text from scenarios and data is escaped by Jinja, and before that made harmless and short (`told`): what turns the
direction of text or begins a new line is shown as it is written in Python. The page's own policy forbids it every
request and every script but its own one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fedunlearn.results.wording import line, safe

_HERE = Path(__file__).parent
_LONGEST, _WORD = 1_500, 80
"""Letters of a text, and of a word in it, that are shown."""
_LONG_WORD = re.compile(rf"(\S{{{_WORD - 1}}})\S{{2,}}")


def render(template: str, **facts: object) -> str:
    """A page.

    Args:
        template: a file of the folder ``templates``; it extends ``base.html``.
        facts: what it shows.
    """
    from fedunlearn.charts import css  # here, since it takes a second

    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    own = {
        "style": Markup(f"{css()}\n{(_HERE / 'style.css').read_text(encoding='utf-8')}"),
        "script": Markup(script),
        "script_digest": Markup(f"sha256-{digest}"),
    }
    return _environment().get_template(template).render(**own, **facts)


def told(value: object) -> object:
    """Text as it may be shown: in one line, without power, words and whole not too long; all else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = _LONG_WORD.sub(r"\1…", line(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def whole(value: str) -> Markup:
    """Text in all its lines and letters, escaped."""
    return Markup(escape(safe(value)))


def own(value: str) -> Markup:
    """Text that is ours, such as the place of a number, escaped and never cut."""
    return Markup(escape(value))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=told,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"whole": whole, "own": own}
    return environment

"""What the site does otherwise than a browser of the repository: called by mkdocs (mkdocs.yml, `hooks`)."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[(?P<text>[^\]\n]+)\]\((?P<target>\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The site holds docs/ alone: a link to a file elsewhere in the repository becomes that file's name."""
    folder = posixpath.dirname(page.file.src_uri)

    def told(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, link["target"]))
        if path.startswith("docs/"):
            return link[0]
        name = path + ("/" if link["target"].endswith("/") else "")
        return f"`{name}`" if link["text"].strip("`") == name else f"{link['text']} (`{name}`)"

    return _LINK.sub(told, markdown)

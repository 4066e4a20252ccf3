"""What a shell offers when the Tab key is pressed. Nothing here may load what computes: it would be waited for."""

from __future__ import annotations

import textwrap

import typer

from fedunlearn import installation
from fedunlearn.results.wording import line

_BROAD = 60
"""Letters of a summary: typer would break it in two, and a shell take the second line for another offer."""


def entries(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names of the list that was asked for, with their summaries."""
    from fedunlearn import listing

    what = context.params.get("what")
    return _named(str(what), incomplete) if what in (*listing.SOURCES, "scenarios") else []


def scenarios(incomplete: str) -> list[str]:
    """The scenarios that come with fedunlearn; a shell offers files beside them by itself."""
    return [name for name in installation.scenario_files() if name.startswith(incomplete)]


def strategies(incomplete: str) -> list[tuple[str, str]]:
    """Names of strategies, with their summaries."""
    return _named("strategies", incomplete)


def _named(what: str, incomplete: str) -> list[tuple[str, str]]:
    from fedunlearn import listing

    found = (one for one in listing.entries(what) if one["name"].startswith(incomplete))
    return [(one["name"], textwrap.shorten(line(one["summary"]), _BROAD, placeholder=" …")) for one in found]

"""Pages for people: one HTML file that says what a run came to, opens from disk and needs no network."""

from __future__ import annotations

from fedunlearn import charts
from fedunlearn.pages import figures, html
from fedunlearn.pages.facts import Folder, page

FILE = "report.html"
"""Where a run's report is, in its folder."""


UNWRITTEN = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Not written</title></head>
<body>
<h1>This report could not be written</h1>
<p>The run was scored again. Its scores are renewed, its report is not: what was here spoke of the former scores.</p>
<p><code>fedunlearn report RUN</code> with this folder as RUN prints the answers, tries again to write the report, and
says what stops it.</p>
</body>
</html>
"""
"""What stands in a report's place until it can be written; made of nothing that could fail."""


def report(run: Folder) -> str:
    """The report of a finished run.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing or damaged.
    """
    with charts.painters((figures.WIDE, figures.NARROW)) as draw:
        return html.render("report.html", page=page(run, draw))

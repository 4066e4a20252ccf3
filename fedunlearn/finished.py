"""What is done again to finished runs, from their folders alone: their pages and their scores. Nothing here trains.

It is apart from `fedunlearn.story`, so that whoever looks at a run need not wait for what trains one to be loaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from fedunlearn import __version__, pages
from fedunlearn.results import audit
from fedunlearn.results.places import locked
from fedunlearn.results.purged import require_evidence
from fedunlearn.results.runfolder import RunFolder, parquet
from fedunlearn.scoring.evidence.margins import declared, parse
from fedunlearn.scoring.score import tables


def present(run: RunFolder) -> None:
    """Write a finished run's page, ``report.html``, for whoever holds its lock; a page that is the same stays.

    What stops it leaves the run whole, and its page as it was.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing, damaged or cannot be written.
    """
    try:
        content = pages.report(run).encode("utf-8")
        page = run.path / pages.FILE
        known = pages.FILE in run.read_manifest()["sha256"] and page.is_file()
        if not known or page.read_bytes() != content:
            run.renew({pages.FILE: content})
    except BaseException as error:
        error.add_note(
            f"the run in {run.path} is finished and nothing of it is lost; `fedunlearn report {run.path}` tries again "
            f"to write its page, {pages.FILE}"
        )
        raise


def page(path: Path) -> Path:
    """Write the page of a finished run anew; return where it is.

    Raises:
        InputError, RunError: see `present`; or the folder is in use, or cannot be written to (`files.forbidden`).
    """
    with locked(path):
        present(RunFolder.open(path))
    return path / pages.FILE


def rescore(path: Path, margins: str | None = None) -> None:
    """Score a finished run again, from its folder alone; the audit log tells.

    Scores and page are renewed together, so that they never disagree. A page that cannot be drawn keeps nobody from
    scores: in its place stands that it could not be written (`pages.UNWRITTEN`), and what stopped it is raised.

    Args:
        path: the run folder.
        margins: to judge with from now on, as a text (`evidence.margins.parse`); those it does not name stay.

    Raises:
        InputError: it is no finished run's, something was purged from it, or margins cannot be read.
        RunError: a file that scores rest on is missing or damaged; scores and page stay as they were.
    """
    with locked(path):
        run = RunFolder.open(path)
        log, manifest = run.path / audit.FILE, run.read_manifest()
        require_evidence(manifest, "scored again")
        used = declared(manifest)
        used = used if margins is None else parse(margins, used)
        audit.verify(log, manifest["audit"])
        contents = {name: parquet(table) for name, table in tables(run.path, used).items()}
        details = {
            "fedunlearn": __version__,
            "scores": hashlib.sha256(contents["scores.parquet"]).hexdigest(),
            "margins": asdict(used),
        }
        contents[audit.FILE] = audit.extended(log, "run-rescored", details)
        entries = {"verdict": {"margins": asdict(used)}}
        try:
            content = pages.report(run.foretold(contents, entries))
        except Exception as error:  # whatever it is: it is told once scores are there
            run.renew({**contents, pages.FILE: pages.UNWRITTEN.encode("utf-8")}, entries)
            error.add_note(
                f"{path} is scored all the same; `fedunlearn report {path}` tries again to write its page, {pages.FILE}"
            )
            raise
        run.renew({**contents, pages.FILE: content.encode("utf-8")}, entries)

"""When the page is written: after a run, by `report` and `score`; what stops it costs nothing of the run."""

from __future__ import annotations

import errno
import hashlib
import html
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedunlearn import finished, pages
from fedunlearn.__main__ import app
from fedunlearn.core import RunError
from fedunlearn.results import report
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.verification import verify
from tests import runs
from tests.pages.reading import parsed

pytestmark = pytest.mark.usefixtures("real_pages")


@pytest.fixture
def own(run: RunFolder, tmp_path: Path) -> RunFolder:
    """A run that may be changed."""
    return RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))


def broken(error: Exception) -> Callable[[object], str]:
    """What draws pages, with a defect."""

    def report(run: object) -> str:
        raise error

    return report


def page(run: RunFolder) -> str:
    return (run.path / pages.FILE).read_text(encoding="utf-8")


@pytest.mark.gate
def test_a_run_leaves_a_page_that_its_manifest_knows(tmp_path: Path) -> None:
    run = runs.run(tmp_path)
    known = run.read_manifest()["sha256"][pages.FILE]
    assert hashlib.sha256((run.path / pages.FILE).read_bytes()).hexdigest() == known
    assert "forget all of hospital east" in page(run)
    assert verify(run.path, 0, tmp_path, Console())


@pytest.mark.gate
def test_a_page_that_cannot_be_drawn_costs_nothing_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "report", broken(ValueError("no ink")))
    with pytest.raises(ValueError, match="no ink") as error:
        runs.run(tmp_path)
    run = RunFolder.open(tmp_path / "run")
    run.check(list(run.read_manifest()["sha256"]))
    assert "nothing of it is lost" in error.value.__notes__[0]


@pytest.mark.gate
def test_report_writes_the_page_and_prints_where_it_is(own: RunFolder) -> None:
    found = CliRunner().invoke(app, ["report", str(own.path)])
    assert found.exit_code == 0 and f"page: {own.path / 'report.html'}" in found.stdout
    first = (own.path / "manifest.json").read_bytes()
    assert CliRunner().invoke(app, ["report", str(own.path)]).exit_code == 0
    assert (own.path / "manifest.json").read_bytes() == first  # nothing new to write


@pytest.mark.gate
@pytest.mark.parametrize("step", ["lock", "write"])
def test_in_a_folder_that_may_only_be_read_report_says_so_and_prints_all_the_same(
    own: RunFolder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    if step == "lock":
        monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    else:
        monkeypatch.setattr(Path, "write_bytes", refuse)
    found = CliRunner().invoke(app, ["report", str(own.path)])
    assert found.exit_code == 0 and "CAN THIS RUN TELL?" in found.stdout
    assert "page: not written: cannot write" in found.stderr and "Read-only file system" in found.stderr
    assert "page:" not in found.stdout


@pytest.mark.parametrize(
    ("stopped", "code"),
    [
        (ValueError("no ink"), 1),
        (RunError("curves.parquet is damaged"), RunError.exit_code),
        (OSError(errno.ENOSPC, "no space"), 1),
    ],
)
def test_a_page_that_cannot_be_drawn_is_an_error_once_the_table_is_printed(
    own: RunFolder, monkeypatch: pytest.MonkeyPatch, stopped: Exception, code: int
) -> None:
    monkeypatch.setattr(pages, "report", broken(stopped))
    found = CliRunner().invoke(app, ["report", str(own.path)])
    assert found.exit_code == code != 0 and "CAN THIS RUN TELL?" in found.stdout
    assert str(stopped) in found.stderr


@pytest.mark.gate
def test_other_margins_make_another_page_at_once(own: RunFolder, few_resamples: None) -> None:
    finished.present(own)
    before = page(own)
    finished.rescore(own.path, "memory_left=0.9,test=0.5")
    after = page(own)
    assert "at most 25 % of that memory" in before and "at most 90 % of that memory" in after
    assert "Declared in the scenario before anything was run" in before
    said = "judged with test 0.5, memory_left 0.9 instead of the scenario's test 0.03, memory_left 0.25"
    assert "Declared in the scenario before" not in after and said in html.unescape(after)
    assert said in report.markdown(own)
    lines = own.read_manifest()["audit"]["lines"]
    assert f"{lines} lines, head {own.read_manifest()['audit']['head']}" in parsed(after).by_id("origin").text
    own.check(list(own.read_manifest()["sha256"]))


@pytest.mark.gate
def test_a_page_that_cannot_be_drawn_keeps_nobody_from_new_scores(
    own: RunFolder, few_resamples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished.present(own)
    before = (own.path / "verdicts.parquet").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pages, "report", broken(ValueError("no ink")))
        found = CliRunner().invoke(app, ["score", str(own.path), "--margins", "memory_left=0.9"])
    assert found.exit_code == 1 and "no ink" in found.stderr and "is scored all the same" in found.stderr
    manifest = own.read_manifest()
    assert manifest["verdict"]["margins"]["memory_left"] == 0.9
    assert (own.path / "verdicts.parquet").read_bytes() != before
    assert page(own) == pages.UNWRITTEN  # nothing of the former scores
    own.check(list(manifest["sha256"]))
    assert verify(own.path, 0, own.path, Console())
    assert CliRunner().invoke(app, ["report", str(own.path)]).exit_code == 0
    assert "at most 90 % of that memory" in page(own)


@pytest.mark.gate
def test_a_run_of_an_older_version_is_verified_by_the_tables_that_it_has(
    own: RunFolder, few_resamples: None
) -> None:
    (own.path / "roc.parquet").unlink()
    own.write_manifest(own.read_manifest())
    told = "\n".join(verify(own.path, 0, own.path, Console()))
    assert "6 tables come out the same" in told
    assert f"written by an older version: `fedunlearn score {own.path}` adds roc.parquet" in told
    finished.rescore(own.path)
    assert "older" not in "\n".join(verify(own.path, 0, own.path, Console()))


@pytest.mark.gate
def test_a_table_that_every_version_wrote_is_missed(own: RunFolder, few_resamples: None) -> None:
    (own.path / "verdicts.parquet").unlink()
    own.write_manifest(own.read_manifest())
    with pytest.raises(RunError, match=r"verdicts\.parquet"):
        verify(own.path, 0, own.path, Console())

"""What becomes of the command line when nobody reads what it prints, or it cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedunlearn.__main__ import app
from tests.runs import write

pytestmark = pytest.mark.gate


COMMANDS = {
    "python -m": ["-m", "fedunlearn"],
    "the command": ["-c", "from fedunlearn.__main__ import main; main()"],
}
ROOT = Path(__file__).resolve().parents[1]


def start(
    how: str, *words: str, stdout: int, stderr: int = subprocess.PIPE, unbuffered: bool = False
) -> tuple[int, str]:
    """The exit code and what came on standard error, if that was not sent elsewhere."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {})
    command = [sys.executable, *COMMANDS[how], *words]
    done = subprocess.run(
        command, env=environment, stdout=stdout, stderr=stderr, text=True, check=False, timeout=300
    )
    return done.returncode, done.stderr or ""


@pytest.fixture
def closed() -> Iterator[int]:
    """The write end of a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    ("how", "words", "unbuffered"),
    [
        ("python -m", ("list", "strategies"), False),  # fills the buffer: fails within the command
        ("python -m", ("copy", "3hosp"), False),  # fails when the buffer is emptied at the end
        ("the command", ("copy", "3hosp"), False),
        ("the command", ("copy", "3hosp"), True),
        ("the command", ("--help",), False),
        ("python -m", ("--help",), True),
    ],
)
def test_a_reader_that_has_gone_ends_it_quietly(
    closed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    words: tuple[str, ...],
    unbuffered: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    # 128 + 13, the number of SIGPIPE: what a shell reports of `yes` in `yes | head -1`.
    assert start(how, *words, stdout=closed, unbuffered=unbuffered) == (141, "")


def test_an_error_that_nobody_reads_ends_it_quietly(closed: int) -> None:
    assert start("the command", "check", "nope", stdout=closed, stderr=closed) == (141, "")


def test_an_error_keeps_its_exit_code_where_only_the_output_goes_unread(closed: int) -> None:
    code, told = start("the command", "check", "nope", stdout=closed)
    assert code == 2 and told.startswith("error: nope: found no such file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", [False, True])
def test_output_that_cannot_be_written_is_one_message_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with open("/dev/full", "w") as full:
        code, told = start("the command", "copy", "3hosp", stdout=full.fileno(), unbuffered=unbuffered)
    assert code == 1
    assert "No space left on device" in told and len(told.splitlines()) == 1


def test_it_does_its_work_where_there_is_no_output_at_all(tmp_path: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, *COMMANDS["the command"]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*shell, "copy", "3hosp"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "3hosp.yaml").exists()


def test_a_pipe_of_the_engine_that_breaks_is_an_error_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("fedunlearn.story.drive", broken)
    words = ["simulate", str(write(tmp_path)), "--set", "seeds=[1]", "--quiet", "--out", str(tmp_path / "r")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "BrokenPipeError" in result.stderr

"""The README is short and true, and every command that the documentation shows is one that there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

import strategies
from fedunlearn.__main__ import app
from tests.docs import pages

README = pages.ROOT / "README.md"
PROGRAM = re.compile(r"^(?:\S*/)?(?:python -m )?fedunlearn ")


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_its_two_commands_are_a_line_each() -> None:
    """`.ci/run` runs them word for word."""
    text = README.read_text(encoding="utf-8")
    found = dict(re.findall(r"<!-- command: (\w+) -->\n```sh\n(.+)\n```\n", text))
    assert set(found) == {"simulate", "test"}
    assert found["simulate"].endswith("fedunlearn simulate scenarios/3hosp.yaml")


def test_it_counts_the_strategies() -> None:
    assert f"**{len(strategies.catalogue())} strategies**" in README.read_text(encoding="utf-8")


SHOWN = [(page, line) for page in pages.PAGES for line in pages.commands(page, PROGRAM)]


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[f"{pages.name(page)}-{line}" for page, line in SHOWN])
def test_a_command_that_is_shown_is_one(page: Path, line: str) -> None:
    assert wrong(line) == ""


def test_it_notices_commands_that_are_none() -> None:
    assert wrong("fedunlearn simulate 3hosp --set seeds=[7] --out runs/a    # a comment") == ""
    assert "--outt" in wrong("fedunlearn simulate 3hosp --outt runs/a")
    assert "simulte" in wrong("fedunlearn simulte 3hosp")
    assert wrong(".venv/bin/fedunlearn cluster check 10.0.0.1:6379") == ""


def wrong(line: str) -> str:
    """What is wrong with a command line: no such command, or no such option of it; empty if nothing is."""
    told = PROGRAM.sub("", line).split(" # ")[0].replace("[", " ").replace("]", " ").replace("'", " ")
    words, command = shlex.split(told), typer.main.get_command(app)
    while words and (below := getattr(command, "commands", None)):
        if words[0] in ("COMMAND", "…"):
            return ""
        if words[0] not in below:
            return f"no command {words[0]}"
        command = below[words.pop(0)]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    return ", ".join(word for word in words if word.startswith("--") and _bare(word) not in known)


def _bare(option: Any) -> str:
    return str(option).partition("=")[0]


PROMISED = re.compile(
    r"erased|certif|guarantee|GDPR[- ]compliant|right to be forgotten honoured|✅|✔|✓", re.I
)
"""Words that promise what no test can show."""


@pytest.mark.parametrize(
    "name", ["README.md", *(f"docs/{page}.md" for page in ("index", "tutorial", "how-to/verdict"))]
)
def test_it_promises_nothing(name: str) -> None:
    text = (pages.ROOT / name).read_text(encoding="utf-8")
    assert PROMISED.findall(text) == []
    assert "no legal advice" in text or "nor legal advice" in text or name.endswith("tutorial.md")

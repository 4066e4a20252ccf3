"""What ``--help`` says."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from fedunlearn.commands.application import command

BUILT = command()
COMMANDS = BUILT.commands if isinstance(BUILT, click.Group) else {}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_has_its_sentence(name: str) -> None:
    result = CliRunner().invoke(BUILT, [name, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0
    for param in COMMANDS[name].params:
        if isinstance(param, click.Argument) and name != "list":
            assert param.help
            assert param.help.split(".")[0].split("`")[0][:40] in result.output


def test_there_are_commands() -> None:
    assert {"simulate", "init", "list", "schema", "cluster"} <= set(COMMANDS)

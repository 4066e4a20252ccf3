"""The commands, in the order in which ``--help`` lists them."""

from __future__ import annotations

import inspect
import typing
from typing import Annotated

import click
import typer
import typer.main
from typer.core import TyperArgument
from typer.models import ArgumentInfo

import fedunlearn
from fedunlearn import installation
from fedunlearn.commands import answering, checking, looking, preparing, rim, running

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=fedunlearn.__doc__)


@app.callback()
def start(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Before any command: make sure that it would run our code."""
    with rim.errors(debug):
        installation.require_own_packages()


app.command()(running.simulate)
app.command()(checking.check)
app.command()(checking.check_strategy)
app.command()(running.tune)
app.command()(looking.score)
app.command()(looking.report)
app.command()(looking.compare)
app.command()(looking.verify)
app.command()(answering.keys)
app.command()(answering.record)
app.command()(answering.purge)
app.command()(looking.discard)
app.command(name="list")(preparing.list_)
app.command()(preparing.init)
app.command()(preparing.copy)
app.command()(preparing.manifest)
app.command()(preparing.schema)

cluster = typer.Typer(no_args_is_help=True, help="Ray clusters.")
cluster.command(name="check")(checking.check_cluster)
app.add_typer(cluster, name="cluster")


def command() -> click.Command:
    """All commands, ready to be called."""
    built = typer.main.get_command(app)
    _help(built)
    return built


def _help(built: click.Command) -> None:
    """Give arguments their sentence in ``--help``: click from 8.5 on takes it from what typer has made."""
    if isinstance(built, click.Group):
        for one in built.commands.values():
            _help(one)
    if built.callback is None:
        return
    hints = typing.get_type_hints(inspect.unwrap(built.callback), include_extras=True)
    for param in built.params:
        marks = getattr(hints.get(param.name or ""), "__metadata__", ())
        told = next((mark.help for mark in marks if isinstance(mark, ArgumentInfo)), None)
        if isinstance(param, TyperArgument) and param.help is None:
            param.help = told

"""Questions to whoever sits at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import typer

from fedunlearn.core import InputError
from fedunlearn.results.wording import line

_Choice = TypeVar("_Choice", bound=str)

EXAMPLE = "fedunlearn init FOLDER --hospitals 3 --forget both --time quick"


def asker(given: Mapping[str, object]) -> Callable[..., str]:
    """What asks a question, with what Enter alone stands for, and the choices if there are no others.

    Args:
        given: what was given already, by the names of arguments; None for what was not.

    Raises:
        InputError: something is missing, and nobody is there to be asked; names all of it.
    """
    missing = [name for name, value in given.items() if value is None]
    if missing and not present():
        raise InputError(f"there is no terminal to ask at: give {', '.join(missing)}, as in `{EXAMPLE}`")

    def ask(question: str, usual: str | None, choices: Collection[str] = ()) -> str:
        while True:
            answer = str(typer.prompt(question, default=usual)).strip()
            if not choices or answer in choices:
                return answer
            typer.echo(f"found {line(answer)}; expected {' or '.join(choices)}")

    return ask


def which(question: str, choices: Mapping[_Choice, str]) -> _Choice:
    """One of some choices, each told with what it means; Enter alone stands for none."""
    typer.echo(question)
    for choice, meaning in choices.items():
        typer.echo(f"  {choice}: {meaning}")
    while True:
        answer = str(typer.prompt("Which is it?")).strip()
        for choice in choices:
            if choice == answer:
                return choice
        typer.echo(f"found {line(answer)}; expected {' or '.join(choices)}")


def present() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin is not None and sys.stdin.isatty()

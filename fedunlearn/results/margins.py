"""What a run says of the margins it is judged with: whether they are its scenario's, and what was known by then."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedunlearn.core import RunError
from fedunlearn.scoring.evidence.margins import Margins, declared

SCENARIO = "scenario.yaml"


class Texts(Protocol):
    """A run folder, or what it would be."""

    def read_text(self, name: str) -> str:
        """Read a text file."""
        ...

    def read_manifest(self) -> dict[str, Any]:
        """What the run says of itself."""
        ...


def changed(run: Texts) -> str:
    """Which margins are not the scenario's, in a sentence; empty if all are, as before `score RUN --margins`.

    Raises:
        RunError: the scenario is missing or damaged.
    """
    try:
        content = YAML(typ="safe").load(run.read_text(SCENARIO)) or {}
    except (OSError, ValueError, YAMLError) as error:
        raise RunError(f"cannot read the run's {SCENARIO}: {error}") from error
    written = asdict(Margins(**content.get("verdict", {}).get("margins", {})))
    used = asdict(declared(run.read_manifest()))
    others = [name for name in used if used[name] != written[name]]
    if not others:
        return ""
    now, before = (", ".join(f"{name} {of[name]:g}" for name in others) for of in (used, written))
    return f"Margins were changed after the run: judged with {now} instead of the scenario's {before}."


def origin(run: Texts) -> str:
    """Where margins are from: declared before there were results, beside results of earlier runs, or after them.

    Raises:
        RunError: see `changed`.
    """
    if said := changed(run):
        return said
    if run.read_manifest().get("reused"):
        return (
            "Declared in the scenario. But models were taken from earlier runs, whose results may have been known by "
            "then."
        )
    return "Declared in the scenario before anything was run, never fitted to results."

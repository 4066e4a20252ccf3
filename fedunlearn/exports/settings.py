"""A run's `scenario.yaml` as settings by dotted key, without the ids of patients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedunlearn.core import RunError
from fedunlearn.intake.desk import ALL
from fedunlearn.results.runfolder import RunFolder


@dataclass(frozen=True)
class Settings:
    """What a run was asked for.

    Attributes:
        rest: everything but strategies and requests.
        strategies: by label and request, the settings of the strategy that served it; with a calendar `ALL` is that.
        requests: as they were written.
    """

    rest: Mapping[str, Any]
    strategies: Mapping[tuple[str, str], Mapping[str, Any]]
    requests: tuple[Mapping[str, Any], ...]

    def of(self, label: str, request: str) -> Mapping[str, Any]:
        """Those of the strategy with a label in the tables; ``NAME@EPOCHS`` is what NAME had in hand at a horizon."""
        own = self.strategies.get((label, request))
        return own if own is not None else self.strategies.get((label.rpartition("@")[0], request), {})


def settings(run: RunFolder) -> Settings:
    """Read them.

    Raises:
        RunError: the file is missing or damaged.
    """
    file = run.path / "scenario.yaml"
    try:
        content: dict[str, Any] = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        raise RunError(f"cannot read {file}: {error}") from error
    plans, requests = content.pop("strategies", None) or [], content.pop("requests", None) or []
    ids = [ALL] if "calendar" in content else [str(request["id"]) for request in requests]
    served = {
        (str(plan.get("as", plan["name"])), request): {k: v for k, v in plan.items() if k != "requests"}
        for plan in plans
        for request in plan.get("requests", ids)
    }
    return Settings(content, served, tuple(requests))


PATHS = ("path", "manifest", "weights", "cache", "file")
"""Keys of a scenario whose values are files or folders of the machine that it ran on."""


NAMING = ("patients", "images")
"""Keys of a request whose value may be a list of ids."""


def shared(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key, as others may read them: without files and folders."""
    return {key: value for key, value in flat(nested).items() if not is_path(key, value)}


def is_path(key: str, value: object) -> bool:
    """Whether a value tells of a file or a folder, by its dotted key or by itself."""
    each = value if isinstance(value, list) else [value]
    return key.rpartition(".")[2] in PATHS or any(
        isinstance(one, str) and re.search(r"[\\/]", one) for one in each
    )


def flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Values by dotted key; a list is one value, and of a list of patients or images only its length."""
    found = dict[str, Any]()
    for key, value in nested.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif key in NAMING and isinstance(value, list):
            found[name] = f"{len(value)} named"
        elif value is not None:
            found[name] = value
    return found

"""A scenario as programs hold it: a file or a text, with some of its values changed."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedunlearn import installation, scenario as scenarios
from fedunlearn.core import Problem
from fedunlearn.results.wording import safe
from fedunlearn.sweep import cells
from fedunlearn.yaml.source import parse


@dataclass(frozen=True)
class Scenario:
    """A scenario that was read, and found to be without a mistake.

    Attributes:
        file: a YAML file, or the name of a scenario that comes with fedunlearn.
        set: ``KEY=VALUE`` with a dotted path and a YAML value, as ``--set`` on the command line; applied in order.
        text: YAML, instead of a file; ``file`` is then what messages call it.
        config: what it says, every default filled in.

    Raises:
        InputError: the file, a change or what they say cannot be used; all problems together.
    """

    file: str | Path
    set: Sequence[str] = ()
    text: str | None = field(default=None, repr=False)
    config: scenarios.Scenario = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "set", tuple(self.set))
        object.__setattr__(self, "config", self._read())

    @classmethod
    def parse(cls, text: str, set: Sequence[str] = ()) -> Scenario:
        """The scenario that a YAML text says."""
        return cls("text", set, text)

    def changed(self, *set: str) -> Scenario:
        """The same with further values changed."""
        return replace(self, set=(*self.set, *set))

    @property
    def name(self) -> str:
        """What it calls itself."""
        return self.config.name

    @property
    def yaml(self) -> str:
        """In full, every default written out; what a run of it keeps."""
        return scenarios.to_yaml(self.config)

    def _read(self) -> scenarios.Scenario:
        if self.text is None:
            return cells.read_one(installation.scenario_file(Path(self.file)), self.set)
        found: list[Problem] = []
        tree = parse(self.text, str(self.file))
        return scenarios.read_tree(scenarios.overridden(tree, self.set, found), found)

    def _repr_html_(self) -> str:
        """In full, for a notebook."""
        return f"<pre>{html.escape(safe(self.yaml))}</pre>"

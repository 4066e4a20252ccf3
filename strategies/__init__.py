"""One file per unlearning method. Each holds one frozen dataclass, named in YAML as the file is.

Loading this package loads no method; `catalogue` finds them all, and loads those that are asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from fedunlearn.core import Strategy

FORMER: Mapping[str, str] = {
    "fix_decoder": "fix_decoder: true in noisy_label, retain_label, max_loss, random_encoder or noise_encoder",
    "learn_noise": "noisy_label, or noise_images for what had this name before",
    "learn_others": "retain_label, or fine_tune for what had this name before",
}
"""What to write instead of a strategy's name that there is no more."""


def catalogue() -> Mapping[str, type[Strategy]]:
    """Every strategy class by its name, in alphabetical order; a file is loaded when its strategy is asked for.

    Asking raises a TypeError if the file holds no strategy of its own name.
    """
    return _Files(tuple(sorted(module.name for module in pkgutil.iter_modules(__path__))))


class _Files(Mapping[str, type[Strategy]]):
    """Strategies by the names of their files."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> type[Strategy]:
        if name not in self._names:
            raise KeyError(name)
        return _strategy(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _strategy(name: str) -> type[Strategy]:
    module = importlib.import_module(f"{__name__}.{name}")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and value.__module__ == module.__name__
            and getattr(value, "name", None) == name
        ):
            return value
    raise TypeError(
        f"strategies/{name}.py holds no strategy: expected a dataclass with name: Literal[{name!r}]"
    )

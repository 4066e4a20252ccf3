"""One file per unlearning method. Each holds one frozen dataclass, named in YAML as the file is.

Loading this package loads no method; `catalogue` finds them all.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from fedunlearn.core import Strategy

FORMER: Mapping[str, str] = {
    "fix_decoder": "fix_decoder: true in noisy_label, retain_label, max_loss, random_encoder or noise_encoder",
    "learn_noise": "noisy_label, or noise_images for what had this name before",
    "learn_others": "retain_label, or fine_tune for what had this name before",
}
"""What to write instead of a strategy's name that there is no more."""


def catalogue() -> Mapping[str, type[Strategy]]:
    """Every strategy class by its name, in alphabetical order.

    Raises:
        TypeError: a file of this package holds no strategy of its own name.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: _strategy(name) for name in names}


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

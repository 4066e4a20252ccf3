"""Where this installation's own files are: the packages it is made of, and the scenarios that come with it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from fedunlearn.core import InputError, Problem

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds our packages: the checkout, or the environment's site-packages."""

PACKAGES = ("fedunlearn", "sites", "strategies")
"""The names we import our own code by."""

_REMEDY = "rename that folder, or start from another one"


def require_own_packages() -> None:
    """Make sure that our names lead to our packages; imports none of them.

    Raises:
        InputError: a name leads elsewhere, to a folder that Python looks in first, or nowhere.
    """
    found = {name: _found(name) for name in PACKAGES}
    problems = [
        Problem(f"found the package {name} at {place}; expected fedunlearn's own at {ROOT / name}: {_REMEDY}")
        for name, place in found.items()
        if place != str(ROOT / name)
    ]
    if problems:
        raise InputError(problems)


def _found(name: str) -> str:
    """The folder that Python would import ``name`` from."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return "no place at all"
    if spec.origin is not None:
        return str(Path(spec.origin).resolve().parent)
    return ", ".join(spec.submodule_search_locations or ())  # folders without `__init__.py`


def require_no_rivals(folder: Path) -> None:
    """Make sure that a process that looks in ``folder`` first will still find our packages.

    Raises:
        InputError: there are packages of the same names; a folder without ``__init__.py`` is none.
    """
    rivals = [folder / name for name in PACKAGES if (folder / name / "__init__.py").is_file()]
    if rivals and folder.resolve() != ROOT:
        message = f"which Ray would load in place of fedunlearn's own: {_REMEDY}, or use the engine inline"
        raise InputError([Problem(f"found the package {path}, {message}") for path in rivals])


EXPECTED = ".expect.yaml"
"""The ending of a file that says what runs of a scenario of the same name are expected to come to."""


def scenario_files() -> dict[str, Path]:
    """The scenarios that come with fedunlearn, by name; recipes of papers and studies after the others."""
    return {path.stem: path for path in _files() if not path.name.endswith(EXPECTED)}


def expected_files() -> dict[str, Path]:
    """What is expected of them, by their names, for those of which it is written down."""
    found = [path for path in _files() if path.name.endswith(EXPECTED)]
    return {path.name.removesuffix(EXPECTED): path for path in found}


def _files() -> list[Path]:
    packed = ROOT / "fedunlearn" / "scenarios"  # where a wheel has what the checkout has at its top
    folder = packed if packed.is_dir() else ROOT / "scenarios"
    return sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path.parent, path.stem))


def scenario_file(given: Path) -> Path:
    """The file that ``given`` means: a path, or the name of a scenario that comes with fedunlearn. A file goes first.

    Raises:
        InputError: it is neither.
    """
    if os.path.isfile(given):  # unlike Path.is_file, no error where a name is too long or a folder closed
        return given
    ours = scenario_files()
    if (name := str(given)) in ours:
        return ours[name]
    if os.path.exists(given) or (given.suffix and given.stem not in ours):
        return given  # reading it will tell what is wrong
    hint = "`fedunlearn list scenarios` tells what scenarios come with fedunlearn"
    if given.stem in ours:
        hint = f"the scenario that comes with fedunlearn is called {given.stem}, without folder and ending"
    raise InputError([Problem(f"found no such file; expected a YAML file, or a name: {hint}", name)])


def expected_file(given: Path) -> Path:
    """The file that ``given`` means: a path, or the name of a scenario that comes with what is expected of it.

    Raises:
        InputError: it is neither.
    """
    ours = expected_files()
    if os.path.isfile(given) or (str(given) not in ours and (os.path.exists(given) or given.suffix)):
        return given
    if (name := str(given)) in ours:
        return ours[name]
    names = ", ".join(ours)
    raise InputError(
        [Problem(f"found no such file; expected a YAML file of expected ranges, or one of: {names}", name)]
    )


def copy_scenario(name: str, to: Path) -> None:
    """Write the scenario called ``name`` to a new file.

    Raises:
        InputError: none of this name comes with fedunlearn, or the file is there already or cannot be made.
    """
    ours = scenario_files()
    if name not in ours:
        raise InputError(f"found no scenario called {name!r}; expected one of: {', '.join(ours)}")
    content = ours[name].read_bytes()
    try:
        with to.open("xb") as stream:
            stream.write(content)
    except FileExistsError as error:
        raise InputError(f"{to} is there already; expected a new file: give another name") from error
    except OSError as error:
        raise InputError(
            f"cannot write {to}: {error.strerror}; expected a file in a folder of yours"
        ) from error

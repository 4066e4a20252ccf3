"""Strategies from the user's files and from packages: found, told apart by content, and refused with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from rich.console import Console

from fedunlearn import guests
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError, RunError
from fedunlearn.federation import wire
from fedunlearn.scenario import Scenario, brought, catalogue, read, to_yaml
from fedunlearn.story import simulate
from fedunlearn.sweep import checking
from fedunlearn.verification import verify
from tests import guest
from tests.runs import TINY, contents, run, weight_files, write

pytestmark = pytest.mark.usefixtures("few_resamples")

LISTED = TINY.partition("strategies:")[0] + "strategies:\n"


def scenario(folder: Path, entry: str = "{name: unsure, file: unsure.py}", *overrides: str) -> Scenario:
    return read(write(folder, f"{LISTED}  - {entry}\n"), overrides)


def problems(folder: Path, entry: str = "{name: unsure, file: unsure.py}") -> list[str]:
    """What is wrong with a scenario of one strategy, without the scenario's folder."""
    with pytest.raises(InputError) as caught:
        scenario(folder, entry)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


# --------------------------------------------------------------------------------------------- from a file


def test_a_file_is_looked_for_beside_the_scenario_and_read_like_any_strategy(tmp_path: Path) -> None:
    guest.write(tmp_path)
    (plan,) = scenario(
        tmp_path, "{name: unsure, file: ./unsure.py, epochs: 5, as: mine, requests: [some]}"
    ).strategies
    assert (plan.label, plan.requests, vars(plan.strategy)["epochs"]) == ("mine", ("some",), 5)
    (other,) = scenario(
        tmp_path, "{name: retrain}", "strategies=[{name: unsure, file: unsure.py}]"
    ).strategies
    assert type(other.strategy) is type(plan.strategy), "the same content is the same module"


def test_an_edited_file_is_another_module_and_what_was_read_stays(tmp_path: Path) -> None:
    path = guest.write(tmp_path)
    (before,) = scenario(tmp_path).strategies
    path.write_text(guest.unsure().replace("] = 2\n", "] = 3\n"), encoding="utf-8")
    (after,) = scenario(tmp_path).strategies
    assert type(before.strategy) is not type(after.strategy)
    assert [vars(plan.strategy)["epochs"] for plan in (before, after)] == [2, 3]


def test_written_out_it_names_a_copy_and_its_digest_and_can_be_read_again(tmp_path: Path) -> None:
    guest.write(tmp_path)
    first, there = scenario(tmp_path), tmp_path / "elsewhere"
    ((place, file),) = brought(first).items()
    (there / "strategies").mkdir(parents=True)
    (there / place).write_bytes(file.content)
    again = read(write(there, to_yaml(first)))
    assert again == first
    assert to_yaml(again) == to_yaml(first)
    assert [(name, copy.content) for name, copy in brought(again).items()] == [(place, file.content)]

    (there / place).write_bytes(file.content + b"\n")
    with pytest.raises(InputError, match=r"was changed: it now has [0-9a-f]{64}; put it back, or remove"):
        read(there / "scenario.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = (\n", "scenario.yaml:12:26: unsure.py:1:5: it is not Python: '(' was never closed"),
        (
            "\n\nraise ValueError('no')\n",
            "scenario.yaml:12:26: unsure.py:3: importing it failed: ValueError: no",
        ),
        ("import no_such_thing\n", "unsure.py:1: importing it failed: ModuleNotFoundError"),
        ("x = 1\n", "unsure.py: found no strategy in it; expected a frozen dataclass"),
        ("\0", "it is not Python"),
    ],
)
def test_a_file_that_is_no_strategy_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    guest.write(tmp_path, text)
    (problem,) = problems(tmp_path)
    assert expected in problem
    assert problem.startswith("scenario.yaml:12:26: "), "the place of `file`"


def test_what_a_class_lacks_is_told_all_at_once(tmp_path: Path) -> None:
    guest.write(tmp_path, "class Mine:\n    def unlearn(self, case): ...\n")
    told = "\n".join(problems(tmp_path))
    for words in ("is no frozen dataclass", "has no name", "its needs", "its guarantee", "its granularity"):
        assert f"unsure.py: Mine {words}" in told or f"Mine does not say {words}" in told
    text = guest.unsure().replace("    epochs: Annotated", "    file: int = 1\n    epochs: Annotated")
    guest.write(tmp_path, text)
    assert "has a field 'file', which a scenario says of every strategy" in "".join(problems(tmp_path))


def test_a_file_that_is_not_there_another_name_and_a_name_of_ours(tmp_path: Path) -> None:
    assert "cannot read it: No such file or directory; expected a Python file" in problems(tmp_path)[0]
    guest.write(tmp_path)
    (problem,) = problems(tmp_path, "{name: unsur, file: unsure.py}")
    assert "scenario.yaml:12:12: unknown strategy 'unsur', did you mean 'unsure'?; expected unsure" in problem
    guest.write(tmp_path, guest.unsure().replace('"unsure"', '"puf"'))
    (problem,) = problems(tmp_path, "{name: puf, file: unsure.py}")
    assert "has a strategy called 'puf', which there is already: choose another name" in problem
    (problem,) = problems(tmp_path, "{name: puf, file: [unsure.py]}")
    assert "file: expected a Python file, found a list" in problem


def test_a_setting_out_of_range_is_told_as_of_any_strategy(tmp_path: Path) -> None:
    guest.write(tmp_path)
    (problem,) = problems(tmp_path, "{name: unsure, file: unsure.py, epochs: 0}")
    assert "scenario.yaml:12:45: epochs: expected a number (at least 1), found '0'" in problem


def test_its_classes_cross_the_wire_with_the_file_and_no_strangers_do(tmp_path: Path) -> None:
    file = guests.read(guest.write(tmp_path))
    module = guests.admit(file)
    text, arrays = wire.pack((vars(module)["Uniform"](), {"deep": vars(module)["Uniform"]()}))
    assert wire.brought(text) == {file.module: file.content}
    assert wire.unpack(text, arrays)[0] == vars(module)["Uniform"]()
    del sys.modules[file.module]
    with pytest.raises(TypeError, match="may not cross the wire"):
        wire.unpack(text, arrays)
    guests.admit(guests.File("sent.py", file.content))
    assert type(wire.unpack(text, arrays)[0]).__name__ == "Uniform"


# ------------------------------------------------------------------------------------------------- runs


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_a_run_folder_has_the_file_and_needs_nothing_else_to_be_run_again(tmp_path: Path) -> None:
    path = guest.write(tmp_path)
    text = f"{LISTED}  - {{name: unsure, file: unsure.py, recovery: {{rounds: 1}}}}\n"
    first = run(tmp_path, "seeds=[1]", text=text)
    (place,) = brought(read(first.path / "scenario.yaml"))
    digest = guests.read(path).sha256
    assert (first.path / place).read_bytes() == path.read_bytes()
    manifest = first.read_manifest()
    assert manifest["sha256"][place] == digest
    assert manifest["strategies"] == {"unsure": {"sha256": digest}}
    path.unlink()
    again = simulate(read(first.path / "scenario.yaml"), tmp_path / "again", tmp_path, Console(), quiet=True)
    assert weight_files(again) == weight_files(first)
    assert contents(first.path / "strategies") == contents(again.path / "strategies")
    reused = simulate(
        read(first.path / "scenario.yaml"), tmp_path / "r", tmp_path, Console(), True, reuse=[first.path]
    )
    assert "weights/some-unsure-1.safetensors" in reused.read_manifest()["reused"]


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_an_edited_file_is_other_work(tmp_path: Path) -> None:
    path = guest.write(tmp_path)
    text = f"{LISTED}  - {{name: unsure, file: unsure.py, recovery: {{rounds: 0}}, requests: [some]}}\n"
    first = run(tmp_path, "seeds=[1]", text=text)
    path.write_text(guest.unsure() + "# another\n", encoding="utf-8")
    again = read(write(tmp_path, text), ["seeds=[1]"])
    reused = simulate(again, tmp_path / "r", tmp_path, Console(), True, reuse=[first.path])
    taken = reused.read_manifest()["reused"]
    assert "weights/some-unsure-1.safetensors" not in taken
    assert "weights/original-1.safetensors" in taken
    assert weight_files(reused) == weight_files(first), "a comment changes no bit"


# ------------------------------------------------------------------------------------------ from a package


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[EntryPoint]]:
    """What packages offer; an importable one of them has the documentation's strategy."""
    points: list[EntryPoint] = []

    def entry_points(group: str) -> Sequence[EntryPoint]:
        return [point for point in points if point.group == group]

    package = tmp_path / "package_of_others"
    package.mkdir()
    (package / "__init__.py").touch()
    guest.write(package)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(guests, "entry_points", entry_points)
    guests.installed.cache_clear()
    yield points
    guests.installed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        del sys.modules[name]


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, guests.GROUP)


def test_a_packages_strategy_is_named_like_ours_and_listed(tmp_path: Path, offer: list[EntryPoint]) -> None:
    offer.append(point("unsure", "package_of_others.unsure:Unsure"))
    found = scenario(tmp_path, "{name: unsure, epochs: 4}")
    assert vars(found.strategies[0].strategy)["epochs"] == 4
    assert brought(found) == {}, "it has to be installed"
    assert guests.origin(type(found.strategies[0].strategy)) == {"package": "package_of_others.unsure"}
    assert "unsure" in [entry["name"] for entry in catalogue.entries("strategies")]
    task = sys.modules["package_of_others.unsure"].Uniform()
    assert wire.unpack(*wire.pack(task)) == task
    (problem,) = problems(tmp_path, "{name: unsur}")
    assert "did you mean 'unsure'?" in problem


def test_packages_are_imported_only_when_they_are_named(tmp_path: Path, offer: list[EntryPoint]) -> None:
    offer.append(point("broken", "no_such_package.thing:Thing"))
    scenario(tmp_path, "{name: retrain}")
    (problem,) = problems(tmp_path, "{name: broken}")
    assert "scenario.yaml:12:12: cannot import no_such_package.thing:Thing of the package" in problem


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "puf",
            "package_of_others.unsure:Unsure",
            "offers a strategy called 'puf', as one of fedunlearn's own",
        ),
        ("other", "package_of_others.unsure:Unsure", "is called 'unsure', but offered as 'other'"),
        ("unsure", "package_of_others.unsure:Uniform", "is no strategy: it has no `unlearn`"),
    ],
)
def test_a_wrong_offer_is_told(
    tmp_path: Path, offer: list[EntryPoint], name: str, value: str, expected: str
) -> None:
    offer.append(point(name, value))
    (problem,) = problems(tmp_path, f"{{name: {name}}}")
    assert expected in problem


# --------------------------------------------------------------------------------------- before any training


def test_a_task_that_cannot_cross_the_wire_is_told_by_check_at_its_place(tmp_path: Path) -> None:
    text = guest.unsure().replace("class Uniform:\n", "class Uniform:\n    names: list[str] = field()\n")
    text = text.replace("Uniform())", "Uniform([]))").replace(
        "from dataclasses import dataclass", "from dataclasses import dataclass, field"
    )
    guest.write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        gather(scenario(tmp_path), tmp_path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (12, 5)
    assert "what unsure asks of hospitals has to cross the wire, but a task Fit cannot" in problem.message
    assert "objective/names is a list, which cannot cross the wire; let it be a frozen" in problem.message


def test_what_fails_on_the_toy_in_another_way_does_not_stop_a_scenario(tmp_path: Path) -> None:
    """It may be made for other images than the toy's."""
    guest.write(tmp_path, guest.unsure().replace("case.original, case.forget", "1 / 0, case.forget"))
    assert gather(scenario(tmp_path), tmp_path).sites == ("north", "east", "west")


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_a_stopped_run_goes_on_with_the_same_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = guest.write(tmp_path), f"{LISTED}  - {{name: unsure, file: unsure.py}}\n"
    with monkeypatch.context() as patch:
        patch.setattr("fedunlearn.story._finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, "seeds=[1]", text=text)
    path.write_text(guest.unsure() + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="since it was begun, something changed") as caught:
        simulate(
            read(tmp_path / "scenario.yaml", ["seeds=[1]"]), tmp_path / "run", tmp_path, Console(), True, True
        )
    assert 'file: "strategies/unsure-' in str(caught.value)
    path.write_text(guest.unsure(), encoding="utf-8")
    done = simulate(
        read(tmp_path / "scenario.yaml", ["seeds=[1]"]), tmp_path / "run", tmp_path, Console(), True, True
    )
    assert (done.path / "DONE").is_file()


@pytest.mark.gate
def test_models_of_a_run_folder_are_trained_again_by_the_copy_in_it(tmp_path: Path) -> None:
    path = guest.write(tmp_path)
    text = f"{LISTED}  - {{name: unsure, file: unsure.py, recovery: {{rounds: 1}}, requests: [some]}}\n"
    done = run(tmp_path, "seeds=[1]", text=text)
    path.unlink()
    assert "weights/some-unsure-1.safetensors" in verify(done.path, 20, tmp_path, Console())[-1]
    (copy,) = (done.path / "strategies").iterdir()
    copy.write_text(guest.unsure() + "\n", encoding="utf-8")
    with pytest.raises(RunError, match="strategies/unsure-"):
        verify(done.path, 0, tmp_path, Console())


@pytest.mark.usefixtures("unscored")
def test_two_editions_of_a_method_stand_side_by_side_in_a_run(tmp_path: Path) -> None:
    guest.write(tmp_path)
    (tmp_path / "older").mkdir()
    guest.write(tmp_path / "older", guest.unsure().replace("] = 2\n", "] = 1\n"))
    entries = ["{name: unsure, file: unsure.py}", "{name: unsure, file: older/unsure.py, as: older}"]
    done = run(tmp_path, "seeds=[1]", text=LISTED + "".join(f"  - {entry}\n" for entry in entries))
    assert len(list((done.path / "strategies").iterdir())) == 2
    again = read(done.path / "scenario.yaml")
    assert [vars(plan.strategy)["epochs"] for plan in again.strategies] == [2, 1]


def test_check_tells_of_code_that_is_not_ours(tmp_path: Path) -> None:
    digest = guests.read(guest.write(tmp_path)).sha256
    told = checking.check(scenario(tmp_path), tmp_path, tmp_path).lines
    assert f"unsure: runs code that does not come with fedunlearn, sha256 {digest}" in told


@pytest.mark.gate
def test_a_package_that_is_installed_is_found(tmp_path: Path) -> None:
    """As pip leaves it: a package, and beside it what it is called and what it offers."""
    package, about = tmp_path / "unsure_package", tmp_path / "unsure_package-1.2.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").touch()
    guest.write(package)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: unsure-package\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[{guests.GROUP}]\nunsure = unsure_package.unsure:Unsure\n")
    command = [
        sys.executable,
        "-m",
        "fedunlearn",
        "check",
        str(write(tmp_path, f"{LISTED}  - {{name: unsure}}\n")),
    ]
    path = os.pathsep.join((str(tmp_path), str(guest.ROOT)))
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "unsure: runs code that does not come with fedunlearn, package unsure-package 1.2" in done.stdout

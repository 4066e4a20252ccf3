"""Where our packages and scenarios are found: beside folders of the same names, from a wheel, by name.

The tests marked `slow` install with pip, as users do, into environments that borrow this one's dependencies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from fedunlearn.core import InputError
from fedunlearn.federation.engines.flower import Flower
from fedunlearn.federation.engines.flower.cluster import environment
from fedunlearn.installation import (
    EXPECTED,
    PACKAGES,
    ROOT,
    copy_scenario,
    expected_file,
    expected_files,
    require_no_rivals,
    scenario_file,
    scenario_files,
)
from tests.runs import TINY, write

Folder = Callable[[Path], Path]


def with_folders(where: Path) -> Path:
    """Plain folders, as hospitals may call theirs."""
    for name in (*PACKAGES, "tests", "scenarios"):
        (where / name / "north").mkdir(parents=True)
    return where


def with_packages(where: Path) -> Path:
    """A project of the user's own."""
    for name in ("sites", "strategies", "tests"):
        (where / name).mkdir(parents=True)
        (where / name / "__init__.py").write_text("raise AssertionError('not ours')\n", encoding="utf-8")
    return where


def start(where: Path, *words: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder ``where``, with nothing but ``path`` on PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        words, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.mark.parametrize("folder", [with_folders, with_packages])
def test_it_starts_in_a_folder_that_has_folders_of_the_same_names(tmp_path: Path, folder: Folder) -> None:
    done = start(folder(tmp_path), sys.executable, "-m", "fedunlearn", "copy", "3hosp", path=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "3hosp.yaml").read_bytes() == (ROOT / "scenarios" / "3hosp.yaml").read_bytes()


def test_packages_that_python_finds_before_ours_are_named_with_the_remedy(tmp_path: Path) -> None:
    command = "import sys; sys.path.append(sys.argv.pop()); from fedunlearn.__main__ import main; main()"
    rivals = with_packages(tmp_path / "rivals")
    done = start(tmp_path, sys.executable, "-c", command, "copy", "3hosp", ROOT, path=rivals)
    assert done.returncode == 2
    for name in ("sites", "strategies"):
        assert f"found the package {name} at {rivals / name}; expected fedunlearn's own" in done.stderr
    assert "rename that folder" in done.stderr
    assert not (tmp_path / "3hosp.yaml").exists()


def test_ray_would_take_packages_in_the_current_folder_for_ours_and_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_packages(tmp_path))
    with pytest.raises(InputError, match=r"sites, which Ray would load .* or use the engine inline"):
        Flower().run(tmp_path, lambda link: pytest.fail("it was started"))


def test_actors_are_told_where_our_packages_are(tmp_path: Path) -> None:
    with environment(tmp_path):
        first = Path(os.environ["PYTHONPATH"].partition(os.pathsep)[0])
    assert all((first / name / "__init__.py").is_file() for name in PACKAGES)


def test_only_other_peoples_packages_are_rivals(tmp_path: Path) -> None:
    require_no_rivals(ROOT)
    require_no_rivals(with_folders(tmp_path))


def test_every_scenario_has_a_name_and_a_file_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {path for path in (ROOT / "scenarios").rglob("*.yaml") if not path.name.endswith(EXPECTED)}
    assert {scenario_file(Path(path.stem)) for path in files} == files == set(scenario_files().values())
    (tmp_path / "brain").mkdir()  # a folder is no scenario
    assert scenario_file(Path("brain")) == ROOT / "scenarios" / "brain.yaml"
    (tmp_path / "3hosp").touch()
    assert scenario_file(Path("3hosp")) == Path("3hosp")


def test_what_is_expected_is_named_after_its_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(expected_files()) <= set(scenario_files())
    (tmp_path / "made.yaml").touch()
    assert expected_file(Path("made.yaml")) == Path("made.yaml")
    assert expected_file(Path("pga-mnist")) == ROOT / "scenarios" / "papers" / "pga-mnist.expect.yaml"
    (tmp_path / "pga-mnist").touch()  # a file goes first
    assert expected_file(Path("pga-mnist")) == Path("pga-mnist")
    with pytest.raises(InputError, match=r"or one of: .*pga-mnist"):
        expected_file(Path("3hosp"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("4hosp", "^4hosp: found no such file.*`fedunlearn list scenarios`"),
        ("x" * 300, "found no such file"),
        ("elsewhere/3hosp.yaml", "is called 3hosp, without folder and ending"),
    ],
)
def test_what_is_neither_a_file_nor_a_name_is_refused_with_a_hint(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenario_file(Path(given))


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine", encoding="utf-8")
    for name, to, message in [
        ("3hosp", "mine.yaml", "is there already"),
        ("3hosp", "absent/mine.yaml", "No such file or directory"),
        ("4hosp", "new.yaml", "expected one of: 3hosp, "),
    ]:
        with pytest.raises(InputError, match=message):
            copy_scenario(name, tmp_path / to)
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [
        ("mine.yaml", "mine")
    ]


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment in which pip has installed this checkout, and nothing else."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    ours = {"base": str(home), "platbase": str(home)}
    borrowed = Path(sysconfig.get_path("purelib", vars=ours)) / "borrowed.pth"
    borrowed.write_text(
        sysconfig.get_path("purelib") + "\n", encoding="utf-8"
    )  # without that folder's own .pth files
    python = Path(sysconfig.get_path("scripts", vars=ours)) / "python"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    what: list[str | Path] = ["--editable", ROOT] if request.param == "editable" else [ROOT]
    done = start(home, *pip, "--no-build-isolation", *what)
    assert done.returncode == 0, done.stderr
    return python.parent


@pytest.mark.slow
@pytest.mark.parametrize(("module", "folder"), [(True, with_packages), (False, with_folders)])
def test_an_installation_knows_its_scenarios_wherever_it_is_started(
    installed: Path, tmp_path: Path, module: bool, folder: Folder
) -> None:
    where = folder(tmp_path)
    command = (installed / "python", "-m", "fedunlearn") if module else (installed / "fedunlearn",)
    done = start(where, *command, "check", "3hosp")
    assert done.returncode == 0, done.stderr
    file = Path(done.stdout.splitlines()[-1].removesuffix(": no problems"))
    assert file.read_bytes() == (ROOT / "scenarios" / "3hosp.yaml").read_bytes()
    listed = start(where, *command, "list", "scenarios").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(scenario_files())


@pytest.mark.slow
def test_an_installation_simulates_with_actors_among_folders_of_the_same_names(
    installed: Path, tmp_path: Path
) -> None:
    scenario = write(tmp_path, TINY.partition("  - {name: negation")[0])
    words = ("--engine", "flower", "--set", "seeds=[1]", "--set", "engine.workers=1", "--out", "out")
    done = start(with_folders(tmp_path), installed / "fedunlearn", "simulate", scenario, *words)
    assert done.returncode == 0, done.stderr
    assert "fine_tune" in done.stdout and (tmp_path / "out" / "DONE").exists()

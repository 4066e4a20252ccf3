"""What Python programs use: a scenario, a run of it, its frames and charts, and the command line's errors."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fedunlearn
from fedunlearn import FedunlearnError, InputError, Run, Scenario, load_run, simulate
from fedunlearn.api.run import _between as between
from fedunlearn.results.columns import COLUMNS
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.score import score
from tests.runs import TINY, write
from tests.scoring.made import MODELS, change_manifest, images, make_run

FRAMES = list(COLUMNS)
RAW = ["scores", "statistics", "patients", "verdicts", "ledger", "sites"]
HOSTILE = "<img src=x onerror=alert(1)>\n\u202e"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run of two requests."""
    models = {
        (HOSTILE if name == "lazy" else name): made for name, made in MODELS.items() if name != "destroyed"
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        path = tmp_path_factory.mktemp("run") / "run"
        with_file_names(models, path)
        score(path)
    moments = [{"id": r, "forgets": r, "summary": f"forget {HOSTILE}"} for r in ("some", "east-leaves")]
    change_manifest(path, moments=moments, name="made", data={"note": "-"})
    (path / "DONE").touch()
    return path


def with_file_names(models: dict[str, Any], path: Path) -> None:
    """A run folder in which a strategy's label is no part of a file's name."""
    plain = {("hostile" if name == HOSTILE else name): made for name, made in models.items()}
    make_run(path, plain, table=images(patients=10))
    manifest = RunFolder(path).read_manifest()
    for entry in manifest["scored"]:
        entry["strategies"] = {(HOSTILE if k == "hostile" else k): v for k, v in entry["strategies"].items()}
    ledger = RunFolder(path).read_table("ledger.parquet").replace({"strategy": {"hostile": HOSTILE}})
    RunFolder(path).write_table("ledger.parquet", ledger)
    change_manifest(path, scored=manifest["scored"])


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_those_of_all_requests(folder: Path, name: str):
    run = load_run(folder)
    found = getattr(run, name)
    assert list(found.columns) == ["request", *COLUMNS[name]]
    if len(found):
        assert list(dict.fromkeys(found["request"])) == ["some", "east-leaves"]
    own = found[found["request"] == "some"].drop(columns="request").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, run.frame(name, "some"), check_dtype=False)


@pytest.mark.parametrize("name", RAW)
def test_tables_are_the_files_and_the_callers_own(folder: Path, name: str):
    run = load_run(folder)
    found = getattr(run, name)
    pd.testing.assert_frame_equal(found, pd.read_parquet(folder / f"{name}.parquet"))
    found["request"] = "changed"
    assert "changed" not in set(getattr(run, name).get("request", []))


@pytest.mark.gate
def test_charts_can_be_drawn_and_saved(folder: Path, tmp_path: Path):
    run = load_run(folder)
    chart = run.plot.memory("some")
    chart.save(tmp_path / "memory.svg")
    assert (
        "fine" not in (tmp_path / "memory.svg").read_text()
        and "good" in (tmp_path / "memory.svg").read_text()
    )
    chart.save(tmp_path / "memory.pdf")
    assert (tmp_path / "memory.pdf").read_bytes().startswith(b"%PDF")
    for name in ("tradeoff", "groups", "costs", "curves", "roc", "probes", "relearning"):
        assert getattr(run.plot, name)("east-leaves").to_dict()["description"]
    with pytest.raises(InputError, match="request='some' or 'east-leaves'"):
        run.plot.memory()


def test_a_notebook_shows_the_answers_and_no_markup_of_the_datas(folder: Path):
    shown = load_run(folder)._repr_html_()
    assert "<img" not in shown and "&lt;img" in shown and "\u202e" not in shown
    assert shown.count("<table>") == 2 and "Can this run tell? Yes" in shown
    assert len(shown) < 20_000
    cells = re.findall(r"<td>good</td><td>(.*?)</td>", shown)
    own = load_run(folder).answers
    assert cells == own[own["strategy"] == "good"]["forgotten"].tolist()


def test_a_notebook_shows_no_memory_where_the_run_cannot_tell_and_no_answers_of_controls(
    folder: Path, tmp_path: Path
) -> None:
    seen = load_run(folder)._repr_html_()
    assert (
        re.findall(r"<td>retraining again</td><td>(.*?)</td><td>.*?</td><td>(.*?)</td>", seen)
        == [("", "")] * 2
    )
    run = RunFolder(Path(shutil.copytree(folder, tmp_path / "run")))
    run.write_table("requests.parquet", run.read_table("requests.parquet").assign(visible=False))
    change_manifest(run.path)
    blind = load_run(run.path)._repr_html_()
    assert re.findall(r"<td>good</td><td>.*?</td><td>(.*?)</td>", blind) == ["–", "–"]


@pytest.mark.parametrize(
    ("values", "form", "text"),
    [
        ((-0.007, math.nan, math.nan), (1, "+"), "-0.7"),
        ((-0.007, -math.inf, math.inf), (1, "+"), "-0.7"),
        ((-0.002, -0.3, 0.2), (), "0 (-30 to 20)"),
        ((-0.0002, -0.03, -0.0001), (1, "+"), "+0.0 (-3.0 to +0.0)"),
        ((math.nan, math.nan, math.nan), (), "–"),
    ],
)
def test_a_notebooks_numbers_have_the_interval_that_is_known(
    values: tuple[float, float, float], form: tuple[Any, ...], text: str
) -> None:
    assert between(*values, *form) == text


def test_a_run_without_a_calendar_has_no_year_to_draw(folder: Path) -> None:
    plot = load_run(folder).plot
    for draw in (plot.year, lambda: plot.course("daily"), plot.frontier):
        with pytest.raises(InputError, match="has no calendar"):
            draw()


def test_a_run_that_is_none_is_told(tmp_path: Path):
    with pytest.raises(InputError, match="is not a run folder"):
        load_run(tmp_path)


def test_a_scenario_is_read_from_a_file_a_name_or_a_text(tmp_path: Path):
    file = write(tmp_path)
    one = Scenario(file, set=["seeds=[5, 6]"])
    assert one.name == "tiny" and one.config.seeds == (5, 6)
    assert one.changed("seeds=[3, 4]", "name=other").name == "other" and one.config.seeds == (5, 6)
    assert Scenario.parse(TINY, ["seeds=[5, 6]"]).config == one.config
    assert Scenario("3hosp").name == "3hosp"
    assert Scenario.parse(one.yaml).config == one.config
    assert "<pre>" in one._repr_html_()
    assert one == Scenario(file, set=["seeds=[5, 6]"]) != Scenario(file)


def test_all_mistakes_are_told_together():
    with pytest.raises(InputError) as caught:
        Scenario.parse(TINY.replace("rounds: 2", "rounds: 0"), ["seeds=[x]"])
    assert len(caught.value.problems) == 2 and caught.value.exit_code == 2
    assert issubclass(InputError, FedunlearnError)
    with pytest.raises(InputError, match="no such file"):
        simulate("nothing-of-that-name")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)


SMALL = [
    "strategies=[{name: fine_tune, rounds: 1}]",
    "references=2",
    "evaluation.copies=false",
    "evaluation.curves=false",
]


@pytest.mark.gate
@pytest.mark.usefixtures("quick")
def test_it_runs_twice_in_one_process_and_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    first = simulate(Scenario(write(tmp_path), SMALL), tmp_path / "one", engine="inline")
    again = simulate(write(tmp_path), tmp_path / "two", set=SMALL, reuse=[first.path])
    assert capfd.readouterr().out == "" and isinstance(again, Run)
    assert first.requests == ["some", "leave"] and first.scenario.config.seeds == (1, 2)
    pd.testing.assert_frame_equal(first.memory, again.memory)
    with pytest.raises(InputError, match="holds a finished run"):
        simulate(write(tmp_path), tmp_path / "one", set=SMALL, resume=True)


@pytest.mark.gate
@pytest.mark.usefixtures("quick")
def test_it_runs_outside_the_main_thread(tmp_path: Path):
    """As in a notebook's server, where signals are somebody else's."""
    found = list[Run]()
    work = threading.Thread(
        target=lambda: found.append(simulate(write(tmp_path), tmp_path / "run", set=SMALL))
    )
    work.start()
    work.join()
    assert found[0].answers["strategy"].iloc[0] == "fine_tune"


def test_the_package_tells_what_it_has():
    assert {"simulate", "load_run", "Scenario", "Run", "InputError", "SiteError"} <= set(dir(fedunlearn))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fedunlearn.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.gate
def test_programs_that_use_it_are_typed(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        "from fedunlearn import Run, Scenario, load_run, simulate\n"
        "run: Run = simulate(Scenario('3hosp', set=['seeds=[1, 2]']), out='x', engine='inline')\n"
        "share: float = load_run('x').answers['memory_left'].iloc[0]\n"
        "run.plot.memory(request='some').save('x.pdf')\n"
        "reveal_type(run.plot.memory)\n"
        "simulate('3hosp', engine='none')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],  # whose cache of the gate's own run makes this quick
        timeout=300,
    )
    assert 'Argument "engine" to "simulate" has incompatible type' in done.stdout
    assert "LayerChart" in done.stdout and "Found 1 error" in done.stdout, done.stdout

"""Sweeps: cells and what is refused, going on after an interruption, and the summary against each cell's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from fedunlearn import scenario as scenarios
from fedunlearn.__main__ import app
from fedunlearn.campaign.estimate import estimate, of_all
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError, RunError, SiteError
from fedunlearn.results.places import LOCK
from fedunlearn.results.runfolder import ABOUT, RunFolder
from fedunlearn.scenario import Pick, Scenario
from fedunlearn.sweep import cells, naming, running
from fedunlearn.sweep.cells import Sweep
from fedunlearn.sweep.table import markdown, measures, show, summary
from tests.runs import TINY, weight_files, write

pytestmark = pytest.mark.usefixtures("few_resamples")

ONE = TINY.replace("seeds: [1, 2]", "seeds: [1]").replace(
    "  - {id: leave, site: east, whole_site: true}\n", ""
)
ONE = ONE.partition("strategies:")[0] + "strategies:\n  - {name: fine_tune, rounds: 1}\n"
SWEPT = ONE + "sweep:\n  requests.0.patients.count: [2, 3]\n  training.augmentation: [none, flips_crops]\n"
TWO = ONE + "sweep: {requests.0.patients.count: [2, 3]}\n"
SLUGS = [f"count-{n}_augmentation-{a}" for n in (2, 3) for a in ("none", "flips_crops")]


def read(folder: Path, text: str = SWEPT, overrides: Sequence[str] = ()) -> Sweep:
    found = cells.read(write(folder, text), overrides)
    assert isinstance(found, Sweep)
    return found


def with_sweep(*lines: str) -> str:
    return ONE + "sweep:\n" + "".join(f"  {line}\n" for line in lines)


def problems(folder: Path, text: str, overrides: Sequence[str] = ()) -> list[str]:
    with pytest.raises(InputError) as caught:
        cells.read(write(folder, text), overrides)
    return [str(problem).removeprefix(f"{folder / 'scenario.yaml'}:") for problem in caught.value.problems]


def execute(found: Sweep, out: Path) -> Path:
    return running.run(found, out, out.parent, Console(), quiet=True)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    return execute(read(folder, TWO), folder / "out")


# ------------------------------------------------------------------------------------------------ reading


def test_cells_are_all_combinations_and_know_no_sweep(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.name == "tiny" and [cell.slug for cell in found.cells] == SLUGS
    for cell, (count, augmentation) in zip(
        found.cells, [(n, a) for n in (2, 3) for a in ("none", "flips_crops")], strict=True
    ):
        assert cell.scenario.requests[0].patients == Pick(count=count)
        assert cell.scenario.training.local.augmentation == augmentation
        assert cell.values == {"requests.0.patients.count": count, "training.augmentation": augmentation}
        assert "sweep" not in scenarios.to_yaml(cell.scenario)


@pytest.mark.parametrize(
    "overrides", [["requests.0.patients.count=3", "training.augmentation=flips_crops"], []]
)
def test_a_cell_is_what_set_gives(tmp_path: Path, overrides: list[str]) -> None:
    path = write(tmp_path, ONE)
    found = read(tmp_path).cells
    write(tmp_path, ONE)
    assert found[3 if overrides else 0].scenario == scenarios.read(path, overrides)


def test_without_a_sweep_it_is_the_scenario(tmp_path: Path) -> None:
    plain = scenarios.read(write(tmp_path, ONE))
    assert cells.read(tmp_path / "scenario.yaml") == plain
    assert cells.read(write(tmp_path, SWEPT), ["sweep=null"]) == plain
    assert isinstance(plain, Scenario)
    with pytest.raises(InputError, match="unknown key 'sweep'"):
        scenarios.read(write(tmp_path, SWEPT))


def test_whole_parts_can_be_swept_and_lists_replaced(tmp_path: Path) -> None:
    lines = (
        "data: [{name: phantom_cells, images: 240}, {name: phantom_cells, images: 300}]",
        "seeds: [[1], [2, 3]]",
    )
    found = read(tmp_path, with_sweep(*lines))
    assert [(c.scenario.data.images, c.scenario.seeds) for c in found.cells] == [  # type: ignore[attr-defined]  # phantoms
        (240, (1,)),
        (240, (2, 3)),
        (300, (1,)),
        (300, (2, 3)),
    ]
    slugs = [cell.slug for cell in found.cells]
    assert len(set(slugs)) == 4 and all(slug.startswith("data-name-phantom_cells") for slug in slugs)


def test_a_slug_says_the_values_wherever_the_cell_stands(tmp_path: Path) -> None:
    one = read(tmp_path, with_sweep("training.lr: [0.001, 1e-2]"))
    other = read(tmp_path, with_sweep("training.lr: [1e-2, 0.1, 0.001]"))
    assert [cell.slug for cell in one.cells] == ["lr-0.001", "lr-0.01"]
    assert {cell.slug for cell in one.cells} < {cell.slug for cell in other.cells}
    odd = read(tmp_path, with_sweep('strategies.0.as: [a b, a-b, A-b, "../up"]'.replace('"../up"', "up")))
    assert len({cell.slug.casefold() for cell in odd.cells}) == 4
    assert all("/" not in cell.slug and " " not in cell.slug for cell in odd.cells)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["[training.lr]"], "13:3: sweep: expected a mapping of keys to lists"),
        (["{}"], "13:3: sweep: expected a mapping of keys to lists"),
        (["training.lr: 0.1"], "13:16: sweep: 'training.lr': expected a list of values, found '0.1'"),
        (["training.lr: []"], "13:16: sweep: 'training.lr': expected a list of values, found an empty list"),
        (["training.lr: [0.1, 0.2, 0.10]"], "13:27: sweep: 'training.lr' has the value 0.1 twice"),
        (["name: [a, b]"], "13:3: sweep: 'name' names no value that can be swept"),
        (["training..lr: [1]"], "13:3: sweep: 'training..lr' names no value that can be swept"),
        (["training.lr: [0.1]", "training: [{rounds: 1}]"], "14:3: sweep: 'training' and 'training.lr' are about"),
        (["seed: [" + ", ".join(map(str, range(1001))) + "]"], "13:3: sweep: found 1001 cells, expected at most"),
        (["requests.1.site: [north]"], "13:3: requests is a list: found '1'; expected a position from 0 to 0"),
        (["name.x: [1]"], "13:3: name is 'tiny', it has no 'x' in it"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_is_told_at_its_place(tmp_path: Path, lines: list[str], expected: str) -> None:
    (found,) = problems(tmp_path, with_sweep(*lines))
    assert found.startswith(expected), found


def test_problems_of_all_cells_are_told_together_each_once(tmp_path: Path) -> None:
    lines = ("training.lr: [0.1, fast, -1]", "training.rouns: [1, 2]", "model.name: [small_cnn, big]")
    found = problems(tmp_path, with_sweep(*lines).replace("local_epochs: 1", "local_epochs: 0"))
    assert [problem.partition(": ")[0] for problem in found] == ["7:37", "13:22", "13:28", "14:3", "15:27"]
    assert "unknown key 'rouns', did you mean 'rounds'?" in found[3]


def test_an_override_of_what_is_swept_is_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, SWEPT, ["requests.0={id: other, site: east, whole_site: true}"])
    assert "'requests.0.patients.count' is swept, so this would change nothing" in found
    assert len(read(tmp_path, SWEPT, ["sweep={training.lr: [0.1]}", "seeds=[4]"]).cells) == 1


def test_tune_takes_one_scenario(tmp_path: Path) -> None:
    result = call("tune", write(tmp_path, SWEPT), "--out", tmp_path / "t")
    assert result.exit_code == 2 and not (tmp_path / "t").exists()
    assert "--set sweep=null --set requests.0.patients.count=2" in result.stderr


@pytest.mark.parametrize("command", ["check", "simulate"])
def test_data_problems_of_every_cell_are_told_before_anything_is_run(tmp_path: Path, command: str) -> None:
    text = with_sweep("requests.0.patients: [{count: 2}, [nobody], [noone]]")
    out = ("--out", tmp_path / "out") if command == "simulate" else ()
    result = call(command, write(tmp_path, text), *out)
    assert result.exit_code == 2
    assert ":13:38: " in result.stderr and "nobody" in result.stderr
    assert ":13:48: " in result.stderr and "noone" in result.stderr
    assert not (tmp_path / "out").exists()


def test_check_says_what_every_cell_asks_for(tmp_path: Path) -> None:
    result = call("check", write(tmp_path, SWEPT))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert sum(line.startswith("data: ") for line in lines) == 1  # all cells have the same
    told = [line for line in lines if line.startswith(tuple(f"{slug}: " for slug in SLUGS))]
    few = [line for line in told if "coarsely" in line]  # three patients to forget, or two
    assert [line.partition(":")[0] for line in few] == SLUGS
    told = [line for line in told if line not in few]
    assert [line.partition(":")[0] for line in told] == [slug for slug in SLUGS for _ in range(3)]
    room, time, asked = told[::3], told[1::3], told[2::3]
    assert all(": needs about " in line for line in room) and all(": takes about " in line for line in time)
    assert asked[2].startswith(f"{SLUGS[2]}: some: forget 3 patients of north (")
    assert any(line.startswith("all cells: needs about ") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.yaml"]


@pytest.mark.gate
@pytest.mark.parametrize("command", [["check"], ["simulate", "--out", "HERE/out"]])
def test_cells_that_fit_one_by_one_but_not_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Each cell's results stay, so four need more than the one that needs most; half-way between is too little."""
    path, found = write(tmp_path, SWEPT), read(tmp_path).cells
    needed = [estimate(cell.scenario, gather(cell.scenario, tmp_path)) for cell in found]
    largest, together = (max(sum(one.disk.values()) for one in some) for some in (needed, [of_all(needed)]))
    assert largest < together
    free = (largest + together) // 2
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    words = [word.replace("HERE", str(tmp_path)) for word in command]
    result = call(words[0], path, *words[1:])
    assert result.exit_code == 2 and "of disk (" in result.stderr
    assert not list(tmp_path.rglob("cells"))


# ------------------------------------------------------------------------------------------------ running


def test_every_cell_is_an_ordinary_run(finished: Path, tmp_path: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {"sweep.json", "summary.parquet", "cells", ".lock"}
    assert sorted(path.name for path in (finished / "cells").iterdir()) == ["count-2", "count-3"]
    cell = RunFolder.open(finished / "cells" / "count-3")
    assert (cell.path / "DONE").is_file() and "sweep" not in (cell.path / "scenario.yaml").read_text()
    words = ("--set", "requests.0.patients.count=3", "--quiet", "--out", tmp_path / "alone")
    assert call("simulate", write(tmp_path, ONE), *words).exit_code == 0
    assert weight_files(RunFolder.open(tmp_path / "alone")) == weight_files(cell)


@pytest.mark.gate
def test_a_cell_that_is_gone_is_run_again_and_no_other(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    cell, stamp = out / "cells" / "count-3", (out / "cells" / "count-2" / "DONE").stat().st_mtime_ns
    before = weight_files(RunFolder(cell))
    shutil.rmtree(cell)
    (out / "summary.parquet").unlink()
    found = call("report", out, "--markdown").stdout
    assert "1 of them not finished" in found and "\n| 2 |" in found and "\n| 3 |" not in found
    execute(read(tmp_path, TWO), out)
    assert (out / "cells" / "count-2" / "DONE").stat().st_mtime_ns == stamp
    assert weight_files(RunFolder(cell)) == before and (cell / "DONE").is_file()
    same = ["cell", "requests.0.patients.count", "strategy", "forget_accuracy", "mia_loss_auc", "verdict"]
    again, first = (pd.read_parquet(folder / "summary.parquet")[same] for folder in (out, finished))
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.parametrize("left", ["no DONE", "empty folders"])
def test_what_an_interrupted_run_left_is_removed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    out, ran = tmp_path / "out", list[str]()
    shutil.copytree(finished, out)
    cell = out / "cells" / "count-3"
    if left == "no DONE":
        (cell / "DONE").unlink()
    else:  # as of a run that was killed before its first file
        shutil.rmtree(cell)
        (cell / "weights").mkdir(parents=True)

    def note(_: Scenario, folder: Path, *__: object, **___: object) -> None:
        ran.append(folder.name)
        assert not folder.exists()

    monkeypatch.setattr(running, "simulate", note)
    execute(read(tmp_path, TWO), out)
    assert ran == ["count-3"]


@pytest.mark.gate
def test_an_interruption_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def stops_at_the_third(scenario: Scenario, folder: Path, *_: object, **__: object) -> None:
        ran.append(folder.name)
        if len(ran) == 3:
            raise KeyboardInterrupt
        run = RunFolder.create(folder)
        run.write_text("scenario.yaml", scenarios.to_yaml(scenario))
        run.finish()

    monkeypatch.setattr(running, "simulate", stops_at_the_third)
    monkeypatch.setattr(running, "summary", lambda _: pd.DataFrame({"cell": SLUGS}))
    with pytest.raises(KeyboardInterrupt):
        execute(read(tmp_path), tmp_path / "out")
    assert ran == SLUGS[:3] and not (tmp_path / "out" / "summary.parquet").exists()
    execute(read(tmp_path), tmp_path / "out")
    assert ran == [*SLUGS[:3], *SLUGS[2:]]


def test_a_cell_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise SiteError("east", "disk on fire")

    monkeypatch.setattr(running, "simulate", fails)
    with pytest.raises(RunError, match=f"cell {SLUGS[0]}: hospital 'east' failed: disk on fire"):
        execute(read(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("done", [True, False])
def test_a_cell_of_another_scenario_is_in_the_way(finished: Path, tmp_path: Path, done: bool) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    if not done:
        (out / "cells" / "count-3" / "DONE").unlink()
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="count-2 holds something else than cell count-2"):
        execute(read(tmp_path, TWO, ["training.lr=0.5"]), out)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("change", ["engine={name: inline, workers: 1}", "history.limit=7"])
def test_what_changes_no_bit_leaves_a_cell_what_it_is(finished: Path, tmp_path: Path, change: str) -> None:
    """As for a run that goes on: more workers, or another engine, are no other scenario."""
    cell = read(tmp_path, TWO, [change]).cells[0]
    folder = finished / "cells" / cell.slug
    assert scenarios.read(folder / "scenario.yaml") != cell.scenario
    assert running._is_finished(folder, cell)


@pytest.mark.parametrize("left", [LOCK, ABOUT])
def test_a_cell_that_was_stopped_as_it_began_is_run(tmp_path: Path, left: str) -> None:
    """A lock, or what is to be run and nothing of it: no other scenario's work is in the way."""
    file = tmp_path / "cell" / left
    file.parent.mkdir(parents=True)
    file.touch()
    (cell, *_) = read(tmp_path).cells
    assert not running._is_finished(tmp_path / "cell", cell)


def test_a_folder_of_something_else_is_left_alone(finished: Path, tmp_path: Path) -> None:
    ordinary = finished / "cells" / "count-2"
    with pytest.raises(InputError, match="is in use, and not by a sweep"):
        execute(read(tmp_path), ordinary)
    assert not (ordinary / "sweep.json").exists()
    notes = tmp_path / "out" / "cells" / SLUGS[0] / "notes.txt"
    execute_into = notes.parents[2]
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    (execute_into / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="holds something else"):
        execute(read(tmp_path), execute_into)
    assert notes.read_text() == "mine"


def test_a_sweep_takes_its_name_and_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "runs" / "tiny")
    result = call("simulate", write(tmp_path, TWO))
    assert result.exit_code == 0 and result.stderr.count("finished already") == 2
    assert result.stdout.splitlines()[-1] == "sweep folder: runs/tiny"


# ------------------------------------------------------------------------------------------------ summary


def test_the_summary_holds_what_the_cells_say(finished: Path) -> None:
    table = pd.read_parquet(finished / "summary.parquet")
    assert list(table["cell"]) == ["count-2"] * 3 + ["count-3"] * 3
    assert list(table["strategy"]) == ["original", "retrained", "fine_tune"] * 2
    assert list(table["requests.0.patients.count"]) == [2] * 3 + [3] * 3
    scores = pd.read_parquet(finished / "cells" / "count-3" / "scores.parquet")
    verdicts = pd.read_parquet(finished / "cells" / "count-3" / "verdicts.parquet")
    row = table[(table["cell"] == "count-3") & (table["strategy"] == "fine_tune")].iloc[0]
    for measure in measures("classification"):  # one seed: the mean is its value
        chosen = (
            (scores["strategy"] == "fine_tune") & (scores["measure"] == measure) & (scores["group"] == "all")
        )
        assert row[measure] == scores.loc[chosen, "value"].item(), measure
    assert row["verdict"] == verdicts.loc[verdicts["strategy"] == "fine_tune", "verdict"].item()


def test_the_summary_by_hand(tmp_path: Path) -> None:
    """Two seeds: the mean of .5 and .7 is .6; of one that diverged and another there is none; tuning took 3 s."""
    cell = tmp_path / "cells" / "lr-0.1"
    about = {"name": "hand", "cells": [{"slug": slug, "values": {"training.lr": lr, "clip": clip}}
             for slug, lr, clip in [("lr-0.1", 0.1, None), ("lr-1", 1, 2.0)]]}  # fmt: skip
    values = [("original", "test_accuracy", 0.5, 0.7), ("retrained", "test_accuracy", 0.9, 0.8)]
    values += [("lost", "test_accuracy", float("nan"), 0.7), ("lost", "tuning_site_seconds", 3.0, 3.0)]
    rows = [
        {"request": "r", "strategy": s, "seed": seed, "measure": m, "group": "all", "value": v}
        for s, m, *both in values
        for seed, v in enumerate(both)
    ]
    other = {**rows[0], "group": "north", "value": 0.0}
    cell.mkdir(parents=True)
    (tmp_path / "sweep.json").write_text(json.dumps(about))
    run = RunFolder(cell)
    run.write_table("scores.parquet", pd.DataFrame([*rows, other]))
    known = [
        {"request": "r", "strategy": s, "verdict": v} for s, v in (("original", "UNDER"), ("lost", "DAMAGED"))
    ]
    run.write_table("verdicts.parquet", pd.DataFrame(known))
    run.write_manifest({"kind": "classification", "moments": [{"id": "r"}], "seeds": [0, 1]})
    run.finish()
    table = summary(tmp_path)
    found = table[["cell", "training.lr", "clip", "strategy", "n_seeds", "verdict"]].to_numpy().tolist()
    assert found == [
        ["lr-0.1", 0.1, "null", "original", 2, "UNDER"],
        ["lr-0.1", 0.1, "null", "retrained", 2, "reference"],
        ["lr-0.1", 0.1, "null", "lost", 2, "DAMAGED"],
    ]
    assert table["test_accuracy"].tolist()[:2] == pytest.approx([0.6, 0.85])
    assert pd.isna(table["test_accuracy"][2]) and table["tuning_site_seconds"][2] == 3
    text = markdown(tmp_path).splitlines()
    assert text[0] == "**hand: 2 cells, 1 of them not finished: run `simulate` again to go on**"
    assert text[2].startswith("| lr | clip | strategy | forget |")
    assert text[4].startswith("| 0.1 | null | do nothing | n/a | n/a | .600 |") and text[4].endswith(
        "| UNDER |"
    )
    assert "| 3.0 | DAMAGED |" in text[6]


def test_a_swept_key_called_like_a_column_of_results_has_one_of_its_own() -> None:
    named = naming.columns(["verdict", "lr"], {"verdict", "cell"})
    assert named == {"verdict": "set.verdict", "lr": "lr"}


def test_report_prints_the_summary_again(finished: Path) -> None:
    result = call("report", finished)
    assert result.exit_code == 0 and "tiny: 2 cells" in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith("3 ") and "fine_tune" in line]
    assert len(rows) == 1 and all("…" not in row for row in rows)
    assert call("report", finished, "--markdown").stdout.count("\n| 3 | ") == 3


def test_nothing_is_cut_off_on_a_narrow_terminal(finished: Path) -> None:
    text = StringIO()
    show(finished, Console(file=text, width=30))
    rows = [line for line in text.getvalue().splitlines() if line.startswith("2 ")]
    assert len(rows) == 3 and "…" not in text.getvalue()
    assert rows[0].split()[1:3] == ["do", "nothing"] and rows[0].split()[-1] == "INCONCLUSIVE"


def test_a_damaged_sweep_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{")
    result = call("report", tmp_path)
    assert result.exit_code == 1 and "sweep.json" in result.stderr

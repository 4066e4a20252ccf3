"""Runs for experiment trackers: their numbers are the run's, no patient is named, and MLflow's layout is kept."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from fedunlearn.core import InputError
from fedunlearn.exports import filestore, mlflow_server
from fedunlearn.exports.papers import tidy
from fedunlearn.exports.settings import settings
from fedunlearn.exports.tracking import LONGEST_NAME, Experiment, Metric, Tracked, _named, tracked
from fedunlearn.results.runfolder import RunFolder
from tests.exports.conftest import SCENARIO
from tests.scoring.made import MODELS, change_manifest


@pytest.fixture(scope="module")
def experiment(made: RunFolder) -> Experiment:
    return tracked(made)


def by_name(experiment: Experiment) -> dict[str, Tracked]:
    return {run.name: run for run in experiment.runs}


def test_there_is_a_run_per_folder_model_and_seed_one_below_the_other(experiment: Experiment) -> None:
    """Two requests; of each, the models made and retraining again, which is of several seeds as well."""
    tops = [run for run in experiment.runs if not run.parent]
    assert experiment.name == "made" and len(tops) == 1
    models = [run for run in experiment.runs if run.parent == tops[0].id]
    assert len(models) == 2 * (len(MODELS) + 1)
    seeds = [run for run in experiment.runs if run.parent in {model.id for model in models}]
    assert (
        len(tops) + len(models) + len(seeds) == len(experiment.runs) == len({r.id for r in experiment.runs})
    )
    assert len([run for run in seeds if run.name.startswith("some: good, seed ")]) == 3


def test_numbers_are_those_of_the_run(made: RunFolder, experiment: Experiment) -> None:
    scores, runs, table = made.read_table("scores.parquet"), by_name(experiment), tidy(made)
    own = scores[(scores["request"] == "some") & (scores["strategy"] == "lazy") & (scores["seed"] == 8)]
    metrics = {metric.name: metric.value for metric in runs["some: lazy, seed 8"].metrics}
    whole = own[own["group"] == "all"].dropna(subset="value")
    assert len(whole) > 20
    for measure, value in zip(whole["measure"], whole["value"], strict=True):
        if abs(value) < float("inf"):
            assert metrics[measure] == value
    (north,) = own[(own["group"] == "site=north") & (own["measure"] == "test_accuracy")]["value"]
    assert metrics["test_accuracy.site.north"] == north
    (row,) = table[(table["request"] == "some") & (table["strategy"] == "lazy")].to_dict("records")
    lazy = runs["some: lazy"]
    assert {m.name: m.value for m in lazy.metrics}["memory_left"] == row["memory_left"]
    assert lazy.tags["fedunlearn.forgotten"] == row["forgotten"]
    assert lazy.parameters["name"] == "fine_tune" and runs["some: good"].parameters["recovery.rounds"] == "2"


def test_no_patient_is_named_and_a_scenario_that_names_some_stays(
    experiment: Experiment, made: RunFolder
) -> None:
    text = repr(experiment)
    for patient in made.read_table("sites.parquet")["patient"].unique():
        assert f"'{patient}'" not in text and f" {patient}" not in text
    assert all("scenario.yaml" not in str(file) for run in experiment.runs for file in run.files)


def test_a_scenario_that_names_single_images_stays_too(made: RunFolder, tmp_path: Path) -> None:
    """One that names nobody, and no path either, is attached."""
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    text = run.path.joinpath("scenario.yaml").read_text(encoding="utf-8")
    text = re.sub(
        r"patients: \[[^]]*\]",
        "patients: null",
        re.sub(r"(path|cache|file|manifest): [^,}]+", r"\1: null", text),
    )
    for images, attached in (("", True), ('images: ["p-0001-1"], ', False)):
        own = text.replace("whole_site:", f"{images}whole_site:")
        run.path.joinpath("scenario.yaml").write_text(own, encoding="utf-8")
        experiment = tracked(run)
        assert any(one.files for one in experiment.runs) == attached
        assert "p-0001-1" not in repr(experiment)


def test_curves_are_metrics_by_round(made: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "run")
    rows = [
        ("unlearn", "some", "good", 7, r, "forget", "accuracy", v, 9)
        for r, v in ((0, 0.9), (1, 0.5), (2, 0.4))
    ]
    told = [(*row[:4], 3, row[4], *row[4:]) for row in rows]
    columns = ["phase", "request", "strategy", "seed", "after", "round"]
    columns += ["step", "part", "measure", "value", "images"]
    run = RunFolder(tmp_path / "run")
    run.write_bytes("curves.parquet", pd.DataFrame(told, columns=columns).to_parquet(index=False) or b"")
    change_manifest(run.path)
    found = by_name(tracked(run))["some: good, seed 7"].metrics
    curve = [metric for metric in found if metric.name == "curve.forget.accuracy"]
    assert curve == [
        Metric(curve[0].name, 0.9, 0),
        Metric(curve[0].name, 0.5, 1),
        Metric(curve[0].name, 0.4, 2),
    ]


def test_a_moment_in_the_middle_of_training_has_the_curves_up_to_it(made: RunFolder, tmp_path: Path) -> None:
    """`some` comes after round 2 of 4: two rounds of unlearning, then two more of training; the original has four."""
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    own = [("unlearn", "good", 2, r, 0.9 - r / 10) for r in range(3)]
    own += [("continue", "good", 2, r, 0.7 - r / 10) for r in range(3)]
    own += [("original", "original", 0, r, r / 10) for r in range(5)]
    rows = [
        (phase, "some", strategy, 7, after, r, r, "forget", "accuracy", value, 9)
        for phase, strategy, after, r, value in own
    ]
    columns = ["phase", "request", "strategy", "seed", "after", "round"]
    columns += ["step", "part", "measure", "value", "images"]
    run.write_bytes("curves.parquet", pd.DataFrame(rows, columns=columns).to_parquet(index=False) or b"")
    for name in ("scores", "verdicts", "requests", "patients", "statistics"):
        table = run.read_table(f"{name}.parquet")
        inner = table[table["request"] == "some"].assign(request="some@2")
        run.write_table(f"{name}.parquet", pd.concat([inner, table], ignore_index=True))
    whole, other = run.read_manifest()["moments"]
    change_manifest(run.path, moments=[{**whole, "id": "some@2", "round": 2}, {**whole, "round": 4}, other])
    found = by_name(tracked(run))

    def curve(name: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in found[name].metrics if m.name == "curve.forget.accuracy"]

    first = [(r, 0.9 - r / 10) for r in range(3)]
    assert curve("some@2: good, seed 7") == first
    assert curve("some: good, seed 7") == [*first, *((3 + r, 0.7 - r / 10) for r in range(3))]
    assert curve("some@2: original, seed 7") == [(r, r / 10) for r in range(3)]
    assert curve("some: original, seed 7") == [(r, r / 10) for r in range(5)]
    assert found["some@2: good"].parameters["recovery.rounds"] == "2"


def test_what_is_not_known_is_no_tag(experiment: Experiment) -> None:
    """Retraining has no answers."""
    assert "fedunlearn.forgotten" not in by_name(experiment)["some: retrained"].tags
    assert not [
        value for run in experiment.runs for value in run.tags.values() if value in ("nan", "None", "")
    ]


def test_a_strategys_settings_are_there_at_a_horizon_too(made: RunFolder) -> None:
    known = settings(made)
    assert known.of("lazy@20", "some") == known.of("lazy", "some") and known.of("lazy", "some")["rounds"] == 1
    assert known.of("original", "some") == {}


def test_no_page_and_no_path_comes_along(made: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    (run.path / "report.html").write_text("patient north-0 at secret-host", encoding="utf-8")
    experiment = tracked(run)
    top = experiment.runs[0]
    assert not any(one.files for one in experiment.runs)
    assert "data.path" not in top.parameters and "data.manifest" not in top.parameters
    assert top.parameters["training.rounds"] == "4"
    assert top.tags["fedunlearn.data"] == "64 images of list.csv; made up."
    for text in (repr(one.tags) + repr(one.parameters) for one in experiment.runs):
        assert "secret" not in text


def test_a_scenario_comes_along_that_names_no_patient_and_no_path(made: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    file, text = run.path / "scenario.yaml", SCENARIO.replace('["north-0", "north-1", "north-2"]', "3")
    file.write_text(text, encoding="utf-8")
    assert tracked(run).runs[0].files == ()
    file.write_text(text.replace("folder, path: /home/somebody/secret, manifest: list.csv", "cells"), "utf-8")
    assert tracked(run).runs[0].files == (file,)


def test_names_are_such_that_trackers_take_them_and_stay_apart() -> None:
    hostile = ["../../etc/passwd", "a\nb", "a\tb", "很", "长", "x" * 10_000, ".hidden", "a/b", "a_b"]
    named = [_named(name) for name in hostile]
    assert len(set(named)) == len(hostile) and all(len(name) <= LONGEST_NAME for name in named)
    assert all("/" not in name and "\n" not in name and not name.startswith(".") for name in named)
    assert _named("test_accuracy.site.north") == "test_accuracy.site.north"


def test_the_file_store_is_mlflows(experiment: Experiment, tmp_path: Path) -> None:
    """As MLflow 2.22 and 3.17 write it, whose `search_runs` was seen to return these very numbers."""
    place = filestore.write(experiment, tmp_path / "store")
    yaml = YAML(typ="safe")
    about = yaml.load((place / "meta.yaml").read_text())
    assert about["name"] == "made" and about["experiment_id"] == place.name and place.name.isdigit()
    assert (tmp_path / "store" / "0" / "meta.yaml").is_file()
    run = by_name(experiment)["some: lazy, seed 8"]
    own = yaml.load((place / run.id / "meta.yaml").read_text())
    assert (own["run_id"], own["run_uuid"], own["status"], own["lifecycle_stage"]) == (
        run.id,
        run.id,
        3,
        "active",
    )
    assert own["artifact_uri"] == (place / run.id / "artifacts").as_uri()
    value = {metric.name: metric.value for metric in run.metrics}["test_accuracy"]
    time, text, step = (place / run.id / "metrics" / "test_accuracy").read_text().split()
    assert (int(time), float(text), int(step)) == (run.ended, value, 0)
    assert (place / run.id / "tags" / "mlflow.parentRunId").read_text() == run.parent
    assert (place / run.id / "tags" / "mlflow.runName").read_text() == run.name


@pytest.mark.gate
def test_writing_again_replaces_our_runs_and_nothing_else(experiment: Experiment, tmp_path: Path) -> None:
    place = filestore.write(experiment, tmp_path)
    first = experiment.runs[0].id
    (place / first / "tags" / "stale").write_text("x")
    (place / "theirs").mkdir()
    (place / "theirs" / "meta.yaml").write_text("run_id: theirs\n")
    moved = place.rename(tmp_path / "123")  # an experiment of that name which somebody else had made
    assert filestore.write(experiment, tmp_path) == moved
    assert not (moved / first / "tags" / "stale").exists() and (moved / "theirs" / "meta.yaml").is_file()
    assert len(list(tmp_path.glob("*/meta.yaml"))) == 2


def test_a_folder_of_something_else_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="something else"):
        filestore.write(experiment, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


class Server:
    """A tracking server that takes as much in one message as MLflow's does."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, str] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, "7")

    def search_runs(self, experiment_ids: list[str], filter_string: str) -> Any:
        wanted = filter_string.partition(" = ")[2].strip("'")
        found = [id for id, run in self.runs.items() if run["tags"][mlflow_server.MARK] == wanted]
        return [SimpleNamespace(info=SimpleNamespace(run_id=id)) for id in found]

    def create_run(self, experiment_id: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        new = f"r{len(self.runs)}-{run_name}"
        self.runs[new] = {
            "name": run_name,
            "tags": tags,
            "metrics": [],
            "params": [],
            "files": [],
            "status": "",
        }
        return SimpleNamespace(info=SimpleNamespace(run_id=new))

    def log_batch(self, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
        assert len(metrics) <= 1000 and len(params) <= 100 and not tags
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] += params

    def log_artifact(self, run_id: str, local_path: str) -> None:
        self.runs[run_id]["files"].append(local_path)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self.runs[run_id]["status"] = status

    def delete_run(self, run_id: str) -> None:
        del self.runs[run_id]


def test_a_server_gets_the_same_once(experiment: Experiment) -> None:
    server = Server()
    for _ in range(2):
        mlflow_server.give(experiment, server, lambda *values: values, lambda *values: values)
        assert len(server.runs) == len(experiment.runs)
    for known, run in zip(server.runs.items(), experiment.runs, strict=True):
        got = known[1]
        assert got["metrics"] == [(m.name, m.value, run.ended, m.step) for m in run.metrics]
        assert dict(got["params"]) == dict(run.parameters) and got["status"] == "FINISHED"
        parent = got["tags"].get("mlflow.parentRunId")
        assert (server.runs[parent]["tags"][mlflow_server.MARK] if parent else "") == run.parent


def test_without_mlflow_an_address_is_refused_with_what_to_do(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'fedunlearn\[mlflow\]', or name a folder"):
        mlflow_server.send(experiment, "http://localhost:5000")


def test_metas_are_json_within_yaml(experiment: Experiment, tmp_path: Path) -> None:
    hostile = Experiment("a: b\n- c\u202e", experiment.runs[:1])
    place = filestore.write(hostile, tmp_path)
    text = (place / "meta.yaml").read_text()
    assert YAML(typ="safe").load(text)["name"] == hostile.name and json.dumps(hostile.name) in text

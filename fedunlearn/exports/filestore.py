"""MLflow's file store, written without MLflow: what ``mlflow ui --backend-store-uri DIR`` shows.

MLflow 1 and 2 read it as it is. MLflow 3 reads it too; from the version on that asks for it, with the environment
variable ``MLFLOW_ALLOW_FILE_STORE=true``, or after ``mlflow migrate-filestore`` has made a database of it.

Layout::

    DIR/EXPERIMENT/meta.yaml
    DIR/EXPERIMENT/RUN/meta.yaml, params/NAME, tags/NAME, metrics/NAME, artifacts/
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedunlearn.core import InputError, RunError
from fedunlearn.exports.tracking import Experiment, Metric, Tracked

_FINISHED, _LOCAL = 3, 4
"""MLflow's numbers for a run that is over and for a source on the user's own machine."""


def write(experiment: Experiment, folder: Path) -> Path:
    """Write an experiment's runs below ``folder``; the same runs of an earlier time are replaced, all others stay.

    Returns:
        The experiment's folder.

    Raises:
        InputError: ``folder`` holds something else than MLflow's files, or cannot be written to.
        RunError: a file that comes along cannot be read.
    """
    try:
        if folder.exists() and not _may_be_one(folder):
            raise InputError(f"{folder} holds something else than MLflow's files: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "0").exists():  # MLflow expects this experiment in any store
            _meta(folder / "0", _experiment(folder / "0", "Default", 0))
        times = min(run.started for run in experiment.runs)
        place = _found(folder, experiment.name) or folder / _number(experiment.name)
        if not (place / "meta.yaml").is_file():
            _meta(place, _experiment(place, experiment.name, times))
        for run in experiment.runs:
            _write_run(run, place)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    return place


def _may_be_one(folder: Path) -> bool:
    """Whether there is nothing in it, or experiments alone."""
    if not folder.is_dir():
        return False
    entries = [entry for entry in folder.iterdir() if entry.name not in (".trash", "models")]
    return all((entry / "meta.yaml").is_file() for entry in entries)


def _found(folder: Path, name: str) -> Path | None:
    """The experiment of that name, whoever wrote it."""
    for file in sorted(folder.glob("*/meta.yaml")):
        try:
            content = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
        except (ValueError, YAMLError) as error:
            raise InputError(f"{file} is no file of MLflow's: {error}") from error
        if isinstance(content, dict) and content.get("name") == name:
            return file.parent
    return None


def _number(name: str) -> str:
    """18 digits, as MLflow's own."""
    digest = int(hashlib.sha256(name.encode("utf-8")).hexdigest(), 16)
    return str(10**17 + digest % (9 * 10**17))


def _write_run(run: Tracked, place: Path) -> None:
    folder = place / run.id
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("params", "tags", "metrics", "artifacts"):
        (folder / part).mkdir(parents=True)
    for name, value in run.parameters.items():
        _text(folder / "params" / name, value)
    for name, value in {**run.tags, **_mlflow(run)}.items():
        _text(folder / "tags" / name, value)
    for name in dict.fromkeys(metric.name for metric in run.metrics):
        _text(folder / "metrics" / name, _lines(run, [m for m in run.metrics if m.name == name]))
    for file in run.files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise RunError(f"cannot read {file}: {error.strerror}") from error
        (folder / "artifacts" / file.name).write_bytes(content)
    _meta(folder, _run(run, folder))  # last: a run without it is none


def _mlflow(run: Tracked) -> dict[str, str]:
    """Tags that MLflow's own pages read."""
    parent = {"mlflow.parentRunId": run.parent} if run.parent else {}
    return {
        "mlflow.runName": run.name,
        "mlflow.source.name": "fedunlearn",
        "mlflow.source.type": "LOCAL",
        **parent,
    }


def _lines(run: Tracked, metrics: list[Metric]) -> str:
    """When, what, at which round. Two metrics whose names came to the same would be told apart by their mark."""
    return "".join(f"{run.ended} {metric.value!r} {metric.step}\n" for metric in metrics)


def _run(run: Tracked, folder: Path) -> dict[str, Any]:
    return {
        "artifact_uri": (folder.resolve() / "artifacts").as_uri(),
        "end_time": run.ended,
        "entry_point_name": "",
        "experiment_id": folder.parent.name,
        "lifecycle_stage": "active",
        "run_id": run.id,
        "run_name": run.name,
        "run_uuid": run.id,
        "source_name": "",
        "source_type": _LOCAL,
        "source_version": "",
        "start_time": run.started,
        "status": _FINISHED,
        "tags": [],
        "user_id": "",
    }


def _experiment(folder: Path, name: str, time: int) -> dict[str, Any]:
    return {
        "artifact_location": folder.resolve().as_uri(),
        "creation_time": time,
        "experiment_id": folder.name,
        "last_update_time": time,
        "lifecycle_stage": "active",
        "name": name,
    }


def _meta(folder: Path, content: Mapping[str, Any]) -> None:
    """A YAML file; JSON is YAML, and quotes whatever is in a name."""
    folder.mkdir(parents=True, exist_ok=True)
    _text(folder / "meta.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items()))


def _text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")

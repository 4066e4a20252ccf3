"""Runs given to a tracking server or database by MLflow's own client, which ``fedunlearn[mlflow]`` installs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fedunlearn.core import InputError, RunError
from fedunlearn.exports.tracking import Experiment, Metric, Tracked

MARK = "fedunlearn.id"
"""The tag by which a run is known again: a server gives its own ids."""
_MOST = 90
"""Entries of a kind in one message; a server takes 100 parameters or tags."""

T = TypeVar("T")


class Client(Protocol):
    """What is used of ``mlflow.MlflowClient``."""

    def get_experiment_by_name(self, name: str) -> Any:
        """None if there is none."""

    def create_experiment(self, name: str) -> str:
        """Its id."""

    def search_runs(self, experiment_ids: list[str], filter_string: str) -> Any:
        """Runs with such a tag."""

    def create_run(self, experiment_id: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        """A new run."""

    def log_batch(
        self, run_id: str, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]
    ) -> Any:
        """Write of a run."""

    def log_artifact(self, run_id: str, local_path: str) -> None:
        """Give it a file."""

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        """End it."""

    def delete_run(self, run_id: str) -> None:
        """Move it to the bin."""


def send(experiment: Experiment, address: str) -> None:
    """Give an experiment's runs to the server or database at ``address``, in the place of the same ones of earlier.

    Raises:
        InputError: MLflow is not installed.
        RunError: it did not take them.
    """
    try:
        import mlflow
        from mlflow.entities import Metric as Number, Param
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError(
            f"{address} is reached by MLflow's client, which is not installed: "
            "pip install 'fedunlearn[mlflow]', or name a folder, which needs no MLflow"
        ) from error
    try:
        give(experiment, mlflow.MlflowClient(tracking_uri=address), Number, Param)
    except (MlflowException, OSError) as error:
        raise RunError(f"MLflow at {address} did not take the run: {error}") from error


def give(experiment: Experiment, client: Client, number: Any, param: Any) -> None:
    """The same by a client, whose classes of metrics and parameters are told."""
    known = client.get_experiment_by_name(experiment.name)
    place = client.create_experiment(experiment.name) if known is None else str(known.experiment_id)
    ids = dict[str, str]()
    for run in experiment.runs:
        for old in client.search_runs([place], f"tags.`{MARK}` = '{run.id}'"):
            client.delete_run(old.info.run_id)
        parent = {"mlflow.parentRunId": ids[run.parent]} if run.parent else {}
        tags = {**run.tags, **parent, MARK: run.id, "mlflow.source.name": "fedunlearn"}
        new = client.create_run(place, start_time=run.started, tags=tags, run_name=run.name)
        ids[run.id] = new.info.run_id
        _fill(run, ids[run.id], client, number, param)


def _fill(run: Tracked, new: str, client: Client, number: Any, param: Any) -> None:
    for some in _parts(list(run.parameters.items())):
        client.log_batch(new, metrics=(), params=[param(key, value) for key, value in some], tags=())
    for few in _parts(list[Metric](run.metrics)):
        values = [number(one.name, one.value, run.ended, one.step) for one in few]
        client.log_batch(new, metrics=values, params=(), tags=())
    for file in run.files:
        client.log_artifact(new, str(Path(file)))
    client.set_terminated(new, status="FINISHED", end_time=run.ended)


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(values), _MOST):
        yield values[first : first + _MOST]

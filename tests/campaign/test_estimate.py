"""What a run will take is told before it is taken, and what cannot fit is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import gather
from fedunlearn.campaign.estimate import Estimate, estimate, model_bytes, require_room
from fedunlearn.core import InputError
from fedunlearn.learning.models import initial_weights
from fedunlearn.simulate import simulate
from fedunlearn.weights import nbytes
from tests.runs import write


def size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it is gone by now
            continue
    return total


def test_a_run_takes_no_more_than_was_told_and_its_results_about_as_much(tmp_path: Path) -> None:
    scenario = scenarios.read(write(tmp_path))
    told = estimate(scenario, gather(scenario, tmp_path)).disk
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], size(tmp_path / "run"))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        run = simulate(scenario, tmp_path / "run", tmp_path, Console(), quiet=True)
    finally:
        over.set()
        watching.join()
    assert most[0] <= sum(told.values())
    for part, folder in (("models", "weights"), ("signals", "signals")):
        assert told[part] / 2 <= size(run.path / folder) <= 2 * told[part]


def test_a_model_is_as_large_as_its_weights(tmp_path: Path) -> None:
    scenario = scenarios.read(write(tmp_path))
    cohort = gather(scenario, tmp_path)
    assert model_bytes(scenario, cohort) == nbytes(
        initial_weights(scenario.model, cohort.shape, cohort.classes, 0)
    )


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        ("disk", lambda m: m.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=999))),
        (
            "memory",
            lambda m: m.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=999)),
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, spoil: Callable[[pytest.MonkeyPatch], None]
) -> None:
    scenario = scenarios.read(write(tmp_path))
    spoil(monkeypatch)
    with pytest.raises(InputError, match=f"of {part}, but"):
        simulate(scenario, tmp_path / "run", tmp_path, Console(), quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_just_fits_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3_000_000))
    require_room(Estimate({"a": 2_000_000}, {"b": 3_000_000}), tmp_path)
    with pytest.raises(InputError, match=r"needs about 2 MB \(a 2 MB\) of disk, but .* has 2 MB free"):
        require_room(Estimate({"a": 2_000_001}, {"b": 3_000_000}), tmp_path)

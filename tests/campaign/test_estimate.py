"""What a run will take is told before it is taken, and what cannot fit is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from fedunlearn import scenario as scenarios
from fedunlearn.__main__ import app
from fedunlearn.campaign import estimate as estimates
from fedunlearn.campaign.activations import activations
from fedunlearn.campaign.counting import asked_passes, asked_rounds
from fedunlearn.campaign.estimate import Estimate, estimate, model_bytes, of_all, refuse, require_room
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.learning.models import initial_weights
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario import Scenario
from fedunlearn.story import simulate
from fedunlearn.sweep import cells as sweeping, running
from fedunlearn.sweep.cells import Sweep
from fedunlearn.weights import nbytes
from strategies import catalogue
from tests.runs import TINY, write

MORE = """
  - {name: sharded, shards: 3}
  - {name: sifu}
"""
"""A strategy that trains in a way of its own, and one that uses sums or the like of updates."""


def read(folder: Path, *overrides: str, text: str = TINY) -> Scenario:
    return scenarios.read(write(folder, text), overrides)


@pytest.mark.gate
def test_a_run_takes_about_as_much_disk_as_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest size seen is at most what was told, and at least half of it; so are parts that stay."""
    scenario = read(tmp_path, "seeds=[1]", text=TINY + MORE)
    told = estimate(scenario, gather(scenario, tmp_path)).disk
    monkeypatch.setattr(RunFolder, "clean", lambda _: None)
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], estimates._held(tmp_path / "run"))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        run = simulate(scenario, tmp_path / "run", tmp_path, Console(), quiet=True)
    finally:
        over.set()
        watching.join()
    assert sum(told.values()) / 2 <= most[0] <= sum(told.values())
    places = {
        "history": [run.scratch / "history-1"],
        "own trainings of strategies": [run.scratch / "prepared", run.scratch / "prepared-sharded-2-1"],
        "weights": [run.path / "weights"],
        "signals": [run.path / "signals", run.path / "copies", run.path / "origins", run.path / "curves"],
    }
    for part, folders in places.items():
        assert told[part] / 2 <= sum(map(estimates._held, folders)) <= 1.02 * told[part], part


def test_a_model_is_as_large_as_its_weights(tmp_path: Path) -> None:
    scenario = scenarios.read(write(tmp_path))
    cohort = gather(scenario, tmp_path)
    assert model_bytes(scenario, cohort) == nbytes(initial_weights(scenario.model, cohort.form, 0))


def counts(folder: Path, text: str, *overrides: str) -> Mapping[str, float]:
    """What a run takes, in models."""
    scenario = read(folder, *overrides, text=text)
    cohort = gather(scenario, folder)
    size = model_bytes(scenario, cohort)
    return {part: taken / size for part, taken in estimate(scenario, cohort).disk.items()}


def test_models_are_counted_by_hand(tmp_path: Path) -> None:
    """`some`: retrained, two strategies; `leave`: retrained, three. FedEraser: 2 rounds of 3 updates; 2 checkpoints.

    Trainings under way: the original and two retrained ones, 2 models and 3 replies each, and those before 2 rounds.
    """
    one = counts(tmp_path, TINY, "seeds=[1]")
    assert (one["weights"], one["history"]) == (1 + 3 + 4, 2 * 3 + 2)
    assert one["work under way"] == 3 * (2 + 3 + 2)
    two = counts(tmp_path, TINY)
    assert all(two[part] == 2 * one[part] for part in ("weights", "history", "work under way", "signals"))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_updates_of_16_bits_take_half_and_checkpoints_do_not(tmp_path: Path, precision: str) -> None:
    found = counts(tmp_path, TINY, "seeds=[1]", f"history.precision={precision}")
    assert found["history"] == 3 + 2


def test_history_beyond_its_limit_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    """FedEraser's updates of two rounds at three hospitals, for two seeds, and two checkpoints each: 16 models."""
    size = model_bytes(scenario := read(tmp_path), cohort := gather(scenario, tmp_path))
    assert estimate(scenario, cohort).disk["history"] == 16 * size
    fits, exceeds = (read(tmp_path, f"history.limit={16 * size / 1e9 + more:.9f}") for more in (2e-9, -2e-9))
    require_room(estimate(fits, cohort), tmp_path)
    with pytest.raises(
        InputError, match=r"history of training would take about 7 MB, and history.limit is 7 MB:"
    ):
        simulate(exceeds, tmp_path / "run", tmp_path, Console(), quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("precision", "models", "advised"), [("float32", 10, True), ("float32", 9, False), ("bfloat16", 9, False)]
)
def test_updates_of_16_bits_are_advised_where_they_fit_then(
    tmp_path: Path, precision: str, models: int, advised: bool
) -> None:
    """For two seeds, updates would take 6 models instead of 12; 4 are checkpoints."""
    size = model_bytes(scenario := read(tmp_path), cohort := gather(scenario, tmp_path))
    limit = f"history.limit={models * size / 1e9 + 2e-9:.9f}"
    needed = estimate(read(tmp_path, limit, f"history.precision={precision}"), cohort)
    with pytest.raises(InputError, match=r"history\.limit is .*raise the limit") as caught:
        require_room(needed, tmp_path)
    assert ("precision: bfloat16" in str(caught.value)) == advised


def test_requests_in_the_middle_and_horizons_are_counted_by_hand(tmp_path: Path) -> None:
    """Half-way: the original there, and for who answers `some` a model there and one at the end; by 2 horizons more."""
    text = TINY.replace("site: north, ", "site: north, after_round: 1, ")
    early = counts(tmp_path, text, "seeds=[1]", "horizons=[1, 2]")
    assert early["weights"] == 2 + 2 * (1 + 2) + 2 * 2 + (1 + 3) + 3 * 2


def test_what_ended_takes_nothing_of_the_journal() -> None:
    """Of 3 hospitals: after 2 rounds 5 + 6 + 6, after 5 rounds 5 + 15; with one at a time, 15."""
    phase = [
        estimates._Procedure(9, restarts=True),
        estimates._Procedure(2, restarts=False),
        estimates._Procedure(5, restarts=False),
    ]
    assert estimates._journal(phase, 3, 100, 0) == 20
    assert estimates._journal(phase, 3, 1, 0) == 15
    assert estimates._journal([], 3, 1, 0) == 0
    # With those in hand before each round: after 5 rounds 10 + 20; with four of these at the most, 9 + 19.
    assert estimates._journal(phase, 3, 100, 100) == 30
    assert estimates._journal(phase, 3, 100, 4) == 28


@pytest.mark.parametrize("name", catalogue())
def test_every_strategy_tells_for_how_long_it_asks(name: str) -> None:
    assert 1 <= asked_rounds(catalogue()[name](), 7) <= 102  # FedOSD's


@pytest.mark.parametrize("name", ["retrain_short", "rapid_retrain"])
def test_a_share_of_the_rounds_is_told_as_rounds(name: str) -> None:
    """0.6 of 7 rounds of 3 epochs: 4 rounds."""
    strategy = catalogue()[name]()
    assert asked_rounds(strategy, 7) == 4
    assert asked_passes(strategy, 7, 3) == 12


@pytest.mark.parametrize(("name", "rounds"), [("random_label", 3), ("scrub", 10), ("fedquit", 2)])
def test_epochs_of_all_hospitals_are_rounds_and_those_of_holders_alone_are_none(
    name: str, rounds: int
) -> None:
    """Two more of fedquit are its recovery."""
    assert asked_rounds(catalogue()[name](), 7) == rounds


def test_mapped_images_need_no_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert (estimates._in_memory(mapped), estimates._in_memory(np.array(mapped))) == (0, 96)


def test_results_of_all_cells_stay_and_the_rest_makes_room() -> None:
    small = Estimate({"weights": 1, "signals": 2, "history": 3}, {"images": 5})
    large = Estimate({"weights": 10, "signals": 20, "history": 30}, {"images": 4})
    both = of_all([small, large])
    assert both == Estimate({"weights": 11, "signals": 22, "history": 30}, {"images": 5})


def spoil(
    monkeypatch: pytest.MonkeyPatch, disk: int = 10**12, memory: int = 10**12, own: int = 0, shared: int = 0
) -> None:
    """Pretend that a machine has so much room, and this process takes ``own`` bytes of it, some of them shared."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=disk))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=memory))
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=own, shared=shared))
    monkeypatch.setattr("psutil.Process", lambda: process)


@pytest.mark.parametrize("part", ["disk", "memory"])
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    scenario = read(tmp_path)
    spoil(monkeypatch, **{part: 999})
    with pytest.raises(
        InputError, match=rf"^needs about \d+ MB of {part} \(.*\), but .*: choose fewer"
    ) as caught:
        simulate(scenario, tmp_path / "run", tmp_path, Console(), quiet=True)
    assert len(caught.value.problems) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.yaml"]


def test_what_just_fits_is_not_refused() -> None:
    needed = Estimate({"weights": 2_000_000, "history": 0}, {"images": 3_000_000})
    refuse(needed, 2_000_000, 3_000_000, Path("/there"))
    with pytest.raises(InputError) as caught:
        refuse(needed, 1_999_999, 2_000_000, Path("/there"))
    disk, memory = map(str, caught.value.problems)
    assert disk == (
        "needs about 2 MB of disk (weights 2 MB), but there is room for 2 MB in /there: choose fewer seeds, requests "
        "or strategies, or a smaller model, or give a folder on another disk with --out"
    )
    assert memory == (
        "needs about 3 MB of memory (images 3 MB), but 2 MB are available: choose fewer or smaller images"
    )


def test_what_is_there_already_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on has a part of it on the disk, and this process a part of it in memory."""
    needed = Estimate({"weights": 1000}, {"images": 1000})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x").write_bytes(bytes(400))
    spoil(monkeypatch, disk=600, memory=600, own=400)
    require_room(needed, tmp_path / "run", [tmp_path / "run"])
    with pytest.raises(InputError, match="of disk"):
        require_room(needed, tmp_path / "run")
    for own, shared in ((399, 0), (400, 1)):  # pages of mapped files are among those that are available
        spoil(monkeypatch, disk=600, memory=600, own=own, shared=shared)
        with pytest.raises(InputError, match="of memory"):
            require_room(needed, tmp_path / "run", [tmp_path / "run"])


def test_every_part_has_a_remedy(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    told = estimate(scenario, gather(scenario, tmp_path))
    assert {*told.disk, *told.memory} == set(estimates._REMEDIES)


def test_the_command_line_tells_it_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*words: str) -> Result:
        return CliRunner().invoke(app, [words[0], str(write(tmp_path)), *words[1:]], catch_exceptions=False)

    told = str(estimate(read(tmp_path), gather(read(tmp_path), tmp_path)))
    assert told in call("check").output.splitlines()
    spoil(monkeypatch, disk=999)
    for command in (["check"], ["simulate", "--out", str(tmp_path / "run")]):
        refused = call(*command)
        assert refused.exit_code == 2 and "but there is room for 1 MB in " in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("engine", "processes", "readers", "networks"),
    [
        ("{name: inline, workers: 3}", 600, 1, 3),
        ("{name: flower, workers: 3}", 600 + 360 + 3 * 320, 4, 3),
        (
            "{name: flower, workers: 99}",
            600 + 360 + 99 * 320,
            100,
            99,
        ),  # as many as wanted, whatever the cores
        ("{name: flower, workers: 3, address: '10.0.0.1:6379'}", 600, 1, 0),  # they work on other machines
    ],
)
def test_memory_is_counted_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, processes: int, readers: int, networks: int
) -> None:
    monkeypatch.setattr("fedunlearn.cores.usable", lambda: 2)
    scenario = read(tmp_path, f"engine={engine}")
    cohort = gather(scenario, tmp_path)
    told, images = estimate(scenario, cohort).memory, cohort.pixels.nbytes + cohort.targets.nbytes
    assert told["processes"] == processes * 2**20
    assert told["images"] == (1 + readers) * images  # fewer than workers keep at hand
    assert told["networks"] == networks * (4 * model_bytes(scenario, cohort) + activations(scenario, cohort))


@pytest.mark.parametrize(
    ("engine", "sets"),
    [
        ("{name: inline, workers: 1}", [3]),
        ("{name: inline, workers: 2}", [3 + 2]),
        ("{name: inline, workers: 7}", [3 + 2 + 1 + 3 + 2 + 1 + 3]),
        ("{name: flower, workers: 2}", [1, 3, 3]),  # the server's process, and two of which each may have any
        ("{name: flower, workers: 2, address: '10.0.0.1:6379'}", [1]),
    ],
)
def test_each_worker_holds_the_hospital_that_it_works_on_however_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, sets: list[int]
) -> None:
    """Hospitals with 3, 2 and 1 sixth of the images, of which a process otherwise keeps one at hand."""
    scenario = read(tmp_path, f"engine={engine}")
    gathered = gather(scenario, tmp_path)
    places = np.array(["north", "north", "north", "east", "east", "west"] * 40)
    cohort = replace(gathered, site=places)
    every = cohort.pixels.nbytes + cohort.targets.nbytes
    monkeypatch.setattr(estimates, "_GATHERED", every // 6)
    assert estimate(scenario, cohort).memory["images"] == every + sum(sets) * every // 6


def test_what_comes_beside_images_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words have eight bytes at hospitals, numbers four."""
    scenario = read(tmp_path)
    plain = gather(scenario, tmp_path)
    monkeypatch.setattr(estimates, "activations", lambda *_: 0)  # of a network that takes images alone
    beside: dict[str, Any] = {"words": np.zeros((240, 5), np.int16), "table": np.zeros((240, 3), np.float64)}
    images = [estimate(scenario, cohort) for cohort in (plain, replace(plain, companions=beside))]
    assert images[1].disk["images"] - images[0].disk["images"] == 240 * (5 * 8 + 3 * 4)
    held = 240 * (5 * 2 + 3 * 8)
    assert images[1].memory["images"] - images[0].memory["images"] == held + 240 * (5 * 8 + 3 * 4)


def run_one(folder: Path) -> None:
    simulate(read(folder), folder / "run", folder, Console(), quiet=True)


def run_two(folder: Path) -> None:
    found = sweeping.read(write(folder, TINY + "sweep: {seeds: [[1], [2]]}\n"))
    assert isinstance(found, Sweep)
    running.run(found, folder / "sweep", folder, Console(), quiet=True)


@pytest.mark.parametrize("execute", [run_one, run_two])
def test_what_workers_hold_who_came_already_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execute: Callable[[Path], None]
) -> None:
    """They are a part of what is needed, of a run's as of a sweep's; the disk is full, so nothing is run either."""

    @contextmanager
    def staff(engine: Inline) -> Iterator[Inline]:
        spoil(monkeypatch, disk=999, memory=0)
        yield engine

    monkeypatch.setattr(Inline, "staff", staff)
    monkeypatch.setattr(running, "check", lambda *_, **__: [])  # it looks before they come
    spoil(monkeypatch, disk=999)
    with pytest.raises(InputError, match="of disk") as caught:
        execute(tmp_path)
    assert len(caught.value.problems) == 1

"""Run a scenario from Python, as the command ``simulate`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from fedunlearn import files, interrupts, story
from fedunlearn.api.run import Run
from fedunlearn.api.scenario import Scenario
from fedunlearn.results import places


def simulate(
    scenario: Scenario | str | Path,
    out: str | Path | None = None,
    *,
    set: Sequence[str] = (),
    engine: Literal["inline", "flower"] | None = None,
    data_root: str | Path | None = None,
    resume: bool = False,
    reuse: Sequence[str | Path] = (),
    tombstones: Sequence[str | Path] = (),
    quiet: bool = True,
) -> Run:
    """Train, retrain, unlearn and score a scenario; write a run folder.

    Args:
        scenario: what to run: a `Scenario`, a YAML file, or the name of one that comes with fedunlearn.
        out: the run folder to make; runs/NAME by default, then runs/NAME-2, ….
        set: values of the scenario to change, ``KEY=VALUE``.
        engine: instead of the scenario's.
        data_root: where data files are; ``$FEDUNLEARN_DATA`` by default, else a per-user cache.
        resume: go on with the unfinished run in ``out``; nothing is done twice.
        reuse: earlier run folders, to take from them what would come to the same.
        tombstones: files of `fedunlearn purge`: what they tell of must be neither in the data nor in what is reused.
        quiet: show no progress. Otherwise it is shown on standard error, or as a notebook's output.

    Returns:
        The finished run.

    Raises:
        InputError: something about the scenario, the data or a folder is wrong; nothing was run.
        SiteError: a hospital failed, or a reference diverged; the run can be resumed.
        RunError: it could not go on for another reason.
        Interrupted: a signal came; the run can be resumed. Outside the main thread signals are not looked at.
    """
    read = scenario if isinstance(scenario, Scenario) else Scenario(scenario)
    read = read.changed(*set, *([f"engine.name={engine}"] if engine else ()))
    root = files.data_root(None if data_root is None else Path(data_root))
    console = Console(quiet=True) if quiet else Console(stderr=True)
    place = None if out is None else Path(out)
    with (
        interrupts.listening(),
        interrupts.interruptible(),
        places.placed(place, Path("runs") / read.name, resume) as folder,
    ):
        earlier = [Path(one) for one in reuse]
        stones = [Path(one) for one in tombstones]
        run = story.simulate(read.config, folder, root, console, quiet, resume, earlier, tombstones=stones)
    return Run(run.path)

"""The story of ``tune``: rehearse the scenario's requests, try settings, write a scenario with the best of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.expecting import expected
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.origins import Environment
from fedunlearn.core import InputError, Problem, Strategy
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Link, Staff
from fedunlearn.federation.jobs import Watcher
from fedunlearn.federation.journal import Journal
from fedunlearn.federation.ledger import Ledger
from fedunlearn.federation.memory import Kept
from fedunlearn.federation.progress import progress
from fedunlearn.results.events import Events
from fedunlearn.results.places import locked
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import FOLDER as ORIGINS, Store, earlier
from fedunlearn.results.wording import cell
from fedunlearn.scenario import Plan, Scenario, Tuned
from fedunlearn.scenario.space import setting, space
from fedunlearn.story import engine, surveyed
from fedunlearn.tuning.judge import Judge
from fedunlearn.tuning.rehearsal import Rehearsal, rehearse
from fedunlearn.tuning.trials import Budget, Trial, Trials

__all__ = ["Budget", "Tuning", "show", "tune"]

REHEARSAL = "rehearsal"
"""In a tuning's folder: the references that trials were compared with, for the next tuning to take."""


@dataclass(frozen=True)
class Tuning:
    """What came of tuning.

    Attributes:
        folder: holds ``tuned.yaml``, ``trials.parquet`` and ``ledger.parquet``, and `REHEARSAL`.
        scenario: the scenario with the settings found, and what finding them cost.
        trials: by strategy (`fedunlearn.tuning.rehearsal.names`), in the order tried.
    """

    folder: Path
    scenario: Scenario
    trials: Mapping[str, Sequence[Trial]]


def tune(
    scenario: Scenario,
    out: Path,
    data_root: Path,
    budget: Budget,
    console: Console,
    repeats: int = 2,
    seed: int = 0,
    quiet: bool = False,
) -> Tuning:
    """Find settings for every strategy of a scenario, with the same budget for each, and write them to ``out``.

    Trials are judged by their distance from retraining on requests that only resemble the scenario's (`rehearse`), on
    validation images (`Judge`). Neither test images nor any model of the scenario itself are looked at.

    Args:
        scenario: whose strategies to tune.
        out: the folder to make; it must not be in use.
        data_root: where the data's files are.
        budget: of every strategy.
        console: where progress is shown.
        repeats: rehearsals of each request.
        seed: of the rehearsals' patients and of the choice of settings.
        quiet: show no progress.

    Raises:
        InputError: something about the scenario, the data or the folder is wrong, or it cannot be rehearsed.
        SiteError: a hospital failed, or a reference model diverged.
    """
    if not any(space(type(plan.strategy)) for plan in scenario.strategies):
        raise InputError(
            "found no strategy with anything to tune; `list strategies` shows what each searches"
        )
    if scenario.calendar is not None:
        why = "trials are rehearsals of single requests, and this scenario has a stream of them"
        advice = "tune on the same scenario without `calendar`, and copy the settings that are found"
        raise InputError([scenario.placed(Problem(f"{why}: {advice}"), "calendar")])
    environment = surveyed(scenario, console)
    with engine(scenario, environment.machines, console, quiet).staff() as staff:
        rehearsal = rehearse(scenario, gather(scenario, data_root), repeats, seed)
        with locked(out):
            run = RunFolder.create(out)
            try:
                return _tune(
                    scenario, rehearsal, environment, staff, run, budget, console, repeats, seed, quiet
                )
            except InputError:
                run.discard()
                raise
            finally:
                run.clean()


def _tune(
    scenario: Scenario,
    rehearsal: Rehearsal,
    environment: Environment,
    staff: Staff,
    run: RunFolder,
    budget: Budget,
    console: Console,
    repeats: int,
    seed: int,
    quiet: bool,
) -> Tuning:
    ledger = Ledger()
    trials = _rehearsed(
        rehearsal, environment, staff, run.path / REHEARSAL, budget, ledger, console, seed, quiet
    )
    strategies = tuple(
        _tuned(plan, trials.get(name, ()))
        for plan, name in zip(scenario.strategies, rehearsal.names, strict=True)
    )
    tuned = dataclasses.replace(scenario, strategies=strategies)
    for place, file in scenarios.brought(tuned).items():
        run.write_bytes(place, file.content)
    run.write_text("tuned.yaml", _header(budget, repeats, seed) + scenarios.to_yaml(tuned))
    run.write_table("trials.parquet", _table(trials))
    run.write_table("ledger.parquet", ledger.table())
    return Tuning(run.path, tuned, trials)


def show(tuning: Tuning, console: Console) -> None:
    """Print what every strategy's trials gave."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    for heading in ("strategy", "trials", "as written", "best", "site s", "settings found"):
        words = heading in ("strategy", "settings found")
        table.add_column(
            heading, justify="left" if words else "right", overflow="fold" if words else "ellipsis"
        )
    for label, trials in tuning.trials.items():
        best = nearest(trials)
        settings = ", ".join(f"{name} {value}" for name, value in _searched(best.strategy).items())
        seconds = sum(trial.site_seconds for trial in trials)
        cells = (str(len(trials)), f"{trials[0].distance:.2f}", f"{best.distance:.2f}", f"{seconds:.1f}")
        table.add_row(cell(label), *cells, cell(settings if best.number else "as written"))
    console.print(table)
    console.print(
        "as written, best: distance from retraining on rehearsed requests, in margins (1: what counts).",
        highlight=False,
    )


def tell(tuning: Tuning, told: Events) -> None:
    """The same as events, and where the scenario is."""
    for label, trials in tuning.trials.items():
        best = nearest(trials)
        found = {"distance": best.distance, "settings": _searched(best.strategy)}
        told.tell("result", strategy=label, trials=len(trials), **found)
    told.tell("written", folder=str(tuning.folder))


def nearest(trials: Sequence[Trial]) -> Trial:
    """The trial nearest to retraining; of equals, the first."""
    return min(trials, key=lambda trial: trial.distance)


def _rehearsed(
    rehearsal: Rehearsal,
    environment: Environment,
    staff: Staff,
    folder: Path,
    budget: Budget,
    ledger: Ledger,
    console: Console,
    seed: int,
    quiet: bool,
) -> Mapping[str, Sequence[Trial]]:
    """Train the rehearsal, also as strategies do it, and retrain; then let every strategy's trials run side by side."""
    scenario, cohort, run = rehearsal.scenario, rehearsal.cohort, RunFolder.create(folder)
    store = Store(run, _earlier(folder))
    campaign = Campaign(scenario, cohort, environment, store, run.scratch, ledger)
    requests = tuple(request.id for request in scenario.requests)
    judge = Judge(run.path, scenario.model.kind, cohort.classes, cohort.table, requests)
    trials = Trials(campaign, judge, budget, seed, rehearsal.names)
    references = [*campaign.references.jobs(), *trials.preparations()]
    labels = [*(job.label for job in references), *trials.labels()]
    federation = cohort.stored(run.scratch / "federation", scenario.model)
    about = expected(scenario, cohort, labels)
    with progress(labels, console, quiet, about) as shown, federation as there:
        watchers: list[Watcher] = [ledger, *shown]

        def body(link: Link) -> None:
            recorders, retries = campaign.stage.recorders.values(), scenario.engine.retries
            memory = Kept(store, Journal(run.scratch / "journal"))
            drive(references, link, [*recorders, *watchers], retries, memory)
            drive(trials.jobs(), link, [trials, *watchers], retries)

        try:
            staff.run(there, body)
        finally:
            run.clean()
    return trials.done


def _earlier(folder: Path) -> tuple[Path, ...]:
    """The rehearsals of earlier tunings whose folders stand beside this one's: references may be the same."""
    beside = folder.parents[1].glob(f"*/{REHEARSAL}")
    return earlier(sorted(other for other in beside if other != folder and (other / ORIGINS).is_dir()))


def _tuned(plan: Plan, own: Sequence[Trial]) -> Plan:
    """The plan with the best setting and what all its trials cost; as it is if it has no trials."""
    if not own:
        return plan
    cost = Tuned(
        trials=len(own),
        site_seconds=round(sum(trial.site_seconds for trial in own), 3),
        images=sum(trial.images for trial in own),
        bytes=sum(trial.bytes for trial in own),
    )
    return dataclasses.replace(plan, strategy=nearest(own).strategy, tuned=cost)


def _searched(strategy: Strategy) -> dict[str, Any]:
    return {name: setting(strategy, name) for name in space(type(strategy))}


def _header(budget: Budget, repeats: int, seed: int) -> str:
    limit = "" if budget.site_seconds is None else f" --site-seconds {budget.site_seconds:g}"
    return (
        "# Settings found by `python -m fedunlearn tune`, the same budget for each strategy:\n"
        f"# --trials {budget.trials}{limit} --repeats {repeats} --seed {seed}. "
        "`tuned` is what finding them cost.\n"
    )


def _table(trials: Mapping[str, Sequence[Trial]]) -> pd.DataFrame:
    """One row per trial."""
    rows = [
        {
            "strategy": trial.label,
            "trial": trial.number,
            "distance": trial.distance,
            "site_seconds": trial.site_seconds,
            "images": trial.images,
            "bytes": trial.bytes,
            "settings": json.dumps(_searched(trial.strategy)),
        }
        for own in trials.values()
        for trial in own
    ]
    return pd.DataFrame(rows)

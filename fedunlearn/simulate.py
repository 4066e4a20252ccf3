"""The story of a run, top to bottom: hospitals, training, requests, strategies, scores."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from fedunlearn import __version__, scenario as scenarios, weights as w
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.cohort import Cohort, gather
from fedunlearn.campaign.probing import Probing
from fedunlearn.campaign.shadows import Shadows
from fedunlearn.campaign.slices import Slices
from fedunlearn.campaign.timeline import moments
from fedunlearn.core import InputError
from fedunlearn.federation.drive import Watcher, drive
from fedunlearn.federation.engines import Engine, Link
from fedunlearn.federation.engines.flower import Flower
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.ledger import Ledger
from fedunlearn.federation.progress import progress
from fedunlearn.learning.models import origin
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario import Scenario
from fedunlearn.scoring import score

LIBRARIES = ("torch", "flwr", "ray", "numpy", "pandas", "scikit-learn", "monai", "medmnist", "matplotlib")


def simulate(
    scenario: Scenario, out: Path, data_root: Path, console: Console, quiet: bool = False
) -> RunFolder:
    """Run a scenario into the folder ``out`` and score it.

    Args:
        scenario: what to run.
        out: the run folder to make; it must not be in use.
        data_root: where the data's files are.
        console: where progress is shown.
        quiet: show none.

    Raises:
        InputError: something about the scenario, the data or the folder is wrong; nothing was run.
        SiteError: a hospital failed, or a reference diverged; the folder is left without ``DONE``. A strategy that
            diverges does not stop the run.
    """
    began = time.perf_counter()
    cohort = gather(scenario, data_root)
    shadows = Shadows(scenario, cohort)
    run = RunFolder.create(out)
    run.write_text("scenario.yaml", scenarios.to_yaml(scenario))
    run.write_table("sites.parquet", cohort.table)
    _record_requests(run, scenario, cohort)

    federation = run.scratch / "federation"
    cohort.store(federation, scenario.model)
    ledger = Ledger()
    for plan in scenario.strategies:
        if (cost := plan.tuned) is not None:
            ledger.tuned(
                plan.label, scenario.seeds[0], cost.trials, cost.site_seconds, cost.images, cost.bytes
            )
    campaign = Campaign(scenario, cohort, run, run.scratch, ledger)
    probing, slices = Probing(campaign), Slices(campaign)
    shadows.fetch(run, lambda text: console.print(text, highlight=False, markup=False))

    labels = [*campaign.procedures(), *shadows.procedures(), *probing.procedures()]
    with progress(labels, console, quiet) as shown:
        watchers: list[Watcher] = [
            *campaign.stage.recorders.values(),
            campaign.unlearning.horizons,
            ledger,
            *shown,
        ]

        def body(link: Link) -> None:
            drive([*campaign.jobs(), *shadows.jobs(run)], link, watchers, scenario.engine.retries)
            drive([*probing.jobs(), *slices.jobs()], link, watchers, scenario.engine.retries)

        try:
            engine(scenario).run(federation, body)
        except InputError:  # no such cluster, no such GPU: nothing was run, so nothing is left behind
            run.discard()
            raise
        finally:
            run.clean()

    campaign.blank()
    probing.write()
    slices.write()
    run.write_table("ledger.parquet", ledger.table())
    if (learnt := campaign.references.learnt()) is not None:
        run.write_table("difficulty.parquet", learnt)
    run.write_manifest(
        _manifest(scenario, cohort, campaign, shadows, probing, slices, began)
    )  # scoring reads it; written anew below
    _, verdicts = score(run.path)
    _record_verdicts(run, campaign, verdicts.to_dict("records"))
    run.write_manifest(_manifest(scenario, cohort, campaign, shadows, probing, slices, began))
    run.finish()
    return run


def engine(scenario: Scenario) -> Engine:
    """The engine a scenario asks for."""
    config = scenario.engine
    if config.name == "inline":
        return Inline(config.workers, config.timeout)
    return Flower(config.workers, config.gpus_per_client, config.address, config.timeout)


def _manifest(
    scenario: Scenario,
    cohort: Cohort,
    campaign: Campaign,
    shadows: Shadows,
    probing: Probing,
    slices: Slices,
    began: float,
) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "fedunlearn": __version__,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "kind": scenario.model.kind,
        "classes": cohort.classes,
        "pretrained": origin(scenario.model, cohort.shape, cohort.classes),
        "seeds": list(scenario.seeds),
        "horizons": list(scenario.horizons),
        "data": {
            "digest": cohort.digest,
            "note": cohort.note,
            "duplicates": [list(group) for group in cohort.duplicates],
        },
        "requests": [{"id": r.id, "site": r.site, "whole_site": r.whole_site} for r in scenario.requests],
        "moments": [
            {
                "id": m.name,
                "forgets": m.request.id,
                "earlier": list(m.earlier),
                "round": m.round,
                "summary": cohort.summary(m.request),
            }
            for chain in campaign.stage.chains
            for m in moments(scenario, chain)
        ],
        "scored": campaign.scored(),
        "diverged": campaign.unlearning.diverged(),
        "shadows": shadows.summary(),
        "probes": probing.summary(),
        "slices": slices.summary(),
        "skipped": [
            {"strategy": label, "request": request, "reason": reason}
            for label, request, reason in scenarios.skipped(scenario)
        ],
        "wall_seconds": round(time.perf_counter() - began, 3),
    }


def _record_requests(run: RunFolder, scenario: Scenario, cohort: Cohort) -> None:
    audit.append(run.path / "audit.jsonl", "run-started", {"scenario": scenario.name, "data": cohort.digest})
    for request in scenario.requests:
        mask = cohort.forgotten[request.id]
        counts = {site: int((mask & (cohort.site == site)).sum()) for site in cohort.sites}
        patients = int(cohort.table.loc[mask, "patient"].nunique())
        details: Mapping[str, object] = {
            "request": request.id,
            "scope": "site" if request.whole_site else "patients",
            "patients": patients,
            "images": counts,
        }
        audit.append(run.path / "audit.jsonl", "request-received", details)


def _record_verdicts(run: RunFolder, campaign: Campaign, verdicts: list[dict[Any, Any]]) -> None:
    """What was done about each request: every model that answered it, by hash, and what it was found to be."""
    lost = {entry["model"]: entry for entry in campaign.unlearning.diverged()}
    for entry in campaign.scored():
        for strategy, model in [("retrained", entry["retrained"]), *entry["strategies"].items()]:
            if strategy in entry["horizons"]:
                continue  # not what the request was answered with
            digest = w.digest(run.read_weights(model))
            found = [
                v["verdict"]
                for v in verdicts
                if (v["request"], v["strategy"]) == (entry["request"], strategy)
            ]
            details = {
                "request": entry["request"],
                "strategy": strategy,
                "seed": entry["seed"],
                "model": digest,
            }
            audit.append(
                run.path / "audit.jsonl",
                "request-answered",
                {
                    **details,
                    "diverged": lost[model]["where"] if model in lost else None,
                    "verdict": found[0] if found else None,
                },
            )
    audit.append(run.path / "audit.jsonl", "run-finished", {})

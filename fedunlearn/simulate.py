"""The story of a run, top to bottom: hospitals, training, requests, strategies, scores."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fedunlearn import __version__, guests, scenario as scenarios, weights as w
from fedunlearn.campaign import resuming
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.cohort import Cohort, gather
from fedunlearn.campaign.estimate import estimate, model_bytes, most_under_way, require_room
from fedunlearn.campaign.origins import Environment
from fedunlearn.campaign.probing import Probing
from fedunlearn.campaign.shadows import Shadows
from fedunlearn.campaign.slices import Slices
from fedunlearn.campaign.timeline import moments
from fedunlearn.core import InputError
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Engine, Link
from fedunlearn.federation.engines.flower import Flower
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import Machine, described, here, notes
from fedunlearn.federation.jobs import Watcher
from fedunlearn.federation.journal import Journal
from fedunlearn.federation.ledger import Ledger
from fedunlearn.federation.memory import Kept
from fedunlearn.federation.progress import progress, watching
from fedunlearn.learning.models import origin
from fedunlearn.results import audit
from fedunlearn.results.runfolder import ABOUT, RunFolder, locked, parquet
from fedunlearn.results.store import Store, earlier
from fedunlearn.results.wording import plain
from fedunlearn.scenario import Scenario, Verdict
from fedunlearn.scoring import score, tables
from fedunlearn.scoring.evidence.margins import declared, parse

LIBRARIES = ("torch", "flwr", "ray", "numpy", "pandas", "scikit-learn", "monai", "medmnist", "matplotlib")
MOST_TWINS = 1_000
"""Groups of twins that a manifest lists; its sentences count all of them."""


@dataclass(frozen=True)
class Production:
    """All that takes part in a run.

    Attributes:
        scenario: what is run.
        cohort: the hospitals.
        store: the run folder, and what is known already.
        ledger: what it costs.
        campaign: references and strategies.
        shadows: shadow models.
        probing: what is asked of finished models.
        slices: what they make of volumes.
    """

    scenario: Scenario
    cohort: Cohort
    store: Store
    ledger: Ledger
    campaign: Campaign
    shadows: Shadows
    probing: Probing
    slices: Slices

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return self.store.run


def simulate(
    scenario: Scenario,
    out: Path,
    data_root: Path,
    console: Console,
    quiet: bool = False,
    resume: bool = False,
    reuse: Sequence[Path] = (),
) -> RunFolder:
    """Run a scenario into the folder ``out`` and score it.

    A run that is stopped, however that comes about, can be resumed: what was done is not done again, and it comes to
    the same bits. The hospitals' images stay in the run folder no longer than a process works on them.

    Args:
        scenario: what to run.
        out: the run folder to make; it must not be in use. With ``resume``, one that was not finished.
        data_root: where the data's files are.
        console: where progress is shown.
        quiet: show none.
        resume: go on with the run in ``out``.
        reuse: earlier run folders; work of the same origin is taken from them instead of being done again.

    Raises:
        InputError: something about the scenario, the data or a folder is wrong, or what is to be resumed was another
            scenario, other data or other code; nothing was run.
        SiteError: a hospital failed, or a reference diverged; the folder is left without ``DONE``. A strategy that
            diverges does not stop the run.
    """
    began = time.perf_counter()
    environment = surveyed(scenario, console)
    cohort = gather(scenario, data_root, watching(console, quiet))
    shadows, others = Shadows(scenario, cohort, environment), earlier(reuse)
    needed = estimate(scenario, cohort)
    require_room(needed, out, [out] if resume else [])
    if not quiet:
        console.print(plain(needed), soft_wrap=True)
    with locked(out):
        run = RunFolder.unfinished(out) if resume else RunFolder.create(out)
        if resume:
            resuming.check(run, scenario, cohort, environment)
        try:
            made = _begin(scenario, cohort, environment, shadows, Store(run, others), resume, console)
            machines = train(made, console, quiet)
            if made.store.taken and not quiet:
                console.print(plain(_taken(made.store.taken)))
            _finish(made, machines, began)
        except BaseException as error:
            if (run.path / ABOUT).is_file() and (
                resume or not isinstance(error, InputError) or run.has_results
            ):
                error.add_note(resuming.advice(run))
            else:  # it had not begun: no such cluster, no such GPU; nothing is left behind
                run.discard()
            raise
    return run


def rescore(path: Path, margins: str | None = None) -> None:
    """Score a finished run again, from its folder alone; the audit log tells.

    Args:
        path: the run folder.
        margins: to judge with from now on, as a text (`evidence.margins.parse`); those it does not name stay.

    Raises:
        InputError: it is no finished run's, or margins cannot be read.
        RunError: a file is missing or damaged; the scores stay as they were.
    """
    with locked(path):
        run = RunFolder.open(path)
        log, manifest = run.path / audit.FILE, run.read_manifest()
        used = declared(manifest)
        used = used if margins is None else parse(margins, used)
        audit.verify(log, manifest["audit"])
        contents = {name: parquet(table) for name, table in tables(run.path, used).items()}
        details = {
            "fedunlearn": __version__,
            "scores": hashlib.sha256(contents["scores.parquet"]).hexdigest(),
            "margins": asdict(used),
        }
        contents[audit.FILE] = audit.extended(log, "run-rescored", details)
        run.renew(contents, {"verdict": asdict(Verdict(used))})


def engine(scenario: Scenario, machines: tuple[Machine, ...], console: Console, quiet: bool) -> Engine:
    """The engine a scenario asks for.

    Args:
        scenario: what asks.
        machines: those that were found before (`surveyed`).
        console: where what a person may want to know of machines is shown.
        quiet: show nothing.
    """
    config = scenario.engine
    if config.name == "inline":
        return Inline(config.workers, config.timeout, config.device)

    def tell(text: str) -> None:
        if not quiet:
            console.print(plain(text), soft_wrap=True)

    return Flower(
        config.workers, config.gpus_per_client, config.address, config.timeout, config.wait, machines, tell
    )


def surveyed(scenario: Scenario, console: Console) -> Environment:
    """What a run would work on, after a look at all of it; tells in what machines differ that may work together.

    Raises:
        InputError: there is no such cluster, or a machine cannot be used; tells all problems of all of them.
    """
    found, own = engine(scenario, (), console, quiet=True).inspect(), here()
    for text in notes([own, *found]):
        console.print(plain(text), soft_wrap=True)
    return Environment(own, found)


def train(made: Production, console: Console, quiet: bool) -> tuple[Machine, ...]:
    """Run all procedures that are not known already; their results are in the run folder then.

    Returns:
        The machines that took part.
    """
    run, scenario, campaign = made.run, made.scenario, made.campaign
    memory = Kept(made.store, Journal(run.scratch / "journal"))
    most = most_under_way(model_bytes(scenario, made.cohort))
    labels = [*campaign.procedures(), *made.shadows.procedures(), *made.probing.procedures()]
    with (
        progress(labels, console, quiet) as shown,
        made.cohort.stored(run.scratch / "federation", scenario.model) as there,
    ):
        watchers: list[Watcher] = [
            *campaign.stage.recorders.values(),
            campaign.unlearning.horizons,
            made.ledger,
            *shown,
        ]

        def body(link: Link) -> tuple[Machine, ...]:
            first = [*campaign.jobs(), *made.shadows.jobs(run)]
            drive(first, link, watchers, scenario.engine.retries, memory, most)
            further = [*made.probing.jobs(), *made.slices.jobs()]
            drive(further, link, watchers, scenario.engine.retries, memory, most)
            return tuple(link.machines)

        looked = campaign.stage.origins.environment.machines
        return engine(scenario, looked, console, quiet).run(there, body)


def produce(
    scenario: Scenario, cohort: Cohort, environment: Environment, shadows: Shadows, store: Store
) -> Production:
    """All that takes part in a run, ready to begin."""
    ledger = Ledger()
    for plan in scenario.strategies:
        if (cost := plan.tuned) is not None:
            ledger.tuned(
                plan.label, scenario.seeds[0], cost.trials, cost.site_seconds, cost.images, cost.bytes
            )
    campaign = Campaign(scenario, cohort, environment, store, store.run.scratch, ledger)
    return Production(scenario, cohort, store, ledger, campaign, shadows, Probing(campaign), Slices(campaign))


def _begin(
    scenario: Scenario,
    cohort: Cohort,
    environment: Environment,
    shadows: Shadows,
    store: Store,
    resume: bool,
    console: Console,
) -> Production:
    """Write what is known before training."""
    run = store.run
    if not resume:
        resuming.note(run, scenario, cohort, environment)
    for place, file in scenarios.brought(scenario).items():
        run.write_bytes(place, file.content)
    run.write_text("scenario.yaml", scenarios.to_yaml(scenario))
    run.write_table("sites.parquet", cohort.table)
    if resume and (run.path / audit.FILE).is_file():
        audit.append(run.path / audit.FILE, "run-resumed", {})
    else:
        _record_requests(run, scenario, cohort)
    made = produce(scenario, cohort, environment, shadows, store)
    shadows.fetch(run, lambda text: console.print(plain(text)))
    return made


def _taken(files: Sequence[str]) -> str:
    """What was taken from earlier runs, in words."""
    models = sum(name.startswith("weights/") for name in files)
    return f"taken from earlier runs: {models} models, and {len(files) - models} other results of theirs"


def _finish(made: Production, machines: Sequence[Machine], began: float) -> None:
    """Write what all models came to, and score it."""
    run = made.run
    made.campaign.blank()
    made.probing.write()
    made.slices.write()
    run.write_table("ledger.parquet", made.ledger.table())
    if (learnt := made.campaign.references.learnt()) is not None:
        run.write_table("difficulty.parquet", learnt)
    run.write_manifest(_manifest(made, machines, began))  # scoring reads it; written anew below
    _, verdicts = score(run.path)
    _record_verdicts(made, verdicts.to_dict("records"))
    run.write_manifest(_manifest(made, machines, began))
    run.finish()


def _manifest(made: Production, machines: Sequence[Machine], began: float) -> dict[str, Any]:
    scenario, cohort, campaign = made.scenario, made.cohort, made.campaign
    return {
        "name": scenario.name,
        "fedunlearn": __version__,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "machines": described(machines, made.ledger.tasks()),
        "machine_notes": notes(machines),
        "kind": scenario.model.kind,
        "classes": cohort.classes,
        "names": list(cohort.names),
        "costs": scenario.evaluation.costs,
        "pretrained": origin(scenario.model, cohort.shape, cohort.classes),
        "seeds": list(scenario.seeds),
        "horizons": list(scenario.horizons),
        "verdict": asdict(scenario.verdict),
        "data": {
            "digest": cohort.digest,
            "note": cohort.note,
            "notes": list(cohort.notes),
            **_twins(cohort),
        },
        "strategies": _sources(scenario),
        "requests": [{"id": r.id, "site": r.site, "whole_site": r.whole_site} for r in scenario.requests],
        "moments": [
            {
                "id": m.name,
                "forgets": m.request.id,
                "earlier": list(m.earlier),
                "round": m.round,
                "summary": cohort.summary(m.request),
                "warnings": cohort.warnings(m.request.id, m.earlier),
            }
            for chain in campaign.stage.chains
            for m in moments(scenario, chain)
        ],
        "floors": scenarios.floors(scenario),
        "scored": campaign.scored(),
        "references": campaign.references.extra(),
        "diverged": campaign.unlearning.diverged(),
        "shadows": made.shadows.summary(),
        "probes": made.probing.summary(),
        "slices": made.slices.summary(),
        "reused": made.store.taken,
        "skipped": [
            {"strategy": label, "request": request, "reason": reason}
            for label, request, reason in scenarios.skipped(scenario)
        ],
        "wall_seconds": round(time.perf_counter() - began, 3),
    }


def _sources(scenario: Scenario) -> dict[str, Mapping[str, str]]:
    """By label, where strategies come from that are not ours: the user's file, or a package."""
    classes = {plan.label: type(plan.strategy) for plan in scenario.strategies}
    found = {label: guests.origin(cls) for label, cls in classes.items()}
    return {label: origin for label, origin in found.items() if origin}


def _twins(cohort: Cohort) -> dict[str, Any]:
    """Images of different patients that show the same: those equal to the pixel, and all of them by kind."""
    images = cohort.table["image"].astype(str).to_numpy()
    groups = [{"kind": group.kind, "images": images[list(group.rows)].tolist()} for group in cohort.twins]
    return {
        "duplicates": [group["images"] for group in groups if group["kind"] == "exact"],
        "twins": groups[:MOST_TWINS],
    }


def _record_requests(run: RunFolder, scenario: Scenario, cohort: Cohort) -> None:
    events: list[tuple[str, Mapping[str, object]]] = [
        ("run-started", {"scenario": scenario.name, "data": cohort.digest})
    ]
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
        events.append(("request-received", details))
    audit.append_all(run.path / audit.FILE, events)


def _record_verdicts(made: Production, verdicts: list[dict[Any, Any]]) -> None:
    """What was done about each request: every model that answered it, by hash, and what it was found to be."""
    run, campaign = made.run, made.campaign
    lost = {entry["model"]: entry for entry in campaign.unlearning.diverged()}
    events: list[tuple[str, Mapping[str, object]]] = []
    for entry in campaign.scored():
        for strategy, model in [("retrained", entry["retrained"]), *entry["strategies"].items()]:
            if strategy in entry["horizons"]:
                continue  # not what the request was answered with
            digest = w.digest(run.read_weights(model))
            found = [v for v in verdicts if (v["request"], v["strategy"]) == (entry["request"], strategy)]
            details = {
                "request": entry["request"],
                "strategy": strategy,
                "seed": entry["seed"],
                "model": digest,
            }
            answers = {key: found[0][key] if found else None for key in ("forgotten", "useful", "verdict")}
            outcome = {"diverged": lost[model]["where"] if model in lost else None, **answers}
            events.append(("request-answered", {**details, **outcome}))
    audit.append_all(run.path / audit.FILE, [*events, ("run-finished", {})])

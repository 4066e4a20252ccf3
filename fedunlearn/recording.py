"""What is written down about a run: its manifest, and the requests and answers in its audit log."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from fedunlearn import __version__, files, guests, scenario as scenarios, weights as w
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.pictures import Pictures
from fedunlearn.campaign.probing import Probing
from fedunlearn.campaign.shadows import Shadows
from fedunlearn.campaign.slices import Slices
from fedunlearn.core import Guarantee, Select
from fedunlearn.federation.engines.machines import Machine, described, notes
from fedunlearn.federation.ledger import Ledger
from fedunlearn.intake.desk import Entry
from fedunlearn.intake.policies import agenda
from fedunlearn.intake.states import history
from fedunlearn.learning.models import origin
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store
from fedunlearn.scenario import PolicyPlan, Scenario

LIBRARIES = (
    "torch",
    "flwr",
    "ray",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "monai",
    "medmnist",
    "matplotlib",
)
_ENDING = ("request-state", "request-answered", "run-finished")
"""The events of the lines that end an audit log."""
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
        pictures: what they say of images to forget.
    """

    scenario: Scenario
    cohort: Cohort
    store: Store
    ledger: Ledger
    campaign: Campaign
    shadows: Shadows
    probing: Probing
    slices: Slices
    pictures: Pictures

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return self.store.run


def manifest(made: Production, machines: Sequence[Machine], began: float) -> dict[str, Any]:
    """What a run has to say of itself, for all that reads its folder (`RunFolder.write_manifest`).

    Args:
        made: all that took part.
        machines: those that worked.
        began: when, by `time.perf_counter`.
    """
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
        "pretrained": origin(scenario.model, cohort.form),
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
            for m in chain.moments
        ],
        "floors": scenarios.floors(scenario),
        "scored": campaign.scored(),
        **(calendar(made) if scenario.calendar else {}),
        "references": campaign.references.extra(),
        "diverged": campaign.unlearning.diverged(),
        "shadows": made.shadows.summary(),
        "probes": made.probing.summary(),
        "slices": made.slices.summary(),
        "pictures": made.pictures.summary(),
        "reused": made.store.taken,
        "ends_only": [
            {"phase": of.phase, "request": of.request, "strategy": of.strategy, "seed": of.seed}
            for of in campaign.stage.curves.ends_only
        ],
        "skipped": [
            {"strategy": label, "request": request, "reason": reason}
            for label, request, reason in scenarios.skipped(scenario)
        ],
        "wall_seconds": round(time.perf_counter() - began, 3),
    }


def calendar(made: Production) -> dict[str, Any]:
    """What a run with a calendar has to say of requests, policies and looks."""
    scenario, cohort, campaign = made.scenario, made.cohort, made.campaign
    assert scenario.calendar is not None
    rounds = scenario.training.rounds
    return {
        "calendar": {
            "start": scenario.calendar.start.isoformat(),
            "days": scenario.calendar.round,
            "rounds": rounds,
            "looks": list(scenario.calendar.looked(rounds)),
            "participation": scenario.training.participation,
        },
        "docket": [_entry(entry, cohort.table) for entry in cohort.entries],
        "policies": [_policy(made, plan) for plan in scenario.policies],
        "looks": campaign.looks,
        "retrainings": sorted(
            campaign.unlearning.retrainings, key=lambda one: tuple(str(value) for value in one.values())
        ),
    }


def _entry(entry: Entry, table: pd.DataFrame) -> dict[str, Any]:
    """What was asked for, and what was decided.

    Args:
        entry: a request.
        table: (N,) one row per image, as the desk has them (`fedunlearn.intake.register`).
    """
    petition, named = entry.petition, table.iloc[list(entry.rows)]
    return {
        "id": petition.id,
        "site": petition.site,
        "kind": petition.kind,
        "received": petition.received.isoformat(),
        "state": entry.state,
        "boundary": entry.boundary,
        "reason": entry.reason,
        "sentence": entry.sentence,
        "of": entry.of,
        "patients": int(named["patient"].nunique()),
        "images": entry.images,
        "trained": int((named["split"] == "train").sum()),
    }


def _policy(made: Production, plan: PolicyPlan) -> dict[str, Any]:
    """What a policy did, and what it could not do any more."""
    scenario, stage = made.scenario, made.campaign.stage
    assert scenario.calendar is not None
    found = agenda(made.cohort.entries, scenario.calendar, plan.policy, scenario.training.rounds)
    chain = next((chain for chain in stage.chains if chain.policy == plan), None)
    plans = stage.plans(chain) if chain else []
    return {
        "label": plan.label,
        "name": plan.policy.name,
        "settings": {key: value for key, value in asdict(plan.policy).items() if key != "name"},
        "strategies": [one.label for one in plans],
        "exact": [
            one.label
            for one in plans
            if one.strategy.guarantee is Guarantee.EXACT and not guests.origin(type(one.strategy))
        ],
        "turns": [
            {
                "round": turn.round,
                "bars": list(turn.bars),
                "erases": list(turn.erases),
                "steps": [step.id for step in (chain.asking if chain else ()) if step.round == turn.round],
            }
            for turn in found.turns
        ],
        "waiting": list(found.waiting),
    }


def states(made: Production) -> Iterator[dict[str, str]]:
    """Every state of every request by each policy, with its day; of a run without a calendar none."""
    scenario, entries = made.scenario, made.cohort.entries
    if scenario.calendar is None:
        return
    for plan in scenario.policies:
        planned = agenda(entries, scenario.calendar, plan.policy, scenario.training.rounds)
        for entry in entries:
            for state, day in history(entry, planned, scenario.calendar):
                whose = {"policy": plan.label, "request": entry.petition.id}
                yield {**whose, "state": state, "date": day.isoformat()}


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


def requests(run: RunFolder, scenario: Scenario, cohort: Cohort) -> None:
    """Begin the audit log: what is run, and every request that came in."""
    events: list[tuple[str, Mapping[str, object]]] = [
        ("run-started", {"scenario": scenario.name, "data": cohort.digest})
    ]
    decided = {entry.petition.id: entry for entry in cohort.entries}
    for request in scenario.requests:
        details: dict[str, object] = {
            "request": request.id,
            "scope": "site" if request.whole_site else request.asks,
        }
        if (entry := decided.get(request.id)) is not None:
            details |= {"scope": entry.petition.kind, "date": entry.petition.received.isoformat()}
            details |= {"state": entry.state, "reason": entry.reason}
        if request.id in cohort.forgotten:
            named = cohort.table[cohort.forgotten[request.id]]
            details["patients"] = int(named["patient"].nunique())
            details["images"] = cohort.counts(Select(only=request.id, split="all"))
        events.append(("request-received", details))
    audit.append_all(run.path / audit.FILE, events)


def resumed(run: RunFolder) -> None:
    """Go on with the audit log of a run that was stopped.

    If it was stopped when only ``DONE`` was missing, the log has its end already (`verdicts`). That goes, since it will
    be written again, and no state or answer may stand there twice.
    """
    log = run.path / audit.FILE
    files.write(log, audit.extended_by(log, [("run-resumed", {})], without=_ENDING))


def verdicts(made: Production, judged: list[dict[Any, Any]]) -> None:
    """End the audit log: every model that answered a request, by hash, and what it was found to be.

    With a calendar, also what every request went through by each policy.
    """
    run, campaign = made.run, made.campaign
    lost = {entry["model"]: entry for entry in campaign.unlearning.diverged()}
    events: list[tuple[str, Mapping[str, object]]] = [("request-state", one) for one in states(made)]
    for entry in campaign.scored():
        for strategy, model in [("retrained", entry["retrained"]), *entry["strategies"].items()]:
            if strategy in entry["horizons"]:
                continue  # not what the request was answered with
            digest = w.digest(run.read_weights(model))
            found = [v for v in judged if (v["request"], v["strategy"]) == (entry["request"], strategy)]
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

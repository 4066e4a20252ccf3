"""What the tuner practises on: requests like the scenario's, of other patients or another hospital.

A strategy that was tuned on the very patients it is then judged by would look better than it is. So patients whom a
request of the scenario names take no part in a rehearsal, and a hospital that leaves in the scenario stays in all of
them. Test images are looked at by nobody: what a rehearsal judges by are validation images (`judge`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fedunlearn.campaign.cohort import Array, Cohort
from fedunlearn.core import InputError, PatientId, Problem, RequestId, SiteId, derive
from fedunlearn.scenario import Evaluation, Plan, Request, Scenario


@dataclass(frozen=True)
class Rehearsal:
    """A scenario to practise on.

    Attributes:
        scenario: the same but for its requests, each alone, and for its single training seed, which is another.
        cohort: the same hospitals; patients that the real requests name are in no part that is used.
        stands_for: by rehearsal request, the real one.
        names: of the scenario's strategies (`names`).
    """

    scenario: Scenario
    cohort: Cohort
    stands_for: Mapping[RequestId, RequestId]
    names: tuple[str, ...]


def names(plans: Sequence[Plan]) -> list[str]:
    """What to call each plan: by its label, or if that is used for other requests too, by label and requests."""
    labels = [plan.label for plan in plans]
    return [
        plan.label if labels.count(plan.label) == 1 else f"{plan.label} for {', '.join(plan.requests)}"
        for plan in plans
    ]


def rehearse(scenario: Scenario, cohort: Cohort, repeats: int, seed: int) -> Rehearsal:
    """Make up ``repeats`` requests like each of the scenario's; fewer where fewer other hospitals could leave.

    Args:
        scenario: whose requests to imitate.
        cohort: its hospitals.
        repeats: how many for each request.
        seed: draws patients.

    Raises:
        InputError: there are too few other patients, or no other hospital; all problems together.
    """
    leaving = {request.site for request in scenario.requests if request.whole_site}
    staying = [site for site in cohort.sites if site not in leaving]
    named = [_whole(cohort, cohort.forgotten[r.id]) for r in scenario.requests if not r.whole_site]
    aside = np.logical_or.reduce(named) if named else np.zeros(len(cohort.site), dtype=bool)
    split = np.where(aside, "test", cohort.split)
    requests, stands_for, problems = list[Request](), dict[RequestId, RequestId](), list[Problem]()
    for number, request in enumerate(scenario.requests):
        alike = (
            _other_hospitals(request, staying, repeats)
            if request.whole_site
            else _other_patients(request, cohort, split, repeats, seed)
        )
        if isinstance(alike, str):
            text = f"request {request.id!r} cannot be rehearsed: {alike}"
            problems.append(scenario.placed(Problem(text), f"requests.{number}"))
            continue
        requests += alike
        stands_for |= {one.id: request.id for one in alike}
    if problems:
        raise InputError(problems)
    plans = tuple(_plan(plan, stands_for) for plan in scenario.strategies)
    return Rehearsal(
        replace(
            scenario,
            name=f"{scenario.name}-rehearsal",
            seeds=(max((*scenario.seeds, *scenario.extra_seeds)) + 1,),
            references=None,
            requests=tuple(requests),
            strategies=plans,
            timeline="independent",
            evaluation=Evaluation(copies=False, curves=False),
        ),
        _cohort(cohort, split, requests),
        stands_for,
        tuple(names(scenario.strategies)),
    )


def _plan(plan: Plan, stands_for: Mapping[RequestId, RequestId]) -> Plan:
    return replace(plan, requests=tuple(new for new, real in stands_for.items() if real in plan.requests))


def _other_hospitals(request: Request, staying: Sequence[SiteId], repeats: int) -> list[Request] | str:
    if not staying:
        return "every hospital leaves in some request; leave one out to tune on"
    return [
        replace(request, id=f"{request.id}~{i + 1}", site=site) for i, site in enumerate(staying[:repeats])
    ]


def _other_patients(
    request: Request, cohort: Cohort, split: Array, repeats: int, seed: int
) -> list[Request] | str:
    """As many patients of the same hospital, or as it can spare: at most half of those that are left."""
    count = len(_trained(cohort, cohort.split, request.site, cohort.forgotten[request.id]))
    left = _trained(cohort, split, request.site)
    if len(left) < 2:
        return f"{request.site!r} trains on {len(left)} other patients, expected at least 2; name fewer"
    drawn = []
    for i in range(repeats):
        rng = np.random.default_rng(derive(seed, "rehearsal", request.id, i))
        picked = rng.choice(len(left), min(count, len(left) // 2), replace=False)
        ids = tuple(sorted(left[j] for j in picked))
        drawn.append(replace(request, id=f"{request.id}~{i + 1}", patients=ids, images=None))
    return drawn


def _whole(cohort: Cohort, mask: Array) -> Array:
    """(N,) the images at hand of all patients whom ``mask`` has some of: single images stand for their patients."""
    everything: Array = cohort.table["patient"].isin(cohort.table.loc[mask, "patient"]).to_numpy(bool)
    return everything


def _trained(cohort: Cohort, split: Array, site: SiteId, among: Array | None = None) -> list[PatientId]:
    """The patients that ``site`` trains on, sorted."""
    mask = (cohort.site == site) & (split == "train")
    return sorted(set(cohort.table.loc[mask if among is None else mask & among, "patient"]))


def _cohort(cohort: Cohort, split: Array, requests: Sequence[Request]) -> Cohort:
    """The same hospitals with another split and other requests."""
    forgotten = {
        request.id: cohort.site == request.site
        if request.patients is None
        else cohort.table["patient"].isin(list(request.patients)).to_numpy(bool)  # type: ignore[arg-type]  # ids by now
        for request in requests
    }
    asked = [[name for name, mask in forgotten.items() if mask[row]] for row in range(len(split))]
    table = cohort.table.assign(split=split, forgotten_by=pd.Series(asked, index=cohort.table.index))
    return replace(cohort, split=split, forgotten=forgotten, table=table)

"""How each policy and strategy goes through the year: quality, memory, distance and cost, look by look."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from fedunlearn.scoring.evidence.anew import Anew
from fedunlearn.scoring.evidence.reading import Run
from fedunlearn.scoring.evidence.year import Look, Policy, Year
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.years import memory
from fedunlearn.scoring.years.answers import answers, dates, waited
from fedunlearn.scoring.years.models import Seen

COLUMNS = ("policy", "strategy", "seed", "round", "date", "measure", "value")
RELEASE = "release"
"""The policy under which a model is not to be used while an accepted request waits."""
REFERENCES = ("original", "retrained")


def table(run: Run, year: Year, seen: Mapping[str, Seen | None], recalled: pd.DataFrame) -> pd.DataFrame:
    """The content of ``years.parquet``: a row for every walk, seed, look and measure.

    References have no policy (it is empty), as they are the same for all.

    Args:
        run: the folder.
        year: its year.
        seen: what the models in hand show.
        recalled: ``memory.parquet``.
    """
    rows = list[tuple[object, ...]]()
    told = set[tuple[str, int, int]]()
    policies = {policy.label: policy for policy in year.policies}
    walks = {key: of for key, of in recalled.groupby(["policy", "strategy", "seed"], sort=False)}
    nobody = recalled.iloc[:0]
    cost = _Costs(run, year)
    for look in year.looks:
        for name, model in (("original", look.original), ("retrained", look.retrained)):
            if (name, look.round, look.seed) not in told:
                told.add((name, look.round, look.seed))
                found = _shown(run.kind, seen[model])
                if name == "retrained":
                    found["images"] = cost.anew(look.seed, look.round)
                rows += [("", name, look.seed, look.round, *one) for one in found.items()]
        for strategy, model in look.strategies.items():
            own = walks.get((look.policy, strategy, look.seed), nobody)
            found = _shown(run.kind, seen[model])
            found["distance"] = look.distances.get(strategy, math.nan)
            found |= _memory(own, look.round)
            found |= _waiting(year, policies[look.policy], look)
            found |= cost.of(policies[look.policy], strategy, look)
            rows += [(look.policy, strategy, look.seed, look.round, *one) for one in found.items()]
    made = pd.DataFrame(rows, columns=[c for c in COLUMNS if c != "date"])
    made["date"] = dates(year.day(boundary) for boundary in made["round"])
    return made[list(COLUMNS)].astype({"seed": "int64", "round": "int64", "value": "float64"})


def _shown(kind: str, one: Seen | None) -> dict[str, float]:
    """What a model is like; NaN of one that diverged."""
    found = (math.nan,) * 3 if one is None else (one.quality, one.worst, one.calibration)
    of = scored(kind)
    names = (of.tested, of.worst_site, "calibration_error")
    return {n: x for n, x in zip(names, found, strict=True) if of.calibration is not None or n != names[2]}


def _memory(rows: pd.DataFrame, boundary: int) -> dict[str, float]:
    """Of all requests unlearned by then, in one seed."""
    left = memory.pooled(rows[rows["round"] == boundary], interval=False)
    back = memory.back(rows[rows["round"] <= boundary], boundary, interval=False)
    return {"memory_left": left.value, "memory_back": back.value}


def _waiting(year: Year, policy: Policy, look: Look) -> dict[str, float]:
    days = float(waited(answers(year, policy), year.day(look.round)))
    return {"waiting_days": days, "blocked_days": days if policy.name == RELEASE else 0.0}


class _Costs:
    """What answering has cost, as the ledger observed it, and what training anew for each answer would have.

    Args:
        run: the folder.
        year: its year.
    """

    def __init__(self, run: Run, year: Year) -> None:
        self._run = run
        ledger = run.ledger
        unlearn = ledger[ledger["phase"] == "unlearn"]
        self._walks = {key: of for key, of in unlearn.groupby(["strategy", "seed"], sort=False)}
        self._anew = Anew(run, year)

    def of(self, policy: Policy, strategy: str, look: Look) -> dict[str, float]:
        """Of a walk, up to a look."""
        steps = [step for turn in policy.turns if turn.round <= look.round for step in turn.steps]
        rows = self._walks.get((strategy, look.seed))
        rows = self._run.ledger.iloc[:0] if rows is None else rows[rows["request"].isin(steps)]
        images, anew = float(rows["images"].sum()), self.anew(look.seed, look.round)
        return {
            "site_seconds": float(rows["site_seconds"].sum()),
            "bytes": float(rows["down_bytes"].sum() + rows["up_bytes"].sum()),
            "images": images,
            "share_of_retraining": images / anew if anew > 0 else math.nan,
            "stored_bytes": float(rows["stored_bytes"].max()) if len(rows) else 0.0,
        }

    def anew(self, seed: int, until: int) -> float:
        """See `Anew.images`."""
        return self._anew.images(seed, until)

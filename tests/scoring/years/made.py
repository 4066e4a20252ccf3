"""A made-up run folder of a year of requests, as the campaign leaves it; what its models remember is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.score import score
from tests.scoring.made import SITES, ledger_row

SEEDS = (7, 8)
START, DAYS, ROUNDS = "2026-01-01", 7, 16
LOOKS = (4, 8, 12, 16)
DOCKET: tuple[tuple[str, str, str, str, str, int | None, str, tuple[str, ...]], ...] = (
    # id, site, kind, received, state, boundary, reason, patients
    ("r1", "north", "patients", "2026-01-10", "accepted", 2, "", ("north-000",)),
    ("r2", "east", "patients", "2026-01-20", "accepted", 3, "", ("east-000", "east-001")),
    ("r3", "north", "patients", "2026-01-22", "refused", 3, "duplicate", ()),
    ("r4", "east", "images", "2026-02-20", "accepted", 8, "", ("east-002",)),
    ("r5", "north", "opt_out", "2026-03-01", "accepted", 9, "", ("north-001",)),
    ("r6", "west", "whole_site", "2026-03-30", "accepted", 13, "", ("west-*",)),
    ("r7", "north", "patients", "2026-04-22", "open", None, "", ()),
)
"""The last day is 2026-04-23."""
SENTENCES = {"duplicate": "r3 asks for what r1 asked for: north-000"}
POLICIES: Mapping[str, tuple[str, tuple[str, ...], Mapping[int, tuple[str, ...]]]] = {
    # label: name, strategies, which are unlearned at which boundary
    "at_once": ("at_once", ("thorough", "lazy"), {2: ("r1",), 3: ("r2",), 8: ("r4",), 13: ("r6",)}),
    "batch-60d": ("batch", ("thorough", "lazy"), {9: ("r1", "r2", "r4")}),
}
WORK: Mapping[str, int] = {"thorough": 40, "lazy": 5}
"""Images of each round of unlearning; a round of training takes 100."""
LEFT: Mapping[str, tuple[float, float]] = {"thorough": (0.0, 0.0), "lazy": (0.5, 0.75)}
"""By strategy, the share of what is known that is left at a request's first look, and at the end."""
KNOWN = 3.0
"""By how much the original is surer of images of its patients than the model that never saw them."""


def images(patients: int = 10) -> pd.DataFrame:
    """``patients`` at each of three hospitals, 4 images each, split 50/10/40 by patient."""
    rows = []
    for s, site in enumerate(SITES):
        for p in range(patients):
            split = "train" if p < 0.5 * patients else "val" if p < 0.6 * patients else "test"
            patient = f"{site}-{p:03}"
            asked = [e[0] for e in DOCKET if e[4] == "accepted" and _names(e[7], patient)]
            for i in range(4):
                own = [one for one in asked if one != "r4" or i < 2]  # single images
                whole = ["all-requests"] if any(one != "r5" for one in own) else []
                rows.append((f"{patient}-{i}", patient, site, split, (s + p + i) % 2, [*own, *whole]))
    return pd.DataFrame(rows, columns=["image", "patient", "site", "split", "label", "forgotten_by"])


def _names(whom: tuple[str, ...], patient: str) -> bool:
    return any(patient == one or (one.endswith("*") and patient.startswith(one[:-1])) for one in whom)


def margins(table: pd.DataFrame, memory: Mapping[str, float], luck: float, seed: int) -> pd.DataFrame:
    """Scores of two classes: the true one leads by 1, by as much more as ``memory`` says of a request's images.

    An image is as hard for one model as for another, up to ``luck`` of the model's own.
    """
    hard = 0.5 * np.random.default_rng(0).normal(size=len(table))
    lead = 1 + hard + luck * np.random.default_rng(seed).normal(size=len(table))
    train = (table["split"] == "train").to_numpy()
    for request, more in memory.items():
        lead[train & np.array([request in names for names in table["forgotten_by"]])] += more
    scores = np.zeros((len(table), 2))
    scores[np.arange(len(table)), table["label"]] = lead
    return pd.DataFrame(scores, columns=["logits_0", "logits_1"])


def year(
    folder: Path, seeds: tuple[int, ...] = SEEDS, luck: float = 0.1, known: float = KNOWN, scored: bool = True
) -> RunFolder:
    """The folder of a finished run.

    Args:
        folder: where.
        seeds: of trainings.
        luck: of every model.
        known: see `KNOWN`.
        scored: whether it is.
    """
    (folder / "signals").mkdir(parents=True)
    table, ledger = images(), list[dict[str, Any]]()
    asked = [entry[0] for entry in DOCKET if entry[4] == "accepted" and entry[2] != "opt_out"]
    looks, comparisons = [], []
    for seed in seeds:
        ledger += [ledger_row("original", "", "original", seed, r) for r in range(ROUNDS)]
        for look in LOOKS:  # it goes from look to look
            part = "all-requests" if look == ROUNDS else f"all-requests@{look}"
            ledger += [ledger_row("retrained", part, "retrained", seed, r) for r in range(4)]
        for boundary in LOOKS:
            for name, memory in (("original", dict.fromkeys(asked, known)), ("never", {})):
                _signals(folder, f"{name}-{boundary}-{seed}", table, memory, luck, 100 * seed + boundary)
        for label, (_, strategies, turns) in POLICIES.items():
            ledger += _ledger(label, strategies, turns, seed)
            for boundary in LOOKS:
                for strategy in strategies:
                    name = f"{label}-{strategy}-{boundary}-{seed}"
                    memory = _memory(strategy, turns, asked, boundary, known)
                    _signals(folder, name, table, memory, luck, hash_of(name))
                looks.append(_look(label, strategies, boundary, seed))
            last = looks[-1]
            comparisons.append(
                {
                    **{key: last[key] for key in ("seed", "original", "retrained", "strategies")},
                    "request": label,
                }
            )
    table.to_parquet(folder / "sites.parquet", index=False)
    pd.DataFrame(ledger).to_parquet(folder / "ledger.parquet", index=False)
    run = RunFolder(folder)
    audit.append(folder / audit.FILE, "run-started", {})
    (folder / "scenario.yaml").write_text(f"name: year\nseeds: {list(seeds)}\n", encoding="utf-8")
    run.write_manifest({**_manifest(seeds), "scored": comparisons, "looks": looks})
    if scored:
        score(folder)
        run.write_manifest(run.read_manifest())
    (folder / "DONE").touch()
    return run


def hash_of(name: str) -> int:
    """A seed."""
    return int.from_bytes(name.encode()[-8:], "little") % 2**32


def _signals(
    folder: Path, name: str, table: pd.DataFrame, memory: Mapping[str, float], luck: float, seed: int
) -> None:
    margins(table, memory, luck, seed).to_parquet(folder / "signals" / f"{name}.parquet", index=False)


def _memory(
    strategy: str, turns: Mapping[int, tuple[str, ...]], asked: list[str], boundary: int, known: float
) -> dict[str, float]:
    """What is known of each request: all until it is unlearned, then `LEFT` at the first look and afterwards."""
    found = dict.fromkeys(asked, known)
    for turn, requests in turns.items():
        if turn <= boundary:
            first = min(look for look in LOOKS if look >= turn)
            share = LEFT[strategy][0 if boundary == first else 1]
            found |= dict.fromkeys(requests, share * known)
    return found


def _look(label: str, strategies: tuple[str, ...], boundary: int, seed: int) -> dict[str, Any]:
    models = {strategy: f"{label}-{strategy}-{boundary}-{seed}" for strategy in strategies}
    references = {"original": f"original-{boundary}-{seed}", "retrained": f"never-{boundary}-{seed}"}
    distances = {strategy: 0.1 * boundary for strategy in strategies}
    key = {"policy": label, "round": boundary, "seed": seed}
    return {**key, **references, "strategies": models, "distances": distances}


def _ledger(
    label: str, strategies: tuple[str, ...], turns: Mapping[int, tuple[str, ...]], seed: int
) -> list[dict[str, Any]]:
    rows = [
        ledger_row("unlearn", f"{label}@{turn}", strategy, seed, 0, images=WORK[strategy], site_seconds=1.5)
        for strategy in strategies
        for turn in turns
    ]
    return rows


def _manifest(seeds: tuple[int, ...]) -> dict[str, Any]:
    policies = [
        {
            "label": label,
            "name": name,
            "settings": {},
            "strategies": list(strategies),
            "turns": _turns(label, turns),
            "waiting": [] if label == "at_once" else ["r6"],
        }
        for label, (name, strategies, turns) in POLICIES.items()
    ]
    docket = [
        {
            "id": id,
            "site": site,
            "kind": kind,
            "received": received,
            "state": state,
            "boundary": boundary,
            "reason": reason,
            "sentence": SENTENCES.get(reason, ""),
            "of": "r1" if reason == "duplicate" else "",
            "patients": len(patients),
            "images": 4 * len(patients),
            "trained": 4 * len(patients),
        }
        for id, site, kind, received, state, boundary, reason, patients in DOCKET
    ]
    return {
        "name": "year",
        "kind": "classification",
        "classes": 2,
        "names": [],
        "seeds": list(seeds),
        "fedunlearn": "0.1.0",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "platform": "Linux x86_64",
        "machines": [{"host": "here", "processor": "a processor", "cpu": "AVX2", "tasks": 12}],
        "machine_notes": [],
        "data": {"note": "Made up.", "notes": [], "digest": "d1" * 32},
        "requests": [{"id": e[0], "site": e[1], "whole_site": e[2] == "whole_site"} for e in DOCKET],
        "moments": [_moment(label) for label in POLICIES],
        "skipped": [],
        "diverged": [],
        "wall_seconds": 61.25,
        "calendar": {"start": START, "days": DAYS, "rounds": ROUNDS, "looks": list(LOOKS)},
        "docket": docket,
        "policies": policies,
        "retrainings": [],
    }


def _turns(label: str, turns: Mapping[int, tuple[str, ...]]) -> list[dict[str, Any]]:
    accepted = [(e[5] or 0, e[0]) for e in DOCKET if e[4] == "accepted"]
    bars = {boundary: [id for at, id in accepted if at == boundary] for boundary, _ in accepted}
    return [
        {
            "round": boundary,
            "bars": bars.get(boundary, []),
            "erases": list(turns.get(boundary, ())),
            "steps": [f"{label}@{boundary}"] if boundary in turns else [],
        }
        for boundary in sorted({*bars, *turns})
    ]


def _moment(label: str) -> dict[str, Any]:
    about = {"forgets": "all-requests", "earlier": [], "round": ROUNDS, "warnings": []}
    return {"id": label, "summary": "forget all 4 accepted requests", **about}

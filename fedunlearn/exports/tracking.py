"""A run as what experiment trackers know: runs with parameters, metrics at steps and tags, one below the other.

A run folder is a run; below it stands one for every request and strategy, with the two answers as tags and means over
seeds as metrics; below these one for every seed, with its own metrics and its curves by round.

Who reads a tracker may not be allowed to read the run folder. So no patient is named, and no file, folder or machine:
only counts are. `report.html`, which names them, stays where it is, and so does a scenario that does.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fedunlearn.core import RunError
from fedunlearn.exports.holdings import note
from fedunlearn.exports.papers import tidy
from fedunlearn.exports.settings import NAMING, flat, is_path, settings, shared
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import limits
from fedunlearn.results.wording import line
from fedunlearn.scoring.kinds import qualities

LONGEST_NAME, LONGEST_VALUE = 200, 500
"""Letters that the strictest of the trackers' versions take, of names and of values."""
ATTACHED = "scenario.yaml"
"""The file of a run folder that comes along, unless it lists patients by id, or names files or folders."""
_GROUPS = ("site=", "class=")


@dataclass(frozen=True)
class Metric:
    """A number.

    Attributes:
        name: what of; letters, digits and ``_-./ `` only.
        value: never NaN.
        step: which of a curve's models in hand it is of; 0 where it is of no curve.
    """

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Tracked:
    """A run of a tracker.

    Attributes:
        id: 32 hexadecimal digits, the same whenever the same run folder is given away.
        name: for people.
        parent: the id of the run that it stands below; empty of the one that stands for a run folder.
        started, ended: milliseconds since 1970.
        parameters, tags: by name.
        metrics: numbers.
        files: what comes along.
    """

    id: str
    name: str
    parent: str
    started: int
    ended: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """All that is to be seen of a run folder, under its scenario's name; parents before those below them."""

    name: str
    runs: tuple[Tracked, ...]


def tracked(run: RunFolder) -> Experiment:
    """What a run folder comes to.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing or damaged.
    """
    manifest = run.read_manifest()
    name = line(manifest["name"])[:LONGEST_NAME]
    return Experiment(name, tuple(_runs(run, manifest, tidy(run))))


def _runs(run: RunFolder, manifest: Mapping[str, Any], table: pd.DataFrame) -> Iterator[Tracked]:
    scores = run.read_table("scores.parquet")
    curves = run.read_table("curves.parquet") if "curves.parquet" in manifest["sha256"] else pd.DataFrame()
    started, ended = _times(run, manifest)
    whole = _whole(run, manifest, started, ended)
    yield whole
    known, moments = settings(run), {moment["id"]: moment for moment in manifest["moments"]}
    for row in table.to_dict("records"):
        request, strategy = str(row["request"]), str(row["strategy"])
        told = {"fedunlearn.request": request, "fedunlearn.strategy": strategy}
        own = Tracked(
            _id(whole.id, request, strategy),
            _shown(f"{request}: {strategy}"),
            whole.id,
            started,
            ended,
            _parameters(known.of(strategy, moments[request]["forgets"]), told),
            _tags(
                {
                    **told,
                    "fedunlearn.role": row["role"],
                    "fedunlearn.forgotten": row["forgotten"],
                    "fedunlearn.still_good": row["useful"],
                    "fedunlearn.best": "yes" if row["best"] else "",
                }
            ),
            _metrics({name: value for name, value in row.items() if isinstance(value, int | float)}),
        )
        yield own
        mine = scores[(scores["request"] == row["request"]) & (scores["strategy"] == row["strategy"])]
        for seed, one in mine.groupby("seed"):
            yield Tracked(
                _id(own.id, str(seed)),
                _shown(f"{request}: {strategy}, seed {seed}"),
                own.id,
                started,
                ended,
                own.parameters,
                _tags({**told, "fedunlearn.seed": seed, "fedunlearn.role": row["role"]}),
                (*_by_group(one), *_by_round(curves, moments[request], strategy, seed)),
            )


def _whole(run: RunFolder, manifest: Mapping[str, Any], started: int, ended: int) -> Tracked:
    """A run folder: its settings, what determined its bits, and what none of it can say."""
    known = settings(run)
    named = any(isinstance(request.get(key), list) for request in known.requests for key in NAMING)
    named |= any(
        is_path(key, value)
        for part in (known.rest, *known.strategies.values())
        for key, value in flat(part).items()
    )
    return Tracked(
        # However often it is judged anew, it is the same run.
        id=_id(str(manifest["sha256"].get("scenario.yaml")), str(started)),
        name=_shown(run.path.resolve().name),
        parent="",
        started=started,
        ended=ended,
        parameters=_parameters(known.rest, {}),
        tags=_tags(
            {
                "fedunlearn.version": manifest["fedunlearn"],
                **{f"version.{name}": version for name, version in manifest["versions"].items()},
                "fedunlearn.data": note(run),
                "fedunlearn.data_digest": manifest["data"]["digest"],
                "fedunlearn.seeds": ", ".join(map(str, manifest["seeds"])),
                "mlflow.note.content": limits(manifest.get("probes", {}).get("names", ())),
            }
        ),
        metrics=_metrics({"wall_seconds": float(manifest["wall_seconds"])}),
        files=() if named else (run.path / ATTACHED,),
    )


def _times(run: RunFolder, manifest: Mapping[str, Any]) -> tuple[int, int]:
    """When it was finished, as its folder says, and so many seconds before."""
    try:
        ended = int(1000 * (run.path / "DONE").stat().st_mtime)
    except OSError as error:
        raise RunError(f"cannot read {run.path / 'DONE'}: {error.strerror}") from error
    for text in (run.path / "audit.jsonl").read_text("utf-8").splitlines()[:1] if _audited(run) else ():
        if found := re.search(r'"time_utc": "([^"]+)"', text):
            started = int(1000 * datetime.fromisoformat(found[1]).timestamp())
            return started, max(started, started + int(1000 * manifest["wall_seconds"]))
    return ended - int(1000 * manifest["wall_seconds"]), ended


def _audited(run: RunFolder) -> bool:
    return (run.path / "audit.jsonl").is_file()


# ------------------------------------------------------------------------------------- names and numbers


def _by_group(one: pd.DataFrame) -> Iterator[Metric]:
    """All measures of one model, of everybody; of hospitals and classes what answers rest on, ``measure.site.NAME``."""
    looked_at = one["group"].str.startswith(_GROUPS) & one["measure"].isin(qualities("test"))
    for row in one[(one["group"] == "all") | looked_at].to_dict("records"):
        group = "" if row["group"] == "all" else f".{str(row['group']).replace('=', '.', 1)}"
        yield from _metrics({f"{row['measure']}{group}": row["value"]})


def _by_round(
    curves: pd.DataFrame, moment: Mapping[str, Any], strategy: str, seed: object
) -> Iterator[Metric]:
    """``curve.PART.MEASURE`` at each of its models in hand up to a moment; a round can have several."""
    if curves.empty:
        return
    own = curves[
        (curves["request"] == moment["forgets"]) & (curves["strategy"] == strategy) & (curves["seed"] == seed)
    ]
    if moment["id"] != moment["forgets"]:  # right after unlearning, in the middle of training
        trained = own["after"] + own["round"] <= moment["round"]
        own = own[(own["phase"] != "continue") & (trained | (own["phase"] == "unlearn"))]
    # Training that goes on afterwards counts its steps anew: they come after those before it.
    later = own["phase"] == "continue"
    before = own.loc[~later, "step"].max() + 1 if later.any() and not later.all() else 0
    own = own.assign(step=own["step"] + later * before).sort_values("step")
    for row in own.to_dict("records"):
        yield from _metrics({f"curve.{row['part']}.{row['measure']}": row["value"]}, int(row["step"]))


def _metrics(values: Mapping[Any, Any], step: int = 0) -> tuple[Metric, ...]:
    """Those that are known, each under a name that trackers take."""
    named = ((_named(str(name)), float(value)) for name, value in values.items())
    return tuple(Metric(name, value, step) for name, value in named if math.isfinite(value))


def _parameters(nested: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, str]:
    every = {**{key: str(value) for key, value in shared(nested).items()}, **more}
    return {_named(key): _shown(value) for key, value in every.items()}


def _tags(values: Mapping[str, object]) -> dict[str, str]:
    """Without those that say nothing, or are not known."""
    return {
        _named(key): line(value)[:5000]
        for key, value in values.items()
        if not (value is None or value == "" or (isinstance(value, float) and math.isnan(value)))
    }


def _named(name: str) -> str:
    """A name that every tracker takes, and no path: what is no letter, digit or ``_-. `` is a ``_``."""
    kept = re.sub(r"[^A-Za-z0-9_\-. ]", "_", name)
    if kept == name and len(name) <= LONGEST_NAME and not kept.startswith("."):
        return kept
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]  # two names stay two
    return f"{kept.lstrip('.')[: LONGEST_NAME - 9]}-{mark}"


def _shown(text: str) -> str:
    whole = line(text)
    return whole if len(whole) <= LONGEST_VALUE else f"{whole[: LONGEST_VALUE - 1]}…"


def _id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]

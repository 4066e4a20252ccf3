"""What a request's judgements come to, as values: whether the run can tell, and its strategies, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from scipy.special import stdtrit  # Student's; scipy.stats would take half a second to import

from fedunlearn.core import InputError
from fedunlearn.results.classes import reasons
from fedunlearn.scoring.judgement.bias import LEVEL
from fedunlearn.scoring.judgement.difference import CONTROLS
from fedunlearn.scoring.kinds import scored

FILES = ("scores", "verdicts", "statistics", "patients", "requests", "bias")
FORGOTTEN = {"yes": 0, "yes, but": 1, "cannot tell": 2, "partly": 3, "no": 4, "too much": 4}
"""The answers to "forgotten?", and which comes first."""
USEFUL = {"yes": 0, "cannot tell": 1, "worse": 2}
"""The answers to "still good?", and which comes first."""


WHOLE = 1.0
"""As much as two shares can differ: who knows one to so much knows nothing of it."""
_SHOWN = ("mia_loss_auc", "share_of_retraining", "images")
"""The measures of `scores.parquet` that an overview has."""


class Source(Protocol):
    """Where tables come from: a run folder, or what holds its tables."""

    @property
    def path(self) -> Path:
        """The run folder."""
        ...

    def read_table(self, name: str) -> pd.DataFrame:
        """A Parquet file of the run."""
        ...

    def read_manifest(self) -> dict[str, Any]:
        """What the run says of itself."""
        ...


@dataclass(frozen=True)
class Value:
    """A number and half of its 95 % interval; NaN where unknown."""

    value: float = math.nan
    half: float = math.nan


@dataclass(frozen=True)
class Place:
    """Where it is worst, and how far from retraining it is there; no name where nothing is known."""

    name: str = ""
    value: float = math.nan


@dataclass(frozen=True)
class Row:
    """One strategy, or a control, at one request.

    Attributes:
        strategy: its label.
        forgotten, useful: the two answers.
        left: the memory left in the mean over patients, a share of what the original knew.
        known, overdone: the patients flagged as still known, and as known less than by retraining.
        compared: how many patients were looked at.
        test: the difference from retraining on unseen images.
        site, group: the hospital, and the class or structure, that lost most.
        cost: the work, a share of retraining's: passes of images through networks.
        work: passes of one image through a network, in the mean over seeds.
        p: of "as much as twice the margin is left", after Holm's correction over strategies.
        reasons, uses: why it was forgotten or not, and why it is still good or not.
    """

    strategy: str
    forgotten: str
    useful: str
    left: Value
    known: tuple[str, ...]
    overdone: tuple[str, ...]
    compared: int
    test: Value
    site: Place
    group: Place
    cost: float
    work: float
    p: float
    reasons: tuple[str, ...]
    uses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overview:
    """One request, at one moment.

    Attributes:
        title: its id and what it asks for.
        kind: of task.
        seeds, references: how many models of each strategy there are, and retrained ones.
        patients: those who can be compared with anybody, and all of the request.
        visible: whether the original's memory of them can be seen.
        smallest: the smallest memory left that would be seen in 8 of 10 such runs.
        one_patient: the chance that one patient remembered whole would be seen.
        unusual: seeds whose retrained model differs from the others more than usual.
        original, retrained: MIA AUC.
        margins: what is declared, by "memory", "over", "all", "site" and "class".
        known_to: half of the 95 % interval of a strategy's loss, the median over strategies: of "all", and of the
            hospital ("site") and the class for which it is widest.
        rows: the strategies, best first.
        floors: those among them that others must do better than, for their cost (`fedunlearn.results.floors`).
        nothing, again, broken: doing nothing; retraining again, None with one seed; a model that is certainly broken.
        unequal: findings of groups treated unequally by strategies.
        skipped: (strategy, reason) of those that were not run.
        warnings: what makes it impossible to forget, or to tell, whatever the strategy; sentences.
        classes: names of the classes or structures, in order; empty where the data has none.
        policy: whether it is what a policy came to over a year, so that costs are compared with training anew for each
            request.
    """

    title: str
    kind: str
    seeds: int
    references: int
    patients: tuple[int, int]
    visible: bool
    smallest: float
    one_patient: float
    unusual: tuple[int, ...]
    original: float
    retrained: float
    margins: Mapping[str, float]
    known_to: Mapping[str, float]
    rows: tuple[Row, ...]
    floors: tuple[str, ...]
    nothing: Row | None
    again: Row | None
    broken: Row | None
    unequal: int
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    policy: bool = False

    @property
    def tells(self) -> bool:
        """Whether anything can be said of memory at all: some is seen, of somebody, in more than one training."""
        return self.seeds > 1 and self.visible and self.patients[0] > 0


def require_judged(run: Source) -> None:
    """Make sure that a run was judged as it would be now.

    Raises:
        InputError: it was judged by an older version.
    """
    known = run.read_manifest()["sha256"]
    if "requests.parquet" not in known or "forgotten" not in run.read_table("verdicts.parquet"):
        raise InputError(
            f"{run.path} was judged by an older version, which had one answer where there are two now: run "
            f"`fedunlearn score {run.path}` to judge it anew; nothing is trained again"
        )


def read(run: Source) -> dict[str, pd.DataFrame]:
    """The tables that overviews are made of, by name.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a table is missing or damaged.
    """
    require_judged(run)
    return {name: run.read_table(f"{name}.parquet") for name in FILES}


def overview(
    tables: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any], moment: Mapping[str, Any]
) -> Overview:
    """What is known of one of a manifest's ``moments``."""
    own = {name: table[table["request"] == moment["id"]] for name, table in tables.items()}
    own["scores"] = own["scores"][own["scores"]["measure"].isin(_SHOWN)]  # few of many, each looked up often
    (known,) = own["requests"].to_dict("records")
    scores, statistics, quality = own["scores"], own["statistics"], scored(manifest["kind"]).tested
    whom = statistics.loc[statistics["measure"].str.startswith("forget_"), "patients"]
    rows = {one["strategy"]: _row(own, one, quality, manifest) for one in own["verdicts"].to_dict("records")}
    bias = own["bias"]
    found = bias[(bias["p_holm"] < LEVEL) & ~bias["strategy"].isin(CONTROLS)]
    return Overview(
        title=f"{moment['id']}: {asked(moment, manifest)}",
        kind=manifest["kind"],
        seeds=int(known["seeds"]),
        references=int(known["references"]),
        patients=(int(known["patients"]), max([int(known["patients"]), *whom.astype(int)])),
        visible=bool(known["visible"]),
        smallest=float(known["smallest"]),
        one_patient=float(known["one_patient"]),
        unusual=tuple(int(seed) for seed in known["unusual"]),
        original=_mean(scores, "original", "mia_loss_auc"),
        retrained=_mean(scores, "retrained", "mia_loss_auc"),
        margins=_margins(statistics, quality, manifest),
        known_to=_known_to(statistics[statistics["measure"] == quality]),
        rows=tuple(sorted((r for name, r in rows.items() if name not in CONTROLS), key=_rank)),
        floors=tuple(name for name in manifest.get("floors", ()) if name in rows),
        nothing=rows.get("original"),
        again=rows.get("retrained_other"),
        broken=rows.get("damaged"),
        unequal=len(found[["measure", "attribute", "groups"]].drop_duplicates()),
        skipped=tuple(
            (one["strategy"], one["reason"])
            for one in manifest.get("skipped", ())
            if one["request"] == moment["forgets"]
        ),
        warnings=tuple(moment.get("warnings", ())),
        classes=tuple(map(str, manifest.get("names", ()))),
        policy=is_policy(manifest, moment["id"]),
    )


def asked(moment: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """What a request asks for; of one in the middle of training also at which of its two moments models are seen.

    A policy of a year is a request for all that was accepted, seen when the year ends.
    """
    if is_policy(manifest, moment["id"]):
        return f"{moment['summary']}; models when the year ends{_waiting(manifest, moment['id'])}"
    others = [one["id"] for one in manifest["moments"] if one["forgets"] == moment["forgets"] != one["id"]]
    if moment["id"] in others:
        return f"{moment['summary']}; models right after unlearning"
    return f"{moment['summary']}; models at the end of training" if others else str(moment["summary"])


def _waiting(manifest: Mapping[str, Any], label: str) -> str:
    """How many of a policy's requests were not unlearned by then, and which; empty if all were."""
    policy = next(one for one in manifest["policies"] if one["label"] == label)
    left = [str(id) for id in policy["waiting"]]
    if not left:
        return ""
    count = len(left) + sum(len(turn["erases"]) for turn in policy["turns"])
    which = ", ".join([*left[:_FEW], *(["…"] if len(left) > _FEW else [])])
    verb = "waits" if len(left) == 1 else "wait"
    return f", while {len(left)} of {count} requests still {verb} to be unlearned ({which})"


_FEW = 5
"""Requests that wait, of which a title names the first."""


def is_policy(manifest: Mapping[str, Any], request: str) -> bool:
    """Whether a request as scored is what a policy came to over a year."""
    return any(one["label"] == request for one in manifest.get("policies", ()))


def _row(
    own: Mapping[str, pd.DataFrame], verdict: Mapping[str, Any], quality: str, manifest: Mapping[str, Any]
) -> Row:
    strategy = verdict["strategy"]
    statistics, patients = (own[n][own[n]["strategy"] == strategy] for n in ("statistics", "patients"))
    memory = statistics[statistics["measure"] == "memory_left"].to_dict("records")
    good = statistics[statistics["measure"] == quality]
    return Row(
        strategy=strategy,
        forgotten=verdict["forgotten"],
        useful=verdict["useful"],
        left=_value(memory),
        known=_flagged(patients, "remembered"),
        overdone=_flagged(patients, "overdone"),
        compared=patients["patient"].nunique(),
        test=_within(_value(good[good["group"] == "all"].to_dict("records"))),
        site=_worst(good, "site"),
        group=_worst(good, "class"),
        cost=_mean(own["scores"], strategy, "share_of_retraining"),
        work=_mean(own["scores"], strategy, "images"),
        p=float(memory[0]["p_holm_equivalent"]) if memory else math.nan,
        reasons=_about(verdict, "forgotten", manifest),
        uses=_about(verdict, "useful", manifest),
    )


def _about(verdict: Mapping[str, Any], answer: str, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The reasons for an answer."""
    both = zip(reasons(verdict["reasons"], manifest), verdict["about"], strict=True)
    return tuple(text for text, about in both if about == answer)


def _value(records: list[dict[Any, Any]]) -> Value:
    """Of at most one row of `statistics.parquet`."""
    if not records:
        return Value()
    (one,) = records
    return Value(float(one["difference"]), float(one["high"]) - float(one["difference"]))


def _within(share: Value) -> Value:
    """No further from the truth than shares, such as accuracy and Dice, can differ."""
    return Value(share.value, min(share.half, WHOLE))


def _worst(good: pd.DataFrame, attribute: str) -> Place:
    groups = good[good["group"].str.startswith(f"{attribute}=")].dropna(subset="difference")
    each = [(float(one["difference"]), str(one["group"])) for one in groups.to_dict("records")]
    if not each:
        return Place()
    value, group = min(each)
    return Place(group.partition("=")[2], value)


def _flagged(patients: pd.DataFrame, flag: str) -> tuple[str, ...]:
    """Whoever is, on exact images or on changed copies, the most striking first."""
    found = patients[patients["flagged"] == flag].sort_values("memory_left", ascending=flag == "overdone")
    return tuple(dict.fromkeys(map(str, found["patient"])))


def over_seeds(values: pd.Series) -> Value:
    """The mean and half of its 95 % interval, by Student's t: what luck among seeds leaves; infinite of one seed.

    A seed that diverged leaves no mean.
    """
    mean, count = float(values.mean(skipna=False)), len(values)
    if count < 2:
        return Value(mean, math.inf)
    half = stdtrit(count - 1, 0.975) * values.std(skipna=False) / math.sqrt(count)
    return Value(mean, float(half))


def _mean(scores: pd.DataFrame, strategy: str, measure: str) -> float:
    named = (scores["strategy"] == strategy) & (scores["measure"] == measure) & (scores["group"] == "all")
    return float(scores.loc[named, "value"].mean(skipna=False)) if named.any() else math.nan


def _margins(statistics: pd.DataFrame, quality: str, manifest: Mapping[str, Any]) -> dict[str, float]:
    """The margins of memory and of quality, as they stand beside the differences."""
    over = manifest.get("verdict", {}).get("margins", {}).get("patients_over", 0)
    memory = statistics.loc[statistics["measure"] == "memory_left", "margin"]
    good = statistics[statistics["measure"] == quality]
    found = {"over": over, "memory": memory.max(), **_largest(good.set_index("group")["margin"])}
    return {str(name): float(value) for name, value in found.items() if math.isfinite(value)}


def _known_to(good: pd.DataFrame) -> dict[str, float]:
    """See `Overview`; where there are no strategies, of retraining again."""
    strategies = good[~good["strategy"].isin(CONTROLS)]
    some = good[good["strategy"] == "retrained_other"] if strategies.empty else strategies
    half = (some["high"] - some["difference"]).groupby(some["group"]).median().dropna().clip(upper=WHOLE)
    return _largest(half)


def _largest(values: pd.Series) -> dict[str, float]:
    """By attribute, the largest of its groups' values."""
    found: dict[str, float] = {}
    for group, value in values.items():
        attribute = str(group).partition("=")[0]
        found[attribute] = max(float(value), found.get(attribute, -math.inf))
    return found


def _rank(row: Row) -> tuple[float, ...]:
    far = abs(row.left.value)
    return FORGOTTEN[row.forgotten], USEFUL[row.useful], math.inf if math.isnan(far) else far

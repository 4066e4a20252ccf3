"""What people look at, as pandas frames: charts, pages and `fedunlearn.load_run` show these and nothing else.

Every function takes a run folder and the id of one of its moments (`manifest.json`), and gives a frame with exactly the
columns that `fedunlearn.results.columns` describes, in that order. A run that has nothing of the kind gives no rows.
Numbers are those of the run's own tables, unrounded: a share of 1 is 100 %.

Three columns are in most of them: ``strategy``, the label as the run's tables have it; ``name``, what people call it;
and ``role``, one of its `ROLES`. Rows come best strategy first (`results.overview`), controls last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from fedunlearn.results import overview as overviews
from fedunlearn.results.classes import named
from fedunlearn.results.columns import COLUMNS, NAMES, WHO
from fedunlearn.results.floors import dominated
from fedunlearn.results.held import has, summary
from fedunlearn.results.kinds import spoken
from fedunlearn.results.overview import Overview, Source
from fedunlearn.results.summary import label
from fedunlearn.scoring.kinds import scored

PROBES: Mapping[str, str] = {
    "relearn_": "relearn",
    "probe_": "linear_probe",
    "resurgence_": "resurgence",
}
"""How measures of probes begin, and the probe."""


# ------------------------------------------------------------------------------------------------------ frames


def answers(run: Source, request: str) -> pd.DataFrame:
    """One row per strategy: both answers, and the numbers that they rest on.

    Args:
        run: the run folder.
        request: one of `moments`.

    Raises:
        InputError: there is no such request, or the run was judged by an older version.
        RunError: a table is missing or damaged.
    """
    one = summary(run, request)
    statistics, patients = (_of(run, name, request) for name in ("statistics", "patients"))
    quality = scored(one.kind).tested
    beaten = dominated(one.rows, one.floors)
    memory = _by_strategy(statistics[statistics["measure"] == "memory_left"])
    good = _by_strategy(statistics[(statistics["measure"] == quality) & (statistics["group"] == "all")])
    sure = (
        patients[patients["flagged"].isin(["remembered", "overdone"])].groupby("strategy")["patient"].agg(set)
    )
    doubts = patients[patients["flagged"] == "suspected"].groupby("strategy")["patient"].agg(set)
    rows = []
    for row, who in zip(_rows(one), _who(one), strict=True):
        left, test = memory.get(row.strategy, _UNKNOWN), good.get(row.strategy, _UNKNOWN)
        rows.append(
            {
                **who,
                "forgotten": row.forgotten,
                "useful": row.useful,
                "memory_left": left["difference"],
                "memory_low": left["low"],
                "memory_high": left["high"],
                "memory_margin": one.margins.get("memory", np.nan),
                "known": len(row.known),
                "overdone": len(row.overdone),
                "suspected": len(doubts.get(row.strategy, set()) - sure.get(row.strategy, set())),
                "patients": row.compared,
                **{key: test[key] for key in ("difference", "low", "high")},
                "margin": one.margins.get("all", np.nan),
                "worst_site": row.site.name,
                "worst_site_difference": row.site.value,
                "worst_class": row.group.name,
                "worst_class_difference": row.group.value,
                "share_of_retraining": row.cost,
                "images": row.work,
                "dominated_by": beaten.get(row.strategy, ""),
                "p": row.p,
                "reasons": list(row.reasons),
                "uses": list(row.uses),
            }
        )
    return _frame("answers", rows)


def memory(run: Source, request: str) -> pd.DataFrame:
    """One row per strategy and patient: the memory left of that patient, by the exact images and by changed copies.

    Patients who can be compared with nobody have no row.

    Args and errors as of `answers`.
    """
    found = answers(run, request)
    patients = _of(run, "patients", request)
    exact, copies = (patients[patients["on"] == on] for on in ("images", "copies"))
    kept = {"memory_left": "copies_left"} | {c: f"copies_{c}" for c in ("low", "high", "p", "flagged")}
    copies = copies[["strategy", "patient", *kept]].rename(columns=kept)
    both = exact.merge(copies, on=["strategy", "patient"], how="left").fillna({"copies_flagged": ""})
    means = {"memory_left": "mean", "memory_low": "mean_low", "memory_high": "mean_high"}
    whole = found[[*WHO, "forgotten", "dominated_by", *means, "memory_margin"]]
    whole = whole.rename(columns={**means, "memory_margin": "margin"})
    rows = whole.merge(both, on="strategy", how="inner")
    return _frame("memory", rows.assign(zone=_zone(exact)))


def useful(run: Source, request: str) -> pd.DataFrame:
    """One row per strategy: how good it still is on unseen images, and what it cost.

    Args and errors as of `answers`.
    """
    found = answers(run, request)
    scores = _whole(_of(run, "scores", request))
    shares = scores[scores["measure"] == "share_of_retraining"].groupby("strategy")["value"]
    found["measure"] = scored(run.read_manifest()["kind"]).tested
    found["share_low"] = found["strategy"].map(shares.min())
    found["share_high"] = found["strategy"].map(shares.max())
    return _frame("useful", found)


def groups(run: Source, request: str) -> pd.DataFrame:
    """One row per strategy and group of unseen images: every hospital, class or structure, and group of patients.

    Args and errors as of `answers`.
    """
    one = summary(run, request)
    quality = scored(one.kind).tested
    statistics = _of(run, "statistics", request)
    good = statistics[statistics["measure"] == quality].rename(columns={"group": "whole", "p_holm": "p"})
    split = [str(whole).partition("=") for whole in good["whole"]]
    good = good.assign(attribute=[a for a, _, _ in split], group=[value or a for a, _, value in split])
    words = partial(_group, spoken(one.kind), run.read_manifest().get("names", ()))
    good["words"] = list(map(words, good["attribute"], good["group"]))
    return _frame("groups", _named(one, good))


def costs(run: Source, request: str) -> pd.DataFrame:
    """One row per strategy, the original (all of training) and retraining: what each cost, in the mean over seeds.

    Args and errors as of `answers`.
    """
    one = summary(run, request)
    scores = _whole(_of(run, "scores", request))
    wanted = [column for column in COLUMNS["costs"] if column not in WHO]
    scores = scores[scores["measure"].isin(wanted)]
    means = scores.pivot_table("value", "strategy", "measure", aggfunc=_mean).reset_index()
    return _frame("costs", _named(one, means.reindex(columns=["strategy", *wanted]), references=True))


def curves(run: Source, request: str) -> pd.DataFrame:
    """One row per model under way, round and measure: training, retraining, unlearning with its recovery.

    Of a request in the middle of training, the moment right after unlearning has unlearning, and that at the end of
    training has how training went on: both begin at the same round.

    Only points that every seed has (`shared`). Args and errors as of `answers`. An older run has none.
    """
    if not has(run, "curves.parquet"):
        return _frame("curves", [])
    one, table = summary(run, request), run.read_table("curves.parquet")
    table = table[~table["phase"].isin(elsewhere(run, request))]
    table = shared(table[table["request"] == _forgets(run, request)])
    keys = ["phase", "strategy", "part", "measure", "after", "step"]
    grouped = table.assign(at=table["after"] + table["round"]).groupby(keys, sort=False)
    found = grouped["value"].agg(value=_mean, low="min", high="max", seeds="size")
    also = grouped.agg(at=("at", "first"), images=("images", "first"))
    found = found.join(also).reset_index()
    ends = {(one["phase"], one["strategy"]) for one in ends_only(run, request)}
    found["whole"] = [key not in ends for key in zip(found["phase"], found["strategy"], strict=True)]
    return _frame("curves", _named(one, found, references=True))


def elsewhere(run: Source, request: str) -> tuple[str, ...]:
    """The phases that a request's other moment shows, if it has two; only one in the middle of training does."""
    forgets = _forgets(run, request)
    if overviews.is_policy(run.read_manifest(), request):
        return ()
    if not any(one["forgets"] == forgets != one["id"] for one in run.read_manifest()["moments"]):
        return ()
    return ("unlearn",) if request == forgets else ("continue",)


def shared(table: pd.DataFrame) -> pd.DataFrame:
    """A request's rows of ``curves.parquet`` of those points that all seeds have; others would be no mean over seeds.

    Seeds may have taken unequal numbers of rounds, or know a start and an end only, so the same step need not be the
    same round. A point is the first, second, … model in hand after so many rounds. A seed whose numbers ceased to be
    finite lacks what comes then. Rows keep their index; ``step`` is counted anew, over the points that are left.
    """
    if table.empty:
        return table
    whose, place = ["phase", "strategy"], ["after", "round", "nth"]
    keys = [*whose, "seed", "after", "round", "step"]
    hands = table[keys].drop_duplicates().sort_values("step")
    hands["nth"] = hands.groupby(keys[:-1]).cumcount()
    rows = table.rename_axis("row").reset_index().merge(hands, on=keys).set_index("row")
    strategies = set(table.loc[table["strategy"] != "retrained", "seed"])  # retraining may have further ones
    wanted = rows.groupby(whose)["seed"].transform(lambda own: len(strategies | set(own)))
    had = rows.groupby([*whose, "part", "measure", *place])["seed"].transform("nunique")
    rows = rows[had == wanted]
    order = rows[[*whose, *place]].drop_duplicates().sort_values(place)
    order["step"] = order.groupby(whose).cumcount()
    rows = rows.drop(columns="step").rename_axis("row").reset_index()
    return rows.merge(order, on=[*whose, *place]).set_index("row")[list(table.columns)].sort_index()


def ends_only(run: Source, request: str) -> list[dict[str, Any]]:
    """Procedures of which `curves` knows only start and end, since they were taken from an earlier run.

    Returns:
        dicts of phase, strategy and seed.
    """
    known = run.read_manifest().get("ends_only", ())
    return [dict(one) for one in known if one["request"] in ("", _forgets(run, request))]


def roc(run: Source, request: str) -> pd.DataFrame:
    """One row per model and false positive rate: how well an attack tells images to forget from unseen ones.

    Args and errors as of `answers`. An older run has none.
    """
    if not has(run, "roc.parquet"):
        return _frame("roc", [])
    table = _of(run, "roc", request)
    if "thresholds" in table:
        table = table[table["thresholds"] == "one"]  # the other is each hospital's and label's own
    table = table.sort_values(["strategy", "fpr"], kind="stable")
    return _frame("roc", _named(summary(run, request), table, references=True))


def probes(run: Source, request: str) -> pd.DataFrame:
    """One row per model and measure of a probe: what is known again once somebody trains the model a little more.

    Args and errors as of `answers`. A run whose scenario asks for no probe has none.
    """
    one = summary(run, request)
    scores = _whole(_of(run, "scores", request))
    which = scores["measure"].astype(str)
    scores = scores.assign(
        probe=np.select([which.str.startswith(p) for p in PROBES], list(PROBES.values()), "")
    )
    means = scores.groupby(["strategy", "measure"])["value"].agg(_mean)
    rows = []
    for (strategy, probe, measure), of in scores[scores["probe"] != ""].groupby(
        ["strategy", "probe", "measure"]
    ):
        values = of["value"].to_numpy(np.float64)
        central = np.median(values) if probe == "relearn" else values.mean()
        same = str(measure).partition("_")[2]
        reference = scores[(scores["strategy"] == "retrained") & (scores["measure"] == measure)]["value"]
        rows.append(
            {
                "strategy": strategy,
                "probe": probe,
                "measure": measure,
                "value": central,
                "low": values.min(),
                "high": values.max(),
                "before": np.nan if probe == "relearn" else means.get((strategy, same), np.nan),
                "retrained": reference.median() if probe == "relearn" else reference.mean(),
                "seeds": len(values),
            }
        )
    found = pd.DataFrame(rows, columns=[c for c in COLUMNS["probes"] if c not in ("name", "role")])
    return _frame("probes", _named(one, found, references=True))


def relearning(run: Source, request: str) -> pd.DataFrame:
    """One row per model and epoch of training on the images to forget: how fast they are known again.

    Args and errors as of `answers`. A run whose scenario does not ask for it has none.
    """
    if not has(run, "probes/relearn.parquet"):
        return _frame("relearning", [])
    table = run.read_table("probes/relearn.parquet")
    table = table[table["request"] == request]
    if table.empty:
        return _frame("relearning", [])
    wide = table.pivot_table("loss", "epoch", ["strategy", "seed"], dropna=False)
    goals = table.groupby("strategy")["goal"].mean()
    rows = []
    for strategy in dict.fromkeys(table["strategy"]):
        own = wide[strategy]
        own = own.loc[: own.last_valid_index()].ffill()
        for epoch, of in own.iterrows():
            rows.append((strategy, epoch, of.mean(), of.min(), of.max(), goals[strategy]))
    found = pd.DataFrame(rows, columns=["strategy", "epoch", "loss", "low", "high", "goal"])
    return _frame("relearning", _named(summary(run, request), found, references=True))


# ------------------------------------------------------------------------------------------------------ pieces

_UNKNOWN: Mapping[str, float] = dict.fromkeys(("difference", "low", "high"), float("nan"))


def _of(run: Source, table: str, request: str) -> pd.DataFrame:
    """A request's rows."""
    whole = run.read_table(f"{table}.parquet")
    return whole[whole["request"] == request]


def _forgets(run: Source, request: str) -> str:
    """The request that a moment is about; in the middle of training, two of them are about one."""
    (found,) = (m["forgets"] for m in run.read_manifest()["moments"] if m["id"] == request)
    return str(found)


def _whole(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of all images."""
    return scores[scores["group"] == "all"]


def _mean(values: pd.Series[Any]) -> float:
    """A seed that diverged leaves no mean."""
    return float(values.mean(skipna=False))


def _by_strategy(statistics: pd.DataFrame) -> dict[str, Mapping[str, float]]:
    """At most one row for each."""
    return {
        str(one["strategy"]): {str(key): value for key, value in one.items()}
        for one in statistics.to_dict("records")
    }


def _rows(one: Overview) -> list[overviews.Row]:
    """Strategies, best first, then what they are compared with."""
    return [*one.rows, *([one.again] if one.again else ()), *([one.nothing] if one.nothing else ())]


def _who(one: Overview) -> list[dict[str, str]]:
    """The columns that say whom each of `_rows` is about."""
    controls = {"retrained_other": "again", "original": "original"}
    return [
        {
            "strategy": row.strategy,
            "name": label(row),
            "role": controls.get(row.strategy, "floor" if row.strategy in one.floors else "strategy"),
        }
        for row in _rows(one)
    ]


def _named(one: Overview, table: pd.DataFrame, references: bool = False) -> pd.DataFrame:
    """A table with all columns that say whom it is about, in the order of `_rows`; who is not among them is left out.

    With ``references``, retraining is among them.
    """
    whom = _who(one)
    if references:
        retrained = {"strategy": "retrained", "name": NAMES["retrained"], "role": "retrained"}
        whom = [
            *(w for w in whom if w["role"] != "original"),
            retrained,
            *(w for w in whom if w["role"] == "original"),
        ]
    return pd.DataFrame(whom, columns=list(WHO)).merge(table, on="strategy", how="inner")


def _group(words: tuple[str, str, str], classes: Sequence[str], attribute: str, group: str) -> str:
    """A group of images, as people say it."""
    _, part, what = words
    called = {"site": "hospital", "class": part}
    if attribute == "all":
        return f"all {what}s"
    if attribute == "class" and group.isdecimal() and int(group) < len(classes):
        return named(part, classes[int(group)])
    return f"{called.get(attribute, attribute)} {group}"


def _zone(patients: pd.DataFrame) -> float:
    """How far 95 of 100 patients are from 0 under honest retrainings; NaN where nobody retrained again.

    Patients differ in how far luck moves them (their interval), so it is the width at which the mean over them of the
    normal's tails is 5 %.
    """
    again = patients[patients["strategy"] == "retrained_other"]
    half = (again["high"] - again["memory_left"]).to_numpy(np.float64)
    half = half[np.isfinite(half) & (half > 0)]
    if not half.size:
        return float("nan")
    low, high = 0.0, 4 * float(half.max())
    for _ in range(60):  # halving, to the last bit
        middle = (low + high) / 2
        outside = float((2 * ndtr(-1.96 * middle / half)).mean())
        low, high = (middle, high) if outside > 0.05 else (low, middle)
    return high


def _frame(name: str, rows: pd.DataFrame | list[dict[str, Any]]) -> pd.DataFrame:
    """Rows under exactly the columns of a frame."""
    return pd.DataFrame(rows, columns=list(COLUMNS[name])).reset_index(drop=True)

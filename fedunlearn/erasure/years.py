"""What a record says of a request that came in over a year: its days, its states by each policy, and what followed.

All of it is from the simulation, and marked so. The desk's own sentences name patients, so a record has only the code
of a reason and what that code means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import pandas as pd

from fedunlearn import deadlines
from fedunlearn.core import InputError
from fedunlearn.erasure.facts import Facts, Request
from fedunlearn.exports.kept import Model, anew
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import REASONS
from fedunlearn.intake.states import State, advance
from fedunlearn.results import audit
from fedunlearn.results.purged import purges
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import percent

EVENT = "request-state"
"""Of the audit log: a request is in another state by a policy."""
SIMULATED = ("request.received", "request.opt_out_from", "clock", "decision.decision", "decision.reasons")
"""What the simulation fills in, by dotted key."""
FOR_THE_DESK = (
    *("received", "decision", "reasons", "extended_to", "extension_reason", "extension_told", "answered"),
)
"""Facts that people cannot state of such a run, since it has its own."""
CLOCKS = (
    "Days of the request, its decision, its states and its models' training are the simulation's. What was done with "
    "the finished run, purging it and writing this record, has days of the computer's clock: `written`, `purged`, "
    "`removed`, `real_date`, and what is marked as not a simulated day."
)
NOTHING = "does not apply: no model was changed for this request"
OPT_OUT = (
    "An opt-out bars the data from use from its day on (EHDS, Art. 71). It does not ask that models forget that were "
    "trained before; that is another request, for erasure (GDPR, Art. 17)."
)
UNTRAINED = "No image of it was in any training, so there was nothing to unlearn."
EARLIER = (
    "Earlier requests had all of its images that were in any training, so there was nothing more to unlearn for it; "
    "what was done about them, the records of these requests say."
)


@dataclass(frozen=True)
class Share:
    """How much is left of what the original model knew of a request, at a look.

    Attributes:
        day: of the look.
        value: the share; None where the tests cannot tell.
    """

    day: str
    value: float | None


@dataclass(frozen=True)
class Year:
    """What a run says of its requests, read once.

    Attributes:
        manifest: of the run.
        calendar: when rounds are over.
        docket: what the desk said, by request.
        states: by policy and request, every state with its day.
        answers: by policy and request, the row of ``calendar.parquet``.
        memory: by policy, strategy and request, what was left at the first look since its answer, and at the last.
        keeps: whether the models of the way are kept (``retention``).
    """

    manifest: Mapping[str, Any]
    calendar: Calendar
    docket: Mapping[str, Mapping[str, Any]]
    states: Mapping[tuple[str, str], Sequence[tuple[State, str]]]
    answers: Mapping[tuple[str, str], Mapping[Any, Any]]
    memory: Mapping[tuple[str, str, str], tuple[Share, Share]]
    keeps: bool

    @classmethod
    def of(cls, run: RunFolder, manifest: Mapping[str, Any], keeps: bool) -> Year | None:
        """Read it; None of a run without a calendar.

        Raises:
            RunError: a file is missing or damaged.
        """
        if "calendar" not in manifest:
            return None
        about = manifest["calendar"]
        calendar = Calendar(date.fromisoformat(about["start"]), int(about["days"]))
        docket = {str(one["id"]): one for one in manifest["docket"]}
        rows = run.read_table("calendar.parquet").to_dict("records")
        answers = {(str(row["policy"]), str(row["request"])): row for row in rows}
        recalled = _recalled(run.read_table("memory.parquet"))
        return cls(manifest, calendar, docket, _states(run), answers, recalled, keeps)

    @cached_property
    def judged(self) -> dict[str, tuple[int, int]]:
        """By policy, how many accepted requests there was something to unlearn of, and how many of these still wait."""
        asked = {id for id in self.docket if not answerable(self, id)}
        done = {
            str(policy["label"]): {id for turn in policy["turns"] for id in turn["erases"]}
            for policy in self.manifest["policies"]
        }
        return {label: (len(asked), len(asked - ids)) for label, ids in done.items()}

    def still_lists(self, request: str) -> set[str]:
        """The tables that have rows about this very request."""
        return {file for file, names in self._listed.items() if request in names}

    @cached_property
    def _listed(self) -> dict[str, set[str]]:
        answered, recalled = (
            {key[at] for key in known} for at, known in ((1, self.answers), (2, self.memory))
        )
        return {"calendar.parquet": answered, "memory.parquet": recalled}

    @property
    def end(self) -> str:
        """The day on which the last round is over."""
        return str(self.calendar.day(int(self.manifest["calendar"]["rounds"])))

    def decided(self, request: str) -> str:
        """What the desk said: accepted, refused or open."""
        return str(self.docket[request]["state"])

    def unlearned(self, policy: Mapping[str, Any], request: str) -> int | None:
        """At which boundary a policy had a request unlearned; None for never."""
        return next((turn["round"] for turn in policy["turns"] if request in turn["erases"]), None)

    def day(self, boundary: int) -> str:
        """The day on which so many rounds are over."""
        return str(self.calendar.day(boundary))


def _states(run: RunFolder) -> dict[tuple[str, str], list[tuple[State, str]]]:
    """By policy and request, what the audit log says."""
    found = dict[tuple[str, str], list[tuple[State, str]]]()
    for line in audit.lines(run.path / audit.FILE):
        if line["event"] == EVENT:
            found.setdefault((line["policy"], line["request"]), []).append((line["state"], line["date"]))
    return found


def _recalled(table: pd.DataFrame) -> dict[tuple[str, str, str], tuple[Share, Share]]:
    """See `Year`: a share of the means over seeds, if at any seed the original knew more than luck would have it."""
    keys = ["policy", "strategy", "request", "round"]
    told = {"visible": table["memory_left"].notna(), "lost": table[["left", "known"]].isna().any(axis=1)}
    grouped = table.assign(**told).groupby(keys, sort=True)
    means = grouped.agg(
        left=("left", "mean"),
        known=("known", "mean"),
        visible=("visible", "any"),
        day=("date", "first"),
        lost=("lost", "any"),
    )
    found = dict[tuple[str, str, str], tuple[Share, Share]]()
    for row in means.reset_index().to_dict("records"):
        known = row["visible"] and not row["lost"] and row["known"] > 0
        share = Share(str(row["day"].date()), float(row["left"] / row["known"]) if known else None)
        key = (str(row["policy"]), str(row["strategy"]), str(row["request"]))
        found[key] = (found[key][0] if key in found else share, share)
    return found


def require(year: Year, facts: Facts) -> None:
    """Make sure that people say nothing that the simulation has said, and of no remedy where none was tried.

    Raises:
        InputError: they do; tells all of it.
    """
    wrong = [
        f"requests.{name}.{key}: found {getattr(known, key)!r}, but the run has a calendar, which tells "
        "that by itself; expected nothing: leave it out"
        for name, known in facts.requests.items()
        for key in FOR_THE_DESK
        if getattr(known, key) is not None
    ]
    wrong += [
        f"requests.{name}.remedy: found {known.remedy!r}, but this request had none; expected nothing: "
        f"leave it out. {why}"
        for name, known in facts.requests.items()
        if known.remedy is not None and (why := answerable(year, name))
    ]
    if wrong:
        raise InputError("\n".join(wrong))


# ------------------------------------------------------------------------------------------- parts of a record


def request(year: Year, id: str) -> dict[str, Any]:
    """What a record's part about the request has in place of people's."""
    entry = year.docket[id]
    scope = {"whole_site": "hospital", "opt_out": "opt-out"}.get(entry["kind"], entry["kind"])
    about: dict[str, Any] = {"scope": scope, "received": entry["received"]}
    if entry["kind"] == "opt_out":
        about["opt_out_from"] = (
            year.day(entry["boundary"]) if entry["state"] == "accepted" else "not accepted"
        )
        about["opt_out"] = OPT_OUT
    return about


def decision(year: Year, id: str, known: Request) -> dict[str, Any]:
    """What was decided, when and why."""
    entry = year.docket[id]
    reason = str(entry["reason"])
    words = REASONS.get(reason, "") or (
        "nothing speaks against it" if entry["state"] == "accepted" else reason
    )
    return {
        "decision": entry["state"],
        "decided": "not by the end of the year" if entry["boundary"] is None else year.day(entry["boundary"]),
        "reason": reason,
        "reasons": words,
        **({"answered_by": entry["of"]} if entry["of"] else {}),
        "decided_by": known.decided_by,
        "remedies_told": known.remedies_told,
    }


def clock(year: Year, id: str, written: str) -> dict[str, Any]:
    """When an answer was due, and what happened when by each policy.

    Args:
        year: of the run.
        id: of the request.
        written: the day on which this record is written.
    """
    received = date.fromisoformat(year.docket[id]["received"])
    longest = str(deadlines.after(received, deadlines.MONTHS + deadlines.FURTHER))
    return {
        "due": str(deadlines.after(received, deadlines.MONTHS)),
        **({"due_at_most": longest} if _extends(year, id) else {}),
        "policies": [_followed(year, policy, id, written) for policy in year.manifest["policies"]],
    }


def _extends(year: Year, id: str) -> bool:
    """Whether its month can be extended: a refusal is told within it (Art. 12(4))."""
    return year.decided(id) != "refused"


def _followed(year: Year, policy: Mapping[str, Any], id: str, written: str) -> dict[str, Any]:
    label = str(policy["label"])
    row = year.answers[label, id]
    reckoned = {"answered": _day(row["answered"]), "days": _whole(row["days"])}
    states = list(_gone_through(year, label, id, written))
    return {
        "policy": label,
        "strategies": list(policy["strategies"]),
        "state": _BY_THE_END.get(year.states[label, id][-1][0], year.states[label, id][-1][0]),
        **{key: value for key, value in reckoned.items() if value is not None},
        "days_late": int(row["late"]),
        **({"days_late_at_three_months": int(row["late_three"])} if _extends(year, id) else {}),
        "states": states,
        "until_then": _until(year, policy, id),
        **_way(year, policy, id),
    }


def _way(year: Year, policy: Mapping[str, Any], id: str) -> dict[str, str]:
    """What became of the models that a policy had before its last ones, if it unlearned a request."""
    if year.unlearned(policy, id) is None:
        return {}
    kept = "kept (`retention`)" if year.keeps else f"dropped by {year.end}, when the year ends"
    return {
        "models_of_the_way": f"{kept}; the last ones, and what else there is, stand under where the data was"
    }


_BY_THE_END: Mapping[State, str] = {"received": "open", "extended": "open", "accepted": "waiting"}
"""What a state is called when the year ends with it."""


def _gone_through(year: Year, policy: str, id: str, written: str) -> Iterator[dict[str, Any]]:
    """Every state with its day; of what people do with the finished run, it is no day of the simulation."""
    known = year.states[policy, id]
    yield from ({"state": state, "date": day} for state, day in known)
    state = known[-1][0]
    done = purges(year.manifest, id)
    if state in ("unlearned", "barred") and done:
        state = advance(state, "purge")
        yield {"state": state, "real_date": done[-1]["date"], "what": "by `fedunlearn purge`"}
    if state in ("purged", "unlearned", "barred", "refused"):
        yield {"state": advance(state, "record"), "real_date": written, "what": "by this record"}


def _until(year: Year, policy: Mapping[str, Any], id: str) -> str:
    """What stopped use until the answer."""
    entry = year.docket[id]
    if entry["state"] != "accepted":
        return "nothing: it was not accepted"
    since = year.day(entry["boundary"])
    nobody = f"nobody trains on the images since {since} at the latest"
    if entry["kind"] == "opt_out" or not _trained(entry):
        return nobody
    if not _fresh(entry):
        return f"{nobody}; of models that had seen them, the records of earlier requests say more"
    if policy["name"] == "release":
        return f"{nobody}, and the model is barred from use from then until its next release"
    return f"{nobody}; the model that had seen them stays in use until they are unlearned"


def _trained(entry: Mapping[str, Any]) -> bool:
    """Whether an image of it was in training at any time, whoever asked about it first."""
    return int(entry.get("trained", entry["images"])) > 0  # runs of before have one number


def _fresh(entry: Mapping[str, Any]) -> bool:
    """Whether there was anything to unlearn that no earlier request had."""
    return int(entry["images"]) > 0


def answerable(year: Year, id: str) -> str:
    """Why no remedy was tried, in words; empty if some were."""
    entry = year.docket[id]
    if entry["state"] != "accepted":
        return NOTHING
    if entry["kind"] == "opt_out":
        return OPT_OUT
    if _fresh(entry):
        return ""
    return EARLIER if _trained(entry) else UNTRAINED


def recalled(year: Year, policy: str, strategy: str, id: str) -> dict[str, Any]:
    """What is left of this very request, at its answer and when the year ends."""
    first, last = year.memory.get((policy, strategy, id), (None, None))
    if first is None and (done := purges(year.manifest, id) or purges(year.manifest)):
        return {
            "words": f"What was measured of this request alone was purged, {done[-1]['date']} (not a simulated day)."
        }
    shares = [share for share in (first, last) if share is not None and share.value is not None]
    if first is None or last is None or not shares:
        return {"words": "Of this request alone the tests cannot tell: the original is not seen to know it."}
    times = dict.fromkeys(
        (f"{percent(share.value)} % on {share.day}" if share.value is not None else f"unknown on {share.day}")
        for share in (first, last)
    )
    return {
        "at_answer": {"date": first.day, "share": first.value},
        "at_the_end": {"date": last.day, "share": last.value},
        "words": f"Of what the original knew of this request alone there was left: {', '.join(times)}.",
    }


def again(year: Year, model: Model) -> dict[str, Any]:
    """When a walk's model was trained from the start last, and why; nothing if never."""
    boundary = anew(
        year.manifest, (model.policy, model.strategy, model.seed), int(year.manifest["calendar"]["rounds"])
    )
    if not boundary:
        return {}
    whose = (model.policy, model.strategy, model.seed)
    budget = any(
        (one["policy"], one["strategy"], one["seed"]) == whose for one in year.manifest["retrainings"]
    )
    why = "unlearning had moved it beyond the policy's budget" if budget else "so this strategy answers"
    return {"trained_again": {"date": year.day(boundary), "rounds": boundary, "why": why}}


def descent(year: Mapping[str, Any], model: Model, id: str) -> dict[str, Any]:
    """What a walk's model was made from: the original where the policy began, by each of its steps in turn.

    Args:
        year: the manifest of the run.
        model: a strategy's.
        id: of the request.
    """
    policy = next(one for one in year["policies"] if one["label"] == model.policy)
    begun, end = policy["turns"][0]["round"], year["calendar"]["rounds"]
    original = f"original-{model.seed}" if begun == end else f"original@{begun}-{model.seed}"
    return {
        "descends_from": f"weights/{original}.safetensors",
        "by": model.strategy,
        "policy": model.policy,
        "by_way_of": [step for turn in policy["turns"] for step in turn["steps"]],
        "asked_to_forget_it": id in model.earlier,
        **({"trained_without_it": True} if id in model.without else {}),
    }


def _day(value: Any) -> str | None:
    return None if pd.isna(value) else str(pd.Timestamp(value).date())


def _whole(value: Any) -> int | None:
    return None if math.isnan(value) else int(value)

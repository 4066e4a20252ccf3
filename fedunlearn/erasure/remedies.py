"""What could be done about a request, and what can be said of it: one of five sentences, and what was not tested.

1. trained again without the data;
2. within a bound of such a model, under an assumption;
3. no difference seen larger than one that is told;
4. memory is reduced, or still there, as measured;
5. the tests cannot tell, or none was made.

Of an approximate method nothing is said that tests did not show. Numbers are those of the run's tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from fedunlearn.core import Guarantee
from fedunlearn.erasure import years
from fedunlearn.erasure.lineage import place
from fedunlearn.erasure.sources import Sources
from fedunlearn.erasure.years import Year
from fedunlearn.exports.findings import memory
from fedunlearn.exports.kept import Model
from fedunlearn.exports.settings import Settings, shared
from fedunlearn.intake.desk import ALL
from fedunlearn.results.classes import called
from fedunlearn.results.purged import purges
from fedunlearn.results.sentences import limits, percent
from fedunlearn.scenario import Scenario

UNTESTED = (
    "Not tested: whether images can be extracted, inverted or reconstructed from a model; other attacks than those of "
    "this run; models that others made from these."
)
_KINDS: Mapping[Guarantee, str] = {
    Guarantee.EXACT: "trained again without the data",
    Guarantee.CERTIFIED: "within a bound",
    Guarantee.EMPIRICAL: "approximate, tested",
    Guarantee.SUPPRESSION: "hidden at the output",
}
RETRAINED = "retrained"


def remedies(
    scenario: Scenario,
    settings: Settings,
    digests: Mapping[Model, str | None],
    table: pd.DataFrame,
    models: Sequence[Model],
    request: str,
    manifest: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Retraining, then every strategy that served a request, as a record has them.

    Args:
        scenario: of the run.
        settings: the same, as it was written.
        digests: of all models that the run made, the sha256 of their files.
        table: `exports.papers.tidy` of it.
        models: those about the request.
        request: its id.
        manifest: of the run.
    """
    again = _files(digests, [model for model in models if model.role == RETRAINED])
    yield {
        "strategy": RETRAINED,
        "kind": _KINDS[Guarantee.EXACT],
        "settings": {},
        "models": again,
        "evidence": {"sentence": 1, "words": _again(len(again), bool(purges(manifest)))},
    }
    plans = {plan.label: plan.strategy for plan in scenario.strategies if request in plan.requests}
    for label, strategy in plans.items():
        own = [model for model in models if model.role == "strategy" and model.strategy == label]
        if not own:
            continue  # it diverged at every seed, or could not serve this request
        files = _files(digests, own)
        found = table[(table["request"] == own[-1].moment) & (table["strategy"] == label)].to_dict("records")
        known = found[0] if found else None
        yield {
            "strategy": label,
            "kind": _KINDS[strategy.guarantee],
            "settings": shared(settings.of(label, request)),
            "models": files,
            "evidence": _evidence(strategy, known, {one["sha256"] for one in files} <= _hashes(again)),
            **({} if known is None else {"measured": _measured(known, manifest)}),
        }


def of_year(sources: Sources, year: Year, request: str) -> Iterator[dict[str, Any]]:
    """What each policy's strategies came to when the year ended, and what can be said of it and of this request.

    Args:
        sources: the run.
        year: its year.
        request: its id, of an erasure that was accepted and that some training had images of.
    """
    ends = {row["id"]: int(row["round"]) for row in sources.manifest["moments"]}
    again = {sources.models[model] for model in sources.models if model.role == RETRAINED}
    for policy in sources.manifest["policies"]:
        label, done = str(policy["label"]), year.unlearned(policy, request)
        of = _all(*year.judged[label])
        for strategy in policy["strategies"]:
            own = [
                model
                for model in sources.models
                if (model.policy, model.strategy, model.moment) == (label, strategy, label)
            ]
            if label not in ends or not own:
                continue
            whose = {
                "policy": label,
                "strategy": strategy,
                "kind": _KINDS[_plan(sources.scenario, strategy).guarantee],
                "settings": shared(sources.written.of(strategy, ALL)),
                "models": [
                    {**file, **years.again(year, model)}
                    for file, model in zip(_files(sources.models, own), own, strict=True)
                ],
            }
            if done is None:
                yield {**whose, "evidence": {"sentence": 5, "words": _WAITS}}
                continue
            known = sources.rows.get((label, strategy))
            same = {sources.models[model] for model in own} <= again
            recalled = years.recalled(year, label, strategy, request)
            if all(request in model.without for model in own):
                recalled["words"] += " As its models never saw it, what was measured is chance."
            yield {
                **whose,
                "evidence": _of_all(_plan(sources.scenario, strategy), known, same, own, request, of),
                "of_this_request": recalled,
                **({} if known is None else {"measured": _measured(known, sources.manifest)}),
            }


_WAITS = (
    "By this policy it was not unlearned by the end of the year: nothing was done about memory of it, and none was "
    "measured."
)


def _of_all(
    strategy: Any,
    known: Mapping[Any, Any] | None,
    same: bool,
    own: Sequence[Model],
    request: str,
    of: str,
) -> dict[str, Any]:
    """The sentence for a strategy by a policy: about all requests together, unless it never saw this one."""
    if not same and all(request in model.without for model in own):
        words = (
            "Its models were trained again, from the start, without the data of this request, and not on it since; "
            "whether replaying that gives the same bits was not tried."
        )
        return {"sentence": 1, "words": words}
    found = _evidence(strategy, known, same)
    if found["sentence"] == 1:
        return found
    return {**found, "words": f"{of} {_lower(found['words'])}"}


def _all(accepted: int, waiting: int) -> str:
    """What was judged together: all accepted requests of which there was something to unlearn, those that wait too."""
    if accepted == 1:
        return "Of the only accepted request:"
    wait = (
        f", {waiting} of which still wait," if waiting > 1 else ", 1 of which still waits," if waiting else ""
    )
    return f"Of all {accepted} accepted requests{wait} together:"


def _lower(words: str) -> str:
    return f"{words[0].lower()}{words[1:]}"


def _plan(scenario: Scenario, label: str) -> Any:
    return next(plan.strategy for plan in scenario.strategies if plan.label == label)


def untested(manifest: Mapping[str, Any]) -> list[str]:
    """What no sentence of a record is about."""
    return [UNTESTED, limits(manifest.get("probes", {}).get("names", ()))]


def _again(count: int, purged: bool) -> str:
    which = "This model was" if count == 1 else f"These {count} models were"
    tried = (
        "what trying that takes was purged from this run"
        if purged
        else "`fedunlearn verify RUN --replay N` tries that"
    )
    return f"{which} trained again without the data; replaying it gives the same bits: {tried}."


def _evidence(strategy: Any, known: Mapping[Any, Any] | None, same: bool) -> dict[str, Any]:
    """The sentence for a strategy, by its promise and by what was found of it."""
    match strategy.guarantee:
        case Guarantee.EXACT if same:
            words = "Its models have the same bits as those that were trained again without the data."
            return {"sentence": 1, "words": words}
        case Guarantee.CERTIFIED:
            bound = ", ".join(
                f"{name} {getattr(strategy, name):g}"
                for name in ("epsilon", "delta")
                if hasattr(strategy, name)
            )
            words = (
                f"Its models differ from models trained again without the data by at most ({bound}), if the assumption "
                f"holds that `fedunlearn list strategies {strategy.name}` tells; whether it does was not tested."
            )
            return {"sentence": 2, "words": f"{words} {_seen(known)}".strip()}
    hidden = (
        "The weights still hold the data, and what was added to them hides it. "
        if strategy.guarantee is Guarantee.SUPPRESSION
        else ""
    )
    return {"sentence": _number(known), "words": f"{hidden}{_seen(known)}"}


def _number(known: Mapping[Any, Any] | None) -> int:
    if known is None:
        return 5
    return {"yes": 3, "cannot tell": 5, "": 5}.get(known["forgotten"], 4)


def _seen(known: Mapping[Any, Any] | None) -> str:
    if known is None:
        return "The tests cannot tell: nothing was judged of it."
    words = memory(known)
    return f"{words[0].upper()}{words[1:]}"


def _measured(known: Mapping[Any, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Values with half of their 95 % intervals, and what changed for those who stay; shares, nothing rounded."""
    pairs = {
        name: {"value": _finite(known[name]), "half": _finite(known[f"{name}_half"])}
        for name in ("memory_left", "mia_loss_auc", "test_difference", "share_of_retraining")
        if name in known and f"{name}_half" in known
    }
    names = {
        "worst_site": f"hospital {known['worst_site']}",
        "worst_class": _class(known["worst_class"], manifest),
    }
    worst = {
        key: {"name": name, "difference": _finite(known[f"{key}_difference"])}
        for key, name in names.items()
        if known[key]
    }
    counts = {
        name: None if math.isnan(known[name]) else int(known[name])
        for name in ("seeds", "references", "patients_known", "patients_compared")
    }
    return {"still_good": known["useful"], **pairs, **worst, **counts}


def _class(number: str, manifest: Mapping[str, Any]) -> str:
    return called(manifest["kind"], number, manifest.get("names", ()), manifest.get("classes", 0))


def told(measured: Mapping[str, Any]) -> str:
    """The side effects, in a sentence."""
    lost = measured["test_difference"]
    value, half = lost["value"], lost["half"]
    seen = "?" if value is None else f"{100 * value:+.1f} (±{'?' if half is None else percent(half)}) points"
    where = [measured[name]["name"] for name in ("worst_site", "worst_class") if name in measured]
    most = f"; most is lost: {', '.join(where)}" if where else ""
    answer = {"yes": "as good as retraining within the margins", "worse": "worse than retraining"}
    return f"{answer.get(measured['still_good'], 'whether it is as good as retraining cannot be told')}: {seen}{most}"


def _files(digests: Mapping[Model, str | None], models: Sequence[Model]) -> list[dict[str, Any]]:
    return [{"file": place(model), "seed": model.seed, "sha256": digests[model]} for model in models]


def _hashes(files: Sequence[Mapping[str, Any]]) -> set[object]:
    return {one["sha256"] for one in files}


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None

"""Where the data of a request was, which models saw it, and what became of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedunlearn.erasure import lineage, years
from fedunlearn.erasure.facts import Request
from fedunlearn.erasure.sources import Sources
from fedunlearn.exports.kept import Model
from fedunlearn.results.contents import OF_PATIENTS
from fedunlearn.results.kinds import noun
from fedunlearn.results.purged import RETRAINED, purges
from fedunlearn.results.sentences import counted

_WEIGHTS = "weights/*.safetensors"
_ORIGINS = "origins/*/*.json"
_FURTHER = {
    _WEIGHTS: "models that saw the data",
    _ORIGINS: "what determined files that went",
    "curves/*": "how models that saw the data did, round by round",
}
"""Of files without rows of patients, what of them goes all the same."""


def holding(sources: Sources, request: str, known: Request) -> Iterator[dict[str, Any]]:
    """Where the data was found, and what was done about it there."""
    kind = sources.manifest["kind"]
    for site, splits in sources.counts(request)[1].items():
        what = counted(sum(splits.values()), noun(kind))
        yield {"where": f"hospital {site}", "what": what, "action": known.at_hospital}
    if sources.purges(request):
        yield from _removed(sources, request, known)
        return
    for pattern, what in OF_PATIENTS.items():
        if files := sources.places[pattern]:
            yield {"where": f"run folder, {pattern}", "what": what, "files": files, "action": "still there"}


def _removed(sources: Sources, request: str, known: Request) -> Iterator[dict[str, Any]]:
    """The same, place by place, of a request that was purged: what went, what is still there, and what is kept."""
    done = sources.purges(request)
    lists = set[str]() if sources.year is None else sources.year.still_lists(request)
    for pattern, what in {**OF_PATIENTS, **_FURTHER}.items():
        touched = [one for one in done if any(one["places"].get(pattern, {}).values())]
        for one in touched:
            counts = one["places"][pattern]
            if number := counts["removed"]:
                yield _place(pattern, what, number, f"removed, {_day(sources, one)}")
            if number := counts["changed"]:
                yield _place(pattern, what, number, f"rows and ids removed, {_day(sources, one)}")
        if pattern not in OF_PATIENTS or not (files := sources.places[pattern]):
            continue
        if pattern in lists:
            stays = f"still there; kept: {known.retention}" if known.retention else "still there"
            yield _place(pattern, what, files, stays)
        elif not touched:
            yield _place(pattern, what, files, f"nothing of it is there, {_day(sources, done[-1])}")
    for one in done:
        if one["outside"]:
            where, what = (
                "cache of shadow models, outside of the run",
                "what shadow models answer for every image",
            )
            yield {
                "where": where,
                "what": what,
                "files": one["outside"],
                "action": f"removed, {_day(sources, one)}",
            }
    if (keep := done[-1]["kept"]) != RETRAINED:
        own = [model for model in lineage.saw(sources.models, request) if model.name not in sources.purged]
        what = f"models of {keep}, the remedy in use, made from models that saw the data"
        kept = known.retention and f"kept: {known.retention}"
        yield _place(_WEIGHTS, what, len(own), kept)


def _day(sources: Sources, purge: Mapping[str, Any]) -> str:
    """When a purge was; a year has days of its own, and this is none of them."""
    date = str(purge["date"])
    return date if sources.year is None else f"{date} (not a simulated day)"


def _place(pattern: str, what: str, files: int, action: str | None) -> dict[str, Any]:
    return {"where": f"run folder, {pattern}", "what": what, "files": files, "action": action}


def models(sources: Sources, request: str) -> Iterator[dict[str, Any]]:
    """Every model that the run made: whether it saw the data, what it was made from, and when it was removed."""
    saw = lineage.saw(sources.models, request) if sources.trained(request) else set[Model]()
    dates = {about["name"]: one["date"] for one in purges(sources.manifest) for about in one["models"]}
    for model, digest in sources.models.items():
        yield {
            "file": lineage.place(model),
            "sha256": digest,
            "seed": model.seed,
            "saw_the_data": model in saw,
            **(years.descent(sources.manifest, model, request) if model.policy else _descent(model, sources)),
            **({"removed": dates[model.name]} if model.name in sources.purged else {}),
        }


def _descent(model: Model, sources: Sources) -> dict[str, Any]:
    """What an unlearned model was made from: the original one, or the strategy's own of the request before."""
    if model.role != "strategy":
        return {}
    before = model.earlier[-1] if model.earlier else ""
    of = ("strategy", model.strategy, before) if before else ("original", "original", "")
    same = [one for one in sources.models if one.seed == model.seed]
    made = next((one for one in same if (one.role, one.strategy, one.request) == of), None)
    return {
        "descends_from": None if made is None else lineage.place(made),
        "by": model.strategy,
        "asked_to_forget": [*model.earlier, model.request],
    }

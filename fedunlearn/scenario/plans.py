"""What must hold of strategies: they have what they need, fit the requests they are for, have names of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedunlearn.core import Every, Granularity, RequestId, Strategy
from fedunlearn.core.kinds import facts
from fedunlearn.scenario.draft import Draft, Entry, Finding, twice
from fedunlearn.scenario.schema import Official, Request
from fedunlearn.scenario.typed import listed, meant

RESERVED = ("original", "retrained", "retrained_other", "damaged")
"""Labels that tables and file names use themselves: the references, and rows whose truth is known."""

FLOORS = ("fine_tune", "retrain_short")
"""Strategies that need no thought: to train on, or to train again for some of the rounds."""


def plan_findings(draft: Draft, clear: bool) -> Iterator[Finding]:
    """All that is wrong with strategies; with what they are for, only where all requests are ``clear``."""
    yield from _labels(draft)
    for i, entry in draft.entries.items():
        yield from _needs(draft, f"strategies.{i}", entry)
        if draft.complete and clear:
            yield from _fits(draft, f"strategies.{i}", entry)
    if draft.complete:
        yield from _file_names(draft)


def misfit(strategy: Strategy, label: str, request: Request) -> str | None:
    """Why ``strategy`` cannot forget what ``request`` names; None if it can."""
    if request.whole_site and Granularity.SITE not in strategy.granularity:
        return f"{label} forgets patients only; request {request.id!r} is for the whole of {request.site!r}"
    if not request.whole_site and Granularity.PATIENTS not in strategy.granularity:
        return f"{label} forgets whole sites only; request {request.id!r} names patients"
    return None


def outside(strategy: Strategy, label: str, requests: Iterable[Request]) -> tuple[RequestId, str] | None:
    """Of a calendar's requests the first erasure that ``strategy`` cannot forget, and why; None if it can all."""
    for request in requests:
        if request.kind != "opt_out" and (reason := misfit(strategy, label, request)) is not None:
            return request.id, reason
    return None


def unsuited(strategy: Strategy, label: str) -> str | None:
    """Why ``strategy`` cannot be run in a calendar, whatever comes; None if it can."""
    needs, what = strategy.needs, ""
    if any(kept is not None for kept in (needs.updates, needs.cumulative, needs.checkpoints)):
        what = "the history of training, which still holds what earlier requests erased"
    elif needs.preparation:
        what = "training of its own, whose parts still hold what earlier requests erased"
    elif needs.proxy_examples > 0:
        what = "images that the server owns, which patients may take back one by one"
    return f"{label} needs {what}: in a calendar remove it" if what else None


def served(entry: Entry, requests: Iterable[Request], dated: bool = False) -> tuple[RequestId, ...]:
    """The requests an entry is run for; in a calendar all erasures or none."""
    if dated:
        requests = tuple(requests)
        able = outside(entry.strategy, entry.label, requests) is None
        return tuple(request.id for request in requests if able and request.kind != "opt_out")
    wanted = [request for request in requests if entry.wanted is None or request.id in entry.wanted]
    return tuple(request.id for request in wanted if misfit(entry.strategy, entry.label, request) is None)


def _labels(draft: Draft) -> Iterator[Finding]:
    labels = [(f"strategies.{i}.as", entry.label) for i, entry in draft.entries.items()]
    yield from _shared_labels(draft)
    for key, label in labels:
        if label.casefold() in RESERVED:
            yield (
                key,
                f"the label {label!r} is used for a row that every table has; choose another with `as: …`",
            )


def _shared_labels(draft: Draft) -> Iterator[Finding]:
    """A label may be used again, with other settings for other requests; each request meets it once."""
    served_before = dict[str, tuple[RequestId, ...]]()
    for i, entry in draft.entries.items():
        own, before = _listed(draft, entry), served_before.get(entry.label)
        served_before[entry.label] = (*(before or ()), *own)
        if before is None:
            continue
        both = [request for request in own if request in before]
        where = f" for request {both[0]!r}" if both else ""
        if entry.strategy.needs.preparation:
            where, both = ", and each trains in a way of its own", [*own]
        if both or not own:
            advice = "give each its own with `as: …`, or other requests with `requests: […]`"
            yield f"strategies.{i}.as", f"the strategy label {entry.label!r} is used twice{where}; {advice}"


def _needs(draft: Draft, key: str, entry: Entry) -> Iterator[Finding]:
    needs, label = entry.strategy.needs, entry.label
    if draft.dated and (reason := unsuited(entry.strategy, label)) is not None:
        yield key, reason
        return
    if needs.proxy_examples > 0 and draft.sites is not None and not draft.sites.split.proxy:
        shares = "{train: 0.6, val: 0.1, test: 0.2, proxy: 0.1}"
        why = f"sites.split.proxy is 0: give it a share, such as {shares}"
        if isinstance(draft.sites.split, Official):
            why = f"parts taken from a column have none: give shares, such as {shares}"
        yield key, f"{label} needs images that the server owns, and {why}, or remove it"
    if draft.model is not None and needs.class_labels and not facts(draft.model.kind).one_answer:
        kind = f"model {draft.model.name!r} is for {draft.model.kind}"
        yield key, f"{label} needs one class per image; {kind}: remove it or change the model"
    stored = any(kept is not None for kept in (needs.updates, needs.cumulative, needs.checkpoints))
    if stored and draft.sequential and len({r.after_round for r in draft.requests.values()}) > 1:
        why = "which is not kept of training that goes on after a request"
        yield (
            key,
            f"{label} needs the history of training, {why}: remove it, or let all requests come together",
        )
    if draft.training is not None and draft.training.participation < 1 and needs.takes_all:
        some = f"training.participation is {draft.training.participation:g}"
        advice = "remove it, or write participation: 1"
        yield key, f"{label} needs every hospital in every round of training, and {some}: {advice}"
    if needs.serves_one and draft.sequential and len(draft.requests) > 1:
        why = "at the second it would go back to models that still hold the first request's data"
        if needs.preparation:
            why = "what it keeps of its own training would still hold the first request's data at the second"
        yield (
            key,
            f"{label} cannot serve several requests in sequence, since {why}: remove it, or leave one request, "
            "or write `timeline: independent`",
        )
    if draft.training is None:
        return
    cuts = [r.after_round for r in draft.requests.values() if r.after_round and r.id in _listed(draft, entry)]
    rounds = min([draft.training.rounds, *cuts])
    for what, every in (("updates", needs.updates), ("checkpoints", needs.checkpoints)):
        if isinstance(every, Every) and every.k > rounds:
            but = f"a request comes after round {rounds}" if cuts else f"training has {rounds}"
            yield f"{key}.every", f"{label} keeps {what} every {every.k} rounds, but {but}; lower it"


def _fits(draft: Draft, key: str, entry: Entry) -> Iterator[Finding]:
    if draft.dated:
        if entry.wanted is not None:
            yield f"{key}.requests", "in a calendar a strategy serves all that comes; remove `requests`"
        return
    known = {request.id: request for request in draft.requests.values()}
    for j, wanted in enumerate(entry.wanted or ()):
        if wanted not in known:
            yield (
                f"{key}.requests.{j}",
                f"unknown request {wanted!r}{meant(wanted, known)}; expected {listed(known)}",
            )
        elif reason := misfit(entry.strategy, entry.label, known[wanted]):
            yield f"{key}.requests.{j}", reason
    if entry.wanted is not None:
        yield from twice(((f"{key}.requests.{j}", name) for j, name in enumerate(entry.wanted)), "request")
        if not entry.wanted:
            yield f"{key}.requests", f"the list is empty, so {entry.label} would never run; remove the entry"
    if draft.sequential:
        yield from _serves_all(draft, key, entry)
    elif entry.wanted is None and known and not _listed(draft, entry):
        reasons = [misfit(entry.strategy, entry.label, request) or "" for request in known.values()]
        yield key, f"{entry.label} fits none of the requests: {'; '.join(reasons)}"


def _serves_all(draft: Draft, key: str, entry: Entry) -> Iterator[Finding]:
    """In a sequential timeline a strategy goes on from its own last model, so it cannot sit out a request."""
    if entry.wanted is not None and any(r.id not in entry.wanted for r in draft.requests.values()):
        yield f"{key}.requests", "in a sequential timeline a strategy serves every request; remove `requests`"
    elif entry.wanted is None:
        reasons = [misfit(entry.strategy, entry.label, request) for request in draft.requests.values()]
        if reason := next(filter(None, reasons), None):
            yield key, f"in a sequential timeline a strategy serves every request, but {reason}"


def _listed(draft: Draft, entry: Entry) -> tuple[RequestId, ...]:
    return served(entry, draft.stream, draft.dated)


def _file_names(draft: Draft) -> Iterator[Finding]:
    """Models are stored as ``REQUEST-LABEL-SEED`` and ``retrained-REQUEST-SEED``: two must not meet in one file."""
    if draft.dated:
        yield from _files_of_policies(draft)
        return
    taken: dict[str, str] = {}
    for i, request in draft.requests.items():
        models = {f"retrained-{request.id}": "the retrained model"}
        models |= {
            f"{request.id}-{entry.label}": f"{entry.label!r}"
            for entry in draft.entries.values()
            if request.id in _listed(draft, entry)
        }
        for file, what in models.items():
            owner = f"{what} for request {request.id!r}"
            other = taken.setdefault(file.casefold(), owner)
            if other != owner:
                yield f"requests.{i}.id", f"{owner} and {other} would share the file {file!r}; rename one"


def _files_of_policies(draft: Draft) -> Iterator[Finding]:
    """In a calendar a policy stands where a request does elsewhere: ``POLICY-LABEL-SEED``."""
    taken: dict[str, str] = {}
    for i, plan in draft.policies.items():
        for entry in draft.entries.values():
            file, owner = f"{plan.label}-{entry.label}", f"{entry.label!r} by policy {plan.label!r}"
            other = taken.setdefault(file.casefold(), owner)
            if other != owner:
                yield f"policies.{i}.as", f"{owner} and {other} would share the file {file!r}; rename one"

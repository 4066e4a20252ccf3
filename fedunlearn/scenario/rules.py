"""What must hold between the parts of a scenario. Each rule yields (dotted key, message) pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from itertools import pairwise

from fedunlearn.core import SERVER, Every, Granularity, RequestId, Strategy, Training
from fedunlearn.models import Model
from fedunlearn.scenario.schema import Engine, Evaluation, Pick, Request, SitesConfig, TopKeys, Tuned
from fedunlearn.scenario.typed import listed, meant
from sites.collection import Source

Finding = tuple[str, str]
RESERVED = ("original", "retrained", "retrained_other", "damaged")
"""Labels that tables and file names use themselves: the references, and rows whose truth is known."""


@dataclass(frozen=True)
class Entry:
    """A strategy as listed; ``wanted`` are the requests it is restricted to, None for all it can do."""

    strategy: Strategy
    label: str
    wanted: tuple[RequestId, ...] | None
    tuned: Tuned | None = None


@dataclass(frozen=True)
class Draft:
    """As much of a scenario as could be read; list items by their position, None for a part that could not.

    Attributes:
        complete: every request could be read.
    """

    top: TopKeys | None
    engine: Engine | None
    data: Source | None
    sites: SitesConfig | None
    model: Model | None
    training: Training | None
    requests: Mapping[int, Request]
    complete: bool
    entries: Mapping[int, Entry]
    evaluation: Evaluation | None

    @property
    def sequential(self) -> bool:
        """Whether requests come one after the other."""
        return self.top is not None and self.top.timeline == "sequential"


def findings(draft: Draft) -> Iterator[Finding]:
    """All that is wrong between the parts that could be read."""
    yield from _seeds(draft)
    yield from _horizons(draft)
    yield from _sites(draft)
    yield from _augmentation(draft)
    yield from _evaluation(draft)
    ids = ((f"requests.{i}.id", request.id) for i, request in draft.requests.items())
    yield from _twice(ids, "request id")
    for i, request in draft.requests.items():
        yield from _request(draft, f"requests.{i}", request)
    if draft.sequential:
        yield from _in_sequence(draft)
    yield from _canary(draft)
    yield from _labels(draft)
    for i, entry in draft.entries.items():
        yield from _needs(draft, f"strategies.{i}", entry)
        if draft.complete and all(_is_clear(request) for request in draft.requests.values()):
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


def served(entry: Entry, requests: Iterable[Request]) -> tuple[RequestId, ...]:
    """The requests an entry is run for."""
    wanted = [request for request in requests if entry.wanted is None or request.id in entry.wanted]
    return tuple(request.id for request in wanted if misfit(entry.strategy, entry.label, request) is None)


# -------------------------------------------------------------------------------------- sites and requests


def _seeds(draft: Draft) -> Iterator[Finding]:
    if draft.top is None:
        return
    if not draft.top.seeds:
        yield "seeds", "the list is empty; expected at least one whole number, such as [7, 8, 9]"
    yield from _twice(((f"seeds.{i}", str(seed)) for i, seed in enumerate(draft.top.seeds)), "seed")


def _horizons(draft: Draft) -> Iterator[Finding]:
    horizons = draft.top.horizons if draft.top else ()
    for i, (one, following) in enumerate(pairwise(horizons), 1):
        if following <= one:
            yield (
                f"horizons.{i}",
                f"found {following} after {one}, expected epochs in ascending order, each once",
            )


def _sites(draft: Draft) -> Iterator[Finding]:
    if draft.sites is None:
        return
    names, total = draft.sites.names, sum(astuple(draft.sites.split))
    if len(names) < 2:
        yield "sites.names", f"found {len(names)}, expected at least 2 hospitals: one cannot train federated"
    yield from _twice(((f"sites.names.{i}", name) for i, name in enumerate(names)), "site")
    for i, name in enumerate(names):
        if name.casefold() == SERVER:
            message = f"the name {name!r} is used for the server itself; choose another for the hospital"
            yield f"sites.names.{i}", message
    if abs(total - 1) > 1e-6:
        yield "sites.split", f"train, val, test and proxy sum to {total:g}, expected 1"


def _augmentation(draft: Draft) -> Iterator[Finding]:
    if draft.model is None or draft.training is None or draft.model.dimensions == 2:
        return
    if (name := draft.training.local.augmentation) != "none":
        advice = f"model {draft.model.name!r} takes volumes: write none, or leave it out"
        yield "training.augmentation", f"{name} is for 2D images, {advice}"


def _evaluation(draft: Draft) -> Iterator[Finding]:
    if draft.evaluation is not None and draft.evaluation.shadows % 2:
        found = draft.evaluation.shadows
        yield (
            "evaluation.shadows",
            f"found {found}, expected an even number: shadows come in complementary pairs",
        )


def _is_clear(request: Request) -> bool:
    return request.whole_site == (request.patients is None)


def _request(draft: Draft, key: str, request: Request) -> Iterator[Finding]:
    if draft.sites is not None and request.site not in draft.sites.names:
        hint = meant(request.site, draft.sites.names)
        yield (
            f"{key}.site",
            f"unknown site {request.site!r}{hint}; expected {listed(draft.sites.names)} (sites.names)",
        )
    if request.whole_site and request.patients is not None:
        yield key, f"request {request.id!r} has both `patients` and `whole_site: true`; keep one of them"
    if not request.whole_site and request.patients is None:
        yield key, f"request {request.id!r} names nothing to forget; add `patients` or `whole_site: true`"
    if isinstance(request.patients, Pick):
        yield from _pick(f"{key}.patients", request.patients)
    if isinstance(request.patients, tuple):
        ids = ((f"{key}.patients.{i}", patient) for i, patient in enumerate(request.patients))
        yield from _twice(ids, "patient")
        if not request.patients:
            yield f"{key}.patients", "the list is empty; name patients, or write `whole_site: true`"
    rounds = draft.training.rounds if draft.training else None
    if request.after_round is not None and rounds is not None and request.after_round >= rounds:
        allowed = f"expected 1 to {rounds - 1}" if rounds > 1 else "there is none before the last"
        advice = f"{allowed}; leave it out for a request after training ({rounds} rounds)"
        yield f"{key}.after_round", f"found {request.after_round}, {advice}"


def _pick(key: str, wish: Pick) -> Iterator[Finding]:
    given = (wish.fraction is not None) + (wish.count is not None)
    if wish.by is not None and not wish.by:
        yield (
            f"{key}.by",
            "the mapping is empty; expected a column and its value, such as {sex: F}, or no `by`",
        )
    elif given == 2 or (given == 0 and not wish.by):
        yield key, "expected either `fraction` or `count`"
    elif given == 0 and wish.pick != "random":
        yield (
            key,
            f"with `by` alone all such patients are picked, so `pick: {wish.pick}` needs `fraction` or `count`",
        )


def _canary(draft: Draft) -> Iterator[Finding]:
    if draft.evaluation is None or not draft.evaluation.canary:
        return
    if draft.complete and not any(request.whole_site for request in draft.requests.values()):
        why = "canaries are put into hospitals that leave, and no request has `whole_site: true`"
        yield "evaluation.canary", f"{why}: add such a request, or remove the canaries"
    if draft.model is not None and draft.model.kind != "classification":
        kind = f"model {draft.model.name!r} is for {draft.model.kind}"
        yield (
            "evaluation.canary",
            f"canaries need one class per image; {kind}: remove them or change the model",
        )


def _in_sequence(draft: Draft) -> Iterator[Finding]:
    """Of the sequential timeline: requests come in order, from hospitals that are still there, and some remain."""
    gone: dict[str, RequestId] = {}
    before: Request | None = None
    for i, request in draft.requests.items():
        if before is not None and _later(before, request):
            when = f"after round {before.after_round}" if before.after_round else "after training"
            message = (
                f"comes before {before.id!r} ({when}): list the requests of a sequential timeline in order"
            )
            yield f"requests.{i}.after_round", f"request {request.id!r} {message}"
        before = request
        if request.site in gone:
            message = f"has left already (request {gone[request.site]!r}); remove one of the two requests"
            yield f"requests.{i}.site", f"hospital {request.site!r} {message}"
        elif request.whole_site:
            gone[request.site] = request.id
            if draft.sites is not None and set(draft.sites.names) <= gone.keys():
                message = "leaves no hospital to train with; at least one must remain"
                yield f"requests.{i}", f"request {request.id!r} {message}"


def _later(one: Request, other: Request) -> bool:
    if one.after_round is None or other.after_round is None:
        return one.after_round is None and other.after_round is not None
    return one.after_round > other.after_round


# --------------------------------------------------------------------------------------------- strategies


def _labels(draft: Draft) -> Iterator[Finding]:
    labels = [(f"strategies.{i}.as", entry.label) for i, entry in draft.entries.items()]
    yield from _twice(labels, "strategy label", "; give each its own with `as: …`")
    for key, label in labels:
        if label.casefold() in RESERVED:
            yield (
                key,
                f"the label {label!r} is used for a row that every table has; choose another with `as: …`",
            )


def _needs(draft: Draft, key: str, entry: Entry) -> Iterator[Finding]:
    needs, label = entry.strategy.needs, entry.label
    if needs.proxy_examples > 0 and draft.sites is not None and not draft.sites.split.proxy:
        why = "sites.split.proxy is 0: give it a share, such as {train: 0.6, val: 0.1, test: 0.2, proxy: 0.1}"
        yield key, f"{label} needs images that the server owns, and {why}, or remove it"
    if draft.model is not None and needs.class_labels and draft.model.kind != "classification":
        kind = f"model {draft.model.name!r} is for {draft.model.kind}"
        yield key, f"{label} needs one class per image; {kind}: remove it or change the model"
    stored = needs.updates is not None or needs.cumulative or needs.checkpoints is not None
    if stored and draft.sequential and len({r.after_round for r in draft.requests.values()}) > 1:
        why = "which is not kept of training that goes on after a request"
        yield (
            key,
            f"{label} needs the history of training, {why}: remove it, or let all requests come together",
        )
    if needs.preparation and draft.sequential and len(draft.requests) > 1:
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
        yield from _twice(((f"{key}.requests.{j}", name) for j, name in enumerate(entry.wanted)), "request")
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
    return served(entry, draft.requests.values())


def _file_names(draft: Draft) -> Iterator[Finding]:
    """Models are stored as ``REQUEST-LABEL-SEED`` and ``retrained-REQUEST-SEED``: two must not meet in one file."""
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


def _twice(
    values: Iterable[tuple[str, str]], noun: str, advice: str = "; each must be unique"
) -> Iterator[Finding]:
    seen = set()
    for key, value in values:
        if value in seen:
            yield key, f"the {noun} {value!r} is used twice{advice}"
        seen.add(value)

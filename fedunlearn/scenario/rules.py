"""What must hold between the parts of a scenario. Each rule yields (dotted key, message) pairs; strategies: `plans`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from itertools import pairwise

from fedunlearn.core import SERVER, RequestId
from fedunlearn.core.kinds import facts
from fedunlearn.learning.patches import Patched
from fedunlearn.scenario.draft import Draft, Finding, twice
from fedunlearn.scenario.plans import plan_findings
from fedunlearn.scenario.schema import LARGEST_SEED, Pick, Request, Shares
from fedunlearn.scenario.stream import stream_findings
from fedunlearn.scenario.typed import listed, meant


def findings(draft: Draft) -> Iterator[Finding]:
    """All that is wrong between the parts that could be read."""
    yield from _seeds(draft)
    yield from _references(draft)
    yield from _horizons(draft)
    yield from _sites(draft)
    yield from _augmentation(draft)
    yield from _engine(draft)
    yield from _precision(draft)
    yield from _stack(draft)
    yield from _patch(draft)
    yield from _evaluation(draft)
    yield from _costs(draft)
    ids = ((f"requests.{i}.id", request.id) for i, request in draft.requests.items())
    yield from twice(ids, "request id")
    for i, request in draft.requests.items():
        yield from _request(draft, f"requests.{i}", request)
    yield from stream_findings(draft)
    if draft.sequential:
        yield from _in_sequence(draft)
    yield from _canary(draft)
    yield from plan_findings(draft, all(_is_clear(request) for request in draft.requests.values()))


def _seeds(draft: Draft) -> Iterator[Finding]:
    if draft.top is None:
        return
    if not draft.top.seeds:
        yield "seeds", "the list is empty; expected at least one whole number, such as [7, 8, 9]"
    yield from twice(((f"seeds.{i}", str(seed)) for i, seed in enumerate(draft.top.seeds)), "seed")


def _references(draft: Draft) -> Iterator[Finding]:
    if draft.top is None or draft.top.references is None or not draft.top.seeds:
        return
    asked, seeds = draft.top.references, draft.top.seeds
    if asked < len(seeds):
        why = f"each of the {len(seeds)} seeds has a retrained model of its own"
        yield "references", f"found {asked}, but {why}: write {len(seeds)} or more, or leave it out"
    elif max(seeds) + asked - len(seeds) > LARGEST_SEED:
        why = f"their seeds follow {max(seeds)}, and end beyond {LARGEST_SEED}"
        yield "references", f"found {asked}, but {why}: choose smaller seeds"


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
    names, shares = draft.sites.names, draft.sites.split
    if len(names) < 2:
        yield "sites.names", f"found {len(names)}, expected at least 2 hospitals: one cannot train federated"
    yield from twice(((f"sites.names.{i}", name) for i, name in enumerate(names)), "site")
    for i, name in enumerate(names):
        if name.casefold() == SERVER:
            message = f"the name {name!r} is used for the server itself; choose another for the hospital"
            yield f"sites.names.{i}", message
    if isinstance(shares, Shares) and abs((total := sum(astuple(shares))) - 1) > 1e-6:
        yield "sites.split", f"train, val, test and proxy sum to {total:g}, expected 1"


def _augmentation(draft: Draft) -> Iterator[Finding]:
    """Of a model that takes images and volumes, `fedunlearn.campaign.suitability` looks at the data."""
    if draft.model is None or draft.training is None or 2 in draft.model.dimensions:
        return
    if (name := draft.training.local.augmentation) != "none":
        advice = f"model {draft.model.name!r} takes volumes: write none, or leave it out"
        yield "training.augmentation", f"{name} is for 2D images, {advice}"


def _engine(draft: Draft) -> Iterator[Finding]:
    """That a device is there is found out on every machine before anything else is done."""
    engine = draft.engine
    if engine is None:
        return
    if engine.gpus_per_client > 1:
        why = "a worker works on one GPU: write 1, or less to let several share one"
        yield "engine.gpus_per_client", f"found {engine.gpus_per_client:g}, expected 0 to 1; {why}"
    if engine.name == "inline" and engine.gpus_per_client:
        advice = "write device: cuda, or use name: flower"
        yield "engine.gpus_per_client", f"the engine inline is one process, whose GPU is not shared: {advice}"
    if engine.name == "flower" and engine.device != "cpu":
        advice = "write gpus_per_client: 1 instead of device, or use name: inline"
        yield "engine.device", f"the engine flower gives its workers shares of GPUs: {advice}"


def _precision(draft: Draft) -> Iterator[Finding]:
    """On a CPU (AVX512_BF16), torch 2.13 gets the weight gradient of a Conv3d wrong where maps are 2 voxels deep.

    TF32 is a GPU's, and is switched on for all threads of a process.
    """
    if draft.training is None or draft.engine is None:
        return
    precision, engine = draft.training.local.precision, draft.engine
    if precision != "float32" and not engine.on_gpu:
        gpu = (
            "{name: inline, device: cuda}"
            if engine.name == "inline"
            else "{name: flower, gpus_per_client: 1}"
        )
        advice = f"write float32, or work on a GPU: engine: {gpu}"
        yield "training.precision", f"{precision} is for GPUs, and this engine works on the CPU: {advice}"
    if precision == "tf32" and engine.name == "inline" and (engine.workers or 1) > 1:
        why = "tf32 is switched on and off for all workers of the engine inline at once"
        yield "training.precision", f"{why}: write workers: 1, float32 or bfloat16"


def _stack(draft: Draft) -> Iterator[Finding]:
    """Whether a model's layers can be stacked is checked when the data is there (`fedunlearn.campaign.suitability`)."""
    if draft.training is None or (stack := draft.training.local.stack) == 1:
        return
    local, advice = draft.training.local, "leave it out"
    if draft.engine is not None and draft.engine.on_gpu:
        yield "training.stack", f"found {stack}, but nobody has tried stacks on a GPU: {advice}"
    if local.optimizer == "adahessian":
        why = "the curvature of adahessian is of one loss"
        yield "training.stack", f"found {stack}, but {why}: {advice}, or choose another optimizer"
    if local.micro_batch is not None:
        yield (
            "training.stack",
            f"found {stack}, but a stack is not cut into micro-batches: {advice}, or those",
        )


def _patch(draft: Draft) -> Iterator[Finding]:
    """That it fits into the data's volumes is checked when these are there (`fedunlearn.campaign.suitability`)."""
    if draft.model is None or not isinstance(draft.model, Patched):
        return
    model, smallest = draft.model.name, draft.model.smallest
    for i, edge in enumerate(draft.model.patch or ()):
        if edge < smallest:
            yield (
                f"model.patch.{i}",
                f"found {edge}, but model {model!r} needs at least {smallest} voxels: raise it",
            )


def _evaluation(draft: Draft) -> Iterator[Finding]:
    if draft.evaluation is not None and draft.evaluation.shadows % 2:
        found = draft.evaluation.shadows
        yield (
            "evaluation.shadows",
            f"found {found}, expected an even number: shadows come in complementary pairs",
        )
    pictures = draft.evaluation is not None and draft.evaluation.pictures
    if pictures and draft.model is not None and not facts(draft.model.kind).pictures:
        yield (
            "evaluation.pictures",
            f"pictures are of images with one class each, but model {draft.model.name!r} is for {draft.model.kind}: "
            f"remove them{'; slices of volumes are drawn anyway' if facts(draft.model.kind).slices else ''}",
        )


def _costs(draft: Draft) -> Iterator[Finding]:
    """That there are as many as classes is checked when the data is there (`fedunlearn.campaign.suitability`)."""
    costs = draft.evaluation.costs if draft.evaluation else None
    if costs is None:
        return
    if draft.model is not None and not facts(draft.model.kind).one_class:
        yield (
            "evaluation.costs",
            f"costs are of classes of images, but model {draft.model.name!r} is for {draft.model.kind}: remove them",
        )
    for i, row in enumerate(costs):
        if len(row) != len(costs):
            message = (
                f"found {len(row)} numbers in one of {len(costs)} rows, expected as many: one for each class"
            )
            yield f"evaluation.costs.{i}", message
        elif row[i]:
            yield f"evaluation.costs.{i}.{i}", f"found {row[i]:g}, expected 0: to be right costs nothing"


def _is_clear(request: Request) -> bool:
    return request.named == 1


def _request(draft: Draft, key: str, request: Request) -> Iterator[Finding]:
    if draft.sites is not None and request.site not in draft.sites.names:
        hint = meant(request.site, draft.sites.names)
        yield (
            f"{key}.site",
            f"unknown site {request.site!r}{hint}; expected {listed(draft.sites.names)} (sites.names)",
        )
    if request.named > 1:
        given = {"`patients`": request.patients, "`images`": request.images}
        both = [name for name, value in given.items() if value is not None]
        both += ["`whole_site: true`"] if request.whole_site else []
        what = f"has both {' and '.join(both)}" if len(both) == 2 else f"has {', '.join(both)}"
        yield key, f"request {request.id!r} {what}; keep one of them"
    if not request.named:
        yield key, f"request {request.id!r} names nothing to forget; add `patients` or `whole_site: true`"
    if request.images is not None:
        yield from twice(((f"{key}.images.{i}", image) for i, image in enumerate(request.images)), "image")
        if not request.images:
            yield f"{key}.images", "the list is empty; name images, or remove it"
    if isinstance(request.patients, Pick):
        yield from _pick(f"{key}.patients", request.patients)
    if isinstance(request.patients, tuple):
        ids = ((f"{key}.patients.{i}", patient) for i, patient in enumerate(request.patients))
        yield from twice(ids, "patient")
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
    if draft.complete and not any(request.whole_site for request in draft.stream):
        why = "canaries are put into hospitals that leave, and no request has `whole_site: true`"
        yield "evaluation.canary", f"{why}: add such a request, or remove the canaries"
    if draft.model is not None and not facts(draft.model.kind).one_answer:
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

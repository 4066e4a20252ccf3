"""A card for every model that a run kept: what it was trained on, what was to be forgotten, what was found, limits.

Markdown with the front matter that Hugging Face's hub reads. Cards are for others, so they hold counts: no patient or
image is named, and no folder or machine. Findings are those of the strategy in the mean over seeds, and say so; they
are put in the words of what was seen, never as a fact about what a model holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fedunlearn.exports.findings import memory
from fedunlearn.exports.holdings import Holding, holdings, nameless, note, phantom, remaining
from fedunlearn.exports.kept import Model, kept
from fedunlearn.exports.papers import tidy
from fedunlearn.exports.settings import settings, shared
from fedunlearn.results import margins
from fedunlearn.results.classes import called
from fedunlearn.results.kinds import noun, spoken, words
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import limits, number
from fedunlearn.results.wording import code, item, quoted, row
from fedunlearn.scoring.kinds import scored


def models(run: RunFolder) -> dict[str, str]:
    """The cards by file name, of all models whose weights are there.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing or damaged.
    """
    manifest, table, held = run.read_manifest(), tidy(run), holdings(run)
    scores = run.read_table("scores.parquet")
    return {
        f"models/{model.name}.md": _card(run, model, manifest, table, scores, held)
        for model in kept(manifest)
        if f"weights/{model.name}.safetensors" in manifest["sha256"]
    }


def _card(
    run: RunFolder,
    model: Model,
    manifest: Mapping[str, Any],
    table: pd.DataFrame,
    scores: pd.DataFrame,
    held: list[Holding],
) -> str:
    parts = [
        *_front(run, model, manifest, scores),
        f"# {quoted(model.name)}\n",
        *_what(run, model, manifest),
        "## Trained on\n",
        *_data(run, model, held),
        "## What was asked to be forgotten, and what was found\n",
        *_found(model, manifest, table, margins.changed(run)),
        "## How good this file is\n",
        *_good(model, manifest, scores),
        "## What nobody can say of it\n",
        *_limits(run, manifest),
        "## Where it is from\n",
        *_origin(run, model, manifest),
    ]
    return "\n".join(parts)


def _front(run: RunFolder, model: Model, manifest: Mapping[str, Any], scores: pd.DataFrame) -> list[str]:
    """YAML, every value as JSON, which YAML takes and which quotes whatever is in a name."""
    quality, task = scored(manifest["kind"]).tested, words(manifest["kind"]).pipeline
    value = _own(model, scores).get((quality, "all"))
    result = {
        "task": {"type": task},
        "dataset": {"name": f"{manifest['name']}-data", "type": "croissant"},
        "metrics": [{"type": quality.removeprefix("test_"), "name": f"{quality} (unseen)", "value": value}],
    }
    index = [] if value is None else [{"name": model.name, "results": [result]}]
    tags = ["federated-learning", "machine-unlearning", "medical-imaging", model.role]
    front = {
        "license": "unknown",
        "library_name": "fedunlearn",
        "pipeline_tag": task,
        "tags": [*tags, *(["phantom-data"] if phantom(run) else [])],
        **({"model-index": index} if index else {}),
    }
    return ["---", *(f"{key}: {json.dumps(content)}" for key, content in front.items()), "---\n"]


# ----------------------------------------------------------------------------------------------- sections


def _what(run: RunFolder, model: Model, manifest: Mapping[str, Any]) -> list[str]:
    """What it is, in two sentences, and what it is for."""
    network = shared(settings(run).rest.get("model") or {})
    name = code(network.pop("name", "a network"))
    more = f" ({quoted(', '.join(f'{key} {value}' for key, value in network.items()))})" if network else ""
    how = {
        "original": "trained by federated learning at all hospitals below, whoever asked to be forgotten among them.",
        "retrained": "trained again by federated learning, without the data that was asked to be forgotten.",
        "strategy": f"what the unlearning strategy {code(model.strategy)} made of an original model.",
    }[model.role]
    start = (
        f" Training began from {quoted(nameless(run, begun))}."
        if (begun := manifest.get("pretrained"))
        else ""
    )
    settled = _settings(run, model)
    return [
        f"A {name}{more} for {words(manifest['kind']).pipeline.replace('-', ' ')}, seed {model.seed}: {how}{start}\n",
        *([f"Settings: {settled}.\n"] if settled else []),
        "It was made in a simulation, to compare ways of unlearning. It is no medical device and is not meant for "
        "diagnosis or for any decision about a person.\n",
    ]


def _settings(run: RunFolder, model: Model) -> str:
    known = settings(run).of(model.strategy, model.request) if model.role == "strategy" else {}
    return quoted(", ".join(f"{key} {value}" for key, value in shared(known).items() if key != "as"))


def _data(run: RunFolder, model: Model, held: list[Holding]) -> list[str]:
    """Hospitals and counts: what it saw in training, and what other images there are."""
    what = noun(run.read_manifest()["kind"])
    gone = (model.request, *model.earlier, *model.without) if model.role == "retrained" else ()
    left = remaining(run, gone)
    head = [row(["hospital", f"training {what}s", "patients", f"unseen {what}s"]), row(["---"] * 4)]
    rows = []
    for site in dict.fromkeys(one.site for one in held):
        own = {one.split: one for one in held if one.site == site}
        seen, patients = left.get(site, (0, 0))
        unseen = sum(one.images for one in own.values() if one.split in ("val", "test"))
        rows.append(row([site, seen, patients, unseen]))
    drawn = "**These are phantoms: nothing here is of a real person.** " if phantom(run) else ""
    digest = run.read_manifest()["data"]["digest"]
    return [
        f"{drawn}{quoted(note(run))} Digest of the data: `{digest}`. Its licence is unknown here; ask its owner.\n",
        *head,
        *rows,
        "",
    ]


def _found(model: Model, manifest: Mapping[str, Any], table: pd.DataFrame, changed: str) -> list[str]:
    """The requests, and the two answers in words of what was seen; ``changed`` tells of margins that were."""
    asked = {moment["forgets"]: moment["summary"] for moment in manifest["moments"]}
    if model.role == "original":
        told = [item(f"{request}: {summary}") for request, summary in asked.items()]
        return [*told, "\nThis model is from before these requests: all of that data is in its training.\n"]
    dated = "calendar" in manifest  # requests are one stream, told by its summary
    honoured = (model.request,) if dated else (*model.earlier, model.request)
    told = [item(f"{request}: {asked.get(request, request)}") for request in honoured]
    if model.earlier and not dated:
        told.append("\nThe last of these was the newest; the others had been honoured before it.")
    said = [*told, ""]
    if model.role == "retrained":
        return [
            *said,
            "This model was trained again without the data. Whether replaying it gives the same bits is what "
            "`fedunlearn verify RUN --replay N` tries. It is what unlearned models are compared with.\n",
        ]
    own = table[(table["request"] == model.moment) & (table["strategy"] == model.strategy)]
    if own.empty:
        return [*said, "Nothing was judged of it.\n"]
    (known,) = own.to_dict("records")
    about = (
        f"Of {code(model.strategy)} in the mean over {int(known['seeds'])} seeds, not of this file alone: "
    )
    since = [f"{quoted(changed)}\n"] if changed else []
    return [*said, f"{about}{memory(known)} {_use(known, manifest, bool(changed))}\n", *since]


def _use(known: Mapping[Any, Any], manifest: Mapping[str, Any], changed: bool) -> str:
    difference, half = known["test_difference"], known["test_difference_half"]
    seen = f"on unseen data it differs from retraining by {number(difference)} (±{number(half)})"
    if known["useful"] == "yes":
        return f"As to use, {seen}, within {'margins that were changed since' if changed else 'the declared margins'}."
    if known["useful"] == "worse":
        part = called(
            manifest["kind"], known["worst_class"], manifest.get("names", ()), manifest.get("classes", 0)
        )
        where = [
            *([f"at hospital {quoted(known['worst_site'])}"] if known["worst_site"] else []),
            *([f"for {quoted(part)}"] if known["worst_class"] else []),
        ]
        most = f"; most is lost {' and '.join(where)}" if where else ""
        return f"It is worse than retraining: {seen}{most}."
    return f"Whether it is still as good cannot be told: {seen}."


def _good(model: Model, manifest: Mapping[str, Any], scores: pd.DataFrame) -> list[str]:
    """Its own numbers, of this one training."""
    own, (word, _, what) = _own(model, scores), spoken(manifest["kind"])
    name = scored(manifest["kind"]).tested
    if (name, "all") not in own:
        return [f"It was trained only to compare with; its {word} stands nowhere alone.\n"]
    sites = [
        (group, value)
        for (measure, group), value in own.items()
        if measure == name and group.startswith("site=")
    ]
    told = [("all unseen " + what + "s", own[name, "all"])]
    told += [(f"those of {group.partition('=')[2]}", value) for group, value in sites]
    return [row(["", word]), row(["---", "---"]), *(row([of, number(value)]) for of, value in told), ""]


def _own(model: Model, scores: pd.DataFrame) -> dict[tuple[str, str], float]:
    mine = scores[
        (scores["request"] == model.moment)
        & (scores["strategy"] == model.strategy)
        & (scores["seed"] == model.seed)
    ].dropna(subset="value")
    keys = zip(mine["measure"].astype(str), mine["group"].astype(str), strict=True)
    return dict(zip(keys, mine["value"].astype(float), strict=True))


def _limits(run: RunFolder, manifest: Mapping[str, Any]) -> list[str]:
    return [
        f"{quoted(limits(manifest.get('probes', {}).get('names', ())))} Evidence about models of this kind and these "
        "attacks is no proof. A model may be personal data whatever was measured of it: that is for its controller to "
        "assess.\n",
    ]


def _origin(run: RunFolder, model: Model, manifest: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    digest = manifest["sha256"][f"weights/{model.name}.safetensors"]
    return [
        item(f"run {manifest['name']}, fedunlearn {manifest['fedunlearn']}; {versions}"),
        f"- file {code(f'{model.name}.safetensors')}, sha256 `{digest}`",
        "- `fedunlearn verify RUN` checks files and audit log of the run that it is from",
        "- licence: unknown; whoever gives this file away has to say under which terms\n",
    ]

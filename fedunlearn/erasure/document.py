"""What a record says: all that the run knows of one request, and blanks for what only people know.

A blank is None. `blanks` lists them, since a record with blanks is not finished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from fedunlearn import __version__, scenario as scenarios
from fedunlearn.erasure import remedies as found
from fedunlearn.erasure.facts import Facts, Request
from fedunlearn.exports.kept import Model, kept
from fedunlearn.exports.papers import tidy
from fedunlearn.exports.settings import Settings, settings
from fedunlearn.results.contents import OF_PATIENTS
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import WORDS
from fedunlearn.scenario import Scenario

VERSION = 1
"""Of the layout of records."""
LIMITS = "This is evidence about these models and these tests. It is no proof, and no legal advice."


@dataclass(frozen=True)
class Sources:
    """What records of a run are made of, read once.

    Attributes:
        run: the folder.
        manifest: its manifest.
        scenario: what was run, and as it was written.
        images: one row per image.
        table: `exports.papers.tidy`.
        models: all that were kept.
    """

    run: RunFolder
    manifest: Mapping[str, Any]
    scenario: Scenario
    written: Settings
    images: pd.DataFrame
    table: pd.DataFrame
    models: tuple[Model, ...]

    @classmethod
    def of(cls, run: RunFolder) -> Sources:
        """Read them.

        Raises:
            InputError: the run was judged by an older version.
            RunError: a file is missing or damaged.
        """
        manifest = run.read_manifest()
        scenario = scenarios.read(run.path / "scenario.yaml")
        images = run.read_table("sites.parquet")
        return cls(run, manifest, scenario, settings(run), images, tidy(run), tuple(kept(manifest)))

    def about(self, request: str) -> list[Model]:
        """The models that were made for a request."""
        return [model for model in self.models if model.request == request]

    def remedies(self) -> dict[str, list[str]]:
        """By request, what it can have been answered with."""
        return {
            one.id: list(dict.fromkeys(model.strategy for model in self.about(one.id)))
            for one in self.scenario.requests
        }

    def asked(self, request: str) -> pd.DataFrame:
        """The images that a request is about, whatever they are used for."""
        return self.images[[request in names for names in self.images["forgotten_by"]]]


def document(
    sources: Sources,
    request: scenarios.Request,
    facts: Facts,
    references: Mapping[str, list[str]],
) -> dict[str, Any]:
    """The content of a record, without its place in the chain and its signature.

    Args:
        sources: the run.
        request: what it is about.
        facts: what people know.
        references: by hospital, how the record calls the patients; of a whole hospital nobody is called anything.
    """
    known, manifest = facts.requests.get(request.id, Request()), sources.manifest
    own = sources.about(request.id)
    tried = found.remedies(sources.scenario, sources.written, manifest, sources.table, own, request.id)
    return {
        "format": {"name": "fedunlearn erasure record", "version": VERSION, "language": "en"},
        "made_by": f"fedunlearn {__version__}",
        "simulated": True,
        "run": {
            "name": manifest["name"],
            "data": manifest["data"]["digest"],
            "code": sorted({machine["code"] for machine in manifest["machines"] if "code" in machine}),
        },
        "controllers": _controllers(sources, facts),
        "request": _asked(sources, request, known, references),
        "clock": _clock(known),
        "decision": {
            "decision": known.decision,
            "decided_by": known.decided_by,
            "reasons": known.reasons,
            "remedies_told": known.remedies_told,
        },
        "where_the_data_was": list(_holding(sources, request.id, known)),
        "models": list(_models(sources, request.id)),
        "models_are_personal_data": known.personal_data,
        "remedies": list(tried),
        "remedy_used": known.remedy,
        "clinical_review": known.clinical_review,
        "recipients": {"of_models": _SENT, "others": known.recipients},
        "not_again": known.not_again,
        "retention": known.retention,
        "not_tested": found.untested(manifest),
        "limits": LIMITS,
    }


_SENT = (
    "every hospital above got every model that is listed here, to evaluate it, and in training the models of those "
    "rounds that asked it"
)


def _controllers(sources: Sources, facts: Facts) -> dict[str, Any]:
    hospitals = dict.fromkeys(map(str, sources.images["site"]))
    return {
        "hospitals": {site: facts.controllers.get(site) for site in hospitals},
        "coordinator": facts.coordinator,
        "processors": facts.processors,
    }


def _asked(
    sources: Sources, request: scenarios.Request, known: Request, references: Mapping[str, list[str]]
) -> dict[str, Any]:
    """What was asked for, by whom, when and how."""
    images = sources.asked(request.id)
    return {
        "id": request.id,
        "scope": "hospital" if request.whole_site else "patients",
        "hospital": request.site,
        "patients": int(images["patient"].nunique()),
        "images": _counted(images),
        "subjects": {
            "scheme": "HMAC-SHA256 of hospital and patient, under a key in the hospital's slip",
            "references": dict(references),
        },
        "received": known.received,
        "channel": known.channel,
        "identity_checked": known.identity_checked,
        "ground": known.ground,
    }


def blanks(content: object, before: str = "") -> list[str]:
    """What only people can fill in and nobody has, by dotted key; lists count from 0."""
    if content is None:
        return [before]
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(content, Mapping):
        pairs = content.items()
    elif isinstance(content, list):
        pairs = enumerate(content)
    return [name for key, value in pairs for name in blanks(value, f"{before}.{key}" if before else str(key))]


def canonical(content: Mapping[str, Any]) -> bytes:
    """The bytes that a record's signature is of."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _clock(known: Request) -> dict[str, Any]:
    clock = known.clock
    extension = {
        "to": known.extended_to,
        "reason": known.extension_reason,
        "told": known.extension_told,
        "does_not_count": list(clock.objections),
    }
    reckoned = {"due": clock.due and str(clock.due), "days": clock.days, "days_late": clock.late}
    return {
        "answered": known.answered,
        **({"extension": extension} if known.extended_to else {}),
        **{name: value for name, value in reckoned.items() if value is not None},
    }


def _counted(images: pd.DataFrame) -> dict[str, dict[str, int]]:
    """By hospital and use, how many images."""
    counts: Mapping[Any, int] = Counter(
        zip(images["site"].astype(str), images["split"].astype(str), strict=True)
    )
    return {
        site: {split: n for (at, split), n in sorted(counts.items()) if at == site}
        for site in sorted({site for site, _ in counts})
    }


def _holding(sources: Sources, request: str, known: Request) -> Iterator[dict[str, Any]]:
    """Where the data was found, and what was done about it there."""
    kind = sources.manifest["kind"]
    for site, splits in _counted(sources.asked(request)).items():
        what = f"{sum(splits.values())} {WORDS[kind][2]}s"
        yield {"where": f"hospital {site}", "what": what, "action": known.at_hospital}
    names = ["manifest.json", *sources.manifest["sha256"]]
    of = Counter(next((one for one in OF_PATIENTS if fnmatchcase(name, one)), "") for name in names)
    for pattern, what in OF_PATIENTS.items():
        if files := of[pattern]:
            yield {"where": f"run folder, {pattern}", "what": what, "files": files, "action": "still there"}


def _models(sources: Sources, request: str) -> Iterator[dict[str, Any]]:
    """Every model that the run kept: whether it saw the data, and what it was made from."""
    sums = {
        model: sources.manifest["sha256"].get(f"weights/{model.name}.safetensors") for model in sources.models
    }
    clean = {digest for model, digest in sums.items() if _without(model, request)}
    for model, digest in sums.items():
        yield {
            "file": f"weights/{model.name}.safetensors",
            "sha256": digest,
            "seed": model.seed,
            "saw_the_data": digest not in clean,
            **_descent(model, sources),
        }


def _without(model: Model, request: str) -> bool:
    """Whether a model was trained again without a request's data; others, unless they have its bits, saw the data.

    So did those that a strategy made: what it was given to make them from had seen it.
    """
    return model.role == "retrained" and request in (model.request, *model.earlier)


def _descent(model: Model, sources: Sources) -> dict[str, Any]:
    """What an unlearned model was made from: the original one, or the strategy's own of the request before."""
    if model.role != "strategy":
        return {}
    before = model.earlier[-1] if model.earlier else ""
    of = ("strategy", model.strategy, before) if before else ("original", "original", "")
    made = next(
        (
            one
            for one in sources.models
            if (one.role, one.strategy, one.request) == of and one.seed == model.seed
        ),
        None,
    )
    return {
        "descends_from": None if made is None else f"weights/{made.name}.safetensors",
        "by": model.strategy,
        "asked_to_forget": [*model.earlier, model.request],
    }

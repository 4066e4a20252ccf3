"""What a record says: all that the run knows of one request, and blanks for what only people know.

A blank is None. `blanks` lists them, since a record with blanks is not finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fedunlearn import __version__, scenario as scenarios
from fedunlearn.erasure import remedies as found, tombstones, years
from fedunlearn.erasure.facts import Facts, Request
from fedunlearn.erasure.sources import Sources
from fedunlearn.erasure.whereabouts import holding, models
from fedunlearn.erasure.years import Year
from fedunlearn.results.purged import purges

VERSION = 1
"""Of the layout of records."""
MADE_BY = f"fedunlearn {__version__}"
"""What a record says that this version wrote."""
LIMITS = "This is evidence about these models and these tests. It is no proof, and no legal advice."


def document(
    sources: Sources,
    request: scenarios.Request,
    facts: Facts,
    references: Mapping[str, list[str]],
    written: str = "",
) -> dict[str, Any]:
    """The content of a record, without its place in the chain and its signature.

    Args:
        sources: the run.
        request: what it is about.
        facts: what people know.
        references: by hospital, how the record calls the patients; of a whole hospital nobody is called anything.
        written: the day on which it is written.
    """
    known, manifest = facts.requests.get(request.id, Request()), sources.manifest
    own = sources.about(request.id)
    tried = (
        ()
        if sources.year
        else found.remedies(
            sources.scenario, sources.written, sources.models, sources.table, own, request.id, manifest
        )
    )
    content = {
        "format": {"name": "fedunlearn erasure record", "version": VERSION, "language": "en"},
        "made_by": MADE_BY,
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
        "where_the_data_was": list(holding(sources, request.id, known)),
        "models": list(models(sources, request.id)),
        "models_are_personal_data": known.personal_data,
        "remedies": list(tried),
        "remedy_used": known.remedy,
        **_purged(sources, request.id),
        "clinical_review": known.clinical_review,
        "recipients": {"of_models": _SENT, "others": known.recipients},
        "not_again": known.not_again,
        "retention": known.retention,
        "not_tested": found.untested(manifest),
        "limits": LIMITS,
    }
    return (
        content
        if sources.year is None
        else {**content, **_dated(sources, sources.year, request.id, known, content, written)}
    )


def _dated(
    sources: Sources,
    year: Year,
    id: str,
    known: Request,
    content: Mapping[str, Any],
    written: str,
) -> dict[str, Any]:
    """What is otherwise in a record of a run with a calendar: the simulation fills in what it knows."""
    why = years.answerable(year, id)
    nothing = year.decided(id) != "accepted"
    untouched = {
        **dict.fromkeys(("models", "where_the_data_was"), ()),
        **dict.fromkeys(("models_are_personal_data", "clinical_review", "not_again"), years.NOTHING),
    }
    return {
        "simulated_fields": list(years.SIMULATED),
        "clocks": years.CLOCKS,
        "request": {**content["request"], **years.request(year, id)},
        "decision": years.decision(year, id, known),
        "clock": years.clock(year, id, written),
        "remedies": [] if why else list(found.of_year(sources, year, id)),
        **({"no_remedy": why, "remedy_used": why} if why else {}),
        **(
            {key: list(value) if value == () else value for key, value in untouched.items()}
            if nothing
            else {}
        ),
    }


def _purged(sources: Sources, request: str) -> dict[str, Any]:
    """What was purged from the run for a request; nothing if nothing was."""
    done = purges(sources.manifest, request)
    if not done:
        return {}
    stones = {"file": tombstones.FILE, "sha256": sources.manifest["sha256"].get(tombstones.FILE)}
    told = [{"date": one["date"], "kept": one["kept"], "models": len(one["models"])} for one in done]
    return {"purged": told, "tombstones": stones}


_SENT = (
    "every hospital above got every model that is listed here, to evaluate it, and in training the models of those "
    "rounds that asked it"
)


def _controllers(sources: Sources, facts: Facts) -> dict[str, Any]:
    return {
        "hospitals": {site: facts.controllers.get(site) for site in sources.sites},
        "coordinator": facts.coordinator,
        "processors": facts.processors,
    }


def _asked(
    sources: Sources, request: scenarios.Request, known: Request, references: Mapping[str, list[str]]
) -> dict[str, Any]:
    """What was asked for, by whom, when and how."""
    patients, images = sources.counts(request.id)
    return {
        "id": request.id,
        "scope": "hospital" if request.whole_site else "patients" if request.images is None else "images",
        "hospital": request.site,
        "patients": patients,
        "images": images,
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

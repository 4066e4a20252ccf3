"""A record as a page for people: the same content in the same order, with lines to write on where nobody knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedunlearn.erasure.keys import fingerprint
from fedunlearn.erasure.remedies import told
from fedunlearn.pages.html import render
from fedunlearn.pages.tables import Column, Table, words
from fedunlearn.results.sentences import counted

_SCOPES = {
    "patients": "some patients",
    "images": "some images",
    "hospital": "a whole hospital",
    "opt-out": "an opt-out of patients",
}


@dataclass(frozen=True)
class Field:
    """A line of a record; without text, a line to write on."""

    name: str
    text: str


@dataclass(frozen=True)
class Block:
    """Some of its lines, and a table if there is one."""

    title: str
    fields: tuple[Field, ...] = ()
    table: Table | None = None


def page(record: Mapping[str, Any]) -> str:
    """A record in HTML, one file that needs no network."""
    request = record["request"]
    blocks = [
        Block("The request", _request(record)),
        Block("Time", _time(record), _policies(record)),
        Block("Decision", _decision(record)),
        Block("What can be said of the remedies", _used(record), _remedies(record)),
        Block("Where the data was", _fields(("what the hospital did", _done(record))), _places(record)),
        Block("Models", _models(record), _descent(record)),
        Block("Who has it, and what follows", _after(record)),
        Block("How to check this record", _checking(record)),
    ]
    return render(
        "record.html",
        title=f"Request {request['id']}: erasure record",
        asks=_asks(record["request"]),
        run=record["run"]["name"],
        untested=[*record["not_tested"], record["limits"]],
        blocks=blocks,
        blanks=len(record["blanks"]),
    )


def _asks(request: Mapping[str, Any]) -> str:
    """What a heading says of it."""
    images = sum(sum(splits.values()) for splits in request["images"].values())
    if not images:
        return f"hospital {request['hospital']}, of nobody's images"
    patients = counted(request["patients"], "patient")
    return {
        "patients": f"{patients} of {request['hospital']}",
        "images": f"{counted(images, 'image')} of patients of {request['hospital']}",
        "opt-out": f"{patients} of {request['hospital']}, who opted out",
    }.get(request["scope"], f"all of hospital {request['hospital']}")


def _request(record: Mapping[str, Any]) -> tuple[Field, ...]:
    request = record["request"]
    references = [one for some in request["subjects"]["references"].values() for one in some]
    images = sum(sum(splits.values()) for splits in request["images"].values())
    if references:
        who = f"{counted(len(references), 'reference')} in the JSON, each an {request['subjects']['scheme']}"
    elif request["scope"] == "hospital":
        who = "a hospital, no person"
    else:
        who = "no reference is known"
    number = "not counted: it was not accepted"
    if images:
        number = f"{counted(request['patients'], 'patient')}, {counted(images, 'image')}"
    return _fields(
        ("about", f"{_SCOPES[request['scope']]} of {request['hospital']}: {number}"),
        ("who they are", who),
        ("came in", request["received"]),
        ("how", request["channel"]),
        ("identity checked", request["identity_checked"]),
        ("right and ground", request["ground"]),
    )


def _time(record: Mapping[str, Any]) -> tuple[Field, ...]:
    clock = record["clock"]
    if "policies" in clock:
        request = record["request"]
        own = [
            (name, request[key])
            for name, key in (("opted out from", "opt_out_from"), ("which means", "opt_out"))
            if key in request
        ]
        return _fields(
            ("due", clock["due"]),
            *((("due at most, if extended", clock["due_at_most"]),) if "due_at_most" in clock else ()),
            *own,
        )
    extension = clock.get("extension")
    more: tuple[tuple[str, str], ...] = ()
    if extension:
        against = (
            f"; it does not count: {'; '.join(extension['does_not_count'])}"
            if extension["does_not_count"]
            else ""
        )
        reason = extension["reason"] or "no reason given"
        more = (("extended", f"to {extension['to']}, {reason}, told on {extension['told'] or '?'}{against}"),)
    late = clock.get("days_late")
    in_time = "" if late is None else " in time" if not late else f" {counted(late, 'day')} late"
    answered = (
        f"{clock['answered']}, after {counted(clock['days'], 'day')},{in_time}"
        if "days" in clock
        else clock["answered"]
    )
    return _fields(("due", clock.get("due")), *more, ("answered", answered))


def _policies(record: Mapping[str, Any]) -> Table | None:
    """Of a year, what happened when by each policy."""
    rows = [
        (
            one["policy"],
            "; ".join(map(_state, one["states"])),
            str(one.get("days", "")),
            str(one["days_late"]),
            one["until_then"],
        )
        for one in record["clock"].get("policies", ())
    ]
    caption = "What happened by each policy. Days are those of the simulation, but for days in brackets."
    heads = ("policy", "states", "days", "days late", "until then")
    return _table("policies", caption, heads, rows)


def _state(one: Mapping[str, Any]) -> str:
    return f"{one['state']} {one['date']}" if "date" in one else f"{one['state']} ({one['real_date']})"


def _decision(record: Mapping[str, Any]) -> tuple[Field, ...]:
    decision = record["decision"]
    return _fields(
        ("decision", decision["decision"]),
        *((("on", decision["decided"]),) if "decided" in decision else ()),
        ("by", decision["decided_by"]),
        ("reasons", decision["reasons"]),
        *((("answered already by", decision["answered_by"]),) if "answered_by" in decision else ()),
        ("told of complaint and court", decision["remedies_told"]),
    )


def _used(record: Mapping[str, Any]) -> tuple[Field, ...]:
    return _fields(
        ("remedy that was used", record["remedy_used"]), ("clinical review", record["clinical_review"])
    )


def _remedies(record: Mapping[str, Any]) -> Table | None:
    rows = [
        (
            f"{one['policy']}: {one['strategy']}" if "policy" in one else one["strategy"],
            one["kind"],
            " ".join(filter(None, (one["evidence"]["words"], one.get("of_this_request", {}).get("words")))),
            told(one["measured"]) if "measured" in one else "what others are compared with",
        )
        for one in record["remedies"]
    ]
    heads = ("remedy", "kind", "what can be said of memory", "use on unseen images")
    return _table(
        "remedies",
        "Every remedy that the simulation tried. Settings and numbers are in the JSON.",
        heads,
        rows,
    )


def _done(record: Mapping[str, Any]) -> str | None:
    places = record["where_the_data_was"]
    return next((one["action"] for one in places if "files" not in one), None if places else "nothing")


def _places(record: Mapping[str, Any]) -> Table | None:
    rows = [
        (one["where"], one["what"], str(one.get("files", "")), one["action"] or "")
        for one in record["where_the_data_was"]
    ]
    return _table(
        "places",
        "The hospital's images, and files of the run folder that have a row, an id or pixels of patients.",
        ("where", "what", "files", "what was done"),
        rows,
    )


def _models(record: Mapping[str, Any]) -> tuple[Field, ...]:
    return _fields(("treated as personal data", record["models_are_personal_data"]))


def _descent(record: Mapping[str, Any]) -> Table | None:
    purged = "purged" in record
    rows = [
        (
            one["file"],
            (one["sha256"] or "")[:16],
            "yes" if one["saw_the_data"] else "no",
            _made(one),
            *((one.get("removed", "no"),) if purged else ()),
        )
        for one in record["models"]
    ]
    caption = (
        "All models that the run made. A model saw the data if that was in its training, or in that of the model that "
        "a strategy was given to make it from. Whole checksums are in the JSON."
    )
    removed = "removed (not a simulated day)" if "clocks" in record else "removed"
    heads = ("file", "sha256", "saw the data", "made from", *((removed,) if purged else ()))
    return _table("models", caption, heads, rows)


def _made(one: Mapping[str, Any]) -> str:
    """What a model was made from."""
    if "by" not in one:
        return ""
    steps = one.get("by_way_of", ())
    way = f", in {counted(len(steps), 'step')}" if steps else ""
    again = "; trained again without it" if one.get("trained_without_it") else ""
    return f"{one['descends_from'] or '?'} by {one['by']}{way}{again}"


def _after(record: Mapping[str, Any]) -> tuple[Field, ...]:
    controllers = record["controllers"]
    return _fields(
        *((f"hospital {site}", contact) for site, contact in controllers["hospitals"].items()),
        ("coordinator", controllers["coordinator"]),
        ("processors", controllers["processors"]),
        ("models went to", record["recipients"]["of_models"]),
        ("other recipients", record["recipients"]["others"]),
        ("keeps the data from coming back", record["not_again"]),
        ("kept until, and why", record["retention"]),
    )


def _checking(record: Mapping[str, Any]) -> tuple[Field, ...]:
    own, signature = record["record"], record["signature"]
    return _fields(
        ("record", own["id"]),
        ("written", own["written"]),
        ("replaces", own["previous"] or "no earlier one"),
        ("audit log before it", f"{own['audit']['lines']} lines, the last {own['audit']['head']}"),
        ("signed by key", f"{fingerprint(signature['public_key'])} ({signature['algorithm']})"),
        ("check", "fedunlearn verify RUN --key signing.pub"),
    )


def _fields(*pairs: tuple[str, str | None]) -> tuple[Field, ...]:
    return tuple(Field(name, text or "") for name, text in pairs)


def _table(name: str, caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table | None:
    """A table; None if there is nothing in it."""
    if not rows:
        return None
    columns = tuple(Column(head, numbers=False) for head in heads)
    return Table(name, caption, columns, tuple(tuple(map(words, row)) for row in rows), paper=True)

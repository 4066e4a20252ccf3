"""Records in a run folder: written, signed, chained to the audit log, and checked.

``records/REQUEST.json`` is signed; ``records/REQUEST.html`` shows the same to people, and is made of it again to check
it. The audit log has a line for every record that was written, with its sha256, so a record that is changed, replaced
or removed is noticed. Whoever could write all of the folder anew cannot sign it: that is what the public key is for,
which others keep.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from fedunlearn.erasure import facts as known, keys as pairs, registry, sheet, years
from fedunlearn.erasure.document import MADE_BY, blanks, canonical, document
from fedunlearn.erasure.facts import Facts
from fedunlearn.erasure.keys import ALGORITHM, Keys
from fedunlearn.erasure.slips import Slips, known as on_slip
from fedunlearn.erasure.sources import Sources
from fedunlearn.results import audit
from fedunlearn.results.places import locked
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import counted
from fedunlearn.scenario import Request

FOLDER = "records"
EVENT = "record-written"
MOST = 20
"""Records of which each is told in a line."""
_SIGNATURE = "signature"
_ANEW = "`fedunlearn record` writes them anew"


def write(path: Path, keys: Path, facts: Path | None = None) -> list[str]:
    """Write a record for every request of a finished run, or write them anew; tell of each, a line.

    Args:
        path: the run folder.
        keys: the folder of keys (`keys.make`), where slips are kept too.
        facts: a file of what people know (`facts.read`).

    Raises:
        InputError: there is no finished run, there are no keys or they lie in the run folder, or facts do not fit.
        RunError: a file of the run is missing or damaged, or a record cannot be written; none is changed then.
    """
    if keys.resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"{keys} lies in the run folder, expected a folder outside: nothing secret belongs there"
        )
    pair = pairs.read(keys)
    with locked(path):
        run = RunFolder.open(path)
        log = run.path / audit.FILE
        audit.verify(log, run.read_manifest()["audit"])
        sources = Sources.of(run)
        said = Facts() if facts is None else known.read(facts, sources.remedies(), sources.sites)
        if sources.year is not None:
            years.require(sources.year, said)
        slips = Slips(pair.folder)
        contents, events, told, records = dict[str, bytes](), [], list[str](), list[dict[str, Any]]()
        for request in sources.scenario.requests:
            record = _record(sources, request, said, pair, slips, _last(run, request.id))
            content = _bytes(record)
            contents[_file(request.id)] = content
            contents[_file(request.id, "html")] = sheet.page(record).encode()
            digest = hashlib.sha256(content).hexdigest()
            events.append(
                (EVENT, {"request": request.id, "record": digest, "key": pairs.fingerprint(pair.public)})
            )
            told.append(_told(path / _file(request.id), record))
            records.append(record)
        if sources.year is not None:
            contents[registry.FILE] = _list(sources.manifest["name"], records)
        contents[audit.FILE] = audit.extended_by(log, events)
        slips.keep()  # before any record names their references
        (run.path / FOLDER).mkdir(exist_ok=True)
        run.renew(contents)
    return (
        told
        if len(told) <= MOST
        else [*told[:MOST], f"… and {len(told) - MOST} more; {path / registry.FILE} lists all"]
    )


def check(run: RunFolder, by: str | None = None) -> list[str]:
    """Check a run's records against their signatures and the audit log, and their pages against them.

    Args:
        run: the folder, whose files are what its manifest says.
        by: the public key that must have signed them (`keys.public`); None for any.

    Returns:
        What was found, a line each.

    Raises:
        RunError: one is not what was signed, is of another run, is missing, or is by somebody else; or a page shows
            something else than its record. Tells all of them. With ``by``, that there is none.
    """
    lines = [json.loads(text) for text in (run.path / audit.FILE).read_text(encoding="utf-8").splitlines()]
    last = {line["request"]: line["record"] for line in lines if line["event"] == EVENT}
    there = {file.stem for file in (run.path / FOLDER).glob("*.json")}
    problems = [
        f"{run.path / _file(name)} is in no line of the audit log" for name in sorted(there - set(last))
    ]
    if by is not None and not last:
        problems.append(f"{run.path} has no erasure record, expected some by key {pairs.fingerprint(by)}")
    records, manifest = list[dict[str, Any]](), run.read_manifest()
    for name, digest in last.items():
        try:
            record = _checked(run.path / _file(name), digest, by)
        except RunError as error:
            problems.append(str(error))
            continue
        records.append(record)
        if (other := record["request"]["id"]) != name:
            problems.append(f"{run.path / _file(name)} is of another request: {other}")
        problems += [f"{run.path / _file(name)} {wrong}" for wrong in _foreign(record, lines, manifest)]
    if problems := problems or list(_otherwise(run, records)):
        raise RunError("\n".join(problems))
    if not last:
        return []
    told = ", ".join(sorted({pairs.fingerprint(record[_SIGNATURE]["public_key"]) for record in records}))
    which = "" if by else "; whether that key is the right one, `--key FILE` tells"
    events = [line["event"] for line in lines]
    since = events[len(events) - events[::-1].index(EVENT) :]
    changed = {"run-rescored": "scored again", "purged": "purged"}
    older = [
        f"the run was {what} since its records were written: {_ANEW}"
        for event, what in changed.items()
        if event in since
    ]
    are = "1 record is" if len(last) == 1 else f"{len(last)} records are"
    foreign = sum(not _ours(record) for record in records)
    pages = f"{counted(foreign, 'page')} of records that another version of fedunlearn wrote: not compared with these"
    return [f"{are} what was signed, by key {told}{which}", *([pages] if foreign else []), *older]


def _otherwise(run: RunFolder, records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which pages do not show what their records say, or are of none; those of other versions' records may differ.

    Args:
        run: the folder.
        records: all of them, in their order, as they were signed.
    """
    of_records = {_file(record["request"]["id"], "html") for record in records}
    listed = {registry.FILE} if any("clocks" in record for record in records) else set[str]()
    found = [*(run.path / FOLDER).glob("*.html"), *run.path.glob(registry.FILE)]
    names = {file.relative_to(run.path).as_posix() for file in found}
    yield from (f"{run.path / name} is the page of no record" for name in sorted(names - of_records - listed))
    yield from (f"{run.path / name} is missing: {_ANEW}" for name in sorted((of_records | listed) - names))
    ours = [record for record in records if _ours(record)]
    made = ((_file(record["request"]["id"], "html"), sheet.page(record).encode()) for record in ours)
    whole = [(registry.FILE, _list(ours[0]["run"]["name"], ours))] if listed and ours == list(records) else []
    for name, content in itertools.chain(whole, made):
        if name in names and (run.path / name).read_bytes() != content:
            yield f"{run.path / name} shows something else than what was signed: {_ANEW}"


def _ours(record: Mapping[str, Any]) -> bool:
    """Whether a record's page would be the same if it was made again: this version made it."""
    return bool(record.get("made_by") == MADE_BY)


def _list(name: str, records: Sequence[Mapping[str, Any]]) -> bytes:
    """The page that lists all records of a year, ``name``."""
    return registry.page(name, list(map(registry.row, records))).encode()


def _record(
    sources: Sources, request: Request, facts: Facts, pair: Keys, slips: Slips, previous: str | None
) -> dict[str, Any]:
    """A record, signed."""
    name = f"{run_id(sources.run)}-{request.id}"
    now = datetime.datetime.now(datetime.UTC)
    references = _references(sources, request, slips, name)
    content = document(sources, request, facts, references, now.date().isoformat())
    body = {
        "record": {
            "id": name,
            "written": now.isoformat(timespec="seconds"),
            "previous": previous,
            "audit": sources.manifest["audit"],
        },
        **content,
        "blanks": blanks({key: value for key, value in content.items() if key not in ("models", "remedies")}),
    }
    signature = {"algorithm": ALGORITHM, "public_key": pair.public, "value": pair.sign(canonical(body))}
    return {**body, _SIGNATURE: signature}


def _references(sources: Sources, request: Request, slips: Slips, name: str) -> dict[str, list[str]]:
    """By hospital, how a record calls the patients; of a whole hospital nobody is called anything.

    Once some were purged, for this request or another, the slip knows, or else the record that is replaced.
    """
    if request.whole_site:
        return {}
    there, (asked, sites) = sources.patients(request.id), sources.counts(request.id)
    if len(set[str]().union(*there.values())) < asked:
        found = {site: sorted(on_slip(slips.keys, name, site)) for site in sites}
        if any(found.values()):
            return {site: own for site, own in found.items() if own}
        file = sources.run.path / _file(request.id)
        before = json.loads(file.read_bytes())["request"]["subjects"] if file.is_file() else {}
        if before.get("references"):
            return dict(before["references"])
    references = dict[str, list[str]]()
    for site, patients in there.items():
        references[site] = sorted(map(slips.of(name, site, patients).reference, patients))
    return references


def _checked(file: Path, digest: str, by: str | None) -> dict[str, Any]:
    """A record.

    Raises:
        RunError: it is missing, is not what was signed or what the log says, or is by another key than ``by``.
    """
    content = files.checked(file, digest)
    signer(content, str(file), by)
    record: dict[str, Any] = json.loads(content)
    return record


def _foreign(
    record: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]
) -> Iterator[str]:
    """In what a record does not speak of the run that it lies in.

    So who writes a whole run folder anew, its log and its checksums too, cannot keep the records that were signed.
    """
    known, before = manifest["sha256"], record["record"]["audit"]
    at = int(before["lines"]) - 1
    if not 0 <= at < len(lines) or lines[at]["hash"] != before["head"]:
        yield f"was signed when the audit log was another: found no line {at + 1} with hash {before['head']}"
    if (
        not record["record"]["id"].startswith(lines[0]["hash"][:12])
        or record["run"]["data"] != manifest["data"]["digest"]
    ):
        yield f"is of another run: {record['record']['id']}"
    other = [
        one["file"]
        for one in record["models"]
        if one["file"] in known and known[one["file"]] != one["sha256"]
    ]
    if other:
        yield f"speaks of other models than there are: {', '.join(other)}"


def signer(content: bytes, name: str, by: str | None = None) -> str:
    """The public key that a record is signed with, by its bytes alone.

    Args:
        content: of the JSON file.
        name: what to call it in an error.
        by: the public key that it must be; None for any.

    Raises:
        RunError: it is no record, is not what was signed, or is by another key.
    """
    try:
        record = json.loads(content)
        signature = record[_SIGNATURE]
        body = {key: value for key, value in record.items() if key != _SIGNATURE}
        own, value, algorithm = signature["public_key"], signature["value"], signature["algorithm"]
        whole = (
            algorithm == ALGORITHM and _bytes(record) == content and pairs.signed(canonical(body), value, own)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{name} is no record: {error!r}") from error
    if not whole:
        raise RunError(f"{name} is not what was signed")
    if by is not None and own != by:
        found, expected = pairs.fingerprint(own), pairs.fingerprint(by)
        raise RunError(f"{name} is signed by key {found}, expected {expected}: somebody else wrote it")
    return str(own)


def _last(run: RunFolder, request: str) -> str | None:
    """The sha256 of the record that a new one replaces."""
    file = run.path / _file(request)
    return files.sha256(file) if file.is_file() else None


def run_id(run: RunFolder) -> str:
    """Twelve digits that no other run has: of the first line of its audit log."""
    with (run.path / audit.FILE).open(encoding="utf-8") as log:
        return str(json.loads(log.readline())["hash"])[:12]


def _bytes(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _file(request: str, ending: str = "json") -> str:
    return f"{FOLDER}/{request}.{ending}"


def _told(file: Path, record: Mapping[str, Any]) -> str:
    count = len(record["blanks"])
    left = ""
    if count:
        are = "1 blank is" if count == 1 else f"{count} blanks are"
        left = f"; {are} left for people to fill in (--facts FILE)"
    return f"{file}: signed by key {pairs.fingerprint(record[_SIGNATURE]['public_key'])}{left}"

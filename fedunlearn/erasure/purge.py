"""Really gone: what a request's images left in a finished run is removed, and the run stays whole.

All of it happens at once: the manifest that speaks of the new contents and of the files that go is written last
(`RunFolder.renew`), so whatever stops a purge leaves all as it was, or it is finished by whoever opens the run next.
What is written before, the hospital's slip and tombstone, is found again by the next try.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn import pages, scenario as scenarios
from fedunlearn.campaign.shadows import default_cache
from fedunlearn.core import InputError, RunError
from fedunlearn.erasure import lineage, outside, residue, rewriting, slips, tombstones
from fedunlearn.erasure.hashing import hashed
from fedunlearn.erasure.leftovers import Leftovers, erasures, require, whole
from fedunlearn.erasure.record import run_id
from fedunlearn.erasure.slips import Slips
from fedunlearn.erasure.sources import counts, named as images_of, total
from fedunlearn.erasure.tombstones import Tombstone
from fedunlearn.results import audit
from fedunlearn.results.places import locked
from fedunlearn.results.purged import RETRAINED, purges
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import counted
from fedunlearn.scenario import Request, Scenario
from sites.collection import digest, loaded

EVENT = "purged"
SHORT = 16
"""Digits of a reference that stand in a scenario and in sentences for an id."""
_LABEL = re.compile(rf"purged-\d+|[0-9a-f]{{{SHORT}}}")
"""What an earlier purge can have put in the place of an id."""


@dataclass(frozen=True)
class Order:
    """What to purge.

    Attributes:
        requests: their ids; empty for all.
        keep: the remedy in use, whose models stay: a strategy, with a calendar ``POLICY/STRATEGY``.
        keys: the folder of keys, where the hospital's slips and tombstones are; None if there is none.
        data_root: where the data's files are, so that the images are known again; None to do without.
    """

    requests: tuple[str, ...] = ()
    keep: str = RETRAINED
    keys: Path | None = None
    data_root: Path | None = None


def purge(path: Path, order: Order, dry: bool = False) -> list[str]:
    """Remove from a finished run what the images of some requests left in it; say what was done, a line each.

    Args:
        path: the run folder.
        order: what to purge.
        dry: do nothing, and say what would be done.

    Raises:
        InputError: it is no finished run, has no such request or remedy, or its data is not at hand.
        RunError: a file is damaged or cannot be written, and all is as it was; or it was purged and something is left.
    """
    if order.keys is not None and order.keys.resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"{order.keys} lies in the run folder, expected a folder outside: nothing secret belongs there"
        )
    with locked(path):
        run = RunFolder.open(path)
        manifest = run.read_manifest()
        audit.verify(run.path / audit.FILE, manifest["audit"])
        named = tuple(dict.fromkeys(order.requests)) or erasures(manifest)
        require(manifest, named, order.keep)
        images = run.read_table("sites.parquet")
        left = Leftovers(run, manifest, images, named, order.keep, {})
        done = all(purges(manifest, name) for name in named)
        if done and not left.gone.any() and not left.going:
            return [f"{path}: nothing is left of {', '.join(named)} that is to go"]
        return _planned(left) if dry else _purged(left, order)


def _planned(left: Leftovers) -> list[str]:
    contents = {name: content for name, content in left.changed.items()}
    return [*_told(left, contents, _outside(left), "would be"), "nothing was done"]


def _purged(left: Leftovers, order: Order) -> list[str]:
    """See `purge`."""
    run, scenario = left.run, scenarios.read(left.run.path / "scenario.yaml")
    pad = None if order.keys is None else Slips(order.keys)
    name = _namer(left, pad)
    left = replace(left, labels=_labels(left, name))
    pixels = None if order.data_root is None else _pixels(left, scenario, order.data_root)
    before = _before(left, order.keys)
    stone = hashed(left, tombstones.salted(left.requests, _salt(run)), pixels)
    stone = tombstones.with_names(stone, {"patient": set().union(*before.values())})
    places = _keep(left, order.keys, stone, before)
    cached = _outside(left)
    outside.remove(cached)
    requests = _unnamed(left, scenario, name)
    contents = dict(left.changed)
    if requests != scenario.requests:
        contents["scenario.yaml"] = scenarios.to_yaml(replace(scenario, requests=requests)).encode()
    if pad is not None:
        pad.keep()  # before anything names their references
    _commit(left, contents, stone, len(cached))
    told = _told(
        left, {n: c for n, c in contents.items() if n not in (audit.FILE, tombstones.FILE)}, cached, ""
    )
    told += [
        f"{place}: keep it at the hospital; `--tombstones` of simulate, check and verify reads it"
        for place in places
    ]
    if any((run.path / "records").glob("*.json")):
        told.append("records were written before: `fedunlearn record` writes them anew")
    known, every = run.read_manifest()["sha256"], tombstones.merged(tombstones.of_run(run.path), stone)
    if hits := residue.scan(run.path, [every], known):
        found = "\n".join(f"  {hit.file}: {hit.what}" for hit in hits)
        raise RunError("\n".join([*told, f"{run.path} is purged, but something is left:\n{found}"]))
    return [*told, f"looked through all files of {run.path}: nothing is left"]


def _commit(left: Leftovers, contents: dict[str, bytes], stone: Tombstone, cached: int) -> None:
    """Change the run folder, all of it or nothing."""
    run, manifest = left.run, left.manifest
    entries = rewriting.entries(manifest, left.names, left.removed)
    old = {manifest["sha256"][name] for name in (*left.removed, *contents) if name in manifest["sha256"]}
    page = {name: b"" for name in (pages.FILE,) if name in manifest["sha256"]}
    asked = [str(one["id"]) for one in manifest["requests"]]
    entries["asked"] = manifest.get("asked") or {name: counts(left.images, name) for name in asked}
    entries["purged"] = [*purges(manifest), _entry(left, {**contents, **page}, cached)]
    contents[audit.FILE] = audit.extended_by(run.path / audit.FILE, _events(left, entries["purged"][-1]))
    if page:
        contents[pages.FILE] = pages.report(run.foretold(contents, entries, left.removed)).encode("utf-8")
        old.add(manifest["sha256"][pages.FILE])
    new = {hashlib.sha256(content).hexdigest() for content in contents.values()}
    stays = {known for name, known in manifest["sha256"].items() if name not in {*left.removed, *contents}}
    own = replace(stone, removed=stone.removed | frozenset(old - new - stays))
    contents[tombstones.FILE] = tombstones.content(
        tombstones.merged(tombstones.of_run(run.path), own).public()
    )
    run.renew(contents, entries, left.removed)
    shutil.rmtree(run.scratch, ignore_errors=True)


def _entry(left: Leftovers, contents: Mapping[str, bytes], cached: int) -> dict[str, Any]:
    """What the manifest says of this purge (`results.purged`)."""
    asked = {str(one["id"]): one for one in left.manifest["requests"]}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "requests": {
            name: {"site": asked[name].get("site"), **_numbers(left.images, name)} for name in left.requests
        },
        "patients": int(left.images.loc[left.gone, "patient"].nunique()),
        "kept": left.keep,
        "models": [lineage.described(model, digest) for model, digest in left.going.items()],
        "places": left.places(contents),
        "outside": cached,
    }


def _numbers(images: pd.DataFrame, request: str) -> dict[str, int]:
    found = counts(images, request)
    return {"patients": found["patients"], "images": total(found["images"])}


def _events(left: Leftovers, entry: Mapping[str, Any]) -> list[tuple[str, Mapping[str, object]]]:
    """A line of the audit log for every request: counts and digests, no ids of patients."""
    everything = {**lineage.gone(left.manifest), **left.models}
    events = list[tuple[str, Mapping[str, object]]]()
    for request in left.requests:
        saw = lineage.saw(everything, request)
        digests = sorted(digest for model, digest in left.going.items() if model in saw and digest)
        about = entry["requests"][request]
        details = {
            "request": request,
            "patients": about["patients"],
            "images": about["images"],
            "kept": entry["kept"],
            "models": digests,
            "places": entry["places"],
            "outside": entry["outside"],
        }
        events.append((EVENT, details))
    return events


def _told(left: Leftovers, contents: Mapping[str, bytes], cached: Sequence[Path], verb: str) -> list[str]:
    """What is done, or would be, a line each."""
    verb = f"{verb} " if verb else ""
    patients = left.images.loc[left.gone, "patient"].nunique()
    lines = [
        f"{left.run.path}: {', '.join(left.requests)}: {counted(patients, 'patient')}, "
        f"{counted(int(left.gone.sum()), 'image')}"
    ]
    for pattern, each in left.places(contents).items():
        told = ", ".join(f"{number} {verb}{what}" for what, number in each.items() if number)
        lines.append(f"  {pattern}: {told}")
    lines += [f"  shadow model in the cache: {verb}removed: {entry}" for entry in cached]
    before = [name for name in left.requests if images_of(left.images, name).empty]
    lines += [f"  {name}: its images had gone before" for name in before]
    return lines


# ------------------------------------------------------------------------------------------------- who, and what


def _namer(left: Leftovers, pad: Slips | None) -> Callable[[Request, str], str]:
    """What a request of the scenario calls a patient or an image from now on."""
    known = dict[tuple[str, str], Callable[[str], str]]()
    numbers = dict[str, int]()

    def named(request: Request, name: str) -> str:
        if pad is None:
            number = numbers.setdefault(f"{request.id} {name}", len(numbers) + 1 + _labelled(left.manifest))
            return f"purged-{number}"
        key = (request.id, str(request.site))
        if key not in known:
            own = images_of(left.images, request.id)
            patients = sorted(map(str, own.loc[own["site"].astype(str) == key[1], "patient"].unique()))
            known[key] = pad.of(f"{run_id(left.run)}-{request.id}", key[1], patients).reference
        return known[key](name)[:SHORT]

    return named


def _unnamed(
    left: Leftovers, scenario: Scenario, named: Callable[[Request, str], str]
) -> tuple[Request, ...]:
    """The scenario's requests without the ids that go."""

    def called(request: Request, name: str) -> str:
        went = name not in left.labels and _LABEL.fullmatch(name)  # before, with another request's
        return name if went else named(request, name)

    return tuple(rewriting.scenario(scenario, left.requests, called, left.names.labels))


def _labelled(manifest: Mapping[str, Any]) -> int:
    """How many labels earlier purges can have given, to a request's patients and to its images."""
    given = [about for one in purges(manifest) for about in one["requests"].values()]
    return sum(int(about["patients"]) + int(about["images"]) for about in given)


def _labels(left: Leftovers, named: Callable[[Request, str], str]) -> dict[str, str]:
    """By id of every patient and image that goes, its label."""
    found = dict[str, str]()
    for row in left.images[left.gone].to_dict("records"):
        request = next(name for name in row["forgotten_by"] if name in left.requests)
        asked = Request(id=request, site=str(row["site"]))
        for name in (str(row["patient"]), str(row["image"])):
            if name not in found:
                found[name] = named(asked, name)
    return found


def _pixels(left: Leftovers, scenario: Scenario, data_root: Path) -> npt.NDArray[Any]:
    """The images that go.

    Raises:
        InputError: the data is not at hand, or is not the run's.
    """
    collection = loaded(scenario.data, data_root)
    rows = {str(name): row for row, name in enumerate(collection.table["image"])}
    wanted = list(map(str, left.images.loc[left.gone, "image"]))
    known = left.manifest["data"]["digest"]
    same = scenario.evaluation.canary or digest(collection) == known
    if not same or not set(wanted) <= set(rows):
        raise InputError(
            f"the data at hand is not what {left.run.path} was run on, so the images would not be known again; "
            f"expected data of digest {known}. Bring it back (--data-root), or purge by ids alone (--without-images)"
        )
    return np.asarray(collection.pixels[[rows[name] for name in wanted]])


def _salt(run: RunFolder) -> str:
    """The same for all tombstones of a run, so that a purge that is tried again comes to the same."""
    return hashlib.sha256(f"tombstones of {run_id(run)}".encode()).hexdigest()


def _before(left: Leftovers, keys: Path | None) -> dict[str, set[tuple[str, str]]]:
    """By request, hospital and id of patients who went before, with others' requests, as the hospital's slip knows."""
    if keys is None:
        return {}
    found, there = dict[str, set[tuple[str, str]]](), set(left.images["patient"].astype(str))
    for request in left.requests:
        sites = left.manifest.get("asked", {}).get(request, {}).get("images", ())
        people = {site: slips.known(keys, f"{run_id(left.run)}-{request}", site).values() for site in sites}
        found[request] = {(site, name) for site, own in people.items() for name in own if name not in there}
    return found


def _keep(
    left: Leftovers, keys: Path | None, stone: Tombstone, before: Mapping[str, set[tuple[str, str]]]
) -> list[Path]:
    """Write the hospital's tombstone of every request, whose patients may have gone ``before``."""
    found = []
    for request in left.requests if keys is not None else ():
        assert keys is not None
        own = images_of(left.images, request)
        gone = whole(left.images, left.gone)
        pairs = {
            column: {(str(site), str(name)) for site, name in zip(own["site"], own[column], strict=True)}
            for column in ("patient", "image")
        }
        pairs["patient"] = {pair for pair in pairs["patient"] if pair[1] in gone} | before[request]
        place = tombstones.kept_at(keys, f"{run_id(left.run)}-{request}")
        tombstones.keep(place, replace(stone, requests=(request,)), pairs)
        found.append(place)
    return found


def _outside(left: Leftovers) -> list[Path]:
    """Entries of the cache of shadow models that saw the images."""
    if not left.manifest.get("shadows", {}).get("count"):
        return []
    scenario = scenarios.read(left.run.path / "scenario.yaml")
    cache = scenario.evaluation.cache or default_cache()
    return outside.entries(cache, left.manifest["data"]["digest"], list(left.clean_shadows))

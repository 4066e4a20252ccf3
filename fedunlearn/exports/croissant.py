"""A run's data as Croissant (MLCommons' JSON-LD for data sets), version 1.0: what there is, in counts.

The images stay where they are, so that nothing is distributed: the record set is a table of hospitals and splits, with
its rows in it. The licence is not known here; whoever owns the data has to put it in. No patient is named.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from fedunlearn.exports.holdings import Holding, holdings, note, phantom
from fedunlearn.results.kinds import noun
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.wording import line

UNKNOWN = "unknown"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "samplingRate": "cr:samplingRate",
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that Croissant 1.0 prescribes."""
_FIELDS = (
    ("site", "sc:Text", "The hospital."),
    ("split", "sc:Text", "train, val, test or proxy; patients are in one of them alone."),
    ("images", "sc:Integer", "How many images (or volumes) it holds."),
    ("patients", "sc:Integer", "Of how many patients."),
    (
        "asked",
        "sc:Integer",
        "How many of these images some request asks to be forgotten, each counted once a request.",
    ),
)


def croissant(run: RunFolder) -> str:
    """The data of a run, as JSON.

    Raises:
        RunError: a file is missing or damaged.
    """
    manifest, held = run.read_manifest(), holdings(run)
    name, digest = line(manifest["name"]), str(manifest["data"]["digest"])
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{name}-data",
        "description": _description(run, held),
        "license": UNKNOWN,
        "url": f"urn:sha256:{digest}",
        "version": f"0.0.0+{digest[:12]}",
        "datePublished": datetime.fromtimestamp((run.path / "DONE").stat().st_mtime, UTC).date().isoformat(),
        "citeAs": f"Data of the run {name}, known by the digest {digest}.",
        "rai:personalSensitiveInformation": (
            "None: images were drawn by a program, patients are invented."
            if phantom(run)
            else "Images of patients. This card holds counts only; neither images nor ids of patients come with it."
        ),
        "rai:dataLimitations": (
            "Which images there are is known by their digest alone. How they were collected, from whom and under which "
            "terms is for whoever owns them to say."
        ),
        "distribution": [],
        "recordSet": [_records(held)],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _description(run: RunFolder, held: list[Holding]) -> str:
    sites = list(dict.fromkeys(one.site for one in held))
    images = sum(one.images for one in held)
    what = f"{noun(run.read_manifest()['kind'])}s"
    return f"{note(run)} {images} {what} at {len(sites)} hospitals ({', '.join(map(line, sites))})."


def _records(held: list[Holding]) -> dict[str, Any]:
    rows = [
        {
            "holdings/site": line(one.site),
            "holdings/split": line(one.split),
            "holdings/images": one.images,
            "holdings/patients": one.patients,
            "holdings/asked": sum(wish.images for wish in one.asked),
        }
        for one in held
    ]
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"holdings/{name}",
            "name": f"holdings/{name}",
            "description": text,
            "dataType": kind,
        }
        for name, kind, text in _FIELDS
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "holdings",
        "name": "holdings",
        "description": "What each hospital holds, split by split.",
        "field": fields,
        "data": rows,
    }

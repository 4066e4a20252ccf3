"""Where a run comes from: what it was made with, who failed, how to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.pages.tables import Cell, Column, Table, words
from fedunlearn.yaml.source import parse
from fedunlearn.yaml.tree import plain

_OF_FILES = ("path", "manifest")
"""Settings of data that name files, which lie somewhere else on every machine."""


def commands(scenario: str) -> tuple[tuple[str, str], ...]:
    """What to run in the run folder, and what for."""
    data = plain(parse(scenario, "scenario.yaml")).get("data") or {}
    files = data.get("name") == "mrbrains" or any(data.get(key) for key in _OF_FILES)
    root, where = (" --data-root DIR", "; DIR: where the data files are") if files else ("", "")
    return (
        (
            f"the same run again, from this folder{where}",
            f"fedunlearn simulate scenario.yaml --out ../again{root}",
        ),
        (
            f"is this what the run wrote? train 2 of its models again{where}",
            f"fedunlearn verify . --replay 2{root}",
        ),
        (
            "judge with other margins; nothing is trained",
            "fedunlearn score . --margins test=.05,memory_left=.2",
        ),
    )


def failed(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who failed, and why."""
    models = [
        (f"{one['strategy']}, {one['request']}, seed {one['seed']}", f"diverged: {one['where']}")
        for one in manifest.get("diverged", ())
    ]
    probes = manifest.get("probes", {}).get("diverged", ())
    return [*models, *((str(one), "diverged when it was trained a little more") for one in probes)]


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of where the run comes from."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    machines = [_machine(one) for one in manifest.get("machines", ())]
    return [
        ("fedunlearn", manifest["fedunlearn"]),
        ("versions", versions),
        ("platform", manifest["platform"]),
        *(("machine", text) for text in machines),
        ("seeds", ", ".join(map(str, manifest["seeds"]))),
        ("time", f"{manifest['wall_seconds']:.0f} s"),
        *((("pretrained", manifest["pretrained"]),) if manifest.get("pretrained") else ()),
        *(
            (f"strategy {label}", ", ".join(f"{k} {v}" for k, v in origin.items()))
            for label, origin in manifest.get("strategies", {}).items()
        ),
        ("digest of the data", manifest["data"]["digest"]),
        ("audit.jsonl", f"{manifest['audit']['lines']} lines, head {manifest['audit']['head']}"),
        *(
            (("taken from earlier runs", f"{len(manifest['reused'])} files"),)
            if manifest.get("reused")
            else ()
        ),
    ]


def _machine(one: Mapping[str, Any]) -> str:
    parts: Sequence[object] = (
        one.get("processor"),
        one.get("cpu"),
        one.get("device"),
        f"{one['tasks']} tasks" if "tasks" in one else "",
    )
    return ", ".join([str(one.get("host", "")), *(str(part) for part in parts if part)])


def digests(manifest: Mapping[str, Any]) -> Table:
    """Checksums of tables and models."""
    rows: list[tuple[Cell, ...]] = [
        (words(name), words(digest))
        for name, digest in sorted(manifest["sha256"].items())
        if name.startswith("weights/") or name.count("/") == 0
    ]
    return Table(
        "digests-table",
        "sha256 of tables and models, as in manifest.json.",
        (Column("file", numbers=False), Column("sha256", numbers=False)),
        tuple(row for row in rows if row[0].order != "report.html"),
    )

"""A scenario for the data at hand, as text with comments that say why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedunlearn.beginning.data import Found
from fedunlearn.core.kinds import facts
from fedunlearn.learning.models import MODELS
from fedunlearn.results.kinds import words
from fedunlearn.results.wording import line
from fedunlearn.scenario.json_schema import hint
from sites.collection import Collection

DEALT = ("north", "east", "west", "south", "centre", "coast", "hill", "lake")
"""What hospitals are called to which patients are dealt."""
_FEW = 600  # images: with fewer, training goes through them more often, or nothing would be remembered


@dataclass(frozen=True)
class Wishes:
    """The answers to the four questions; the data is the first.

    Attributes:
        hospitals: a column of the data that names them, or how many to deal the patients to.
        forget: ``patients``, ``hospital``, ``both``, or patient ids.
        time: quick or normal.
    """

    hospitals: str | int
    forget: str | tuple[str, ...]
    time: str


@dataclass(frozen=True)
class Asked:
    """Which hospitals are asked to forget.

    Attributes:
        first: the one whose patients are picked, or that leaves.
        named: of patients by name, who they are, by the hospital that trains on them.
        seed: of the data, under which they are trained on.
        count: of patients who are picked, how many.
    """

    first: str
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0
    count: int = 1


def write(
    name: str, found: Found, wishes: Wishes, sites: Sequence[str], asked: Asked, command: str, schema: bool
) -> str:
    """The scenario.

    Args:
        name: what it is called.
        found: the data.
        wishes: what is wanted.
        sites: the hospitals' names.
        asked: the hospitals whose patients are forgotten.
        command: how to run it.
        schema: a schema for editors lies beside it.
    """
    collection, quick = found.collection, wishes.time == "quick"
    volumes = facts(collection.kind).background
    people = collection.table["patient"].nunique()
    rows = [
        *([hint()] if schema else []),
        f"# {line(_what(found, people))}",
        f"#   {line(command)}",
        "# What can stand here: `fedunlearn list strategies`, `list models`, `list data`, `list partitions`.",
        f"name: {text(name)}",
        *_seeds(quick),
        *_seed(asked),
        "engine: {name: flower}                # hospitals side by side on all cores; inline for one process",
        f"data: {flow(found.settings)}    # {line(found.note)}",
        *_sites(wishes, sites),
        *_training(collection, quick),
        *_requests(wishes, sites, asked),
        *_strategies(wishes, volumes, quick, collection.classes),
    ]
    return "\n".join(row.rstrip() for row in rows) + "\n"


def text(value: object) -> str:
    """A value in YAML: text in quotes, since no id may be read as a number."""
    return json.dumps(value, ensure_ascii=False)


def flow(settings: Mapping[str, Any]) -> str:
    """A mapping in one line of YAML."""
    return "{" + ", ".join(f"{key}: {_word(value)}" for key, value in settings.items()) + "}"


def _word(value: Any) -> str:
    plain = isinstance(value, str) and value.replace("_", "").replace("/", "").isascii()
    simple = plain and value.replace("_", "").replace("/", "").isalpha()
    if isinstance(value, tuple):
        return f"[{', '.join(map(text, value))}]"
    return (
        value if simple and value not in ("true", "false", "null", "yes", "no", "on", "off") else text(value)
    )


def _what(found: Found, people: int) -> str:
    collection = found.collection
    many = len(collection.names) if found.several else collection.classes
    kind = words(collection.kind).many.format(classes=many)
    if not collection.synthetic_patients:
        return f"{len(collection.table):,} {kind}, of {people:,} patients."
    alone = people == len(collection.table)
    invented = "invented ones: each image is taken for one" if alone else "who are invented"
    return f"{len(collection.table):,} {kind}, of {people:,} patients, {invented}."


def _seeds(quick: bool) -> list[str]:
    if quick:
        return [
            "seeds: [7, 8]                         # trainings of everything: two are the fewest that tell",
            "                                      # anything of luck; [7, 8, 9] tell more",
            "references: 6                         # retrained models in all, which tell luck from memory",
        ]
    return [
        "seeds: [7, 8, 9]                      # every seed trains, retrains and unlearns",
        "references: 8                         # retrained models in all: more of them tell luck from memory",
    ]


def _seed(asked: Asked) -> list[str]:
    """The seed of the data, where not the usual one is needed."""
    if not asked.seed:
        return []
    return [
        f"seed: {asked.seed:<32}# who is dealt to which hospital and part: one under which the named patients",
        "                                      # are trained on",
    ]


def _sites(wishes: Wishes, sites: Sequence[str]) -> list[str]:
    invented = list[str]()
    if isinstance(wishes.hospitals, int):
        invented = [
            "  # These hospitals are invented: patients are dealt to them at random, which makes them more alike",
            "  # than real ones. Where a column of the data names them: {name: by_column, column: COLUMN}",
        ]
        partition, why = ("{name: iid}", "or label_skew, size_skew: for unlike hospitals")
    else:
        partition = f"{{name: by_column, column: {text(wishes.hospitals)}}}"
        why = "hospitals as the data has them"
    return [
        "sites:",
        *invented,
        f"  names: [{', '.join(map(text, sites))}]",
        f"  partition: {partition}    # {why}",
        "  split: {train: 0.5, val: 0.1, test: 0.4}    # by patient; whether a model is still good is told by unseen",
        "                                      # images alone, so many are kept for that",
    ]


def _training(collection: Collection, quick: bool) -> list[str]:
    if facts(collection.kind).background:
        rounds, epochs = (3, 4) if quick else (5, 8)
        return [
            "model: {name: unet3d}",
            f"training: {{rounds: {rounds}, local_epochs: {epochs}, batch_size: 2, optimizer: adam, lr: 0.005}}",
        ]
    rounds = 3 if quick else 5
    epochs = (5 if quick else 6) if len(collection.table) >= _FEW else (8 if quick else 10)
    return [
        _network(collection),
        f"training: {{rounds: {rounds}, local_epochs: {epochs}, batch_size: 32, optimizer: adam, lr: 0.002}}",
        "                                      # long enough to remember: else there is nothing to forget",
    ]


def _network(collection: Collection) -> str:
    """The first network that fits: one for this kind alone, or one that is told its kind."""
    dimensions = collection.pixels.ndim - 2
    fitting = {name: cls() for name, cls in MODELS.items() if dimensions in cls().dimensions}
    name = next((name for name, one in fitting.items() if one.kind == collection.kind), "small_cnn")
    own = "" if MODELS[name]().kind == collection.kind else f", kind: {collection.kind}"
    line = f"model: {{name: {name}{own}}}"
    return f"{line:<37} # or resnet18, which needs longer" if name == "small_cnn" else line


def _requests(wishes: Wishes, sites: Sequence[str], asked: Asked) -> list[str]:
    rows, first = ["requests:"], asked.first
    if not isinstance(wishes.forget, str):
        several = len(asked.named) > 1
        for number, (site, patients) in enumerate(asked.named.items(), 1):
            called = f"named-patients-{number}" if several else "named-patients"
            ids = ", ".join(map(text, patients))
            rows.append(f"  - {{id: {called}, site: {text(site)}, patients: [{ids}]}}")
        return rows
    if wishes.forget in ("patients", "both"):
        rows.append(
            f"  - {{id: some-patients, site: {text(first)}, patients: {{count: {asked.count}, pick: random}}}}"
            '   # or patients: ["012", "013"]'
        )
    if wishes.forget in ("hospital", "both"):
        leaving = next((site for site in sites if site != first), first) if wishes.forget == "both" else first
        rows.append(f"  - {{id: hospital-leaves, site: {text(leaving)}, whole_site: true}}")
    return rows


def _strategies(wishes: Wishes, volumes: bool, quick: bool, classes: int) -> list[str]:
    rows = ["strategies:                           # `fedunlearn list strategies` has all of them"]
    labels = ", labels: uniform" if classes == 2 and not volumes else ""
    if volumes:
        rows += [
            "  - {name: fine_tune, rounds: 2, local_epochs: 5}   # a floor: what costs more should do better",
            "  - {name: reset_encoder, recovery: {rounds: 3, local_epochs: 8}}",
        ]
        slow = [
            "  - {name: salun, recovery: {rounds: 1, local_epochs: 5}}",
            "  - {name: noisy_label, rounds: 10, local_epochs: 5}",
        ]
        return rows + ([] if quick else slow)
    rows += [
        "  - {name: fine_tune}                 # this and the next one are floors: what costs more should do better",
        "  - {name: retrain_short, as: retrain-60, share: 0.6}",
        "  - {name: negation}",
        f"  - {{name: random_label{labels}}}",
    ]
    leaves = wishes.forget in ("hospital", "both")
    whole = (
        ["  - {name: federaser}                 # whole hospitals only: not run for patients"]
        if leaves
        else []
    )
    slow = [
        "  - {name: retrain_short, as: retrain-80, share: 0.8}",
        "  - {name: puf}",
        *whole,
        f"  - {{name: salun{labels}}}",
    ]
    return rows + ([] if quick else slow)

"""The models that a run kept: what each of them is, and what it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedunlearn.results.purged import purges


@dataclass(frozen=True)
class Model:
    """A file of weights.

    Attributes:
        name: the file's, without its ending.
        role: original, retrained or strategy.
        strategy: its label in the tables.
        request: what it is about; empty of an original.
        seed: of its training.
        moment: under which its request stands in the tables.
        earlier: requests honoured before it; in a calendar, where a request stands for all, all of them.
    """

    name: str
    role: str
    strategy: str
    request: str
    seed: int
    moment: str
    earlier: tuple[str, ...] = ()


def kept(manifest: Mapping[str, Any]) -> Iterator[Model]:
    """Each once, as the manifest comes to them; those that were purged are there no more."""
    gone = _purged(manifest)
    return (model for model in _made(manifest) if model.name not in gone)


def _purged(manifest: Mapping[str, Any]) -> set[str]:
    return {model["name"] for one in purges(manifest) for model in one["models"]}


def _made(manifest: Mapping[str, Any]) -> Iterator[Model]:
    """All that the run made."""
    found = dict[str, Model]()
    asked = {moment["id"]: moment["forgets"] for moment in manifest["moments"]}
    before = {moment["id"]: tuple(moment.get("earlier", ())) for moment in manifest["moments"]}
    docket = tuple(one["id"] for one in manifest.get("docket", ()) if one["state"] == "accepted")
    for entry in manifest["scored"]:
        moment, seed = entry["request"], int(entry["seed"])
        request = asked.get(moment, moment)
        of = (entry["original"], "original", "original"), (entry["retrained"], "retrained", "retrained")
        made = [(name, "strategy", label) for label, name in entry["strategies"].items()]
        for name, role, label in (*of, *made):
            about, earlier = ("", ()) if role == "original" else (request, before.get(moment, ()))
            if docket and role != "original":
                earlier = docket if role == "retrained" else _answered(manifest, moment, None)
            found.setdefault(name, Model(name, role, label, about, seed, moment, earlier))
    for entry in manifest.get("references", ()):
        moment, name = entry["request"], entry["model"]
        about, earlier = asked.get(moment, moment), docket or before.get(moment, ())
        model = Model(name, "retrained", "retrained", about, int(entry["seed"]), moment, earlier)
        found.setdefault(name, model)
    for model in _looked(manifest, docket):
        found.setdefault(model.name, model)
    yield from found.values()


def _looked(manifest: Mapping[str, Any], docket: tuple[str, ...]) -> Iterator[Model]:
    """Models at the looks of a calendar, as far as they are there (`retention`)."""
    for entry in manifest.get("looks", ()):
        policy, seed, round = entry["policy"], int(entry["seed"]), int(entry["round"])
        everything = next(moment["forgets"] for moment in manifest["moments"] if moment["id"] == policy)
        made = [
            Model(entry["original"], "original", "original", "", seed, policy),
            Model(entry["retrained"], "retrained", "retrained", everything, seed, policy, docket),
            *(
                Model(name, "strategy", label, everything, seed, policy, _answered(manifest, policy, round))
                for label, name in entry["strategies"].items()
            ),
        ]
        for model in made:
            if f"weights/{model.name}.safetensors" in manifest["sha256"]:
                yield model


def _answered(manifest: Mapping[str, Any], policy: str, round: int | None) -> tuple[str, ...]:
    """The requests that a policy had unlearned by a round, or by the end."""
    turns = next(one["turns"] for one in manifest["policies"] if one["label"] == policy)
    return tuple(one for turn in turns if round is None or turn["round"] <= round for one in turn["erases"])

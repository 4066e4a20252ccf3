"""The models that a run kept: what each of them is, and what it is about."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedunlearn.intake.desk import ALL
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
        earlier: requests honoured before it; with a calendar, all that its policy had unlearned by then.
        policy: whose model it is, with a calendar and of a strategy; else empty.
        without: with a calendar, the requests whose data it was trained again without, from the start.
    """

    name: str
    role: str
    strategy: str
    request: str
    seed: int
    moment: str
    earlier: tuple[str, ...] = ()
    policy: str = ""
    without: tuple[str, ...] = ()


def kept(manifest: Mapping[str, Any]) -> Iterator[Model]:
    """Each once, as the manifest comes to them; those that were purged are there no more."""
    gone = _purged(manifest)
    return (model for model in _made(manifest) if model.name not in gone)


def _purged(manifest: Mapping[str, Any]) -> set[str]:
    return {model["name"] for one in purges(manifest) for model in one["models"]}


def _made(manifest: Mapping[str, Any]) -> Iterator[Model]:
    """All that the run made."""
    if "calendar" in manifest:
        yield from _walked(manifest)
        return
    found = dict[str, Model]()
    asked = {moment["id"]: moment["forgets"] for moment in manifest["moments"]}
    before = {moment["id"]: tuple(moment.get("earlier", ())) for moment in manifest["moments"]}
    for entry in manifest["scored"]:
        moment, seed = entry["request"], int(entry["seed"])
        request = asked.get(moment, moment)
        of = (entry["original"], "original", "original"), (entry["retrained"], "retrained", "retrained")
        made = [(name, "strategy", label) for label, name in entry["strategies"].items()]
        for name, role, label in (*of, *made):
            about, earlier = ("", ()) if role == "original" else (request, before.get(moment, ()))
            found.setdefault(name, Model(name, role, label, about, seed, moment, earlier))
    for entry in manifest.get("references", ()):
        moment, name = entry["request"], entry["model"]
        about, earlier = asked.get(moment, moment), before.get(moment, ())
        model = Model(name, "retrained", "retrained", about, int(entry["seed"]), moment, earlier)
        found.setdefault(name, model)
    yield from found.values()


# ------------------------------------------------------------------------------------------------ with a calendar


def _walked(manifest: Mapping[str, Any]) -> Iterator[Model]:
    """The models of a run with a calendar: those when the year ends, then what is kept of the way there.

    All policies share the original one, which saw everybody, and the one that was trained without all of them.
    """
    there, end = manifest["sha256"], int(manifest["calendar"]["rounds"])
    found = dict[str, Model]()
    for entry in manifest["scored"]:
        for model in _compared(manifest, {**entry, "policy": entry["request"], "round": end}):
            found.setdefault(model.name, model)
    for entry in manifest.get("references", ()):
        shared = {"original": entry["model"], "retrained": entry["model"], "strategies": {}, "round": end}
        model = list(_compared(manifest, {**entry, **shared, "policy": entry["request"]}))[1]
        found.setdefault(model.name, model)
    way = (model for entry in manifest["looks"] for model in _compared(manifest, entry))
    for model in (*way, *_steps(manifest)):
        if f"weights/{model.name}.safetensors" in there:
            found.setdefault(model.name, model)
    yield from found.values()


def _compared(manifest: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[Model]:
    """The models of a look, or of the end: original, retrained, and of every strategy the one in hand."""
    moment, seed, round = str(entry["request"]), int(entry["seed"]), int(entry["round"])
    everybody = tuple(str(one["id"]) for one in manifest["docket"] if one["state"] == "accepted")
    yield Model(entry["original"], "original", "original", "", seed, moment)
    yield Model(entry["retrained"], "retrained", "retrained", ALL, seed, moment, without=everybody)
    for label, name in entry["strategies"].items():
        if name != entry["original"]:  # the policy has not done anything yet
            yield _walker(manifest, (entry["policy"], label, seed), name, moment, round)


def _steps(manifest: Mapping[str, Any]) -> Iterator[Model]:
    """What strategies had in hand right before and after each unlearning."""
    seeds = sorted({int(entry["seed"]) for entry in manifest["scored"]})
    for policy in manifest["policies"]:
        whose = [(policy["label"], label, seed) for label in policy["strategies"] for seed in seeds]
        for turn in policy["turns"]:
            last = turn["round"] == manifest["calendar"]["rounds"]
            look = policy["label"] if last else f"{policy['label']}@{turn['round']}"
            for walk, step in itertools.product(whose, (*turn["steps"], look)):
                name = f"{step}-{walk[1]}-{walk[2]}"
                yield _walker(manifest, walk, name, step, turn["round"])
                yield _walker(manifest, walk, f"before-{name}", step, turn["round"] - 1)


def _walker(
    manifest: Mapping[str, Any], walk: tuple[str, str, int], name: str, moment: str, round: int
) -> Model:
    """A model that a strategy had in hand by a policy, all turns up to ``round`` done."""
    label, strategy, seed = walk
    policy = next(one for one in manifest["policies"] if one["label"] == label)
    turns = [turn for turn in policy["turns"] if turn["round"] <= round]
    unlearned = tuple(id for turn in turns for id in turn["erases"])
    again = anew(manifest, walk, round)
    without = tuple(id for turn in turns if turn["round"] <= again for id in turn["bars"])
    return Model(name, "strategy", strategy, ALL, seed, moment, unlearned, label, without)


def anew(manifest: Mapping[str, Any], walk: tuple[str, str, int], round: int) -> int:
    """At which boundary a walk's model in hand after ``round`` rounds was last trained from the start; 0 for never.

    Args:
        manifest: of a run with a calendar.
        walk: policy, strategy and seed.
        round: how many.
    """
    label, strategy, seed = walk
    policy = next(one for one in manifest["policies"] if one["label"] == label)
    found = [turn["round"] for turn in policy["turns"] if turn["erases"] and strategy in policy["exact"]]
    found += [
        one["round"]
        for one in manifest["retrainings"]
        if (one["policy"], one["strategy"], one["seed"]) == (label, strategy, seed)
    ]
    return max((at for at in found if at <= round), default=0)

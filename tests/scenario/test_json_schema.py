"""The schema that editors use: it takes every scenario that comes with fedunlearn, and no key that is misspelt."""

from __future__ import annotations

import copy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from fedunlearn.installation import scenario_files
from fedunlearn.scenario import json_schema

FILES = scenario_files()
SCHEMA = json_schema.schema()
JUDGE = Draft202012Validator(SCHEMA)


def tree(path: Path) -> Any:
    """A scenario as editors read it, for which days are text (YAML 1.2)."""
    return days_as_text(YAML(typ="safe").load(path.read_text(encoding="utf-8")))


def days_as_text(value: Any) -> Any:
    """The same with days as they were written."""
    if isinstance(value, dict):
        return {key: days_as_text(one) for key, one in value.items()}
    if isinstance(value, list):
        return [days_as_text(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", FILES)
def test_every_scenario_fits(name: str) -> None:
    problems = [
        f"{list(error.path)}: {error.message[:200]}" for error in JUDGE.iter_errors(tree(FILES[name]))
    ]
    assert problems == []


def changes(scenario: Any) -> Any:
    """The same scenario with one mistake, in many places."""

    def changed(*path: Any, **values: Any) -> Any:
        new = copy.deepcopy(scenario)
        place = new
        for key in path:
            place = place[key]
        place.update(values)
        return new

    return {
        "a key that is none": changed(colour="red"),
        "of training": changed("training", learning_rate=0.1),
        "of the data": changed("data", imges=3),
        "of a request": changed("requests", 0, hospital="north"),
        "of a strategy": changed("strategies", 0, round=3),
        "a strategy that is none": changed("strategies", 0, name="magic"),
        "a number out of range": changed("training", lr=-1),
        "a word that is none": changed("training", optimizer="adm"),
        "no whole number": changed("training", rounds=1.5),
        "text for a number": changed("training", rounds="many"),
        "a split with a part too many": changed("sites", split={"train": 0.5, "valid": 0.5}),
        "seeds that are no list": changed(seeds=7),
        "no requests": changed(requests=[]),
        "a margin that is none": changed(verdict={"margins": {"tst": 0.1}}),
        "nested": changed("strategies", 3, recovery={"round": 1}),
    }


MISTAKES = changes(tree(FILES["3hosp"]))


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_found(what: str) -> None:
    assert not JUDGE.is_valid(MISTAKES[what])


def test_what_must_be_there_is_asked_for() -> None:
    scenario = tree(FILES["3hosp"])
    for key in ("name", "seeds", "data", "sites", "model", "training", "requests"):
        assert not JUDGE.is_valid({other: value for other, value in scenario.items() if other != key})


def test_a_strategy_of_the_user_s_own_fits() -> None:
    scenario = tree(FILES["3hosp"])
    scenario["strategies"] = [{"name": "mine", "file": "mine.py", "strength": 3, "as": "mine-3"}]
    assert JUDGE.is_valid(scenario)


def test_keys_and_names_are_described_as_in_their_docstrings() -> None:
    training = SCHEMA["properties"]["engine"]["properties"]
    assert training["retries"]["description"] == "how often a failed task is tried again."
    strategies = {
        one["properties"]["name"].get("const"): one
        for one in SCHEMA["properties"]["strategies"]["items"]["oneOf"]
    }
    assert strategies["salun"]["properties"]["fraction"] == {
        "exclusiveMinimum": 0,
        "maximum": 1,
        "type": "number",
        "description": "share of all parameters that may move; sets gamma.",
        "default": 0.5,
    }
    assert strategies["salun"]["properties"]["name"]["description"].startswith("Train under random labels")

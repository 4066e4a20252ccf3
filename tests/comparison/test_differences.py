"""What differs between runs, and what is said of it before any number."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fedunlearn import comparison
from fedunlearn.comparison.differences import consequences, differences, spans
from fedunlearn.comparison.runs import Compared
from fedunlearn.comparison.table import lines
from fedunlearn.results.runfolder import RunFolder
from tests.exports.conftest import made  # noqa: F401
from tests.scoring.made import change_manifest

FACTS = {
    "data": "0123 (made up)",
    "task": "classification",
    "seeds": "7, 8, 9",
    "margins": "test 0.03",
    "torch": "2.13",
}
SETTINGS = {
    "data.name": "npz",
    "data.path": "/a",
    "training.lr": "0.1",
    "strategies.puf.name": "puf",
    "strategies.puf.eta": "1",
}
ONE = Compared(
    *("runs/a", "", "seeds 7, 8, 9; made up", {}, pd.DataFrame(), pd.DataFrame(), FACTS, SETTINGS),
    trained=frozenset({7, 8, 9}),
)


def other(
    facts: Mapping[str, str] = FACTS, settings: Mapping[str, str] = SETTINGS, further: tuple[int, ...] = ()
) -> Compared:
    """With retrained models of ``further`` seeds."""
    known = {**FACTS, **facts}
    trained = frozenset({*map(int, known["seeds"].split(", ")), *further})
    return replace(ONE, facts=known, settings={**SETTINGS, **settings}, trained=trained)


def test_a_single_run_differs_from_nothing() -> None:
    assert not differences([ONE]) and not consequences([ONE])
    assert "DIFFERS" not in "\n".join(text.plain for text in lines([ONE]))


def test_the_same_run_twice_is_said_to_be_one() -> None:
    assert consequences([ONE, ONE]) == [
        "Nothing that runs tell of themselves differs: they are the same run, made more than once."
    ]


def test_other_data_is_the_first_thing_said() -> None:
    runs = [ONE, other({"data": "4567 (other)", "margins": "test 0.1", "torch": "2.6"})]
    assert [one.what for one in differences(runs)] == ["data", "margins", "torch"]
    said = consequences(runs)
    assert said[0].startswith("Different data") and "Compare strategies within a run" in said[0]
    assert "score RUN --margins" in said[1] and "round" in said[2] and len(said) == 3


def test_seeds_in_common_are_no_confirmation_and_other_seeds_are_luck() -> None:
    assert "seeds in common" in consequences([ONE, other({"seeds": "9, 10"})])[0]
    assert "luck of training" in consequences([ONE, other({"seeds": "10, 11"})])[0]
    assert not consequences(
        [ONE, other({"seeds": "10, 11"}, settings={"training.lr": "1"})]
    )  # more than luck, by settings


def test_retrained_models_in_common_are_shared_luck_too() -> None:
    first = replace(ONE, trained=ONE.trained | {10, 11})
    assert "seeds in common" in consequences([first, other({"seeds": "10, 12"})])[0]
    assert "seeds in common" in consequences([first, other({"seeds": "12, 13"}, further=(11,))])[0]
    assert "luck of training" in consequences([first, other({"seeds": "12, 13"}, further=(14,))])[0]


def test_only_seeds_may_differ_where_luck_is_all() -> None:
    for fact, words in (
        ("device", "devices"),
        ("python", "versions of Python"),
        ("torch", "versions of torch"),
    ):
        (said,) = consequences([ONE, other({"seeds": "10, 11", fact: "another"})])
        assert words in said and "luck" not in said


def test_the_same_data_in_other_words_is_the_same() -> None:
    """Data is known by its digest; where an older run has none, by its note."""
    runs = [ONE, other({"data": "0123 (made up, elsewhere)", "seeds": "10, 11"})]
    assert [one.what for one in differences(runs)] == ["seeds"] and "luck of training" in consequences(runs)[
        0
    ]
    old = [other({"data": " (made up)"}), other({"data": " (something else)"})]
    assert [one.values for one in differences(old)] == [((" (made up)", (1,)), (" (something else)", (2,)))]


def test_values_are_told_once_with_their_runs() -> None:
    runs = [
        ONE,
        other(settings={"training.lr": "0.2"}),
        other(settings={"training.lr": "0.2"}),
        other(settings={"training.lr": "0.2"}),
        ONE,
    ]
    (one,) = differences(runs)
    assert one.what == "training.lr" and one.values == (("0.1", (1, 5)), ("0.2", (2, 3, 4)))
    text = "\n".join(text.plain for text in lines(runs))
    assert "  training.lr: 0.1 (1, 5); 0.2 (2-4)" in text
    assert spans([1, 2, 4, 5, 6, 9]) == "1, 2, 4-6, 9"


def test_of_what_is_something_else_only_the_name_is_told() -> None:
    """Another source has other keys; a strategy that a run does not have has none there."""
    without = {key: value for key, value in SETTINGS.items() if not key.startswith("strategies.puf")}
    runs = [ONE, replace(ONE, settings={**without, "data.name": "folder", "data.manifest": "x.csv"})]
    assert [(one.what, one.values) for one in differences(runs)] == [
        ("data", (("npz", (1,)), ("folder", (2,)))),
        ("strategies.puf", (("puf", (1,)), ("-", (2,)))),
    ]


def test_what_a_run_tells_of_itself_is_read(made: RunFolder, tmp_path: Path) -> None:  # noqa: F811
    del tmp_path
    (one,) = comparison.read([made.path])
    assert one.facts["data"].startswith("abababababab (") and one.facts["seeds"] == "7, 8, 9"
    assert one.facts["margins"] == "memory_left 0.25, patients_over 0, test 0.03, worst_hospital 0.05"
    assert (one.facts["retrainings"], one.facts["processor"], one.facts["device"]) == (
        "3",
        "AMD EPYC AVX2",
        "CPU",
    )
    assert one.settings["training.lr"] == "0.002" and one.settings["requests.some.patients"] == "3 named"
    assert one.settings["strategies.good.recovery.rounds"] == "2" and "seeds" not in one.settings
    assert (
        one.settings["sites.names"] == "north, east, west" and one.settings["requests.some.name"] == "asked"
    )
    assert one.settings["requests.east-leaves.whole_site"] == "true"
    assert "north-0" not in repr(one.settings)
    assert one.trained == {7, 8, 9} and one.probes == ()


def test_further_retrained_models_and_probes_are_read(made: RunFolder, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(made.path, tmp_path / "run")
    change_manifest(
        tmp_path / "run",
        references=[{"request": "some", "seed": 12, "model": "retrained-some-12"}],
        probes={"names": ["linear_probe"]},
    )
    (one,) = comparison.read([tmp_path / "run"])
    assert one.trained == {7, 8, 9, 12} and one.probes == ("linear_probe",)


def test_a_list_of_lists_and_a_request_of_one_run_are_told_in_words(made: RunFolder, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(made.path, tmp_path / "run")
    scenario = (made.path / "scenario.yaml").read_text(encoding="utf-8")
    kept = [text for text in scenario.splitlines() if '"east-leaves"' not in text]
    kept.append("evaluation: {costs: [[0, 1], [5, 0]]}")
    (tmp_path / "run" / "scenario.yaml").write_text("\n".join(kept), encoding="utf-8")
    found = {one.what: one.values for one in differences(comparison.read([made.path, tmp_path / "run"]))}
    assert found == {
        "evaluation.costs": (("-", (1,)), ("0, 1; 5, 0", (2,))),
        "requests.east-leaves": (("asked", (1,)), ("-", (2,))),
    }

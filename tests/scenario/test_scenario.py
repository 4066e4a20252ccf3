"""Scenario files: every mistake is told with its place; what is right survives being written out and read again."""

from __future__ import annotations

import dataclasses
import re
import time
import typing
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given, strategies as st

from fedunlearn.core import InputError, LocalTraining, Problem, Recovery, Training
from fedunlearn.scenario import (
    Engine,
    Evaluation,
    Pick,
    Request,
    Shares,
    Tuned,
    Verdict,
    read,
    skipped,
    to_yaml,
)
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.yaml.source import LARGEST, parse
from fedunlearn.yaml.tree import Scalar, misread, plain
from strategies import catalogue
from strategies.negation import Negation

BAD = sorted((Path(__file__).parent / "bad_scenarios").glob("*.yaml"))
EXPECT = re.compile(r"# expect: (\d+|-):(\d+|-) (.*)")
GOOD = """\
name: good
seeds: [1, 2]
engine: {name: inline, workers: 2}
data: {name: phantom_cells, images: 240}
sites:
  names: [north, east, west]
  partition: {name: label_skew, alpha: 0.5}
model: {name: small_cnn}
training: {rounds: 4, local_epochs: 2, optimizer: sgd, lr: 1e-2, clip: 1}
requests:
  - {id: some, site: north, patients: {fraction: 0.2, pick: random}}
  - {id: named, site: west, patients: ["012", p-7], after_round: 2}
  - {id: leave, site: east, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 1}
  - {name: fine_tune, rounds: 2, as: longer, requests: [some]}
  - {name: federaser, every: 2}
"""


def write(folder: Path, text: str = GOOD) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        read(path, overrides)
    return caught.value.problems


# ---------------------------------------------------------------------------------------- what is right


def test_values_arrive_typed(tmp_path: Path) -> None:
    scenario = read(write(tmp_path))
    assert scenario.seeds == (1, 2) and scenario.seed == 0 and scenario.timeline == "independent"
    assert scenario.evaluation == Evaluation(shadows=0, cache=None)
    assert scenario.engine == Engine(name="inline", workers=2)
    assert scenario.sites.names == ("north", "east", "west") and scenario.sites.split == Shares(0.6, 0.1, 0.3)
    local = LocalTraining(epochs=2, batch_size=32, optimizer="sgd", lr=0.01, momentum=0.9, clip=1.0)
    assert scenario.training == Training(4, local)
    assert isinstance(scenario.training.local.clip, float)
    assert scenario.requests == (
        Request("some", "north", Pick(fraction=0.2)),
        Request("named", "west", ("012", "p-7"), after_round=2),
        Request("leave", "east", whole_site=True),
    )


def test_a_scenario_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        read(write(tmp_path)).name = "other"  # type: ignore[misc]  # the point of the test


def test_a_strategy_serves_what_it_can_and_the_rest_is_told(tmp_path: Path) -> None:
    scenario = read(write(tmp_path))
    assert [(plan.label, plan.requests) for plan in scenario.strategies] == [
        ("fine_tune", ("some", "named", "leave")),
        ("longer", ("some",)),
        ("federaser", ("leave",)),
    ]
    assert skipped(scenario) == [
        ("longer", "named", "left out of its `requests`"),
        ("longer", "leave", "left out of its `requests`"),
        ("federaser", "some", "federaser forgets whole sites only; request 'some' names patients"),
        ("federaser", "named", "federaser forgets whole sites only; request 'named' names patients"),
    ]


def test_nothing_is_trained_to_judge_by_unless_asked_for(tmp_path: Path) -> None:
    assert read(write(tmp_path)).evaluation == Evaluation(
        relearn=False, linear_probe=False, resurgence_rounds=0
    )
    on = ["evaluation={relearn: true, linear_probe: true, resurgence_rounds: 2}"]
    assert read(write(tmp_path), on).evaluation == Evaluation(
        relearn=True, linear_probe=True, resurgence_rounds=2
    )


def test_references_are_as_many_as_seeds_unless_more_are_asked_for(tmp_path: Path) -> None:
    """Those beyond have seeds that follow the largest, whatever the order of ``seeds``."""
    path = write(tmp_path)
    assert read(path).references is None and read(path).extra_seeds == ()
    assert read(path, ["references=2"]).extra_seeds == ()
    assert read(path, ["references=null"]).extra_seeds == ()
    assert read(path, ["references=5", "seeds=[9, 7]"]).extra_seeds == (10, 11, 12)


def test_margins_that_are_not_named_keep_their_defaults(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert read(path).verdict == Verdict(Margins())
    assert read(path, ["verdict={}"]).verdict == Verdict(Margins())
    assert read(path, ["verdict.margins.test=.05"]).verdict == Verdict(Margins(test=0.05))
    both = read(path, ["verdict={margins: {memory_left: 1, patients_over: 3}}", "verdict.margins.test=.1"])
    assert both.verdict.margins == Margins(test=0.1, memory_left=1.0, patients_over=3)


def test_what_is_not_said_of_a_recovery_is_the_strategys_own(tmp_path: Path) -> None:
    """`negation` recovers for 3 rounds by default, where `Recovery` by itself has 2."""
    listed = "strategies=[{name: negation}, {name: negation, as: b, recovery: {local_epochs: 4}}]"
    scenario = read(write(tmp_path), [listed, "strategies.1.recovery.lr=0.01"])
    assert [plan.strategy for plan in scenario.strategies] == [
        Negation(recovery=Recovery(3)),
        Negation(recovery=Recovery(3, 4, 0.01)),
    ]


def test_one_label_may_have_other_settings_for_another_request(tmp_path: Path) -> None:
    listed = (
        "strategies=[{name: puf, eta: 1, requests: [some, named]}, {name: puf, eta: 3, requests: [leave]}]"
    )
    scenario = read(write(tmp_path), [listed])
    assert [(plan.label, plan.requests) for plan in scenario.strategies] == [
        ("puf", ("some", "named")),
        ("puf", ("leave",)),
    ]
    assert read(write(tmp_path, to_yaml(scenario))).strategies == scenario.strategies
    assert skipped(scenario) == []  # every request is served by one of the two


def test_a_label_of_strategies_that_train_by_themselves_is_used_once(tmp_path: Path) -> None:
    """What each keeps of its own training has the label in its file's name."""
    listed = "strategies=[{name: fats, requests: [some]}, {name: fats, rate: .1, requests: [leave]}]"
    (problem,) = problems(write(tmp_path), listed)
    assert "is used twice, and each trains in a way of its own" in problem.message


def test_no_strategies_leave_the_references(tmp_path: Path) -> None:
    assert read(write(tmp_path), ["strategies=[]"]).strategies == ()


def test_a_sequential_timeline_in_order(tmp_path: Path) -> None:
    text = GOOD.partition("strategies:")[0].replace("pick: random}}", "pick: random}, after_round: 1}")
    scenario = read(write(tmp_path, text + "timeline: sequential\nstrategies: [{name: retrain}]\n"))
    assert [request.after_round for request in scenario.requests] == [1, 2, None]
    assert skipped(scenario) == []


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["strategies=[]"],
        ["evaluation={relearn: true, shadows: 6, cache: some/where}"],
        ["training.micro_batch=4"],
        ["references=5", "verdict.margins={test: 0.1, patients_over: 2}"],
        ["evaluation={costs: [[0, 1.5], [5, 0]]}"],
        ['requests.1.patients=["NO", "a: b", "ü, {"]'],
    ],
)
def test_written_out_in_full_and_read_again_it_is_equal(tmp_path: Path, overrides: list[str]) -> None:
    scenario = read(write(tmp_path), overrides)
    text = to_yaml(scenario)
    again = read(write(tmp_path, text))
    assert again == scenario
    assert to_yaml(again) == text
    for default in (
        "timeout: 600.0",
        "momentum: 0.9",
        "timeline: independent",
        "split:",
        "seed: 0",
        "whole_site: false",
    ):
        assert default in text


def test_what_tuning_cost_survives_being_written_out(tmp_path: Path) -> None:
    cost = "tuned: {trials: 20, site_seconds: 31.5, images: 4000, bytes: 123}"
    scenario = read(
        write(tmp_path, GOOD.replace("{name: fine_tune, rounds: 1}", f"{{name: fine_tune, {cost}}}"))
    )
    assert [plan.tuned for plan in scenario.strategies] == [Tuned(20, 31.5, 4000, 123), None, None]
    assert read(write(tmp_path, to_yaml(scenario))) == scenario
    text = GOOD.replace("{name: fine_tune, rounds: 1}", f"{{name: fine_tune, {cost.replace('20', '0')}}}")
    (found,) = problems(write(tmp_path, text))
    assert found.message == "trials: expected a number (at least 1), found '0'"


def test_values_know_their_places(tmp_path: Path) -> None:
    path = write(tmp_path)
    scenario = read(path, ["requests.2.site=west"])
    told = scenario.placed(Problem("unknown"), "requests.1.patients.1")
    assert (told.file, told.line, told.column) == (str(path), 12, 47)
    assert GOOD.splitlines()[11][46:49] == "p-7"
    around = scenario.placed(Problem("unknown"), "requests.0.absent")
    assert (around.line, around.column) == (11, 5)
    overridden = scenario.placed(Problem("unknown"), "requests.2.site")
    assert str(overridden) == "--set requests.2.site=west: unknown"
    own = Problem("damaged", "data.csv", 3)
    assert scenario.placed(own, "data") == own


# ------------------------------------------------------------------------------------------- overrides


def test_overrides_replace_and_add_values(tmp_path: Path) -> None:
    changes = [
        "training.rounds=3",
        "strategies.0.rounds=7",
        "seeds=[5]",
        "engine.name=flower",
        "training.momentum=0.5",
    ]
    scenario = read(
        write(tmp_path), [*changes, "training.rounds=6", "sites.split={train: 0.5, val: 0.2, test: 0.3}"]
    )
    assert scenario.training.rounds == 6
    assert scenario.training.local.momentum == 0.5
    assert scenario.strategies[0].strategy.rounds == 7  # type: ignore[attr-defined]  # a FineTune
    assert scenario.seeds == (5,)
    assert scenario.engine == Engine(name="flower", workers=2)
    assert scenario.sites.split == Shares(0.5, 0.2, 0.3, 0.0)


def test_an_override_adds_a_part_that_is_not_there(tmp_path: Path) -> None:
    text = GOOD.replace("engine: {name: inline, workers: 2}\n", "")
    assert read(write(tmp_path, text), ["engine.name=inline"]).engine == Engine(name="inline")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.rounds=six", "rounds: expected a whole number (at least 1), found 'six'"),
        ("training.rounds", "expected KEY=VALUE, for example training.rounds=2"),
        ("training.rounds=", "found no value after `=`; write null for none"),
        ("training..rounds=1", "expected KEY=VALUE, for example training.rounds=2"),
        ("=1", "expected KEY=VALUE, for example training.rounds=2"),
        ("training.round=6", "unknown key 'round', did you mean 'rounds'?"),
        (
            "references=1",
            "found 1, but each of the 2 seeds has a retrained model of its own: write 2 or more",
        ),
        ("verdict.margins.tset=.1", "unknown key 'tset', did you mean 'test'?"),
        ("verdict.margins.test=0", "test: expected a number (more than 0 and at most 1), found '0'"),
        ("verdict.margins=.1", "expected a mapping with the keys test, worst_hospital, "),
        ("strategies.9.rounds=1", "strategies is a list: found '9'; expected a position from 0 to 2"),
        ("strategies.-1.rounds=1", "strategies is a list: found '-1'; expected a position from 0 to 2"),
        ("name.first=a", "name is 'good', it has no 'first' in it"),
        ("seeds=[1, ", "not YAML"),
        ("seeds=&a [1]", "found the anchor '&a'"),
        ("requests.1.patients.0=012", "requests.1.patients.0: 012 would be read as the number 12"),
        ("name=NO", "name: NO would be read as the truth value false"),
        ("requests.0.site=nord", "unknown site 'nord', did you mean 'north'?"),
        ("name=a\x1b[31m", "found the control character U+001B"),
    ],
)
def test_a_problem_in_an_override_is_named_by_it(tmp_path: Path, override: str, message: str) -> None:
    found = problems(write(tmp_path), override)
    assert len(found) == 1
    assert str(found[0]).startswith(f"--set {override}".partition("\x1b")[0])
    assert found[0].message.startswith(message) and found[0].line is None


def test_problems_of_file_and_overrides_come_together(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("rounds: 4", "rounds: 0"))
    assert [p.line for p in problems(path, "nonsense", "seeds=[]")] == [9, None, None]


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_scenario_is_told_at_its_place(path: Path) -> None:
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    expected = [match.groups() for line in lines if (match := EXPECT.fullmatch(line))]
    assert expected, "the first lines must say what is expected: # expect: line:column start of the message"
    found = problems(path)
    assert [(str(p.line or "-"), str(p.column or "-")) for p in found] == [tuple(e[:2]) for e in expected]
    for problem, (_, _, start) in zip(found, expected, strict=True):
        assert problem.message.startswith(start)
        assert problem.file == str(path)


def test_the_corpus_is_there() -> None:
    assert len(BAD) >= 30


class OutOfRange(typing.NamedTuple):
    """A hyper-parameter's value beyond one of its bounds, and the bound in words."""

    field: str
    value: str
    bound: str


def out_of_range(cls: type[Any]) -> Iterator[OutOfRange]:
    """The nearest whole number, or half for a share, beyond every bound of every hyper-parameter."""
    for field, hint in typing.get_type_hints(cls, include_extras=True).items():
        annotated = [hint, *typing.get_args(hint)]  # the number itself, or one of `… | None`
        for mark in (mark for part in annotated for mark in getattr(part, "__metadata__", ())):
            match mark:
                case Gt(gt):
                    yield OutOfRange(field, f"{gt}", f"more than {gt}")
                case Ge(ge):
                    yield OutOfRange(field, f"{ge - 1}", f"at least {ge}")  # type: ignore[operator]
                case Lt(lt):
                    yield OutOfRange(field, f"{lt}", f"less than {lt}")
                case Le(le):
                    yield OutOfRange(field, f"{le + 1}", f"at most {le}")  # type: ignore[operator]


def hyper_parameters(cls: type[Any]) -> list[str]:
    """By name."""
    return [field.name for field in dataclasses.fields(cls) if field.name != "name"]


def entries(name: str, settings: list[str]) -> str:
    """`GOOD` with one strategy, once for each setting."""
    lines = [f"  - {{name: {name}, {setting}, as: s{i}}}\n" for i, setting in enumerate(settings)]
    return GOOD.partition("strategies:")[0] + "strategies:\n" + "".join(lines)


@pytest.mark.parametrize("name", [name for name, cls in catalogue().items() if list(out_of_range(cls))])
def test_a_hyper_parameter_out_of_range_is_told_at_its_place_with_its_range(
    tmp_path: Path, name: str
) -> None:
    """All of a strategy at once. GOOD's strategies begin in line 15; a value follows `  - {name: NAME, FIELD: `."""
    wrong = list(out_of_range(catalogue()[name]))
    path = write(tmp_path, entries(name, [f"{w.field}: {w.value}" for w in wrong]))
    for i, (problem, w) in enumerate(zip(problems(path), wrong, strict=True)):
        column = len(f"  - {{name: {name}, {w.field}: ") + 1
        assert (problem.file, problem.line, problem.column) == (str(path), 15 + i, column)
        told = re.fullmatch(rf"{w.field}: expected a number \((.*)\), found '{w.value}'", problem.message)
        assert told, problem.message
        assert w.bound in told[1].split(" and ")


@pytest.mark.parametrize("name", [name for name, cls in catalogue().items() if hyper_parameters(cls)])
def test_a_misspelt_hyper_parameter_is_told_with_the_one_that_was_meant(tmp_path: Path, name: str) -> None:
    fields = hyper_parameters(catalogue()[name])
    path = write(tmp_path, entries(name, [f"{field}z: 1" for field in fields]))
    for i, (problem, field) in enumerate(zip(problems(path), fields, strict=True)):
        column = len(f"  - {{name: {name}, ") + 1
        assert (problem.file, problem.line, problem.column) == (str(path), 15 + i, column)
        assert problem.message.startswith(f"unknown key '{field}z', did you mean '{field}'?")


@pytest.mark.parametrize("text", ["", " \n\n", "---\n", "---\n...\n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    (found,) = problems(write(tmp_path, text))
    assert "found nothing" in found.message


def test_a_file_of_5_mb_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path, "# many comments\n" * (5 * LARGEST // 16))
    before = time.process_time()
    (found,) = problems(path)
    assert time.process_time() - before < 1
    assert "found more than 1 MB" in found.message


def test_an_alias_bomb_does_not_go_off(tmp_path: Path) -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12)]
    before = time.process_time()
    (found,) = problems(write(tmp_path, "\n".join(["l0: &l0 [bomb]", *levels])))
    assert time.process_time() - before < 1
    assert (found.line, found.column) == (1, 5) and "anchor" in found.message


def test_deep_nesting_is_refused_before_it_is_built(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, "seeds: " + "[" * 100_000))
    assert (found.line, found.column) == (1, 28) and "20 levels" in found.message


def test_other_encodings_are_told(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_bytes(GOOD.encode("utf-16"))
    (found,) = problems(path)
    assert (found.line, found.column) == (1, 1) and "not UTF-8" in found.message
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read(path).name == "good"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yaml"):
        (found,) = problems(path)
        assert found.file == str(path) and "cannot read it" in found.message


def test_needs_that_nothing_provides_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedunlearn.core import Every, Needs
    from strategies.fine_tune import FineTune

    monkeypatch.setattr(FineTune, "needs", Needs(proxy_examples=8, class_labels=True, checkpoints=Every(9)))
    other = "model={name: small_cnn, kind: multilabel}"
    messages = [
        problem.message for problem in problems(write(tmp_path), "strategies=[{name: fine_tune}]", other)
    ]
    assert messages == [
        "fine_tune needs images that the server owns, and sites.split.proxy is 0: give it a share, such as "
        "{train: 0.6, val: 0.1, test: 0.2, proxy: 0.1}, or remove it",
        "fine_tune needs one class per image; model 'small_cnn' is for multilabel: remove it or change the model",
        "fine_tune keeps checkpoints every 9 rounds, but a request comes after round 2; lower it",
    ]


def test_a_strategy_for_patients_alone_is_refused_for_a_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedunlearn.core import Granularity
    from strategies.fine_tune import FineTune

    monkeypatch.setattr(FineTune, "granularity", frozenset({Granularity.PATIENTS}))
    (found,) = problems(write(tmp_path), "strategies=[{name: fine_tune, requests: [leave]}]")
    assert found.message == "fine_tune forgets patients only; request 'leave' is for the whole of 'east'"


# ------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize(
    "text",
    [
        "012",
        "7",
        "-3",
        "+4",
        "1e3",
        "1.5",
        ".5",
        "1.",
        "0x1F",
        "0o17",
        "0b11",
        "1_000",
        "12:30",
        "12:30:45.5",
        ".inf",
        "-.INF",
        ".NaN",
        "2024-01-31",
        "2024-1-3",
        "yes",
        "Yes",
        "NO",
        "no",
        "on",
        "OFF",
        "y",
        "N",
        "true",
        "FALSE",
        "null",
        "Null",
        "~",
    ],
)
def test_what_readers_disagree_about_is_no_id(text: str) -> None:
    assert misread(text) is not None


@pytest.mark.parametrize(
    "text", ["p-7", "north", "7a", "a7", "1-2", "1.2.3", "2024-01", "nope", "e3", "0x", "3hosp"]
)
def test_words_are_ids(text: str) -> None:
    assert misread(text) is None


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20))
def test_numbers_as_python_writes_them_are_read_back(number: float) -> None:
    node = parse(repr(number), "x")
    assert isinstance(node, Scalar)
    assert plain(node) == number and type(plain(node)) is type(number)


_SCRAPS = st.sampled_from(
    [*"{}[]:,-|>%#?~'\"\t\n\aé0", "\n  ", "---", "\n- ", "\\ud800", '"\\x"']
) | st.sampled_from(["&a ", "*a", "!!int ", "<<: ", "? ", "012", "NO", "null", "1e3", "-1", "true", ".inf"])
_KEYS = (
    st.sampled_from(["name", "seeds.0", "engine", "data.name", "sites.names", "sites.split", "training.lr"])
    | st.sampled_from(["requests.0", "requests.0.patients", "requests.1.patients.0", "requests.2.site"])
    | st.sampled_from(["strategies.0.as", "strategies.2.every", "strategies.1.requests", "timeline"])
    | st.text(max_size=8)
)
_VALUES = (
    st.sampled_from(["{}", "[]", "[[]]", "{a: 1}", "[1, a]", "1.5", "1e999", "9" * 40, '""', "retrained"])
    | st.sampled_from(["sequential", "leave", "[leave]", "{count: 1}"])
    | st.text(max_size=8)
)


def read_or_refuse(path: Path, *overrides: str) -> None:
    """Nothing but `InputError` may come out, fit for one line each; what is read survives the way back."""
    try:
        scenario = read(path, overrides)
    except InputError as error:
        found = error.problems
    else:
        path.write_text(to_yaml(scenario), encoding="utf-8")
        assert read(path) == scenario
        return
    assert found
    assert all(str(problem).isprintable() for problem in found)


@given(
    st.lists(
        st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), _SCRAPS | st.text(max_size=5)), min_size=1
    )
)
def test_a_damaged_scenario_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int, str]]
) -> None:
    text = GOOD
    for start, length, scrap in damage:
        text = text[:start] + scrap + text[start + length :]
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    read_or_refuse(path)


@given(_KEYS, _SCRAPS | _VALUES)
def test_any_override_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    read_or_refuse(write(tmp_path_factory.getbasetemp()), f"{key}={value}")

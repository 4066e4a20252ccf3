"""A calendar in a scenario: its stream is the same however often it is read, and whatever it is read for."""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from fedunlearn.core import InputError
from fedunlearn.intake.arrivals import Arrivals, Kinds
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Limits
from fedunlearn.intake.policies import AtOnce, Batch, Budget, Release
from fedunlearn.scenario import Pick, PolicyPlan, Request, Scenario, json_schema, read, skipped, to_yaml
from tests import guest

YEAR = """\
name: year
seeds: [1]
engine: {name: inline}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 52}
calendar: {start: 2026-01-01, round: 7d, looks: 30d}
arrivals: {per_year: 40, kinds: {patient: .9, image: .05, whole_site: .05}, from: {north: 2, east: 1}, seed: 3}
requests:
  - {id: q1, site: north, patients: ["012"], received: 2026-02-03}
  - {id: q2, site: north, images: ["012-1", p-2-0], received: 2026-02-03}
  - {id: q3, site: east, whole_site: true, received: 2026-03-01}
  - {id: q4, site: east, patients: {count: 2}, received: 2026-12-31, kind: opt_out}
policies:
  - {name: at_once}
  - {name: batch, every: 30d}
  - {name: batch, size: 10, as: tens}
  - {name: release, every: 180d}
  - {name: budget, drift: 0.1}
limits: {quota: 3}
strategies:
  - {name: fine_tune}
  - {name: retrain}
"""


def year(folder: Path, *overrides: str, text: str = YEAR) -> Scenario:
    path = folder / "year.yaml"
    path.write_text(text, encoding="utf-8")
    return read(path, overrides)


def test_values_arrive_typed(tmp_path: Path) -> None:
    scenario = year(tmp_path)
    assert scenario.calendar == Calendar(date(2026, 1, 1), 7, 30)
    kinds = Kinds(patient=0.9, image=0.05, whole_site=0.05)
    assert scenario.arrivals == Arrivals("poisson", 40.0, kinds, {"north": 2.0, "east": 1.0}, 3)
    assert scenario.policies == (
        PolicyPlan(AtOnce(), "at_once"),
        PolicyPlan(Batch(every=30), "batch-30d"),
        PolicyPlan(Batch(size=10), "tens"),
        PolicyPlan(Release(every=180), "release-180d"),
        PolicyPlan(Budget(drift=0.1), "budget-0.1"),
    )
    assert scenario.limits == Limits(quota=3)
    assert scenario.requests[:4] == (
        Request("q1", "north", ("012",), received=date(2026, 2, 3)),
        Request("q2", "north", images=("012-1", "p-2-0"), received=date(2026, 2, 3)),
        Request("q3", "east", whole_site=True, received=date(2026, 3, 1)),
        Request("q4", "east", Pick(count=2), received=date(2026, 12, 31), kind="opt_out"),
    )
    assert [one.asks for one in scenario.requests[:4]] == ["patients", "images", "whole_site", "opt_out"]


@pytest.mark.parametrize(
    "day", ['"1767225600"', "20260203", "2026-2-3", "2026-02-30", "2026-02-03T00:00", "[]"]
)
def test_a_day_is_written_as_one(tmp_path: Path, day: str) -> None:
    with pytest.raises(InputError, match="expected a day such as 2026-01-01, found"):
        year(tmp_path, f"requests.0.received={day}")
    assert year(tmp_path, 'requests.0.received="2026-02-05"').requests[0].received == date(2026, 2, 5)


SCRAPS = st.sampled_from(
    [*"{}[]:,-0d ", "null", "-1", "1e9", "9999-12-31", "r001", "all-requests", "3660d", "north: ", "\n  - "]
)


@given(
    st.lists(
        st.tuples(st.integers(0, len(YEAR)), st.integers(0, 12), SCRAPS | st.text(max_size=3)), min_size=1
    )
)
def test_a_damaged_calendar_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int, str]]
) -> None:
    text = YEAR
    for start, length, scrap in damage:
        text = text[:start] + scrap + text[start + length :]
    path = tmp_path_factory.getbasetemp() / "damaged-year.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(InputError):
        read(path)


def test_what_comes_by_itself_is_among_the_requests(tmp_path: Path) -> None:
    drawn = year(tmp_path).requests[4:]
    assert len(drawn) > 20 and all(one.drawn for one in drawn)
    assert [one.id for one in drawn] == [f"r{number:03}" for number in range(1, len(drawn) + 1)]
    assert set(Counter(one.site for one in drawn)) == {"north", "east"}
    for one in drawn:
        assert one.received is not None and timedelta(0) <= one.received - date(2026, 1, 1) < timedelta(364)
        if one.asks == "patients":
            assert one.patients == Pick(count=1) and one.images is None


def test_the_stream_is_the_same_for_every_policy_strategy_and_training_seed(tmp_path: Path) -> None:
    one = year(tmp_path).requests
    others = [
        "policies=[{name: at_once}]",
        "strategies=[{name: salun}]",
        "seeds=[5, 6]",
        "seed=4",
        "model.hidden=8",
    ]
    assert year(tmp_path, *others).requests == one
    assert year(tmp_path, "arrivals.seed=4").requests != one


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["requests=[]"],
        ["arrivals.from=null"],
        ["arrivals={process: regular, kinds: {opt_out: 1, image: 2}}"],
        ["policies.0.as=soon", "limits={hospitals: 1, class_images: 0, images: 9}"],
        ['requests.0.patients=["NO"]'],
    ],
)
def test_written_out_in_full_and_read_again_it_is_equal(tmp_path: Path, overrides: list[str]) -> None:
    scenario = year(tmp_path, *overrides)
    text = to_yaml(scenario)
    assert year(tmp_path, text=text) == scenario
    assert to_yaml(year(tmp_path, text=text)) == text
    assert "r001" not in text and "drawn" not in text and "timeline" not in text
    judge = Draft202012Validator(json_schema.schema())
    assert [error.message for error in judge.iter_errors(YAML(typ="safe").load(text))] == []


def test_a_scenario_without_a_calendar_says_nothing_of_one(tmp_path: Path) -> None:
    text = YEAR[: YEAR.index("calendar:")] + "requests: [{id: a, site: north, patients: [p]}]\n"
    scenario = year(tmp_path, text=text)
    assert (scenario.calendar, scenario.arrivals, scenario.policies) == (None, None, ())
    written = to_yaml(scenario)
    assert not [key for key in ("calendar", "arrivals", "policies", "limits", "received") if key in written]
    assert '- {id: "a", site: "north", patients: ["p"], whole_site: false, after_round: null}' in written


def test_single_images_need_no_calendar(tmp_path: Path) -> None:
    text = YEAR[: YEAR.index("calendar:")] + "requests: [{id: a, site: north, images: [p-1]}]\n"
    scenario = year(tmp_path, text=text + "strategies: [{name: fine_tune}, {name: retrain}]\n")
    assert scenario.requests == (Request("a", "north", images=("p-1",)),)
    assert [plan.requests for plan in scenario.strategies] == [("a",), ("a",)]
    assert year(tmp_path, text=to_yaml(scenario)) == scenario


def test_without_policies_requests_are_honoured_at_once(tmp_path: Path) -> None:
    text = YEAR[: YEAR.index("policies:")] + YEAR[YEAR.index("limits:") :]
    assert year(tmp_path, text=text).policies == (PolicyPlan(AtOnce(), "at_once"),)


def test_a_strategy_serves_all_erasures_and_no_opt_out(tmp_path: Path) -> None:
    scenario = year(tmp_path)
    erasures = tuple(one.id for one in scenario.requests if one.kind == "erasure")
    assert "q4" not in erasures and len(erasures) == len(scenario.requests) - 1
    assert [plan.requests for plan in scenario.strategies] == [erasures, erasures]
    assert skipped(scenario) == []


def test_a_strategy_that_cannot_forget_a_kind_that_comes_is_not_run(tmp_path: Path) -> None:
    """A strategy of the user's for patients only; nothing that comes with fedunlearn is like that."""
    text = guest.unsure().replace("frozenset(Granularity)", "frozenset({Granularity.PATIENTS})")
    guest.write(tmp_path, text)
    scenario = year(tmp_path, "strategies=[{name: unsure, file: unsure.py}, {name: retrain}]")
    assert [plan.label for plan in scenario.strategies if not plan.requests] == ["unsure"]
    ((label, request, reason),) = skipped(scenario)
    assert (label, request) == ("unsure", "q3")
    assert reason.startswith("unsure forgets patients only") and reason.endswith("all that comes, or nothing")
    alone = ["arrivals.kinds={patient: 1}", "requests=[]", "policies=[{name: at_once}]"]
    with_patients = year(tmp_path, *alone, "strategies=[{name: unsure, file: unsure.py}]")
    assert with_patients.strategies[0].requests
    with pytest.raises(InputError, match=r"there is none.*unsure forgets patients only"):
        year(tmp_path, "policies=[{name: at_once}]", "strategies=[{name: unsure, file: unsure.py}]")

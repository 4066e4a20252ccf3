"""What the desk accepts, refuses and holds back: every row of the table of threats that concerns the way in."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fedunlearn.intake.desk import REASONS, Limits
from fedunlearn.intake.petition import Petition, malformed
from fedunlearn.intake.register import Register
from tests.intake.register import (
    CALENDAR,
    REGISTER,
    decided,
    images,
    leaving,
    outcome,
    patients,
    table,
)


def named(rows: tuple[int, ...]) -> set[str]:
    return set(REGISTER.table["image"].iloc[list(rows)])


# --------------------------------------------------------------------------------------------- accepted


def test_a_patient_of_the_hospital_is_accepted_at_the_next_meeting() -> None:
    (entry,) = decided(patients("r1", "north", "n0", on="2026-01-09"))
    assert (entry.state, entry.boundary, entry.reason, entry.sentence, entry.of) == (
        "accepted",
        2,
        "",
        "",
        None,
    )
    assert named(entry.rows) == {"n0-north-0", "n0-north-1"} and entry.images == 2 and entry.erases


def test_a_patient_at_several_hospitals_is_erased_at_all_of_them() -> None:
    (entry,) = decided(patients("r1", "north", "p-both"))
    assert entry.state == "accepted" and entry.images == 5
    assert set(REGISTER.site[list(entry.rows)]) == {"north", "east"}
    assert entry.sentence == "images at several hospitals, erased at all of them: east 3, north 2"


def test_what_earlier_requests_erased_is_told_and_not_counted_again() -> None:
    """North has five training patients of two images each, and one for testing."""
    entries = decided(
        patients("r1", "north", "n0"), images("r2", "north", "n1-north-1"), leaving("r3", "north")
    )
    assert entries[0].sentence == entries[1].sentence == "" and entries[2].images == 10 - 3
    assert entries[2].sentence == "3 of these 12 images came with requests 'r1', 'r2' already"


def test_single_images_are_accepted_alone() -> None:
    (entry,) = decided(images("r1", "north", "n0-north-1"))
    assert named(entry.rows) == {"n0-north-1"} and entry.images == 1


def test_a_hospital_leaves_with_all_parts_of_its_images_and_nobody_elses() -> None:
    (entry,) = decided(leaving("r1", "east"))
    assert named(entry.rows) == set(REGISTER.table.loc[REGISTER.table["site"] == "east", "image"])
    assert entry.images == 4 * 2 + 3  # those for testing are not unlearned


def test_a_patient_whom_no_model_was_trained_on_is_accepted_with_nothing_to_unlearn() -> None:
    """The hospital holds images of the patient, which may have to go all the same."""
    (entry,) = decided(patients("r1", "north", "n-test"))
    assert entry.state == "accepted" and entry.images == 0 and not entry.erases and len(entry.rows) == 2
    assert "no model was trained on it (test part)" in entry.sentence


def test_an_opt_out_bars_and_erases_nothing() -> None:
    entries = decided(patients("r1", "north", "n0", opt_out=True), patients("r2", "north", "n0"))
    assert outcome(entries) == [("accepted", ""), ("accepted", "")]
    assert not entries[0].erases and entries[1].images == 2, (
        "models know what was opted out until it is erased"
    )


# ------------------------------------------------------------------------------------------------ refused


def test_an_unknown_patient() -> None:
    (entry,) = decided(patients("r1", "north", "n0", "nobody"))
    assert (entry.state, entry.reason, entry.rows) == ("refused", "unknown_patient", ())
    assert "'nobody'" in entry.sentence


def test_an_unknown_image() -> None:
    assert outcome(decided(images("r1", "north", "n0-north-7"))) == [("refused", "unknown_image")]


@pytest.mark.parametrize("request_", [patients("r1", "north", "e0"), images("r1", "north", "e0-east-0")])
def test_a_patient_of_another_hospital_alone(request_: Petition) -> None:
    (entry,) = decided(request_)
    assert (entry.state, entry.reason) == ("refused", "elsewhere")
    assert entry.sentence.endswith("only at 'east', which has to ask")


def test_a_duplicate_refers_to_the_request_that_answers_it() -> None:
    entries = decided(
        patients("r1", "north", "n0", "n1"),
        patients("r2", "north", "n1", on="2026-03-01"),
        images("r3", "north", "n0-north-0", on="2026-03-01"),
    )
    assert outcome(entries)[1:] == [("refused", "duplicate")] * 2
    assert [entry.of for entry in entries] == [None, "r1", "r1"]


def test_what_was_accepted_in_part_is_accepted_for_the_rest() -> None:
    entries = decided(images("r1", "north", "n0-north-0"), patients("r2", "north", "n0"))
    assert outcome(entries) == [("accepted", "")] * 2
    assert [entry.images for entry in entries] == [1, 1]


def test_an_opt_out_of_the_erased_is_a_duplicate() -> None:
    entries = decided(patients("r1", "north", "n0"), patients("r2", "north", "n0", opt_out=True))
    assert outcome(entries)[1] == ("refused", "duplicate") and entries[1].of == "r1"


def test_a_replay_is_answered_once_whatever_it_says_now() -> None:
    entries = decided(patients("r1", "north", "n0"), patients("r1", "north", "n2", on="2026-04-01"))
    assert outcome(entries) == [("accepted", ""), ("refused", "replayed")]
    assert entries[1].of == "r1" and entries[1].rows == ()


def test_a_refused_request_is_not_decided_anew_when_it_is_replayed() -> None:
    entries = decided(patients("r1", "north", "nobody"), patients("r1", "north", "n0"))
    assert outcome(entries) == [("refused", "unknown_patient"), ("refused", "replayed")]


def test_a_hospital_that_has_left_asks_no_more() -> None:
    entries = decided(
        leaving("r1", "east"),
        patients("r2", "east", "e0", on="2026-02-01"),
        leaving("r3", "east", on="2026-02-01"),
        patients("r4", "north", "p-both", on="2026-02-01"),
    )
    assert outcome(entries)[1:] == [("refused", "left"), ("refused", "left"), ("accepted", "")]
    assert entries[1].of == "r1" and entries[3].images == 2, "what east had of this patient is gone already"


@pytest.mark.parametrize(
    "petition",
    [
        Petition("r1", date(2026, 1, 5), "north", "patients"),
        Petition("r1", date(2026, 1, 5), "north", "opt_out"),
        Petition("r1", date(2026, 1, 5), "north", "images"),
        Petition("r1", date(2026, 1, 5), "north", "images", ("n0",), ("n0-north-0",)),
        Petition("r1", date(2026, 1, 5), "north", "whole_site", ("n0",)),
        Petition("r1", date(2026, 1, 5), "north", "everything"),  # type: ignore[arg-type]  # the point of the test
        Petition("r1", date(2026, 1, 5), "south", "whole_site"),
        Petition("../r1", date(2026, 1, 5), "north", "patients", ("n0",)),
        Petition("r@1", date(2026, 1, 5), "north", "patients", ("n0",)),
        Petition("", date(2026, 1, 5), "north", "patients", ("n0",)),
        Petition("r1", date(2026, 1, 5), "north", "patients", ("n0\n{}",)),
        Petition("r1", date(2026, 1, 5), "north", "patients", ("n" * 10_000,)),
        Petition("r1", date(2026, 1, 5), "north", "patients", (7,)),  # type: ignore[arg-type]  # the point of the test
    ],
)
def test_what_nobody_can_read_is_malformed(petition: Petition) -> None:
    (entry,) = decided(petition)
    assert (entry.state, entry.reason, entry.rows) == ("refused", "malformed", ())
    assert entry.sentence.isprintable() and len(entry.sentence) < 300


def test_requests_carry_ids_and_never_images() -> None:
    """Whoever could send images could have a model unlearn what it never saw (arXiv 2309.08230)."""
    kinds = {field.name: field.type for field in dataclasses.fields(Petition)}
    texts = ("RequestId", "SiteId", "Kind", "date", "tuple[PatientId, ...]", "tuple[str, ...]")
    assert {str(kind) for kind in kinds.values()} <= set(texts)


# ------------------------------------------------------------------------------------- too much at once


def test_the_last_hospitals_stay() -> None:
    entries = decided(
        leaving("r1", "east"),
        leaving("r2", "west", on="2026-02-01"),
        limits=Limits(hospitals=2, class_images=0),
    )
    assert outcome(entries) == [("accepted", ""), ("refused", "few_hospitals")]
    expected = "expected at least 2 (limits.hospitals)"
    assert entries[1].sentence == f"it would leave 1 hospital with training images, {expected}"


def test_a_hospital_without_patients_left_counts_as_gone() -> None:
    """What a hospital may not do at once, it may not do patient by patient either."""
    limits = Limits(hospitals=3, class_images=0)
    entries = decided(*(patients(f"r{i}", "west", f"w{i}") for i in range(4)), limits=limits)
    assert outcome(entries) == [("accepted", "")] * 3 + [("refused", "few_hospitals")]


def test_where_there_are_fewer_hospitals_than_wanted_no_more_may_go() -> None:
    limits = Limits(hospitals=9, class_images=0)
    entries = decided(patients("r1", "west", "w0"), leaving("r2", "east"), limits=limits)
    assert outcome(entries) == [("accepted", ""), ("refused", "few_hospitals")]


def test_a_class_is_not_erased_whole() -> None:
    entries = decided(
        patients("r1", "north", "n0"),
        patients("r2", "north", "n1", on="2026-02-01"),
        limits=Limits(class_images=1),
    )
    assert outcome(entries) == [("accepted", ""), ("refused", "few_of_a_class")]
    both = decided(patients("r1", "north", "n0", "n1"), limits=Limits(class_images=1))
    assert outcome(both) == [("refused", "few_of_a_class")]


def test_a_finding_is_not_erased_whole() -> None:
    """Masses are seen in the first two patients of north alone, in one of them beside an effusion, as others have."""
    told = table()
    mass = told.pop("label") == 1
    told["findings"] = np.where(mass, np.where(told["patient"] == "n0", "effusion|mass", "mass"), "effusion")
    asked = (patients("r1", "north", "n0"), patients("r2", "north", "n1", on="2026-02-01"))
    entries = decided(*asked, register=Register(told), limits=Limits(class_images=1))
    assert outcome(entries) == [("accepted", ""), ("refused", "few_of_a_class")]
    assert entries[1].sentence.startswith("it would leave 0 training images of finding mass")


def test_opt_outs_leave_as_little_as_erasures() -> None:
    entries = decided(
        patients("r1", "north", "n0", opt_out=True),
        patients("r2", "north", "n1"),
        limits=Limits(class_images=1),
    )
    assert outcome(entries) == [("accepted", ""), ("refused", "few_of_a_class")]


def test_a_class_that_had_too_few_from_the_start_is_not_guarded() -> None:
    assert outcome(decided(patients("r1", "north", "n0"), limits=Limits(class_images=5))) == [
        ("accepted", "")
    ]


def test_so_many_images_remain() -> None:
    """There are 29 training images: 24 of the hospitals' own patients and 5 of the patient at two."""
    limits = Limits(hospitals=1, class_images=0, images=27)
    entries = decided(patients("r1", "north", "n0"), patients("r2", "north", "n1"), limits=limits)
    assert outcome(entries) == [("accepted", ""), ("refused", "few_images")]


def test_volumes_have_no_classes_to_guard() -> None:
    register = Register(table().drop(columns="label"))
    entries = decided(patients("r1", "north", "n0", "n1"), register=register, limits=Limits(class_images=9))
    assert outcome(entries) == [("accepted", "")]


def test_nothing_is_taken_for_what_is_refused() -> None:
    """After a refusal the same limits hold as before it."""
    limits = Limits(hospitals=2, class_images=0)
    entries = decided(
        patients("r1", "north", "nobody"),
        leaving("r2", "east"),
        leaving("r3", "north"),
        patients("r4", "north", "n0"),
        limits=limits,
    )
    assert outcome(entries) == [
        ("refused", "unknown_patient"),
        ("accepted", ""),
        ("refused", "few_hospitals"),
        ("accepted", ""),
    ]


# -------------------------------------------------------------------------------------------------- quota


def test_a_hospital_that_would_keep_everybody_busy_is_held_back_and_never_refused_for_it() -> None:
    """Three a month: of ten requests on 2026-01-05 four, four and two are answered in the first meetings of months."""
    limits = Limits(hospitals=1, class_images=0, quota=3)
    many = Register(table())
    asked = [images(f"r{i}", "north", f"n{i // 2}-north-{i % 2}") for i in range(8)]
    entries = decided(*asked, register=many, limits=limits)
    assert all(entry.state == "accepted" for entry in entries)
    days = [str(CALENDAR.day(entry.boundary or 0)) for entry in entries]
    assert days == ["2026-01-08"] * 3 + ["2026-02-05"] * 3 + ["2026-03-05"] * 2
    assert [entry.reason for entry in entries] == [""] * 3 + ["quota"] * 5
    assert {entry.held for entry in entries} == {None, 1}
    assert entries[3].sentence.startswith("held back from 2026-01-08 until 2026-02-05")


def test_other_hospitals_do_not_wait_for_it() -> None:
    limits = Limits(hospitals=1, class_images=0, quota=1)
    entries = decided(
        patients("r1", "north", "n0"),
        patients("r2", "north", "n1"),
        patients("r3", "east", "e0"),
        limits=limits,
    )
    assert [entry.boundary for entry in entries] == [1, 5, 1]


def test_who_was_held_back_comes_before_who_came_later() -> None:
    limits = Limits(hospitals=1, class_images=0, quota=1)
    entries = decided(
        patients("r1", "north", "n0"),
        patients("r2", "north", "n1"),
        patients("r3", "north", "n2", on="2026-02-02"),
        limits=limits,
    )
    assert [str(CALENDAR.day(entry.boundary or 0))[:7] for entry in entries] == [
        "2026-01",
        "2026-02",
        "2026-03",
    ]


def test_opt_outs_and_refusals_use_no_quota() -> None:
    limits = Limits(hospitals=1, class_images=0, quota=1)
    entries = decided(
        patients("r1", "north", "n0", opt_out=True),
        patients("r2", "north", "nobody"),
        patients("r3", "north", "n1"),
        patients("r4", "north", "n2", opt_out=True),
        limits=limits,
    )
    assert [entry.boundary for entry in entries] == [1, 1, 1, 1]


def test_what_is_still_held_back_at_the_end_is_open_with_its_reason() -> None:
    limits = Limits(hospitals=1, class_images=0, quota=1)
    entries = decided(patients("r1", "north", "n0"), patients("r2", "north", "n1"), limits=limits, rounds=3)
    assert (entries[1].state, entries[1].boundary, entries[1].reason, entries[1].held) == (
        "open",
        None,
        "quota",
        1,
    )
    assert entries[1].sentence.endswith("held back until the first meeting on or after 2026-02-01")


def test_what_comes_after_the_end_stays_open() -> None:
    (entry,) = decided(patients("r1", "north", "n0", on="2026-08-01"))
    assert (entry.state, entry.reason) == ("open", "late")


# ----------------------------------------------------------------------------------------------- in general


def test_every_reason_is_explained() -> None:
    entries = [
        *decided(patients("r1", "north", "nobody"), patients("r1", "north", "n0")),
        *decided(images("r1", "north", "x"), images("r2", "north", "e0-east-0")),
        *decided(
            leaving("r1", "east"), leaving("r2", "east"), leaving("r3", "west"), limits=Limits(class_images=0)
        ),
    ]
    assert all(entry.sentence for entry in entries if entry.state != "accepted")
    assert {entry.reason for entry in entries if entry.reason} <= set(REASONS)


ids = st.sampled_from(["n0", "n1", "n-test", "e0", "w3", "p-both", "nobody"])
petitions = st.builds(
    Petition,
    st.sampled_from([f"r{i}" for i in range(12)]),
    st.integers(0, 181).map(lambda day: CALENDAR.start + timedelta(days=day)),
    st.sampled_from(["north", "east", "west", "south"]),
    st.sampled_from(["patients", "images", "whole_site", "opt_out"]),
    st.lists(ids, max_size=3).map(tuple),
    st.lists(st.sampled_from(["n0-north-0", "e1-east-1", "x"]), max_size=1).map(tuple),
)


@pytest.mark.gate
@given(st.lists(petitions, max_size=15), st.none() | st.integers(1, 3))
def test_the_desk_agrees_with_a_slow_one(asked: list[Petition], quota: int | None) -> None:
    limits = Limits(hospitals=2, class_images=1, images=3, quota=quota)
    entries = decided(*asked, limits=limits)
    assert [entry.petition for entry in entries] == asked
    assert [(e.state, e.boundary, e.images, e.of is not None) for e in entries] == slowly(asked, limits)


def slowly(asked: list[Petition], limits: Limits) -> list[tuple[str, int | None, int, bool]]:
    """The same by sets of images and one meeting after the other."""
    own = REGISTER.table.to_dict("records")
    train = {row["image"] for row in own if row["split"] == "train"}
    erased, barred, gone, seen, used = set[str](), set[str](), set[str](), set[str](), list[str]()
    found: list[tuple[str, int | None, int, bool]] = [("open", None, 0, False)] * len(asked)
    waiting = sorted(range(len(asked)), key=lambda n: asked[n].received)
    held = set[int]()
    for boundary in range(1, 27):
        month = f"{CALENDAR.day(boundary):%Y-%m}"
        due = [n for n in waiting if n in held] + [n for n in waiting if n not in held]
        for n in due:
            one = asked[n]
            if one.received > CALENDAR.day(boundary):
                continue
            again, answered, images = n not in held and one.id in seen, False, 0
            seen.add(one.id)
            here = {row["image"] for row in own if row["site"] == one.site}
            rows = {
                row["image"]
                for row in own
                if row["patient"] in one.patients
                or row["image"] in one.images
                or (one.kind == "whole_site" and row["site"] == one.site)
            }
            whole = [row["image"] for row in own if row["image"] in rows & here]
            wrong = malformed(one) is not None or one.site == "south"
            missing = any(
                not any(r["patient"] == p and r["site"] == one.site for r in own) for p in one.patients
            )
            missing |= any(image not in here for image in one.images)
            left = train - barred - rows
            sites = {row["site"] for row in own if row["image"] in left}
            before = {row["site"] for row in own if row["image"] in train - barred}
            labels = [
                {row["label"] for row in own if row["image"] in some} for some in (train - barred, left)
            ]
            much = len(sites) < min(2, len(before)) or len(left) < 3 or labels[0] != labels[1]
            if again or wrong or one.site in gone or missing or not whole:
                answered = again or (not wrong and one.site in gone)
                verdict = "refused"
            elif rows <= (barred if one.kind == "opt_out" else erased):
                verdict, answered = "refused", True
            elif rows & train - barred and much:
                verdict = "refused"
            elif one.kind != "opt_out" and limits.quota and used.count(one.site + month) >= limits.quota:
                held.add(n)
                continue
            else:
                verdict = "accepted"
                images = len(rows & train - (barred if one.kind == "opt_out" else erased))
                barred |= rows
                if one.kind != "opt_out":
                    erased |= rows
                    used.append(one.site + month)
                if one.kind == "whole_site":
                    gone.add(one.site)
            found[n] = (verdict, boundary, images, answered)
            waiting.remove(n)
    return found

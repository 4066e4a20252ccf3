"""Two spellings of one id are one; ids that only look alike are kept apart and named."""

from __future__ import annotations

import unicodedata

import pytest

from sites.identity import alike, damaged, is_missing, settled, tidied, twins

MUELLER = "Müller 1"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (unicodedata.normalize("NFD", MUELLER), MUELLER),
        (f"\u00a0{MUELLER}\t", MUELLER),  # a no-break space before, a tab after
        (f"\ufeff{MUELLER}\u200b", MUELLER),  # a byte order mark, a space of no width
        ("a\u00ad1", "a1"),  # a soft hyphen
        ("\u200d a \u200c", "a"),  # joiners around, as no letters are there to be joined
        ("می\u200cخواهم", "می\u200cخواهم"),  # in Persian, one inside is spelling
        ("  007 ", "007"),
        ("", ""),
    ],
)
def test_what_nobody_sees_is_no_difference(written: str, expected: str):
    assert tidied(written) == expected
    assert tidied(expected) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A-001", "a-001"),
        ("A 1", "A1"),
        ("007", "7"),
        ("A１", "A1"),  # full-width
        ("p-01-2", "p-1-02"),
        ("A–1", "A-1"),  # en dash
        ("7.0", "7"),
        ("Straße", "STRASSE"),
        ("a\u00a0b", "a b"),
    ],
)
def test_near_twins_are_found(one: str, other: str):
    assert tidied(one) != tidied(other)
    assert alike(one) == alike(other)
    assert twins([one, other, "x"]) == [tuple(sorted((one, other)))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A-1", "A-2"),
        ("10", "1"),
        ("1 11", "11 1"),
        ("100", "10"),
        ("0", "00x"),
        ("Müller", "Muller"),
        ("1.5", "15"),
    ],
)
def test_different_ids_are_no_twins(one: str, other: str):
    assert twins([one, other]) == []


def test_what_became_one_and_what_looks_alike_is_told_with_counts():
    nfd = unicodedata.normalize("NFD", MUELLER)
    found = settled("patient", [MUELLER, nfd, "a-001", "A-001", "A-001", "b"])
    assert found.ids == (MUELLER, MUELLER, "a-001", "A-001", "A-001", "b")
    merged, near = found.notes
    assert merged.startswith("patient: 'Müller 1' is written in several ways") and "taken as one" in merged
    assert near.startswith("patient: 'A-001' (2) and 'a-001' (1) (with the numbers of their images)")
    assert "forgetting one leaves the other" in near
    assert settled("patient", ["a", "b", "a"]).notes == ()


def test_of_many_twins_the_first_are_named():
    (note,) = settled("patient", [name for n in range(1, 9) for name in (f"a{n}", f"A{n}")]).notes
    assert "'A3' (1) and 'a3' (1), and 5 more such groups" in note


@pytest.mark.parametrize(
    "word",
    [
        "",
        " ",
        "NA",
        "N/A",
        "n/a",
        "nan",
        "NaN",
        "-nan",
        "None",
        "NULL",
        "null",
        "<NA>",
        "#N/A",
        "NaT",
        "\u00a0na ",
        "?",
    ],
)
def test_words_for_nothing(word: str):
    assert is_missing(word)


@pytest.mark.parametrize("word", ["Nana", "0", "no", "unknown", "-", "nonexistent", "negative"])
def test_names_are_not_nothing(word: str):
    assert not is_missing(word)


@pytest.mark.parametrize("other", ["a_001", "a 001", "a001", "A – 1", "a__01"])
def test_what_joins_the_parts_of_an_id_makes_no_other_look(other: str):
    assert twins(["a-001", other]) == [tuple(sorted(("a-001", other)))]


@pytest.mark.parametrize(("one", "other"), [("1-11", "11-1"), ("1_2", "12"), ("a-1-1", "a-11"), ("A-", "B-")])
def test_numbers_are_not_joined(one: str, other: str):
    assert twins([one, other]) == []


def test_whoever_has_no_name_is_told_with_a_count():
    (note,) = settled("patient", ["Unknown", "p1", "Unknown", "-", "0"]).notes
    assert note.startswith("patient: '-' (1 images), 'Unknown' (2 images) seems to be no name")


def test_what_excel_writes_in_a_narrow_column_is_no_id():
    assert damaged("#######") == ("a narrow column", damaged("###")[1])  # type: ignore[index]
    assert damaged("#3") is None


def test_what_excel_made_dates_of_is_told():
    (note,) = settled("patient", ["1-Mar", "3-Okt", "Mar-04", "p-1", "May", "1-1", "MAR12x"]).notes
    assert note.startswith("patient: '1-Mar', '3-Okt', 'Mar-04' may be what Excel made of ids such as 1-3")


@pytest.mark.parametrize("name", ["Müller", "Ångström", "Žofia", "José 2"])
def test_letters_of_a_wrong_encoding_are_told(name: str):
    garbled = name.encode().decode("cp1252")
    (note,) = settled("patient", [garbled, "p1"]).notes
    assert note.startswith("patient: ") and f"({name!r}?)" in note
    assert settled("patient", [name, "p1"]).notes == ()

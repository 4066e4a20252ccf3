"""What a label is: expected classes are counted by hand from the order of values or of names."""

from __future__ import annotations

import pytest

from sites.labels import Labels, read_labels


def read(texts: list[str], patients: list[str] | None = None) -> Labels:
    return read_labels(texts, patients or [f"p{n}" for n in range(len(texts))], lambda row: f"line {row + 2}")


@pytest.mark.parametrize(
    ("texts", "names", "targets"),
    [
        (["0.0", "1.0"] * 2, ["0", "1"], [0, 1, 0, 1]),
        (["10.0", "2.0", "9.0"] * 2, ["2", "9", "10"], [2, 0, 1, 2, 0, 1]),  # by value, not as text
        (["1", "2", "1", "2"], ["1", "2"], [0, 1, 0, 1]),
        (["0", "2", "0", "2"], ["0", "2"], [0, 1, 0, 1]),
        (["1", "1.0", "01", "0"], ["0", "1"], [1, 1, 1, 0]),
        (["1.0e+00", "0e0", "1", "0"], ["0", "1"], [1, 0, 1, 0]),
        (["b", "a", "a", "b"], ["a", "b"], [1, 0, 0, 1]),
        (["True", "False"] * 2, ["False", "True"], [1, 0, 1, 0]),
        (["t10", "t9"] * 2, ["t10", "t9"], [0, 1, 0, 1]),  # names are no numbers
        (["1", "1"], ["1"], [0, 0]),  # told by `fedunlearn.campaign.suitability`
    ],
)
def test_classes(texts: list[str], names: list[str], targets: list[int]):
    found = read(texts)
    assert (list(found.names), found.targets.tolist()) == (names, targets)
    assert (found.misread, found.wrong) == ((), ())


def test_twelve_decimals_are_in_the_order_of_their_value():
    texts = [f"{n}.0" for n in range(12)] * 2
    assert read(texts).targets.tolist() == [*range(12)] * 2


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (
            ["1", "2"] * 2,
            "labels are numbered in the order of their value: label 1 is class 0, label 2 is class 1",
        ),
        (["0", "5"] * 2, "label 0 is class 0, label 5 is class 1"),
        (["1", "1.0", "0", "0"], "labels that have one value are one class: '1' and '1.0'"),
        (["0.0", "1.0"] * 2, "labels such as '0.0' are read as whole numbers"),
        (["A|B", "C"] * 2, "labels such as 'A|B' seem to name several findings"),
        (["A;B", "C"] * 2, "labels such as 'A;B' seem to name several findings"),
        (["a", "a", "b"], "class 'b' has images of a single patient, one image"),
        (
            ["benign"] * 5 + ["begign"],
            "is one of these a slip of the pen: 'begign' (1) and 'benign' (5 images)?",
        ),
        (["benign"] * 50 + ["begign"] * 4, "'begign' (4) and 'benign' (50 images)?"),
    ],
)
def test_what_is_read_with_a_note(texts: list[str], note: str):
    found = read(texts)
    assert (found.misread, found.wrong) == ((), ())
    assert note in "\n".join(found.notes)


def test_plain_labels_have_no_notes():
    assert read(["grade 1"] * 50 + ["grade 2"] * 2).notes == read(["1"] * 50 + ["0"] * 2).notes == ()
    assert read(["0", "1"] * 2).notes == read(["a", "b"] * 2).notes == ()


def test_a_class_of_one_patient_is_told():
    notes = read(["a", "a", "b", "b"], ["p", "q", "r", "r"]).notes
    assert notes == (
        "class 'b' has images of a single patient: such a class cannot be in training and in test",
    )


@pytest.mark.parametrize(
    ("texts", "rows", "message"),
    [
        (
            ["-1", "1"] * 2,
            [0, 2],
            "found '-1', expected 0, 1, …: a negative number often stands for no label",
        ),
        (["0.5", "1", "0", "1"], [0], "found '0.5', which is no whole number"),
        (["0", "1", "x", "1"], [2], "found 'x', expected a class number as in most rows"),
        (["a", "b", "1", "a"], [2], "found '1', expected a name as in most rows ('a', 'b')"),
        (
            ["Benign", "benign", "Benign", "x"],
            [1],
            "found 'benign', but 'Benign' in line 2: write them alike",
        ),
        (
            ["no finding", "No_Finding", "no finding", "x"],
            [1],
            "found 'No_Finding', but 'no finding' in line 2",
        ),
        (["A|B", "B|A", "A|B", "C"], [1], "found 'B|A', but 'A|B' in line 2: these are the same findings"),
        (["a", "NA", "b", "nan"], [1, 3], "which stands for a missing value: fill in the label"),
        (["0", "", "1", "None"], [1, 3], "remove the row"),
    ],
)
def test_what_is_refused_with_its_rows(texts: list[str], rows: list[int], message: str):
    found = read(texts)
    assert [one.row for one in found.misread] == rows
    assert message in "\n".join(one.message for one in found.misread)


def test_ids_are_no_labels():
    found = read([f"x{n}" for n in range(40)])
    assert "found 40 different labels in 40 images" in found.wrong[0]
    assert read([str(n * 7) for n in range(40)]).wrong
    assert not read([f"x{n}" for n in range(10)]).wrong  # of ten images, each may be a class of its own


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("1,0", "write 1.0"),
        ("10,0", "write 10.0"),
        ("[0, 1]", "write the place of the 1"),
        ("0 0 1", "write the place of the 1"),
        ("0|1|0", "write the place of the 1"),
        ("(1;0)", "write the place of the 1"),
    ],
)
def test_several_numbers_are_no_label(text: str, remedy: str):
    (found,) = read([text, "a", "b", "a"]).misread
    assert (found.row, found.kind) == (0, "several numbers")
    assert remedy in found.message


@pytest.mark.parametrize(
    ("one", "other"),
    [("A/B", "B/A"), ("A+B", "B + A"), ("A & B", "B&A"), ("A and B", "B and A"), ("A|B", "B;A")],
)
def test_the_same_findings_in_another_order_are_told_however_they_are_joined(one: str, other: str):
    (found,) = read([one, other, "C"]).misread
    assert (found.row, found.kind) == (1, "findings in another order")


def test_numbers_beyond_all_classes_are_told():
    assert [one.row for one in read(["0", "1e40", "1", "0"]).misread] == [1]


def test_a_text_is_no_label():
    (found,) = read(["x" * 5000, "a", "b"]).misread
    assert "5,000 letters, expected the name of a class" in found.message
    assert len(found.message) < 250


def test_a_class_that_stands_for_no_label_is_told():
    (note,) = read(["unknown", "a", "b"] * 2).notes
    assert note == "'unknown' counts as a class: if that stands for no label, remove these rows"


@pytest.mark.parametrize(("one", "other"), [("T", "TRUE"), ("f", "False"), ("Y", "yes"), ("neg", "Negative")])
def test_a_short_form_beside_the_long_one_is_told(one: str, other: str):
    (found,) = read([other, other, one, "x"]).misread
    assert (found.row, found.kind) == (2, f"almost as {other!r}")
    assert read([one, "x"] * 2).misread == ()

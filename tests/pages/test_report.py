"""The report page: its numbers are those of the run's tables, its order is that of questions, no data is obeyed."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pandas as pd
import pytest

from fedunlearn.core import InputError
from fedunlearn.pages import doors, listing, origin, report
from fedunlearn.pages.measured import Measured, share
from fedunlearn.results.held import summary
from fedunlearn.results.runfolder import RunFolder
from tests.pages import made
from tests.pages.reading import Element, parsed
from tests.scoring.made import MODELS


@pytest.fixture(scope="module")
def text(run: RunFolder) -> str:
    return report(run)


@pytest.fixture(scope="module")
def read(text: str) -> Element:
    return parsed(text)


# ------------------------------------------------------------------------------------------------- numbers


EXPECTED: Mapping[str, Callable[[pd.Series], float]] = {
    "value": lambda of: of.item(),
    "mean": lambda of: of.mean(skipna=False),
    "median": lambda of: of.median(skipna=False),
    "count": len,
}
"""By what a number's source calls it, how it is made of rows."""


def test_every_number_in_a_table_is_the_one_in_the_runs_tables(run: RunFolder, read: Element) -> None:
    tables = {
        n: pd.read_parquet(run.path / f"{n}.parquet")
        for n in ("scores", "patients", "statistics", "roc", "curves")
    }
    numbers = read.all("data")
    seen = {name: 0 for name in tables}
    for number in numbers:
        table, rows, column, how = number.attributes["data-from"].split()
        places = [] if rows == "-" else [int(row) for row in rows.split(",")]
        of = tables[table][column].iloc[places]
        expected = EXPECTED[how](of)
        value = float(number.attributes["value"])
        assert value == pytest.approx(expected, rel=1e-12, nan_ok=True), number.attributes
        assert shows(number.text, value * float(number.attributes.get("data-times", 1))), number.text
        seen[table] += 1
    assert seen["scores"] > 300 and seen["patients"] > 60 and seen["statistics"] > 300
    assert seen["roc"] > 30 and seen["curves"] > 60


def shows(text: str, value: float) -> bool:
    """Whether a number is what a text says, rounded to its digits."""
    plain = text.replace("−", "-").replace(" ", "").replace("+", "")
    if plain in ("–", "∞", "-∞"):
        return not math.isfinite(value)
    digits = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5 * 10**-digits * (1 + 1e-6) + 1e-12


def test_a_seed_that_never_relearns_moves_the_median_by_one_place_as_on_the_terminal() -> None:
    values = {
        "relearn_epochs": (2, 3, math.inf),
        "relearn_ratio": (math.inf, 1, math.inf),
        "tow": (0.5, 0.6, 1),
    }
    rows = [
        {"strategy": "puf", "measure": measure, "group": "all", "seed": seed, "value": value}
        for measure, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    of = Measured(pd.DataFrame(rows), pd.DataFrame(columns=["strategy", "measure", "group"]), pd.DataFrame())
    shown = {measure: of.middle("puf", measure, share) for measure in values}
    assert {measure: one.text for measure, one in shown.items() if one} == {
        "relearn_epochs": "3.00", "relearn_ratio": "∞", "tow": ".70",
    }  # fmt: skip
    assert [one.source.split()[-1] for one in shown.values() if one] == ["median", "median", "mean"]


def test_a_wrong_number_would_be_noticed() -> None:
    assert shows("−.03", -0.0349) and not shows("−.03", -0.0351) and not shows(".03", -0.03)


def test_no_number_in_a_table_is_without_a_source(read: Element) -> None:
    for table in read.all("table"):
        if table.attributes["id"].endswith(("reasons-table", "digests-table")):
            continue
        for cell in (cell for row in table.all("tbody")[0].all("tr") for cell in row.all("td")):
            if "n" in cell.attributes.get("class", "").split():
                loose = "".join(part for part in cell.children if isinstance(part, str))
                assert not re.search(r"\d", re.sub(r"of \d+$| [\w-]+$", "", loose)), cell.text


def test_all_patients_and_all_groups_are_there(run: RunFolder, read: Element) -> None:
    patients, statistics = (pd.read_parquet(run.path / f"{n}.parquet") for n in ("patients", "statistics"))
    exact = patients[(patients["request"] == "some") & (patients["on"] == "images")]
    rows = read.by_id("r1-patients-table").all("tbody")[0].all("tr")
    assert [row.all("th")[0].text for row in rows] == sorted(exact["patient"].unique())
    good = statistics[(statistics["request"] == "some") & (statistics["measure"] == "test_accuracy")]
    rows = read.by_id("r1-groups-table").all("tbody")[0].all("tr")
    assert len(rows) == good["group"].nunique()


# ------------------------------------------------------------------------------------------------ what it says


def test_the_first_screen_answers_before_anything_else(read: Element) -> None:
    body = read.by_id("r1").text + read.all("main")[0].text
    places = [
        body.index(words)
        for words in (
            "Can this run tell?",
            "No best.",
            "What this cannot say",
            "Numbers behind the answers",
            "For whom is it not true?",
            "Hospitals, classes and groups",
            "Memory left of every patient",
            "After more training",
            "What failed",
            "scenario.yaml, whole",
        )
    ]
    assert places == sorted(places)


def test_answers_say_for_whom_not_and_at_what_cost(read: Element) -> None:
    answer = " ".join(read.by_id("r1-lead").parent.text.split())  # type: ignore[union-attr]
    assert "No best. Of no strategy is it sure" in answer and "good 50 % cannot tell whether" in answer
    assert "lazy" in answer and "still known: all 3 patients" in answer
    doors = " ".join(read.by_id("r1-door-1").text.split())
    assert "Still known to lazy: north-" in doors


def test_every_request_has_its_section_and_its_place_in_the_list(read: Element) -> None:
    links = [e for e in read.all("a") if e.attributes["href"] in ("#r1", "#r2")]
    assert len(links) == 2 and "east-leaves" in links[1].text
    assert read.by_id("r2-title").text.startswith("east-leaves")


def test_links_lead_somewhere_and_ids_are_each_ones_own(read: Element) -> None:
    ids = [e.attributes["id"] for e in read.every() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for link in read.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids
    for element in read.every():
        for name in ("aria-labelledby",):
            assert element.attributes.get(name, ids[0]) in ids


def test_what_failed_and_was_not_run_is_told(read: Element) -> None:
    failed = " ".join(read.by_id("failed").text.split())
    assert "wild, some, seed 8: diverged: in round 2" in failed
    assert "late: it is late" in failed and "2 images show the same." in failed


def test_words_that_promise_too_much_are_not_there(text: str) -> None:
    said = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.S).lower()
    for word in ("erased", "certified", "gdpr", "guarantee", "anonymi", "✓", "✔", "✅"):
        assert word not in said


@pytest.mark.gate
def test_a_run_that_cannot_tell_says_so_first_and_answers_nothing(tmp_path) -> None:
    models = {**MODELS, "original": MODELS["retrained"]}  # nothing to be seen
    read = parsed(report(made.folder(tmp_path / "run", models=models)))
    tell = read.by_id("r1-tell")
    assert tell.text.split("?")[1].split()[0] == "No" and "cannot" in tell.attributes["class"]
    assert "No answer." in read.by_id("r1-lead").parent.text  # type: ignore[union-attr]
    heads = [e.text for e in read.by_id("r1-answers").all("th")]
    assert "Forgotten?" not in heads and "memory left, %" not in heads
    nobody(read)


def nobody(read: Element) -> None:
    """No patient is named as still known where the run cannot tell."""
    whole = read.by_id("r1").text
    assert "cannot tell for anybody" in read.by_id("r1-patients").text and "Still known" not in whole
    assert not [e for e in read.every() if e.attributes.get("id") == "r1-patients-table"]


@pytest.mark.gate
def test_a_single_training_gets_no_answer_at_all(tmp_path) -> None:
    read = parsed(report(made.folder(tmp_path / "run", seeds=(7,))))
    assert "No" in read.by_id("r1-tell").text
    heads = [e.text for e in read.by_id("r1-answers").all("th")]
    assert "answer" not in heads and "% of retraining" in heads
    assert not [e for e in read.by_id("r1").every() if "pill" in e.attributes.get("class", "")]
    nobody(read)


def test_a_run_judged_by_an_older_version_is_refused(tmp_path) -> None:
    run = made.folder(tmp_path / "run")
    (run.path / "requests.parquet").unlink()
    run.write_manifest(run.read_manifest())
    with pytest.raises(InputError, match="older version"):
        report(run)


def test_how_sure_says_why_nothing_can_be_told(run: RunFolder) -> None:
    one = summary(run, "some")

    def sure(**changes: object) -> str:
        hospital = doors.doors(replace(one, **changes), "r1", 3, "")[0]  # type: ignore[arg-type]
        return hospital.points[1].answer

    assert sure().startswith("3 trainings of each strategy")
    assert sure(visible=False).startswith("Not at all: the original model shows no memory of these patients")
    alone = sure(patients=(0, 3), visible=False)
    assert "no patient to forget has held-out images" in alone and "shows no memory" not in alone
    assert sure(seeds=1).startswith("Not at all: a single training tells nothing of luck.")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (
            "class ISUP: 2: -0.150 (95 %: -0.200 to -0.100) on unseen images, margin 0.10",
            "class ISUP: 2 −.15",
        ),
        ("class 6 (of 0 to 7): -0.150 on unseen images, margin 0.10", "class 6 (of 0 to 7) −.15"),
        ("diverged for seed 8 in its answers: lower it", "diverged for seed 8 in its answers: lower it"),
    ],
)
def test_what_broke_is_told_with_its_place_and_its_loss(run: RunFolder, reason: str, told: str) -> None:
    one = summary(run, "some")
    row = replace(one.rows[0], strategy="harsh", useful="worse", uses=(reason,))
    engineer = doors.doors(replace(one, rows=(row,)), "r1", 3, "")[1]
    assert engineer.points[1].answer == f"Worse: harsh ({told})."


@pytest.mark.parametrize(
    ("data", "files"),
    [
        ("{name: folder, path: scans}", True),
        ("{name: npz, path: a.npz}", True),
        ("{name: folder, manifest: m.csv}", True),
        ("{name: mrbrains}", True),
        ("{name: medmnist, set: bloodmnist}", False),
        ("{name: phantom_cells}", False),
    ],
)
def test_commands_say_where_data_files_are_without_naming_a_place(data: str, files: bool) -> None:
    commands = {c.split()[1]: (c, what) for what, c in origin.commands(f"name: made\ndata: {data}\n")}
    for name in ("simulate", "verify"):
        command, what = commands[name]
        assert command.endswith(" --data-root DIR") == files == ("DIR: where the data files are" in what)
    assert "--data-root" not in commands["score"][0]


def test_commands_are_those_of_the_runs_scenario(run: RunFolder, read: Element) -> None:
    shown = read.by_id("origin").text
    for _, command in origin.commands((run.path / "scenario.yaml").read_text(encoding="utf-8")):
        assert command in shown


# ------------------------------------------------------------------------------------------------ very much of it


def test_rounds_of_many_strategies_are_chosen_before_they_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [("unlearn", f"s-{i}", step) for i in range(40) for step in range(200)]
    curves = pd.DataFrame(models, columns=["phase", "strategy", "step"])
    curves = curves.assign(
        part="forget", measure="loss", value=curves["step"] / 7, seed=1, after=0, round=curves["step"]
    )
    written = list[float]()
    chosen, some = list[int](), listing._some

    def amount(value: float) -> str:
        written.append(value)
        return "1"

    def counted(steps: pd.Series[int]) -> list[float]:
        chosen.append(len(steps))
        return some(steps)

    monkeypatch.setattr(listing, "amount", amount)
    monkeypatch.setattr(listing, "_some", counted)
    table = listing.rounds(curves, "r1")
    assert table is not None and len(table.rows) == len(written) == 40 * 12
    assert chosen == [200] * 40
    assert {row[2].order for row in table.rows} >= {0.0, 199.0}
    assert [row[0].parts for row in table.rows[:2]] == [("s-0",), ("s-1",)]


def test_very_many_patients_are_listed_as_far_as_they_stand_out(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = summary(run, "some")
    two = [row.strategy for row in one.rows][:2]
    people = [f"p-{i:04}" for i in range(2000)]
    flags = {
        strategy: ["remembered" if i % 10 < n else "" for i in range(2000)]
        for n, strategy in enumerate(two, 1)
    }
    flags["original"] = ["remembered"] * 2000
    rows = [(s, p, f) for s, of in flags.items() for p, f in zip(people, of, strict=True)]
    table = pd.DataFrame(rows, columns=["strategy", "patient", "flagged"]).assign(
        on="images", memory_left=0.5
    )
    measured = Measured(pd.DataFrame(), pd.DataFrame(), table)
    listed, left = listing.patients(one, measured, "r1")
    assert "every patient" not in listed.caption
    assert left == (
        "Listed are 300 patients that stand out in the most strategies, and 50 others. "
        "patients.parquet has 1650 more, 100 of whom stand out."
    )
    names = [row[0].order for row in listed.rows]
    assert len(names) == 350 and names == sorted(map(str, names))
    assert {p for i, p in enumerate(people) if i % 10 == 0} <= {*names}  # known to both
    few, nobody = listing.patients(one, replace(measured, patients=table[table["patient"] < "p-0350"]), "r1")
    assert len(few.rows) == 120 and nobody.startswith("Listed are 70 patients that stand out in any strategy")
    whole, nobody = listing.patients(
        one, replace(measured, patients=table[table["patient"] < "p-0050"]), "r1"
    )
    assert len(whole.rows) == 50 and nobody == "" and "every patient" in whole.caption


# ------------------------------------------------------------------------------------------- what it may not do


def test_the_policy_lets_in_only_the_pages_own_script(text: str, read: Element) -> None:
    policy = read.all("meta")[1].attributes["content"]
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"(src|href)=[\"']?(https?:|//|file:)", text) and "@import" not in text


def test_hostile_names_are_shown_as_text(hostile: RunFolder) -> None:
    text = report(hostile)
    read = parsed(text)
    assert len(read.all("script")) == 1
    assert not [name for e in read.every() for name in e.attributes if name.startswith("on")]
    shown = read.all("body")[0].text
    assert made.SCRIPT in shown and "{{ 7 * 7 }}" in shown and "&lt;b&gt;" in shown
    assert "right\\u202etfel" in shown and "two\\nlines\\r\\t\\x1b[31m" in shown
    assert not set("\u202e\x1b\r") & set(text)
    assert "n" * 81 not in text and len(text) < 600_000


@pytest.mark.gate
@pytest.mark.parametrize("kind", ["slices", "pictures"])
def test_slices_and_strips_are_in_the_page_and_no_wider_than_it(tmp_path, kind: str) -> None:
    from PIL import Image

    run = made.folder(tmp_path / "run")
    (run.path / kind).mkdir()
    Image.new("RGB", (2400, 300), "white").save(run.path / kind / "some.png")
    pictures = [{"request": "some", "files": [f"{kind}/some.png", f"{kind}/some.npz"], "volumes": []}]
    run.write_manifest({**run.read_manifest(), kind: {"rule": "The middle one.", "pictures": pictures}})
    (image,) = parsed(report(run)).all("img")
    encoding, _, content = image.attributes["src"].partition(",")
    (tmp_path / "shown.png").write_bytes(base64.b64decode(content))
    assert encoding == "data:image/png;base64" and image.attributes["alt"]
    with Image.open(tmp_path / "shown.png") as shown:
        assert shown.size == (1200, 150)

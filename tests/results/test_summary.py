"""What a request came to, as people read it: exact text of made-up values, in 80 columns whatever labels there are."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, strategies as st
from typer.testing import CliRunner

from fedunlearn.__main__ import app
from fedunlearn.core import InputError
from fedunlearn.results import report
from fedunlearn.results.overview import Overview, Place, Row, Value, overview, read
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import best, legend, limits, notes, percent, place, sight, signed
from fedunlearn.results.summary import WIDTH, lines, markdown
from fedunlearn.results.tables import legends
from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, change_manifest, images, make_run

NOWHERE = Place()
ROW = Row(
    strategy="good",
    forgotten="yes",
    useful="yes",
    left=Value(0.034, 0.152),
    known=(),
    overdone=(),
    compared=12,
    test=Value(-0.004, 0.021),
    site=Place("north", -0.013),
    group=Place("3", -0.052),
    cost=0.204,
    work=2000.0,
    p=0.004,
    reasons=("3 % of the original's memory is left (95 %: -12 % to 19 %); no patient stands out",),
)
LAZY = replace(
    ROW,
    strategy="lazy",
    forgotten="no",
    useful="cannot tell",
    left=Value(0.83, 0.14),
    known=("p-7", "p-1", "p-3", "p-4"),
    p=1.0,
    reasons=("83 % of the original's memory is left (95 %: 69 % to 97 %)",),
    uses=("class mono: -0.100; 7 seeds would tell",),
)
HARMED = replace(
    ROW,
    strategy="harmed",
    forgotten="yes, but",
    useful="worse",
    left=Value(-0.1, 0.2),
    p=0.03,
    reasons=("the memory is back once the last layer is refitted (+0.10 above retraining)",),
    uses=("class mono: -0.300 (95 %: -0.400 to -0.200) on unseen images, margin 0.10",),
)
WILD = replace(
    ROW,
    strategy="wild",
    forgotten="cannot tell",
    useful="worse",
    left=Value(),
    compared=0,
    test=Value(),
    site=NOWHERE,
    group=NOWHERE,
    p=math.nan,
    reasons=(),
    uses=("diverged for seed 8 in its answers: lower its learning rate",),
)
NOTHING = replace(
    ROW,
    strategy="original",
    forgotten="no",
    left=Value(1.0, 0.12),
    known=tuple(f"p-{i}" for i in range(12)),
    test=Value(0.008, 0.02),
    site=Place("east", 0.001),
    group=Place("0", -0.02),
    cost=1.1,
    p=math.nan,
)
AGAIN = replace(
    ROW, strategy="retrained_other", left=Value(0.0, 0.15), test=Value(0.0, 0.02), cost=1.0, p=math.nan
)
MADE = Overview(
    title="some: forget 12 patients of north (72 training images)",
    kind="classification",
    seeds=3,
    references=8,
    patients=(12, 12),
    visible=True,
    smallest=0.21,
    one_patient=0.65,
    unusual=(),
    original=0.702,
    retrained=0.498,
    margins={"over": 0, "memory": 0.25, "all": 0.03, "site": 0.05, "class": 0.1},
    known_to={"all": 0.021, "site": 0.04, "class": 0.09},
    rows=(ROW, HARMED, WILD, LAZY),
    floors=(),
    nothing=NOTHING,
    again=AGAIN,
    broken=replace(ROW, strategy="damaged", useful="worse"),
    unequal=2,
    skipped=(("federaser", "federaser forgets whole sites only"),),
    classes=("lymph", "1", "2", "mono"),
)


def printed(one: Overview) -> str:
    return "\n".join(text.plain for text in lines(one))


def test_a_made_up_run_reads_like_this() -> None:
    assert printed(MADE) == TEXT


TEXT = """\
some: forget 12 patients of north (72 training images), 3 seeds, 8 retrainings

CAN THIS RUN TELL?
  Yes. The original model knows these patients: an attack tells their images
    from unseen ones with AUC .70, and with .50 after retraining (.50 is
    guessing).
  Forgotten means: by best estimate at most 25 % of that memory is left in the
    mean over patients, surely (95 %, one-sided) less than 50 %, and no patient
    is still known. This run sees 21 % (8 times in 10); a patient remembered
    whole would show in 6 of 10 such runs.
  Still good means, on unseen images: by best estimate test accuracy is at
    most .03 below retraining's (.05 at any hospital, .10 for any class), and
    surely (95 %, one-sided) less than twice that. This run knows losses to
    ±.02, at the hospital it knows least to ±.04, for the class it knows least
    to ±.09.

           FORGOTTEN?                 STILL GOOD, on unseen images?    COST
           answer    memory patients  answer       test worst   worst   % of
                    left, %    known           accuracy  site   class  retr.
good       yes        3 ±15  0 of 12  yes     +.00 ±.02  -.01 3: -.05     20
harmed     yes, but -10 ±20  0 of 12  worse   +.00 ±.02  -.01 3: -.05     20
wild       unclear        -        -  worse           -     -       -     20
lazy       no        83 ±14  4 of 12  unclear +.00 ±.02  -.01 3: -.05     20
retraining            0 ±15  0 of 12          +.00 ±.02  -.01 3: -.05    100
 again
do nothing no       100 ±12 12 of 12  yes     +.01 ±.02  +.00 0: -.02      -
  Memory left: 0 as if never seen, 100 as in the original model. Test, worst:
  against retraining. ±: 95 %. unclear: this run cannot tell. Class: 0 lymph, 3
  mono.

  Best: good, the only one sure to have forgotten, also once corrected for a
    choice among 4 strategies, and still good, at 20 % of what retraining asks
    of hospitals.
  Still known: p-1, p-3, p-4, 1 more by lazy.
  Forgotten, but: the memory is back once the last layer is refitted (harmed).
  Worse: class mono (harmed); diverged for seed 8 in its answers: lower its
    learning rate (wild).
  Unclear if still good: class mono (lazy).
  Not run: federaser forgets whole sites only.
  Groups treated unequally: 2 findings (--details)."""


def test_where_no_memory_is_seen_the_first_line_says_so_and_nobody_is_said_to_have_forgotten() -> None:
    rows = tuple(replace(row, forgotten="cannot tell", reasons=()) for row in MADE.rows)
    text = printed(replace(MADE, visible=False, rows=rows, original=0.51))
    first = text.splitlines()[3]
    assert first.startswith("  No: the original model shows no memory of these patients")
    assert not [words for words in ("FORGOTTEN", "Still known", "est:", "Memory left") if words in text]
    assert "STILL GOOD, on unseen images?" in text and "AUC .51" in text


def test_where_no_memory_is_seen_it_is_said_what_helps() -> None:
    few = replace(MADE, visible=False, patients=(2, 2), seeds=2, references=6)
    helps = "What helps: more `references` than 6 (cheap), more `seeds` than 2, more patients in the request than 2."
    assert sight(few)[1] == helps
    assert not [sentence for sentence in sight(MADE) if "helps" in sentence]


def test_of_two_seeds_it_is_said_that_they_give_no_yes() -> None:
    told = "Nobody is called forgotten by 2 seeds"
    assert [one for one in sight(replace(MADE, seeds=2)) if one.startswith(told)]
    assert not [one for one in sight(MADE) if one.startswith(told)]


def test_the_legend_says_what_unclear_is_only_where_the_table_has_it() -> None:
    assert "unclear" not in legend(replace(MADE, rows=(ROW, HARMED)))
    assert " unclear: this run cannot tell." in legend(replace(MADE, rows=(LAZY,)))
    unseen = replace(ROW, forgotten="cannot tell")  # where no memory is seen, no such column is shown
    assert "unclear" in legend(replace(MADE, rows=(unseen,)))
    assert "unclear" not in legend(replace(MADE, rows=(unseen,), visible=False))


def test_no_number_is_beyond_what_there_can_be() -> None:
    """Shares differ by 1 at most; who knows a difference no better than that knows nothing of it."""
    said = " ".join(sight(replace(MADE, known_to={"all": 1.0, "site": 1.0, "class": 0.9}, smallest=3.4)))
    assert said.endswith(" less than twice that. This run cannot tell.")
    known = replace(MADE, known_to={"all": 0.5, "site": 1.0, "class": 1.0})
    told = "This run knows losses to ±.50, at some hospital not at all, for some class not at all."
    assert sight(known)[-1].endswith(told)
    assert "This run can miss it although all of it is left (more than 2 times in 10);" in said
    assert "340" not in said


def test_warnings_come_first_under_the_table() -> None:
    warned = replace(MADE, warnings=("1 of 2 images to forget has a twin.", "No method can forget it."))
    assert notes(warned) == [*warned.warnings, *notes(MADE)]
    assert "\n  1 of 2 images to forget has a twin.\n  No method can forget it.\n  Best: good" in printed(
        warned
    )


def test_a_place_whose_name_has_a_colon_is_not_cut() -> None:
    for name in ("hospital St: Mary", "class ISUP: 2", "class 6 (of 0 to 7)", "class mono (old)"):
        lost = replace(
            HARMED, uses=(f"{name}: -0.150 (95 %: -0.200 to -0.100) on unseen images, margin 0.05",)
        )
        assert f"Worse: {name} (harmed)." in notes(replace(MADE, rows=(lost,)))


@pytest.mark.parametrize("name", ["overall", "class ISUP: 2", "hospital 5: 5 test images of 2 beds"])
@pytest.mark.parametrize(
    ("rest", "lost"),
    [
        ("-0.150 (95 %: -0.200 to -0.100) on unseen images, margin 0.05", -0.15),
        ("+0.010; 7 seeds would tell", 0.01),
        ("12 test images of 3 patients; 3 test patients; 5 would tell", math.nan),
    ],
)
def test_a_reason_tells_where_and_how_much_was_lost(name: str, rest: str, lost: float) -> None:
    where, found = place(f"{name}: {rest}")
    assert where == name and found == pytest.approx(lost, nan_ok=True)


def test_of_one_seed_nothing_is_told() -> None:
    rows = tuple(replace(row, test=Value(-0.01), left=Value()) for row in MADE.rows)
    one = replace(MADE, seeds=1, references=1, patients=(0, 12), visible=False, rows=rows)
    one = replace(one, nothing=None, again=None, known_to={})
    text = printed(replace(one, smallest=math.nan, one_patient=math.nan))
    assert "  No: a single training tells nothing of luck. 3 seeds would." in text.splitlines()
    assert "retraining again" not in text and "nan" not in text
    assert [line for line in text.splitlines() if "±" in line] == [
        "  Test, worst: against retraining. ±: 95 %. unclear: this run cannot tell."
    ]
    assert "1 seed\n" in text and best(one) == []


@pytest.mark.parametrize("blind", [{"seeds": 1}, {"visible": False}, {"patients": (0, 12)}], ids=str)
def test_nobody_is_named_where_the_run_cannot_tell(blind: dict[str, Any]) -> None:
    for told in ("\n".join(markdown(replace(MADE, **blind))), printed(replace(MADE, **blind))):
        for memory in (
            "Still known:",
            "Known less",
            "memory left",
            "Memory left",
            "FORGOTTEN?",
            "orgotten, but:",
        ):
            assert memory not in told


def test_nothing_unknown_is_shown_as_nan() -> None:
    empty = replace(WILD, cost=math.nan)
    for visible in (True, False):
        one = replace(
            MADE, rows=(empty,), nothing=None, again=None, broken=None, known_to={}, visible=visible
        )
        assert "nan" not in printed(one).lower() and "nan" not in "\n".join(markdown(one)).lower()
    (row,) = [
        text for text in printed(one).splitlines() if text.startswith("wild")
    ]  # there is no memory to show
    assert row.split() == ["wild", "worse", "-", "-", "-", "-"]


def test_a_run_without_strategies_shows_its_references() -> None:
    text = printed(replace(MADE, rows=()))
    assert "do nothing" in text and "retraining again" in text and "est:" not in text


def test_of_volumes_the_words_are_theirs() -> None:
    text = printed(replace(MADE, kind="segmentation"))
    assert "STILL GOOD, on unseen volumes?" in text and "Dice" in text and "structure" in text
    assert (
        "image" not in text.partition("\n")[2].replace("unseen images, margin", "") and "accuracy" not in text
    )


def test_a_training_that_differs_and_failed_controls_are_told() -> None:
    assert "Unusual: retraining with seed 8 " in " ".join(sight(replace(MADE, unusual=(8,))))
    assert "Beware" not in " ".join(sight(MADE))
    failed = replace(MADE, again=replace(AGAIN, forgotten="partly"))
    assert "Beware: retraining itself" in " ".join(sight(failed))
    assert "certainly broken" in " ".join(sight(replace(MADE, broken=ROW)))


def test_patients_with_nobody_to_compare_with_are_counted() -> None:
    assert "Not looked at: 3 of the 12 patients" in " ".join(sight(replace(MADE, patients=(9, 12))))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((ROW,), "good forgot and is still good, at 20 % of what retraining asks of hospitals."),
        (
            (ROW, LAZY),
            "Best: good, the only one sure to have forgotten, also once corrected for a choice "
            "among 2 strategies, and still good, at 20 % of what retraining asks of hospitals.",
        ),
        (
            (ROW, replace(ROW, strategy="cheap", cost=0.1), LAZY),
            "Best: cheap, the cheapest of 2 sure to have forgotten, also once corrected for a "
            "choice among 3 strategies, and still good, at 10 % of what retraining asks of hospitals.",
        ),
        (
            (replace(ROW, p=0.08), LAZY),
            "No best: that good forgot may be luck, being picked out of 2 strategies (Holm's correction).",
        ),
        (
            (replace(ROW, useful="cannot tell"), LAZY),
            "No best: of no strategy is it sure both that it forgot and that it is still good; good forgot.",
        ),
        ((LAZY,), "No best: of no strategy is it sure both that it forgot and that it is still good."),
        ((), None),
    ],
)
def test_the_best_is_called_best_only_if_that_survives_the_choice(
    rows: tuple[Row, ...], said: str | None
) -> None:
    assert best(replace(MADE, rows=rows)) == ([] if said is None else [said])


def test_the_table_has_classes_by_number_and_the_legend_says_which_they_are() -> None:
    """Names would take the room of numbers; classes that are numbers to the data are shown by these."""
    assert legend(MADE).endswith(" Class: 0 lymph, 3 mono.")
    assert " 3: -.05" in printed(MADE)
    nobody = replace(MADE, rows=(), nothing=None, again=None)
    assert "Class:" not in legend(replace(MADE, classes=())) and "Class:" not in legend(nobody)
    own = replace(MADE, classes=("1", "2", "3", "4"))
    assert "Class:" not in legend(own) and " 4: -.05" in printed(own) and " 3: -.05" not in printed(own)
    assert legend(replace(MADE, kind="segmentation")).endswith(" Structure: 0 lymph, 3 mono.")


def test_strategies_that_share_a_reason_share_a_line() -> None:
    rows = (HARMED, replace(HARMED, strategy="other", reasons=(HARMED.reasons[0].replace("+0.10", "+0.22"),)))
    assert "Forgotten, but: the memory is back once the last layer is refitted (harmed, other)." in notes(
        replace(MADE, rows=rows)
    )


def test_numbers_are_short() -> None:
    assert [percent(x) for x in (0.834, -0.28, 0.0, 12.0, -12.0, math.nan, math.inf)] == [
        *("83", "-28", "0", ">999", "->999", "?", "?")
    ]
    assert [signed(x) for x in (0.004, -0.004, -0.126, 1.0, math.nan)] == [
        "+.00",
        "+.00",
        "-.13",
        "+1.0",
        "-",
    ]


LABELS = st.text(min_size=1, max_size=120) | st.text(
    st.sampled_from("患者_a \N{COMBINING ACUTE ACCENT}"), min_size=1
)


@pytest.mark.gate
@given(
    st.lists(LABELS, min_size=1, max_size=4),
    LABELS,
    st.booleans(),
    st.sampled_from(["classification", "segmentation"]),
)
def test_it_fits_80_columns_whatever_labels_there_are(
    names: list[str], other: str, visible: bool, kind: str
) -> None:
    rows = tuple(
        replace(
            LAZY, strategy=name, known=(other, name), compared=1320, group=Place(other, -0.5), useful="worse"
        )
        for name in names
    )
    one = replace(MADE, title=other, kind=kind, visible=visible, rows=rows, skipped=((names[0], other),))
    for text in lines(one):
        assert text.cell_len <= WIDTH
        assert "\n" not in text.plain and "\x1b" not in text.plain


def test_a_long_label_comes_whole_over_several_lines() -> None:
    label = "federaser_every_two_rounds_of_all[eta=1]"
    one = replace(MADE, rows=(replace(ROW, strategy=label), LAZY))
    shown = [text.plain for text in lines(one)]
    start = next(i for i, text in enumerate(shown) if text.startswith("federaser"))
    end = next(i for i, text in enumerate(shown) if text.startswith("lazy"))
    assert "".join(text.split()[0] for text in shown[start:end]) == label


# --------------------------------------------------------------------------------------------- from a run


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        folder = make_run(tmp_path_factory.mktemp("run") / "run", MODELS, table=images(patients=10))
        score(folder)
    moments = [{"id": "some", "forgets": "some", "summary": "forget 3 patients"}]
    skipped = [{"strategy": "late", "request": "some", "reason": "it is late"}]
    change_manifest(folder, moments=moments, skipped=skipped, name="made", data={"note": "-"})
    (folder / "DONE").touch()
    return folder


@pytest.mark.gate
def test_an_overview_says_what_the_tables_say(scored: Path) -> None:
    run = RunFolder(scored)
    tables, manifest = read(run), run.read_manifest()
    one = overview(tables, manifest, manifest["moments"][0])
    known = tables["requests"].set_index("request").loc["some"]
    assert (one.visible, one.smallest, one.seeds, one.patients) == (True, known["smallest"], 3, (3, 3))
    assert {row.strategy for row in one.rows} == {"good", "lazy", "overdone", "destroyed"}
    assert one.rows[0].strategy == "good" and one.skipped == (("late", "it is late"),)
    assert one.original > 0.6 > one.retrained > 0.4
    assert one.margins == {"over": 0, "memory": 0.25, "all": 0.03, "site": 0.05, "class": 0.1}
    statistics, patients = (tables[n][tables[n]["request"] == "some"] for n in ("statistics", "patients"))
    for row in one.rows:
        own = statistics[statistics["strategy"] == row.strategy].set_index(["measure", "group"])
        assert row.left.value == own.loc[("memory_left", "all"), "difference"]
        assert row.test.value == own.loc[("test_accuracy", "all"), "difference"]
        by_group = own.loc["test_accuracy"]["difference"].to_dict()
        sites = [float(by_group[f"site={s}"]) for s in ("north", "east", "west")]
        assert row.site.value == min(sites)
        flagged = patients[(patients["strategy"] == row.strategy) & (patients["flagged"] == "remembered")]
        assert set(row.known) == set(flagged["patient"]) and row.compared == 3
        assert row.cost == pytest.approx(1 / 2)  # two rows of 100 images, of four


def test_report_prints_it_and_details_print_the_tables(scored: Path) -> None:
    told, details, document = (
        CliRunner().invoke(app, ["report", str(scored), *more], catch_exceptions=False).output
        for more in ((), ("--details",), ("--markdown",))
    )
    assert "CAN THIS RUN TELL?" in told and "do nothing" in told
    assert "damaged" not in told and "mia_loss_auc" not in told and "retrained_other" not in told
    assert all(len(text) <= WIDTH for text in told.splitlines())
    assert (
        "CAN THIS RUN TELL?" not in details and "retraining again" in details and "a broken model" in details
    )
    assert "| do nothing |" in document and "| retraining again |" in document
    for name in ("retrained_other", "damaged", "original  ", "| original |", "_auc"):
        assert name not in details + document


@pytest.mark.parametrize(
    ("control", "words"),
    [("retrained_other", "retraining again:"), ("damaged", "a broken model:")],
)
def test_a_legend_explains_only_controls_that_are_in_the_table(
    scored: Path, monkeypatch: pytest.MonkeyPatch, control: str, words: str
) -> None:
    """A run of one seed has no other seed's retrained model."""
    assert words in "\n".join(legends(RunFolder(scored)))
    read_table = RunFolder.read_table

    def without(run: RunFolder, name: str) -> pd.DataFrame:
        table = read_table(run, name)
        return table[table["strategy"] != control] if name == "scores.parquet" else table

    monkeypatch.setattr(RunFolder, "read_table", without)
    told = "\n".join(legends(RunFolder(scored)))
    assert words not in told and ("retraining again:" in told) + ("a broken model:" in told) == 1


def test_the_legend_says_that_answers_compare_with_more_retrainings_than_the_row_has(scored: Path) -> None:
    assert "cannot be subtracted" not in "\n".join(legends(RunFolder(scored)))
    further = {**RunFolder(scored).read_manifest(), "references": [{"request": "some", "seed": 10}]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "read_manifest", lambda run: further)
        assert "rows cannot be subtracted" in "\n".join(legends(RunFolder(scored)))


def test_what_no_run_of_this_size_would_see_is_said_so(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = report.markdown(RunFolder(scored))
    assert "in MIA AUC would go unseen (80 % power)" in plain and "would be seen" not in plain
    read_table = RunFolder.read_table

    def changed(run: RunFolder, name: str) -> pd.DataFrame:
        table = read_table(run, name)
        return (
            table.assign(smallest_visible=1.5, high=table["difference"] + 4)
            if "statistics" in name
            else table
        )

    monkeypatch.setattr(RunFolder, "read_table", changed)
    blind = report.markdown(RunFolder(scored))
    assert "no difference in MIA AUC would be seen (80 % power)" in blind and "1.5" not in blind
    assert "±1.0" in blind and "±4.0" not in blind


def test_a_run_that_an_older_version_judged_says_what_to_do(scored: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(scored, old)
    (old / "requests.parquet").unlink()
    change_manifest(old)
    for more in ((), ("--details",), ("--markdown",)):
        told = CliRunner().invoke(app, ["report", str(old), *more])
        assert told.exit_code == 2 and f"run `fedunlearn score {old}` to judge it anew" in told.output
    shutil.copy(scored / "requests.parquet", old)
    verdicts = pd.read_parquet(old / "verdicts.parquet")
    verdicts[["request", "strategy", "verdict"]].assign(reasons="a; b").to_parquet(old / "verdicts.parquet")
    change_manifest(old)
    with pytest.raises(InputError, match="one answer where there are two now"):
        read(RunFolder(old))


def test_it_says_what_nobody_can_say() -> None:
    """Features are no secret where a probe has looked at them."""
    assert "or what features keep (evaluation: {linear_probe: true} asks)." in limits(())
    assert "features" not in limits(("linear_probe", "relearn"))


def test_a_reason_that_the_row_does_not_show_is_told() -> None:
    """A fifth is left, which the margin allows; that more is left by the image alone stands nowhere in the row."""
    reason = "26 % of the original's memory is left (95 %: 17 % to 34 %) in answers to the image alone"
    row = replace(ROW, forgotten="partly", left=Value(0.21, 0.07), known=(), reasons=(reason,))
    (told,) = [note for note in notes(replace(MADE, rows=(row,))) if note.startswith("Partly forgotten")]
    assert "in answers to the image alone" in told and row.strategy in told
    seen = replace(row, left=Value(0.4, 0.07))
    assert not [one for one in notes(replace(MADE, rows=(seen,))) if one.startswith("Partly forgotten")]

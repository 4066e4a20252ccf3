"""A run that was interrupted goes on and comes to the same; a new one takes what an earlier one did."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.campaign import sources
from fedunlearn.core import InputError, RunError
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Answer, Ask, inline, looking
from fedunlearn.finished import rescore
from fedunlearn.results import audit
from fedunlearn.results.runfolder import CURVES, RunFolder
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import COSTS, Measure, measures_of
from fedunlearn.story import simulate
from tests.runs import contents

FEW = {"forget_accuracy", "retain_accuracy", "test_accuracy", "mia_loss_auc", *COSTS}
FEW |= {one.name for one in scored("classification").probed}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """A few of the measures, and not many epochs of relearning: neither has a part in what is kept.

    Every answer is kept, so that whatever is asked twice is noticed: here all are cheap.
    """
    scoring = sys.modules["fedunlearn.scoring.score"]  # the package has a function of that name

    def few(kind: str) -> dict[str, Measure]:
        return {name: one for name, one in measures_of(kind).items() if name in FEW}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        patch.setattr("fedunlearn.campaign.probing.MOST_EPOCHS", 4)
        patch.setattr("fedunlearn.federation.journal.CHEAP", 0.0)
        patch.setattr(scoring, "measures_of", few)
        yield


PLAIN = """\
name: plain
seeds: [1]
engine: {name: inline, workers: 1}
data: {name: phantom_cells, images: 120}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 2, local_epochs: 1, batch_size: 32, lr: 0.002}
requests:
  - {id: some, site: north, patients: {count: 2}}
  - {id: leave, site: east, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 1}
  - {name: negation, recovery: {rounds: 1}}
  - {name: federaser, every: 1}
  - {name: sifu, rounds: 1}
"""
MUCH = """\
name: much
seeds: [1]
engine: {name: inline, workers: 1}
data: {name: phantom_cells, images: 120}
sites: {names: [north, east], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 3, local_epochs: 1, batch_size: 32, lr: 0.002}
horizons: [1]
evaluation: {relearn: true, linear_probe: true, resurgence_rounds: 1}
requests:
  - {id: early, site: north, patients: {count: 2}, after_round: 2}
strategies:
  - {name: fine_tune, rounds: 2, local_epochs: 1}
  - {name: sharded}
  - {name: random_label, lr: 1.0e+30, as: wild}
"""
CHAIN = """\
name: chain
seeds: [1]
timeline: sequential
engine: {name: inline, workers: 1}
data: {name: phantom_cells, images: 120}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 3, local_epochs: 1, batch_size: 32, lr: 0.002}
requests:
  - {id: a, site: north, patients: {count: 1}, after_round: 1}
  - {id: b, site: west, patients: {count: 1}, after_round: 2}
  - {id: c, site: east, whole_site: true, after_round: 2}
strategies:
  - {name: fine_tune, rounds: 1}
  - {name: negation, recovery: {rounds: 0}}
"""
YEAR = """\
name: year
seeds: [1]
engine: {name: inline, workers: 1}
data: {name: phantom_cells, images: 120}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 3, local_epochs: 1, batch_size: 32, lr: 0.002}
calendar: {start: 2026-01-01, round: 14d, looks: 28d}
requests:
  - {id: some, site: north, patients: {count: 1}, received: 2026-01-05}
  - {id: nobody, site: north, patients: ["nobody"], received: 2026-01-14}
policies: [{name: at_once}]
strategies: [{name: fine_tune, rounds: 1}]
"""


@dataclass
class Asked:
    """What hospitals were asked, and what of that was answered, by what it was, bit for bit."""

    submitted: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)


def what(ask: Ask) -> str:
    text, arrays = wire.pack(ask.task)
    return f"{ask.site} {text} {w.digest(arrays)}"


@contextmanager
def watched(after: float = math.inf) -> Iterator[Asked]:
    """Write down what is asked; a person presses Ctrl-C after so many answers."""
    asked, tickets = Asked(), dict[int, str]()
    submit, collect = inline._Link.submit, inline._Link.collect

    def watched_submit(self: inline._Link, asks: Sequence[Ask]) -> None:
        tickets.update({ask.ticket: what(ask) for ask in asks})
        asked.submitted.update(what(ask) for ask in asks)
        submit(self, asks)

    def watched_collect(self: inline._Link) -> Sequence[Answer]:
        if asked.answered.total() >= after:
            raise KeyboardInterrupt
        answers = collect(self)
        asked.answered.update(tickets[answer.ticket] for answer in answers)
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inline._Link, "submit", watched_submit)
        patch.setattr(inline._Link, "collect", watched_collect)
        yield asked


def run(folder: Path, text: str, *overrides: str, name: str = "run", **how: Any) -> RunFolder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenario.yaml").write_text(text, encoding="utf-8")
    scenario = scenarios.read(folder / "scenario.yaml", overrides)
    return simulate(scenario, folder / name, folder, Console(), quiet=True, **how)


def interrupted(folder: Path, text: str, after: float) -> Asked:
    """An unfinished run in ``folder / "run"``, and what it asked."""
    with watched(after) as asked, pytest.raises(KeyboardInterrupt) as caught:
        run(folder, text)
    (note,) = caught.value.__notes__
    assert f"--out {folder / 'run'} --resume" in note and f"discard {folder / 'run'}" in note
    assert not (folder / "run" / "work" / "federation").exists(), "the hospitals' images stay nowhere"
    return asked


@dataclass(frozen=True)
class Whole:
    """A run that nobody interrupted, and what it asked."""

    text: str
    run: RunFolder
    asked: Asked


def wholly(folder: Path, text: str) -> Whole:
    with watched() as asked:
        return Whole(text, run(folder, text), asked)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return wholly(tmp_path_factory.mktemp("plain"), PLAIN)


@pytest.fixture(scope="module")
def much(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return wholly(tmp_path_factory.mktemp("much"), MUCH)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return wholly(tmp_path_factory.mktemp("chain"), CHAIN)


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> Whole:
    """The one that a parameter names."""
    found: Whole = request.getfixturevalue(request.param)
    return found


# ----------------------------------------------------------------------------------------------- what is the same

RESULTS = ("weights", "signals", "copies", "probes", "difficulty", "slices")
TIMES = ["site_seconds", "server_seconds"]


def files(folder: RunFolder) -> dict[str, str]:
    """All that was trained and answered, by sha256."""
    found = contents(folder.path)
    return {
        name: known for name, known in found.items() if name.startswith(RESULTS) or name == "sites.parquet"
    }


def costs(folder: RunFolder) -> pd.DataFrame:
    return folder.read_table("ledger.parquet").drop(columns=TIMES)


def scores(folder: RunFolder) -> pd.DataFrame:
    """All but what is measured in time."""
    table = folder.read_table("scores.parquet")
    timed = table["measure"].str.contains("seconds")
    return table[~timed].reset_index(drop=True)


def assert_same(found: RunFolder, expected: RunFolder) -> None:
    assert files(found) == files(expected)
    pd.testing.assert_frame_equal(costs(found), costs(expected))
    pd.testing.assert_frame_equal(scores(found), scores(expected), check_exact=True)
    for name in ("verdicts.parquet", "bias.parquet", "difficulty.parquet", CURVES):
        pd.testing.assert_frame_equal(found.read_table(name), expected.read_table(name))
    for key in ("scored", "diverged", "moments", "probes", "slices", "skipped", "data"):
        assert found.read_manifest().get(key) == expected.read_manifest().get(key)
    assert not (found.path / "work").exists()


# ---------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        ("plain", 0.5),
        *(pytest.param("plain", part, marks=pytest.mark.gate) for part in (0.0, 0.98)),
        pytest.param("much", 0.7, marks=pytest.mark.gate),
        pytest.param("chain", 0.5, marks=pytest.mark.gate),
    ],
    indirect=["whole"],
)
def test_an_interrupted_run_comes_to_the_same_and_asks_nothing_twice(
    whole: Whole, tmp_path: Path, part: float
) -> None:
    """Interrupted once so much of it was done."""
    total = whole.asked.answered.total()
    before = interrupted(tmp_path, whole.text, int(part * total))
    with watched() as after:
        found = run(tmp_path, whole.text, resume=True)
    assert before.answered + after.submitted == whole.asked.submitted
    assert_same(found, whole.run)
    events = [json.loads(line)["event"] for line in (found.path / audit.FILE).read_text().splitlines()]
    assert events.count("run-started") == events.count("run-resumed") == 1
    assert audit.verify(found.path / audit.FILE, found.read_manifest()["audit"]) == len(events)


def told(found: RunFolder) -> list[dict[str, Any]]:
    """What the audit log says happened, in order."""
    chain = ("seq", "time_utc", "previous", "hash")
    lines = audit.lines(found.path / audit.FILE)
    return [{key: value for key, value in line.items() if key not in chain} for line in lines]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("year", "campaign.campaign.Campaign.forgo"),
        pytest.param("plain", "results.runfolder.RunFolder.finish", marks=pytest.mark.gate),
    ],
)
def test_killed_before_only_done_is_missing_nothing_is_in_the_log_twice(
    text: str, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has its end then, and what reads states from it reads each once."""
    scenario = {"year": YEAR, "plain": PLAIN}[text]
    expected = told(run(tmp_path, scenario, name="whole"))

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    for resume in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(f"fedunlearn.{at}", killed)
            with pytest.raises(Killed):
                run(tmp_path, scenario, resume=resume)
    found = run(tmp_path, scenario, resume=True)
    events = told(found)
    assert events.count({"event": "run-resumed"}) == 2
    assert [one for one in events if one != {"event": "run-resumed"}] == expected
    assert audit.verify(found.path / audit.FILE, found.read_manifest()["audit"]) == len(events)


@pytest.mark.gate
def test_what_was_cheap_is_asked_again_and_comes_to_the_same(
    plain: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of procedures under way nothing was written; of those that had ended, all there was to."""
    monkeypatch.setattr("fedunlearn.federation.journal.CHEAP", math.inf)
    total = plain.asked.answered.total()
    before = interrupted(tmp_path, PLAIN, total // 2)
    with watched() as after:
        found = run(tmp_path, PLAIN, resume=True)
    asked, once = before.answered + after.submitted, plain.asked.submitted
    assert once <= asked and once.total() < asked.total() < 2 * once.total()
    assert_same(found, plain.run)


@pytest.mark.gate
def test_interrupted_again_and_again_it_gets_there(plain: Whole, tmp_path: Path) -> None:
    """At last with more workers, who change no bit."""
    asked, total = interrupted(tmp_path, PLAIN, 9).answered, plain.asked.answered.total()
    for _ in range(2):
        with watched(total // 4) as again, pytest.raises(KeyboardInterrupt):
            run(tmp_path, PLAIN, resume=True)
        asked += again.answered
    with watched() as last:
        found = run(tmp_path, PLAIN, "engine.workers=2", resume=True)
    assert asked + last.submitted == plain.asked.submitted
    assert_same(found, plain.run)


@pytest.mark.gate
def test_what_was_damaged_meanwhile_is_done_again(plain: Whole, tmp_path: Path) -> None:
    """A model, a record, the newest answers: the work is done again, to the same bits."""
    interrupted(tmp_path, PLAIN, plain.asked.answered.total() // 2)
    folder = tmp_path / "run"
    damaged = [
        folder / "weights" / "original-1.safetensors",
        folder / "origins" / "weights" / "retrained-some-1.safetensors.json",
        *(folder / "work" / "journal").rglob("answer-*"),
        *(folder / "work" / "journal").rglob("model-*"),
    ]
    assert len(damaged) > 2
    for file in damaged:
        content = bytearray(file.read_bytes())
        content[len(content) * 3 // 4] ^= 8
        file.write_bytes(content)
    assert_same(run(tmp_path, PLAIN, resume=True), plain.run)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.gate
def test_wrong_input_that_comes_to_light_late_costs_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any model is trained it leaves nothing behind; once there are some, they stay."""

    def refuse(*_: object) -> None:
        raise InputError("the file is gone")

    for what, stays in (("train", False), ("score", True)):
        with monkeypatch.context() as patch:
            patch.setattr(f"fedunlearn.story.{what}", refuse)
            with pytest.raises(InputError) as caught:
                run(tmp_path, PLAIN)
        assert (tmp_path / "run").exists() == stays
        assert bool(getattr(caught.value, "__notes__", ())) == stays


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted early, to look at."""
    folder = tmp_path_factory.mktemp("stopped")
    interrupted(folder, PLAIN, 12)
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.lr=0.003", r"scenario: - training: .*lr: 0\.002.*scenario: \+ training: .*lr: 0\.003"),
        ("data.images=132", r"the data: images"),
        ("strategies.0.rounds=2", r"scenario: \+ .*rounds: 2"),
        ("requests.0.patients.count=3", r"the data: hospitals, patients and requests"),
    ],
)
def test_another_scenario_cannot_go_on_with_it_and_is_told_why(
    stopped: Path, change: str, words: str
) -> None:
    before = contents(stopped / "run")
    with pytest.raises(InputError, match=rf"(?s)since it was begun, something changed:.*{words}.*--reuse"):
        run(stopped, PLAIN, change, resume=True)
    assert contents(stopped / "run") == before


def test_another_limit_of_history_changes_nothing(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)

    def begins(*_: object) -> None:
        raise KeyboardInterrupt  # it would go on

    monkeypatch.setattr("fedunlearn.story.train", begins)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, PLAIN, "history.limit=1", resume=True)


@pytest.mark.parametrize("edited", ["strategies.negation", "fedunlearn.kinds.classification.learnt"])
def test_other_code_cannot_go_on_with_it_and_is_told_which(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    honest = sources._sha256

    def sha256(name: str, file: Path) -> str:
        return "edited" if name == edited else honest(name, file)

    monkeypatch.setattr(sources, "_sha256", sha256)
    monkeypatch.setattr(looking, "versions", lambda: {"torch": "9"})
    with pytest.raises(InputError) as caught:
        run(stopped, PLAIN, resume=True)
    assert f"code: {edited} was edited" in str(caught.value)
    assert ", is 9" in str(caught.value)


def test_an_unfinished_run_is_neither_scored_nor_read_nor_written_over(stopped: Path) -> None:
    before = contents(stopped / "run")
    for use in (rescore, RunFolder.open):
        with pytest.raises(InputError, match=r"holds an unfinished run: go on with .*--resume"):
            use(stopped / "run")
    with pytest.raises(InputError, match=r"holds an unfinished run: go on with it with --resume"):
        run(stopped, PLAIN)
    assert contents(stopped / "run") == before


def test_a_finished_run_cannot_be_resumed(plain: Whole) -> None:
    before = contents(plain.run.path)
    with pytest.raises(InputError, match="holds a finished run, expected an unfinished one"):
        run(plain.run.path.parent, PLAIN, resume=True)
    assert contents(plain.run.path) == before


# ----------------------------------------------------------------------------------------------------- reuse


@pytest.mark.gate
@pytest.mark.parametrize("whole", ["plain", "much", "chain"], indirect=True)
def test_the_same_run_again_asks_nobody(whole: Whole, tmp_path: Path) -> None:
    """Nor is a strategy's own training done again, which a finished run has no more."""
    with watched() as asked:
        found = run(tmp_path, whole.text, reuse=[whole.run.path])
    assert asked.submitted == Counter()
    assert_same(found, whole.run)
    assert found.read_manifest()["reused"] != whole.run.read_manifest()["reused"] == []


@pytest.mark.gate
def test_another_strategy_is_all_that_is_asked_for(plain: Whole, tmp_path: Path) -> None:
    """One that needs no history: the original training is not done again."""
    listed = PLAIN + "  - {name: fine_tune, as: longer, rounds: 2}\n"
    with watched() as asked:
        found = run(tmp_path, listed, reuse=[plain.run.path])
    known = files(plain.run)
    assert {name for name in files(found) if name not in known} == {
        f"{part}/{request}-longer-1.{ending}"
        for part, ending in (("weights", "safetensors"), ("signals", "parquet"), ("copies", "parquet"))
        for request in ("some", "leave")
    }
    assert known.items() <= files(found).items()
    # two rounds and one of answers: at all three hospitals, and at two that stay, which answer for three; and about
    # copies, the one that asks; and all three about the models of all rounds
    assert asked.submitted.total() == (2 * 3 + 3 + 1 + 3) + (2 * 2 + 3 + 1 + 3)
    fresh = run(tmp_path, listed, name="fresh")
    assert_same(found, fresh)


@pytest.mark.gate
def test_where_history_is_needed_the_original_is_trained_again_to_the_same_bits(
    plain: Whole, tmp_path: Path
) -> None:
    listed = PLAIN.replace("{name: federaser, every: 1}", "{name: federaser, every: 2}")
    with watched() as asked:
        found = run(tmp_path, listed, reuse=[plain.run.path])
    again = Counter({ask: n for ask, n in asked.submitted.items() if ask in plain.asked.submitted})
    assert 2 * 3 <= again.total() < plain.asked.submitted.total() / 3
    same = {name for name, known in files(plain.run).items() if files(found)[name] == known}
    assert {name for name in files(plain.run) if name not in same} == {
        "weights/leave-federaser-1.safetensors",
        "signals/leave-federaser-1.parquet",
        "copies/leave-federaser-1.parquet",
    }


@pytest.mark.gate
def test_requests_at_other_times_take_what_they_can_of_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that needs the original as it was after a round trains it again for that, one that does not takes it."""
    monkeypatch.setattr("fedunlearn.story.score", lambda path, workers: (pd.DataFrame(), pd.DataFrame()))
    text = PLAIN.partition("strategies:")[0] + "strategies: [{name: negation, recovery: {rounds: 0}}]\n"
    cut = "requests.0.after_round=1"
    late, early = run(tmp_path, text, name="late"), run(tmp_path, text, cut, name="early")
    assert files(late).keys() < files(early).keys(), "else there is nothing to leave out"
    original = "weights/original-1.safetensors"
    found = run(tmp_path, text, name="late-again", reuse=[early.path])
    assert original in found.read_manifest()["reused"]
    assert files(found) == files(late)
    pd.testing.assert_frame_equal(costs(found), costs(late))
    found = run(tmp_path, text, cut, name="early-again", reuse=[late.path])
    assert original not in found.read_manifest()["reused"]
    assert files(found) == files(early)
    pd.testing.assert_frame_equal(costs(found), costs(early))


@pytest.mark.parametrize(
    "file",
    [
        "weights/original-1.safetensors",
        "signals/some-negation-1.parquet",
        "origins/weights/original-1.safetensors.json",
    ],
)
def test_a_damaged_folder_is_not_reused_and_the_file_is_named(
    plain: Whole, tmp_path: Path, file: str
) -> None:
    shutil.copytree(plain.run.path, tmp_path / "earlier")
    content = bytearray((tmp_path / "earlier" / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "earlier" / file).write_bytes(content)
    with pytest.raises(RunError, match=rf"{Path(file).name} is damaged|cannot read .*{Path(file).name}"):
        run(tmp_path, PLAIN, reuse=[tmp_path / "earlier"])
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.gate
def test_an_unfinished_run_can_be_reused_too(plain: Whole, stopped: Path, tmp_path: Path) -> None:
    """Of what it finished; here that is not all, and not nothing."""
    shutil.copytree(stopped / "run", tmp_path / "earlier")
    assert_same(run(tmp_path, PLAIN, reuse=[tmp_path / "earlier"]), plain.run)


def test_a_folder_that_is_no_run_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"cannot reuse .*other: expected a run folder"):
        run(tmp_path, PLAIN, reuse=[tmp_path / "other"])
    assert not (tmp_path / "run").exists()

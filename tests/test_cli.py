"""The command line: exit codes, messages, and that wrong input writes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedunlearn.__main__ import app
from fedunlearn.contract import PROMISES
from fedunlearn.federation.engines import inline
from fedunlearn.federation.engines.flower import probe
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import here
from fedunlearn.results.runfolder import RunFolder
from tests import guest
from tests.runs import TINY, contents, run, write

pytestmark = pytest.mark.usefixtures("few_resamples")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("cli"))


def test_simulate_writes_a_run_and_prints_the_table(tmp_path: Path) -> None:
    result = call(
        "simulate",
        write(tmp_path),
        "--out",
        tmp_path / "r",
        "--data-root",
        tmp_path,
        "--set",
        "seeds=[1]",
        "--engine",
        "inline",
    )
    assert result.exit_code == 0
    assert (tmp_path / "r" / "DONE").exists()
    for word in (
        "forget 2 patients of north",
        "CAN THIS RUN TELL?",
        "fine_tune",
        "do nothing",
        "Not run: federaser",
    ):
        assert word in result.output


@pytest.mark.gate
def test_quiet_prints_nothing(tmp_path: Path) -> None:
    words = ("--set", "seeds=[1]", "--set", "strategies=[]", "--quiet")
    result = call("simulate", write(tmp_path), "--out", tmp_path / "r", *words)
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.gate
def test_progress_is_on_standard_error_and_results_alone_on_standard_output(tmp_path: Path) -> None:
    words = ("--set", "seeds=[1]", "--set", "strategies=[{name: fine_tune, rounds: 1}]", "--engine", "inline")
    result = call("simulate", write(tmp_path), "--out", tmp_path / "r", *words)
    told = result.stdout.strip().splitlines()
    assert told[0].startswith("tiny: ") and told[-1].startswith("run folder: ")
    for word in ("needs about", "original seed 1: ", "scoring all models", "writing report.html"):
        assert word in result.stderr and word not in result.stdout


def test_check_for_programs_tells_the_same_and_every_problem_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path)
    found = json.loads(call("check", file, "--json").stdout)
    plain = call("check", file).stdout.splitlines()
    assert (found["scenario"], found["problems"]) == (str(file), [])
    timed = re.compile(r"\d+ (ms|s|min)\b")  # a step is timed each time
    told, lines = ([timed.sub("", line) for line in of if line] for of in (found["told"], plain[:-1]))
    assert told == lines and len(lines) > 3 and found["requests"] == []
    wrong = call("check", file, "--json", "--set", "training.rounds=0", "--set", "training.lr=-1")
    problems = json.loads(wrong.stdout)["problems"]
    assert wrong.exit_code == 2 and len(problems) == 2
    assert all(one["message"] in wrong.stderr for one in problems)
    file.write_text(file.read_text().replace("rounds:", "ronds:", 1))
    places = json.loads(call("check", file, "--json").stdout)["problems"]
    assert [one for one in places if one["file"] == str(file) and one["line"] and "ronds" in one["message"]]
    absent = call("check", tmp_path / "absent.yaml", "--json")
    assert absent.exit_code == 2 and "absent.yaml" in json.loads(absent.stdout)["problems"][0]["file"]


def test_check_counts_the_requests_of_a_calendar_for_programs(tmp_path: Path) -> None:
    """Of two on the same day, a quota of one a month holds one back until April."""
    year = ("calendar={start: 2026-01-01, round: 7d}", "training.rounds=52", "strategies=[{name: fine_tune}]")
    asked = "requests=[{id: a, site: north, patients: [nobody], received: 2026-02-01},"
    asked += "{id: b, site: north, patients: {count: 1}, received: 2026-03-02},"
    asked += "{id: c, site: north, patients: {count: 2}, received: 2026-03-02}]"
    words = [word for one in (*year, asked, "limits={quota: 1, class_images: 0}") for word in ("--set", one)]
    (found,) = json.loads(call("check", write(tmp_path), "--json", *words).stdout)["requests"]
    kinds = {"patients": 2, "images": 0, "whole_site": 0, "opt_out": 0}
    assert found == {
        "cell": "",
        "arriving": 3,
        "accepted": kinds,
        "refused": {"unknown_patient": 1},
        "held": 1,
        "open": 0,
    }


def test_check_says_what_each_request_means_and_runs_nothing(tmp_path: Path) -> None:
    result = call("check", write(tmp_path))
    assert result.exit_code == 0
    assert "leave: forget all of hospital east" in result.output
    assert "federaser: will not run for some" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.yaml"]


@pytest.mark.parametrize("command", ["check", "simulate"])
@pytest.mark.parametrize(
    ("change", "place", "message"),
    [
        (("rounds: 2", "rounds: two"), ":7:", "two"),
        (("seeds: [1, 2]", "seeds: [1, 2]\ncolour: red"), ":3:", "colour"),
        (("count: 2", "fraction: 1.5"), ":9:", "1.5"),
        (("site: north, patients", "site: nord, patients"), ":9:", "nord"),
        (("phantom_cells", "bloodsmear"), ":4:", "bloodsmear"),
        (("{count: 2, pick: random}", '["nobody"]'), ":9:", "nobody"),
    ],
    ids=["type", "unknown key", "fraction", "site", "data", "patient"],
)
def test_wrong_input_is_exit_2_with_its_place_and_writes_nothing(
    tmp_path: Path, command: str, change: tuple[str, str], place: str, message: str
) -> None:
    path = write(tmp_path, TINY.replace(*change, 1))
    out = ("--out", tmp_path / "r") if command == "simulate" else ()
    result = call(command, path, *out)
    assert result.exit_code == 2
    assert place in result.stderr and message in result.stderr
    assert "Traceback" not in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["scenario.yaml"]


def test_a_missing_data_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    text = TINY.replace("{name: phantom_cells, images: 240}", "{name: npz, path: absent.npz}")
    result = call("simulate", write(tmp_path, text), "--out", tmp_path / "r", "--data-root", tmp_path)
    assert result.exit_code == 2
    assert "absent.npz" in result.stderr and str(tmp_path) in result.stderr
    assert not (tmp_path / "r").exists()


def test_a_request_that_finds_nothing_left_is_refused_at_its_place(tmp_path: Path) -> None:
    again = "{id: again, site: north, patients: {count: 1}}\ntimeline: sequential"
    text = TINY.replace("{count: 2, pick: random}", "{fraction: 1.0}")
    text = text.replace("{id: leave, site: east, whole_site: true}", again).partition("strategies:")[0]
    result = call("check", write(tmp_path, text))
    assert result.exit_code == 2
    assert ":10:5: request 'again' names no training image that earlier requests left" in result.stderr


def test_a_data_problem_found_late_still_has_its_place(tmp_path: Path) -> None:
    text = TINY.replace("partition: {name: iid}", "partition: {name: by_column, column: scaner}")
    result = call("check", write(tmp_path, text))
    assert result.exit_code == 2
    assert ":5:" in result.stderr and "scaner" in result.stderr


@pytest.mark.gate
def test_an_engine_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    words = ("--set", "engine={name: flower, address: '127.0.0.1:1'}", "--quiet")
    result = call("simulate", write(tmp_path), "--out", tmp_path / "r", *words)
    assert result.exit_code == 2
    assert "127.0.0.1:1" in result.stderr
    assert not (tmp_path / "r").exists()


def test_a_defect_is_a_message_and_a_traceback_only_for_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("fedunlearn.story.drive", full)
    words = ("simulate", write(tmp_path), "--set", "seeds=[1]", "--quiet")
    result = call(*words, "--data-root", tmp_path, "--out", tmp_path / "r")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no space left" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "r" / "work" / "federation").exists()  # no image is left lying around
    again = f"simulate {words[1]} --set 'seeds=[1]' --data-root {tmp_path} --out {tmp_path / 'r'} --resume"
    assert again in result.stderr.replace("\n", "")
    with pytest.raises(OSError, match="no space left"):
        call(*words, "--out", tmp_path / "q", "--debug")
    with pytest.raises(OSError, match="no space left"):
        call("--debug", *words, "--out", tmp_path / "p")


@pytest.mark.gate
def test_an_output_folder_in_use_is_exit_2_and_left_alone(finished: RunFolder, tmp_path: Path) -> None:
    before = contents(finished.path)
    result = call("simulate", write(tmp_path), "--out", finished.path)
    assert result.exit_code == 2
    assert "is in use" in result.stderr
    assert contents(finished.path) == before


@pytest.mark.gate
def test_a_run_without_out_takes_the_next_free_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    words = ("--set", "seeds=[1]", "--set", "strategies=[]", "--quiet")
    assert call("simulate", write(tmp_path), *words).exit_code == 0
    assert (tmp_path / "runs" / "tiny-2" / "DONE").exists()


@pytest.mark.gate
def test_score_reproduces_the_scores_from_the_folder_alone(finished: RunFolder) -> None:
    before = finished.read_table("scores.parquet")
    (finished.path / "scores.parquet").unlink()
    assert call("score", finished.path).exit_code == 0
    assert finished.read_table("scores.parquet").equals(before)


@pytest.mark.gate
def test_score_without_a_retrained_reference_fails_by_name(tmp_path: Path) -> None:
    broken = run(tmp_path, "seeds=[1]", "strategies=[]")
    (broken.path / "signals" / "retrained-some-1.parquet").unlink()
    result = call("score", broken.path)
    assert result.exit_code == 1
    assert "retrained-some-1" in result.stderr


@pytest.mark.gate
def test_report_prints_the_table_again(finished: RunFolder) -> None:
    result = call("report", finished.path)
    assert result.exit_code == 0
    assert "leave: forget all of hospital east" in result.output


@pytest.mark.gate
def test_report_as_markdown_has_a_row_for_every_model(finished: RunFolder) -> None:
    text = call("report", finished.path, "--markdown").stdout
    assert "**leave: forget all of hospital east" in text
    for strategy in ("do nothing", "retraining", "fine_tune", "negation", "federaser"):
        assert f"\n| {strategy} | " in text


@pytest.mark.parametrize("what", ["score", "report"])
def test_a_folder_that_is_no_run_is_exit_2(tmp_path: Path, what: str) -> None:
    result = call(what, tmp_path)
    assert result.exit_code == 2
    assert "is not a run folder" in result.stderr


@pytest.mark.parametrize(
    "what", ["strategies", "measures", "data", "models", "partitions", "policies", "scenarios"]
)
def test_lists_have_names_and_summaries(what: str) -> None:
    entries = json.loads(call("list", what, "--json").stdout)
    assert all(entry["name"] and entry["summary"] for entry in entries)
    plain = call("list", what)
    named = [line.split()[0] for line in plain.stdout.splitlines() if line.strip()]
    assert {entry["name"] for entry in entries} <= set(named)
    assert what == "strategies" or len(named) == len(entries)


def test_strategies_are_listed_with_what_they_promise_and_need() -> None:
    entries = {entry["name"]: entry for entry in json.loads(call("list", "strategies", "--json").stdout)}
    assert all("arXiv" in entry["reference"] and entry["deviations"] for entry in entries.values())
    federaser = entries["federaser"]
    assert (federaser["guarantee"], federaser["secure_aggregation"]) == ("empirical", False)
    assert federaser["searched"]["norm"] == {"choices": ["layer", "model"]}
    assert entries["retrain"]["guarantee"] == "exact" and entries["retrain"]["searched"] == {}
    assert entries["puf"]["searched"]["eta"] == {"low": 0.1, "high": 10, "log": True}
    puf = call("list", "strategies", "puf").stdout.splitlines()
    assert " ".join(puf[2:4]).startswith(
        "forgets patients or site; empirical; uses the data to forget once more; works under secure aggregation."
    )


def test_one_that_is_not_there_is_refused_with_those_that_are_near() -> None:
    result = call("list", "strategies", "salu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean salun or salun_cra?" in result.stderr


def test_check_strategy_prints_a_table_and_tells_by_its_exit_code(tmp_path: Path) -> None:
    tried = {"every_number_has_a_range_that_is_kept", "documented", "tasks_cross_the_wire"}
    rest = [words for p in PROMISES if p.name not in tried for words in ("--excuse", p.name)]
    kept = call("check-strategy", guest.write(tmp_path), "--set", "epochs=1", *rest)
    assert kept.exit_code == 0, kept.stderr
    assert "Unsure(name='unsure', epochs=1" in kept.stdout
    assert kept.stdout.splitlines()[-1] == f"{tmp_path / 'unsure.py'}: all promises are kept"
    file = guest.write(tmp_path, guest.unsure().replace("[int, Ge(1), Search(1, 6)]", "[int, Search(1, 6)]"))
    broken = call("check-strategy", file, *rest)
    assert broken.exit_code == 2
    assert "1 promises are not kept: every_number_has_a_range_that_is_kept" in broken.stderr


def test_cluster_check_tells_all_machines_and_by_its_exit_code_whether_they_can_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    like = probe.Sighting("10.0.0.1", "head", "1", {"CPU": 4.0}, {"CPU": 3.0}, True, here(), None, ())
    odd = replace(like, address="10.0.0.2", host="node2", faults=("found torch 2.0, expected 2.1",))
    found = [like]
    monkeypatch.setattr(probe, "look", lambda address, gpus, folder: tuple(found))
    assert call("cluster", "check", "10.0.0.1:6379").exit_code == 0
    found.append(odd)
    for form in ((), ("--json",)):
        result = call("cluster", "check", "10.0.0.1:6379", *form)
        assert result.exit_code == 2
        assert result.stderr == "error: machine 'node2' (10.0.0.2): found torch 2.0, expected 2.1\n"
    told = json.loads(result.stdout)["machines"]
    assert [(about["host"], about["problems"]) for about in told] == [("head", []), ("node2", [*odd.faults])]


def test_machines_that_cannot_work_are_exit_2_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = probe.Sighting("10.0.0.2", "node2", "2", {}, {}, True, None, None, ("no answer", "other code"))
    monkeypatch.setattr(probe, "look", lambda address, gpus: (odd,))
    words = ("--engine", "flower", "--set", "engine.address=10.0.0.1:6379", "--out", tmp_path / "r")
    result = call("simulate", write(tmp_path), *words)
    lines = ["error:", "machine 'node2' (10.0.0.2): no answer", "machine 'node2' (10.0.0.2): other code"]
    assert (result.exit_code, result.stdout, result.stderr.splitlines()) == (2, "", lines)
    assert not (tmp_path / "r").exists()


@pytest.mark.gate
def test_machines_of_several_kinds_are_told_of_and_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(here(), host="node1", processor="an old one")
    kinds = (own, replace(own, host="node2", processor="a new one"))
    monkeypatch.setattr("fedunlearn.story.here", lambda: own)
    monkeypatch.setattr(Inline, "inspect", lambda engine: kinds)
    both = property(lambda link: kinds, lambda link, value: None)
    monkeypatch.setattr(inline._Link, "machines", both, raising=False)
    words = ("--set", "seeds=[1]", "--set", "strategies=[]", "--out", tmp_path / "r")
    result = call("simulate", write(tmp_path), *words)
    (note,) = RunFolder(tmp_path / "r").read_manifest()["machine_notes"]
    assert result.exit_code == 0 and note in result.output
    assert note.startswith("machines differ in processor (a new one: node2; an old one: node1): ")


@pytest.mark.gate
def test_tune_writes_a_scenario_and_says_where(tmp_path: Path) -> None:
    request = "requests=[{id: some, site: north, patients: {count: 2}}]"
    only = (
        "--set",
        request,
        "--set",
        "strategies=[{name: fine_tune, rounds: 1}]",
        "--trials",
        "2",
        "--repeats",
        "1",
    )
    result = call("tune", write(tmp_path), "--out", tmp_path / "t", *only)
    assert result.exit_code == 0, result.stderr
    assert "settings found" in result.stdout and "fine_tune" in result.stdout
    assert result.stdout.splitlines()[-1] == f"tuned scenario: {tmp_path / 't' / 'tuned.yaml'}"
    again = call("tune", write(tmp_path), "--out", tmp_path / "t", *only)
    assert again.exit_code == 2 and "in use" in again.stderr


def test_interrupt_is_exit_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedunlearn.story.drive", interrupted)
    result = call("simulate", write(tmp_path), "--out", tmp_path / "r", "--set", "seeds=[1]", "--quiet")
    assert result.exit_code == 130


@pytest.mark.gate
def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "fedunlearn", "check", str(tmp_path / "absent.yaml")]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert "absent.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.gate
def test_events_are_all_that_standard_output_holds(tmp_path: Path) -> None:
    words = ("--set", "seeds=[1]", "--set", "strategies=[{name: fine_tune, rounds: 1}]", "--json")
    result = call("simulate", write(tmp_path), "--out", tmp_path / "r", *words)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert (result.exit_code, names[0], names[-2:]) == (0, "begin", ["written", "end"])
    verdicts = RunFolder(tmp_path / "r").read_table("verdicts.parquet")
    columns = ["request", "strategy", "forgotten", "useful", "verdict"]
    answers = [tuple(event[c] for c in columns) for event in events if event["event"] == "result"]
    assert answers == list(verdicts[columns].itertuples(index=False, name=None)) and answers
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["done"] == last["total"] == names.count("procedure")
    assert (events[-1]["exit_code"], events[-2]["folder"]) == (0, str(tmp_path / "r"))


def test_an_error_is_an_event_and_on_standard_error(tmp_path: Path) -> None:
    result = call("simulate", write(tmp_path), "--json", "--set", "training.lr=-1", "--out", tmp_path / "r")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["begin", "error", "end"]
    assert result.exit_code == 2 == events[1]["exit_code"] == events[2]["exit_code"]
    assert events[1]["message"] == result.stderr.rstrip("\n") and "training.lr" in events[1]["message"]

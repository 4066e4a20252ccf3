"""Records of a year of requests: every fate has one, and none says more than the simulation knows."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.core import InputError, RunError
from fedunlearn.erasure import keys, record, registry
from fedunlearn.erasure.keys import Keys
from fedunlearn.erasure.registry import Row
from fedunlearn.erasure.remedies import _all
from fedunlearn.exports.cards import models
from fedunlearn.exports.tracking import tracked
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from tests import runs
from tests.erasure.test_record import FORBIDDEN, read
from tests.scoring.made import change_manifest
from tests.test_cli import call

pytestmark = pytest.mark.gate

YEAR = """\
name: year
seeds: [1]
engine: {name: inline, workers: 2, timeout: 60}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 6, local_epochs: 1, batch_size: 32, optimizer: adam, lr: 0.002}
calendar: {start: 2026-01-01, round: 7d, looks: 14d}
requests:
  - {id: opt, site: west, patients: {count: 1}, received: 2026-01-10, kind: opt_out}
  - {id: some, site: north, patients: {count: 2}, received: 2026-01-13}
  - {id: gone, site: north, patients: ["p-9999"], received: 2026-01-14}
  - {id: held, site: north, patients: ["p-0007"], received: 2026-01-14}
  - {id: never, site: north, patients: ["p-0009"], received: 2026-01-16}
  - {id: unseen, site: west, patients: ["p-0014"], received: 2026-01-20}
  - {id: leave, site: east, whole_site: true, received: 2026-01-27}
  - {id: one, site: west, images: ["p-0003-00"], received: 2026-02-10}
limits: {quota: 1}
policies: [{name: at_once}, {name: release, every: 28d}, {name: budget, drift: 0.0001}]
strategies:
  - {name: retrain}
  - {name: fine_tune, rounds: 1}
"""
"""North may have one request accepted a month: `held` is in February, `never` was to be in March. p-0014 is a test
patient. Whoever asks after the release of January 29 waits for one that does not come."""
STATES = {
    "opt": "received accepted barred recorded",
    "some": "received accepted unlearned recorded",
    "gone": "received refused recorded",
    "held": "received extended accepted unlearned recorded",
    "never": "received extended",
    "unseen": "received accepted barred recorded",
    "leave": "received accepted unlearned recorded",
    "one": "received accepted unlearned recorded",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        return runs.run(tmp_path_factory.mktemp("year"), text=YEAR)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return keys.make(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture(scope="module")
def run(finished: RunFolder, pair: Keys) -> RunFolder:
    record.write(finished.path, pair.folder)
    return finished


def followed(run: RunFolder, request: str, policy: str = "at_once") -> dict[str, Any]:
    found: dict[str, Any] = next(
        one for one in read(run, request)["clock"]["policies"] if one["policy"] == policy
    )
    return found


def test_every_fate_of_a_request_has_a_record(run: RunFolder, pair: Keys) -> None:
    assert record.check(RunFolder.open(run.path), pair.public)[0].startswith("8 records are what was signed")
    for request, states in STATES.items():
        assert " ".join(one["state"] for one in followed(run, request)["states"]) == states, request
    waiting = followed(run, "one", "release-28d")
    assert [one["state"] for one in waiting["states"]] == ["received", "accepted"]
    assert waiting["state"] == "waiting" and "answered" not in waiting
    assert "barred from use" in waiting["until_then"]


def test_the_page_that_lists_them_shows_what_was_signed(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    page = tmp_path / "run" / "records.html"
    text = page.read_text(encoding="utf-8")
    assert "refused" in text
    page.write_text(text.replace("refused", "accepted", 1), encoding="utf-8")
    change_manifest(tmp_path / "run")
    with pytest.raises(RunError, match=r"records\.html shows something else than what was signed"):
        record.check(RunFolder.open(tmp_path / "run"), pair.public)
    page.unlink()
    with pytest.raises(RunError, match=r"records\.html is missing"):
        record.check(RunFolder.open(tmp_path / "run"), pair.public)


def test_log_table_and_record_call_the_end_of_a_request_the_same(run: RunFolder) -> None:
    """Of `unseen` nothing was unlearned, so none of them may say so."""
    last = {
        (event["policy"], event["request"]): event["state"]
        for event in audit.lines(run.path / audit.FILE)
        if event["event"] == "request-state"
    }
    open_or_waiting = {"received": "open", "extended": "open", "accepted": "waiting"}
    for row in run.read_table("calendar.parquet").to_dict("records"):
        ended = last[row["policy"], row["request"]]
        assert row["state"] == open_or_waiting.get(ended, ended)
        told = followed(run, row["request"], row["policy"])
        assert row["state"] in (told["state"], *(state["state"] for state in told["states"]))
    assert followed(run, "unseen")["state"] == "barred"


def test_days_are_those_of_the_calendar(run: RunFolder) -> None:
    """Received on January 13, decided on the 15th, when two rounds are over; released on the 29th, after four."""
    own = read(run)
    assert own["request"]["received"] == "2026-01-13" and own["decision"]["decided"] == "2026-01-15"
    assert own["clock"]["due"] == "2026-02-13" and own["clock"]["due_at_most"] == "2026-04-13"
    late = followed(run, "some", "release-28d")
    assert (late["answered"], late["days"], late["days_late"]) == ("2026-01-29", 16, 0)
    assert late["states"][2] == {"state": "unlearned", "date": "2026-01-29"}
    assert followed(run, "held")["answered"] == "2026-02-05"
    dropped = followed(run, "some")["models_of_the_way"]
    assert dropped.startswith("dropped by 2026-02-12")  # the last round is over: nothing is kept of the way
    assert "models_of_the_way" not in followed(run, "one", "release-28d")


def test_days_of_the_computers_clock_are_told_from_simulated_ones(run: RunFolder) -> None:
    """A record is written today, which may be before the simulated request came in: that is no day of its year."""
    for request in STATES:
        own = read(run, request)
        for policy in own["clock"]["policies"]:
            days = [state["date"] for state in policy["states"] if "date" in state]
            assert days == sorted(days) and days[0] == own["request"]["received"]
            outside = [state for state in policy["states"] if "date" not in state]
            assert [state["state"] for state in outside] == ["recorded"] * (policy["state"] not in _OPEN)
            assert [state["real_date"] for state in outside] in ([], [own["record"]["written"][:10]])
        assert "`real_date`" in own["clocks"]
    page = (run.path / "records" / "some.html").read_text(encoding="utf-8")
    assert f"recorded ({read(run)['record']['written'][:10]})" in page and "but for days in brackets" in page


_OPEN = ("open", "waiting")


def test_one_thing_is_not_told_as_many(run: RunFolder) -> None:
    own = read(run, "one")
    assert own["where_the_data_was"][0]["what"] == "1 image"
    for file in (run.path / "records").iterdir():
        assert not re.search(
            r"(?<![\d.])1 (images|patients|references|steps)\b", file.read_text(encoding="utf-8")
        ), file


def test_a_refused_request_is_told_whole(run: RunFolder) -> None:
    """It changed nothing, so there is nothing of models in it; and it names nobody, though the desk's sentence does."""
    own = read(run, "gone")
    assert own["decision"] == {
        "decision": "refused",
        "decided": "2026-01-15",
        "reason": "unknown_patient",
        "reasons": "nobody has images of such a patient",
        "decided_by": None,
        "remedies_told": None,
    }
    assert own["models"] == own["remedies"] == own["where_the_data_was"] == []
    assert own["remedy_used"] == own["no_remedy"] == "does not apply: no model was changed for this request"
    assert own["request"] == {
        "id": "gone",
        "scope": "patients",
        "hospital": "north",
        "patients": 0,
        "images": {},
        "subjects": {
            "scheme": "HMAC-SHA256 of hospital and patient, under a key in the hospital's slip",
            "references": {},
        },
        "received": "2026-01-14",
        "channel": None,
        "identity_checked": None,
        "ground": None,
    }
    states = [{"state": "received", "date": "2026-01-14"}, {"state": "refused", "date": "2026-01-15"}]
    for one in own["clock"]["policies"]:
        assert one["states"][:2] == states and one["states"][2]["state"] == "recorded"
        assert "date" not in one["states"][2]
        assert (one["state"], one["days"], one["until_then"]) == (
            "refused",
            1,
            "nothing: it was not accepted",
        )
    assert (
        own["clock"]["due"] == "2026-02-14" and "due_at_most" not in own["clock"]
    )  # a refusal has one month
    page = (run.path / "records" / "gone.html").read_text(encoding="utf-8")
    assert "due at most" not in page
    assert "not counted: it was not accepted" in page and 'id="models"' not in page
    assert "controllers.coordinator" in own["blanks"] and "remedy_used" not in own["blanks"]


def test_an_opt_out_is_no_erasure(run: RunFolder) -> None:
    own = read(run, "opt")
    assert own["request"]["scope"] == "opt-out" and own["request"]["opt_out_from"] == "2026-01-15"
    assert own["remedies"] == [] and "EHDS, Art. 71" in own["no_remedy"]
    page = (run.path / "records" / "opt.html").read_text(encoding="utf-8")
    assert "1 patient of west, who opted out" in page and "another request, for erasure" in page


def test_who_was_in_no_training_was_seen_by_no_model(run: RunFolder) -> None:
    own = read(run, "unseen")
    assert "nothing to unlearn" in own["no_remedy"] and own["models"]
    assert not any(one["saw_the_data"] for one in own["models"])


def test_models_that_never_saw_a_request_are_told_from_those_that_did(run: RunFolder) -> None:
    saw = {
        request: {Path(one["file"]).stem: one["saw_the_data"] for one in read(run, request)["models"]}
        for request in ("some", "leave", "one", "opt")
    }
    assert set(saw["some"]) == {file.stem for file in (run.path / "weights").iterdir()}
    for request in saw:
        assert saw[request]["original-1"] and saw[request]["at_once-fine_tune-1"]
        assert not saw[request]["retrained-all-requests-1"] and not saw[request]["at_once-retrain-1"]
    assert not saw["some"]["release-28d-retrain-1"]  # released without
    assert saw["one"]["release-28d-retrain-1"]  # waits
    # Any step passes so small a budget, so every second request is answered by training anew, the last one too.
    assert [one["round"] for one in run.read_manifest()["retrainings"]] == [4, 6]
    assert not any(saw[request]["budget-0.0001-fine_tune-1"] for request in saw)


def test_a_models_way_is_told_step_by_step(run: RunFolder) -> None:
    own = {Path(one["file"]).stem: one for one in read(run)["models"]}
    walk = own["at_once-fine_tune-1"]
    assert walk["descends_from"] == "weights/original@2-1.safetensors"
    assert walk["by_way_of"] == ["at_once@2", "at_once@4-east", "at_once@5", "at_once@6"]
    assert walk["asked_to_forget_it"] and "trained_without_it" not in walk
    assert own["release-28d-retrain-1"]["trained_without_it"]


def test_remedies_are_told_by_policy_and_strategy(run: RunFolder) -> None:
    found = {(one["policy"], one["strategy"]): one for one in read(run)["remedies"]}
    assert list(found) == [
        ("at_once", "retrain"),
        ("at_once", "fine_tune"),
        ("release-28d", "retrain"),
        ("budget-0.0001", "retrain"),
        ("budget-0.0001", "fine_tune"),
    ]
    assert "same bits as those that were trained again" in found["at_once", "retrain"]["evidence"]["words"]
    assert found["at_once", "fine_tune"]["evidence"]["words"].startswith(
        "Of all 4 accepted requests together:"
    )
    released = found["release-28d", "retrain"]
    assert released["models"][0]["trained_again"] == {
        "date": "2026-01-29",
        "rounds": 4,
        "why": "so this strategy answers",
    }
    assert "without the data of this request" in released["evidence"]["words"]
    waits = next(one for one in read(run, "one")["remedies"] if one["policy"] == "release-28d")
    assert waits["evidence"]["sentence"] == 5 and "not unlearned" in waits["evidence"]["words"]
    assert (
        "still there" not in waits["evidence"]["words"] and "of_this_request" not in waits
    )  # nobody measured it
    again = found["budget-0.0001", "fine_tune"]["models"][0]["trained_again"]
    assert again["rounds"] == 6 and "budget" in again["why"]


def test_requests_that_wait_are_told_where_all_are_judged_together() -> None:
    assert _all(1, 0) == "Of the only accepted request:"
    assert _all(8, 2) == "Of all 8 accepted requests, 2 of which still wait, together:"
    assert _all(8, 1) == "Of all 8 accepted requests, 1 of which still waits, together:"


@pytest.mark.parametrize("count", [1, 4])
def test_models_of_a_year_are_trained_again_though_those_of_the_way_are_gone(
    run: RunFolder, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    told = call("verify", run.path, "--replay", count)
    assert told.exit_code == 0, told.output
    assert "trained again came to the same bits" in told.output


def test_nothing_is_called_purged_that_nobody_purged(run: RunFolder) -> None:
    """That models of the way are dropped when a run ends is told apart: the original and signals are still there."""
    assert (run.path / "weights" / "original-1.safetensors").is_file()
    for request in STATES:
        for policy in read(run, request)["clock"]["policies"]:
            assert "purged" not in [state["state"] for state in policy["states"]]
    page = (run.path / registry.FILE).read_text(encoding="utf-8")
    assert "purged" not in page[page.find("<body") :]
    assert "on the images since 2026-01-15 at the latest" in followed(run, "some")["until_then"]


def test_memory_of_this_very_request_is_that_of_the_table(run: RunFolder) -> None:
    table = run.read_table("memory.parquet")
    for one in read(run, "leave")["remedies"]:
        mine = table.query(
            f"policy == '{one['policy']}' and strategy == '{one['strategy']}' and request == 'leave'"
        )
        shares = [mine["memory_left"].iloc[0], mine["memory_left"].iloc[-1]]
        told = [one["of_this_request"].get(key, {}).get("share") for key in ("at_answer", "at_the_end")]
        assert [share if share == share else None for share in shares] == pytest.approx(told), one


def test_no_word_of_a_years_records_says_more_than_was_seen(run: RunFolder) -> None:
    files = [*(run.path / "records").iterdir(), run.path / registry.FILE]
    assert len(files) == 2 * len(STATES) + 1
    table = run.read_table("sites.parquet")
    for file in files:
        text = file.read_text(encoding="utf-8")
        text = text[text.find("<body") :] if file.suffix == ".html" else text
        assert not [word for word in FORBIDDEN if word in text.lower()], file
        assert not set(re.findall(r"[\w-]+", text)) & {*table["patient"], *table["image"], "p-9999"}
        assert "no legal advice" in text


def test_facts_do_not_contradict_the_calendar(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    facts = tmp_path / "facts.yaml"
    facts.write_text("requests: {some: {received: 2026-01-05, channel: letter}}\n")
    with pytest.raises(
        InputError, match=r"requests\.some\.received: found '2026-01-05', but the run has a calendar"
    ):
        record.write(run.path, pair.folder, facts)
    facts.write_text("requests: {gone: {remedy: at_once/retrain}, opt: {remedy: at_once/retrain}}\n")
    with pytest.raises(
        InputError, match=r"(?s)requests\.gone\.remedy: .* had none.*requests\.opt\.remedy: .*Art\. 71"
    ):
        record.write(run.path, pair.folder, facts)
    facts.write_text("requests: {some: {channel: letter, remedy: at_once/fine_tune}}\n")
    record.write(run.path, pair.folder, facts)
    own = read(run)
    assert own["request"]["channel"] == "letter" and own["remedy_used"] == "at_once/fine_tune"
    assert own["request"]["received"] == "2026-01-13"


def test_a_thousand_flips_in_records_and_log_are_noticed(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    record.write(run.path, pair.folder)
    anchored, rng = run.read_manifest()["audit"], random.Random(0)
    log = shutil.copyfile(run.path / audit.FILE, tmp_path / audit.FILE)

    def looked_at(file: Path, content: bytes) -> None:
        if file == log:
            log.write_bytes(content)
            audit.verify(log, anchored)
        else:
            record.signer(content, "it", pair.public)

    contents = {file: file.read_bytes() for file in sorted((run.path / "records").glob("*.json"))}
    contents[log] = log.read_bytes()
    for file, content in contents.items():
        looked_at(file, content)
    for _ in range(1_000):
        file = rng.choice(list(contents))
        content = contents[file]
        at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        flipped = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        with pytest.raises(RunError):
            looked_at(file, flipped)


def test_all_requests_are_on_one_page(run: RunFolder) -> None:
    page = (run.path / registry.FILE).read_text(encoding="utf-8")
    for request in STATES:
        assert f'<a href="records/{request}.html">{request}</a>' in page
    assert "What became of 8 requests?" in page and "unknown patient" in page


def test_the_page_of_all_requests_obeys_no_data() -> None:
    hostile = '"><script>alert(1)</script>'
    row = Row(hostile, hostile, hostile, hostile, hostile, hostile, hostile, {hostile: (hostile, None, 0)}, 1)
    page = registry.page(hostile, [row])
    assert "<script>alert" not in page and page.count("&lt;script&gt;alert(1)") >= 8
    assert 'href="records/%22%3E%3Cscript%3E' in page


def test_cards_and_trackers_take_a_year(run: RunFolder) -> None:
    cards = models(run)
    assert len(cards) == len(list((run.path / "weights").iterdir()))
    again = cards["models/retrained-all-requests-1.md"]
    table = run.read_table("sites.parquet")
    stays = [not len(names) for names in table["forgotten_by"]]
    north = table[stays].query("split == 'train' and site == 'north'")
    assert f"| north | {len(north)} | {north['patient'].nunique()} |" in again  # without who opted out, too
    assert "as they come" in again and "some" not in re.findall(r"^- (\w+):", again, re.MULTILINE)
    assert "rounds 1" in cards["models/at_once-fine_tune-1.md"]
    told = {run.name for run in tracked(run).runs}
    assert "at_once: fine_tune" in told and "release-28d: retrain" in told

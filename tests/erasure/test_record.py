"""Records: what they say, that they are what was signed, and that nobody is named in them."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.core import InputError, RunError
from fedunlearn.erasure import keys, record
from fedunlearn.erasure.keys import Keys
from fedunlearn.erasure.slips import Slip, place
from fedunlearn.exports.papers import tidy
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import percent
from tests.runs import run as run_tiny
from tests.scoring.made import change_manifest
from tests.test_cli import call

pytestmark = pytest.mark.gate

NAMES = ("some", "east-leaves")
FORBIDDEN = ("erased", "compliant", "certified", "guarantee", "anonymi", "no longer contains", "✓", "✅")


def read(run: RunFolder, request: str = "some") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (run.path / "records" / f"{request}.json").read_text(encoding="utf-8")
    )
    return content


def test_every_request_has_a_record_that_is_signed_and_in_the_log(run: RunFolder, pair: Keys) -> None:
    told = record.write(run.path, pair.folder)
    assert len(told) == 2 and all("signed by key" in one and "blanks are left" in one for one in told)
    assert record.check(run, pair.public) == [
        f"2 records are what was signed, by key {keys.fingerprint(pair.public)}"
    ]
    run.check(run.listed())
    assert audit.verify(run.path / audit.FILE, run.read_manifest()["audit"]) == 4
    own = read(run)
    assert own["record"]["previous"] is None and own["record"]["audit"]["lines"] == 2


def test_no_record_is_written_whose_slip_is_not_on_the_disk(
    run: RunFolder, pair: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(contents: object) -> None:
        raise InputError("the disk is full")

    before = (run.path / audit.FILE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("fedunlearn.erasure.slips.write_secrets", full)
        with pytest.raises(InputError, match="the disk is full"):
            record.write(run.path, pair.folder)
    assert not (run.path / "records").exists() and (run.path / audit.FILE).read_bytes() == before

    class Stopped(BaseException):
        pass

    def stopped(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "renew", stopped)
        with pytest.raises(Stopped):
            record.write(run.path, pair.folder)
    slips = {file: file.read_bytes() for file in (pair.folder / keys.SLIPS).iterdir()}
    assert [file.name.split("@")[1] for file in slips] == ["north.json"]
    record.write(run.path, pair.folder)
    assert {file: file.read_bytes() for file in (pair.folder / keys.SLIPS).iterdir()} == slips


def test_nobody_is_named_but_by_the_slip(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    table = run.read_table("sites.parquet")
    for file in (run.path / "records").iterdir():
        words = set(re.findall(r"[\w-]+", file.read_text(encoding="utf-8")))
        assert not words & {*table["patient"], *table["image"]}
    own = read(run)
    slip = json.loads(place(pair.folder, own["record"]["id"], "north").read_text())
    references = own["request"]["subjects"]["references"]
    assert references == {"north": sorted(slip["patients"])}
    assert sorted(slip["patients"].values()) == ["north-000", "north-001", "north-002"]
    assert Slip(bytes.fromhex(slip["key"]), "north").reference("north-001") in references["north"]
    assert slip["key"] not in (run.path / "records" / "some.json").read_text()


def test_a_record_can_be_checked_once_the_slip_is_destroyed(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    shutil.rmtree(pair.folder)
    assert record.check(run, pair.public)


def test_of_a_hospital_that_leaves_no_person_is_referred_to(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    own = read(run, "east-leaves")
    assert own["request"]["scope"] == "hospital" and own["request"]["subjects"]["references"] == {}
    assert [file.name for file in (pair.folder / keys.SLIPS).iterdir()] == [
        f"{read(run)['record']['id']}@north.json"
    ]


def test_what_was_found_is_said_in_one_of_five_sentences(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    remedies = {one["strategy"]: one for one in read(run)["remedies"]}
    assert list(remedies) == ["retrained", "good", "lazy"]
    assert [one["evidence"]["sentence"] for one in remedies.values()] == [1, 3, 4]
    rows = tidy(run).query("request == 'some'").set_index("strategy").to_dict("index")
    good = rows["good"]
    most = percent(abs(good["memory_left"]) + good["memory_left_half"])
    assert f"no difference from retraining larger than {most} %" in remedies["good"]["evidence"]["words"]
    assert remedies["lazy"]["evidence"]["words"].startswith(
        "Memory is still there: what is left was measured as"
    )
    for label in ("good", "lazy"):
        measured = remedies[label]["measured"]
        for name in ("memory_left", "mia_loss_auc", "test_difference"):
            assert measured[name] == {"value": rows[label][name], "half": rows[label][f"{name}_half"]}
        assert measured["patients_known"] == rows[label]["patients_known"] and measured["seeds"] == 3


def test_models_that_saw_the_data_are_told_from_those_that_did_not(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    models = {Path(one["file"]).stem: one for one in read(run)["models"]}
    assert len(models) == len(list((run.path / "weights").iterdir()))
    for name, one in models.items():
        file = run.path / one["file"]
        assert one["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert one["saw_the_data"] == (not name.startswith("retrained-some-"))
    assert models["lazy-some-8"]["descends_from"] == "weights/original-some-8.safetensors"
    assert "descends_from" not in models["original-some-8"]


def test_a_strategy_with_the_bits_of_retraining_did_not_see_the_data(run: RunFolder, pair: Keys) -> None:
    weights = run.path / "weights"
    shutil.copyfile(weights / "retrained-some-8.safetensors", weights / "good-some-8.safetensors")
    change_manifest(run.path)
    record.write(run.path, pair.folder)
    saw = {Path(one["file"]).stem: one["saw_the_data"] for one in read(run)["models"]}
    assert not saw["good-some-8"] and saw["good-some-7"]


def test_what_people_know_goes_in_and_blanks_go(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    record.write(run.path, pair.folder)
    before = read(run)["blanks"]
    facts = tmp_path / "facts.yaml"
    facts.write_text(
        "coordinator: the registry\nrequests:\n  some: {received: 2026-01-05, answered: 2026-02-08, remedy: good}\n"
    )
    record.write(run.path, pair.folder, facts)
    own = read(run)
    assert own["clock"] == {"answered": "2026-02-08", "due": "2026-02-05", "days": 34, "days_late": 3}
    gone = {"controllers.coordinator", "request.received", "clock.answered", "remedy_used"}
    assert set(before) - set(own["blanks"]) == gone and set(own["blanks"]) < set(before)
    page = (run.path / "records" / "some.html").read_text(encoding="utf-8")
    assert "2026-02-08, after 34 days, 3 days late" in page
    assert page.count('class="blank"') == len(own["blanks"])


def test_a_record_that_is_written_anew_tells_which_it_replaces(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    first, digest = read(run), hashlib.sha256((run.path / "records" / "some.json").read_bytes()).hexdigest()
    record.write(run.path, pair.folder)
    second = read(run)
    assert second["record"]["previous"] == digest and second["record"]["id"] == first["record"]["id"]
    assert second["request"]["subjects"] == first["request"]["subjects"]
    assert record.check(run, pair.public)


def test_no_word_says_more_than_was_seen(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    for file in (run.path / "records").iterdir():
        text = file.read_text(encoding="utf-8")
        text = text[text.find("<body") :] if file.suffix == ".html" else text
        assert not [word for word in FORBIDDEN if word in text.lower()]
        assert "no legal advice" in text and "Not tested" in text


def test_the_page_obeys_no_data(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    facts = tmp_path / "facts.yaml"
    facts.write_text("requests:\n  some: {reasons: '<script>alert(1)</script>'}\n")
    record.write(run.path, pair.folder, facts)
    page = (run.path / "records" / "some.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page


# --------------------------------------------------------------------------------------------- what is noticed


def test_every_flipped_bit_of_a_record_is_noticed(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    content = (run.path / "records" / "some.json").read_bytes()
    assert record.signer(content, "it") == pair.public
    rng = random.Random(0)
    for _ in range(1_000):
        at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        flipped = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        with pytest.raises(RunError, match=r"it is (no record|not what was signed)"):
            record.signer(flipped, "it", pair.public)


@pytest.mark.parametrize("value", [5, None, [], {}, "zz"])
@pytest.mark.parametrize("key", ["value", "public_key", "algorithm", "signature"])
def test_a_signature_that_is_none_is_no_error_of_ours(
    run: RunFolder, pair: Keys, key: str, value: object
) -> None:
    record.write(run.path, pair.folder)
    own = read(run)
    (own if key == "signature" else own["signature"])[key] = value
    with pytest.raises(RunError, match=r"it is (no record|not what was signed)"):
        record.signer(record._bytes(own), "it")


def test_what_is_nested_without_an_end_is_no_record() -> None:
    with pytest.raises(RunError, match="it is no record"):
        record.signer(b"[" * 100_000, "it")


def test_a_page_that_shows_something_else_than_its_record_is_noticed(run: RunFolder, pair: Keys) -> None:
    """Whoever changes it can write the checksums anew, too."""
    record.write(run.path, pair.folder)
    page = run.path / "records" / "some.html"
    content, rng = page.read_bytes(), random.Random(0)
    for _ in range(20):
        at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        page.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        change_manifest(run.path)
        with pytest.raises(RunError, match=r"some\.html shows something else than what was signed"):
            record.check(run, pair.public)
    page.unlink()
    with pytest.raises(RunError, match=r"some\.html is missing"):
        record.check(run, pair.public)
    page.write_bytes(content)
    for more in (page.with_name("more.html"), run.path / "records.html"):
        more.write_bytes(content)
        with pytest.raises(RunError, match=rf"{more} is the page of no record"):
            record.check(run, pair.public)
        more.unlink()
    assert len(record.check(run, pair.public)) == 1


def test_pages_that_another_version_made_are_not_compared_and_that_is_told(
    run: RunFolder, pair: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write(run.path, pair.folder)
    monkeypatch.setattr(record, "MADE_BY", "fedunlearn 99")
    assert record.check(run, pair.public)[1:] == [
        "2 pages of records that another version of fedunlearn wrote: not compared with these"
    ]
    (run.path / "records" / "some.html").unlink()
    with pytest.raises(RunError, match=r"some\.html is missing"):
        record.check(run, pair.public)


def test_a_record_in_the_place_of_another_requests_is_noticed(run: RunFolder, pair: Keys) -> None:
    """Log and checksums written anew."""
    record.write(run.path, pair.folder)
    some, other = (run.path / "records" / f"{name}.json" for name in ("some", "east-leaves"))
    contents = some.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    some.write_bytes(contents[1])
    log = run.path / audit.FILE
    digests = {name: hashlib.sha256((run.path / f"records/{name}.json").read_bytes()) for name in NAMES}
    events = [(record.EVENT, {"request": name, "record": digests[name].hexdigest()}) for name in NAMES]
    log.write_bytes(audit.extended_by(log, events, without=(record.EVENT,)))
    change_manifest(run.path)
    with pytest.raises(RunError, match=r"some\.json is of another request: east-leaves"):
        record.check(run, pair.public)


def test_a_record_by_somebody_else_is_noticed(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    other = keys.make(tmp_path / "other")
    record.write(run.path, other.folder)
    assert "whether that key is the right one" in record.check(run)[0]
    with pytest.raises(RunError, match=r"some\.json is signed by key .* somebody else wrote it"):
        record.check(run, pair.public)


def test_a_record_that_is_removed_or_added_is_noticed(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    file = run.path / "records" / "some.json"
    shutil.copyfile(file, file.with_name("more.json"))
    with pytest.raises(RunError, match=r"more\.json is in no line of the audit log"):
        record.check(run, pair.public)
    file.with_name("more.json").unlink()
    file.unlink()
    with pytest.raises(RunError, match=r"cannot read .*some\.json"):
        record.check(run, pair.public)


def test_an_older_record_in_the_place_of_a_newer_one_is_noticed(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    file = run.path / "records" / "some.json"
    first = file.read_bytes()
    record.write(run.path, pair.folder)
    file.write_bytes(first)
    with pytest.raises(RunError, match=r"some\.json is damaged"):
        record.check(run, pair.public)


def test_records_that_are_older_than_scores_are_told(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    run.renew({audit.FILE: audit.extended(run.path / audit.FILE, "run-rescored", {})})
    assert record.check(run, pair.public)[1:] == [
        "the run was scored again since its records were written: `fedunlearn record` writes them anew"
    ]
    record.write(run.path, pair.folder)
    assert len(record.check(run, pair.public)) == 1


def test_a_record_is_bound_to_its_run(run: RunFolder, pair: Keys) -> None:
    """Whoever writes log and checksums anew cannot keep what was signed."""
    record.write(run.path, pair.folder)
    log = run.path / audit.FILE
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    keep = ("seq", "time_utc", "event", "previous", "hash")
    others = [(line["event"], {k: v for k, v in line.items() if k not in keep}) for line in lines]
    audit.append_all(log, [("run-started", {"scenario": "another"}), *others[1:]])
    change_manifest(run.path)
    run.check(run.listed())
    with pytest.raises(RunError) as error:
        record.check(run, pair.public)
    assert "was signed when the audit log was another" in str(error.value)
    assert "is of another run" in str(error.value)


def test_models_that_are_not_those_of_the_record_are_noticed(run: RunFolder, pair: Keys) -> None:
    record.write(run.path, pair.folder)
    (run.path / "weights" / "good-some-8.safetensors").write_bytes(b"another")
    change_manifest(run.path)
    with pytest.raises(RunError, match=r"speaks of other models than there are: weights/good-some-8"):
        record.check(run, pair.public)


def test_where_a_key_is_given_there_must_be_records(run: RunFolder, pair: Keys) -> None:
    assert record.check(run) == []
    with pytest.raises(RunError, match="has no erasure record, expected some by key"):
        record.check(run, pair.public)


def test_every_place_with_patients_is_told(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    run.write_text("report.html", "")
    change_manifest(run.path)
    record.write(run.path, pair.folder)
    places = {one["where"]: one for one in read(run)["where_the_data_was"]}
    assert places["hospital north"]["action"] is None
    assert "where_the_data_was.0.action" in read(run)["blanks"]
    for name in ("scenario.yaml", "manifest.json", "report.html", "sites.parquet", "patients.parquet"):
        assert places[f"run folder, {name}"]["action"] == "still there"
    assert places["run folder, signals/*.parquet"]["files"] == len(list((run.path / "signals").iterdir()))
    facts = tmp_path / "facts.yaml"
    facts.write_text("requests: {some: {at_hospital: kept for treatment}}\n")
    record.write(run.path, pair.folder, facts)
    assert read(run)["where_the_data_was"][0]["action"] == "kept for treatment"
    assert "where_the_data_was.0.action" not in read(run)["blanks"]


def test_nothing_secret_goes_into_a_run_folder(run: RunFolder) -> None:
    inside = keys.make(run.path / "keys")
    with pytest.raises(InputError, match="lies in the run folder"):
        record.write(run.path, inside.folder)


def test_facts_that_do_not_fit_change_nothing(run: RunFolder, pair: Keys, tmp_path: Path) -> None:
    record.write(run.path, pair.folder)
    before = {file.name: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    facts = tmp_path / "facts.yaml"
    facts.write_text("requests: {some: {remedy: magic}}\n")
    with pytest.raises(InputError, match="expected retrained, good, lazy, overdone or"):
        record.write(run.path, pair.folder, facts)
    assert {file.name: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


# ------------------------------------------------------------------------------------------------- by commands


def test_from_keys_to_a_checked_record_of_a_real_run(tmp_path: Path, few_resamples: None) -> None:
    finished, folder = run_tiny(tmp_path), tmp_path / "keys"
    made = call("keys", folder)
    assert made.exit_code == 0 and "keep it secret" in made.output
    written = call("record", finished.path, "--keys", folder)
    assert written.exit_code == 0 and "records/some.json: signed by key" in written.output
    found = call("verify", finished.path, "--key", folder / keys.PUBLIC)
    assert found.exit_code == 0 and "2 records are what was signed" in found.output
    assert "tables come out the same when scored again" in found.output
    own = read(finished)
    patients = set(finished.read_table("sites.parquet")["patient"])
    assert own["request"]["patients"] == 2 and len(own["request"]["subjects"]["references"]["north"]) == 2
    assert not patients & set(re.findall(r"[\w-]+", (finished.path / "records" / "some.html").read_text()))
    assert {one["strategy"] for one in own["remedies"]} == {"retrained", "fine_tune", "negation"}
    again = call("keys", folder)
    assert again.exit_code == 2 and "never overwritten" in again.output

"""Threats to a federation that takes requests: a test for each row of the table in docs/reliability.md.

What is tested at length elsewhere is tested here once more, shortly, or by calling that test.
"""

from __future__ import annotations

import json
import re
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import RunError
from fedunlearn.erasure import keys, purge, tombstones
from fedunlearn.erasure.purge import Order
from fedunlearn.intake.desk import Limits
from fedunlearn.intake.policies import AtOnce, Batch, agenda
from fedunlearn.intake.states import advance
from fedunlearn.results.runfolder import RunFolder
from tests import runs
from tests.federation import test_divergence
from tests.intake import test_desk, test_states
from tests.intake.register import CALENDAR, ROUNDS, decided, images, outcome, patients
from tests.scoring import test_verdict
from tests.test_cli import call
from tests.test_simulate_year import YEAR

ROOT = Path(__file__).resolve().parents[1]
BEFORE = YEAR.partition("requests:")[0].replace("rounds: 6", "rounds: 3").replace("looks: 14d", "looks: 21d")


def asking(**whom: str) -> str:
    """The scenario with requests of north for these patients, by id, all of one day."""
    lines = (f"  - {{id: {id}, site: north, {what}, received: 2026-01-05}}" for id, what in whom.items())
    return "\n".join([f"{BEFORE}strategies: [{{name: fine_tune, rounds: 1}}]", "requests:", *lines]) + "\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> RunFolder:
    """A run with a request that is accepted, and with some that are not."""
    folder = tmp_path_factory.mktemp("threats")
    plain = gather(scenarios.read(runs.write(folder, asking(any="patients: {count: 1}"))), folder)
    train = plain.table[plain.split == "train"]
    mine, other = (sorted(train.loc[train["site"] == site, "patient"])[0] for site in ("north", "east"))
    text = asking(
        some=f"patients: [{mine}]",
        again=f"patients: [{mine}]",
        unknown="patients: [nobody]",
        theirs=f"patients: [{other}]",
        leave="whole_site: true",
    )
    return runs.run(folder, "limits={hospitals: 3, class_images: 0}", text=text)


@pytest.fixture
def purged(finished: RunFolder, tmp_path: Path) -> tuple[RunFolder, Path, Path]:
    """A copy of that run after the purge of its one request; the hospital's tombstone; the run as it was."""
    run = RunFolder(shutil.copytree(finished.path, tmp_path / "run"))
    pair = keys.make(tmp_path / "keys")
    purge.purge(run.path, Order(("some",), data_root=tmp_path, keys=pair.folder))
    (stone,) = (pair.folder / tombstones.FOLDER).iterdir()
    return run, stone, finished.path


def logged(run: RunFolder) -> dict[str, dict[str, Any]]:
    """What the audit log says of every request that came in."""
    lines = [json.loads(line) for line in (run.path / "audit.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["request"]: line for line in lines if line["event"] == "request-received"}


def unlearned(run: RunFolder) -> list[str]:
    """The requests that changed a model."""
    return [
        id for policy in run.read_manifest()["policies"] for turn in policy["turns"] for id in turn["erases"]
    ]


def test_duplicate_or_replayed_request(finished: RunFolder) -> None:
    """Nothing is unlearned twice; the answer names the request that answers it, and so does its line in the log."""
    replayed = decided(patients("r1", "north", "n0"), patients("r1", "north", "n0", on="2026-03-01"))
    assert outcome(replayed) == [("accepted", ""), ("refused", "replayed")] and replayed[1].of == "r1"
    assert logged(finished)["again"]["reason"] == "duplicate" and unlearned(finished) == ["some"]


def test_unknown_patient(finished: RunFolder) -> None:
    """Refused, and no model changes. Of a patient whom no model was trained on none does either."""
    assert logged(finished)["unknown"]["reason"] == "unknown_patient" and "unknown" not in unlearned(finished)
    (tested,) = decided(patients("r1", "north", "n-test"))
    assert tested.state == "accepted" and not tested.erases


def test_patient_of_another_hospital(finished: RunFolder) -> None:
    assert logged(finished)["theirs"]["reason"] == "elsewhere" and "theirs" not in unlearned(finished)


def test_patient_at_several_hospitals() -> None:
    """Erased at all of them, with the number at each."""
    (entry,) = decided(patients("r1", "north", "p-both"))
    assert entry.images == 5 and entry.sentence.endswith("east 3, north 2")


def test_altered_images() -> None:
    """Over-unlearning (arXiv 2309.08230) hands in images that were never trained on; here, a request has ids only."""
    test_desk.test_requests_carry_ids_and_never_images()
    assert outcome(decided(images("r1", "north", "n0-north-0-altered"))) == [("refused", "unknown_image")]


def test_harmless_looking_choice() -> None:
    """A request that costs a class, hospital or group much (arXiv 2407.05112) leaves a model that is called worse."""
    lost = test_verdict.component(-0.3, "class=5", 0.10)
    test_verdict.test_useful((*test_verdict.GOOD, lost), "worse", "class 5: -0.300")


def test_what_others_depend_on() -> None:
    """However many it asks for (arXiv 2501.11848), a hospital gets no more than its quota a month, and no refusal."""
    asked = [images(f"r{i}", "north", f"n{i // 2}-north-{i % 2}") for i in range(8)]
    entries = decided(*asked, limits=Limits(hospitals=1, class_images=0, quota=2))
    months = [f"{CALENDAR.day(entry.boundary or 0):%Y-%m}" for entry in entries]
    assert max(map(months.count, months)) == 2 and {entry.state for entry in entries} == {"accepted"}


def test_exhausting_everybody() -> None:
    """One request a week, eight times: at once each costs an unlearning; every 30 days, all but two are saved."""
    days = [str(CALENDAR.start + timedelta(days=7 * week + 4)) for week in range(8)]
    asked = [images(f"r{i}", "north", f"n{i // 2}-north-{i % 2}", on=day) for i, day in enumerate(days)]
    entries = decided(*asked)
    turns = {
        type(policy): sum(bool(turn.erases) for turn in agenda(entries, CALENDAR, policy, ROUNDS).turns)
        for policy in (AtOnce(), Batch(every=30))
    }
    assert turns == {AtOnce: 8, Batch: 2}


def test_too_much_at_once(finished: RunFolder) -> None:
    """The last hospitals, the last images of a class, and the last images at all stay; `check` says so beforehand."""
    assert logged(finished)["leave"]["reason"] == "few_hospitals" and "leave" not in unlearned(finished)
    both = patients("r1", "north", "n0", "n1")
    assert outcome(decided(both, limits=Limits(hospitals=1))) == [("refused", "few_of_a_class")]
    most = Limits(hospitals=1, class_images=0, images=29)  # there are as many
    assert outcome(decided(both, limits=most)) == [("refused", "few_images")]


def test_poisoned_updates() -> None:
    """Of what is not finite, hospital, round and tensor are named, and no other strategy is touched by it."""
    test_divergence.test_the_others_go_on_as_if_it_were_not_there()


def test_hidden_poison_released() -> None:
    """No trigger is looked for; a hospital, class or group that gets worse by it is named, however good the mean is."""
    lost = test_verdict.component(-0.3, "site=west", 0.05)
    test_verdict.test_useful((*test_verdict.GOOD, lost), "worse", "hospital west: -0.300")


def test_comparing_models_before_and_after() -> None:
    """With a batch no two models differ by one patient, as they do at once."""
    entries = decided(*(patients(f"r{i}", "north", f"n{i}", on=f"2026-01-{5 + 7 * i:02}") for i in range(3)))
    sizes = {
        type(policy): [len(t.erases) for t in agenda(entries, CALENDAR, policy, ROUNDS).turns if t.erases]
        for policy in (AtOnce(), Batch(size=3))
    }
    assert sizes == {AtOnce: [1, 1, 1], Batch: [3]}


def test_rollback_to_an_older_model(purged: tuple[RunFolder, Path, Path], tmp_path: Path) -> None:
    """A run whose models saw the forgotten is not taken from, and after a purge no such model is there."""
    run, stone, before = purged
    assert not (run.path / "weights" / "original-1.safetensors").exists()
    words = ("--out", tmp_path / "new", "--reuse", before, "--tombstones", stone)
    text = runs.write(tmp_path, asking(other="patients: {count: 1}").replace("240", "240, seed: 5"))
    found = call("simulate", text, *words)
    assert found.exit_code == 2 and "cannot reuse" in found.output


def test_forgotten_patient_comes_back(purged: tuple[RunFolder, Path, Path], tmp_path: Path) -> None:
    _, stone, _ = purged
    text = runs.write(tmp_path, asking(other="patients: {count: 1}"))
    found = call("check", text, "--tombstones", stone)
    assert found.exit_code == 2 and "the data has what was forgotten: 1 patient by id" in found.output


def test_request_in_the_middle_of_training() -> None:
    """It is decided when the round is over, and what has happened cannot happen again."""
    (entry,) = decided(patients("r1", "north", "n0", on="2026-01-10"))
    assert CALENDAR.day(entry.boundary or 0) == date(2026, 1, 15)
    with pytest.raises(RunError, match="a request that is unlearned cannot unlearn; expected purge"):
        advance("unlearned", "unlearn")
    test_states.test_a_thousand_requests_are_none_lost_and_none_twice_in_two_seconds()


def test_the_documentation_has_these_rows() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.partition("\n## Threats\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*`(test_\w+)` \|$", section, re.MULTILINE)
    own = [name for name in globals() if name.startswith("test_") and callable(globals()[name])]
    assert rows == own[:-1] and len(rows) == 15

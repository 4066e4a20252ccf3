"""What is kept of procedures under way: found again for the same ask and no other, and only if it is whole."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import Asks, Replies, Reply, Select, Weights
from fedunlearn.federation import journal as module
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.jobs import Checkpoint, Label
from fedunlearn.federation.journal import Journal, Stored
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.tasks import Fit, Gradient
from fedunlearn.results.runfolder import ABOUT, RunFolder
from tests import toy

LABEL = Label("unlearn", "some", "toy", 7)


def model(value: float = 0.0) -> Weights:
    return {"w": torch.full((3, 2), value), "n": torch.tensor(4)}


def ask(site: str = "north", weights: Weights | None = None, seed: int = 1, ticket: int = 5) -> Ask:
    sent = model() if weights is None else weights
    return Ask(ticket, site, Fit(sent, Select(), toy.TRAINING.local, seed))


ANSWER = Answer(5, Reply(model(1.5), 12, {"loss": torch.tensor([0.5, 0.25])}), None, 1.25, 48)


def same(one: Answer | None, other: Answer) -> bool:
    """All but the ticket is the same, arrays bit for bit."""
    if one is None or one.reply is None or other.reply is None:
        return False
    if (one.seconds, one.images, one.reply.count) != (other.seconds, other.images, other.reply.count):
        return False
    mine, theirs = one.reply.weights or {}, other.reply.weights or {}
    arrays = w.digest(one.reply.arrays) == w.digest(other.reply.arrays)
    return list(mine) == list(theirs) and w.digest(dict(mine)) == w.digest(dict(theirs)) and arrays


# ------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_found_again_for_the_same_ask_whatever_its_ticket(tmp_path: Path) -> None:
    Journal(tmp_path).answered(LABEL, 3, ask(), ANSWER)
    found = Journal(tmp_path).answer(LABEL, 3, ask(ticket=99))
    assert same(found, ANSWER)
    assert found is not None and found.ticket == 99


def test_cheap_answers_are_not_written_up_to_so_much_of_a_procedure(tmp_path: Path) -> None:
    """A fiftieth of a second each: of 249 nothing is lost that took 5 s; then they are written, and after a checkpoint
    not again. What took longer is always written.
    """
    journal, cheap = Journal(tmp_path), replace(ANSWER, seconds=0.02)
    sites = [f"h{number}" for number in range(252)]
    for site in sites:
        assert journal.answered(LABEL, 3, ask(site), cheap) is cheap
    found = [site for site in sites if Journal(tmp_path).answer(LABEL, 3, ask(site))]
    assert found == sites[250:]
    journal.answered(LABEL, 3, ask("slow"), replace(ANSWER, seconds=0.05))
    assert Journal(tmp_path).answer(LABEL, 3, ask("slow"))
    journal.passed(LABEL, Checkpoint(4, model(), {}))
    journal.answered(LABEL, 4, ask("again"), cheap)
    assert Journal(tmp_path).answer(LABEL, 4, ask("again")) is None


def test_a_cheap_answer_that_has_no_room_is_written(tmp_path: Path) -> None:
    journal, cheap = Journal(tmp_path, in_memory=40), replace(ANSWER, seconds=0.01)
    kept = [journal.answered(LABEL, 3, ask(site), cheap) for site in ("north", "east")]
    assert kept[0] is cheap and kept[1].reply is not None and isinstance(kept[1].reply.weights, Stored)
    assert same(kept[1], cheap)


def flipped(bit: int) -> Weights:
    """The model with one bit of one weight changed: minus zero is zero to all but the bits."""
    weights = {name: x.clone() for name, x in model().items()}
    weights["w"].view(torch.int32)[2, 1] ^= -(2**31) if bit == 31 else 1 << bit
    return weights


@pytest.mark.parametrize(
    ("label", "round", "other"),
    [
        (LABEL, 3, ask("east")),
        (LABEL, 3, ask(seed=2)),
        (LABEL, 3, Ask(5, "north", Fit(model(), Select(without=("some",)), toy.TRAINING.local, 1))),
        (LABEL, 3, Ask(5, "north", Gradient(model(), Select()))),
        (LABEL, 3, Ask(5, "north", replace(ask().task, training=replace(toy.TRAINING.local, lr=0.02)))),  # type: ignore[type-var]
        *((LABEL, 3, ask(weights=flipped(bit))) for bit in (0, 15, 31)),
        (LABEL, 3, ask(weights={"n": model()["n"], "w": model()["w"]})),
        (LABEL, 3, ask(weights={"w": model()["w"].double(), "n": model()["n"]})),
        (LABEL, 3, ask(weights={"w": model()["w"].reshape(2, 3), "n": model()["n"]})),
        (LABEL, 2, ask()),
        (replace(LABEL, seed=8), 3, ask()),
        (replace(LABEL, phase="continue"), 3, ask()),
    ],
)
def test_it_is_not_found_for_any_other(tmp_path: Path, label: Label, round: int, other: Ask) -> None:
    journal = Journal(tmp_path)
    journal.answered(LABEL, 3, ask(), ANSWER)
    assert journal.answer(label, round, other) is None
    assert Journal(tmp_path).answer(label, round, other) is None


def test_an_answer_to_another_ask_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """As when a procedure was changed: the old answer is of no use to anybody."""
    newer = replace(ANSWER, reply=Reply(model(2.5), 1))
    Journal(tmp_path).answered(LABEL, 0, ask(), ANSWER)
    Journal(tmp_path).answered(LABEL, 0, ask(seed=2), newer)
    assert Journal(tmp_path).answer(LABEL, 0, ask()) is None
    assert same(Journal(tmp_path).answer(LABEL, 0, ask(seed=2)), newer)


def one_file(folder: Path) -> Path:
    (file,) = (path for path in folder.rglob("*") if path.is_file())
    return file


@pytest.mark.gate
def test_a_damaged_answer_is_as_if_it_was_not_there(tmp_path: Path) -> None:
    """Any byte of it changed, or the file cut: at every sixteenth, and inside each of its parts."""
    Journal(tmp_path).answered(LABEL, 0, ask(), ANSWER)
    file = one_file(tmp_path)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        found = Journal(tmp_path).answer(LABEL, 0, ask())
        # what a safetensors file says of its padding and of the order of its tensors is nobody's answer
        assert found is None or same(found, ANSWER), place
    for part in range(16):
        file.write_bytes(whole[: len(whole) * part // 16])
        assert Journal(tmp_path).answer(LABEL, 0, ask()) is None
    file.write_bytes(whole)
    assert same(Journal(tmp_path).answer(LABEL, 0, ask()), ANSWER)


# ---------------------------------------------------------------------------------------------- on the disk


def test_replies_go_to_the_disk_above_what_may_wait_in_memory(tmp_path: Path) -> None:
    """A model is 6 x 4 + 8 = 32 bytes, its losses 8: two replies of 40 fit into 80 bytes, a third does not."""
    journal = Journal(tmp_path, in_memory=80)
    kept = [journal.answered(LABEL, 0, ask(site), ANSWER) for site in ("a", "b", "c", "d")]
    held = [isinstance(answer.reply and answer.reply.weights, Stored) for answer in kept]
    assert held == [False, False, True, True]
    assert all(same(answer, ANSWER) for answer in kept)
    # the next round starts with nothing in memory; of another procedure, it still counts
    other = replace(LABEL, seed=8)
    assert not isinstance(_weights(journal.answered(LABEL, 1, ask("a"), ANSWER)), Stored)
    assert not isinstance(_weights(journal.answered(other, 0, ask("a"), ANSWER)), Stored)
    assert isinstance(_weights(journal.answered(other, 0, ask("b"), ANSWER)), Stored)
    journal.drop(LABEL)
    assert not isinstance(_weights(journal.answered(other, 0, ask("c"), ANSWER)), Stored)


def test_a_round_that_is_over_takes_no_room(tmp_path: Path) -> None:
    """Whoever asks for the next round has done with the one before, though none of the next has come."""
    journal, other = Journal(tmp_path, in_memory=80), replace(LABEL, seed=8)
    for site in ("a", "b"):
        journal.answered(LABEL, 0, ask(site), ANSWER)
    assert journal.answer(LABEL, 0, ask("c")) is None, "the same round: it is not over"
    assert isinstance(_weights(journal.answered(other, 0, ask("a"), ANSWER)), Stored)
    assert journal.answer(LABEL, 1, ask("a")) is None
    assert not isinstance(_weights(journal.answered(other, 0, ask("b"), ANSWER)), Stored)


def test_what_was_written_since_is_found_too(tmp_path: Path) -> None:
    """The folder is looked through once, before the first answer of a procedure is written."""
    journal = Journal(tmp_path)
    assert journal.answer(LABEL, 0, ask()) is None
    journal.answered(LABEL, 0, ask(), ANSWER)
    assert same(journal.answer(LABEL, 0, ask()), ANSWER)
    journal.drop(LABEL)
    assert journal.answer(LABEL, 0, ask()) is None


def _weights(answer: Answer) -> Weights | None:
    return answer.reply.weights if answer.reply is not None else None


@pytest.mark.parametrize("norm", [False, True])
def test_replies_on_the_disk_come_to_the_same_average_bit_for_bit(tmp_path: Path, norm: bool) -> None:
    def averaged(room: int, folder: Path) -> str:
        journal, number = Journal(folder, room), iter(range(9))

        def reply(asks: Asks) -> Replies:
            round, found = next(number), dict[str, Reply]()
            for site, task in asks.items():
                answer = Answer(0, toy.answer(task, site, norm), None, 0.0, 0)
                kept = journal.answered(LABEL, round, Ask(0, site, task), answer).reply
                assert kept is not None and isinstance(kept.weights, Stored) == (room == 0)
                found[site] = kept
            return found

        local = replace(toy.TRAINING.local, epochs=1)
        procedure = fedavg(toy.trained(norm=norm)[0], toy.SITES, Select(), local, range(2), 7)
        return w.digest(toy.by_hand(procedure, reply))

    assert averaged(0, tmp_path / "disk") == averaged(2**30, tmp_path / "memory")


def test_an_answer_that_was_found_is_not_written_again(tmp_path: Path) -> None:
    Journal(tmp_path).answered(LABEL, 0, ask(), ANSWER)
    file = one_file(tmp_path)
    before = file.stat()
    journal = Journal(tmp_path, in_memory=0)
    found = journal.answer(LABEL, 0, ask())
    assert found is not None
    kept = journal.answered(LABEL, 0, ask(), found)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert isinstance(_weights(kept), Stored) and same(kept, ANSWER)


def test_tensors_that_share_memory_are_each_what_they_were(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    weights: Mapping[str, torch.Tensor] = {"a": base[:3], "b": base[3:], "c": base, "d": base.flip(0)[::2]}
    answer = Answer(0, Reply(weights, 1), None, 0.0, 0)
    kept = Journal(tmp_path, in_memory=0).answered(LABEL, 0, ask(), answer)
    for found in (kept, Journal(tmp_path).answer(LABEL, 0, ask())):
        assert same(found, answer)


def test_one_tensor_under_two_names_is_both_of_them(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    answer = Answer(0, Reply({"a": shared, "b": shared}, 1), None, 0.0, 0)
    kept = Journal(tmp_path, in_memory=0).answered(LABEL, 0, ask(), answer)
    for found in (kept, Journal(tmp_path).answer(LABEL, 0, ask())):
        assert same(found, answer)


# --------------------------------------------------------------------------------------------- checkpoints


def passed(journal: Journal, rounds: int) -> None:
    journal.passed(LABEL, Checkpoint(rounds, model(rounds), {"ledger": [{"round": rounds}], "none": None}))


def test_a_training_is_found_where_it_stood_last(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.reached(LABEL) is None
    for rounds in range(1, 12):  # ten comes after nine, whatever their names' first letters say
        passed(journal, rounds)
        found = Journal(tmp_path).reached(LABEL)
        assert found is not None and found.rounds == rounds
        assert w.digest(found.weights) == w.digest(model(rounds))
        assert found.known == {"ledger": [{"round": rounds}], "none": None}
    assert journal.reached(replace(LABEL, seed=8)) is None


def test_only_two_models_and_the_answers_in_use_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(5):
        journal.answered(LABEL, number, ask(), ANSWER)
        passed(journal, number + 1)
    names = sorted(path.name.split("-")[:2] for path in tmp_path.rglob("*-*") if path.is_file())
    assert names == [["answer", "4"], ["model", "4"], ["model", "5"]]


@pytest.mark.parametrize("cut", range(16))
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    for rounds in (1, 2):
        passed(journal, rounds)
    (newest,) = tmp_path.rglob("model-2")
    whole = newest.read_bytes()
    place = len(whole) * cut // 16
    newest.write_bytes(whole[:place])
    assert (found := Journal(tmp_path).reached(LABEL)) is not None and found.rounds == 1
    newest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of its last weight
    assert (found := Journal(tmp_path).reached(LABEL)) is not None and found.rounds == 1
    assert w.digest(found.weights) == w.digest(model(1))
    (oldest,) = tmp_path.rglob("model-1")
    oldest.unlink()
    assert Journal(tmp_path).reached(LABEL) is None


def test_what_was_being_written_when_a_run_was_killed_is_no_checkpoint(tmp_path: Path) -> None:
    """The folder of an unfinished run is cleared of these before it goes on."""
    run = RunFolder.create(tmp_path / "run")
    run.write_text(ABOUT, "what is run")
    folder = run.scratch / "journal"
    passed(Journal(folder), 1)
    (file,) = folder.rglob("model-1")
    shutil.copy(file, file.with_name("model-2.part"))
    (file.with_name("answer-3-ab.part")).write_bytes(b"")
    found = Journal(RunFolder.unfinished(tmp_path / "run").scratch / "journal").reached(LABEL)
    assert found is not None and found.rounds == 1


def test_dropping_one_procedure_leaves_the_others(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path), replace(LABEL, seed=8)
    for label in (LABEL, other):
        journal.answered(label, 0, ask(), ANSWER)
        journal.passed(label, Checkpoint(1, model(1), {}))
    journal.drop(LABEL)
    journal.drop(LABEL)
    assert journal.answer(LABEL, 0, ask()) is None and journal.reached(LABEL) is None
    assert same(journal.answer(other, 0, ask()), ANSWER) and journal.reached(other) is not None
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------------------------------- digests


def test_a_digest_is_of_the_tensor_in_hand_though_its_id_was_another_ones(tmp_path: Path) -> None:
    """Python gives the id of a tensor that is gone to a new one; here until that has happened."""
    journal, ids, reused = Journal(tmp_path), set[int](), 0
    for number in range(2000):
        tensor = torch.tensor([float(number)])
        reused += id(tensor) in ids
        ids.add(id(tensor))
        assert journal._digest(tensor) == bytes.fromhex(w.digest({"": tensor}))
        del tensor
        if reused > 3:
            break
    assert reused > 0, "no id was used again: this test shows nothing here"


def test_a_tensor_that_many_are_sent_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, sent, read = Journal(tmp_path), model(), list[str]()
    honest = w.digest

    def counted(a: Mapping[str, torch.Tensor]) -> str:
        read.extend(a)
        return honest(a)

    monkeypatch.setattr("fedunlearn.federation.journal.w.digest", counted)
    for site in map(str, range(20)):
        assert journal.answer(LABEL, 0, ask(site, sent)) is None  # nothing there: nothing to compare with
        journal._digest_of(ask(site, sent))
    assert len(read) == 2, "one for each of the two tensors"


@pytest.mark.gate
def test_digests_of_tensors_that_are_gone_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TENSORS", 8)
    journal, stays = Journal(tmp_path), torch.zeros(2)
    journal._digest(stays)
    for number in range(50):
        journal._digest(torch.full((2,), float(number)))
    gc.collect()
    assert len(journal._digests) <= 9
    assert id(stays) in journal._digests


def test_what_is_known_is_kept_as_json(tmp_path: Path) -> None:
    """Times and counts come back as they were: repr of a float is exact."""
    known = {"ledger": [{"site_seconds": 0.1 + 0.2, "images": 3}]}
    Journal(tmp_path).passed(LABEL, Checkpoint(1, model(), known))
    found = Journal(tmp_path).reached(LABEL)
    assert found is not None and found.known == json.loads(json.dumps(known)) == known

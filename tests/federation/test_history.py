from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import (
    Every,
    Kept,
    Last,
    Leaver,
    Needs,
    Reply,
    RunError,
    Seen,
    Select,
    SiteId,
    UndeclaredNeed,
)
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer
from fedunlearn.federation.history import Recorder, keep, union
from fedunlearn.federation.jobs import Job, Label, Round
from fedunlearn.federation.procedures import fedavg
from fedunlearn.federation.rows import Rows
from fedunlearn.learning.tasks import Fit
from tests import toy

pytestmark = pytest.mark.rounding

LABEL = Label("original", "", "original", 7)
ROUNDS = 5
ALL = Needs(updates=Every(1), cumulative="updates", checkpoints=Every(1))


def watch(
    folder: Path, needs: list[Needs], cuts: Mapping[int, Path] | None = None, stop: int = ROUNDS
) -> Recorder:
    """Record a made-up training: round t starts from t, and hospital i answers t + 0.5 i."""
    recorder = Recorder(folder, LABEL, union(needs), cuts or {})
    tell(recorder, range(stop))
    if stop == ROUNDS:
        recorder.end(LABEL, ROUNDS, 0.0)
    return recorder


def tell(recorder: Recorder, rounds: range) -> None:
    """Let it see some rounds."""
    for t in rounds:
        sent = {"x": torch.tensor([float(t)]), "steps": torch.tensor(t)}
        asks = {site: Fit(sent, Select(), toy.TRAINING.local, 0) for site in toy.SITES}
        answers = {
            site: Answer(0, Reply({**sent, "x": sent["x"] + 0.5 * i}, 1), None, 0.0, 0)
            for i, site in enumerate(toy.SITES)
        }
        other = Label("retrained", "r", "retrained", 7)
        recorder.round(Round(other, t, asks, answers, {}, 0.0))  # not its business
        recorder.round(Round(LABEL, t, asks, answers, {}, 0.0))


def models(folder: Path) -> set[str]:
    """The models that are kept; a file without content says that all of them are there."""
    return {path.stem for path in folder.iterdir()} - {"complete"}


def test_the_union_keeps_distinct_needs_for_history_only() -> None:
    every = Needs(updates=Every(2))
    assert union([Needs(), every, Needs(leaver=Leaver.ONLINE), every, ALL]) == (every, ALL)


def test_what_is_kept_can_be_read(tmp_path: Path) -> None:
    view = watch(tmp_path, [ALL]).view(ALL, ROUNDS)
    for t in range(ROUNDS):
        assert view.checkpoint(t)["x"].item() == t
        for i, site in enumerate(toy.SITES):
            assert view.update(t, site)["x"].item() == 0.5 * i
    for i, site in enumerate(toy.SITES):
        assert view.cumulative(site)["x"].item() == ROUNDS * 0.5 * i


def test_distances_from_the_initial_weights_add_up_without_their_signs(tmp_path: Path) -> None:
    """Round t starts from t and west answers t + 1, north t: 1 + 2 + … and 0 + 1 + …; after two rounds 3 and 1.

    Turned about, training goes down: the same sums.
    """
    for folder, sign in ((tmp_path / "up", 1.0), (tmp_path / "down", -1.0)):
        needs = Needs(cumulative="distances")
        recorder = Recorder(folder, LABEL, union([needs, Needs(cumulative="updates")]), {2: folder / "cut"})
        for t in range(ROUNDS):
            sent = {"x": torch.tensor([sign * t]), "steps": torch.tensor(t)}
            asks = {site: Fit(sent, Select(), toy.TRAINING.local, 0) for site in toy.SITES}
            answers = {
                site: Answer(0, Reply({**sent, "x": sent["x"] + sign * 0.5 * i}, 1), None, 0.0, 0)
                for i, site in enumerate(toy.SITES)
            }
            recorder.round(Round(LABEL, t, asks, answers, {}, 0.0))
        for rounds, north, west in ((2, 1.0, 3.0), (ROUNDS, 10.0, 15.0)):
            view = recorder.view(needs, rounds)
            assert (view.cumulative("north")["x"].item(), view.cumulative("west")["x"].item()) == (
                north,
                west,
            )
        updates = recorder.view(Needs(cumulative="updates"), ROUNDS)
        assert updates.cumulative("west")["x"].item() == sign * ROUNDS


def test_exactly_the_union_is_stored(tmp_path: Path) -> None:
    watch(tmp_path, [Needs(updates=Every(2)), Needs(updates=Every(4)), Needs(checkpoints=Every(3))])
    assert models(tmp_path) == {"updates-0", "updates-2", "updates-4", "checkpoint-0", "checkpoint-3"}


@dataclass(frozen=True)
class Longest:
    """Keeps the longest update of every second round."""

    window: int = 2

    def chosen(self, first: int, rounds: Sequence[Seen]) -> list[list[SiteId]]:
        """See `Choice.chosen`."""
        last = rounds[-1]
        assert last.images == dict.fromkeys(toy.SITES, 1)
        assert last.sent["x"].item() == first + len(rounds) - 1
        assert "steps" not in last.sent
        longest = max(last.updates, key=lambda site: float(last.updates[site]["x"]))
        return [[]] * (len(rounds) - 1) + [[longest]]


def test_what_a_choice_keeps_is_shown_and_counted_and_nothing_else(tmp_path: Path) -> None:
    """West moves farthest. Of five rounds, windows end with rounds 1, 3 and 4; of two, with round 1."""
    needs = Needs(updates=Longest())
    recorder = Recorder(tmp_path, LABEL, union([needs, Needs(updates=Last())]), parameters=("x",))
    assert recorder.view(needs, ROUNDS).chosen(1) == (), "nothing is recorded yet, as where its end is known"
    tell(recorder, range(ROUNDS))
    view = recorder.view(needs, ROUNDS)
    assert [view.chosen(t) for t in range(ROUNDS)] == [(), ("west",), (), ("west",), ("west",)]
    assert view.update(3, "west")["x"].item() == 1.0
    assert recorder.stored(needs, ROUNDS, 3) == 3 * 12
    assert recorder.stored(needs, 2, 3) == recorder.stored(needs, 1, 3) == 12
    for t, site in ((2, "west"), (3, "east")):
        with pytest.raises(UndeclaredNeed, match=f"updates of round {t} by {site}, which its choice did not"):
            view.update(t, site)
    with pytest.raises(UndeclaredNeed, match="updates of round 3"):
        recorder.view(needs, 3).update(3, "west")
    with pytest.raises(UndeclaredNeed, match="chosen of round 1 but declares no choice"):
        recorder.view(Needs(updates=Last()), ROUNDS).chosen(1)


def test_nothing_is_stored_for_strategies_without_history(tmp_path: Path) -> None:
    watch(tmp_path, [Needs(), Needs(leaver=Leaver.ONLINE)])
    assert models(tmp_path) == set()


def test_a_strategy_sees_only_what_it_declared_itself(tmp_path: Path) -> None:
    """All of it is on disk, since another strategy needs it."""
    recorder = watch(tmp_path, [ALL])
    view = recorder.view(Needs(updates=Every(2)), 4)
    assert view.update(2, "east")["x"].item() == 0.5
    with pytest.raises(UndeclaredNeed, match="updates of round 1 but declares every 2 rounds of 4"):
        view.update(1, "east")
    with pytest.raises(UndeclaredNeed, match="updates of round 4"):  # 4 is even, but still to come
        view.update(4, "east")
    with pytest.raises(UndeclaredNeed, match="updates of round -2"):
        view.update(-2, "east")
    with pytest.raises(UndeclaredNeed, match="checkpoint of round 0 but declares nothing of the kind"):
        view.checkpoint(0)
    with pytest.raises(UndeclaredNeed, match="a sum over rounds"):
        view.cumulative("east")


def test_cuts_keep_starting_weights_and_the_sums_up_to_there(tmp_path: Path) -> None:
    cuts = {cut: tmp_path / "weights" / f"original@{cut}" for cut in (2, 4)}
    recorder = watch(tmp_path / "history", [Needs(cumulative="updates")], cuts)
    assert recorder.cut(2)["x"].item() == 2
    assert recorder.cut(4)["x"].item() == 4
    for rounds in (2, 4, ROUNDS):
        view = recorder.view(Needs(cumulative="updates"), rounds)
        assert view.cumulative("west")["x"].item() == rounds * 1.0
    assert models(tmp_path / "history") == {f"sum-of-updates-{rounds}" for rounds in (2, 4, ROUNDS)}
    assert sorted((tmp_path / "weights").iterdir()) == list(cuts.values())


@pytest.mark.parametrize(
    ("needs", "count"),
    [
        (Needs(), 0),
        (Needs(updates=Every(1)), 3 * 5),
        (Needs(updates=Every(2)), 3 * 3),  # rounds 0, 2, 4
        (Needs(updates=Every(5)), 3),
        (Needs(cumulative="updates"), 3),
        (Needs(cumulative="distances"), 3),
        (Needs(checkpoints=Every(3)), 2),  # rounds 0, 3
        (ALL, 15 + 3 + 5),
    ],
)
def test_stored_bytes_are_those_on_disk(tmp_path: Path, needs: Needs, count: int) -> None:
    """One model is a float32 and an int64: 12 bytes.

    Beside them are the sums that the last round was added to, for the case that it must be done again after a kill,
    and the initial weights, which any server has: no strategy is charged these.
    """
    recorder = watch(tmp_path, [needs])
    kind = needs.cumulative
    before = {f"sum-of-{kind}-{ROUNDS - 1}"} if kind else set[str]()
    before |= {"initial"} if kind == "distances" else set()
    assert recorder.stored(needs, ROUNDS, 3) == 12 * count
    assert before <= models(tmp_path)
    kept = [file for file in tmp_path.iterdir() if file.stem in models(tmp_path) - before]
    stored = (list(Rows(file).values()) if file.suffix == ".rows" else [w.load(file)] for file in kept)
    assert sum(w.nbytes(weights) for each in stored for weights in each) == 12 * count


KEPT = [
    ALL,
    Needs(updates=Last()),
    Needs(updates=Every(2), cumulative="updates"),
    Needs(cumulative="distances"),
    Needs(updates=Longest()),
]


@pytest.mark.parametrize(
    ("needs", "killed"),
    [
        pytest.param(needs, killed, marks=() if killed == 1 + number % ROUNDS else pytest.mark.further)
        for number, needs in enumerate(KEPT)
        for killed in range(1, ROUNDS + 1)
    ],
)
def test_a_round_that_is_done_again_after_a_kill_leaves_the_same_history(
    tmp_path: Path, needs: Needs, killed: int
) -> None:
    """Killed after it was told of a round but before anybody else was: it hears of that round twice."""
    cuts = {which: {2: tmp_path / which / "cut"} for which in ("whole", "killed")}
    watch(tmp_path / "whole", [needs], cuts["whole"])
    watch(tmp_path / "killed", [needs], cuts["killed"], stop=killed)
    again = Recorder(tmp_path / "killed", LABEL, union([needs]), cuts["killed"])
    assert again.complete == (killed == ROUNDS)
    tell(again, range(killed - 1, ROUNDS))
    again.end(LABEL, ROUNDS, 0.0)
    assert again.complete
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == whole


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_updates_of_16_bits_are_counted_and_nothing_else_is_kept_so(tmp_path: Path, precision: Kept) -> None:
    """Halves are exact in any. An update has a float of 2 bytes and an integer of 8; sums and checkpoints have 12."""
    like = {"x": torch.zeros(1), "steps": torch.tensor(0)}
    recorder = Recorder(tmp_path, LABEL, union([ALL]), precision=precision, like=like)
    tell(recorder, range(ROUNDS))
    view = recorder.view(ALL, ROUNDS)
    assert view.update(3, "east")["x"].item() == 0.5
    assert view.update(3, "east")["x"].dtype == torch.float32
    assert view.cumulative("east")["x"].item() == ROUNDS * 0.5
    assert recorder.stored(ALL, ROUNDS, 3) == 3 * ROUNDS * 10 + (3 + ROUNDS) * 12


class Lost(Exception):
    """The federation is gone."""


@dataclass
class Losing(toy.ToyLink):
    """A link that is lost after some answers."""

    after: int = 0

    def collect(self) -> Sequence[Answer]:
        """See `Link`."""
        self.after -= 1
        if self.after < 0:
            raise Lost
        return super().collect()


@pytest.mark.parametrize("after", [1, 2, 4, 5])
def test_of_a_round_that_is_not_complete_nothing_is_left(tmp_path: Path, after: int) -> None:
    """Three answers make a round. What was begun of it is gone at once, and no thread is at work on it."""
    recorder = Recorder(tmp_path, LABEL, union([Needs(updates=Every(1), cumulative="updates")]))
    procedure = fedavg(toy.trained()[0], toy.SITES, Select(), toy.TRAINING.local, range(3), 7)
    with pytest.raises(Lost):
        drive([Job(LABEL, procedure)], Losing(after=after), [recorder])
    expected = {"updates-0.rows", "sum-of-updates-1.rows"} if after > 3 else set[str]()
    assert {file.name for file in tmp_path.iterdir()} == expected
    assert not [thread for thread in threading.enumerate() if thread.name == "writer"]


def test_a_history_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, LABEL, union([Needs(updates=Every(1))]))
    (tmp_path / "updates-1.rows.part").mkdir()
    procedure = fedavg(toy.trained()[0], toy.SITES, Select(), toy.TRAINING.local, range(3), 7)
    with pytest.raises(RunError, match=r"cannot write .*updates-1\.rows: Is a directory"):
        drive([Job(LABEL, procedure)], toy.ToyLink(), [recorder])


def test_whoever_was_not_asked_has_no_update(tmp_path: Path) -> None:
    view = watch(tmp_path, [ALL]).view(ALL, ROUNDS)
    with pytest.raises(UndeclaredNeed, match="updates of round 2 by south, which was not asked then"):
        view.update(2, "south")


def test_the_size_of_an_update_is_known_again(tmp_path: Path) -> None:
    """Twelve bytes, at three hospitals after five rounds."""
    recorder = watch(tmp_path, [ALL])
    known = json.loads(json.dumps(recorder.known(LABEL)))
    again = Recorder(tmp_path, LABEL, union([ALL]))
    again.recall(Label("retrained", "r", "retrained", 7), 99)
    again.recall(LABEL, known)
    assert again.stored(Needs(updates=Every(1)), ROUNDS, 3) == 12 * 3 * 5
    assert recorder.known(Label("retrained", "r", "retrained", 7)) is None


def test_a_real_training_is_recorded_as_it_happened(tmp_path: Path) -> None:
    initial, original, memory = toy.trained()
    recorder = Recorder(tmp_path, LABEL, union([ALL]))
    procedure = fedavg(initial, toy.SITES, Select(), toy.TRAINING.local, range(toy.TRAINING.rounds), 7)
    drive([Job(LABEL, procedure)], toy.ToyLink(scramble=4), [recorder])
    view = recorder.view(ALL, toy.TRAINING.rounds)
    for (t, site), update in memory.got.items():
        assert w.digest(view.update(t, site)) == w.digest(update)
    assert w.digest(view.checkpoint(0)) == w.digest(initial)
    last = {site: view.update(toy.TRAINING.rounds - 1, site) for site in toy.SITES}
    mean = w.average(list(last.values()), [24, 24, 24])
    rebuilt = w.add(view.checkpoint(toy.TRAINING.rounds - 1), mean)
    assert all(torch.allclose(rebuilt[n], original[n], atol=1e-6) for n in original)


def test_what_a_training_of_its_own_kept_is_read_under_its_names(tmp_path: Path) -> None:
    """The model is not kept: it is what must forget. Two arrays of 8 bytes each are."""
    own, recorder = tmp_path / "own", watch(tmp_path, [Needs()])
    half = {"x": torch.tensor([0.5, 1.5])}
    assert keep(own, {"model": half, "shard-0": half, "drawn": {"north": torch.tensor([3])}}) == 8 + 8
    view = recorder.view(Needs(preparation=True), ROUNDS, own)
    assert view.prepared("shard-0")["x"].tolist() == [0.5, 1.5]
    assert view.prepared("drawn")["north"].item() == 3
    with pytest.raises(UndeclaredNeed, match="'model' of its own training, which kept nothing of that name"):
        view.prepared("model")
    with pytest.raises(UndeclaredNeed, match=r"does not declare Needs\(preparation=True\)"):
        recorder.view(Needs(), ROUNDS, own).prepared("shard-0")
    with pytest.raises(UndeclaredNeed, match="kept nothing of that name"):
        recorder.view(Needs(preparation=True), ROUNDS).prepared("shard-0")

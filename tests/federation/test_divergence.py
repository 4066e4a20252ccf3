"""A strategy whose numbers cease to be finite: it is said where, its row stays, and nothing else notices."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.core import Procedure, Reply, RunError, Select, SiteError, Weights
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer, Ask, work
from fedunlearn.federation.jobs import Divergence, Job, Label, Round
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.models import Network
from fedunlearn.learning.tasks import Fit, Gradient
from fedunlearn.results import report
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.score import score
from fedunlearn.story import simulate
from sites.hospital import Federation
from tests import toy
from tests.runs import run, weight_files, write

pytestmark = pytest.mark.usefixtures("few_resamples")

WILD = 1e30  # as a learning rate of Adam: a product of two such weights is more than float32 holds

# -------------------------------------------------------------------------------------------- the driver


@dataclass
class Story:
    """What came of some jobs, as a watcher and as the jobs that follow saw it."""

    rounds: list[Round] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    results: dict[int, str] = field(default_factory=dict)
    found: dict[int, Divergence] = field(default_factory=dict)

    def round(self, round: Round) -> None:
        self.rounds.append(round)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        assert server_seconds >= 0
        self.ends.append((label.seed, rounds))

    def job(self, number: int, procedure: Procedure[Any], may_diverge: bool = True) -> Job[Any]:
        """A job that writes down how it ended; if it diverges, job ``100 + number`` follows."""

        def watched() -> Procedure[Any]:
            try:
                return (yield from procedure)
            finally:
                self.closed.append(number)

        def then(result: Weights) -> list[Job[Any]]:
            self.results[number] = w.digest(result)
            return []

        def diverged(found: Divergence) -> list[Job[Any]]:
            self.found[number] = found
            return [self.job(100 + number, training(number, rounds=0))]

        return Job(label(number), watched(), then, diverged if may_diverge else None)


def label(number: int) -> Label:
    return Label("unlearn", "some", "toy", number)


def training(seed: int, lr: float = 1e-2, rounds: int = 2) -> Procedure[Weights]:
    local = replace(toy.TRAINING.local, epochs=1, lr=lr)
    return fedavg(toy.trained()[0], toy.SITES, Select(), local, range(rounds), seed)


def test_the_others_go_on_as_if_it_were_not_there() -> None:
    alone, together = Story(), Story()
    drive([alone.job(n, training(n)) for n in (0, 2)], toy.ToyLink())
    jobs = [together.job(n, training(n, WILD if n == 1 else 1e-2)) for n in range(3)]
    drive(jobs, toy.ToyLink(), [together])
    assert {n: together.results[n] for n in (0, 2)} == alone.results
    assert set(together.results) == {0, 2, 101}, "what follows from diverging was not done"
    assert together.found == {1: Divergence(0, "north", "0.weight")}
    assert sorted(together.ends) == [(0, 2), (1, 1), (2, 2), (101, 0)]
    assert together.closed.count(1) == 1


@pytest.mark.parametrize("scramble", [None, 0, 1, 2, 3])
def test_what_is_said_does_not_depend_on_who_answers_first(scramble: int | None) -> None:
    """The round is waited for, and counted, to its end: of two that are not finite, the first asked is named."""

    def fault(ask: Ask, reply: Reply) -> Reply:
        return reply if ask.site == "north" else Reply(w.multiply(reply.weights or {}, math.inf), 1)

    story = Story()
    drive([story.job(0, training(0))], toy.ToyLink(fault=fault, scramble=scramble), [story])
    assert story.found == {0: Divergence(0, "east", "0.weight")}
    assert str(story.found[0]) == "at hospital east in round 1"
    first = next(r for r in story.rounds if r.label == label(0))
    assert list(first.answers) == list(toy.SITES)
    assert all(answer.images == 24 for answer in first.answers.values())


def spoiled(times: int) -> toy.Fault:
    """West's first answers are not finite, so many of them."""
    left = [None] * times

    def fault(ask: Ask, reply: Reply) -> Reply:
        if ask.site != "west" or not left:
            return reply
        left.pop()
        return replace(reply, weights=w.multiply(reply.weights or {}, math.nan))

    return fault


def test_a_broken_machine_is_asked_again_as_declared() -> None:
    healthy, healed, lost = Story(), Story(), Story()
    drive([healthy.job(0, training(0))], toy.ToyLink())
    drive([healed.job(0, training(0))], toy.ToyLink(fault=spoiled(2)), retries=2)
    drive([lost.job(0, training(0))], toy.ToyLink(fault=spoiled(3)), [lost], retries=2)
    assert healed.results == healthy.results and not healed.found
    assert lost.found == {0: Divergence(0, "west", "0.weight")}


def test_arrays_are_looked_at_as_well() -> None:
    def procedure() -> Procedure[Weights]:
        yield {"east": Gradient(toy.trained()[0], Select())}
        raise AssertionError("it must not go on")

    def fault(ask: Ask, reply: Reply) -> Reply:
        arrays = dict(reply.arrays)
        return Reply(None, 1, {**arrays, "4.bias": arrays["4.bias"] * math.inf}) if arrays else reply

    story = Story()
    drive([story.job(0, procedure())], toy.ToyLink(fault=fault))
    assert story.found == {0: Divergence(0, "east", "4.bias")}


def test_the_server_may_be_where_it_happens() -> None:
    """In a result or in what it would send: then no hospital is asked, and none is blamed."""
    weights, broken = toy.trained()[0], w.multiply(toy.trained()[0], math.nan)

    def result(rounds: int) -> Procedure[Weights]:
        for _ in range(rounds):
            yield {"north": Gradient(weights, Select())}
        return broken

    def sent() -> Procedure[Weights]:
        yield {"north": Gradient(weights, Select())}
        yield {site: Fit(broken, Select(), toy.TRAINING.local, 0) for site in toy.SITES}
        raise AssertionError("it must not go on")

    story = Story()
    drive([story.job(0, result(0)), story.job(1, result(2)), story.job(2, sent())], toy.ToyLink(), [story])
    assert story.found == {n: Divergence(round, None, "0.weight") for n, round in ((0, -1), (1, 1), (2, 0))}
    assert [str(story.found[n]) for n in range(3)] == [
        "on the server before round 1",
        "on the server after round 2",
        "on the server after round 1",
    ]
    assert len([r for r in story.rounds if r.label == label(2)]) == 1


def test_a_job_that_may_not_diverge_stops_the_run_and_says_what_to_do() -> None:
    story = Story()
    jobs = [story.job(0, training(0, WILD), may_diverge=False), story.job(1, training(1))]
    with pytest.raises(
        SiteError, match=r"'north'.*round 1: its reply holds NaN.*lower training.lr"
    ) as caught:
        drive(jobs, toy.ToyLink())
    assert (caught.value.site, caught.value.round) == ("north", 0)
    assert sorted(story.closed) == [0, 1]

    def result() -> Procedure[Weights]:
        yield {"north": Gradient(toy.trained()[0], Select())}
        return w.multiply(toy.trained()[0], math.nan)

    with pytest.raises(RunError, match=r"'0.weight' on the server after round 1: .*lower training.lr"):
        drive([story.job(2, result(), may_diverge=False)], toy.ToyLink())


def test_a_hospital_that_fails_is_no_divergence() -> None:
    def fault(ask: Ask, reply: Reply) -> Reply:
        if ask.site == "west":
            raise OSError("disk full")
        return replace(reply, weights=w.multiply(reply.weights or {}, math.nan))

    with pytest.raises(SiteError, match=r"'west'.*disk full"):
        drive([Story().job(0, training(0))], toy.ToyLink(fault=fault))


# ------------------------------------------------------------------------------------------- a whole run

HEALTHY = "{name: fine_tune, rounds: 1}, {name: negation, recovery: {rounds: 1}}"
MIXED = f"strategies=[{{name: fedquit, lr: {WILD}, as: wild}}, {HEALTHY}]"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("mixed"), MIXED)


def lost(folder: RunFolder) -> set[str]:
    """The models that are NaN throughout, in weights and signals alike."""
    names = {path.stem for path in (folder.path / "weights").iterdir()}
    names -= {name for name in names if name.startswith("before-")}  # nobody is scored between requests
    assert names == {path.stem for path in (folder.path / "signals").iterdir()}
    gone = set()
    for name in names:
        weights = w.load(folder.path / "weights" / f"{name}.safetensors")
        if all(bool(x.isnan().all()) for x in weights.values()):
            gone.add(name)
        signals = pd.read_parquet(folder.path / "signals" / f"{name}.parquet")
        assert signals.isna().all(axis=None) == (name in gone)
        assert signals.shape == (len(folder.read_table("sites.parquet")), 8)
        copies = pd.read_parquet(folder.path / "copies" / f"{name}.parquet")
        assert copies[["image", "copy"]].notna().all(axis=None) and list(copies.columns[2:]) == list(
            signals.columns
        )
        assert copies[signals.columns].isna().all(axis=None) == (name in gone)
    return gone


def verdicts(folder: RunFolder, strategy: str) -> dict[str, tuple[str, str]]:
    """(verdict, reasons in one text) by request."""
    table = folder.read_table("verdicts.parquet")
    rows = table[table["strategy"] == strategy].to_dict("records")
    return {row["request"]: (row["verdict"], "\n".join(row["reasons"])) for row in rows}


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_the_healthy_have_the_same_bits(mixed: RunFolder, tmp_path: Path) -> None:
    without = run(tmp_path, f"strategies=[{HEALTHY}]")
    assert weight_files(without).items() <= weight_files(mixed).items()
    assert lost(mixed) == {f"{request}-wild-{seed}" for request in ("some", "leave") for seed in (1, 2)}
    assert (mixed.path / "DONE").exists()


def test_it_is_damaged_and_the_reason_says_where(mixed: RunFolder) -> None:
    for request, site in (("some", "north"), ("leave", "east")):
        verdict, reasons = verdicts(mixed, "wild")[request]
        assert verdict == "DAMAGED"
        assert reasons == (
            f"diverged for seeds 1 and 2 at hospital {site} in round 1 of unlearning {request}: "
            "lower its learning rate, or set training.clip"
        )


def test_the_manifest_and_the_audit_log_record_it(mixed: RunFolder) -> None:
    found = mixed.read_manifest()["diverged"]
    assert [(e["request"], e["strategy"], e["seed"]) for e in found] == [
        (request, "wild", seed) for request in ("leave", "some") for seed in (1, 2)
    ]
    assert found[0] == {
        "request": "leave", "strategy": "wild", "seed": 1, "model": "leave-wild-1", "round": 0, "site": "east",
        "what": "0.weight", "where": "at hospital east in round 1 of unlearning leave",
    }  # fmt: skip
    lines = [json.loads(line) for line in (mixed.path / "audit.jsonl").read_text().splitlines()]
    answered = [line for line in lines if line["event"] == "request-answered"]
    assert {line["strategy"] for line in answered if line["diverged"]} == {"wild"}
    wild = [line for line in answered if line["strategy"] == "wild"]
    assert {(line["diverged"], line["verdict"]) for line in wild if line["request"] == "leave"} == {
        (found[0]["where"], "DAMAGED")
    }


def test_the_report_keeps_its_row(mixed: RunFolder) -> None:
    console, short = (Console(file=io.StringIO(), width=100) for _ in range(2))
    report.show(mixed, console, details=True)
    report.show(mixed, short)
    shown, summed = (c.file.getvalue() for c in (console, short))  # type: ignore[attr-defined]  # those of above
    for text in (shown, report.markdown(mixed).replace(" | ", " ").replace("| ", "")):
        (row,) = [line for line in text.splitlines() if " ".join(line.split()).startswith("wild n/a")][:1]
        assert row.split()[1:7] == ["n/a"] * 6
        assert "cannot tell worse" in row
        assert re.search(r"wild:(\n *-)? diverged for seeds 1 and 2 at hospital north in round 1", text)
    assert "Worse: diverged for seeds 1 and 2 at hospital north in round 1" in " ".join(summed.split())
    assert any(line.split()[0] == "wild" and "worse" in line for line in summed.splitlines() if line)


def test_its_cost_is_what_was_spent(mixed: RunFolder) -> None:
    """One round at the one holder, in which its 12 images pass through the network, and the end."""
    ledger = mixed.read_table("ledger.parquet")
    rows = ledger[(ledger["strategy"] == "wild") & (ledger["request"] == "leave") & (ledger["seed"] == 1)]
    assert rows["sites"].tolist() == [1, 0]
    assert rows["images"].iloc[0] > 0
    assert rows["up_bytes"].iloc[0] > 0


@pytest.mark.gate
def test_scoring_the_folder_again_says_the_same(mixed: RunFolder) -> None:
    before = verdicts(mixed, "wild"), mixed.read_table("scores.parquet")
    score(mixed.path)
    assert verdicts(mixed, "wild") == before[0]
    pd.testing.assert_frame_equal(mixed.read_table("scores.parquet"), before[1])


def test_a_reference_that_diverges_stops_the_run_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        SiteError, match=r"original seed 1, round 1: .*lower training.lr, or set training.clip"
    ):
        run(tmp_path, f"training.lr={WILD}", "seeds=[1]", f"strategies=[{HEALTHY}]")
    assert not (tmp_path / "run" / "DONE").exists()


# ---------------------------------------------------------------------------------------------- a chain

CHAIN = (
    "timeline=sequential",
    "seeds=[1]",
    "requests=[{id: a, site: north, patients: {count: 1}, after_round: 1}, {id: b, site: west, patients: "
    "{count: 1}, after_round: 2}, {id: c, site: east, whole_site: true, after_round: 2}]",
    "training.rounds=3",
)
MOMENTS = ("a@1", "b@2", "c@2", "c")


def chain(folder: Path, *overrides: str) -> tuple[RunFolder, str]:
    """A run of `CHAIN`, and what it printed."""
    console = Console(file=io.StringIO(), width=100)
    scenario = scenarios.read(write(folder), [*CHAIN, *overrides])
    done = simulate(scenario, folder / "run", folder, console)
    return done, console.file.getvalue()  # type: ignore[attr-defined]  # it is the one of above


@pytest.mark.gate
def test_along_a_chain_all_that_follows_is_lost(tmp_path: Path) -> None:
    """Diverging at the first request: nobody is asked for the others, and who watches waits for nothing."""
    done, printed = chain(tmp_path, MIXED)
    assert lost(done) == {f"{moment}-wild-1" for moment in MOMENTS}
    found = verdicts(done, "wild")
    assert set(found) == set(MOMENTS)
    for verdict, reasons in found.values():
        assert verdict == "DAMAGED"
        assert "seed 1 at hospital north in round 1 of unlearning a: " in reasons
    last = [text for text in printed.splitlines() if text.startswith("[")][-1]
    # The original, three retrainings, three strategies' answers to three requests; training that goes on between
    # requests and after the last, and what is retrained for that.
    of = 1 + 3 + 3 * 3 + 3 * 2 + 1
    assert last.startswith(f"[{of}/{of}] "), last
    ledger = done.read_table("ledger.parquet")
    wild = ledger[ledger["strategy"] == "wild"].groupby("request")["sites"].sum()
    assert wild.to_dict() == {"a": 1, "b": 0, "c": 0}
    further = ledger[(ledger["phase"] == "continue") & (ledger["strategy"] == "wild")]
    assert len(further) == 2 and further["sites"].sum() == further["images"].sum() == 0  # nobody is asked


def sabotage(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Ask, Reply], Reply]) -> None:
    """Let every hospital's replies pass through ``spoil``."""
    honest = work.alone

    def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
        answer = honest(federation, network, ask)
        return answer if answer.reply is None else replace(answer, reply=spoil(ask, answer.reply))

    monkeypatch.setattr(work, "alone", perform)


@pytest.mark.gate
@pytest.mark.parametrize(
    ("after", "moments", "words"),
    [
        (("a",), MOMENTS[1:], "at hospital north in round 1 of training on after a"),
        (("a", "b", "c"), MOMENTS[3:], "at hospital north in round 1 of training on after c"),
    ],
)
def test_training_that_goes_on_may_diverge(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    after: tuple[str, ...],
    moments: tuple[str, ...],
    words: str,
) -> None:
    """The strategy leaves every weight at 3.25; training on from there comes to NaN. Evaluation is not spoiled."""
    from strategies.negation import Negation

    def unlearn(self: Negation, case: Any) -> Procedure[Weights]:
        yield from ()
        return {name: torch.full_like(x, 3.25) for name, x in case.original.items()}

    def spoil(ask: Ask, reply: Reply) -> Reply:
        task: Any = ask.task
        if reply.weights is None or set(task.select.without) != set(after):
            return reply
        if not all(bool((x == 3.25).all()) for x in task.weights.values()):
            return reply
        return replace(reply, weights=w.multiply(reply.weights, math.nan))

    monkeypatch.setattr(Negation, "unlearn", unlearn)
    sabotage(monkeypatch, spoil)
    done, printed = chain(tmp_path, "strategies=[{name: negation}]")
    assert lost(done) == {f"{moment}-negation-1" for moment in moments}
    for moment, (verdict, reasons) in verdicts(done, "negation").items():
        assert ("diverged" in reasons) == (moment in moments)
        if moment in moments:
            assert verdict == "DAMAGED"
            assert f"diverged for seed 1 {words}: " in reasons
    last = [text for text in printed.splitlines() if text.startswith("[")][-1]
    assert last.startswith("[10/10] "), last


@pytest.mark.gate
def test_a_finite_model_may_answer_what_is_not(tmp_path: Path) -> None:
    """Step 1e30 against the pseudo-gradient: weights that float32 holds, scores that it does not."""
    done = run(tmp_path, "seeds=[1]", f"strategies=[{{name: puf, eta: {WILD}, recovery: {{rounds: 0}}}}]")
    for request in ("some", "leave"):
        weights = w.load(done.path / "weights" / f"{request}-puf-1.safetensors")
        assert w.first_nonfinite(weights) is None
        assert max(float(x.abs().max()) for x in weights.values()) > 1e20
        assert pd.read_parquet(done.path / "signals" / f"{request}-puf-1.parquet").isna().all(axis=None)
        verdict, reasons = verdicts(done, "puf")[request]
        assert verdict == "DAMAGED"
        assert "diverged for seed 1 in its answers at hospital north: " in reasons


@pytest.mark.ray
def test_on_ray_it_is_the_same(mixed: RunFolder, tmp_path: Path) -> None:
    on_ray = run(tmp_path, MIXED, "engine.name=flower", "seeds=[1]")
    expected = {n: digest for n, digest in weight_files(mixed).items() if n.endswith("-1.safetensors")}
    assert weight_files(on_ray) == expected
    assert [e for e in mixed.read_manifest()["diverged"] if e["seed"] == 1] == on_ray.read_manifest()[
        "diverged"
    ]

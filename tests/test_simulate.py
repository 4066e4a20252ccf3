"""A whole run, small: its folder, its bits, requests in the middle of training, and hospitals that fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedunlearn.core import InputError, Reply, SiteError
from fedunlearn.federation.engines import Answer, Ask, work
from fedunlearn.federation.engines.machines import here
from fedunlearn.learning.models import Network
from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.evidence.reading import read
from sites.hospital import Federation
from tests.runs import run, weight_files

pytestmark = pytest.mark.usefixtures("few_resamples")

SCORES = [
    "request",
    "strategy",
    "seed",
    "measure",
    "group",
    "value",
    "low",
    "high",
    "retrained",
    "null_low",
    "null_high",
    "n",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("tiny"))


def test_run_folder_holds_what_the_contract_says(tiny: RunFolder) -> None:
    names = {path.name for path in tiny.path.iterdir()}
    assert names == {
        "scenario.yaml", "manifest.json", "sites.parquet", "weights", "signals", "ledger.parquet",
        "scores.parquet", "statistics.parquet", "verdicts.parquet", "patients.parquet", "requests.parquet",
        "bias.parquet", "difficulty.parquet", "audit.jsonl", "DONE", "origins", "difficulty", "copies", ".lock",
            "curves.parquet", "curves", "roc.parquet", "report.html",
    }  # fmt: skip
    models = {f"original-{s}" for s in (1, 2)} | {
        f"retrained-{r}-{s}" for r in ("some", "leave") for s in (1, 2)
    }
    models |= {f"some-{m}-{s}" for m in ("fine_tune", "negation") for s in (1, 2)}
    models |= {f"leave-{m}-{s}" for m in ("fine_tune", "negation", "federaser") for s in (1, 2)}
    assert {path.stem for path in (tiny.path / "weights").iterdir()} == models
    assert {path.stem for path in (tiny.path / "signals").iterdir()} == models
    assert {path.stem for path in (tiny.path / "copies").iterdir()} == models
    assert list(tiny.read_table("scores.parquet").columns) == SCORES
    assert list(tiny.read_table("verdicts.parquet").columns) == [
        "request", "strategy", "forgotten", "useful", "verdict", "reasons", "about",
    ]  # fmt: skip


def test_manifest_has_the_checksum_of_every_file(tiny: RunFolder) -> None:
    recorded = tiny.read_manifest()["sha256"]
    on_disk = {str(p.relative_to(tiny.path)) for p in tiny.path.rglob("*") if p.is_file()} - {
        "manifest.json",
        "DONE",
        ".lock",
    }
    assert set(recorded) == on_disk
    for name, expected in recorded.items():
        assert hashlib.sha256((tiny.path / name).read_bytes()).hexdigest() == expected, name


def test_the_machine_is_told_with_all_that_it_did(tiny: RunFolder) -> None:
    (machine,) = tiny.read_manifest()["machines"]
    assert (machine["host"], machine["cpu"]) == (here().host, here().cpu)
    assert tiny.read_manifest()["machine_notes"] == []
    ledger = tiny.read_table("ledger.parquet")
    assert (ledger["machines"].map(len) == ledger["sites"]).all()
    assert set(ledger["machines"].explode().dropna()) == {here().host}
    assert machine["tasks"] == ledger["sites"].sum() > 0


def test_sites_table_names_what_each_request_forgets(tiny: RunFolder) -> None:
    table = tiny.read_table("sites.parquet")
    some = table[[("some" in ids) for ids in table["forgotten_by"]]]
    assert set(some.loc[some["split"] == "train", "site"]) == {"north"}
    assert some.loc[some["split"] == "train", "patient"].nunique() == 2
    leave = table[[("leave" in ids) for ids in table["forgotten_by"]]]
    assert set(leave["site"]) == {"east"}
    by_patient = table.groupby("patient")["split"].nunique()
    assert (by_patient == 1).all()


def test_signals_are_in_the_order_of_the_sites_table(tiny: RunFolder) -> None:
    rows = len(tiny.read_table("sites.parquet"))
    for path in (tiny.path / "signals").iterdir():
        frame = pd.read_parquet(path)
        assert frame.shape == (rows, 8)
        assert frame.notna().all(axis=None)


@pytest.mark.parametrize(
    ("model", "requests", "sites"),
    [
        ("original-1", {"some", "leave"}, {"north", "east"}),
        ("retrained-some-2", {"some"}, {"north"}),
        ("leave-negation-1", {"leave"}, {"east"}),
    ],
)
def test_models_are_asked_about_copies_of_what_they_must_forget_and_of_test_images_there(
    tiny: RunFolder, model: str, requests: set[str], sites: set[str]
) -> None:
    images, found = tiny.read_table("sites.parquet"), tiny.read_table(f"copies/{model}.parquet")
    named = images["forgotten_by"].map(lambda names: not requests.isdisjoint(names)).astype(bool)
    split, held_out = images["split"], images["site"].isin(sites)
    wanted = ((split == "train") & named) | ((split == "test") & held_out)
    assert found["image"].tolist() == [one for one in images["image"][wanted] for _ in range(3)]
    assert found["copy"].tolist() == [0, 1, 2] * int(wanted.sum())
    assert list(found.columns[2:]) == list(tiny.read_table(f"signals/{model}.parquet").columns)
    assert np.isfinite(found.iloc[:, 2:].to_numpy()).all()


def test_what_models_answer_for_copies_is_read_back(tiny: RunFolder) -> None:
    """The margin by hand: the logit of the class less the log of the sum of the others' exponentials."""
    run, images = read(tiny.path), tiny.read_table("sites.parquet").sort_values("image", ignore_index=True)
    found = run.on_copies("retrained-some-2", run.frame("some"))
    table = tiny.read_table("copies/retrained-some-2.parquet")
    assert found is not None and found.shape == (len(images),)
    assert set(images["image"][np.isfinite(found)]) == set(table["image"])
    row = int(np.flatnonzero(np.isfinite(found))[3])
    logits = (
        table[table["image"] == images["image"][row]].drop(columns=["image", "copy"]).to_numpy(np.float64)
    )
    label = int(images["label"][row])
    margins = logits[:, label] - np.log(np.exp(np.delete(logits, label, axis=1)).sum(axis=1))
    assert found[row] == pytest.approx(margins.mean(), abs=1e-9)


@pytest.mark.usefixtures("unscored")
def test_a_scenario_may_do_without_copies(tmp_path: Path) -> None:
    without = run(tmp_path, "seeds=[1]", "strategies=[]", "evaluation.copies=false")
    assert not (without.path / "copies").exists()
    found = read(without.path)
    assert found.on_copies("original-1", found.frame("some")) is None


def test_difficulty_is_measured_for_every_image_and_seed_at_no_strategys_cost(tiny: RunFolder) -> None:
    learnt, images = tiny.read_table("difficulty.parquet"), tiny.read_table("sites.parquet")
    assert list(learnt.columns) == ["image", "seed", "learnt_after", "forgetting_events"]
    for seed in (1, 2):
        of_seed = learnt[learnt["seed"] == seed]
        assert of_seed["image"].tolist() == images["image"].tolist()
        # of two rounds: never, from the first or from the second on; right at the end is what the signals say
        assert set(of_seed["learnt_after"]) <= {1, 2, 3}
        right = (
            tiny.read_table(f"signals/original-{seed}.parquet").to_numpy().argmax(axis=1) == images["label"]
        )
        assert ((of_seed["learnt_after"] <= 2).to_numpy() == right.to_numpy()).all()
    ledger = tiny.read_table("ledger.parquet")
    asked = ledger[ledger["strategy"].str.startswith("original@each-round") & (ledger["sites"] > 0)]
    assert len(asked) == 2 * 2
    assert set(asked["phase"]) == {"evaluate"}
    assert set(ledger.loc[ledger["strategy"] == "fine_tune", "stored_bytes"]) == {0}


def test_a_whole_site_request_never_asks_the_leaver_again(tiny: RunFolder) -> None:
    ledger = tiny.read_table("ledger.parquet")
    asked = ledger[
        (ledger["request"] == "leave") & (ledger["phase"] == "unlearn") & (ledger["strategy"] == "fine_tune")
    ]
    assert asked.loc[asked["round"] == 0, "sites"].tolist() == [2, 2]


def test_the_audit_log_is_an_unbroken_chain(tiny: RunFolder) -> None:
    lines = [json.loads(line) for line in (tiny.path / "audit.jsonl").read_text().splitlines()]
    previous = audit.GENESIS
    for number, line in enumerate(lines):
        assert (line["seq"], line["previous"], line["hash"]) == (number, previous, audit.hash_of(line))
        previous = line["hash"]
    assert [line["event"] for line in lines][:3] == ["run-started", "request-received", "request-received"]
    assert lines[-1]["event"] == "run-finished"


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_bits_do_not_depend_on_workers_or_on_company(tiny: RunFolder, tmp_path: Path) -> None:
    alone = run(tmp_path, "engine.workers=1", "strategies=[{name: negation, recovery: {rounds: 1}}]")
    everyone = weight_files(tiny)
    assert weight_files(alone).items() <= everyone.items()
    assert len(weight_files(alone)) == 10


@pytest.mark.ray
@pytest.mark.slow  # test_flower compares the engines in every run
def test_a_whole_run_on_ray_has_the_same_bits(tiny: RunFolder, tmp_path: Path) -> None:
    on_ray = run(tmp_path, "engine.name=flower", "seeds=[1]")
    expected = {
        name: digest for name, digest in weight_files(tiny).items() if name.endswith("-1.safetensors")
    }
    assert weight_files(on_ray) == expected


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_the_resolved_scenario_gives_the_same_bits(tiny: RunFolder, tmp_path: Path) -> None:
    again = run(tmp_path, text=(tiny.path / "scenario.yaml").read_text())
    assert weight_files(again) == weight_files(tiny)
    assert (again.path / "scenario.yaml").read_text() == (tiny.path / "scenario.yaml").read_text()


@pytest.mark.gate
def test_a_request_in_the_middle_of_training(tiny: RunFolder, tmp_path: Path) -> None:
    requests = "requests=[{id: some, site: north, patients: {count: 2, pick: random}, after_round: 1}]"
    middle = run(tmp_path, requests, "seeds=[1]", "strategies=[{name: fine_tune, rounds: 1}]")
    files = weight_files(middle)
    assert set(files) == {
        f"{name}-1.safetensors"
        for name in (
            "original",
            "original@1",
            "retrained-some",
            "retrained-some@1",
            "some-fine_tune",
            "some@1-fine_tune",
        )
    }
    # training is the same whether or not a request arrives in its middle, and so is retraining from scratch
    whole = weight_files(tiny)
    assert files["original-1.safetensors"] == whole["original-1.safetensors"]
    assert files["retrained-some-1.safetensors"] == whole["retrained-some-1.safetensors"]
    scores = middle.read_table("scores.parquet")
    assert set(scores["request"]) == {"some", "some@1"}


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_requests_one_after_the_other(tiny: RunFolder, tmp_path: Path) -> None:
    chain = run(
        tmp_path,
        "timeline=sequential",
        "seeds=[1]",
        "strategies=[{name: retrain}, {name: fine_tune, rounds: 1}]",
    )
    files = weight_files(chain)
    # the first request of a chain is a request alone; exact unlearning of both equals retraining without both
    assert files["some-fine_tune-1.safetensors"] == weight_files(tiny)["some-fine_tune-1.safetensors"]
    assert files["leave-retrain-1.safetensors"] == files["retrained-leave-1.safetensors"]
    assert files["retrained-leave-1.safetensors"] != weight_files(tiny)["retrained-leave-1.safetensors"]


def test_an_output_folder_in_use_is_refused(tiny: RunFolder) -> None:
    before = weight_files(tiny)
    with pytest.raises(InputError, match="is in use"):
        run(tiny.path.parent, name=tiny.path.name)
    assert weight_files(tiny) == before


# ------------------------------------------------------------------------------- hospitals that fail


def _sabotage(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Answer], Answer]) -> None:
    """Let hospital east answer its second task through ``spoil``."""
    honest = work.alone
    asked: list[Ask] = []

    def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
        answer = honest(federation, network, ask)
        if ask.site != "east":
            return answer
        asked.append(ask)
        return spoil(answer) if len(asked) > 1 else answer

    monkeypatch.setattr(work, "alone", perform)


def _with_weights(answer: Answer, change: Callable[[torch.Tensor], torch.Tensor]) -> Answer:
    assert answer.reply is not None and answer.reply.weights is not None
    changed = {name: change(x) for name, x in answer.reply.weights.items()}
    return Answer(answer.ticket, Reply(changed, answer.reply.count), None, answer.seconds, answer.images)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: Answer(a.ticket, None, "ValueError: disk on fire", 0.0, 0), "disk on fire"),
        (lambda a: _with_weights(a, lambda x: x * torch.nan), "NaN or infinity"),
        (lambda a: _with_weights(a, lambda x: x.reshape(-1)[:1]), "shape"),
        (lambda a: _with_weights(a, lambda x: x.double()), "dtype"),
    ],
    ids=["raises", "nan", "shape", "dtype"],
)
def test_a_hospital_that_fails_stops_the_run_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: Callable[[Answer], Answer], message: str
) -> None:
    _sabotage(monkeypatch, spoil)
    with pytest.raises(SiteError, match=f"'east'.*round.*{message}"):
        run(tmp_path, "seeds=[1]", "strategies=[]", "engine.workers=1")
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.gate
def test_a_hospital_that_hangs_stops_the_run_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = threading.Event()

    def hang(answer: Answer) -> Answer:
        release.wait(30)
        return answer

    _sabotage(monkeypatch, hang)
    with pytest.raises(SiteError, match=r"'east'.*no answer within 1 s"):
        run(tmp_path, "seeds=[1]", "strategies=[]", "engine.timeout=1")
    release.set()


@pytest.mark.usefixtures("unscored")
def test_a_failed_task_is_sent_again_as_declared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: RunFolder
) -> None:
    failed: list[Answer] = []

    def once(answer: Answer) -> Answer:
        if failed:
            return answer
        failed.append(answer)
        return Answer(answer.ticket, None, "ConnectionError: gone for a moment", 0.0, 0)

    _sabotage(monkeypatch, once)
    healed = run(tmp_path, "seeds=[1]", "strategies=[]", "engine.retries=1")
    assert failed
    assert weight_files(healed).items() <= weight_files(tiny).items()

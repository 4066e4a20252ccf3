"""Shadow federations of a small scenario: what they are trained on, their bits, their cache, and what scoring reads."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from fedunlearn import kinds, scenario as scenarios
from fedunlearn.campaign import shadows as farm, sources
from fedunlearn.campaign.cohort import Cohort, half
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.origins import Environment, training_modules
from fedunlearn.core import InputError, RunError, Select, derive
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import looking
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import Machine, here
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.learning.models import initial_weights
from fedunlearn.results.cache import Cache
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.signals import signal_table
from fedunlearn.scenario import Engine, Scenario
from fedunlearn.scoring.evidence.reading import read
from fedunlearn.scoring.score import score
from fedunlearn.story import simulate
from sites.hospital import Federation
from tests.runs import environment, run, write

pytestmark = pytest.mark.usefixtures("few_resamples")

FEW = ("evaluation.shadows=4", "seeds=[1]", "strategies=[]")
NAMES = [f"{i}.parquet" for i in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("farm")


@pytest.fixture(scope="module")
def first(folder: Path) -> RunFolder:
    return run(folder, *FEW, f"evaluation.cache={folder / 'cache'}", name="first")


@pytest.fixture(scope="module")
def scenario(folder: Path) -> Scenario:
    return scenarios.read(write(folder), FEW)


@pytest.fixture(scope="module")
def cohort(scenario: Scenario, folder: Path) -> Cohort:
    return gather(scenario, folder)


def bits(run: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.path / "shadows").iterdir())}


# ------------------------------------------------------------------------------------------- what they are


def test_the_run_folder_holds_answers_and_members(first: RunFolder) -> None:
    assert sorted(bits(first)) == [*NAMES, "members.parquet"]
    assert {f"shadows/{name}" for name in bits(first)} | {"memorisation.parquet"} <= set(
        first.read_manifest()["sha256"]
    )
    images, members = first.read_table("sites.parquet"), first.read_table("shadows/members.parquet")
    assert list(members.columns) == ["0", "1", "2", "3"] and set(members.dtypes) == {np.dtype(bool)}
    train = (images["split"] == "train").to_numpy()
    assert (members.sum(axis=1) == np.where(train, 2, 0)).all()
    for name in NAMES:
        assert first.read_table(f"shadows/{name}").shape == (len(images), 8)
    # phantom patients stay at one hospital: of each hospital's, half are in
    for _, own in images[train].groupby("site"):
        inside = members.loc[own.index].groupby(own["patient"]).first().sum()
        assert ((inside - own["patient"].nunique() / 2).abs() <= 0.5).all()


def test_a_worker_trains_a_shadow_on_its_half_alone(
    cohort: Cohort, scenario: Scenario, tmp_path: Path
) -> None:
    cohort.store(tmp_path, scenario.model)
    federation, cpu = Federation.open(tmp_path), torch.device("cpu")
    for number in range(4):
        rows = [federation.images(site, half(number), cpu).rows for site in cohort.sites]
        assert sorted(torch.cat(rows).tolist()) == np.flatnonzero(cohort.members[:, number]).tolist()


def test_a_shadow_is_an_ordinary_training_on_its_half(
    first: RunFolder, cohort: Cohort, scenario: Scenario, tmp_path: Path
) -> None:
    """The same procedure on a federation whose other training images are not there at all, bit for bit."""
    inside = cohort.members[:, 2]
    split = np.where((cohort.split == "train") & ~inside, "test", cohort.split)
    Federation.write(
        tmp_path, cohort.pixels, cohort.targets, cohort.site, split, {}, scenario.model, cohort.classes
    )
    seed, found = derive(scenario.seed, "shadow", 2), list[Any]()
    initial = initial_weights(scenario.model, cohort.form, derive(seed, "initial"))
    procedure = farm.shadow(initial, cohort.sites, Select(), scenario.training, seed)

    def then(result: Any) -> tuple[()]:
        found.append(result)
        return ()

    job = Job(Label("shadow", "", "2", seed), procedure, then)
    Inline(workers=1).run(tmp_path, lambda link: drive([job], link))
    pd.testing.assert_frame_equal(
        first.read_table("shadows/2.parquet"), signal_table(found[0]), check_exact=True
    )


def test_the_ledger_keeps_their_cost_apart(first: RunFolder) -> None:
    ledger = first.read_table("ledger.parquet")
    rows = ledger[ledger["phase"] == "shadow"]
    # four shadows of 2 rounds of training, one of answers, one that asks nobody
    assert sorted(rows["strategy"]) == sorted(list("0123") * 4)
    images = len(first.read_table("shadows/members.parquet"))
    assert (
        rows["images"].sum() == 2 * 2 * 0.6 * images + 4 * images
    )  # halves of 0.6 in two rounds; all, of four models
    own = {derive(0, "shadow", i) for i in range(4)}
    assert set(rows["seed"]) == own == set(first.read_manifest()["shadows"]["seeds"])
    scores = first.read_table("scores.parquet")
    cost = scores[(scores["measure"] == "rounds") & (scores["group"] == "all")]
    assert set(cost["value"]) == {2.0}  # of the original and of the retrained models, not of shadows


@pytest.mark.gate
def test_without_shadows_nothing_is_written(tmp_path: Path) -> None:
    plain = run(tmp_path, "seeds=[1]", "strategies=[]", f"evaluation.cache={tmp_path / 'cache'}")
    assert not (plain.path / "shadows").exists() and not (plain.path / "memorisation.parquet").exists()
    assert not (tmp_path / "cache").exists()
    assert read(plain.path).shadows == ()


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_one_worker_gives_the_same_bits_and_shadows_change_no_other_model(
    first: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(farm, "AT_ONCE", 1)
    alone = run(tmp_path, *FEW, "engine.workers=1")
    assert bits(alone) == bits(first)
    assert len(list((tmp_path / "fedunlearn" / "shadows").iterdir())) == 4  # the default cache
    plain = run(tmp_path, "seeds=[1]", "strategies=[]", name="plain")
    for path in (plain.path / "weights").iterdir():
        assert path.read_bytes() == (first.path / "weights" / path.name).read_bytes()


@pytest.mark.ray
@pytest.mark.slow  # test_flower compares the engines in every run
def test_flower_gives_the_same_bits(first: RunFolder, tmp_path: Path) -> None:
    on_ray = run(tmp_path, *FEW, f"evaluation.cache={tmp_path / 'cache'}", "engine.name=flower")
    assert bits(on_ray) == bits(first)
    assert on_ray.read_manifest()["shadows"]["cached"] == []


# ------------------------------------------------------------------------------------------------ the cache


@pytest.mark.gate
def test_another_run_trains_none_again(first: RunFolder, folder: Path, tmp_path: Path) -> None:
    other = run(
        tmp_path,
        "evaluation.shadows=4",
        f"evaluation.cache={folder / 'cache'}",
        "seeds=[2]",
        "engine.workers=1",
        "requests=[{id: other, site: west, patients: {count: 3}}]",
        "strategies=[{name: fine_tune, rounds: 1}]",
    )
    assert bits(other) == bits(first)
    assert other.read_manifest()["shadows"]["cached"] == [0, 1, 2, 3]
    assert "shadow" not in set(other.read_table("ledger.parquet")["phase"])


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_a_run_that_goes_on_still_tells_what_its_own_shadows_cost(
    first: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped once two are trained and in the cache, from which it must not take them for another run's."""
    honest, stored = Cache.store, list[str]()

    def store(self: Cache, origin: Mapping[str, object], table: pd.DataFrame) -> None:
        honest(self, origin, table)
        stored.append(str(origin["shadow"]))
        if len(stored) == 2:
            raise KeyboardInterrupt

    settings = (*FEW, f"evaluation.cache={tmp_path / 'cache'}", "engine.workers=1")
    with monkeypatch.context() as patch:
        patch.setattr(Cache, "store", store)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *settings)
    scenario = scenarios.read(write(tmp_path), settings)
    found = simulate(scenario, tmp_path / "run", tmp_path, Console(), quiet=True, resume=True)
    assert bits(found) == bits(first)
    assert found.read_manifest()["shadows"]["cached"] == []
    rows, expected = (
        ledger[ledger["phase"] == "shadow"].drop(columns=["site_seconds", "server_seconds"])
        for ledger in (one.read_table("ledger.parquet") for one in (found, first))
    )
    pd.testing.assert_frame_equal(rows.reset_index(drop=True), expected.reset_index(drop=True))
    assert len(list((tmp_path / "cache").iterdir())) == 4


@pytest.mark.gate
def test_a_damaged_entry_is_told_and_trained_again(
    first: RunFolder,
    folder: Path,
    scenario: Scenario,
    cohort: Cohort,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(folder / "cache", tmp_path / "cache")
    entry = Cache(tmp_path / "cache").entry(farm.origins(scenario, cohort, environment())[1])
    (entry / "table.parquet").write_bytes(b"nonsense")
    again = run(tmp_path, *FEW, f"evaluation.cache={tmp_path / 'cache'}")
    assert "shadow 1 is damaged in the cache and is trained again" in capsys.readouterr().out
    assert again.read_manifest()["shadows"]["cached"] == [0, 2, 3]
    assert bits(again) == bits(first)
    assert Cache(tmp_path / "cache").fetch(farm.origins(scenario, cohort, environment())[1]) is not None


def keys(folder: Path, *overrides: str) -> set[Path]:
    changed = scenarios.read(write(folder), (*FEW, *overrides))
    return {
        Cache(folder).entry(origin)
        for origin in farm.origins(changed, gather(changed, folder), environment())
    }


@pytest.mark.parametrize(
    "change",
    [
        "training.lr=0.003",
        "training.rounds=3",
        "seed=5",
        "evaluation.shadows=6",
        "data.images=264",
        "model.hidden=32",
        "sites.split={train: 0.5, val: 0.2, test: 0.3}",
        "sites.partition={name: label_skew, alpha: 0.5}",
        "sites.names=[east, north, west]",
    ],
)
def test_whatever_matters_changes_every_key(tmp_path: Path, change: str) -> None:
    assert not keys(tmp_path) & keys(tmp_path, change)


def test_what_does_not_matter_changes_none(tmp_path: Path) -> None:
    others = ("seeds=[3, 4]", "engine.workers=1", "requests=[{id: one, site: east, patients: {count: 1}}]")
    assert keys(tmp_path, *others, "evaluation.cache=/elsewhere") == keys(tmp_path)


@pytest.mark.parametrize(
    "patch",
    [
        lambda m: m.setattr(farm, "__version__", "9"),
        lambda m: m.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NEON"),
        lambda m: m.setattr(looking, "versions", lambda: {"torch": "9"}),
        lambda m: m.setattr(sources, "_sha256", lambda name, file: "edited"),
    ],
    ids=["version", "cpu", "torch", "sources"],
)
def test_code_and_machine_change_every_key(
    scenario: Scenario, cohort: Cohort, monkeypatch: pytest.MonkeyPatch, patch: Callable[[Any], None]
) -> None:
    before = {str(origin) for origin in farm.origins(scenario, cohort, environment())}
    patch(monkeypatch)
    assert not before & {str(origin) for origin in farm.origins(scenario, cohort, environment())}


def test_a_kind_of_machine_has_keys_of_its_own_and_no_address_does(
    scenario: Scenario, cohort: Cohort
) -> None:
    def key(engine: Engine, *machines: Machine) -> str:
        own = Environment(here(), machines)
        return str(farm.origins(dataclasses.replace(scenario, engine=engine), cohort, own)[0])

    inline, like = scenario.engine, dataclasses.replace(here(), host="node2", node="2")
    cluster = dataclasses.replace(inline, name="flower", address="host:6379")
    assert key(inline, here()) == key(cluster, like) == key(cluster, here(), like)
    others = [dataclasses.replace(like, processor="another"), dataclasses.replace(like, device="H200")]
    assert len({key(cluster, like), *(key(cluster, other) for other in others)}) == 3


@pytest.mark.gate
def test_any_source_file_of_training_changes_the_key(
    scenario: Scenario, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, before = sources._sha256, farm.origins(scenario, cohort, environment())[0]

    def but(edited: Path) -> Callable[[str, Path], str]:
        return lambda name, file: "edited" if file == edited else honest(name, file)

    files = {*sources.closure(training_modules("classification")).values(), Path(farm.__file__)}
    assert Path(kinds.__file__).parent / "classification" / "learnt.py" in files
    assert len(files) > 10
    for edited in files:
        with monkeypatch.context() as patch:
            patch.setattr(sources, "_sha256", but(edited))
            assert farm.origins(scenario, cohort, environment())[0] != before
    assert farm.origins(scenario, cohort, environment())[0] == before


# ----------------------------------------------------------------------------------------- what cannot be


def test_a_cache_that_cannot_be_written_to_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"--set evaluation.cache=.*cannot write to the cache"):
        run(tmp_path, *FEW, f"evaluation.cache={tmp_path / 'file' / 'cache'}")
    assert not (tmp_path / "run").exists()


def test_a_half_without_images_is_refused_with_its_place(tmp_path: Path) -> None:
    """Two training patients at two hospitals: of each, chance puts one patient or none into the first half."""
    split = "split: {train: 0.02, val: 0.49, test: 0.49}"
    sites = f"sites={{names: [north, east], partition: {{name: iid}}, {split}}}"
    few = scenarios.read(write(tmp_path), ["evaluation.shadows=40", "data.images=60", sites, LEAVE])
    with pytest.raises(InputError, match=r"evaluation.shadows=40: a random half of so few patients is empty"):
        gather(few, tmp_path)


LEAVE = "requests=[{id: leave, site: east, whole_site: true}]"


# ---------------------------------------------------------------------------------------------- scoring


def test_scoring_reads_them_in_the_order_of_the_images(first: RunFolder, tmp_path: Path) -> None:
    """The same values whatever order the files have."""
    shutil.copytree(first.path, tmp_path / "run")
    shuffled = RunFolder.open(tmp_path / "run")
    order = np.random.default_rng(0).permutation(len(first.read_table("sites.parquet")))
    tables = ["sites.parquet", *(f"{p.parent.name}/{p.name}" for p in first.path.glob("s*/*.parquet"))]
    for name in tables:
        shuffled.write_table(name, first.read_table(name).iloc[order])
    shuffled.write_manifest(shuffled.read_manifest())
    found, expected = read(shuffled.path).shadows, read(first.path).shadows
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        assert (one.members == other.members).all()
        assert (one.answers.logits == other.answers.logits).all()  # type: ignore[attr-defined]  # class scores
    score(shuffled.path)
    shuffled.write_manifest(shuffled.read_manifest())
    pd.testing.assert_frame_equal(
        shuffled.read_table("memorisation.parquet"), first.read_table("memorisation.parquet")
    )


def test_memorisation_is_that_of_the_files(first: RunFolder) -> None:
    """Recomputed from the run folder's tables alone, one image at a time."""
    images, members = first.read_table("sites.parquet"), first.read_table("shadows/members.parquet")
    scores = first.read_table("memorisation.parquet").set_index("image")
    assert set(scores.index) == set(images.loc[images["split"] == "train", "image"])
    tables = [first.read_table(f"shadows/{name}").to_numpy(np.float64) for name in NAMES]
    for row in images[images["split"] == "train"].index[::17]:
        label = images.loc[row, "label"]
        sure = [np.exp(t[row, label]) / np.exp(t[row]).sum() for t in tables]
        inside = members.loc[row].to_numpy()
        expected = np.mean(np.array(sure)[inside]) - np.mean(np.array(sure)[~inside])
        assert scores.loc[images.loc[row, "image"], "value"] == pytest.approx(expected, abs=1e-9)
        assert scores.loc[images.loc[row, "image"], "site"] == images.loc[row, "site"]


@pytest.mark.parametrize("lost", ["0.parquet", "members.parquet"])
def test_a_missing_or_short_file_is_told(first: RunFolder, tmp_path: Path, lost: str) -> None:
    shutil.copytree(first.path, tmp_path / "run")
    (tmp_path / "run" / "shadows" / "0.parquet").unlink()
    with pytest.raises(RunError, match=r"0\.parquet"):
        _ = read(tmp_path / "run").shadows
    short = first.read_table(f"shadows/{lost}").iloc[1:]
    shutil.copy(first.path / "shadows" / "0.parquet", tmp_path / "run" / "shadows" / "0.parquet")
    run = RunFolder.open(tmp_path / "run")
    run.write_table(f"shadows/{lost}", short)
    with pytest.raises(RunError, match=rf"{lost} is damaged"):
        _ = read(tmp_path / "run").shadows
    run.write_manifest(run.read_manifest())
    with pytest.raises(RunError, match=rf"{lost} has {len(short)} rows"):
        _ = read(tmp_path / "run").shadows

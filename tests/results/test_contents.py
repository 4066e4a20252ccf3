"""What is said of a run folder's files and columns is what real runs write."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from fedunlearn.results import contents
from fedunlearn.results.runfolder import RunFolder
from tests import runs, test_simulate_findings as found
from tests.scoring.years.made import year
from tests.test_simulate_volumes import TINY_VOLUMES, store

ASKED = "evaluation={shadows: 2, relearn: true, linear_probe: true, resurgence_rounds: 1, pictures: true}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> RunFolder:
    """A run with all that a scenario can ask for."""
    return runs.run(tmp_path_factory.mktemp("images"), ASKED)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> RunFolder:
    """A run of volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    store(folder)
    return runs.run(folder, "strategies=[{name: fine_tune, rounds: 1}]", text=TINY_VOLUMES)


PAIRS = """\
name: pairs
seeds: [1]
references: 1
engine: {name: inline, workers: 2, timeout: 60}
data: {name: phantom_chest, images: 160}
sites: {names: [north, east], partition: {name: iid}, split: {train: 0.5, val: 0.1, test: 0.4}}
model: {name: late_fusion}
training: {rounds: 1, local_epochs: 1, batch_size: 32, optimizer: adam, lr: 0.002}
requests:
  - {id: some, site: north, patients: {count: 4, pick: random}}
strategies:
  - {name: fine_tune, rounds: 1, local_epochs: 1}
"""


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> tuple[RunFolder, RunFolder]:
    """A run of images with several findings, and one of images with reports."""
    folder, few = tmp_path_factory.mktemp("findings"), "strategies=[{name: fine_tune, rounds: 1}]"
    found.store(folder)
    both = tmp_path_factory.mktemp("pairs")
    return runs.run(folder, few, text=found.SCENARIO), runs.run(both, text=PAIRS)


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory, few_resamples: None) -> RunFolder:
    """A run of a year."""
    return year(tmp_path_factory.mktemp("dated") / "run")


def unknown(run: RunFolder) -> list[str]:
    """Files, and columns of tables, that nothing is said of."""
    found = []
    for path in sorted(path for path in run.path.rglob("*") if path.is_file() and path.name[0] != "."):
        name = path.relative_to(run.path).as_posix()
        if contents.about(name) is None:
            found.append(name)
        if path.suffix == ".parquet" and name != "shadows/members.parquet":
            alike = f"signals/{path.name}" if name.count("/") and name[:3] in ("sha", "pro") else name
            table = name if name == "probes/relearn.parquet" or not name.count("/") else alike
            found += [
                f"{name}: {column}"
                for column in run.read_table(name).columns
                if contents.described(table, column) is None
            ]
    return found


def missing(*found: RunFolder) -> list[str]:
    """Columns that are told of and are in none of these runs, among the tables that they have."""
    lost = []
    for name, columns in contents.COLUMNS.items():
        tables = [(run, path) for run in found for path in run.path.glob(name)]
        assert tables, name
        known = {
            c for run, path in tables for c in run.read_table(path.relative_to(run.path).as_posix()).columns
        }
        if known:
            lost += [f"{name}: {one}" for one in columns if not any(fnmatchcase(c, one) for c in known)]
    return lost


@pytest.mark.gate
def test_every_file_and_column_is_described(
    images: RunFolder, volumes: RunFolder, answered: tuple[RunFolder, RunFolder], dated: RunFolder
) -> None:
    for run in (images, volumes, *answered, dated):
        assert unknown(run) == []


@pytest.mark.gate
def test_every_column_that_is_described_is_there(
    images: RunFolder, volumes: RunFolder, answered: tuple[RunFolder, RunFolder], dated: RunFolder
) -> None:
    assert missing(images, volumes, *answered, dated) == []


def test_it_notices_what_nothing_is_said_of(tmp_path: Path) -> None:
    assert contents.about("weights/original-7.safetensors")
    assert contents.about("weights/original-7.pickle") is None
    assert contents.described("signals/original-7.parquet", "logits_3")
    assert contents.described("signals/original-7.parquet", "logit") is None
    assert contents.described("sites.parquet", "scanner")


WITHOUT = {
    *(
        "records/*.json",
        "records/*.html",
        "records.html",
        "tombstones.json",
        "scores.parquet",
        "requests.parquet",
        "statistics.parquet",
        "bias.parquet",
    ),
    *(
        "curves.parquet",
        "roc.parquet",
        "ledger.parquet",
        "years.parquet",
        "policies.parquet",
        "weights/*.safetensors",
        "origins/*/*.json",
        "curves/*",
    ),
    *("strategies/*.py", "audit.jsonl", "DONE"),
}
"""Files that have no row, id or pixels of a single patient or image."""


def test_of_every_file_it_is_known_whether_it_has_patients() -> None:
    with_them = contents.OF_PATIENTS.keys()
    assert with_them | WITHOUT == contents.FILES.keys() and not with_them & WITHOUT

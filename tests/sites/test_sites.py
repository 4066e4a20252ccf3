"""What a worker is given (`sites.hospital`), and what a request names (`sites.dealing.requests`)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fedunlearn.core import IGNORED, SERVER, Form, InputError, RunError, Select
from fedunlearn.learning.models import ResNet18, SmallCNN
from sites import arrays, hospital
from sites.dealing.requests import resolve
from sites.hospital import Federation, Hospital

SITE = np.array(["b", "a", "b", "a", "b", "a", "b", "b"])
SPLIT = np.array(["train", "train", "val", "test", "train", "train", "test", "train"])
FORGOTTEN = {
    "r1": np.array([1, 0, 0, 0, 0, 1, 0, 0], dtype=bool),
    "r2": np.array([0, 0, 0, 0, 1, 0, 0, 0], dtype=bool),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images of two hospitals; every pixel of image k is k, its target is k % 3."""
    pixels = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None, None], (8, 1, 28, 28))
    model = SmallCNN(hidden=8)
    Federation.write(tmp_path / "f", pixels, np.arange(8) % 3, SITE, SPLIT, FORGOTTEN, model, 3)
    return tmp_path / "f"


@pytest.fixture
def b(folder: Path) -> Hospital:
    federation = Federation.open(folder)
    return federation.hospital("b", federation.network())


@pytest.mark.parametrize(
    ("select", "rows"),
    [
        (Select(), [0, 4, 7]),
        (Select(split="val"), [2]),
        (Select(split="test"), [6]),
        (Select(split="all"), [0, 2, 4, 6, 7]),
        (Select(without=("r1",)), [4, 7]),
        (Select(without=("r1", "r2")), [7]),
        (Select(only="r2"), [4]),
        (Select(only="r2", without=("r1",)), [4]),
        (Select(only="r1", split="test"), []),
    ],
    ids=repr,
)
def test_a_hospital_shows_the_selected_images_in_order(b: Hospital, select: Select, rows: list[int]):
    images = b.images(select)
    assert images.rows.tolist() == rows
    assert images.targets.tolist() == [row % 3 for row in rows]
    assert images.pixels.shape == (len(rows), 1, 28, 28)
    assert images.pixels.dtype == torch.uint8
    assert images.pixels[:, 0, 5, 7].tolist() == rows


def test_a_federation_comes_back_as_it_was_written(folder: Path):
    federation = Federation.open(folder)
    assert federation.sites == ("a", "b")
    assert federation.requests == ("r1", "r2")
    assert federation.form == Form((1, 28, 28), 3)
    assert federation.model == SmallCNN(hidden=8)
    assert federation.network().module(torch.zeros(2, 1, 28, 28)).shape == (2, 3)


@pytest.mark.parametrize("maps", [False, True], ids=["classes", "label maps"])
def test_the_server_owns_what_hospitals_gave_it_without_labels(tmp_path: Path, maps: bool):
    split = np.where(np.arange(8) % 3 == 0, "proxy", SPLIT)  # images 0 and 6 of b, 3 of a
    pixels = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None, None], (8, 1, 28, 28))
    targets = np.broadcast_to((np.arange(8) % 3)[:, None, None], (8, 28, 28)) if maps else np.arange(8) % 3
    targets = np.where(targets == 2, IGNORED, targets) if maps else targets
    Federation.write(tmp_path, pixels, targets, SITE, split, FORGOTTEN, SmallCNN(hidden=8), 3)
    federation = Federation.open(tmp_path)
    assert federation.sites == ("a", "b", SERVER)
    server = federation.hospital(SERVER, federation.network())
    images = server.images(Select(split="proxy"))
    assert images.rows.tolist() == [0, 3, 6] == images.pixels[:, 0, 5, 7].tolist()
    assert images.targets.shape == targets[:3].shape and (images.targets == -1).all()
    assert server.images(Select(split="proxy", without=("r1",))).rows.tolist() == [3, 6]
    assert len(server.images(Select())) == 0
    # the hospitals still have all that is theirs, labels too
    b = federation.hospital("b", server.network)
    assert b.images(Select(split="all")).rows.tolist() == [0, 2, 4, 6, 7]
    assert torch.equal(b.images(Select(split="proxy")).targets, torch.from_numpy(targets[[0, 6]]))


@pytest.mark.parametrize("maps", [False, True], ids=["classes", "label maps"])
def test_labels_that_are_no_class_are_refused_with_the_hospitals_that_have_them(tmp_path: Path, maps: bool):
    """A number beyond the classes, or below 0, ends a GPU's process; only label maps may have voxels without one."""
    pixels, labels = np.zeros((8, 1, 28, 28), np.uint8), np.arange(8) % 3
    labels[[0, 3, 6]] = (7, -1, 7)  # of b, a, b
    targets = np.repeat(labels, 28 * 28).reshape(8, 28, 28) if maps else labels
    if maps:
        targets[:, :5] = IGNORED
    with pytest.raises(InputError) as caught:
        Federation.write(tmp_path, pixels, targets, SITE, SPLIT, FORGOTTEN, SmallCNN(hidden=8), 3)
    expected = "images have labels that are no class (-1, 7); expected 0 to 2: mend the data's labels"
    assert [p.message for p in caught.value.problems] == [
        f"hospital 'a': 1 {expected}",
        f"hospital 'b': 2 {expected}",
    ]
    assert not list(tmp_path.iterdir())


def test_every_setting_of_a_model_is_kept(tmp_path: Path):
    pixels, targets = np.zeros((1, 1, 28, 28), np.uint8), np.zeros(1, np.int64)
    Federation.write(
        tmp_path, pixels, targets, np.array(["a"]), np.array(["train"]), {}, ResNet18(norm="batch"), 2
    )
    federation = Federation.open(tmp_path)
    assert federation.model == ResNet18(norm="batch")
    assert len(federation.hospital("a", federation.network()).images(Select())) == 1


def test_a_hospital_never_reads_what_is_not_its_own(folder: Path):
    for file in (folder / "0").iterdir():  # hospital a
        file.write_bytes(b"unreadable")
    federation = Federation.open(folder)
    network = federation.network()
    assert len(federation.hospital("b", network).images(Select(split="all"))) == 5
    # 3 images of 784 bytes and 8 of row number, each array at a multiple of 64 (2352 -> 2368, 2392 -> 2432, ...).
    with pytest.raises(
        ValueError, match=r"0/images.npy is damaged: found 10 bytes, expected 2,566 and a header"
    ):
        federation.hospital("a", network).images(Select())


def test_images_are_gathered_once(folder: Path):
    federation = Federation.open(folder)
    network = federation.network()
    first = federation.hospital("b", network).images(Select(without=("r1",)))
    again = federation.hospital("b", network).images(Select(without=("r1",)))
    assert first is again
    assert federation.hospital("b", network).images(Select()) is not first


def test_what_is_mapped_is_what_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Large files are mapped, small ones read; numbers are the same, and the file notices none that is written."""
    before = (folder / "1" / "images.npy").read_bytes()
    for select in (Select(), Select(split="all")):
        read, mapped = list[torch.Tensor](), list[torch.Tensor]()
        for least, found in ((2**20, read), (1, mapped)):
            monkeypatch.setattr(hospital, "_MAPPED", least)
            federation = Federation.open(folder)
            images = federation.hospital("b", federation.network()).images(select)
            found += [images.pixels.clone(), images.targets.clone(), images.rows.clone()]
            images.pixels.zero_()
        assert all(map(torch.equal, read, mapped))
    assert (folder / "1" / "images.npy").read_bytes() == before


def test_no_header_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """NumPy parses a header with `ast`, which CPython 3.11 lets fail at random if two threads are at it (gh-106905)."""
    for name in ("read_magic", "read_array", "open_memmap"):
        monkeypatch.delattr(np.lib.format, name)
    federation = Federation.open(folder)
    network = federation.network()
    tasks = [partial(federation.hospital(site, network).images, Select()) for site in ("a", "b")]
    with ThreadPoolExecutor(2) as threads:
        assert [len(found.result()) for found in [threads.submit(task) for task in tasks]] == [2, 3]


def test_a_hospital_counts_what_passes_through_the_network_while_it_works(folder: Path, b: Hospital):
    b.network.module(torch.zeros(3, 1, 28, 28))
    b.network.module(torch.zeros(4, 1, 28, 28))
    assert b.work == 7
    assert Federation.open(folder).hospital("a", b.network).work == 0, "another's work is not its own"


def test_unknown_names_are_errors(folder: Path, b: Hospital):
    with pytest.raises(ValueError, match="no hospital 'c', expected one of a, b"):
        Federation.open(folder).hospital("c", b.network)
    with pytest.raises(ValueError, match="no request"):
        b.images(Select(without=("r3",)))
    with pytest.raises(ValueError, match="no request"):
        b.images(Select(only="r3"))


def test_the_server_may_work_though_it_owns_no_image(folder: Path):
    """On images that come with a task, say."""
    federation = Federation.open(folder)
    server = federation.hospital(SERVER, federation.network())
    with pytest.raises(ValueError, match="server owns no images, expected some: give proxy a share"):
        server.images(Select(split="proxy"))


def test_making_a_network_leaves_the_global_rng_alone(folder: Path):
    federation = Federation.open(folder)
    before = torch.random.get_rng_state()
    federation.network()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.gate
def test_importing_hospitals_loads_nothing_that_reads_data():
    code = "import sys, sites.hospital; print([m for m in ('pandas', 'monai', 'medmnist', 'PIL') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert found.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ requests


@pytest.fixture
def table() -> pd.DataFrame:
    """p-1 is at both hospitals; p-9 is held out; p-5 is at west only."""
    rows = [
        ("p-1", "north", "train"),
        ("p-1", "west", "train"),
        ("p-2", "north", "train"),
        ("p-3", "north", "train"),
        ("p-4", "north", "train"),
        ("p-9", "north", "test"),
        ("p-5", "west", "train"),
    ]
    table = pd.DataFrame(rows, columns=["patient", "site", "split"])
    return table.assign(image=[f"i{i}" for i in range(len(rows))])


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_named_patient_is_forgotten_at_every_hospital(table: pd.DataFrame):
    named = resolve(table, "north", rng(), ids=["p-2", "p-1"])
    assert named.patients == ("p-1", "p-2")
    assert named.forgotten.tolist() == [True, True, True, False, False, False, False]


def test_named_images_are_forgotten_alone(table: pd.DataFrame):
    named = resolve(table, "north", rng(), images=["i3", "i0"])
    assert named.patients == ("p-1", "p-3")
    assert named.forgotten.tolist() == [True, False, False, True, False, False, False]


def test_every_wrong_image_is_reported_with_help(table: pd.DataFrame):
    with pytest.raises(InputError) as caught:
        resolve(table, "north", rng(), images=["i0", "i77", "i1", "i5"])
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 3
    assert "no image 'i77'" in messages[0]
    assert "only at 'west'" in messages[1]
    assert "test part of 'north'" in messages[2]


def test_a_hospital_that_leaves_takes_its_own_images_only(table: pd.DataFrame):
    named = resolve(table, "north", rng())
    assert named.patients == ("p-1", "p-2", "p-3", "p-4", "p-9")
    assert named.forgotten.tolist() == [True, False, True, True, True, True, False]


@pytest.mark.parametrize(("fraction", "count"), [(0.5, 2), (1.0, 4), (0.01, 1)])
def test_fractions_and_counts_draw_training_patients(table: pd.DataFrame, fraction: float, count: int):
    named = resolve(table, "north", rng(), fraction=fraction)
    assert len(named.patients) == count
    assert set(named.patients) <= {"p-1", "p-2", "p-3", "p-4"}
    backwards = resolve(table.iloc[::-1].reset_index(drop=True), "north", rng(), fraction=fraction)
    assert backwards.patients == named.patients == resolve(table, "north", rng(), count=count).patients


def test_every_wrong_id_is_reported_with_help(table: pd.DataFrame):
    with pytest.raises(InputError) as caught:
        resolve(table, "north", rng(), ids=["p-1", "p-22", "p-5", "p-9"])
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 3
    assert "no patient 'p-22'" in messages[0]
    assert "'p-2'" in messages[0]
    assert "only at 'west'" in messages[1]
    assert "test part of 'north'" in messages[2]


def test_impossible_requests_are_refused(table: pd.DataFrame):
    with pytest.raises(InputError, match="no hospital 'south', expected one of north, west"):
        resolve(table, "south", rng())
    with pytest.raises(InputError, match="expected 1 to 4"):
        resolve(table, "north", rng(), count=5)
    with pytest.raises(InputError, match="at most 1"):
        resolve(table, "north", rng(), fraction=1.5)
    with pytest.raises(InputError, match="list is empty"):
        resolve(table, "north", rng(), ids=[])
    with pytest.raises(InputError, match="list is empty"):
        resolve(table, "north", rng(), images=[])
    with pytest.raises(ValueError, match="give one"):
        resolve(table, "north", rng(), ids=["p-1"], count=1)


@pytest.mark.parametrize("full", ["0/images.npy", "1/images.npy", "federation.json"])
def test_a_full_disk_is_told_with_the_file_and_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
):
    replace = os.replace

    def refusing(source: Path, target: Path) -> None:
        if target == tmp_path / full:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("fedunlearn.files.os.replace", refusing)
    pixels = np.zeros((8, 1, 28, 28), np.uint8)
    with pytest.raises(
        RunError, match=rf"cannot write {tmp_path / full}: No space left on device \(.* MB free\)"
    ):
        Federation.write(tmp_path, pixels, np.arange(8) % 3, SITE, SPLIT, FORGOTTEN, SmallCNN(hidden=8), 3)
    assert not (tmp_path / full).exists() and not (tmp_path / "federation.json").exists()
    assert list(tmp_path.rglob("*.part")) == []


def test_a_disk_that_is_full_while_rows_are_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(opened: Any, *about: Any) -> None:
        opened.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(arrays, "write_header", full)
    with pytest.raises(RunError, match=r"x\.npy: No space left on device \(.* MB free\)"):
        arrays.write_columns(tmp_path / "x.npy", [(np.zeros(3), np.uint8)], np.arange(3))
    assert list(tmp_path.iterdir()) == []

"""What is kept for a user: made once, whole or not there, private, and not for longer than it is of use."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from sites.folder import Folder
from sites.prepared import DAYS, FOLDER, Growing, Prepared, prepared, stamp


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fedunlearn"


def counting(made: list[int], key: int) -> Prepared:
    """Three rows that tell the key; how often they were made is in ``made``."""

    def make(growing: Growing) -> dict[str, object]:
        made.append(key)
        for row in range(3):
            growing.append("rows", np.array([key, row]))
        return {"key": key}

    return prepared("room", {"key": key}, ("rows",), 3, make)


def test_the_same_key_is_made_once_and_another_by_itself() -> None:
    made = list[int]()
    for key in (1, 2, 1):
        found = counting(made, key)
        assert found.arrays["rows"].tolist() == [[key, 0], [key, 1], [key, 2]] and found.about == {"key": key}
    assert made == [1, 2]


def test_an_entry_of_another_version_is_made_again(cache: Path) -> None:
    made = list[int]()
    counting(made, 1)
    (entry,) = (cache / FOLDER / "room").iterdir()
    others: list[dict[str, object]] = [{"classes": 2, "files": {"rows.npy": "0"}}, {"about": {}, "files": {}}]
    for content in others:
        (entry / "about.json").write_bytes(files.sealed(content))
        assert counting(made, 1).arrays["rows"].shape == (3, 2)
    assert made == [1, 1, 1]


def test_what_is_raised_while_it_is_made_leaves_nothing(cache: Path) -> None:
    def failing(growing: Growing) -> dict[str, object]:
        growing.append("rows", np.zeros(2))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        prepared("room", {}, ("rows",), 3, failing)
    assert list((cache / FOLDER / "room").iterdir()) == []


@pytest.mark.parametrize(("path", "found"), [("images", "no folder"), (".", "no images in")])
def test_what_was_kept_is_nobodys_data(
    cache: Path, monkeypatch: pytest.MonkeyPatch, path: str, found: str
) -> None:
    """Whoever does not say where data files are names a folder of the cache."""
    monkeypatch.delenv("FEDUNLEARN_DATA", raising=False)

    def make(growing: Growing) -> dict[str, object]:
        growing.append("pixels", np.zeros((1, 9, 9)))
        return {}

    for room in ("images", "volumes"):
        prepared(room, {}, ("pixels",), 1, make)
    assert len([*cache.rglob("*.npy")]) == 2 and files.data_root() == cache
    with pytest.raises(InputError, match=rf"folder: found {found}"):
        Folder(path=path, layout="site/patient").load(files.data_root())


def test_nobody_else_can_read_it(cache: Path) -> None:
    counting([], 1)
    assert stat.S_IMODE((cache / FOLDER / "room").stat().st_mode) == 0o700


def test_what_was_not_used_for_long_is_removed_when_something_is_added(cache: Path) -> None:
    made = list[int]()
    for key in (1, 2):
        counting(made, key)
    old, used = sorted((cache / FOLDER / "room").iterdir())
    if counting(made, 1) and (used / "about.json").read_text().find('"key": 1') < 0:
        old, used = used, old
    before = time.time() - (DAYS + 1) * 86400
    for entry in (old, used):
        os.utime(entry, (before, before))
    counting(made, 1)  # is there still: using it says so
    counting(made, 3)
    assert made == [1, 2, 3] and used.exists() and not old.exists()


@pytest.mark.parametrize("change", ["content", "same size and time", "another name"])
def test_a_stamp_tells_a_file_from_what_it_was(tmp_path: Path, change: str) -> None:
    file = tmp_path / "a"
    file.write_text("one")
    before, about = stamp(str(file)), file.stat()
    assert stamp(str(file)) == before
    if change == "content":
        file.write_text("other")
    elif change == "same size and time":
        time.sleep(0.02)
        file.write_text("two")
        os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    else:
        file = file.rename(tmp_path / "b")
    assert stamp(str(file)) != before


def test_the_stamp_of_a_folder_tells_of_all_its_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    before = stamp(str(tmp_path))
    (tmp_path / "b").write_text("other")
    assert len(before) == 2 and stamp(str(tmp_path))[0] == before[0] and stamp(str(tmp_path))[1] != before[1]


def test_without_a_home_it_is_kept_in_a_private_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "a file"))
    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert files.cache() == tmp_path / f"fedunlearn-{os.getuid()}"
    assert stat.S_IMODE(files.cache().stat().st_mode) == 0o700


def test_a_temporary_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "a file"))
    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = os.getuid()
    files.cache()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    (tmp_path / f"fedunlearn-{own + 1}").mkdir()
    with pytest.raises(RunError, match=r"belongs to somebody else: set XDG_CACHE_HOME"):
        files.cache()

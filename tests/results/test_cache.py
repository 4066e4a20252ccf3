"""The cache: whole entries or none, keyed by their origin, and nothing damaged is ever read."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pandas as pd
import pytest

from fedunlearn.core import InputError, RunError
from fedunlearn.results.cache import Cache, Damaged

ORIGIN = {"data": "d", "lr": 0.002, "shape": [1, 2]}
TABLE = pd.DataFrame({"a": [1.5, float("nan")], "b": [True, False]})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "of" / "tables")


def test_what_was_stored_is_found_and_explains_itself(cache: Cache) -> None:
    assert cache.fetch(ORIGIN) is None
    cache.store(ORIGIN, TABLE)
    found = cache.fetch(dict(reversed(ORIGIN.items())))  # the order of keys does not matter
    assert found is not None
    pd.testing.assert_frame_equal(found, TABLE)
    assert json.loads((cache.entry(ORIGIN) / "origin.json").read_text())["origin"] == ORIGIN
    assert [path.name for path in cache.folder.iterdir()] == [cache.entry(ORIGIN).name]
    assert cache.fetch({**ORIGIN, "lr": 0.003}) is None


@pytest.mark.parametrize("file", ["table.parquet", "origin.json"])
def test_an_entry_with_any_bit_turned_is_told_and_removed(cache: Cache, file: str) -> None:
    cache.store(ORIGIN, TABLE)
    path = cache.entry(ORIGIN) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"checksum|something else|Error"):
        cache.fetch(ORIGIN)
    assert cache.fetch(ORIGIN) is None
    assert list(cache.folder.iterdir()) == []
    cache.store(ORIGIN, TABLE)
    assert cache.fetch(ORIGIN) is not None


@pytest.mark.parametrize("file", ["table.parquet", "origin.json"])
def test_half_an_entry_is_damaged(cache: Cache, file: str) -> None:
    cache.store(ORIGIN, TABLE)
    (cache.entry(ORIGIN) / file).unlink()
    with pytest.raises(Damaged, match="FileNotFoundError"):
        cache.fetch(ORIGIN)


def test_an_entry_under_another_name_is_damaged(cache: Cache) -> None:
    other = {**ORIGIN, "lr": 0.003}
    cache.store(ORIGIN, TABLE)
    cache.entry(ORIGIN).rename(cache.entry(other))
    with pytest.raises(Damaged, match="computed from something else"):
        cache.fetch(other)


def test_many_store_and_fetch_at_once(cache: Cache) -> None:
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                cache.store(ORIGIN, TABLE)
                found = cache.fetch(ORIGIN)
                assert found is not None and found.equals(TABLE)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [path.name for path in cache.folder.iterdir()] == [cache.entry(ORIGIN).name]


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "tables")
    with pytest.raises(InputError, match="cannot write to the cache"):
        cache.check()
    with pytest.raises(RunError, match="cannot write to the cache"):
        cache.store(ORIGIN, TABLE)

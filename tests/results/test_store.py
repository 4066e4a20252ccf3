"""Finished work is found again by its origin, here and in earlier runs, and only if it is still what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store, digest, earlier, recorded

ORIGIN: Mapping[str, Any] = {"work": "training", "seed": 7, "images": {"north": "ab", "east": "cd"}}
FACTS = {"rounds": 3, "known": {"ledger": [{"seconds": 0.5}]}}
FILE = "weights/original-7.safetensors"


def done(
    folder: Path,
    file: str = FILE,
    origin: Mapping[str, Any] = ORIGIN,
    content: bytes | None = b"model",
    beside: Mapping[str, bytes] | None = None,
    places: Mapping[str, str] | None = None,
) -> Store:
    """A store of a run that has done some work, and did not come to all the files that it might have."""
    store, places = Store(RunFolder(folder)), places or {}
    if content is not None:
        files.write(folder / file, content)
    for name, written in (beside or {}).items():
        files.write(folder / places[name], written)
    store.keep(file, FACTS, origin, places)
    return store


def test_finished_work_is_found_by_its_origin_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    done(tmp_path)
    turned = {"images": {"east": "cd", "north": "ab"}, "seed": 7, "work": "training"}
    for store in (done(tmp_path), Store(RunFolder(tmp_path))):
        record = store.find(FILE, turned, {})
        assert record is not None and record.facts == FACTS and store.whole(record)
        assert record.files == {"result": (FILE, files.sha256(tmp_path / FILE))}
        assert store.known(FILE, turned) == record
        assert store.taken == []


@pytest.mark.parametrize("change", [{"seed": 8}, {"seed": "7"}, {"images": {"north": "ab"}}, {"more": None}])
def test_work_of_another_origin_is_not_found(tmp_path: Path, change: Mapping[str, Any]) -> None:
    store = done(tmp_path)
    assert store.find(FILE, {**ORIGIN, **change}, {}) is None
    assert store.known(FILE, {**ORIGIN, **change}) is None
    assert store.find("weights/other", ORIGIN, {}) is None, "of this run, work is found where it is to be"


def test_an_origin_is_kept_in_clear(tmp_path: Path) -> None:
    done(tmp_path)
    text = json.loads((tmp_path / "origins" / f"{FILE}.json").read_text(encoding="utf-8"))
    assert text["origin"] == ORIGIN and text["facts"] == FACTS


def test_an_origin_with_what_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"lr": float("nan")})


# ----------------------------------------------------------------------------------------- from earlier runs


def test_work_is_taken_from_an_earlier_run_to_its_place_here(tmp_path: Path) -> None:
    """Under the name that it has here; from there on it is this run's own."""
    done(tmp_path / "earlier")
    store = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",))
    name = "weights/first-7.safetensors"
    assert store.known(name, ORIGIN) is not None
    assert not (tmp_path / "run").exists(), "to know is not to take"
    record = store.find(name, ORIGIN, {})
    assert record is not None and record.facts == FACTS and record.files["result"][0] == name
    assert (tmp_path / "run" / name).read_bytes() == b"model"
    assert store.taken == [name]
    own = Store(RunFolder(tmp_path / "run"))
    assert own.find(name, ORIGIN, {}) == record and own.whole(record)


def test_of_the_same_work_the_first_folder_counts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        done(tmp_path / name, content=name.encode())
    for first, second in (("a", "b"), ("b", "a")):
        store = Store(RunFolder(tmp_path / f"run-{first}"), (tmp_path / first, tmp_path / second))
        assert store.find(FILE, ORIGIN, {}) is not None
        assert (tmp_path / f"run-{first}" / FILE).read_bytes() == first.encode()


def test_own_work_comes_before_an_earlier_runs(tmp_path: Path) -> None:
    done(tmp_path / "earlier", content=b"theirs")
    done(tmp_path / "run", content=b"ours")
    store = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",))
    assert store.find(FILE, ORIGIN, {}) is not None
    assert (tmp_path / "run" / FILE).read_bytes() == b"ours" and store.taken == []


def test_two_results_of_one_origin_in_a_run_are_each_found_at_their_place(tmp_path: Path) -> None:
    """As of two strategies with other labels and the same fields."""
    done(tmp_path / "earlier", "weights/a")
    done(tmp_path / "earlier", "weights/b")
    for name in ("weights/a", "weights/b"):
        assert Store(RunFolder(tmp_path / "earlier")).find(name, ORIGIN, {}) is not None
    store = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",))
    for name in ("weights/c", "weights/d"):
        assert store.find(name, ORIGIN, {}) is not None
        assert (tmp_path / "run" / name).read_bytes() == b"model"
    assert store.taken == ["weights/c", "weights/d"]


def test_what_is_not_to_be_taken_is_not(tmp_path: Path) -> None:
    done(tmp_path / "earlier")
    store = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",), without={FILE})
    assert store.known(FILE, ORIGIN) is None and store.find(FILE, ORIGIN, {}) is None


def test_files_beside_come_along_as_far_as_they_came_about(tmp_path: Path) -> None:
    """Two horizons, of which the work came to one."""
    places = {"@2": "weights/x@2", "@5": "weights/x@5"}
    done(tmp_path / "earlier", "weights/x", beside={"@2": b"two"}, places=places)
    store = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",))
    record = store.find("weights/y", ORIGIN, {"@2": "weights/y@2", "@5": "weights/y@5"})
    assert record is not None and record.files.keys() == {"result", "@2"}
    assert {path.name for path in (tmp_path / "run" / "weights").iterdir()} == {"y", "y@2"}
    assert (tmp_path / "run" / "weights" / "y@2").read_bytes() == b"two"


def test_files_beside_that_nobody_asks_for_stay_where_they_are(tmp_path: Path) -> None:
    """A run with requests in the middle of training has models that one without them does not."""
    places = {"@2": "weights/x@2", "@5": "weights/x@5"}
    done(tmp_path / "earlier", "weights/x", beside={"@2": b"two", "@5": b"five"}, places=places)
    store = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",))
    record = store.find("weights/y", ORIGIN, {"@5": "weights/y@5"})
    assert record is not None and record.files.keys() == {"result", "@5"}
    assert {path.name for path in (tmp_path / "run" / "weights").iterdir()} == {"y", "y@5"}
    found = Store(RunFolder(tmp_path / "last"), (tmp_path / "run",)).known("weights/y", ORIGIN)
    assert found == record, "nobody is told of what is not there"


def test_work_that_nothing_came_of_is_known_too(tmp_path: Path) -> None:
    done(tmp_path / "earlier", content=None)
    record = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",)).find(FILE, ORIGIN, {})
    assert record is not None and record.files == {} and record.facts == FACTS
    assert recorded(tmp_path / "earlier") == {}


def test_what_was_for_the_time_of_that_run_only_need_not_be_there(tmp_path: Path) -> None:
    """A strategy's own training is in `work`, which a finished run has no more."""
    done(tmp_path / "earlier", "work/prepared/x")
    (tmp_path / "earlier" / "work" / "prepared" / "x").unlink()
    record = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",)).find("work/prepared/y", ORIGIN, {})
    assert record is not None and record.files == {} and record.facts == FACTS


def test_a_record_that_was_taken_tells_of_its_new_places(tmp_path: Path) -> None:
    done(tmp_path / "a")
    middle = Store(RunFolder(tmp_path / "b"), (tmp_path / "a",))
    assert middle.find("weights/b", ORIGIN, {}) is not None
    last = Store(RunFolder(tmp_path / "c"), (tmp_path / "b",))
    assert last.find("weights/c", ORIGIN, {}) is not None
    assert (tmp_path / "c" / "weights" / "c").read_bytes() == b"model"
    assert list(recorded(tmp_path / "b")) == ["weights/b"]


# ---------------------------------------------------------------------------------------------- what is damaged


def flip(path: Path, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << bit
    path.write_bytes(content)


def test_a_damaged_file_of_an_earlier_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    places = {"@2": "weights/x@2"}
    for spoiled in (FILE, "weights/x@2", f"origins/{FILE}.json"):
        folder = tmp_path / spoiled.replace("/", "-")
        done(folder, beside={"@2": b"two"}, places=places)
        flip(folder / spoiled)
        store = Store(RunFolder(folder.with_suffix(".run")), (folder,))
        with pytest.raises(RunError, match=Path(spoiled).name):
            store.find(FILE, ORIGIN, places)


def test_a_missing_file_of_an_earlier_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    done(tmp_path / "earlier")
    (tmp_path / "earlier" / FILE).unlink()
    store = Store(RunFolder(tmp_path / "run"), (tmp_path / "earlier",))
    with pytest.raises(RunError, match=r"earlier/weights/original-7\.safetensors"):
        store.find(FILE, ORIGIN, {})
    assert Store(RunFolder(tmp_path / "run")).find(FILE, ORIGIN, {}) is None, "and nothing was taken"


def test_a_damaged_record_of_this_run_is_as_if_it_was_not_there(tmp_path: Path) -> None:
    done(tmp_path)
    flip(tmp_path / "origins" / f"{FILE}.json")
    assert Store(RunFolder(tmp_path)).find(FILE, ORIGIN, {}) is None


def test_a_damaged_or_missing_file_of_this_run_is_noticed(tmp_path: Path) -> None:
    places = {"@2": "weights/x@2"}
    for spoiled in (FILE, "weights/x@2"):
        store = done(tmp_path, beside={"@2": b"two"}, places=places)
        record = store.find(FILE, ORIGIN, places)
        assert record is not None and store.whole(record)
        flip(tmp_path / spoiled)
        assert not store.whole(record)
        (tmp_path / spoiled).unlink()
        assert not store.whole(record)


def test_the_same_bits_are_told_from_others(tmp_path: Path) -> None:
    store = done(tmp_path)
    record = store.known(FILE, ORIGIN)
    assert record is not None and store.same(FILE, record)
    flip(tmp_path / FILE)
    assert not store.same(FILE, record)


def test_a_folder_that_is_no_run_cannot_be_reused(tmp_path: Path) -> None:
    done(tmp_path / "run")
    assert earlier([tmp_path / "run"]) == (tmp_path / "run",)
    (tmp_path / "empty").mkdir()
    for none in ("empty", "nowhere"):
        with pytest.raises(InputError, match=rf"cannot reuse .*/{none}: expected a run folder"):
            earlier([tmp_path / "run", tmp_path / none])


def test_records_are_read_by_the_files_that_they_stand_for(tmp_path: Path) -> None:
    done(tmp_path, "weights/a", {"work": 1})
    done(tmp_path, "probes/deep/b.parquet", {"work": 2})
    found = recorded(tmp_path)
    assert {file: record.origin for file, record in found.items()} == {
        "weights/a": {"work": 1},
        "probes/deep/b.parquet": {"work": 2},
    }
    flip(tmp_path / "origins" / "weights" / "a.json")
    with pytest.raises(RunError, match=r"a\.json"):
        recorded(tmp_path)

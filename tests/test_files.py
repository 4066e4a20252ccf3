"""Files are whole or not there, and what was changed in them is noticed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, strategies as st

from fedunlearn import files
from fedunlearn.core import RunError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def full(*args: object, **named: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_half(path: Path) -> None:
    """The disk is full halfway through."""
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"hal")
        full()


def write_whole(path: Path) -> None:
    files.write(path, b"new")


# ---------------------------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize(
    ("write", "broken"),
    [
        (write_half, None),
        (write_whole, "fsync"),
        (write_whole, "replace"),
        (write_whole, "open"),  # which is how a file is opened to wait for it
    ],
)
def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: bytes | None,
    write: Callable[[Path], None],
    broken: str | None,
) -> None:
    file = tmp_path / "deep" / "file"
    if before is not None:
        files.write(file, before)
    with monkeypatch.context() as patch:
        if broken is not None:
            patch.setattr(f"fedunlearn.files.os.{broken}", full)
        with pytest.raises(RunError) as caught:
            write(file)
    said = str(caught.value)
    assert said.startswith(f"cannot write {file}: No space left on device (") and said.endswith(" MB free)")
    if before is None:
        assert list((tmp_path / "deep").iterdir()) == []
    else:
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
        assert file.read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_whatever_else_fails_inside_passes_unchanged_and_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    files.write(tmp_path / "file", b"old")

    def fail() -> None:
        with files.replacing(tmp_path / "file") as temporary:
            temporary.write_bytes(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    files.write(tmp_path / "file", b"old")
    with files.replacing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
        assert (tmp_path / "file").read_bytes() == b"old"
        assert temporary.name.endswith(files.PART)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order that a power cut may interrupt: content, name, which names the folder holds."""
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        seen.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        seen.append(f"replace {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr("fedunlearn.files.os.fsync", watched_fsync)
    monkeypatch.setattr("fedunlearn.files.os.replace", watched_replace)
    files.write(tmp_path / "folder" / "file", b"new")
    assert seen == ["fsync file.part", "replace file", "fsync folder"]
    seen.clear()
    with files.replacing(tmp_path / "folder" / "file", durable=False) as temporary:
        temporary.write_bytes(b"newer")
    assert seen == ["replace file"]


def test_a_place_that_cannot_be_written_to_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write .*in-the-way/file: (Not a directory|File exists) \("):
        files.write(tmp_path / "in-the-way" / "file", b"")


def test_a_copy_is_the_same_and_a_missing_source_leaves_nothing(tmp_path: Path) -> None:
    files.write(tmp_path / "a", b"content")
    files.copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    with pytest.raises(RunError, match=r"cannot write .*/d: No such file"):
        files.copy(tmp_path / "c", tmp_path / "d")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


# ----------------------------------------------------------------------------------------- sealed and checked


@given(content=st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_what_is_sealed_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    """All but the key that the seal itself has, which nobody else may use."""
    file = tmp_path_factory.mktemp("sealed") / "file"
    file.write_bytes(files.sealed(content))
    expected = {key: value for key, value in content.items() if key != files.SEAL}
    assert files.unsealed(file) == json.loads(json.dumps(expected))
    assert files.sealed(files.unsealed(file)) == file.read_bytes()


@pytest.mark.gate
def test_every_single_bit_that_flips_in_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    """Of its text, of its seal, and of the white space between."""
    file = tmp_path / "file"
    whole = files.sealed({"b": [1, 2.5, None], "a": {"ü": "text"}, "e": 1e16, "n": 10})
    for bit in range(8 * len(whole)):
        spoiled = bytearray(whole)
        spoiled[bit // 8] ^= 1 << bit % 8
        file.write_bytes(spoiled)
        with pytest.raises(RunError, match=r"/file"):
            files.unsealed(file)
    file.write_bytes(whole)
    assert files.unsealed(file)["n"] == 10


@given(data=st.data())
def test_cuts_and_additions_to_a_sealed_file_are_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("sealed") / "file"
    whole = files.sealed({"runs": list(range(20))})
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    changed = whole[:start] + data.draw(st.binary(max_size=4)) + whole[stop:]
    file.write_bytes(changed)
    if changed == whole:
        assert files.unsealed(file) == {"runs": list(range(20))}
    else:
        with pytest.raises(RunError, match=r"/file"):
            files.unsealed(file)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{}", b'{"seal": 3}', b"\xff", b'"text"'])
def test_what_was_never_sealed_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RunError, match=r"/file"):
        files.unsealed(tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot read .*/none"):
        files.unsealed(tmp_path / "none")


def test_a_checked_file_is_what_is_recorded_of_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    known = hashlib.sha256(b"content").hexdigest()
    assert files.sha256(file) == known
    assert files.checked(file, known) == b"content"
    with pytest.raises(RunError, match=r"/file has no recorded checksum"):
        files.checked(file, None)
    file.write_bytes(b"contenu")
    other = hashlib.sha256(b"contenu").hexdigest()
    with pytest.raises(RunError, match=rf"/file is damaged: found sha256 {other}, recorded was {known}"):
        files.checked(file, known)
    file.unlink()
    with pytest.raises(RunError, match=r"cannot read .*/file: No such file"):
        files.checked(file, known)


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os.close(watched)"])
def test_a_folder_goes_with_its_process_however_that_ends(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "pixels.npy").touch()
    code = f"""
import os
from pathlib import Path
from fedunlearn import files
watched = files.vanishing(Path({str(folder)!r}))
assert Path({str(folder / "pixels.npy")!r}).exists()
{end}
"""
    subprocess.run([sys.executable, "-c", code], check="kill" not in end, timeout=300)
    deadline = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_removes_a_folder_is_out_of_the_group_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to the group that comes right after must not end it, however slow it was to leave."""
    slow = files._WATCH.replace("os.setsid()", "import time; time.sleep(0.5); os.setsid()")
    monkeypatch.setattr(files, "_WATCH", slow)
    watched = files.vanishing(tmp_path)
    (watcher,) = (
        one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in (one.info["cmdline"] or ())
    )
    assert os.getpgid(watcher.pid) != os.getpgid(0)
    os.close(watched)

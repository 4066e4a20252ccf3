"""The hospitals' images on machines that do not see the run folder, whatever happens to these machines."""

from __future__ import annotations

import os
import queue
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fedunlearn.federation.engines.flower import cluster as clusters, parcels
from fedunlearn.federation.engines.flower.keeper import Keeper
from fedunlearn.federation.engines.flower.parcels import Parcels
from tests.federation.pair import OTHER, two_machines, until

# Ray leaves files and processes for the garbage collector to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SECRET = b"nobody else may read this image "  # in no other file
FILES = {
    "federation.json": b"{}",
    "0/pixels.npy": SECRET * 300_000,  # 9.6 MB: three parts
    "0/rows.npy": b"",
    "11/targets.npy": bytes(range(256)),
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def stored(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# ------------------------------------------------------------------------------------------------- without Ray


@pytest.mark.parametrize("size", [0, 1, 3, 7, 12, 13, 24, 25])
def test_parts_make_up_the_file(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    parts = list(parcels.parts(tmp_path / "file", part=12, piece=3))
    assert [start for start, _ in parts] == list(range(0, size, 12))
    assert b"".join(piece for _, pieces in parts for piece in pieces) == content
    assert all(0 < len(piece) <= 3 for _, pieces in parts for piece in pieces)


def test_a_delivery_that_fails_while_all_end_stops_no_other(federation: Path) -> None:
    """It takes itself out of those that are waited for."""
    waited = list[str]()
    sent = Parcels(federation, lambda *_: None)

    def thread(node: str) -> Any:
        def join(timeout: float) -> None:
            waited.append(node)
            del sent._threads[node]

        return SimpleNamespace(join=join)

    sent._threads = {node: thread(node) for node in ("a", "b")}
    sent.close()
    assert waited == ["a", "b"] and not list(federation.glob(".seen-*"))


def test_only_what_a_federation_consists_of_is_sent(tmp_path: Path) -> None:
    for name in (
        "federation.json",
        ".seen-1",
        "0/pixels.npy",
        "0/pixels.npy.part",
        "0/notes.txt",
        "x/pixels.npy",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    assert parcels.contents(tmp_path) == {"federation.json": 3, "0/pixels.npy": 3}


def test_a_machine_is_served_once(federation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(Parcels, "_serve", lambda self, node: served.put(node))
    with parcel(federation, hidden=False) as (parcels, _):
        for node in "abab":
            parcels.want(node)
        parcels.close()
        parcels.want("c")
        assert sorted([served.get(timeout=5), served.get(timeout=5)]) == ["a", "b"]
        assert served.empty() and stored(federation) == FILES


def test_whatever_goes_wrong_with_a_machine_is_told(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bring(self: Parcels, node: str) -> bool:
        raise KeyError("raylet")

    monkeypatch.setattr(Parcels, "_bring", bring)
    with parcel(federation, hidden=False) as (parcels, news):
        parcels.want("a")
        assert news.get(timeout=60) == ("a", None, "KeyError: 'raylet'")


# ---------------------------------------------------------------------------------------------------- with Ray


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Ray cluster of two machines, and its session's folder."""
    with two_machines(tmp_path_factory.mktemp("ray")) as made:
        yield made


@pytest.fixture(scope="module")
def other(address: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ray's id of the second machine, where this process is not."""
    folder = tmp_path_factory.mktemp("flower")
    with clusters.environment(folder), clusters.quiet():
        import ray

        clusters.attach(address[0])
        try:
            [node] = (node for node in ray.nodes() if node["NodeManagerAddress"] == OTHER)
            assert node["Alive"], f"Ray lost the second machine: {node}"
            yield node["NodeID"]
        finally:
            ray.shutdown()


News = queue.SimpleQueue[tuple[str, str | None, str]]


@contextmanager
def parcel(federation: Path, hidden: bool) -> Iterator[tuple[Parcels, News]]:
    """A way to the machines, and what it says; a machine that finds other files than it should sees none of ours."""
    news: News = queue.SimpleQueue()
    with closing(Parcels(federation, lambda *delivered: news.put(delivered))) as parcels:
        [token] = federation.glob(".seen-*")
        assert token.stat().st_mode & 0o777 == 0o600
        if hidden:
            token.write_text("another folder's")
        yield parcels, news


@pytest.mark.ray
def test_a_machine_that_sees_the_run_folder_is_sent_nothing(federation: Path, other: str) -> None:
    with parcel(federation, hidden=False) as (parcels, news):
        parcels.want(other)
        assert news.get(timeout=60) == (other, str(federation), "shared")
        parcels.close()
        assert news.empty() and stored(federation) == FILES


@pytest.mark.ray
def test_images_are_sent_and_removed(federation: Path, address: tuple[str, Path], other: str) -> None:
    with parcel(federation, hidden=True) as (parcels, news):
        parcels.want(other)
        node, folder, how = news.get(timeout=60)
        assert (node, how) == (other, "sent") and folder is not None
        assert stored(Path(folder)) == FILES and Path(folder).stat().st_mode & 0o777 == 0o700
        began = time.monotonic()
        parcels.close()
        assert time.monotonic() - began < 5 and not Path(folder).exists()
        assert news.empty() and stored(federation) == FILES
        files = [path for path in address[1].rglob("*") if path.is_file()]
        assert files and not [path for path in files if SECRET in path.read_bytes()]


@pytest.mark.ray
def test_images_are_sent_again_if_only_their_keeper_is_lost(federation: Path, other: str) -> None:
    with parcel(federation, hidden=True) as (parcels, news):
        parcels.want(other)
        first = news.get(timeout=60)[1]
        [process] = [found for found in psutil.process_iter() if holds(found, str(first))]
        process.kill()
        node, second, how = news.get(timeout=60)
        assert (node, how) == (other, "sent") and second != first and stored(Path(str(second))) == FILES
        until(lambda: not Path(str(first)).exists(), "the first ones are gone")
        parcels.close()
        assert news.empty() and not Path(str(second)).exists()


def holds(process: psutil.Process, folder: str) -> bool:
    """Whether a process has a folder open, as one has that locked it."""
    try:
        return folder in [os.readlink(opened) for opened in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:  # ended meanwhile, or closed one
        return False


class Careless(Keeper):
    """One bit is not what it was."""

    def sha256(self, name: str) -> str:
        if name == "0/pixels.npy":
            with (self._made() / name).open("r+b") as file:
                file.write(bytes([SECRET[0] ^ 1]))
        return super().sha256(name)


@pytest.mark.ray
def test_damaged_images_are_not_used(federation: Path, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedunlearn.federation.engines.flower.parcels.Keeper", Careless)
    with parcel(federation, hidden=True) as (parcels, news):
        parcels.want(other)
        expected = "the hospitals' images arrived damaged: 0/pixels.npy has another sha256"
        assert news.get(timeout=60) == (other, None, expected)
        parcels.close()


@pytest.mark.ray
def test_why_a_machine_cannot_have_them(
    federation: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fedunlearn.federation.engines.flower.parcels.contents", lambda folder: {"0/pixels.npy": 10**18}
    )
    with parcel(federation, hidden=True) as (parcels, news):
        parcels.want(other)
        node, folder, reason = news.get(timeout=60)
        assert (node, folder) == (other, None)
        assert reason.startswith(f"{socket.gethostname()} has no room for the hospitals' images")
        parcels.want(nowhere := "0" * len(other))
        node, folder, reason = news.get(timeout=60)
        assert (node, folder) == (nowhere, None) and "was lost" in reason
        parcels.close()


DRIVER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from fedunlearn.federation.engines.flower import cluster as clusters
from tests.federation.test_parcels import parcel
address, federation, folder, node = sys.argv[1:]
with clusters.environment(Path(folder)), clusters.quiet():
    clusters.attach(address)
    with parcel(Path(federation), hidden=True) as (parcels, news):
        parcels.want(node)
        print(news.get(timeout=60)[1], flush=True)
        time.sleep(60)
"""


@pytest.mark.ray
def test_the_images_go_with_a_killed_driver(address: tuple[str, Path], other: str, tmp_path: Path) -> None:
    federation = tmp_path / "federation"
    for name, content in FILES.items():
        (federation / name).parent.mkdir(parents=True, exist_ok=True)
        (federation / name).write_bytes(content)
    arguments = [address[0], str(federation), str(tmp_path), other]
    with subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode().strip()
            assert line, "it has ended"
            folder = Path(line)
            assert stored(folder) == FILES
        finally:
            process.kill()
    until(lambda: not folder.exists(), "the images are gone")

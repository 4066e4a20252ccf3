"""What keeps the hospitals' images on a machine, without Ray: nobody else sees them, and they go with it."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedunlearn.core import RunError
from fedunlearn.federation.engines.flower import claims
from fedunlearn.federation.engines.flower.keeper import PREFIX, Keeper, hold

FILES = {
    "federation.json": b"{}",
    "0/pixels.npy": bytes(range(256)) * 10_000,
    "0/rows.npy": b"",
    "11/targets.npy": bytes(range(256)),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only temporary folder of this machine."""
    monkeypatch.setattr(claims, "usual_places", lambda: [str(tmp_path)])
    return tmp_path


def stored(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_keeper_keeps_what_it_is_sent_to_itself_and_removes_it(place: Path) -> None:
    keeper = Keeper()
    folder = Path(keeper.make({name: len(content) for name, content in FILES.items()}))
    calls = [
        (name, start, content[start : start + 10**6])
        for name, content in FILES.items()
        for start in range(0, len(content), 10**6)
    ]
    random.Random(1).shuffle(calls)  # several are under way at once
    for name, start, content in calls:
        keeper.take(name, start, content[:1000], content[1000:])
    assert folder.parent == place and stored(folder) == FILES
    assert {name: keeper.sha256(name) for name in FILES} == {
        name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()
    }
    modes = {path.is_dir(): oct(path.stat().st_mode & 0o777) for path in [folder, *folder.rglob("*")]}
    assert modes == {True: "0o700", False: "0o600"}
    keeper.leave()
    assert list(place.iterdir()) == []


OUTSIDE = [
    "../pixels.npy",
    "/tmp/pixels.npy",
    "0/../../pixels.npy",
    "0/pixels.npy\n",
    "0/.npy",
    "federation.json/x",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_keeper_writes_nowhere_else(place: Path, name: str) -> None:
    with pytest.raises(RunError, match="expected those of a federation"):
        Keeper().make({"0/pixels.npy": 1, name: 1})
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("name", "start"), [("0/pixels.npy", 1), ("0/targets.npy", 0), ("../pixels.npy", 0)])
def test_a_keeper_takes_no_more_than_was_announced(place: Path, name: str, start: int) -> None:
    keeper = Keeper()
    folder = Path(keeper.make({"0/pixels.npy": 4}))
    with pytest.raises(ValueError, match="more than was announced"):
        keeper.take(name, start, b"1234")
    assert stored(place) == {f"{folder.name}/0/pixels.npy": b""}
    keeper.leave()


def test_a_machine_without_room_says_how_much_is_needed(place: Path) -> None:
    with pytest.raises(RunError) as caught:
        Keeper().make({"0/pixels.npy": 10**18})
    reason = str(caught.value)
    assert reason.startswith(f"{socket.gethostname()} has no room")
    assert "they take 1,000,000,000,000,000,000 bytes" in reason and f"bytes are free in {place};" in reason
    assert list(place.iterdir()) == []


@pytest.fixture
def small(place: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if (
        not shutil.which("mount")
        or subprocess.run(mounted, stderr=subprocess.DEVNULL, timeout=300).returncode
    ):
        pytest.skip("needs to mount a small disk, as root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=300)


def test_a_disk_that_others_fill_meanwhile(small: Path) -> None:
    keeper = Keeper()
    folder = keeper.make({"0/pixels.npy": 900_000})
    (small / "another").write_bytes(bytes(500_000))
    with pytest.raises(RunError) as caught:
        keeper.take("0/pixels.npy", 0, bytes(300_000), bytes(600_000))
    reason = str(caught.value)
    assert reason.startswith(f"{socket.gethostname()}: cannot write {folder}/0/pixels.npy: ")
    assert "No space left on device (0 MB free)" in reason and "take 900,000 bytes" in reason
    keeper.leave()
    assert [path.name for path in small.iterdir()] == ["another"]


def test_the_next_keeper_clears_what_was_abandoned_and_nothing_else(place: Path) -> None:
    left, lock = claims.claim(str(place), PREFIX)
    (left / "0").mkdir()
    (left / "0" / "pixels.npy").write_bytes(b"123")
    inhabited, other = claims.claim(str(place), PREFIX)
    (place / "fedimages.npy").write_bytes(b"a user's")
    Keeper()
    assert left.exists()
    os.close(lock)  # as when its process ends
    Keeper()
    assert sorted(place.iterdir()) == sorted([inhabited, place / "fedimages.npy"])
    os.close(other)


KEEPER = """
import sys, time
from fedunlearn.federation.engines.flower import claims, keeper
claims.usual_places = lambda: [sys.argv[1]]
own = keeper.Keeper()
own.make({"0/pixels.npy": 3})
own.take("0/pixels.npy", 0, b"123")
print("made", flush=True)
time.sleep(60)
"""


HOLD = """
import sys, time
from pathlib import Path
from fedunlearn.federation.engines.flower import keeper
with keeper.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.gate
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_images_go_with_the_keeper(tmp_path: Path, number: signal.Signals) -> None:
    """Its group gets the signal, and it has no other children that would be seen or ended with it."""
    command = [sys.executable, "-c", KEEPER, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"made\n"
        [folder] = tmp_path.glob(f"{PREFIX}*")
        assert psutil.Process(process.pid).children() == []
        os.killpg(process.pid, number)
    deadline = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < deadline, "the images stay"
        time.sleep(0.02)


@pytest.mark.gate
def test_images_in_use_stay_until_their_last_user_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KEEPER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"made\n"
        [folder] = tmp_path.glob(f"{PREFIX}*")
        user = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
        with user:
            assert user.stdout is not None and user.stdout.readline() == b"held\n"
            process.kill()
            process.wait()
            claims.clear_abandoned(str(tmp_path), PREFIX, shutil.rmtree)
            time.sleep(0.5)
            assert (folder / "0" / "pixels.npy").read_bytes() == b"123"
            user.kill()
    deadline = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < deadline, "the images stay"
        time.sleep(0.02)


def test_only_folders_of_keepers_are_held(tmp_path: Path) -> None:
    with hold(tmp_path / "shared"):  # it may be on a disk without locks
        pass
    with pytest.raises(FileNotFoundError), hold(tmp_path / f"{PREFIX}gone"):
        pass

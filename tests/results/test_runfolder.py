"""Who may write to a run folder, what state it is in, and that its files change together or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from fedunlearn.results import audit
from fedunlearn.results.places import LOCK, claimed, locked, placed
from fedunlearn.results.runfolder import ABOUT, RunFolder, discard, parquet
from fedunlearn.results.signals import signal_table, table_signals
from tests.runs import contents

# ------------------------------------------------------------------------------------------------- one writer

HOLDER = """
import sys, time
from pathlib import Path
from fedunlearn.results.places import locked
with locked(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "held").touch()
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def take(folder: Path) -> None:
    with locked(folder):
        pass


def test_two_processes_cannot_write_to_one_folder_and_a_killed_ones_lock_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as process:
        began = time.monotonic()
        with pytest.raises(
            InputError, match=r"run is in use: another process is writing to it; wait .* --out"
        ):
            take(folder)
        assert time.monotonic() - began < 1
        (folder / "work").mkdir()
        with pytest.raises(InputError, match="another process is writing to it"):
            discard(folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / LOCK).exists(), "nobody was there to remove it"
        with locked(folder):
            assert (folder / "held").exists()


def test_a_thread_of_this_process_is_another_writer_too(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, locked(tmp_path):
        refused = pool.submit(take, tmp_path).exception(timeout=5)
    assert isinstance(refused, InputError)
    take(tmp_path)


def test_where_nothing_was_written_nothing_is_left_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "deep" / "run"):
        assert (tmp_path / "deep" / "run").is_dir()
    assert not (tmp_path / "deep" / "run").exists()
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert (tmp_path / "run" / "file").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to output folder .*: Not a directory"):
        take(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="cannot write to output folder"):
        take(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot make output folder .*: Not a directory"):
        claimed(tmp_path / "file" / "run")


def test_twenty_at_once_get_twenty_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: claimed(tmp_path / "runs" / "tiny"), range(20)))
    assert {path.name for path in found} == {"tiny", *(f"tiny-{number}" for number in range(2, 21))}
    assert all(path.is_dir() for path in found)


def test_the_folder_asked_for_is_taken_and_one_to_resume_must_be_named(tmp_path: Path) -> None:
    for resume in (False, True):
        with placed(tmp_path / "out", tmp_path / "default", resume) as place:
            assert place == tmp_path / "out"
    assert not list(tmp_path.iterdir())
    with placed(None, tmp_path / "default") as one, placed(None, tmp_path / "default") as other:
        assert (one, other) == (tmp_path / "default", tmp_path / "default-2")
    with (
        pytest.raises(InputError, match="--resume needs --out RUN"),
        placed(None, tmp_path / "default", resume=True),
    ):
        pass


def test_a_new_folder_in_which_nothing_was_written_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(InputError), placed(None, tmp_path / "runs" / "tiny"):
        raise InputError("the data is missing")
    assert not list(tmp_path.iterdir())
    with placed(None, tmp_path / "runs" / "tiny") as place:
        (place / "file").touch()
    assert (tmp_path / "runs" / "tiny" / "file").exists()


# ------------------------------------------------------------------------------------------- states of a folder


def finished(folder: Path) -> RunFolder:
    """A small folder as a run leaves it."""
    run = RunFolder.create(folder)
    run.write_text("scenario.yaml", "name: x\n")
    run.write_table("sites.parquet", pd.DataFrame({"image": ["a", "b"]}))
    audit.append(run.path / audit.FILE, "run-started", {})
    run.write_table("scores.parquet", pd.DataFrame({"value": [1.0, 2.0]}))
    run.write_table("bias.parquet", pd.DataFrame({"value": [0.1]}))
    run.write_manifest({"name": "x"})
    run.finish()
    return run


def unfinished(folder: Path) -> RunFolder:
    """A small folder as a killed run leaves it."""
    run = RunFolder.create(folder)
    run.write_text(ABOUT, "what is run")
    run.write_text("scenario.yaml", "name: x\n")
    for name in ("weights/a.safetensors.part", "work/journal/x/answer.part", "manifest.json"):
        run.write_text(name, "half")
    return run


def test_a_new_folder_has_its_parts(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} == {"weights", "signals", "work"}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (finished, r"is in use: name another with --out, or remove it"),
        (unfinished, r"holds an unfinished run: go on with it with --resume, remove it with `discard .*run`"),
        (lambda path: path.write_text("a file"), r"is in use"),
        (lambda path: (path / "notes").mkdir(parents=True), r"is in use"),
    ],
)
def test_a_folder_in_use_is_refused_and_left_alone(
    tmp_path: Path, made: Callable[[Path], object], words: str
) -> None:
    made(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=words):
        RunFolder.create(tmp_path / "run")
    assert contents(tmp_path) == before


def test_what_was_killed_before_it_began_is_no_use(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_text(f"{ABOUT}.part", "half")
    RunFolder.create(tmp_path / "run")
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.unfinished(tmp_path / "run")
    run.write_text(ABOUT, "what is run")
    with pytest.raises(InputError, match="holds an unfinished run"):
        RunFolder.create(tmp_path / "run")


def test_a_lock_alone_is_no_use(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        RunFolder.create(tmp_path / "run")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            unfinished,
            r"holds an unfinished run: go on with `simulate SCENARIO --out .*run --resume`.*`discard .*run`",
        ),
        (lambda path: path.mkdir(), r"is not a run folder: expected a manifest.json"),
        (lambda path: None, r"is not a run folder"),
        (lambda path: (finished(path).path / "DONE").unlink(), r"did not finish: expected a file DONE"),
    ],
)
def test_only_a_finished_run_is_opened(tmp_path: Path, made: Callable[[Path], object], words: str) -> None:
    made(tmp_path / "run")
    with pytest.raises(InputError, match=words):
        RunFolder.open(tmp_path / "run")


def test_only_an_unfinished_run_goes_on_without_what_was_half_written(tmp_path: Path) -> None:
    unfinished(tmp_path / "run")
    run = RunFolder.unfinished(tmp_path / "run")
    assert set(contents(run.path)) == {"scenario.yaml", ABOUT}
    finished(tmp_path / "done")
    with pytest.raises(InputError, match="holds a finished run, expected an unfinished one"):
        RunFolder.unfinished(tmp_path / "done")
    with pytest.raises(InputError, match="holds no run, expected an unfinished one"):
        RunFolder.unfinished(tmp_path / "nowhere")


def test_only_an_unfinished_run_is_discarded(tmp_path: Path) -> None:
    unfinished(tmp_path / "run")
    discard(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    finished(tmp_path / "done")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for name, what in (("done", "a finished run"), ("other", "no run"), ("nowhere", "no run")):
        with pytest.raises(InputError, match=rf"{name} holds {what}, expected an unfinished one"):
            discard(tmp_path / name)
    assert (tmp_path / "done" / "DONE").exists() and (tmp_path / "other" / "thesis.tex").exists()


def test_killed_between_done_and_cleaning_up_a_run_is_finished(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    run.write_text("work/history/x", "left over")
    assert RunFolder.open(run.path).read_manifest()["name"] == "x"
    with pytest.raises(InputError, match="a finished run"):
        RunFolder.unfinished(run.path)


# --------------------------------------------------------------------------------------------------- checksums


def test_the_manifest_lists_every_file_but_itself_the_lock_and_done(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        run = finished(tmp_path / "run")
        known = contents(run.path)
        assert run.read_manifest()["sha256"] == {
            name: known[name] for name in known if name not in ("manifest.json", "DONE", LOCK)
        }
        assert run.read_manifest()["audit"] == audit.anchor(run.path / audit.FILE)


def test_a_table_is_read_after_its_checksum(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    assert run.read_table("sites.parquet")["image"].tolist() == ["a", "b"]
    run.check(["sites.parquet", "scenario.yaml"])
    pd.DataFrame({"image": ["a", "c"]}).to_parquet(run.path / "sites.parquet", index=False)
    for read in (lambda: run.read_table("sites.parquet"), lambda: run.check(["sites.parquet"])):
        with pytest.raises(RunError, match=r"sites\.parquet is damaged: found sha256"):
            read()
    (run.path / "sites.parquet").unlink()
    with pytest.raises(RunError, match=r"cannot read .*sites\.parquet: No such file"):
        run.read_table("sites.parquet")
    run.write_table("more.parquet", pd.DataFrame({"image": ["a"]}))
    with pytest.raises(RunError, match=r"more\.parquet has no recorded checksum"):
        run.read_table("more.parquet")


def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    content = bytearray((run.path / "manifest.json").read_bytes())
    content[len(content) // 2] ^= 1
    (run.path / "manifest.json").write_bytes(content)
    for read in (
        lambda: RunFolder.open(run.path),
        run.read_manifest,
        lambda: run.read_table("sites.parquet"),
    ):
        with pytest.raises(RunError, match=r"manifest\.json"):
            read()


def test_signals_are_the_same_after_a_table(tmp_path: Path) -> None:
    """Each has two dimensions then; names may hold what separates numbers from them."""
    import torch

    signals = {"logits": torch.rand(5, 3), "dice_of_rim": torch.rand(5, 11), "rows": torch.arange(5)}
    run = RunFolder.create(tmp_path / "run")
    run.write_table("signals/x.parquet", signal_table(signals))
    found = table_signals(run.read_table("signals/x.parquet"))
    assert list(found) == ["logits", "dice_of_rim"]
    assert all(torch.equal(found[name], signals[name]) for name in found)
    pd.testing.assert_frame_equal(signal_table(found), run.read_table("signals/x.parquet"))


# ---------------------------------------------------------------------------------- files that change together


def new(run: RunFolder, value: float) -> dict[str, bytes]:
    """What scoring again would write."""
    tables = {name: parquet(pd.DataFrame({"value": [value]})) for name in ("scores.parquet", "bias.parquet")}
    return {**tables, audit.FILE: audit.extended(run.path / audit.FILE, "run-rescored", {"value": value})}


def values(run: RunFolder) -> set[float]:
    """The last value of each of the tables that change together."""
    manifest = run.read_manifest()
    run.check(manifest["sha256"])
    audit.verify(run.path / audit.FILE, manifest["audit"])
    return {float(run.read_table(name)["value"].iloc[-1]) for name in ("scores.parquet", "bias.parquet")}


def test_files_of_a_finished_run_are_renewed_together(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    names, sites = set(contents(run.path)), contents(run.path)["sites.parquet"]
    for value in (3.0, 4.0):
        run.renew(new(run, value))
        assert values(RunFolder.open(run.path)) == {value}
    assert set(contents(run.path)) == names and contents(run.path)["sites.parquet"] == sites


def test_what_is_damaged_stays_known_as_damaged(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    (run.path / "sites.parquet").write_bytes(b"spoiled")
    run.renew(new(run, 3.0))
    with pytest.raises(RunError, match=r"sites\.parquet is damaged"):
        run.check(["sites.parquet"])


class Killed(BaseException):
    """As if the process ended here."""


@pytest.mark.gate
@pytest.mark.parametrize("error", [Killed, OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("before", [0, 1])
def test_renewing_that_is_stopped_at_any_file_leaves_all_old_or_all_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, before: int
) -> None:
    """Stopped at the n-th file that is put into its place, of a folder that was renewed ``before`` or not."""
    honest, seen = os.replace, set[float]()
    for stop in range(9):
        run = finished(tmp_path / f"run-{stop}")
        for _ in range(before):
            run.renew(new(run, 3.0))
        fresh, left = new(run, 4.0), [stop]

        def replace(source: Any, target: Any, left: list[int] = left) -> None:
            if not left[0]:
                raise error
            left[0] -= 1
            honest(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", replace)
            try:
                run.renew(fresh)
            except (Killed, RunError, OSError):
                pass
            else:
                assert stop >= 7, "three new files, the manifest, and three places"
        found = values(RunFolder.open(run.path))
        assert found == {4.0} or found == ({3.0} if before else {2.0, 0.1})
        seen |= found
        run.renew(new(run, 5.0))
        assert values(RunFolder.open(run.path)) == {5.0}
    assert 4.0 in seen and len(seen) > 1


@pytest.mark.gate
@pytest.mark.parametrize("function", ["os.replace", "pathlib.Path.unlink"])
def test_files_go_together_with_what_is_renewed_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Stopped at the n-th file that is put into its place, or removed."""
    honest: Any = os.replace if function == "os.replace" else Path.unlink
    seen = set[bool]()
    for stop in range(9):
        run = finished(tmp_path / f"run-{stop}")
        left = [stop]

        def step(*arguments: Any, left: list[int] = left, **options: Any) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            honest(*arguments, **options)

        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(function, step)
            run.renew(new(run, 4.0), removed=["sites.parquet"])
        found = values(RunFolder.open(run.path))
        gone = not (run.path / "sites.parquet").exists()
        assert found == ({4.0} if gone else {2.0, 0.1})
        assert ("sites.parquet" in run.read_manifest()["sha256"]) != gone
        seen.add(gone)
        run.renew(new(run, 5.0))
        assert values(RunFolder.open(run.path)) == {5.0}
    assert True in seen


def test_what_waits_for_its_place_is_no_file_of_the_run(tmp_path: Path) -> None:
    """Stopped before the manifest spoke of it; whoever writes next removes it."""
    run = finished(tmp_path / "run")
    for name in ("scores.parquet.0.next", "report.html.0.next.part"):
        run.write_text(name, "half")
        assert name not in run.listed()
    assert values(RunFolder.open(run.path)) == {2.0, 0.1}
    names = set(contents(run.path))
    run.renew(new(run, 3.0))
    assert set(contents(run.path)) == {name for name in names if not name.endswith((".next", files.PART))}


@pytest.mark.parametrize("late", [False, True])
def test_whoever_opens_a_run_while_it_is_renewed_leaves_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Another process opens it before the n-th file is put into its place, for every n; a late one read the manifest
    that was there before."""
    honest, run = os.replace, finished(tmp_path / "run")
    run.renew(new(run, 3.0))
    for stop in range(8):
        left, before = [stop], run.read_manifest()

        def replace(
            source: Any, target: Any, left: list[int] = left, before: dict[str, Any] = before
        ) -> None:
            left[0] -= 1
            if left[0] == -1:
                with monkeypatch.context() as other:
                    if late:
                        other.setattr(RunFolder, "read_manifest", lambda self: before)
                    RunFolder.open(run.path)
            honest(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", replace)
            run.renew(new(run, float(stop)))
        assert values(RunFolder.open(run.path)) == {float(stop)}
    assert left[0] >= 0, "three new files, the manifest, and three places"


def test_a_settled_run_is_opened_where_nothing_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path / "run")
    run.renew(new(run, 3.0), removed=["sites.parquet"])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for function in ("os.replace", "os.rename", "os.unlink", "os.fsync", "pathlib.Path.unlink"):
        monkeypatch.setattr(function, refuse)
    assert values(RunFolder.open(run.path)) == {3.0}


def test_the_same_arrays_are_the_same_file(tmp_path: Path) -> None:
    """Zip archives hold times; here they must not."""
    import numpy as np

    run = RunFolder.create(tmp_path / "run")
    for name in ("a.npz", "b.npz"):
        run.write_arrays(name, {"x": np.arange(3), "y": np.ones(2)})
    assert files.sha256(run.path / "a.npz") == files.sha256(run.path / "b.npz")

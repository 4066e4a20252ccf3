"""The engine on Flower and Ray: the same bits as inline, and every way in which a worker can fail.

Ray is started four times in all, since that takes its time: on this machine, by the engine, once for everything that
goes on within one run (`seen`) and twice to be interrupted, and once as a cluster that the engine attaches to.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import psutil
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from fedunlearn import guests, interrupts, weights as w
from fedunlearn.core import (
    FedunlearnError,
    Form,
    InputError,
    Interrupted,
    LocalTraining,
    Reply,
    RunError,
    Select,
    SiteError,
    Task,
    Weights,
)
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer, Ask, Link
from fedunlearn.federation.engines.flower import (
    Flower,
    cluster as clusters,
    crew,
    scratch,
    session,
    worker,
)
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.models import SmallCNN, initial_weights
from fedunlearn.learning.tasks import Fit
from sites.hospital import Federation
from tests import guest
from tests.federation.pair import end

# Ray leaves files and processes for the garbage collector to close.
pytestmark = [
    pytest.mark.usefixtures("heard"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SITES = ("east", "north", "west")
TIMEOUT = 20.0  # seconds: on a busy machine LONG takes some ten
WEIGHTS = initial_weights(SmallCNN(), Form((3, 28, 28), 4), seed=1)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng, number = tmp_path_factory.mktemp("federation"), np.random.default_rng(0), np.arange(120)
    pixels = rng.integers(0, 256, (120, 3, 28, 28), dtype=np.uint8)
    targets, site = rng.integers(0, 4, 120), np.array(SITES)[number % 3]
    Federation.write(folder, pixels, targets, site, np.full(120, "train"), {}, SmallCNN(), 4)
    return folder


def fit(epochs: int = 1, weights: Weights = WEIGHTS) -> Fit:
    return Fit(weights, Select(), LocalTraining(epochs=epochs), seed=3)


ENDLESS = fit(epochs=10**9)
LONG = fit(epochs=250)  # a second or more


def digest(weights: Weights | None) -> str:
    assert weights is not None
    return hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights.values())).hexdigest()


def averaged(link: Link, training: LocalTraining = LocalTraining()) -> dict[int, str]:  # noqa: B008 - frozen
    """Three federated averagings at once, and what they end with."""
    digests: dict[int, str] = {}

    def job(seed: int) -> Job[Weights]:
        def then(weights: Weights) -> tuple[()]:
            digests[seed] = digest(weights)
            return ()

        rounds = fedavg(WEIGHTS, SITES, Select(), training, range(2), seed)
        return Job(Label("original", "", "original", seed), rounds, then)

    drive([job(seed) for seed in range(3)], link)
    return digests


def alone(link: Link, task: Task, site: str = "north") -> Answer:
    link.submit([Ask(0, site, task)])
    [answer] = link.collect()
    return answer


def failure(link: Link, weights: Weights, site: str = "north", lr: float = 2e-3) -> str:
    """What stops a run in which one hospital cannot do its work."""
    training = fedavg(weights, [site], Select(), LocalTraining(lr=lr), range(1), seed=1)
    with pytest.raises(SiteError) as caught:
        drive([Job(Label("original", "", "original", 1), training)], link)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- without Ray


@pytest.mark.gate
def test_the_module_loads_neither_flower_nor_ray() -> None:
    code = (
        "import sys, fedunlearn.federation.engines.flower; sys.exit(len({'flwr', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


VALUES = {
    "conv/0.weight": torch.arange(6.0).reshape(2, 3).t(),  # not contiguous
    "": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
    "scalar": torch.tensor(0.1),
    "steps": torch.tensor(7),
    "empty": torch.empty(0, 3),
    "mask": torch.tensor([[True, False]]),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "long": torch.tensor([-(2**63), 2**63 - 1]),
    "double": torch.tensor([0.1], dtype=torch.float64),
    "half": torch.tensor([0.1], dtype=torch.float16),
    "brain": torch.tensor([[0.1], [3e38]], dtype=torch.bfloat16),
}


def test_answers_cross_the_wire_bit_for_bit(tmp_path: Path) -> None:
    with clusters.environment(tmp_path), clusters.quiet():
        answer = Answer(3, Reply(VALUES, 5, {"rows": torch.arange(4)}), None, 0.1 + 0.2, 40)
        (back,) = worker.value(worker.record((answer,)))
    assert (back.ticket, back.error, back.seconds, back.images) == (3, None, 0.1 + 0.2, 40)
    assert list(back.reply.weights) == list(VALUES) and back.reply.count == 5
    assert torch.equal(back.reply.arrays["rows"], torch.arange(4))
    for name, value in VALUES.items():
        got = back.reply.weights[name]
        assert (got.dtype, got.shape) == (value.dtype, value.shape), name
        bits = [one.contiguous().view(-1).view(torch.uint8) for one in (got, value)]
        assert torch.equal(*bits), name
        got.zero_()  # its memory is its own


def test_tasks_cross_the_wire(tmp_path: Path) -> None:
    errand = worker.Errand((Ask(2, "north", fit()),), 1.5, "code")
    with clusters.environment(tmp_path), clusters.quiet():
        back = worker.value(worker.record(errand))
    [ask] = back.asks
    assert (ask.ticket, ask.site, back.timeout) == (2, "north", 1.5)
    assert digest(ask.task.weights) == digest(WEIGHTS) and ask.task.training == LocalTraining()


def test_an_address_where_nothing_listens_is_refused_at_once(federation: Path) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=r"no Ray cluster at '127.0.0.1:1'.*ray start --head"):
        Flower(address="127.0.0.1:1").run(federation, lambda link: None)
    assert time.monotonic() - began < 30


def test_the_environment_is_put_back(tmp_path: Path) -> None:
    before = dict(os.environ)
    with clusters.environment(tmp_path):
        assert os.environ["FLWR_TELEMETRY_ENABLED"] == os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert Path(os.environ["FLWR_HOME"]).is_relative_to(tmp_path)
    assert dict(os.environ) == before


def test_ray_that_does_not_start_is_given_up_by_name(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one starts only once its thread has ended, since Ray has one state for the whole process."""
    release = threading.Event()

    @contextmanager
    def never(wanted: clusters.Wanted, folder: Path) -> Iterator[None]:
        release.wait(60)
        yield

    for name, value in (("cluster", never), ("_BOOT", 0.5), ("_FAREWELL", 0.2)):
        monkeypatch.setattr(session, name, value)
    try:
        with pytest.raises(RunError, match=r"^Ray did not start within 0.5 s"):
            Flower(workers=1).run(federation, lambda link: None)
        monkeypatch.setattr(session, "_BOOT", 20.0)
        monkeypatch.setattr(session, "_LEFT", 0.1)
        with pytest.raises(RunError, match=r"^Ray of an earlier run in this process has not ended for 0.1 s"):
            Flower(workers=1).run(federation, lambda link: None)
    finally:
        release.set()


def test_a_session_waits_for_the_thread_of_one_before(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.Thread(target=time.sleep, args=(0.3,), name=session._THREAD)
    before.start()

    def started(wanted: clusters.Wanted, folder: Path) -> NoReturn:
        raise InputError("it still lives" if before.is_alive() else "it has ended")

    monkeypatch.setattr(session, "cluster", started)
    with pytest.raises(InputError, match=r"^it has ended$"):
        Flower(workers=1).run(federation, lambda link: None)


def test_what_goes_wrong_while_ray_starts_is_told_as_it_is(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(shared: int, disk: int) -> int:
        raise InputError("no room")

    monkeypatch.setattr(scratch, "store_size", no_room)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match="no room"):
        Flower(workers=1).run(federation, lambda link: None)


# --------------------------------------------------------------------------------------- one run with everything


@dataclass(frozen=True)
class Seen:
    """What happened in the one run on this machine."""

    averaged: dict[int, str]
    stacked: dict[int, str]
    guests: list[Answer]
    wrong_names: str
    wrong_shape: str
    nan: str
    unknown_site: str
    killed: str
    stuck: list[Answer]
    seconds_to_end: float
    threads_left: list[str]
    niceness: set[int]
    marked: tuple[set[int], set[int]]
    left: list[str]
    references: list[str]


@pytest.fixture(scope="module")
def seen(federation: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    notes: dict[str, object] = {}

    def everything(link: Link) -> None:
        notes["averaged"] = averaged(link)
        notes["stacked"] = averaged(link, LocalTraining(stack=2))
        notes["guests"] = [alone(link, task) for task in from_a_file(tmp_path_factory.mktemp("guests"))]
        notes["wrong_names"] = failure(link, {"other": torch.zeros(3)})
        notes["wrong_shape"] = failure(link, {name: torch.tensor(0.5) for name in WEIGHTS})
        notes["nan"] = failure(link, WEIGHTS, lr=1e30)
        notes["unknown_site"] = failure(link, WEIGHTS, "nowhere")
        notes["niceness"] = niceness(link)
        [folder] = there.iterdir()
        found = {process.pid for process in scratch.inhabitants(folder)}
        notes["marked"] = found, set(descendants(os.getpid()))
        notes["killed"] = killed(link)
        notes["stuck"] = stuck(link)
        notes["end"] = time.monotonic()
        raise FedunlearnError("the end")

    with place() as there, uncollected():
        with pytest.raises(FedunlearnError, match="the end"):
            Flower(workers=2, timeout=TIMEOUT).run(federation, everything)
        notes["left"] = left(there)
        notes["references"] = [str(one) for one in gc.get_objects() if type(one).__name__ == "ObjectRef"]
    end = notes.pop("end")
    assert isinstance(end, float)
    threads = [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name]
    return Seen(**notes, seconds_to_end=time.monotonic() - end, threads_left=threads)  # type: ignore[arg-type]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's collection of cycles: what they hold on to stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


TASK = """
from dataclasses import dataclass
from fedunlearn.core import Local, Reply, Select
@dataclass(frozen=True)
class Brightness:
    select: Select
    def __call__(self, local: Local) -> Reply:
        images = local.images(self.select)
        return Reply(None, len(images), {"mean": images.pixels.double().mean()[None]})
"""


def from_a_file(folder: Path) -> list[Task]:
    """A task of a class that only a user's file has, and one with such an objective; the files are gone then."""
    paths = [guest.write(folder, TASK, "task.py"), guest.write(folder)]
    task, objective = (vars(guests.admit(guests.read(path))) for path in paths)
    for path in paths:
        path.unlink()
    return [task["Brightness"](Select()), Fit(WEIGHTS, Select(), LocalTraining(), 3, objective["Uniform"]())]


def niceness(link: Link) -> set[int]:
    """How much later than this process its workers come."""
    link.submit([Ask(0, "north", LONG)])
    [worker] = at_work(1)
    nice = psutil.Process(worker).nice() - psutil.Process().nice()
    assert link.collect()[0].error is None
    return {nice}


def killed(link: Link) -> str:
    """Kill the worker in the middle of a task."""
    link.submit([Ask(0, "north", LONG)])
    [worker] = at_work(1)
    time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    [answer] = link.collect()
    assert answer.reply is not None, answer.error
    return digest(answer.reply.weights)


def stuck(link: Link) -> list[Answer]:
    """One task that never ends, and one worker that is lost altogether."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew, "SILENCE", 3)
        link.submit([Ask(1, "north", ENDLESS), Ask(2, "west", ENDLESS)])
        os.kill(at_work(2)[0], signal.SIGSTOP)
        answers = list(link.collect())
        while len(answers) < 2:
            answers.extend(link.collect())
    return answers


def at_work(count: int) -> list[int]:
    """The process ids of ``count`` actors of ours that compute, as soon as there are as many."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        before = {pid: computed(pid) for pid in actors()}
        time.sleep(0.2)
        busy = [pid for pid in before if computed(pid) - before[pid] > 0.05]
        if len(busy) == count:
            return busy
    raise AssertionError("no actor is at work")


def actors() -> list[int]:
    return [pid for pid in descendants(os.getpid()) if b"ray::Actor" in command(pid)]


def computed(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    try:
        return float(psutil.Process(pid).cpu_times().user)
    except psutil.Error:  # ended meanwhile
        return 0.0


@contextmanager
def place() -> Iterator[Path]:
    """Where the engine's temporary folder is, and nothing else; pytest's own are too deep for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="f-") as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "_usual_places", lambda: [name])
        yield Path(name)


def left(place: Path) -> list[str]:
    """What there still is of Ray: folders, descendants of this process, and those whom others adopted."""
    own = [psutil.Process(pid) for pid in descendants(os.getpid())]
    adopted = [process for process in psutil.process_iter() if belongs(process, place)]
    return [*map(str, place.iterdir()), *(process.name() for process in [*own, *adopted])]


def belongs(process: psutil.Process, place: Path) -> bool:
    """Not asked of psutil, which stops to read where Ray's processes have written their titles."""
    try:
        return f"{scratch.MARK}={place}/".encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return False


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield child
            yield from descendants(child)


@pytest.fixture(scope="module")
def inline(federation: Path) -> Callable[[Callable[[Link], object]], object]:
    return lambda body: Inline(workers=2).run(federation, body)


Run = Callable[[Callable[[Link], object]], object]


@pytest.mark.ray
def test_nothing_of_ray_is_left(seen: Seen) -> None:
    assert seen.left == []


@pytest.mark.ray
def test_no_reference_outlives_its_cluster(seen: Seen) -> None:
    assert seen.references == []  # those of the next cluster have the same numbers


@pytest.mark.ray
def test_all_that_ray_starts_is_found(seen: Seen) -> None:
    found, descendants = seen.marked
    assert found == descendants and len(found) >= 6  # gcs, raylet, two agents and two workers at least


@pytest.mark.ray
def test_workers_are_as_nice_as_the_driver(seen: Seen) -> None:
    assert seen.niceness == {0}  # Ray's own choice is 15


@pytest.mark.ray
def test_same_bits_as_inline(seen: Seen, inline: Run) -> None:
    assert seen.averaged == inline(averaged)
    assert seen.stacked == inline(lambda link: averaged(link, LocalTraining(stack=2)))
    assert len(set(seen.averaged.values())) == 3


@pytest.mark.ray
def test_a_hospital_that_raises_is_named_in_one_line(seen: Seen) -> None:
    assert "\n" not in seen.wrong_names + seen.unknown_site
    assert "hospital 'north' failed in original seed 1, round 1: ValueError: " in seen.wrong_names
    assert "weights do not fit the network" in seen.wrong_names
    assert (
        "hospital 'nowhere' failed in original seed 1, round 1: ValueError: found no hospital"
        in seen.unknown_site
    )


@pytest.mark.ray
def test_workers_are_sent_the_code_of_a_users_file(seen: Seen, inline: Run, tmp_path: Path) -> None:
    """By its content: no file is there when they need it. Their answers are those of this process."""
    for got, task in zip(seen.guests, from_a_file(tmp_path), strict=True):
        expected = inline(functools.partial(alone, task=task))
        assert isinstance(expected, Answer) and expected.reply is not None
        assert got.error is None and got.reply is not None
        assert w.digest(got.reply.arrays) == w.digest(expected.reply.arrays)
        assert w.digest(got.reply.weights or {}) == w.digest(expected.reply.weights or {})


@pytest.mark.ray
def test_nan_and_weights_of_a_wrong_shape_are_refused(seen: Seen) -> None:
    assert "its reply holds NaN or infinity" in seen.nan
    assert "the weights do not fit the network" in seen.wrong_shape


@pytest.mark.ray
def test_a_killed_worker_is_replaced_with_the_same_bits(seen: Seen, inline: Run) -> None:
    answer = inline(lambda link: alone(link, LONG))
    assert isinstance(answer, Answer) and answer.reply is not None
    assert seen.killed == digest(answer.reply.weights)


@pytest.mark.ray
def test_hospitals_that_hang_are_answered_for_and_the_run_ends(seen: Seen) -> None:
    assert {answer.ticket for answer in seen.stuck} == {1, 2}
    assert {answer.error for answer in seen.stuck} == {f"no answer within {TIMEOUT:g} s"}
    assert seen.seconds_to_end < 15 and seen.threads_left == []


# ---------------------------------------------------------------------------------------------------- interrupted


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_tasks_run_or_ray_starts_leaves_nothing(
    federation: Path, number: signal.Signals
) -> None:
    in_a_process("interrupted", str(federation), number.name)


def in_a_process(does: str, *arguments: str) -> None:
    """Do what stops Ray while it starts where no other test needs it: its thread may have to be left behind."""
    code = f"import sys\nfrom {__name__} import {does}\n{does}(*sys.argv[1:])"
    with tempfile.TemporaryFile("w+") as said:  # no pipe, which what Ray starts might hold open
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], stdout=said, stderr=said, check=False, timeout=300
        )
        said.seek(0)
        assert done.returncode == 0, said.read()


def interrupted(folder: str, name: str) -> None:
    """SIGTERM to a process whose tasks run, SIGINT to one that starts Ray, and to all processes of Ray's at once."""
    federation, number = Path(folder), signal.Signals[name]
    began = 0.0
    handlers = [signal.getsignal(n) for n in interrupts.SIGNALS]

    def interrupt() -> None:
        nonlocal began
        began = time.monotonic()
        for pid in [*descendants(os.getpid()), os.getpid()]:
            with suppress(ProcessLookupError):  # ended meanwhile
                os.kill(pid, number)

    def body(link: Link) -> None:
        link.submit([Ask(0, "north", ENDLESS)])
        at_work(1)
        interrupt()
        link.collect()

    def interrupt_boot() -> None:
        wait_for_process("gcs_server")
        interrupt()

    if number == signal.SIGINT:
        threading.Thread(target=interrupt_boot).start()
    with place() as there:
        with pytest.raises(Interrupted) as caught:
            Flower(workers=1).run(federation, body)
        assert time.monotonic() - began < 15
        assert caught.value.exit_code == 128 + number
        assert left(there) == []
    assert [signal.getsignal(n) for n in interrupts.SIGNALS] == handlers


def wait_for_process(name: str) -> None:
    deadline = time.monotonic() + 180
    while not any(name.encode() in command(pid) for pid in descendants(os.getpid())):
        assert time.monotonic() < deadline, f"no {name} was started"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------ a cluster of others


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A Ray cluster that is not the engine's; ends with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    options = [
        "--num-cpus=2",
        "--include-dashboard=false",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
    ]
    process = subprocess.Popen([*ray, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        end(process)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the cluster did not start")


@pytest.mark.ray
@pytest.mark.slow
def test_attaches_to_a_cluster_and_leaves_it_up_when_interrupted(
    federation: Path, cluster: str, inline: Run
) -> None:
    got: dict[int, str] = {}
    interrupted = 0.0

    def body(link: Link) -> None:
        nonlocal interrupted
        got.update(averaged(link))
        link.submit([Ask(0, "north", ENDLESS)])
        time.sleep(1)
        interrupted = time.monotonic()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Flower(address=cluster, workers=1).run(federation, body)
    assert time.monotonic() - interrupted < 15
    assert got == inline(averaged)
    wait_for(int(cluster.rpartition(":")[2]))  # still up


# ------------------------------------------------------------------------------------- one staff for several runs


@pytest.mark.ray
def test_workers_come_once_for_several_federations_and_before_the_first(
    federation: Path, inline: Run, tmp_path: Path
) -> None:
    """Of each run, they see its own hospitals; what the first left undone keeps nobody from the second."""
    other, rng = tmp_path / "other", np.random.default_rng(1)
    pixels, site = rng.integers(0, 256, (40, 3, 28, 28), dtype=np.uint8), np.array(["south", "north"])
    Federation.write(
        other,
        pixels,
        rng.integers(0, 4, 40),
        site[np.arange(40) % 2],
        np.full(40, "train"),
        {},
        SmallCNN(),
        4,
    )

    def first(link: Link) -> None:
        notes.append(averaged(link))
        seen.append(set(actors()))
        link.submit([Ask(0, "north", ENDLESS)])

    def second(link: Link) -> None:
        notes.append({site: digest(alone(link, fit(), site).reply.weights) for site in ("south", "north")})  # type: ignore[union-attr]
        notes.append(alone(link, fit(), "east").error)
        seen.append(set(actors()))

    notes, seen = list[object](), list[set[int]]()
    with place() as there:
        with Flower(workers=2, timeout=TIMEOUT).staff() as staff:
            deadline = time.monotonic() + 180
            while not actors():  # nobody has said what they are to work on
                assert time.monotonic() < deadline
                time.sleep(0.1)
            staff.run(federation, first)
            staff.run(other, second)
        assert left(there) == []
    assert len(seen[0]) == 2 and len(seen[0] & seen[1]) == 1  # who was at work went
    expected = Inline(workers=1)
    alike = expected.run(
        other,
        lambda link: {
            site: digest(alone(link, fit(), site).reply.weights)  # type: ignore[union-attr]
            for site in ("south", "north")
        },
    )
    assert notes[:2] == [inline(averaged), alike] and "east" in str(notes[2])


def test_while_ray_starts_no_product_of_matrices_waits_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray forks, before which OpenBLAS ends its threads; whoever waited for them would wait for ever."""

    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    monkeypatch.setattr("fedunlearn.federation.engines.flower.started", nullcontext)
    with threadpool_limits(2, "blas"):
        with Flower(workers=1).staff():
            assert threads() == {1}
        assert threads() == {2}


@pytest.mark.ray
def test_an_error_while_ray_starts_leaves_nothing() -> None:
    in_a_process("fails")


def fails() -> None:
    with place() as there:
        with pytest.raises(InputError, match="no such file"):
            fails_while_ray_starts()
        assert left(there) == []


def fails_while_ray_starts() -> None:
    with Flower(workers=1).staff():
        wait_for_process("gcs_server")
        raise InputError("no such file")

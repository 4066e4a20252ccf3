from __future__ import annotations

import faulthandler
import functools
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("fedunlearn", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("fedunlearn")


def pytest_unconfigure(config: pytest.Config) -> None:
    """A process that does not end once its tests have is ended, and says where it was."""
    if not hasattr(config, "workerinput"):  # else it waits for the others
        faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__ or 2)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As in every worker, since the bits depend on it.

    Torch is imported here: the process that only hands out tests does without.
    """
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept for a user stays out of the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cuts() -> Iterator[None]:
    """Nothing waits for the disk, some hundred times in the smallest run: what a killed process leaves is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def blank_pages() -> Iterator[None]:
    """The page of a run takes longer than so small scenarios; tests/pages has the real ones."""
    from fedunlearn import pages

    @functools.wraps(pages.report)
    def blank(run: object) -> str:
        return "<!doctype html>"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "report", blank)
        yield


@pytest.fixture
def heard() -> Iterator[None]:
    """For tests of signals: none is ignored, as those are that `nohup`, or ``&`` in a script, starts the tests with."""
    ignored = [n for n in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(n) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def unscored() -> Iterator[None]:
    """For tests of weights alone."""
    from tests.runs import without_scores

    with without_scores():
        yield


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """For modules in which intervals do not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        yield

"""The inline engine: what a worker that hangs leaves behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fedunlearn.core import SiteError
from fedunlearn.federation.engines import Answer, Ask, inline
from fedunlearn.learning.models import Network
from sites.hospital import Federation
from tests.runs import run, weight_files


@pytest.mark.usefixtures("unscored")
def test_a_worker_that_hangs_is_replaced_when_its_task_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest, hung, release = inline.perform, list[Ask](), threading.Event()

    def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
        answer = honest(federation, network, ask)
        if not hung:
            hung.append(ask)
            release.wait(30)
        return answer

    expected = run(tmp_path, "seeds=[1]", "strategies=[]", name="expected")
    monkeypatch.setattr(inline, "perform", perform)
    healed = run(
        tmp_path, "seeds=[1]", "strategies=[]", "engine={name: inline, workers: 1, timeout: 3, retries: 1}"
    )
    release.set()
    assert hung and weight_files(healed) == weight_files(expected)


def test_threads_that_do_not_hang_end_with_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
        return Answer(ask.ticket, None, "ValueError: no", 0.0, 0)

    before = set(threading.enumerate())  # one that another test let go may be ending just now
    monkeypatch.setattr(inline, "perform", perform)
    with pytest.raises(SiteError, match="ValueError: no"):
        run(tmp_path, "seeds=[1]", "strategies=[]")
    assert set(threading.enumerate()) <= before

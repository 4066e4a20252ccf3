"""The inline engine: what a worker that hangs leaves behind."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedunlearn.core import InputError, Local, Reply, SiteError
from fedunlearn.federation.engines import Answer, Ask, inline, work
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import here
from fedunlearn.learning import devices
from fedunlearn.learning.models import Network, SmallCNN
from sites.hospital import Federation
from tests.runs import run, weight_files


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_a_worker_that_hangs_is_replaced_when_its_task_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest, hung, release = work.alone, list[Ask](), threading.Event()

    def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
        answer = honest(federation, network, ask)
        if not hung:
            hung.append(ask)
            release.wait(30)
        return answer

    expected = run(tmp_path, "seeds=[1]", "strategies=[]", name="expected")
    monkeypatch.setattr(work, "alone", perform)
    healed = run(
        tmp_path, "seeds=[1]", "strategies=[]", "engine={name: inline, workers: 1, timeout: 3, retries: 1}"
    )
    release.set()
    assert hung and weight_files(healed) == weight_files(expected)


def test_a_worker_that_hangs_is_noticed_while_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """These go on for 5 s, the hospital may take .2 s."""
    release, others = threading.Event(), 500

    def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
        release.wait(30 if ask.site == "hangs" else 0.01)
        return Answer(ask.ticket, None, None, 0.01, 0)

    monkeypatch.setattr(work, "alone", perform)
    federation: Any = SimpleNamespace(network=lambda device: None)
    link = inline._Link(federation, 2, 0.2, "cpu", here())
    task: Any = None
    link.submit([Ask(0, "hangs", task), *(Ask(i, "north", task) for i in range(1, 1 + others))])
    answers = list[Answer]()
    while 0 not in {answer.ticket for answer in answers}:
        answers += link.collect()
    release.set()
    link.close()
    assert answers[-1].error == "no answer within 0.2 s" and len(answers) <= others / 2


def test_threads_that_do_not_hang_end_with_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
        return Answer(ask.ticket, None, "ValueError: no", 0.0, 0)

    before = set(threading.enumerate())  # one that another test let go may be ending just now
    monkeypatch.setattr(work, "alone", perform)
    with pytest.raises(SiteError, match="ValueError: no"):
        run(tmp_path, "seeds=[1]", "strategies=[]")
    assert set(threading.enumerate()) <= before


@dataclass(frozen=True)
class Failing:
    """A task that raises."""

    error: Exception

    def __call__(self, local: Local) -> Reply:
        raise self.error


@pytest.mark.parametrize(
    ("error", "says", "unfit", "tidied"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "micro_batch", False, 1),
        (RuntimeError("CUDA error: device-side assert triggered"), "cannot use its GPU any more", True, 0),
        (ValueError("no"), "ValueError: no", False, 1),
    ],
)
def test_what_fails_on_a_device_is_told_with_what_to_do(
    error: Exception, says: str, unfit: bool, tidied: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Memory is given back once nothing holds it, but by no process that its GPU is lost to: it is unfit."""
    holding = list[bool]()
    monkeypatch.setattr(devices, "tidy", lambda device: holding.append(sys.exc_info()[0] is not None))
    pixels, site = np.zeros((1, 1, 28, 28), dtype=np.uint8), np.array(["north"])
    Federation.write(tmp_path, pixels, np.array([0]), site, np.array(["train"]), {}, SmallCNN(), 2)
    federation = Federation.open(tmp_path)
    [answer] = work.perform(federation, federation.network(), [Ask(7, "north", Failing(error))])
    assert (answer.ticket, answer.reply, answer.unfit, holding) == (7, None, unfit, [False] * tidied)
    assert answer.error is not None and says in answer.error


@pytest.mark.skipif(torch.version.cuda is not None, reason="this build of torch has CUDA")
def test_a_device_that_is_not_there_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"CUDA: none.*engine: {name: inline, device: cpu}"):
        Inline(device="cuda").run(tmp_path, lambda link: None)

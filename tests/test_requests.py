"""The benchmark of many requests runs: none is lost, none is unlearned twice, each has a record, killed or not."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from benchmarks import requests


@pytest.mark.gate
def test_no_request_is_lost_or_answered_twice() -> None:
    printed = _printed("--quick")
    assert (asked := re.search(r"requests: (\d+) came in", printed)) and int(asked[1]) > 50
    assert "lost: 0\n" in printed and f"{asked[1]} of {asked[1]}; other records: 0" in printed
    policies = re.findall(
        r"of (\d+) accepted erasures of training images (\d+) .*; twice, or though not to be: (\d+); "
        r"barred once from training: (\d+) of (\d+); otherwise in the log: (\d+)",
        printed,
    )
    assert len(policies) == 2
    for wanted, once, wrong, barred, accepted, other in policies:
        assert wanted == once and barred == accepted and wrong == other == "0"
    for state in ("open", "refused", "accepted", "quota", "unknown_patient"):
        assert re.search(rf"[1-9]\d* {state}", printed), state


@pytest.mark.gate
def test_killed_runs_come_to_the_same_records() -> None:
    printed = _printed("--requests", "20", "--kills", "2")
    ended = re.search(r"resumed to their end: (\d+); with the same records: (\d+)", printed)
    assert ended and ended[1] == ended[2] != "0"


def _printed(*arguments: str) -> str:
    command = [sys.executable, requests.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout

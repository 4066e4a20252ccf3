"""How many cores may be used: those a process may run on, and no more than its control groups give it time of."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedunlearn import cores


def groups(folder: Path, lines: str, **settings: str) -> float:
    """The quota of a process in the groups of these lines; settings by their place."""
    (folder / "groups").write_text(lines)
    for place, content in settings.items():
        file = folder / "mounted" / place.replace("__", "/").replace("cpu_", "cpu.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return cores.quota(folder / "groups", folder / "mounted")


def test_the_smallest_quota_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    of = {
        "batch__job__cpu_max": "400000 100000\n",
        "batch__cpu_max": "150000 100000\n",
        "cpu_max": "max 100000\n",
    }
    assert groups(tmp_path, "0::/batch/job\n", **of) == 1.5
    assert groups(tmp_path, "0::/other\n", **of) == math.inf
    assert groups(tmp_path, "0::/seen/from/outside\n", cpu_max="50000 100000") == 0.5


def test_version_1_has_a_folder_for_cpus_and_minus_one_for_no_limit(tmp_path: Path) -> None:
    lines = "9:name=systemd:/\n4:cpu,cpuacct:/job\n3:cpuset:/job\n0::/\n"
    period = {"cpu__job__cpu_cfs_period_us": "100000", "cpu__cpu_cfs_period_us": "100000"}
    free = {**period, "cpu__job__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_quota_us": "-1"}
    assert groups(tmp_path, lines, **free) == math.inf
    assert groups(tmp_path, lines, **{**free, "cpu__job__cpu_cfs_quota_us": "300000"}) == 3


def test_where_nothing_is_said_there_is_no_quota(tmp_path: Path) -> None:
    assert cores.quota(tmp_path / "none", tmp_path) == math.inf
    assert groups(tmp_path, "0::/\n") == math.inf
    assert groups(tmp_path, "0::/\n", cpu_max="nonsense") == math.inf


def test_those_it_may_run_on_and_no_more_than_the_quota_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7})
    for quota, expected in ((math.inf, 3), (1.5, 2), (0.2, 1), (8.0, 3)):
        monkeypatch.setattr(cores, "quota", lambda quota=quota: quota)
        assert cores.usable() == expected
    monkeypatch.setattr(cores, "quota", lambda: math.inf)
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    assert cores.usable() == 64
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores.usable() == 1

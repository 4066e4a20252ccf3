"""What is said of machines that differ: told by hand for machines that nobody has."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.federation.engines import looking
from fedunlearn.federation.engines.machines import Machine, described, faults, here, notes, read, strange
from fedunlearn.installation import PACKAGES, ROOT

VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "flwr": "1.41.0", "ray": "2.55.1"}
HEAD = Machine("head", "", VERSIONS, "c0de", "Xeon", "AVX512", architecture="x86_64")
NODE = replace(HEAD, host="node2", node="2")


def but(**versions: str | None) -> dict[str, str]:
    return {name: v for name, v in {**VERSIONS, **versions}.items() if v is not None}


def test_a_like_machine_has_no_faults() -> None:
    assert list(faults(HEAD, NODE)) == []
    assert notes([HEAD, NODE]) == []
    assert list(faults(HEAD, replace(NODE, processor="EPYC", cpu="AVX2", device="H200"))) == []


LIKE = "as on 'head', where this was started"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"code": "other"},
            f"found other code of fedunlearn; expected the same {LIKE}: bring it up to date there",
        ),
        (
            {"code": ""},
            f"found no packages fedunlearn, sites, strategies; expected the same {LIKE}, at {ROOT}: "
            "copy or install them there",
        ),
        (
            {"versions": but(torch="2.12.0")},
            f"found torch 2.12.0, expected 2.13.0 {LIKE}: install the same there",
        ),
        ({"versions": but(flwr=None)}, f"found no flwr, expected 1.41.0 {LIKE}: install the same there"),
        (
            {"versions": but(extra="0.1")},
            f"found extra 0.1, expected none {LIKE}: remove it there, or install the same here",
        ),
        ({"fault": "found no GPU"}, "found no GPU (engine: {gpus_per_client: 0})"),
    ],
    ids=["code", "no code", "torch", "no flwr", "more strategies", "GPU"],
)
def test_each_fault_says_what_was_found_what_was_expected_and_what_to_do(
    change: dict[str, Any], told: str
) -> None:
    assert list(faults(HEAD, replace(NODE, **change))) == [told]


def test_all_faults_of_a_machine_are_told_at_once() -> None:
    texts = list(faults(HEAD, replace(NODE, code="other", versions=but(python="3.11.8", ray="2.54.0"))))
    assert [text.split()[1] for text in texts] == ["other", "python", "ray"]


def test_who_is_of_a_kind_that_was_not_there_is_strange() -> None:
    mixed = [HEAD, replace(NODE, processor="EPYC")]
    assert list(strange(mixed, replace(NODE, host="node3", processor="EPYC"))) == []
    assert list(strange([], NODE)) == []  # nobody looked
    [told] = strange(mixed, replace(NODE, cpu="AVX2"))
    assert "of another kind (" in told and "AVX2" in told
    [told] = strange(mixed, replace(NODE, device="A100"))
    assert "A100" in told


def test_kinds_that_differ_are_noted_with_their_hosts() -> None:
    """GPUs, of those that work on one: where the server is, there need be none."""
    node3 = replace(NODE, host="node3", processor="EPYC", device="H200")
    mixed = [HEAD, replace(NODE, device="A100"), node3]
    assert notes(mixed) == [
        "machines differ in processor (EPYC: node3; Xeon: head, node2): results are the same bits only between "
        "machines that do not",
        "machines differ in GPU (A100: node2; H200: node3): results are the same bits only between machines "
        "that do not",
    ]


def test_a_manifest_tells_each_machine_once_with_its_tasks_and_earlier_sessions_hosts() -> None:
    """Two Ray nodes on one host are one machine; a host that only an earlier session knew has no more than its name."""
    found = described([NODE, replace(NODE, node="3"), HEAD], {"head": 3, "node2": 2, "gone": 1, "": 9})
    assert [(about["host"], about["tasks"]) for about in found] == [("gone", 1), ("head", 3), ("node2", 2)]
    assert found[0].keys() == {"host", "tasks"}
    assert found[1]["versions"] == VERSIONS and "node" not in found[1]


def test_this_machine_is_what_python_says() -> None:
    own = here("id", "a GPU")
    assert (own.node, own.device) == ("id", "a GPU")
    assert own.versions["torch"] == torch.__version__
    assert own.versions["ray"] == importlib.metadata.version("ray")
    assert own.cpu == torch.backends.cpu.get_cpu_capability()
    assert own == replace(read(looking.facts(), "id"), device="a GPU")


def test_the_digest_is_of_every_source_file_of_ours_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert looking.PACKAGES == PACKAGES

    def digest(*files: tuple[str, str]) -> str:
        sha = hashlib.sha256()
        for name, text in files:
            sha.update(f"{name}\0{len(text)}\0{text}".encode())
        return sha.hexdigest()

    for package in ("one", "two"):
        (tmp_path / package / "sub").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "two" / "sub" / "a.py").write_text("x = 1")
    (tmp_path / "two" / "data.txt").write_text("not code")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(looking, "PACKAGES", ("one", "two"))
    files = [("one/__init__.py", ""), ("two/__init__.py", ""), ("two/sub/a.py", "x = 1")]
    assert looking.code() == digest(*files)
    (tmp_path / "two" / "sub" / "a.py").write_text("x = 2")
    assert looking.code() != digest(*files)
    monkeypatch.setattr(looking, "PACKAGES", ("one", "nowhere"))
    assert looking.code() == ""


@pytest.mark.gate
def test_a_machine_without_our_code_and_without_torch_still_says_what_it_is() -> None:
    """The file alone, in a Python that finds no installed package."""
    path = Path(looking.__file__)
    code = f"import runpy; found = runpy.run_path({str(path)!r})['facts'](gpu=True); print(found)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    found = eval(done.stdout)  # what we printed ourselves
    assert (found["code"], found["cpu"], found["device"], found["fault"]) == ("", "", None, None)
    assert list(found["versions"]) == ["python"] and found["host"] == here().host


def test_a_file_is_seen_by_its_content_alone(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    assert looking.sees(str(tmp_path / "token"), "secret")
    assert not looking.sees(str(tmp_path / "token"), "other")
    assert not looking.sees(str(tmp_path / "nowhere"), "secret")
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    assert not looking.sees(str(tmp_path / "token"), "secret")


def test_a_torch_without_cuda_is_named_where_a_gpu_is_wanted() -> None:
    if torch.version.cuda is not None or torch.version.hip is not None:
        pytest.skip("this torch was built for GPUs")
    fault = str(looking.facts(gpu=True)["fault"])
    assert fault.startswith(f"torch {torch.__version__} (CUDA: none) cannot work on 'cuda'")

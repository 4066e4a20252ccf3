"""The machines that hospitals work on: what counts for the bits they come to, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedunlearn.federation.engines import looking
from fedunlearn.installation import ROOT

LIKE = ("architecture", "processor", "cpu", "instructions", "device")
"""What machines may differ in: then their bits may, too."""


@dataclass(frozen=True)
class Machine:
    """One machine, as found when it was looked at.

    Attributes:
        host: its name.
        node: the id that Ray knows it by; empty for this process alone.
        versions: of Python, of the libraries that compute or carry, and of packages that strategies are from, by name.
        code: one sha256 over all source files of ours; empty if they are not there.
        processor: its kind; libraries choose instructions by it.
        cpu: the instructions that torch uses (`torch.backends.cpu.get_cpu_capability`); empty without torch.
        device: the GPU that is worked on, with driver and libraries; None on the CPU.
        images: how it has the hospitals' images: "shared", in the run folder, which it sees, or "sent"; empty before.
        architecture: of the processor, as `platform.machine` calls it.
        instructions: what variables tell libraries to use.
        fault: what is wrong with its GPU, if it is to be used, or None.
    """

    host: str
    node: str
    versions: Mapping[str, str]
    code: str
    processor: str
    cpu: str
    device: str | None = None
    images: str = ""
    architecture: str = ""
    instructions: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None


def here(node: str = "", device: str | None = None) -> Machine:
    """This machine."""
    return replace(read(looking.facts(), node), device=device)


def read(facts: Mapping[str, Any], node: str = "") -> Machine:
    """The machine that said `looking.facts` of itself."""
    return Machine(
        facts["host"],
        node,
        dict(facts["versions"]),
        facts["code"],
        facts["processor"],
        facts["cpu"],
        facts["device"],
        architecture=facts["architecture"],
        instructions=dict(facts["instructions"]),
        fault=facts["fault"],
    )


def faults(expected: Machine, other: Machine) -> Iterator[str]:
    """All that keeps ``other`` from being used, in words that do not name it."""
    like = f"as on {expected.host!r}, where this was started"
    if not other.code:
        packages = ", ".join(looking.PACKAGES)
        yield f"found no packages {packages}; expected the same {like}, at {ROOT}: copy or install them there"
    elif other.code != expected.code:
        yield f"found other code of fedunlearn; expected the same {like}: bring it up to date there"
    for name in {**expected.versions, **other.versions}:
        own, its = expected.versions.get(name), other.versions.get(name)
        if own != its:
            remedy = "install the same there" if own else "remove it there, or install the same here"
            yield f"found {_version(name, its)}, expected {own or 'none'} {like}: {remedy}"
    if other.fault is not None:
        yield f"{other.fault} (engine: {{gpus_per_client: 0}})"


def strange(known: Sequence[Machine], other: Machine) -> Iterator[str]:
    """That ``other`` is of a kind that nobody ``known`` is of: its bits may not be those that origins speak of."""
    kinds = [tuple(getattr(machine, fact) for fact in LIKE) for machine in known]
    if kinds and (kind := tuple(getattr(other, fact) for fact in LIKE)) not in kinds:
        told = ", ".join(_told(value) for value in kind if value)
        yield f"it is of another kind ({told}) than those that were there at the start: begin a run with it"


def notes(machines: Sequence[Machine]) -> list[str]:
    """In what machines differ that may work together, one sentence each; GPUs, of those that work on one."""
    return [note for fact in LIKE if (note := _note(fact, machines)) is not None]


def described(machines: Sequence[Machine], tasks: Mapping[str, int]) -> list[dict[str, object]]:
    """Machines as a manifest tells of them, each once.

    Args:
        machines: those that took part; two of the same host that differ in nothing are one.
        tasks: by host, how many tasks of hospitals it did. A host may be of an earlier session of the same run.
    """
    found = {str(_about(machine)): _about(machine) for machine in machines}
    known = {machine.host for machine in machines}
    earlier: list[dict[str, object]] = [{"host": host} for host in tasks if host and host not in known]
    return [
        {**about, "tasks": tasks.get(str(about["host"]), 0)}
        for about in sorted([*found.values(), *earlier], key=str)
    ]


def _about(machine: Machine) -> dict[str, object]:
    """All of a machine but what the next session would call it."""
    return {
        "host": machine.host,
        "versions": dict(machine.versions),
        "code": machine.code,
        "architecture": machine.architecture,
        "processor": machine.processor,
        "cpu": machine.cpu,
        "instructions": dict(machine.instructions),
        "device": machine.device,
        "images": machine.images,
    }


def _note(fact: str, machines: Sequence[Machine]) -> str | None:
    hosts: dict[str, list[str]] = {}
    for machine in machines:
        value = getattr(machine, fact)
        if fact == "device" and value is None:
            continue  # such as the one where the server is
        hosts.setdefault(_told(value), []).append(machine.host)
    if len(hosts) < 2:
        return None
    told = "; ".join(f"{value}: {', '.join(sorted(set(of)))}" for value, of in sorted(hosts.items()))
    return f"machines differ in {_WORDS[fact]} ({told}): results are the same bits only between machines that do not"


_WORDS = {
    "architecture": "architecture",
    "processor": "processor",
    "cpu": "the instructions that torch uses",
    "instructions": "the instructions that variables ask for",
    "device": "GPU",
}


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={of}" for name, of in sorted(value.items())) or "none"
    return str(value) if value else "none"


def _version(name: str, version: str | None) -> str:
    return f"{name} {version}" if version else f"no {name}"

"""The process that meets Ray for `probe`: it asks every machine of a cluster what it says of itself, and ends.

- The question travels by value: a machine that lacks our code, or torch, still answers, and is named.
- It needs no CPU, so that a busy cluster does not hold it up, and a worker that has answered it ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedunlearn.core import InputError
from fedunlearn.federation.engines import looking
from fedunlearn.federation.engines.flower import cluster


def _answer(question: Mapping[str, Any]) -> dict[str, object]:
    """What there is to say."""
    gpus, token = float(question["gpus"]), question["token"]
    if question["address"] is None:
        return {"rows": [{"facts": looking.facts(gpu=gpus > 0)}]}
    try:
        cluster.attach(question["address"])
    except InputError as error:
        return {"error": str(error)}
    Path(question["attached"]).touch()
    return {"rows": _rows(gpus, token, question["patience"])}


def _rows(gpus: float, token: tuple[str, str] | None, patience: float) -> list[dict[str, object]]:
    """One for every machine of the cluster that is there at the end."""
    import ray

    nodes = _nodes()
    free = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]  # the public one adds up
    used = {node: _used(about["Resources"], gpus) for node, about in nodes.items()}
    waiting = {node: _question(node, gpus > 0, token) for node in nodes if used[node]}
    if waiting:
        ray.wait(list(waiting.values()), num_returns=len(waiting), timeout=patience)
    answers = {node: _outcome(reference, patience) for node, reference in waiting.items()}
    still = _nodes().keys()  # one that has just died is found out about meanwhile
    return [
        {
            "address": about["NodeManagerAddress"],
            "host": about["NodeManagerHostname"],
            "node": node,
            "has": _counted(about["Resources"]),
            "free": _counted(free.get(node, {})),
            "used": used[node],
            **answers.get(node, {"facts": None, "sees": None, "silence": None}),
        }
        for node, about in nodes.items()
        if node in still
    ]


def _question(node: str, gpu: bool, token: tuple[str, str] | None) -> Any:
    """Ask one machine; a reference to what it will say."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.cloudpickle.register_pickle_by_value(looking)  # type: ignore[no-untyped-call]  # Ray's own
    facts, sees = looking.facts, looking.sees

    def look() -> tuple[dict[str, object], bool | None]:
        return facts(gpu), None if token is None else sees(*token)

    remote: Any = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(look)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return remote.options(scheduling_strategy=there).remote()


def _outcome(reference: Any, patience: float) -> dict[str, object]:
    """What a machine said, or why it did not."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    try:
        facts, sees = ray.get(reference, timeout=0)
    except GetTimeoutError:
        silence = f"no answer within {patience:g} s; expected one: restart Ray there, or stop it there"
    except RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        silence = f"it could not look at itself: {reason}; expected an installation that works"
    except RayError as error:
        [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
        silence = f"it could not be asked: {reason}; expected Ray to work there"
    else:
        return {"facts": facts, "sees": sees, "silence": None}
    return {"facts": None, "sees": None, "silence": silence}


def _nodes() -> dict[str, dict[str, Any]]:
    """The machines that are there, by their ids."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own
    return {node["NodeID"]: node for node in nodes if node["Alive"]}


def _used(has: Mapping[str, float], gpus: float) -> bool:
    """Whether a worker has room on a machine that is idle."""
    return has.get("CPU", 0.0) >= 1 and has.get("GPU", 0.0) >= gpus


def _counted(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: float(resources.get(name, 0.0)) for name in ("CPU", "GPU")}


def main() -> None:
    """Answer the question that is the one argument, into the file that it names."""
    question = json.loads(sys.argv[1])
    there = Path(question["answer"])
    hidden = there.with_suffix(".part")
    hidden.write_text(json.dumps(_answer(question)), encoding="utf-8")
    hidden.rename(there)
    # Ray's farewell may take seconds, and nobody needs it: the cluster sees that this process is gone.
    os._exit(0)


if __name__ == "__main__":
    main()

"""What docs/cluster tells Kubernetes and SLURM, as far as it can be checked without either."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


def test_the_batch_script_is_bash() -> None:
    checked = subprocess.run(
        ["bash", "-n", ROOT / "docs" / "cluster" / "slurm.sh"], capture_output=True, text=True, timeout=300
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_manifest_runs_one_image_on_a_cluster_of_its_own() -> None:
    job, claim = YAML(typ="safe").load_all((ROOT / "docs" / "cluster" / "rayjob.yaml").read_text())
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["shutdownAfterJobFinishes"]) == ("ray.io/v1", "RayJob", True)
    cluster = spec["rayClusterSpec"]
    head, worker = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    pods = [head["template"], worker["template"], spec["submitterPodTemplate"]]
    assert len({pod["spec"]["containers"][0]["image"] for pod in pods}) == 1
    volumes = {volume["name"]: volume for volume in head["template"]["spec"]["volumes"]}
    mounted = {
        mount["name"]: mount["mountPath"]
        for mount in head["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    assert volumes.keys() == mounted.keys()
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert f"out={mounted['runs']}/" in spec["entrypoint"]
    words = subprocess.run(["bash", "-nc", spec["entrypoint"]], capture_output=True, text=True, timeout=300)
    assert (words.returncode, words.stderr) == (0, "")
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in constraints

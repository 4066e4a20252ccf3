"""A run of made-up models, judged for real, with all that a real one says of itself."""

from __future__ import annotations

import pandas as pd
import pytest

from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, change_manifest, images, make_run

SCENARIO = """\
name: "made"
seeds: [7, 8, 9]
data: {name: folder, path: /home/somebody/secret, manifest: list.csv}
sites: {names: ["north", "east", "west"], partition: {name: iid}}
model: {name: small_cnn, hidden: 64}
training: {rounds: 4, lr: 0.002}
requests:
- {id: "some", site: "north", patients: ["north-0", "north-1", "north-2"]}
- {id: "east-leaves", site: "east", whole_site: true}
strategies:
- {name: salun, as: "good", fraction: 0.5, recovery: {rounds: 2, lr: null}}
- {name: fine_tune, as: "lazy", rounds: 1}
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        folder = make_run(tmp_path_factory.mktemp("run") / "run", MODELS, table=images(patients=10))
        score(folder)
    verdicts = pd.read_parquet(folder / "verdicts.parquet")
    # So few patients would not tell.
    sure = (verdicts["strategy"] == "good") & (verdicts["request"] == "some")
    verdicts.loc[sure, ["forgotten", "useful", "verdict"]] = ["yes", "yes", "PASS"]
    RunFolder(folder).write_table("verdicts.parquet", verdicts)
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    (folder / "weights").mkdir()
    for entry in RunFolder(folder).read_manifest()["scored"]:
        for name in (entry["original"], entry["retrained"], *entry["strategies"].values()):
            (folder / "weights" / f"{name}.safetensors").write_bytes(name.encode())
    moments = [
        {
            "id": "some",
            "forgets": "some",
            "summary": "forget 3 patients of north",
            "round": 3,
            "warnings": [],
        },
        {
            "id": "east-leaves",
            "forgets": "east-leaves",
            "summary": "forget all of east",
            "round": 3,
            "warnings": [],
        },
    ]
    change_manifest(
        folder,
        name="made",
        moments=moments,
        skipped=[],
        floors=["lazy"],
        names=["a", "b", "c", "d"],
        fedunlearn="0.1.0",
        versions={"python": "3.11.7", "torch": "2.13.0"},
        platform="Linux x86_64",
        machines=[
            {"host": "secret-host", "processor": "AMD EPYC", "cpu": "AVX2", "device": None, "tasks": 9}
        ],
        data={
            "digest": "ab" * 32,
            "note": "64 images of /home/somebody/secret/list.csv; made up.",
            "notes": [],
        },
        verdict={"margins": {"test": 0.03, "worst_hospital": 0.05, "memory_left": 0.25, "patients_over": 0}},
        references=[],
        probes={"names": []},
        pretrained="",
        wall_seconds=12.5,
    )
    (folder / "DONE").touch()
    return RunFolder(folder)

"""Which models of other seeds a measure gets to see."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.evidence import Estimates, Evidence
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import MEASURES, measures_of
from fedunlearn.scoring.score import tables
from tests.scoring.made import MODELS, change_manifest, images, make_run


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Evidence[Outputs]]:
    """What measures get to see of a request of three seeds, one strategy of which diverged with seed 8."""
    found: list[Evidence[Outputs]] = []

    def record(evidence: Evidence[Outputs]) -> Estimates:
        found.append(evidence)
        return {}

    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    models = {name: MODELS[name] for name in ("original", "retrained", "good", "lazy")}
    folder = make_run(tmp_path / "run", models, table=images(patients=10))
    entries = RunFolder(folder).read_manifest()["scored"]
    change_manifest(folder, scored=[e for e in entries if e["request"] == "some"])
    file = folder / "signals" / "lazy-some-8.parquet"
    pd.read_parquet(file).assign(logits_0=np.float32("nan")).to_parquet(file, index=False)
    change_manifest(folder)
    spy = replace(MEASURES["rounds"], name="seen", function=record)
    module = sys.modules["fedunlearn.scoring.score"]  # the package has a function of that name
    monkeypatch.setattr(module, "measures_of", lambda kind: {**measures_of(kind), "seen": spy})
    tables(folder, workers=1)  # in a known order
    return found


def test_others_and_siblings_are_of_other_seeds(seen: list[Evidence[Outputs]]):
    """Retrained ones, each control, then strategies; of lazy, seed 8 diverged and is no sibling either."""
    assert len(seen) == 4 * 3 + 3 + 2
    retrained, (originals, controls, damaged) = seen[:3], (seen[i : i + 3] for i in (3, 6, 9))
    good, lazy = seen[12:15], seen[15:]
    references = [e.retrained for e in retrained]
    for several in (retrained, originals, damaged, good):
        for k, evidence in enumerate(several):
            assert evidence.retrained is references[k]
            assert evidence.others == tuple(r for i, r in enumerate(references) if i != k)
            assert evidence.originals == tuple(e.original for i, e in enumerate(retrained) if i != k)
    for k, evidence in enumerate(controls):  # a model is never its own reference
        assert evidence.unlearned is references[(k + 1) % 3]
        assert evidence.others == (references[(k + 2) % 3],)
        assert evidence.siblings == ()
    assert [e.unlearned for e in retrained] == references
    assert [e.siblings for e in retrained] == [e.others for e in retrained]
    assert [e.siblings for e in originals] == [e.originals for e in originals]
    for k, evidence in enumerate(good):
        assert evidence.siblings == tuple(e.unlearned for i, e in enumerate(good) if i != k)
    assert [e.siblings for e in lazy] == [(lazy[1].unlearned,), (lazy[0].unlearned,)]


def test_no_model_is_compared_with_one_that_is_among_its_references(seen: list[Evidence[Outputs]]):
    """Neither the model in question nor the retrained one of its seed, which it is compared with, is any other's."""
    for evidence in seen:
        compared = {id(evidence.unlearned), id(evidence.retrained)}
        assert not compared & {id(one) for one in (*evidence.others, *evidence.siblings)}

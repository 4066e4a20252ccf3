"""The benchmark of requests that mean harm: what others lose, and what became of requests, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.abuse import desk, falls_of, scarcest, shown


def made(answers: dict[str, list[int]], label: list[int]) -> tuple[Any, pd.DataFrame]:
    """A run of models that answer so at east, and always wrongly at north; its table of images."""
    sites = pd.DataFrame({"site": ["north"] + ["east"] * len(label), "split": "test", "label": [0, *label]})
    tables = {
        f"signals/{name}.parquet": pd.DataFrame(np.eye(2)[[1, *given]], columns=["logits_0", "logits_1"])
        for name, given in answers.items()
    }
    looks = [{"round": 2, "original": "before", "retrained": "again", "strategies": {"fast": "fast"}}]
    manifest = {"calendar": {"rounds": 2}, "looks": [{**looks[0], "round": 1}, *looks]}
    return SimpleNamespace(read_table=tables.__getitem__, read_manifest=lambda: manifest), sites


def test_falls_are_those_of_other_hospitals_against_both_references() -> None:
    """Of eight images of class 0 and eight of 1: all are right before, 6 and 8 again, 8 and 4 fast."""
    label = [0] * 8 + [1] * 8
    answers = {"before": label, "again": [1, 1, *label[2:]], "fast": [*label[:12], 0, 0, 0, 0]}
    run, sites = made(answers, label)
    rows = {one["strategy"]: one for one in falls_of(run, sites, target=0)}
    assert [rows["fast"][f"{what}_original"] for what in ("all", "target", "worst")] == [0.25, 0, 0.5]
    assert [rows["fast"][f"{what}_retrained"] for what in ("all", "target", "worst")] == [0.125, -0.25, 0.5]
    assert rows["retrained"]["target_original"] == 0.25 and rows["retrained"]["worst_retrained"] == 0


def test_it_asks_first_for_the_class_of_which_others_train_on_fewest() -> None:
    """Others train on 1, 2 and 3 images of classes 4, 0 and 2, but no patient of north is mostly of class 4."""
    rows = [("north", "a", 0), ("north", "b", 2), ("north", "b", 2), ("north", "b", 4), ("east", "c", 4)]
    rows += [("east", "d", 0), ("west", "e", 0), ("west", "f", 2), ("east", "g", 2), ("east", "h", 2)]
    sites = pd.DataFrame(rows, columns=["site", "patient", "label"]).assign(split="train")
    assert scarcest(sites) == 0


def test_the_desk_counts_what_is_still_open_as_late() -> None:
    days = pd.to_datetime(["2026-01-01", "2026-01-01", "2026-01-01"])
    table = pd.DataFrame(
        {
            "received": days,
            "answered": pd.to_datetime(pd.Series(["2026-01-11", "2026-03-02", None])),
            "state": ["accepted", "accepted", "open"],
            "late": [0, 29, 300],
            "late_three": [0, 0, 240],
        }
    )
    run: Any = SimpleNamespace(read_table=lambda name: table)
    found = desk(run, pd.DataFrame({"label": [3, 3, 1, 0]}), target=3)
    assert (found["asked"], found["answered"], found["open"], found["days"]) == (3, 2, 1, 35)
    assert (found["late"], found["late_three"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (found["images"], found["target"]) == (4, 0.5)


def test_differences_are_paired_by_seed() -> None:
    """Falls of .1 and .5, and of .2 and .6: both differences are .1, so their interval has no width."""
    falls = [
        f"{what}_{against}" for what in ("all", "target", "worst") for against in ("original", "retrained")
    ]
    given = [(1, "honest", 0.1), (2, "honest", 0.5), (1, "malicious", 0.2), (2, "malicious", 0.6)]
    keys = [{"seed": seed, "stream": stream, "quota": 0, "strategy": "fast"} for seed, stream, _ in given]
    rows = pd.DataFrame(
        [key | dict.fromkeys(falls, fall) for key, (*_, fall) in zip(keys, given, strict=True)]
    )
    desk = dict.fromkeys(["asked", "answered", "open", "days", "late", "late_three", "images", "target"], 1.0)
    lines = [*shown(rows, pd.DataFrame([key | desk for key in keys]))]
    assert "| fast | - | difference | +10.0 ± 0.0 |" in lines[4] and "+30.0 ± 254.1" in lines[2]

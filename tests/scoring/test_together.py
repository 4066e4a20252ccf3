"""Models scored beside one another, and short ways to what long ways come to."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from benchmarks.scoring import Size, apart, made
from fedunlearn import files
from fedunlearn.core import RunError
from fedunlearn.scoring import judging
from fedunlearn.scoring.attacks.membership import judge
from fedunlearn.scoring.attacks.population import side
from fedunlearn.scoring.evidence import Estimate
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.evidence.once import Once
from fedunlearn.scoring.score import tables
from fedunlearn.scoring.together import MOST, Together, together, usual
from tests.scoring.made import MODELS, change_manifest, images, make_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("workers", [2, pytest.param(5, marks=pytest.mark.gate)])
def test_the_number_of_threads_changes_no_bit(workers: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    run = make_run(tmp_path / "run", seeds=(7, 8, 9), table=images(patients=10))
    change_manifest(run, diverged=[{"model": "lazy-some-8", "where": "in round 3"}])
    (run / "signals" / "lazy-some-8.parquet").unlink()
    change_manifest(run)
    alone, beside = tables(run, workers=1), tables(run, workers=workers)
    assert alone.keys() == beside.keys() and set(alone["scores.parquet"]["strategy"]) > set(MODELS)
    for name, table in alone.items():
        pd.testing.assert_frame_equal(beside[name], table, check_exact=True)


def test_what_goes_wrong_in_a_thread_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    run = make_run(tmp_path / "run", seeds=(7, 8), table=images(patients=10))
    (run / "signals" / "good-some-8.parquet").unlink()
    with pytest.raises(RunError, match="good-some-8"):
        tables(run, workers=2)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_items_are_asked_for_late(workers: int):
    asked, most = list[int](), 0

    def items():
        for i in range(50):
            asked.append(i)
            yield i

    with together(workers) as pool:
        for number, square in enumerate(pool.each(lambda i: i * i, items())):
            assert square == number**2
            most = max(most, len(asked) - number)
    assert most <= workers + 1
    assert list(Together(1, None).each(str, [1, 2])) == ["1", "2"]


def test_there_are_as_many_threads_as_cores_that_may_be_used_and_few_on_large_machines(monkeypatch):
    monkeypatch.setattr("fedunlearn.cores.usable", lambda: 2)
    assert (usual(), usual(1), usual(8)) == (2, 1, 2)
    with together(None) as pool:
        assert pool.workers == 2
    monkeypatch.setattr("fedunlearn.cores.usable", lambda: 64)
    assert (usual(), usual(3), usual(64)) == (MOST, 3, MOST)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_file_is_read_once(workers: int, tmp_path: Path, monkeypatch):
    """Two requests share the original models, which are asked about changed copies too, as all models are."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    run, reads, checked = made(tmp_path / "run", Size(240, 2, 2)), list[str](), files.checked

    def counted(path: Path, known: str | None) -> bytes:
        reads.append(path.relative_to(run).as_posix())
        return checked(path, known)

    monkeypatch.setattr(files, "checked", counted)
    tables(run, workers=workers)
    there = sorted(path.relative_to(run).as_posix() for path in run.rglob("*.parquet"))
    assert sorted(reads) == there and sum(name.startswith("copies/") for name in there) == 26


@pytest.mark.gate
def test_of_strategies_that_are_judged_no_replicates_are_held(tmp_path: Path, monkeypatch):
    """When a request's tables are made, as many are there of one strategy as of four: those of the references."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    few = {name: MODELS[name] for name in ("original", "retrained", "good")}
    held, write = list[int](), judging.tables

    def counted(*of):
        gc.collect()
        estimates = [one for one in gc.get_objects() if type(one) is Estimate]
        held.append(sum(one.replicates.size > 0 for one in estimates))
        return write(*of)

    monkeypatch.setattr(judging, "tables", counted)
    for i, models in enumerate((few, MODELS)):
        tables(make_run(tmp_path / str(i), models, seeds=(7, 8), table=images(patients=10)), workers=1)
    one, four = held[:2], held[2:]
    assert min(one) > 100 and one == four


def test_what_is_worked_out_once_is_so_for_threads_that_ask_at_the_same_time():
    once, start, worked = Once(), threading.Barrier(3), list[str]()

    def slowly(key: str) -> str:
        worked.append(key)
        time.sleep(0.05)
        return key.upper()

    def ask(_: int) -> list[str]:
        start.wait()
        return [once(key, partial(slowly, key)) for key in ("a", "b")]

    with together(3) as pool:
        assert list(pool.each(ask, range(3))) == [["A", "B"]] * 3
    assert worked == ["a", "b"]


def svc(members: np.ndarray, others: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """What scikit-learn's SVC says."""
    truth = np.repeat([1, 0], [len(members), len(others)])
    attack = SVC(C=3, gamma="auto").fit(np.concatenate([members, others])[:, None], truth)
    said: np.ndarray = attack.predict(asked[:, None])
    return said


def test_an_undecided_svc_says_member():
    """Of images so far from all examples that no kernel reaches them, the decision is the level: 0 by symmetry."""
    members, others = np.array([0.0, 1000, 2000]), np.array([500.0, 1500, 2500])
    asked = np.array([10_000.0, 250])
    np.testing.assert_array_equal(svc(members, others, asked), [1, 1])
    np.testing.assert_array_equal(judge(members, others, asked), [1, 1])


@pytest.mark.parametrize("right", [(60, 50), (50, 60), (50, 50)])
def test_an_svc_that_saw_0_and_1_alone_says_either_of_anything(right: tuple[int, int]):
    members, others = (np.arange(100) < n for n in right)
    asked = np.array([0.3, 0.45, 0.55, 5, -3])
    said = judge(members.astype(float), others.astype(float), asked)
    np.testing.assert_array_equal(said, svc(members.astype(float), others.astype(float), asked))


def test_an_svc_is_that_of_scikit_learn():
    """300 examples a side of signals that tell little, as those of models do; then of right and wrong answers."""
    rng = np.random.default_rng(0)
    signals = [
        rng.beta(3, 1, (3, 300)),
        rng.gamma(1, 0.5, (3, 300)),
        (rng.random((3, 300)) < 0.8).astype(float),
    ]
    more = np.arange(300) < np.array([[200], [199], [150]])
    for members, others, asked in [
        *signals,
        more.astype(float),
        more[::-1].astype(float),
        more[[0, 0, 2]].astype(float),
    ]:
        np.testing.assert_array_equal(judge(members, others, asked), svc(members, others, asked))


def test_a_logistic_regression_orders_as_that_of_scikit_learn():
    """Rising, falling, and flat where the sides' means differ by 3.9e-4: a quarter of that is within its tolerance."""
    rng = np.random.default_rng(1)
    found = set[int]()
    for shift, sizes in ((0.0, (40, 40)), (1.0, (20, 300)), (-2.0, (300, 7)), (-1.0, (40, 40))):
        x = np.concatenate([rng.exponential(size=sizes[0]) + shift, rng.exponential(size=sizes[1])])
        truth = np.repeat([1, 0], sizes)
        line = LogisticRegression(class_weight="balanced").fit(x[:, None], truth)
        assert side(x, truth) == np.sign(line.coef_[0, 0]) != 0
        found.add(side(x, truth))
    assert found == {1, -1}
    for step, expected in ((3.9e-4, 0), (4.1e-4, 1)):
        x, truth = np.array([1.0, 1.0, 1 + step, 1 + step]), np.array([0, 0, 1, 1])
        line = LogisticRegression(class_weight="balanced").fit(x[:, None], truth)
        assert side(x, truth) == np.sign(line.coef_[0, 0]) == expected


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_margins_are_those_of_each_class_against_the_sum_of_the_others(classes: int):
    rng = np.random.default_rng(classes)
    logits, labels = 20 * rng.normal(size=(50, classes)), rng.integers(0, classes, 50)
    found = Outputs(logits, labels)
    for c in range(classes):
        others = np.delete(logits, c, axis=1)
        np.testing.assert_array_equal(found.margins[:, c], logits[:, c] - np.logaddexp.reduce(others, axis=1))
    np.testing.assert_array_equal(found.margin, found.margins[np.arange(50), labels])


def test_tables_that_differ_in_one_value_are_told_apart():
    scores = pd.DataFrame(
        {"measure": ["a", "b", "c"], "value": [1.0, 2.0, np.nan], "group": ["all", "all", "x"]}
    )
    same = {"scores.parquet": scores}
    assert apart(same, {"scores.parquet": scores.copy()}) == "the same bits"
    told = {
        ("value", 1, np.nextafter(2.0, 3.0)): "scores.parquet, value: 1 values, by 4.4e-16 at most ['b']",
        ("value", 2, 0.0): "scores.parquet, value: 1 values, by nan at most ['c']",
        ("group", 2, "y"): "scores.parquet, group: 1 values",
    }
    for (column, row, value), words in told.items():
        other = scores.copy()
        other.loc[row, column] = value
        assert apart(same, {"scores.parquet": other}) == words
    assert apart(same, {"scores.parquet": scores[:2]}) == "scores.parquet has other rows or columns"
    assert apart(same, {}) == "scores.parquet is there once only"


@pytest.mark.gate
def test_the_benchmark_runs():
    """Against this very code: both must write the same bits."""
    command = [sys.executable, "benchmarks/scoring.py", "--quick", "--parts", "--against", str(ROOT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert "the same bits" in done.stdout and "| mia_" in done.stdout
    assert "| 240 images, 2 strategies, 2 seeds | here | 26 |" in done.stdout


@pytest.mark.gate
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fedunlearn.scoring.evidence.margins", {"pandas", "scipy", "sklearn"}),
        ("fedunlearn.scoring.score", {"scipy.stats", "scipy.sparse", "scipy.optimize", "sklearn"}),
    ],
)
def test_what_is_imported_loads_no_more_than_it_needs(module: str, heavy: set[str]) -> None:
    """Whoever checks a scenario asks scoring for its margins; whoever scores, for what attacks need when they run."""
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]"

"""Random halves: whole patients, every hospital halved, two complements, nothing from outside training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, strategies as st

from sites.dealing.halves import halves


def draw(rows: list[tuple[int, int, bool]], seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows are (patient, hospital, training?); the first row of a patient says whether it is in training."""
    table = pd.DataFrame({"patient": [f"p{patient}" for patient, _, _ in rows]})
    part = {patient: train for patient, _, train in reversed(rows)}
    train = np.array([part[patient] for patient, _, _ in rows])
    site = np.array(["ABC"[hospital] for _, hospital, _ in rows])
    return (
        table.assign(site=site, train=train),
        train,
        halves(table, site, train, np.random.default_rng(seed)),
    )


ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.booleans()), min_size=1, max_size=60)


@given(rows=ROWS, seed=st.integers(0, 99))
def test_every_training_patient_is_in_exactly_one_of_two_halves_as_a_whole(rows, seed) -> None:
    table, train, both = draw(rows, seed)
    assert (both.sum(axis=1) == train).all()
    assert (table.assign(one=both[:, 0]).groupby("patient")["one"].nunique() == 1).all()


@given(rows=ROWS, seed=st.integers(0, 99))
def test_the_order_of_the_images_does_not_matter(rows, seed) -> None:
    first = draw(rows, seed)
    table, train, site = first[0], first[1], np.asarray(first[0]["site"])
    order = np.random.default_rng(seed).permutation(len(rows))
    again = halves(table.iloc[order], site[order], train[order], np.random.default_rng(seed))
    assert (again == first[2][order]).all()


def test_every_hospital_is_halved() -> None:
    # 7 patients at A (two images each), 4 at B; patient 3 of A has one image at B: it counts for A, where it has two.
    rows = [(p, 0, True) for p in range(7) for _ in range(2)] + [(10 + p, 1, True) for p in range(4)]
    rows += [(3, 1, True), (99, 0, False)]
    sizes, together = set(), []
    for seed in range(40):
        table, train, both = draw(rows, seed)
        ids, inside = table["patient"].to_numpy(), both[:, 0]
        at_a = {patient for patient in ids[inside] if patient in {f"p{p}" for p in range(7)}}
        at_b = {patient for patient in ids[inside] if patient >= "p10" and patient < "p14"} - {"p3"}
        sizes.add((len(at_a), len(at_b)))
        together.append(("p0" in at_a) == ("p1" in at_a))
        assert not both[~train].any()
    assert sizes == {(3, 2), (4, 2)}  # of seven patients, chance decides who gets one more
    assert any(together) and not all(together)

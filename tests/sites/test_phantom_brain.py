"""`phantom_brain`: the same heads every time, honestly labelled as phantoms, with as much to know by heart in each."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedunlearn.core import Select
from fedunlearn.learning.models import SmallCNN
from sites.collection import Collection, digest
from sites.dealing.partitions import ByColumn, Iid
from sites.dealing.requests import resolve
from sites.dealing.split import split
from sites.hospital import Federation
from sites.phantom_brain import TISSUES, PhantomBrain
from sites.twins import twins

NOWHERE = Path("/nowhere")  # nothing is read


@pytest.fixture(scope="module")
def brains() -> Collection:
    return PhantomBrain().load(NOWHERE)


def test_same_seed_same_volumes_and_another_seed_others():
    first, again, other = (PhantomBrain(volumes=10, size=16, seed=seed).load(NOWHERE) for seed in (3, 3, 4))
    assert digest(first) == digest(again)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert (first.pixels != other.pixels).any(axis=(1, 2, 3, 4)).all()


def test_global_random_state_is_neither_used_nor_moved():
    def state() -> tuple[str, bytes]:
        return repr(np.random.get_state(legacy=False)), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002

    before = state()
    first = digest(PhantomBrain(volumes=10, size=16).load(NOWHERE))
    assert state() == before
    np.random.seed(1)  # noqa: NPY002
    assert digest(PhantomBrain(volumes=10, size=16).load(NOWHERE)) == first


def test_shapes_dtypes_and_ids(brains: Collection):
    assert brains.pixels.shape == (60, 1, 32, 32, 32) and brains.targets.shape == (60, 32, 32, 32)
    assert brains.pixels.dtype == brains.targets.dtype == np.uint8
    assert (brains.kind, brains.classes, len(TISSUES)) == ("segmentation", 5, 5)
    assert list(brains.table.columns) == ["image", "patient", "sex", "age", "scanner"]
    assert brains.table["patient"].nunique() == 60
    assert brains.table["scanner"].value_counts().tolist() == [20, 20, 20]
    assert twins(brains) == ()
    every = np.stack([np.bincount(m.ravel(), minlength=5) for m in brains.targets])
    assert (every > 0).all()  # each volume has each tissue


def test_it_says_that_it_is_a_phantom(brains: Collection):
    assert "phantom" in brains.note.lower() and "4 lesion" in brains.note
    assert brains.synthetic_patients


def test_sixty_volumes_take_seconds():
    started = time.process_time()
    PhantomBrain().load(NOWHERE)
    assert time.process_time() - started < 5


def test_float_volumes_are_the_same_in_another_scale():
    small = PhantomBrain(volumes=10, size=16)
    as_float = PhantomBrain(volumes=10, size=16, dtype="float32").load(NOWHERE)
    assert as_float.pixels.dtype == np.float32
    assert as_float.pixels.min() >= -1 and as_float.pixels.max() <= 1
    assert np.array_equal(
        ((as_float.pixels + 1) * 127.5).round().astype(np.uint8), small.load(NOWHERE).pixels
    )


def test_volumes_of_one_subject_show_one_anatomy():
    """Maps of one subject overlap more than those of any two subjects, although no two are put in the same way."""
    found = PhantomBrain(volumes=20, volumes_per_subject=2).load(NOWHERE)
    assert found.table["image"].tolist()[:3] == ["s-0000-00", "s-0000-01", "s-0001-00"]
    assert (found.table.groupby("patient")[["sex", "age", "scanner"]].nunique() == 1).all(axis=None)
    maps = found.targets.reshape(20, -1)
    agree = np.array([[(a == b).mean() for b in maps] for a in maps])
    own = agree[np.arange(0, 20, 2), np.arange(1, 20, 2)]
    others = agree[np.arange(20)[:, None] // 2 != np.arange(20) // 2]
    assert own.max() < 1
    assert own.mean() > others.mean() + 0.02 and own.min() > np.median(others)


def test_half_of_the_spots_are_labelled_and_all_look_alike():
    """Without a shift of the border, what shows and what is labelled differ in the other spots alone."""
    options = {"volumes": 10, "border": 0.0, "scanner_appearance": 0.0}
    with_spots, without = (PhantomBrain(**options, spots=n).load(NOWHERE) for n in (4, 0))  # type: ignore[arg-type]
    assert (without.targets == 4).sum() == 0
    labelled = with_spots.targets == 4
    darker = without.pixels[:, 0].astype(int) - with_spots.pixels[:, 0] > 40
    shown = darker & ~labelled & (with_spots.targets == 3)  # in white matter: a spot that is not labelled
    ratio = shown.sum() / (darker & labelled).sum()
    assert 0.5 < ratio < 2  # half of the spots each, of different sizes
    bright = with_spots.pixels[:, 0]
    assert (
        abs(bright[shown].mean() - bright[darker & labelled].mean()) < 12
    )  # of a contrast of 98 to white matter


def test_the_border_of_white_matter_is_drawn_elsewhere_than_it_shows():
    drawn, shown = (PhantomBrain(volumes=10, spots=0, border=b).load(NOWHERE) for b in (0.08, 0.0))
    assert np.array_equal(drawn.pixels, shown.pixels)
    more = [
        int((a == 3).sum()) - int((b == 3).sum()) for a, b in zip(drawn.targets, shown.targets, strict=True)
    ]
    assert min(more) < -300 and max(more) > 300  # subjects of either kind
    assert all(abs(m) > 300 for m in more)


def test_one_knob_does_not_reshuffle_what_others_decide():
    one, other = (PhantomBrain(volumes=10, size=16, scanner_appearance=s).load(NOWHERE) for s in (0.0, 1.0))
    assert np.array_equal(one.targets, other.targets)
    pd.testing.assert_frame_equal(one.table, other.table)


def test_volumes_are_dealt_split_and_forgotten_by_subject(tmp_path: Path):
    """Label maps have no majority label: whole subjects are dealt, whatever their maps show."""
    found = PhantomBrain(volumes=60, volumes_per_subject=2, size=16).load(NOWHERE)
    rng = np.random.default_rng(0)
    names = ("north", "east", "west")
    site = Iid().assign(found.table, found.targets, names, rng)
    assert pd.Series(site).value_counts().tolist() == [20, 20, 20]
    part = split(found.table, found.targets, site, (0.6, 0.1, 0.3), rng)
    table = found.table.assign(site=site, split=part)
    assert (table.groupby("patient")[["site", "split"]].nunique() == 1).all(axis=None)
    named = resolve(table, "north", rng, count=2)
    assert named.forgotten.sum() == 4

    Federation.write(tmp_path, found.pixels, found.targets, site, part, {"r": named.forgotten}, SmallCNN(), 5)
    written = Federation.open(tmp_path)
    assert written.columns["targets"].dtype == np.dtype(np.uint8).str
    images = written.images("north", Select(only="r"), torch.device("cpu"))
    assert images.targets.dtype == torch.int64
    assert np.array_equal(images.targets.numpy(), found.targets[named.forgotten])
    assert np.array_equal(images.pixels.numpy(), found.pixels[named.forgotten])


def test_each_hospital_may_have_a_scanner(brains: Collection):
    names = ("scanner-1", "scanner-2", "scanner-3")
    site = ByColumn(column="scanner").assign(brains.table, brains.targets, names, np.random.default_rng(0))
    assert site.tolist() == brains.table["scanner"].tolist()
    bright = [brains.pixels[site == name].mean() for name in names]
    assert max(bright) - min(bright) > 2  # scanners differ

"""Changed copies of images: what moves, what is drawn, and what that depends on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from fedunlearn.core import IGNORED, IMAGE, Batch, Select
from fedunlearn.federation.procedures import copies
from fedunlearn.learning.copies import NOISE, NUMBER, copied
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.local import signals
from tests import toy

SHIFT, MIRROR, NOISY = range(NUMBER)


def batch(count: int, spatial: tuple[int, ...], seed: int = 0, first: int = 0) -> Batch:
    """Images whose label maps are what their first channel rounds down to, some voxels ignored."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (count, *spatial), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.1] = IGNORED
    inputs = targets[:, None] + torch.rand((count, 2, *spatial), generator=generator) / 2
    return Batch(inputs, targets, torch.arange(first, first + count))


def there(of: Batch) -> Tensor:
    """The labels that the first channel tells."""
    return of.image[:, 0].floor().long()


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("inputs", "targets", "rows")
    )


volumes = st.builds(
    batch,
    st.integers(1, 4),
    st.sampled_from([(1, 2, 3), (4, 5, 6), (3, 4), (1, 1)]),
    st.integers(0, 99),
    st.integers(0, 99),
)


@given(volumes)
def test_label_maps_move_with_their_images_and_what_is_ignored_with_them(of: Batch) -> None:
    for number in (SHIFT, MIRROR):
        new = copied(of, number)
        assert new.image.shape == of.image.shape
        assert torch.equal(there(new), new.targets)
    assert torch.equal(copied(of, NOISY).targets, of.targets)


@given(volumes)
def test_an_images_copies_are_the_same_alone_and_in_a_batch(of: Batch) -> None:
    for number in range(NUMBER):
        together = copied(of, number)
        for i in range(len(of.rows)):
            here = slice(i, i + 1)
            alone = copied(Batch(of.image[here], of.targets[here], of.rows[here]), number)
            expected = Batch(together.image[here], together.targets[here], together.rows[here])
            assert same(alone, expected)


def test_every_way_to_shift_comes_up_and_edges_repeat() -> None:
    """Of 64 images all 4 ways come up, unless by a chance of 4 * .75 ** 64. By hand: each pixel is its neighbour."""
    edge = 5
    inputs = torch.arange(edge**2).view(1, 1, edge, edge).float().expand(64, 1, edge, edge)
    new = copied(Batch(inputs, torch.zeros(64).long(), torch.arange(64)), SHIFT).image
    found = set()
    for image in new:
        ways = [
            (down, right)
            for down in (-1, 1)
            for right in (-1, 1)
            if all(
                image[0, i, j] == edge * min(max(i - down, 0), edge - 1) + min(max(j - right, 0), edge - 1)
                for i in range(edge)
                for j in range(edge)
            )
        ]
        assert len(ways) == 1
        found.update(ways)
    assert len(found) == 4


def test_mirrored_twice_is_as_before() -> None:
    of = batch(3, (4, 5))
    assert torch.equal(copied(of, MIRROR).image[0, 0, 2], of.image[0, 0, 2].flip(0))
    assert same(copied(copied(of, MIRROR), MIRROR), of)


def test_noise_is_a_share_of_each_images_own_range() -> None:
    """Of 64 x 64 numbers the standard deviation is known to 1 / sqrt(2 * 4096) = 1.1 %: here, to 5 %."""
    flat = torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64)
    inputs = torch.cat([flat, 100 * flat - 7, torch.full_like(flat, 3)])
    of = Batch(inputs, torch.zeros(3).long(), torch.arange(3))
    noise = copied(of, NOISY).image - inputs
    spread = noise.flatten(1).std(1)
    assert torch.allclose(spread[:2], NOISE * torch.tensor([1.0, 100.0]), rtol=0.05)
    assert spread[2] == 0, "what has no range stays as it is"
    assert not torch.allclose(noise[1], 100 * noise[0], rtol=0.5), "each image has noise of its own"


def test_nothing_global_is_drawn_from() -> None:
    before = torch.random.get_rng_state()
    first, second = (copied(batch(4, (6, 6)), NOISY) for _ in range(2))
    assert same(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_hospitals_answer_for_each_copy_in_the_order_of_rows() -> None:
    """As what each hospital answers when its images are changed by hand."""
    weights, selects = toy.trained()[1], (Select(only="patients"), Select(without=("patients",)))
    found = toy.run(copies(weights, ("west", "north"), selects))
    rows = [*range(24), *range(48, 72)]
    assert found["rows"].tolist() == [row for row in rows for _ in range(NUMBER)]
    assert found["copy"].tolist() == list(range(NUMBER)) * 48
    images = toy.images("west")
    changed = copied(Batch(images.pixels, images.targets, images.rows), NOISY)
    network = toy.network()
    network.load(weights)
    with torch.no_grad():
        expected = network.module.eval()(changed.image)
    west = (found["rows"] >= 48) & (found["copy"] == NOISY)
    # rounding of sums of at most 144 products of numbers of about 1
    assert torch.allclose(found["logits"][west], expected, atol=1e-4)


def test_the_order_of_hospitals_changes_nothing() -> None:
    one, other = (
        toy.run(copies(toy.trained()[1], sites, (Select(),)))
        for sites in (("west", "north"), ("north", "west"))
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("number", [SHIFT, MIRROR])
def test_a_volumes_signal_is_of_the_label_map_that_moved_along(number: int) -> None:
    """A model that tells every voxel of a copy rightly overlaps its labels wholly; what is ignored counts nowhere."""
    new = copied(batch(3, (4, 5, 6)), number)
    rightly = torch.nn.functional.one_hot(there(new) % IGNORED, 4).movedim(-1, 1).float() * 50
    kind = learnt("segmentation")
    signal, brief = kind.signal(rightly, new.targets), kind.brief(rightly, new.targets)
    known = (new.targets != IGNORED).flatten(1).sum(1)
    assert torch.equal(signal["intersection"].sum(1), known)
    assert signal["loss"].max() < 1e-9
    assert brief.keys() == {"loss"} and torch.equal(brief["loss"], signal["loss"])


def test_signals_of_no_change_are_signals() -> None:
    ward = toy.ToyLocal("west", toy.network(), toy.Log())
    plain, changed = (
        signals(ward, toy.trained()[1], toy.images("west"), change=change) for change in (None, lambda of: of)
    )
    assert torch.equal(plain["logits"], changed["logits"])


def pairs(words: list[list[int]], first: int = 0) -> Batch:
    """Images of one pixel with reports and one number each beside them."""
    count = len(words)
    inputs = {
        IMAGE: torch.arange(count).view(-1, 1, 1, 1).float(),
        "report": torch.tensor(words),
        "age": torch.zeros(count, 1),
    }
    return Batch(inputs, torch.zeros(count).long(), torch.arange(first, first + count))


def beside(of: Batch, name: str) -> Tensor:
    assert isinstance(of.inputs, Mapping)
    return of.inputs[name]


def test_a_report_loses_one_word_and_keeps_the_order_of_the_others() -> None:
    """Every word is lost by some of 60 images, unless by a chance of 3 * (2/3) ** 60; a single word and none stay."""
    left = {(2, 3, 0, 0), (1, 3, 0, 0), (1, 2, 0, 0)}
    for number in range(NUMBER):
        new = copied(pairs([[1, 2, 3, 0]] * 60), number)
        assert {tuple(row) for row in beside(new, "report").tolist()} == left
        assert beside(copied(pairs([[5, 0], [0, 0]]), number), "report").tolist() == [[5, 0], [0, 0]]


def test_numbers_beside_an_image_and_a_table_alone_are_under_noise_in_each_copy() -> None:
    """Of 4,000 draws the deviation is known to about 1 %; no copy is the row itself, nor another copy."""
    of, alone = (
        pairs([[1, 2]] * 4000),
        Batch(torch.rand(4000, 5), torch.zeros(4000).long(), torch.arange(4000)),
    )
    for number in range(NUMBER):
        noise = beside(copied(of, number), "age")
        assert float(noise.std()) == pytest.approx(NOISE, rel=0.06) and bool((noise != 0).all())
    copies_ = [copied(alone, number).image for number in range(NUMBER)]
    for i, one in enumerate([alone.image, *copies_]):
        for other in copies_[i:]:
            assert one is other or not bool((one == other).all(dim=1).any())
    reach = alone.image.amax(1) - alone.image.amin(1)
    assert float(((copies_[0] - alone.image) / reach[:, None]).std()) == pytest.approx(NOISE, rel=0.05)


def test_what_comes_beside_is_changed_alike_alone_and_in_a_batch() -> None:
    of = pairs([[1, 2, 3, 4], [5, 6, 7, 0]], first=3)
    for number in range(NUMBER):
        together = copied(of, number)
        alone = copied(of.at(lambda x: x[1:]), number)
        for name in ("report", "age"):
            assert torch.equal(beside(alone, name), beside(together, name)[1:])

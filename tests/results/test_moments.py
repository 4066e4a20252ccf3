"""A request in the middle of training is seen at two moments: each says which it is, and shows its own part of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fedunlearn.results.frames import elsewhere
from fedunlearn.results.overview import Source, asked


class Run:
    """A run folder of which only the moments are known."""

    def read_manifest(self) -> dict[str, Any]:
        return {
            "moments": [
                {"id": "some@3", "forgets": "some", "summary": "forget 2 patients, after round 3"},
                {"id": "some", "forgets": "some", "summary": "forget 2 patients, after round 3"},
                {"id": "leave", "forgets": "leave", "summary": "forget all of east"},
                {"id": "more@4", "forgets": "more", "summary": "forget 1 patient, after round 4"},
            ]
        }


@pytest.mark.parametrize(
    ("request_", "said", "left_out"),
    [
        ("some@3", "forget 2 patients, after round 3; models right after unlearning", ("continue",)),
        ("some", "forget 2 patients, after round 3; models at the end of training", ("unlearn",)),
        ("leave", "forget all of east", ()),
        ("more@4", "forget 1 patient, after round 4; models right after unlearning", ("continue",)),
    ],
)
def test_a_moment_says_which_it_is_and_shows_its_own_part(
    request_: str, said: str, left_out: tuple[str, ...]
) -> None:
    """Unlearning and what came after it begin at the same round: in one picture they would lie over one another."""
    run = cast(Source, Run())
    (moment,) = (one for one in run.read_manifest()["moments"] if one["id"] == request_)
    assert asked(moment, run.read_manifest()) == said
    assert elsewhere(run, request_) == left_out

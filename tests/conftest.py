from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # as in every worker: the bits depend on it
settings.register_profile("fedunlearn", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("fedunlearn")


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """For modules in which intervals do not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        yield

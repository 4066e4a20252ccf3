from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from fedunlearn.charts import painters
from fedunlearn.charts.layers import Spec

Draw = Callable[[Spec, int], str]


@pytest.fixture(scope="module")
def draw() -> Iterator[Draw]:
    """What `charts.drawn` does, by painters who stay: to come takes them longer than most pictures."""
    with contextlib.ExitStack() as stack:
        hired = dict[int, Callable[[Spec], tuple[Future[str], ...]]]()

        def drawn(chart: Spec, width: int) -> str:
            if width not in hired:
                hired[width] = stack.enter_context(painters((width,)))
            (picture,) = hired[width](chart)
            return picture.result()

        yield drawn

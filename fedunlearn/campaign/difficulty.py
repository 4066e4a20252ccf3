"""How long an image takes to be learnt: from which round of the original training on the model stays right about it.

What is learnt late and forgotten in between is what a model has to memorise, hence what is hard to unlearn and what an
attack finds first: scores tell early and late images apart (`fedunlearn.scoring.evidence.groups`). It is evaluation's
own work, one pass over the images for every round, and no strategy's cost.

A forgetting event is a round after which the model is wrong about an image it was right about the round before
(Toneva et al., "An empirical study of example forgetting during deep neural network learning", ICLR 2019, arXiv
1812.05159, Definition 2.1). Deviation: they look whenever the image is in a mini-batch, which no server of a federation
could; here it is once per round, at all images, those of patients whom nobody trains on too. Of several findings a
model is right about an image if it is about all that are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import Procedure, SiteId, Weights
from fedunlearn.federation.procedures import signals
from fedunlearn.learning.kinds import Right

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def lessons(
    models: Iterable[Weights], sites: Sequence[SiteId], targets: npt.NDArray[Any], right: Right
) -> Procedure[Bools]:
    """(rounds, N) whether each of ``models``, those after every round, is right about each image.

    Args:
        models: in the order of rounds; taken one at a time, so that they need not all be in memory.
        sites: the hospitals.
        targets: (N, ...) in the order of ``sites.parquet``.
        right: what the kind of task calls right (`fedunlearn.learning.kinds.Learnt`).
    """
    rightly = []
    for weights in models:
        found = yield from signals(weights, sites)
        rightly.append(right({name: tensor.numpy() for name, tensor in found.items()}, targets))
    return np.stack(rightly)


def learnt_after(right: Bools) -> Ints:
    """(N,) the first round, from 1, after which the model stays right to the end.

    One more than there are rounds if it is wrong at the end: it would take longer than training did.

    Args:
        right: (rounds, N).
    """
    last_wrong: Ints = (np.arange(1, len(right) + 1)[:, None] * ~right).max(axis=0)
    return last_wrong + 1


def forgetting_events(right: Bools) -> Ints:
    """(N,) how often the model was right after one round and wrong after the next."""
    events: Ints = (right[:-1] & ~right[1:]).sum(axis=0)
    return events


def table(images: Sequence[Any], right: Mapping[int, Bools]) -> pd.DataFrame:
    """``difficulty.parquet``: one row per image and seed.

    Args:
        images: (N,) ids.
        right: (rounds, N) by seed.
    """
    parts = [
        pd.DataFrame(
            {
                "image": images,
                "seed": seed,
                "learnt_after": learnt_after(of_seed),
                "forgetting_events": forgetting_events(of_seed),
            }
        )
        for seed, of_seed in right.items()
    ]
    return pd.concat(parts, ignore_index=True)

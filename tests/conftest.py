from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)  # as in every worker: the bits depend on it
settings.register_profile("fedunlearn", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("fedunlearn")

"""A class for each voxel of a volume."""

from __future__ import annotations

from fedunlearn.core.kinds import Facts

FACTS = Facts(what="volume", one_class=False, one_answer=False, pictures=False, background=True, slices=True)

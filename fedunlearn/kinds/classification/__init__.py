"""One class for each image or volume."""

from __future__ import annotations

from fedunlearn.core.kinds import Facts

FACTS = Facts(what="image", one_class=True, one_answer=True, pictures=True, background=False)

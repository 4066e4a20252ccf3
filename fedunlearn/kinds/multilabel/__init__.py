"""Several findings of an image, each absent or present."""

from __future__ import annotations

from fedunlearn.core.kinds import Facts

FACTS = Facts(what="image", one_class=False, one_answer=False, pictures=False, background=False)

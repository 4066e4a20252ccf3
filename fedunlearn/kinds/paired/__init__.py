"""One class for each image that comes with a report or a table: said by either of them, and by both."""

from __future__ import annotations

from fedunlearn.core.kinds import Facts

FACTS = Facts(what="image", one_class=True, one_answer=False, pictures=False, background=False)

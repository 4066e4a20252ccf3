"""Pairs are dealt by the class of their image."""

from __future__ import annotations

from fedunlearn.core.held import by_class

HELD = by_class(lambda targets: targets[:, 0])

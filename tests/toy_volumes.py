"""The toy with volumes of `fedunlearn.contract`."""

from __future__ import annotations

from fedunlearn.contract.toy import SITES as SITES, Part as Part
from fedunlearn.contract.toy_volumes import *  # noqa: F403

"""The toy with volumes of `fedunlearn.contract`, by one name."""

from __future__ import annotations

from fedunlearn.contract.toy import SITES as SITES, Part as Part
from fedunlearn.contract.toy_volumes import *  # noqa: F403
from fedunlearn.contract.toy_volumes import VOLUMES
from fedunlearn.contract.toys import *  # noqa: F403

network, select, answer, run = VOLUMES.network, VOLUMES.select, VOLUMES.answer, VOLUMES.run
trained, case = VOLUMES.trained, VOLUMES.case

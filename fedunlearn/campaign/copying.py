"""Of which images models are asked about changed copies (`fedunlearn.learning.copies`): as few as tell enough.

These are the images to forget, which a cheat would know, and held-out ones of the hospitals that hold them, which show
what the change alone does to answers. A model that forgets one request is asked about that one; what forgets none, such
as the original, is asked about all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.timeline import Moment
from fedunlearn.core import Select, SiteId
from fedunlearn.intake.desk import ALL
from fedunlearn.scenario import Scenario


@dataclass(frozen=True)
class Copied:
    """Whose copies to ask about.

    Attributes:
        sites: the hospitals that hold images to forget, in scenario order.
        selects: their images, no image twice.
    """

    sites: tuple[SiteId, ...]
    selects: tuple[Select, ...]

    def count(self, cohort: Cohort) -> int:
        """How many images these are."""
        return sum(cohort.count(site, select) for site in self.sites for select in self.selects)


def copied(scenario: Scenario, cohort: Cohort, moment: Moment | None = None) -> Copied | None:
    """What models of ``moment`` are asked about; those that have forgotten nothing, of all requests, if that is None.

    None if the scenario wants no copies, models are not judged then, or nothing is to be forgotten.
    """
    ids = (ALL,) if scenario.calendar else tuple(request.id for request in scenario.requests)
    forget = [Select(only=one, without=ids[:number]) for number, one in enumerate(ids)]
    if moment is not None:
        forget = [Select(only=moment.request.id, without=moment.earlier)]
    counts = [cohort.counts(select) for select in forget]
    sites = tuple(site for site in cohort.sites if any(count[site] for count in counts))
    wanted = scenario.evaluation.copies and (moment is None or moment.scored)
    if not wanted or not sites:
        return None
    return Copied(sites, (*forget, Select(split="test")))

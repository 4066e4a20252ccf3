"""`phantom_chest`: drawn chest radiographs, each with a made-up report, so that both can be tried without a download.

No person, machine or radiologist is behind them, and the note says so. The class of a pair is how much water the lungs
hold, 0 to 3. Made so that a network can remember a patient by the picture, by the report, and by what links the two:

- every patient has a body (width, heart, ribs, spine) and maybe carries a device, the same in all pictures; and a
  ward, an old fracture, a granuloma, the same in all reports;
- every patient is seen in one of a few departments (column ``department``), each with a machine (gain, blur, noise)
  and radiologists who have habits: their words, their order, how they begin and end. A partition ``by_column`` over
  it gives each hospital one;
- the words of a report fit the class but never name it;
- of some pairs (``difficulty``: hard) a part does not tell the class, and a network can only know it by heart: pairs
  with another's class, pictures halfway between two classes, reports that will not commit themselves;
- of some of these both are needed: the picture shows one grade too much or too little, and the report says which, but
  not from where.

Hard pairs and classes are dealt evenly over the patients: held-out patients are as hard as forgotten ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from annotated_types import Ge, Le, MultipleOf

from sites.collection import Collection
from sites.phantom_chest.deal import GRADES, Deal, Knobs, People, dealt, peopled, stream
from sites.phantom_chest.drawing import drawn, machines
from sites.phantom_chest.writing import GRADE_NAMES, written
from sites.tokens import tokens
from sites.watching import Watch, unwatched


@dataclass(frozen=True)
class PhantomChest:
    """Procedural chest radiographs with reports, of four grades of water in the lungs.

    Attributes:
        images: how many pairs of a picture and its report.
        images_per_patient: how many of each patient, as nearly as ``images`` allows.
        size: edge in pixels.
        predominance: share of a patient's pairs that are of the grade predominant in it.
        mislabelled: share of pairs whose class is another than picture and report show.
        unclear: share of pairs with a picture halfway between two grades, and as many with a report that fits all.
        loose: share of a report's sentences that fit the next grade, up or down: the others contradict them.
        linked: share of pairs of which neither picture nor report tells the class, but both together do.
        jitter: how much one picture of a patient differs from the next (place, exposure, grain).
        body: how much patients' bodies differ.
        machine: how much departments' machines differ (gain, blur, noise).
        departments: how many departments the patients are seen in.
        readers: radiologists of each department.
        words: words kept of each report; longer ones are cut.
        seed: of everything drawn and written; a scenario's training seeds all see the same.
    """

    name: Literal["phantom_chest"] = "phantom_chest"
    images: Annotated[int, Ge(60)] = 1800
    images_per_patient: Annotated[int, Ge(1)] = 4
    size: Annotated[int, Ge(28), Le(256), MultipleOf(4)] = 28
    predominance: Annotated[float, Ge(0), Le(1)] = 0.5
    mislabelled: Annotated[float, Ge(0), Le(0.25)] = 0.14
    unclear: Annotated[float, Ge(0), Le(0.25)] = 0.10
    loose: Annotated[float, Ge(0), Le(1)] = 0.3
    linked: Annotated[float, Ge(0), Le(0.25)] = 0.10
    jitter: Annotated[float, Ge(0), Le(2)] = 0.4
    body: Annotated[float, Ge(0), Le(1)] = 1.0
    machine: Annotated[float, Ge(0), Le(2)] = 0.5
    departments: Annotated[int, Ge(1)] = 3
    readers: Annotated[int, Ge(1)] = 2
    words: Annotated[int, Ge(8), Le(512)] = 56
    seed: Annotated[int, Ge(0)] = 0

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Draw and write: the same every time, and no random state but our own is touched."""
        deal, people = self._dealt()
        device = machines(self.departments, self.machine, stream(self._knobs, "machines"))
        rng = stream(self._knobs, "pixels")
        names = [f"p-{p:04d}" for p in deal.patient]
        table = pd.DataFrame(
            {
                "image": [f"{name}-{k:02d}" for name, k in zip(names, deal.number, strict=True)],
                "patient": names,
                "sex": people.sex[deal.patient],
                "age": people.age[deal.patient],
                "view": np.where(deal.upright, "PA", "AP"),
                "department": [f"department-{d + 1}" for d in people.department[deal.patient]],
                "difficulty": np.where(deal.hard, "hard", "easy"),
            }
        )
        return Collection(
            pixels=drawn(deal, people, device, self.size, self.jitter, self.body, rng),
            targets=np.repeat(deal.target[:, None], 3, 1).astype(np.uint8),
            table=table,
            classes=GRADES,
            names=GRADE_NAMES,
            synthetic_patients=True,
            kind="paired",
            companions={"report": tokens(self._written(deal, people), self.words)},
            note="Phantom chests, drawn by a program, with reports written by it: no picture is of a real chest, no "
            "radiologist wrote a word, patients are invented.",
        )

    def reports(self) -> list[str]:
        """The reports in words, in the order of the images."""
        return self._written(*self._dealt())

    @property
    def _knobs(self) -> Knobs:
        return Knobs(
            images=self.images,
            images_per_patient=self.images_per_patient,
            predominance=self.predominance,
            mislabelled=self.mislabelled,
            unclear=self.unclear,
            linked=self.linked,
            departments=self.departments,
            readers=self.readers,
            seed=self.seed,
        )

    def _dealt(self) -> tuple[Deal, People]:
        deal = dealt(self._knobs)
        return deal, peopled(self._knobs, int(deal.patient[-1]) + 1)

    def _written(self, deal: Deal, people: People) -> list[str]:
        habits, words = stream(self._knobs, "habits"), stream(self._knobs, "words")
        return written(deal, people, self.departments, self.readers, self.loose, habits, words)

"""Reports: what is seen, in the words and the order that a radiologist is used to, and what a patient always has.

No grade is named: neither its number nor its name (`GRADE_NAMES`) is ever written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sites.phantom_chest.deal import DEVICES, GRADES, Deal, People, Random

GRADE_NAMES = ("no edema", "vascular congestion", "interstitial edema", "alveolar edema")
"""What the grades are called, in their order (Chauhan et al., MICCAI 2020)."""

_VESSELS = (
    ("Pulmonary vessels are of normal calibre.", "Vascularity is normal.", "Vessels taper normally."),
    ("Upper lobe vessels are prominent.", "Vascularity is increased cranially.", "Vessels are distended."),
    ("Vessels are indistinct.", "Vascularity is blurred.", "Vessels are hazy with cuffing."),
    ("Vessels can no longer be made out.", "Vascularity is obscured.", "Vessels are lost in opacities."),
)
_LUNGS = (
    ("Lungs are clear.", "No opacity in either lung.", "Both lungs are well aerated."),
    ("Lungs are clear but full.", "Hila are plump, no opacity.", "Aeration is preserved, hila are wide."),
    ("Septal lines at both bases.", "Kerley lines are present.", "Fine reticular markings in the periphery."),
    (
        "Confluent perihilar opacities.",
        "Patchy airspace filling.",
        "Bat wing opacities with bronchograms.",
    ),
)
_FLUID = (
    ("No effusion.", "Angles are sharp.", "Pleura without fluid."),
    ("No effusion.", "Angles are sharp.", "Fissures a little thick."),
    ("Fissures are thick.", "Angles a little blunted.", "A trace of pleural fluid."),
    ("Pleural effusions.", "Both angles are blunted.", "Layering pleural fluid."),
)
_VAGUE = (
    ("Vessels are hard to judge.", "Vascularity as far as seen.", "Vessels not well shown."),
    ("Lungs compare with before.", "Aeration is limited.", "Lung bases are cut off."),
    ("Angles are not included.", "Pleura cannot be judged.", "Fluid cannot be ruled out."),
)
_SHIFTED = {
    1: ("It looks worse than it is, lying and breathed out.", "Crowding exaggerates the findings.",
        "Overestimated by poor inspiration."),
    -1: ("It looks better than it is, hyperinflated.", "Emphysema hides part of the findings.",
         "Underestimated by destroyed lung."),
}  # fmt: skip
_OPENING = ("Chest, one view.", "Radiograph of the thorax.", "Bedside study reviewed.", "Compared with old films.",
            "Heart and lungs as follows.", "Plain film.")  # fmt: skip
_CLOSING = ("Kind regards.", "Clinical correlation is advised.", "Follow up as needed.", "Discussed by telephone.",
            "Dictated, not proofread.", "Please repeat if in doubt.")  # fmt: skip
_HISTORY = (
    "dyspnea",
    "fever",
    "chest pain",
    "cough",
    "a fall",
    "heart failure",
    "renal failure",
    "preoperative",
)
_RIBS = ("fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_PLACES = ("apex", "hilum", "lower lobe", "upper lobe", "axilla", "neck")


@dataclass(frozen=True)
class _Habits:
    """How somebody writes."""

    opening: str
    closing: str
    wording: tuple[int, ...]  # of each of vessels, lungs, fluid, what looks otherwise than it is
    order: tuple[int, ...]  # of the report's parts


def written(
    deal: Deal, people: People, departments: int, readers: int, loose: float, styles: Random, rng: Random
) -> list[str]:
    """All reports.

    Args:
        deal: what they are about.
        people: whose they are.
        departments: how many.
        readers: how many who write reports each of them has.
        loose: share of sentences that fit the next grade, up or down.
        styles: random numbers that their habits come from.
        rng: of what is written.
    """
    habits = [_habits(styles) for _ in range(departments * readers)]
    always = [_always(people, p) for p in range(len(people.age))]
    return [
        _report(deal, row, habits[people.department[p] * readers + reader], always[p], loose, rng)
        for row, (p, reader) in enumerate(zip(deal.patient.tolist(), deal.reader.tolist(), strict=True))
    ]


def _habits(rng: Random) -> _Habits:
    return _Habits(
        opening=str(rng.choice(_OPENING)),
        closing=str(rng.choice(_CLOSING)),
        wording=tuple(rng.integers(0, 3, 4).tolist()),
        order=tuple(rng.permutation(4).tolist()),
    )


def _always(people: People, p: int) -> str:
    """What every report of a patient tells: ward, history, and what was there before and will be."""
    code, side = people.code[p], "right" if people.right[p] else "left"
    other = "left" if people.right[p] else "right"
    told = [f"Ward {10 + int(90 * code[0])}, {_of(_HISTORY, float(code[1]))}."]
    if people.device[p]:
        told.append(f"{DEVICES[people.device[p]].capitalize()} in place.")
    if code[2] < 0.6:
        told.append(f"Old fracture of the {side} {_of(_RIBS, float(code[3]))} rib.")
    if code[4] < 0.6:
        told.append(f"Granuloma, {other} {_of(_PLACES, float(code[5]))}, {4 + int(16 * code[6])} mm.")
    if code[7] < 0.4:
        told.append(f"Scoliosis to the {side}.")
    return " ".join(told)


def _report(deal: Deal, row: int, habits: _Habits, always: str, loose: float, rng: Random) -> str:
    grade, offset = int(deal.written[row]), int(deal.offset[row])
    parts = [
        _worded(_VAGUE[k] if grade < 0 else slot[_near(grade, loose, rng)], habits.wording[k], rng)
        for k, slot in enumerate((_VESSELS, _LUNGS, _FLUID))
    ]
    if offset:
        parts.append(_worded(_SHIFTED[offset], habits.wording[3], rng))
    seen = " ".join(parts)
    view = "Upright." if deal.upright[row] else "Supine."
    body = (view, seen, always, "Heart size as before." if rng.random() < 0.5 else "Heart unchanged.")
    return " ".join((habits.opening, *(body[k] for k in habits.order), habits.closing))


def _near(grade: int, loose: float, rng: Random) -> int:
    """The grade that a sentence fits."""
    aside = grade + (1 if rng.random() < 0.5 else -1)
    return min(GRADES - 1, max(0, aside)) if rng.random() < loose else grade


def _worded(wordings: Sequence[str], habit: int, rng: Random) -> str:
    """One of several wordings: four times in five the one that its writer is used to."""
    return wordings[habit if rng.random() < 0.8 else int(rng.integers(0, len(wordings)))]


def _of(names: Sequence[str], share: float) -> str:
    return names[min(len(names) - 1, int(len(names) * share))]

"""What the folders of images are, as far as their names and their numbers tell; else it is asked for, never guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal, get_args

from fedunlearn.core import InputError
from sites.folder.layout import Layout
from sites.folder.trees import Tree
from sites.identity import listed
from sites.parts import PART_OF

Role = Literal["class", "site"]
Folders = Sequence[tuple[str, ...]]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_MOST = 20
"""Classes, or hospitals, that there may be; of more, the folders are hardly these."""
_HOSPITALS = """
site sites hospital hospitals hosp clinic clinics klinik klinikum krankenhaus spital centre centres center centers
scanner scanners institution institute institut university universität infirmary hopital hôpital ospedale
"""
_NUMBERED = """
class label grade stage type category birads covid
"""
_FINDINGS = """
normal normals abnormal healthy ill well sick benign malignant disease
diseased control controls positive negative pos neg yes no true false present absent finding findings pneumonia
tb tuberculosis tumor tumors tumour tumours cancer lesion lesions nevus naevus cyst cysts polyp polyps nodule nodules
mass masses fracture fractures effusion edema oedema stroke infarct hemorrhage haemorrhage glaucoma cataract drusen cnv
dme amd atelectasis cardiomegaly infiltration consolidation mild moderate severe
"""
_SITES, _CLASSES = frozenset(_HOSPITALS.split()), frozenset(_FINDINGS.split())
_GRADES = frozenset(_NUMBERED.split())
"""Words for classes that numbers may follow; after others, such as ``tumor_017``, they rather tell patients."""
_ENDINGS = re.compile(r"(oma|omas|itis|osis|oses|pathy|emia|aemia|plasia|thorax|cyte|cytes|phil|phils)$")


class Undecided(InputError):
    """The folders can be read in several ways, and nothing tells in which.

    Attributes:
        question: what is to be known.
        readings: the layouts that fit, and what each takes the folders for.
    """

    def __init__(self, question: str, readings: Mapping[Layout, str], beside: str = "") -> None:
        self.question, self.readings = question, dict(readings)
        told = "; ".join(f"--layout {layout} if {what}" for layout, what in self.readings.items())
        super().__init__(f"{question} Expected somebody to say what they are: give {told}{beside}")


def decided(tree: Tree) -> tuple[Layout, str]:
    """What the folders are, from the outermost on, and what tells it, in a few words.

    Raises:
        Undecided: neither their names nor their numbers tell.
        InputError: there are too few, or none for patients.
    """
    above = [file.parts[: len(file.parts) - (file not in tree.series)] for file in tree.files]
    depth = min(map(len, above), default=0)
    if depth < 2:
        raise InputError(
            f"found images with {depth} folder{'' if depth == 1 else 's'} above them; expected a folder for every "
            "patient in one for every class or hospital: move them, or have a table begun with `fedunlearn manifest "
            "FOLDER`, fill it in, and give that"
        )
    outer, inner = _names(above, 0), _names(above, 1)
    if len(outer) > 1 and {name.casefold() for name in outer} <= PART_OF.keys():
        return "class/patient", "as folders are"  # whoever reads them says that they are parts of a split
    if tree.maps:
        return _with_maps(outer, inner)
    again, pairs = _again(above), len({parts[:2] for parts in above})
    if depth == 2:
        return _of_two(outer, inner, again, pairs)
    # Patients are other ones in every class of every hospital; studies are often called alike.
    return _of_three(outer, inner, bool(again) and len(_names(above, 2)) >= pairs)


def _with_maps(outer: list[str], inner: list[str]) -> tuple[Layout, str]:
    if _role(outer) != "class":
        return "site/patient", "with label maps"
    raise Undecided(
        f"found label maps, in folders {listed(outer)} that are named like classes.",
        {
            "site/patient": "they are hospitals, and voxels are to be segmented",
            "class/patient": "they are classes: then label maps are left out",
        },
    )


def _of_two(outer: list[str], inner: list[str], again: list[str], pairs: int) -> tuple[Layout, str]:
    """Two folders above each image, ``pairs`` of an outer and an inner one in all."""
    role = _role(outer)
    if role == "class":
        return "class/patient", "by their names"
    if again and _role(inner) == "class":
        raise InputError(
            f"found folders {listed(again)}, named like classes, below {listed(outer)}, and none for patients in them. "
            "Expected a folder for every patient: move images into such, or have a table begun with `fedunlearn "
            "manifest FOLDER`, fill it in, and give that"
        )
    if role == "site":
        what = f"{listed(inner)} in them" if again else "patients in them"
        raise InputError(
            f"found folders {listed(outer)}, named like hospitals, with {what}, and nothing that tells both patients "
            f"and classes. {_without_labels()}"
        )
    beside = (
        "; or, if they are HOSPITAL/CLASS or PATIENT/STUDY, have a table begun with `fedunlearn manifest FOLDER`, fill "
        "it in, and give that"
    )
    if again:
        found = f"found folders of the same names, {listed(again)}, below several of {listed(outer)}."
        anew = " (numbered anew in each: then see that no two people have one name)"
        raise Undecided(found, _readings(outer, inner, anew=anew), beside)
    found = f"found folders {listed(outer)}, with folders {listed(inner)} in them."
    if len(outer) > _MOST or pairs < 2 * len(outer):
        found += f" The {len(outer):,} outer ones are many for classes or hospitals, and may be patients."
    raise Undecided(found, _readings(outer, inner), beside)


def _of_three(outer: list[str], inner: list[str], again: bool) -> tuple[Layout, str]:
    """Three folders above each image, or more; the second come ``again``, with others in them."""
    roles = _role(outer), _role(inner)
    numbered = 2 * sum(bool(re.search(r"\d", name)) for name in inner) > len(inner)
    if roles[0] == "class" and roles[1] != "class":
        return "class/patient", "by their names"
    if roles[0] != "class" and roles[1] == "class":
        return "site/class/patient", "by their names"
    if again and roles[0] != "class" and not numbered and len(inner) <= _MOST:
        return "site/class/patient", "since all have the same in them"
    found = f"found folders {listed(outer)}, with folders {listed(inner)} and others in them."
    beside = "; or have a table begun with `fedunlearn manifest FOLDER`, fill it in, and give that"
    raise Undecided(found, _readings(outer, inner, deep=True), beside)


def _readings(outer: list[str], inner: list[str], deep: bool = False, anew: str = "") -> Mapping[Layout, str]:
    first, second = listed(outer, 2), listed(inner, 2)
    found: dict[Layout, str] = {
        "class/patient": f"{first} are classes, and {second} patients{anew}",
        "site/patient": f"{first} are hospitals, and {second} patients{anew}: then labels stand nowhere",
    }
    if deep and len(inner) <= _MOST:
        found["site/class/patient"] = f"{first} are hospitals, {second} classes, and those in them patients"
    return found


def said(layout: Layout, tree: Tree) -> tuple[Layout, str]:
    """The layout that was asked for.

    Raises:
        InputError: it tells no classes, and there are no label maps either.
    """
    if "class" not in layout.split("/") and not tree.maps:
        raise InputError(f"--layout {layout}: found nothing that tells classes. {_without_labels()}")
    return layout, "as was said"


def _without_labels() -> str:
    return (
        "Expected a label of every image: have a table begun with `fedunlearn manifest FOLDER --layout site/patient`, "
        "fill in label, and give that; or `--layout class/patient` if these are classes"
    )


def _names(above: Folders, level: int) -> list[str]:
    return sorted({parts[level] for parts in above})


def _role(names: Sequence[str]) -> Role | None:
    """What folders are by their names: what half of them, or more, are named like, and none like the other."""
    if len(names) > _MOST:
        return None
    counts = Counter(chain.from_iterable(_likened(name) for name in names))
    likely = [role for role, count in counts.items() if 2 * count >= len(names)]
    return likely[0] if len(counts) == 1 and likely else None


def _likened(name: str) -> set[Role]:
    """What one folder is named like, by its words: those of ``BI-RADS_3`` are bi, rads and birads."""
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    words = re.findall(r"[^\W\d_]+", parted.casefold())
    whole = {*words, "".join(words)}
    found: set[Role] = {"site"} if whole & _SITES else set()
    named = whole & _CLASSES or any(len(word) > 5 and _ENDINGS.search(word) for word in words)
    if whole & _GRADES or (named and not re.search(r"\d", name)):
        found.add("class")
    return found


def _again(above: Folders) -> list[str]:
    """The names of inner folders below several outer ones, if most are; else none.

    Most classes come again below other hospitals, though one may lack some; patients hardly ever below other classes.
    """
    pairs = {parts[:2] for parts in above}
    counts = Counter(inner for _, inner in pairs)
    again = sorted(inner for inner, count in counts.items() if count > 1)
    return again if 2 * sum(counts[inner] for inner in again) > len(pairs) else []

"""What a run's models were trained on, in counts: no id of a patient or an image leaves here."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from fedunlearn.exports.settings import flat, is_path, settings
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.wording import line


@dataclass(frozen=True)
class Wish:
    """What one request asks to be forgotten of a holding."""

    request: str
    images: int
    patients: int


@dataclass(frozen=True)
class Holding:
    """What one hospital holds of one split.

    Attributes:
        site: its name.
        split: train, val, test or proxy.
        images, patients: how many.
        asked: what requests ask to be forgotten of it.
    """

    site: str
    split: str
    images: int
    patients: int
    asked: tuple[Wish, ...] = ()


def holdings(run: RunFolder) -> list[Holding]:
    """Hospital by hospital, split by split, as they come in the run.

    Raises:
        RunError: the table of images is missing or damaged.
    """
    table = run.read_table("sites.parquet")
    return [
        Holding(str(site), str(split), len(own), int(own["patient"].nunique()), _asked(own))
        for (site, split), own in table.groupby(["site", "split"], sort=False)
    ]


def _asked(own: pd.DataFrame) -> tuple[Wish, ...]:
    each = own.explode("forgotten_by").dropna(subset="forgotten_by").groupby("forgotten_by", sort=True)
    return tuple(Wish(str(request), len(some), int(some["patient"].nunique())) for request, some in each)


def remaining(run: RunFolder, gone: Collection[str]) -> dict[str, tuple[int, int]]:
    """By hospital, its training images that none of the requests ``gone`` asks for, and how many patients' they are.

    Raises:
        RunError: the table of images is missing or damaged.
    """
    table = run.read_table("sites.parquet")
    asked = pd.Series([not set(gone).isdisjoint(names) for names in table["forgotten_by"]], table.index, bool)
    own = table[(table["split"] == "train") & ~asked].groupby("site")["patient"]
    return {str(site): (len(some), int(some.nunique())) for site, some in own}


def note(run: RunFolder) -> str:
    """What the data is, in the words of its source, without the folders of this machine."""
    return nameless(run, run.read_manifest()["data"]["note"])


def nameless(run: RunFolder, text: object) -> str:
    """A text of the manifest in one line, in which files have no folders before their names."""
    found = str(text)
    known = [str(value) for key, value in flat(settings(run).rest).items() if is_path(key, value)]
    for path in sorted((path for path in known if re.search(r"[\\/]", path)), key=len, reverse=True):
        folder = path.rstrip("\\/")
        found = re.sub(rf"{re.escape(folder)}[\\/](?=\w)", "/", found)  # what is in it goes on below
        found = found.replace(folder, re.split(r"[\\/]", folder)[-1])
    # Folders may have spaces in their names; what goes on beyond a mark is taken for words.
    return line(re.sub(r"(?<![\w:/])(?:[A-Za-z]:)?[\\/](?:[^\\/:;,()\n]+[\\/])*(?=\w)", "", found))


def phantom(run: RunFolder) -> bool:
    """Whether images were drawn by a program."""
    return note(run).startswith("Phantom")

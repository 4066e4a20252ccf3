"""The reference says what the program says: made anew, it is the same, and nothing is left out."""

from __future__ import annotations

import dataclasses
import re
import runpy
from collections.abc import Mapping
from typing import Any

import pytest

import sites
import strategies
from fedunlearn import listing
from fedunlearn.core import LocalTraining
from fedunlearn.federation.traces import TRACED
from fedunlearn.intake.arrivals import Arrivals, Kinds
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Limits
from fedunlearn.intake.policies import POLICIES
from fedunlearn.learning.models import MODELS
from fedunlearn.results import columns as frame_columns, contents
from fedunlearn.scenario import schema
from fedunlearn.scenario.typed import key_of
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.docs import pages

reference: Mapping[str, Any] = runpy.run_path(str(pages.ROOT / "scripts" / "reference.py"))


def text(name: str) -> str:
    return (pages.DOCS / "reference" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", reference["PAGES"])
def test_it_is_what_the_program_says(name: str) -> None:
    assert text(name) == reference["page"](name), "out of date: run python scripts/reference.py"


def sections(name: str) -> dict[str, str]:
    """A page's text by its headings, of whatever level."""
    parts = re.split(r"^#+ (.+)\n", text(name), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> set[str]:
    """What the tables' first columns name."""
    return set(re.findall(r"^\| \[?`([^`]+)`", section, re.M))


def test_every_key_of_a_scenario_is_there() -> None:
    found = sections("scenario.md")
    parts: dict[str, type[Any]] = {
        "Top level": schema.TopKeys,
        "engine": schema.Engine,
        "sites": schema.SitesConfig,
        "split": schema.Shares,
        "training": schema.TrainingKeys,
        "requests": schema.Request,
        "Pick": schema.Pick,
        "calendar": Calendar,
        "arrivals": Arrivals,
        "Kinds": Kinds,
        "limits": Limits,
        "retention": schema.Retention,
        **POLICIES,
        "evaluation": schema.Evaluation,
        "verdict": Margins,
        **sites.SOURCES,
        **sites.PARTITIONS,
        **MODELS,
    }
    for heading, cls in parts.items():
        names = {key_of(field) for field in dataclasses.fields(cls)} - {"name", ""}
        assert names <= (rows(found[heading]) if names else set()), heading
    assert "2e-3" not in text("scenario.md")  # defaults are written as people write them
    assert f"| `lr` | a number, more than 0 | `{LocalTraining().lr:g}` |" in found["training"]


def test_every_strategy_has_a_section_with_its_settings_and_paper() -> None:
    found = sections("strategies.md")
    for name, cls in strategies.catalogue().items():
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # a protocol cannot say that it is a dataclass
        assert {field.name for field in fields} - {"name"} <= rows(found[name]), name
        assert "*Reference:* " in found[name]
        assert "*Deviations:* " in found[name]
    groups = [title.partition(":")[0].capitalize() for _, title in listing.GROUPS]
    in_groups = [row for heading in groups for row in rows(found[heading])]
    assert sorted(in_groups) == list(strategies.catalogue())


def test_every_measure_file_column_and_frame_is_there() -> None:
    measured = sections("measures.md")
    assert set().union(*map(rows, measured.values())) == set(MEASURES)
    found = sections("run-folder.md")
    assert rows(found["Files and columns of a run folder"]) == set(contents.FILES)
    for names, of in ((contents.COLUMNS, found), (frame_columns.COLUMNS, sections("frames.md"))):
        assert {name: rows(of[name]) for name in names} == {name: set(names[name]) for name in names}


def test_every_event_is_there() -> None:
    described = {"begin", "phase", "procedure", "progress", "result", "written", "warning", "error", "end"}
    assert described <= rows(text("events.md"))
    phases = {*TRACED, "prepare", "score", "page"}
    for page in (text("events.md"), (pages.DOCS / "how-to" / "programs.md").read_text(encoding="utf-8")):
        (told,) = re.findall(r"`phase` \(([^)]*)\)", page)
        assert phases <= set(re.split(", | ", told))


def test_a_field_without_a_sentence_is_refused() -> None:
    @dataclasses.dataclass
    class Mute:
        """It has a field."""

        field: int = 1

    with pytest.raises(ValueError, match=r"Mute\.field has no sentence"):
        list(reference["keys"](Mute))


def test_a_docstring_is_read_into_its_parts() -> None:
    class Thing:
        """The first line.

        More, with ``code``::

            x <- y

        Reference:
            Somebody,
            somewhere.

        Attributes:
            a, b: both (`core.Recovery`),
                over two lines.
        """

    found = reference["told"](Thing)
    assert found.summary == "The first line."
    assert found.body == "More, with `code`:\n\n    x <- y"
    assert found.sections == {"Reference": "Somebody, somewhere."}
    assert found.attributes == {"a": "both, over two lines.", "b": "both, over two lines."}

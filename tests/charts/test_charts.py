"""Charts of made-up frames: every number is somewhere, however many strategies, patients and wild values there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as etree

import altair as alt
import numpy as np
import pandas as pd
import pytest

from fedunlearn import charts
from fedunlearn.charts import balance, dots, lines, parts, work
from fedunlearn.charts.balance import ANSWERS
from fedunlearn.charts.dots import FLAGS
from fedunlearn.charts.layers import Spec, rounded, ticks
from fedunlearn.charts.look import cut
from fedunlearn.charts.parts import KINDS
from fedunlearn.results.columns import COLUMNS
from tests.charts.conftest import Draw

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>\n\u202e" + "x" * 10_000
Frame = pd.DataFrame


def who(number: int, names: list[str] | None = None) -> Frame:
    """Strategies, the last two being retraining again and the original."""
    labels = [*(names or [f"s-{i}" for i in range(number)]), "retrained_other", "original"]
    called = [*labels[:-2], "retraining again", "do nothing"]
    roles = [*["strategy"] * (len(labels) - 2), "again", "original"]
    return Frame({"strategy": labels, "name": called, "role": roles})


def filled(name: str, rows: Frame, **columns: Any) -> Frame:
    """A frame with exactly its columns."""
    assert set(columns) | set(rows.columns) <= set(COLUMNS[name])
    return rows.assign(**columns).reindex(columns=list(COLUMNS[name]))


def memory(strategies: int = 4, patients: int = 6, names: list[str] | None = None) -> Frame:
    rows = who(strategies, names).merge(Frame({"patient": [f"p-{i}" for i in range(patients)]}), how="cross")
    left = np.random.default_rng(0).normal(0.3, 0.4, len(rows))
    flags = [list(FLAGS)[i % 4] for i in range(len(rows))]
    mean = {"mean": 0.1, "mean_low": -0.1, "mean_high": 0.3, "margin": 0.25, "zone": 0.4}
    plain = {"forgotten": "partly", "dominated_by": "", "p": 0.5, "copies_flagged": ""}
    own = {
        "memory_left": left,
        "low": left - 0.2,
        "high": left + 0.2,
        "copies_left": np.nan,
        "flagged": flags,
    }
    return filled("memory", rows, **own, **mean, **plain)


def useful(strategies: int = 4, names: list[str] | None = None) -> Frame:
    rows = who(strategies, names)
    n = np.arange(len(rows))
    answers = [list(ANSWERS)[i % 6] for i in n]
    worth = {"difference": -0.01 * n, "low": -0.01 * n - 0.02, "high": -0.01 * n + 0.02, "margin": 0.03}
    cost = {"share_of_retraining": 0.1 * n + 0.1, "share_low": 0.1 * n, "share_high": 0.1 * n + 0.2}
    rest = {"useful": "yes", "measure": "test_accuracy", "images": 100.0}
    beaten = ["s-0" if i == 1 else "" for i in n]
    return filled("useful", rows, forgotten=answers, dominated_by=beaten, **worth, **cost, **rest)


def groups(strategies: int = 4, names: list[str] | None = None, parts: int = 3) -> Frame:
    whole = Frame({"attribute": ["all", *["site"] * parts], "group": ["all", *map(str, range(parts))]})
    whole["words"] = ["all images", *(f"hospital {i}" for i in range(parts))]
    rows = who(strategies, names).merge(whole, how="cross")
    n = np.linspace(-0.15, 0.05, len(rows))
    ends = {"low": n - 0.04, "high": n + 0.04, "margin": 0.05, "p": 0.5, "patients": 20}
    return filled("groups", rows, measure="test_dice", difference=n, **ends)


def costs(strategies: int = 4, names: list[str] | None = None) -> Frame:
    rows = who(strategies, names)
    extra = Frame({"strategy": ["retrained"], "name": ["retraining"], "role": ["retrained"]})
    rows = pd.concat([rows, extra], ignore_index=True)
    n = np.arange(1.0, len(rows) + 1)
    numbers = {"rounds": n, "epochs": n, "bytes": n * 1e6, "site_seconds": n, "seconds": n, "images": n}
    spent = {"share_of_retraining": n / n[-1], "storage_bytes": n * 1e6, "tuning_site_seconds": n - 1}
    return filled("costs", rows, **numbers, **spent)


def with_retraining(rows: Frame) -> Frame:
    extra = Frame({"strategy": ["retrained"], "name": ["retraining"], "role": ["retrained"]})
    return pd.concat([rows, extra], ignore_index=True)


def curves(strategies: int = 4, names: list[str] | None = None) -> Frame:
    rows = with_retraining(who(strategies, names)).merge(Frame({"step": range(4)}), how="cross")
    rows = rows.merge(Frame({"part": ["forget", "validation"]}), how="cross")
    rows = rows.merge(Frame({"measure": ["loss", "accuracy"]}), how="cross")
    phases = {"original": "original", "again": "retrained", "retrained": "retrained"}
    phase = rows["role"].map(phases).fillna("unlearn")
    after = np.where(phase == "unlearn", 3.0, 0.0)
    value = 0.2 + 0.1 * rows["step"]
    own = {"value": value, "low": value - 0.05, "high": value + 0.05, "seeds": 3, "images": 16}
    return filled("curves", rows, phase=phase, after=after, at=after + rows["step"], **own)


def roc(strategies: int = 4, names: list[str] | None = None) -> Frame:
    rates = Frame({"fpr": np.logspace(-3, 0, 31)})
    rows = with_retraining(who(strategies, names)).merge(rates, how="cross")
    tpr = rows["fpr"] ** 0.7
    return filled(
        "roc", rows, tpr=tpr, low=tpr * 0.8, high=np.minimum(tpr * 1.2, 1), n_members=66, n_nonmembers=300
    )


def relearning(strategies: int = 4, names: list[str] | None = None) -> Frame:
    rows = with_retraining(who(strategies, names)).merge(Frame({"epoch": range(5)}), how="cross")
    loss = 3.0 - 0.4 * rows["epoch"]
    return filled("relearning", rows, loss=loss, low=loss - 0.1, high=loss + 0.1, goal=1.4)


def probes(strategies: int = 4, names: list[str] | None = None) -> Frame:
    kinds = [("relearn", "relearn_epochs"), ("linear_probe", "probe_forget_accuracy")]
    kinds += [("resurgence", "resurgence_forget_accuracy"), ("resurgence", "resurgence_mia_loss_auc")]
    rows = with_retraining(who(strategies, names)).merge(
        Frame(kinds, columns=["probe", "measure"]), how="cross"
    )
    value = np.linspace(0.4, 0.9, len(rows))
    return filled(
        "probes", rows, value=value, low=value, high=value, before=value - 0.1, retrained=0.5, seeds=3
    )


CHARTS: dict[str, Callable[..., Frame]] = {
    "memory": memory,
    "tradeoff": useful,
    "groups": groups,
    "costs": costs,
    "curves": curves,
    "roc": roc,
    "relearning": relearning,
    "probes": probes,
}


DESCRIBED: dict[str, Callable[..., Spec]] = {
    "memory": dots.memory,
    "tradeoff": balance.tradeoff,
    "groups": parts.groups,
    "costs": work.costs,
    "curves": lines.curves,
    "roc": lines.roc,
    "relearning": lines.relearning,
    "probes": work.probes,
}


def chart(name: str, frame: Frame) -> Spec:
    made = getattr(charts, name)(frame)
    assert isinstance(made, alt.LayerChart)
    made.to_dict()  # valid Vega-Lite
    return DESCRIBED[name](frame)


def said(svg: str) -> list[str]:
    return [str(e.get("data-label")) for e in etree.fromstring(svg).iter() if e.get("data-label")]


def test_every_chart_has_a_frame_here():
    of_years = {"timeline", "course", "frontier"}  # in test_years.py
    assert {*CHARTS, *of_years, "css", "drawn", "painters", "interactive"} == set(charts.__all__)
    assert CHARTS.keys() == DESCRIBED.keys()


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_drawn_at_both_widths_and_describes_itself(name: str, draw: Draw):
    made = chart(name, CHARTS[name]())
    for width in (360, 860):
        root = etree.fromstring(draw(made, width))
        assert len(str(root.get("aria-label"))) > 20 and float(str(root.get("height"))) > 100
    labels = said(draw(made, 860))
    assert any("s-0" in label for label in labels) and not any("nan" in label.lower() for label in labels)


@pytest.mark.gate
@pytest.mark.parametrize("name", CHARTS)
def test_forty_strategies_stay_readable_and_small(name: str, draw: Draw):
    svg = draw(chart(name, CHARTS[name](40)), 860)
    assert len(svg) < 450_000
    text = " ".join("".join(t.itertext()) for t in etree.fromstring(svg).iter(f"{SVG}text"))
    if name in ("memory", "costs", "probes"):
        assert all(f"s-{i}" in text for i in range(40))  # every row is named


@pytest.mark.parametrize("name", CHARTS)
def test_names_are_text(name: str, draw: Draw):
    svg = draw(chart(name, CHARTS[name](2, names=[HOSTILE, HOSTILE + "!"])), 860)
    assert "<script" not in svg and "\u202e" not in svg and len(svg) < 120_000
    assert any("\\n" in label for label in said(svg)) or name == "groups"


@pytest.mark.parametrize("name", CHARTS)
def test_an_empty_frame_makes_an_empty_chart(name: str, draw: Draw):
    frame = CHARTS[name]()
    assert draw(chart(name, frame.iloc[:0]), 400).startswith("<svg")


@pytest.mark.parametrize("name", CHARTS)
def test_wild_and_unknown_numbers_are_drawn_or_left_out(name: str, draw: Draw):
    frame = CHARTS[name]()
    numbers = [c for c in frame.select_dtypes("float").columns if c not in ("fpr", "at", "after")]
    frame.loc[0, numbers], frame.loc[1, numbers] = np.nan, np.inf
    frame.loc[2, numbers] = 1e9
    svg = draw(chart(name, frame), 400)
    assert not re.search(r"NaN|Infinity", svg)


def test_every_patient_has_a_dot_that_says_what_the_frame_says(draw: Draw):
    frame = memory()
    labels = said(draw(dots.memory(frame), 860))
    for row in frame.to_dict("records"):
        start = f"{row['patient']} · {row['name']}: {100 * row['memory_left']:.0f} % left".replace(
            "-0 %", "0 %"
        )
        (label,) = [one for one in labels if one.startswith(f"{row['patient']} · {row['name']}:")]
        assert label.replace("\N{MINUS SIGN}", "-").replace("-0 %", "0 %").startswith(start)
        assert label.endswith(FLAGS[str(row["flagged"])][0]) == bool(row["flagged"])


@pytest.mark.gate
def test_of_very_many_patients_all_are_counted_and_those_that_stand_out_named(draw: Draw):
    frame = memory(40, 200)
    svg = draw(dots.memory(frame), 860)
    labels = said(svg)
    together = [
        int(found[1]) for label in labels if (found := re.search(r": (\d+) patients with about", label))
    ]
    alone = sum(" · " in label for label in labels)
    assert sum(together) + alone == len(frame) and len(svg) < 1_100_000
    known = [label for label in labels if "patients with" in label and "still known: p-" in label]
    assert known


def test_whether_it_was_forgotten_and_dominated_is_told_without_colour(draw: Draw):
    svg = draw(balance.tradeoff(useful()), 860)
    assert any(label.startswith("s-1:") and label.endswith("dominated by s-0") for label in said(svg))
    text = " ".join("".join(t.itertext()) for t in etree.fromstring(svg).iter(f"{SVG}text"))
    assert "s-1 †" in text and all(answer in text for answer in list(ANSWERS)[:4])


def test_losses_beyond_a_margin_are_told_from_luck(draw: Draw):
    """At ±4 points around the estimate, a loss of over 5 points is sure; with ±40 points it may be luck."""
    frame = groups()
    labels = said(draw(parts.groups(frame), 860))
    assert len(labels) == len(frame) - 4  # all dots and bands of retraining again; doing nothing is not shown
    drawn = parts.groups(frame)
    kinds = {row["kind"] for data in datasets(drawn) for row in data if "kind" in row and "lift" in row}
    assert kinds == {"within the margin", "beyond the margin"}
    unsure = parts.groups(frame.assign(low=-0.5, high=0.4))
    kinds = {row["kind"] for data in datasets(unsure) for row in data if "kind" in row and "lift" in row}
    assert kinds == {"within the margin", "beyond, may be luck"} and kinds < set(KINDS)


def datasets(spec: Any) -> list[list[dict[str, Any]]]:
    """All inline data of a chart."""
    return list(spec["datasets"].values())


def test_the_request_stands_where_training_ended():
    spec = lines.curves(curves())
    (row,) = next(data for data in datasets(spec) if data and data[0].get("words") == "request")
    assert row["at"] == 3
    loss = lines.curves(curves(), part="validation", measure="loss")
    assert "Loss on 16 validation images" in loss["description"]


def test_text_of_data_is_cut():
    assert len(cut(HOSTILE, 60)) == 60


def test_ticks_are_round_and_between_the_ends():
    """By hand: of 1, 2 and 5 times a power of ten, 50 divides 190 into 4 parts, 20 into 9 and 2 divides 10 into 5."""
    assert ticks((-60, 130), 4) == [-50, 0, 50, 100]
    assert ticks((-60, 130), 8) == [-60, -40, -20, 0, 20, 40, 60, 80, 100, 120]
    assert ticks((0, 10), 6) == [0, 2, 4, 6, 8, 10] and ticks((0, 3), 8, least=1) == [0, 1, 2, 3]
    assert ticks((0, 0.3), 3) == [0, 0.1, 0.2, 0.3]
    assert rounded([0.13, 0.94, float("inf")], 5) == pytest.approx((0, 1))
    assert rounded([3, 7], 4, zero=True) == (0, 8) and rounded([], 5) == (0, 1)
    assert rounded([2, 2], 5) == pytest.approx((1.4, 2.6))

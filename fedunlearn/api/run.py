"""A finished run as programs and notebooks hold it: its tables as pandas frames, and its charts."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedunlearn.core import InputError
from fedunlearn.results import frames, sentences, years
from fedunlearn.results.held import Held, moments, summary
from fedunlearn.results.overview import Source, require_judged
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.wording import line

if TYPE_CHECKING:
    import altair as alt

    from fedunlearn.api.scenario import Scenario


def load_run(path: str | Path) -> Run:
    """A run that has finished.

    Raises:
        InputError: there is none, it has not finished, or it was judged by an older version.
    """
    return Run(Path(path))


@dataclass(frozen=True)
class Run:
    """A run folder of a finished run.

    Tables are pandas frames of the caller's own. Those that follow are made for people to look at, one row per request
    and strategy, patient, …, best strategy first; `fedunlearn.results.columns.COLUMNS` describes their columns.
    `scores`, `statistics`, `patients`, `verdicts`, `ledger` and `sites` are the files of these names, as they are.

    Attributes:
        path: the folder.

    Raises:
        InputError: there is no finished run, or it was judged by an older version.
    """

    path: Path
    _held: Held = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "_held", Held(RunFolder.open(self.path)))
        require_judged(self._held)

    @property
    def requests(self) -> list[str]:
        """What frames and charts are about: requests, and both moments of one in the middle of training."""
        return moments(self._held)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run says of itself: versions, seeds, checksums."""
        return dict(self._held.read_manifest())

    @property
    def scenario(self) -> Scenario:
        """What was run, in full."""
        from fedunlearn.api.scenario import Scenario  # here, since it knows all strategies

        return Scenario(self.path / "scenario.yaml")

    @property
    def plot(self) -> Plots:
        """Its charts: ``run.plot.memory()``."""
        return Plots(self)

    # ------------------------------------------------------------------------------------ for people to look at

    @property
    def answers(self) -> pd.DataFrame:
        """Both answers for every strategy, and the numbers that they rest on."""
        return self._all(frames.answers)

    @property
    def memory(self) -> pd.DataFrame:
        """The memory left of every patient."""
        return self._all(frames.memory)

    @property
    def useful(self) -> pd.DataFrame:
        """How good every model still is on unseen images, and what it cost."""
        return self._all(frames.useful)

    @property
    def groups(self) -> pd.DataFrame:
        """Quality on unseen images by hospital, class and group of patients."""
        return self._all(frames.groups)

    @property
    def costs(self) -> pd.DataFrame:
        """Rounds, bytes, seconds and storage, in the mean over seeds."""
        return self._all(frames.costs)

    @property
    def curves(self) -> pd.DataFrame:
        """Measures after every round; none in a run without them."""
        return self._all(frames.curves)

    @property
    def roc(self) -> pd.DataFrame:
        """What an attack finds at which rate of false alarms; none in an older run."""
        return self._all(frames.roc)

    @property
    def probes(self) -> pd.DataFrame:
        """What is known again after more training; none unless the scenario asks for it."""
        return self._all(frames.probes)

    @property
    def relearning(self) -> pd.DataFrame:
        """The loss of images to forget, epoch by epoch of training on them; none unless the scenario asks for it."""
        return self._all(frames.relearning)

    # -------------------------------------------------------------------------------- of a year with a calendar

    @property
    def calendar(self) -> pd.DataFrame:
        """When every request was received, decided and answered, by policy; none in a run without a calendar."""
        return self._of_year("timeline")

    @property
    def years(self) -> pd.DataFrame:
        """Quality, memory, distance and cost, look by look; none in a run without a calendar."""
        return self._of_year("courses")

    @property
    def requests_remembered(self) -> pd.DataFrame:
        """How much is left of every earlier request, look by look; none in a run without a calendar."""
        return self._of_year("remembered")

    @property
    def policies(self) -> pd.DataFrame:
        """What each policy came to with each strategy; none in a run without a calendar."""
        return self._of_year("policies")

    # --------------------------------------------------------------------------------------------- as they are

    @property
    def scores(self) -> pd.DataFrame:
        """``scores.parquet``: every measure of every model and group."""
        return self.table("scores")

    @property
    def statistics(self) -> pd.DataFrame:
        """``statistics.parquet``: differences from retraining that answers rest on."""
        return self.table("statistics")

    @property
    def patients(self) -> pd.DataFrame:
        """``patients.parquet``: what is left of each patient, on exact images and on changed copies."""
        return self.table("patients")

    @property
    def verdicts(self) -> pd.DataFrame:
        """``verdicts.parquet``: answers and their reasons."""
        return self.table("verdicts")

    @property
    def ledger(self) -> pd.DataFrame:
        """``ledger.parquet``: the cost of every procedure and round."""
        return self.table("ledger")

    @property
    def sites(self) -> pd.DataFrame:
        """``sites.parquet``: one row per image."""
        return self.table("sites")

    def table(self, name: str) -> pd.DataFrame:
        """Any other table of the folder, without its ending: ``run.table("bias")``.

        Raises:
            RunError: it is missing or damaged.
        """
        return self._held.read_table(f"{name}.parquet").copy()

    # ---------------------------------------------------------------------------------------------------- pieces

    def frame(self, name: str, request: str | None = None) -> pd.DataFrame:
        """One of `fedunlearn.results.columns.COLUMNS` for one request.

        Raises:
            InputError: there is no such request; or several, and none was named.
        """
        made: pd.DataFrame = getattr(frames, name)(self._held, self._one(request))
        return made

    def _of_year(self, name: str) -> pd.DataFrame:
        """One of `fedunlearn.results.columns.OF_YEARS`."""
        made: pd.DataFrame = getattr(years, name)(self._held)
        return made

    def _one(self, request: str | None) -> str:
        if request is not None:
            return request
        if len(self.requests) != 1:
            raise InputError(
                f"{self.path} has several requests, expected one of them to be named: request="
                + " or ".join(map(repr, self.requests))
            )
        return self.requests[0]

    def _all(self, make: Callable[[Source, str], pd.DataFrame]) -> pd.DataFrame:
        """A frame for every request, below one another, with a column ``request``."""
        made = [(request, make(self._held, request)) for request in self.requests]
        columns = ["request", *made[0][1].columns]
        full = [frame.assign(request=request)[columns] for request, frame in made if len(frame)]
        return pd.concat(full, ignore_index=True) if full else pd.DataFrame(columns=columns)

    def _repr_html_(self) -> str:
        """The answers of every request as a table, for a notebook."""
        return "\n".join([f"<p><b>{_text(self.path.name)}</b></p>", *map(self._request_html, self.requests)])

    def _request_html(self, request: str) -> str:
        one, told = summary(self._held, request), frames.answers(self._held, request)
        head = ("", "forgotten?", "memory left, %", "still good?", "quality, points", "work, % of retraining")
        rows = [_cells(row, one.tells) for row in told.to_dict("records")]
        body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
        heading = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
        said = " ".join(sentences.sight(one)[:1])
        return (
            f"<p>{_text(one.title)}</p><p>Can this run tell? {_text(said)}</p>"
            f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"
        )


@dataclass(frozen=True)
class Plots:
    """A run's charts: Altair's, interactive in a notebook, and ``chart.save("x.pdf")`` writes a file.

    ``request`` may be left out where the run has only one.

    Attributes:
        run: whose charts.
    """

    run: Run = field(repr=False)

    def memory(self, request: str | None = None) -> alt.LayerChart:
        """One dot per patient: the memory left, by strategy."""
        from fedunlearn import charts  # here and below, since it takes a second

        return charts.memory(self.run.frame("memory", request))

    def tradeoff(self, request: str | None = None) -> alt.LayerChart:
        """Usefulness on unseen images against cost."""
        from fedunlearn import charts

        return charts.tradeoff(self.run.frame("useful", request))

    def groups(self, request: str | None = None) -> alt.LayerChart:
        """Usefulness by hospital, class and group of patients."""
        from fedunlearn import charts

        return charts.groups(self.run.frame("groups", request))

    def costs(self, request: str | None = None) -> alt.LayerChart:
        """Work, traffic and rounds, in percent of retraining's."""
        from fedunlearn import charts

        return charts.costs(self.run.frame("costs", request))

    def curves(self, request: str | None = None, part: str = "forget", measure: str = "") -> alt.LayerChart:
        """A measure after every round; ``part`` is "forget" or "validation", ``measure`` "loss" or left out."""
        from fedunlearn import charts

        return charts.curves(self.run.frame("curves", request), part, measure)

    def roc(self, request: str | None = None) -> alt.LayerChart:
        """What an attack finds at which rate of false alarms, on log scales."""
        from fedunlearn import charts

        return charts.roc(self.run.frame("roc", request))

    def probes(self, request: str | None = None, measure: str = "") -> alt.LayerChart:
        """What is known again once somebody trains a model further."""
        from fedunlearn import charts

        return charts.probes(self.run.frame("probes", request), measure)

    def relearning(self, request: str | None = None) -> alt.LayerChart:
        """How fast images to forget are learnt again."""
        from fedunlearn import charts

        return charts.relearning(self.run.frame("relearning", request))

    def year(self) -> alt.LayerChart:
        """Every request of a year from receipt to answer, by policy.

        Raises:
            InputError: the run has no calendar.
        """
        from fedunlearn import charts

        self._require_calendar()
        return charts.timeline(self.run.calendar)

    def course(self, policy: str, measure: str = "memory_left") -> alt.LayerChart:
        """A measure of `Run.years` over the year, under one policy: a line per strategy.

        Raises:
            InputError: the run has no calendar.
        """
        from fedunlearn import charts

        self._require_calendar()
        return charts.course(self.run.years, policy, measure)

    def frontier(self, against: str = "memory_left") -> alt.LayerChart:
        """Cost against ``memory_left`` or ``late``, of every policy and strategy.

        Raises:
            InputError: the run has no calendar.
        """
        from fedunlearn import charts

        self._require_calendar()
        return charts.frontier(self.run.policies, against)

    def _require_calendar(self) -> None:
        if not years.dated(self.run._held):
            raise InputError(
                f"{self.run.path} has no calendar, expected one: only runs of scenarios with `calendar` have a year"
            )


_LONGEST = 80
"""Letters of a name in a notebook's table."""


def _text(value: object) -> str:
    """Text that may hold anything, as HTML shows it."""
    whole = line(value)
    return html.escape(whole if len(whole) <= _LONGEST * 8 else f"{whole[: _LONGEST * 8]}…")


def _cells(row: Mapping[Any, Any], tells: bool) -> tuple[str, ...]:
    """A row of a notebook's table. Retraining again has numbers, which show the noise, and no answers."""
    judged = row["role"] != "again"
    return (
        row["name"],
        row["forgotten"] if judged else "",
        _between(row["memory_left"], row["memory_low"], row["memory_high"]) if tells else "–",
        row["useful"] if judged else "",
        _between(row["difference"], row["low"], row["high"], 1, "+"),
        "0" if row["role"] == "original" else sentences.percent(row["share_of_retraining"]),
    )


def _between(value: float, low: float, high: float, digits: int = 0, sign: str = "") -> str:
    """A share in percent or points, with its 95 % interval where there is one; – where it is not known."""
    if math.isnan(value):
        return "–"
    shown, *ends = (
        f"{round(100 * number, digits) + 0:{sign}.{digits}f}" for number in (value, low, high)
    )  # no -0
    return f"{shown} ({' to '.join(ends)})" if math.isfinite(low) and math.isfinite(high) else shown

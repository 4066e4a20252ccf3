"""What a report shows, as values: the page, its requests, and their parts."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pandas as pd

from fedunlearn.pages import answers, doors, figures, listing, origin
from fedunlearn.pages.figures import Draw, Figure, figure
from fedunlearn.pages.measured import Measured
from fedunlearn.pages.tables import Table
from fedunlearn.pages.years import Year, year
from fedunlearn.results import frames, margins, purged
from fedunlearn.results.columns import called
from fedunlearn.results.held import Held, has, summary
from fedunlearn.results.kinds import words as words_of
from fedunlearn.results.overview import Overview, Source, asked, is_policy, require_judged
from fedunlearn.results.report import fairness
from fedunlearn.results.sentences import best, notes, shared, sight
from fedunlearn.results.wording import line
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import measures_of

WIDEST = 1_200
"""Pixels that a picture is at most wide in the page; the run folder has it whole."""


@dataclass(frozen=True)
class Picture:
    """Slices of volumes, or images.

    Attributes:
        source: a data URI.
        words: what it shows.
    """

    source: str
    words: str


@dataclass(frozen=True)
class Part:
    """A part of a request's section.

    Attributes:
        id: of the element.
        title: what it is about.
        told: sentences.
        figures, tables: what is shown.
        folded: tables that are shown on demand.
        pictures: slices or images.
        missing: why there is nothing, if there is nothing.
    """

    id: str
    title: str
    told: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Request:
    """One request at one moment.

    Attributes:
        id: of the section.
        name, summary: what it is called and asks for.
        trainings: how many models there are of each kind.
        verdict, tell: whether the run can tell, in a word and in sentences.
        tells: whether it can.
        lead: the answer, and what it rests on.
        short: the same, for a list.
        groups: strategies by answer.
        unsaid: what this cannot say.
        first: figures of the first screen.
        answers: the table of answers.
        tradeoff: usefulness against cost.
        notes: what the answers leave out.
        doors: for three kinds of readers.
        parts: all the rest.
    """

    id: str
    name: str
    summary: str
    trainings: str
    verdict: str
    tell: tuple[str, ...]
    tells: bool
    lead: tuple[str, str]
    short: str
    groups: tuple[answers.Group, ...]
    unsaid: tuple[str, ...]
    first: tuple[Figure, ...]
    answers: Table
    tradeoff: tuple[Figure, ...]
    notes: tuple[str, ...]
    doors: tuple[doors.Door, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """A run's report.

    Attributes:
        name: the scenario's.
        note: what there is to know about the data.
        warnings: what to beware of, of data and machines.
        failed: (who, why) of what failed.
        skipped: (who, why) of what was not run.
        year: how requests came in and were answered over a year; None of a run without a calendar.
        requests: in the scenario's order; of a year, its policies.
        scenario: the scenario in YAML, whole.
        commands: (what for, command) to run in the run folder.
        facts: (what, value) of where it comes from.
        digests: by file, of models.
    """

    name: str
    note: str
    warnings: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    year: Year | None
    requests: tuple[Request, ...]
    scenario: str
    commands: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    digests: Table


class Folder(Source, Protocol):
    """A run folder, or what it would be (`results.runfolder.Foretold`)."""

    def check(self, names: Collection[str]) -> None:
        """Make sure that files are what the manifest says."""
        ...

    def read_text(self, name: str) -> str:
        """Read a text file."""
        ...


def page(run: Folder, draw: Draw) -> Page:
    """All that a run's report shows.

    Args:
        run: its folder.
        draw: has charts drawn; they may not be there yet when this returns.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing or damaged.
    """
    held = Held(run)
    require_judged(held)
    manifest = held.read_manifest()
    scenario = run.read_text("scenario.yaml")
    requests = [_request(run, held, moment, f"r{n}", draw) for n, moment in enumerate(manifest["moments"], 1)]
    skipped = [(one["strategy"], one["reason"]) for one in manifest.get("skipped", ())]
    return Page(
        name=manifest["name"],
        note=manifest["data"]["note"],
        warnings=(
            *purged.told(manifest),
            *filter(None, [margins.changed(run)]),
            *manifest["data"].get("notes", ()),
            *manifest.get("machine_notes", ()),
        ),
        failed=tuple(shared(origin.failed(manifest))),
        skipped=tuple(shared(skipped)),
        year=year(held, draw),
        requests=tuple(requests),
        scenario=scenario,
        commands=origin.commands(scenario),
        facts=tuple(origin.facts(manifest)),
        digests=origin.digests(manifest),
    )


def _request(run: Folder, held: Held, moment: Mapping[str, Any], prefix: str, draw: Draw) -> Request:
    manifest, name = held.read_manifest(), moment["id"]
    one, of = summary(held, name), _measured(held, name)
    named = _groups(held, name)
    verdict, first = answers.verdict_of_run(sight(one)[0])
    probes = manifest.get("probes", {}).get("names", ())
    shadows = int(manifest.get("shadows", {}).get("count", 0))
    return Request(
        id=prefix,
        name=moment["id"],
        summary=asked(moment, manifest),
        trainings=_trainings(one),
        verdict=verdict,
        tell=(first, *sight(one)[1:]),
        tells=one.tells,
        lead=answers.lead(one),
        short=answers.short(one),
        groups=answers.groups(one),
        unsaid=answers.unsaid(one, probes, shadows),
        first=_first(one, held, name, prefix, draw),
        answers=listing.answers(one, of, prefix, named),
        tradeoff=figure(figures.TRADEOFF, held, name, prefix, draw),
        notes=tuple(said.replace(" (--details)", "") for said in notes(one) if said not in best(one)),
        doors=doors.doors(one, prefix, int(manifest["audit"]["lines"]), margins.origin(run)),
        parts=tuple(_parts(run, held, one, of, moment, prefix, draw)),
    )


def _first(one: Overview, held: Held, request: str, prefix: str, draw: Draw) -> tuple[Figure, ...]:
    """The figure of the first screen; none where there is no memory to be seen."""
    return figure(figures.MEMORY, held, request, prefix, draw) if one.tells else ()


def _groups(held: Held, request: str) -> dict[str, str]:
    """By group as tables name it, the same in words."""
    frame = frames.groups(held, request)
    keys = zip(frame["attribute"], frame["group"], frame["words"], strict=True)
    return {
        ("all" if attribute == "all" else f"{attribute}={group}"): words for attribute, group, words in keys
    }


def _rows(held: Held, table: str, request: str) -> pd.DataFrame:
    """A request's rows of a table, which an older run does not have."""
    if not has(held, table):
        return pd.DataFrame()
    whole = held.read_table(table)
    return whole[whole["request"] == request]


def _measured(held: Held, request: str) -> Measured:
    tables = {name: held.read_table(f"{name}.parquet") for name in ("scores", "statistics", "patients")}
    return Measured(**{name: table[table["request"] == request] for name, table in tables.items()})


def _trainings(one: Overview) -> str:
    seeds = "1 training" if one.seeds == 1 else f"{one.seeds} trainings"
    return f"{seeds} of every strategy, {one.references} retrainings"


# ------------------------------------------------------------------------------------------------ parts

ATTACKS: Mapping[str, str] = {
    "mia_loss_auc": "loss threshold",
    "mia_loss_tpr_at_1": "the same: caught at 1 % false alarms",
    "mia_lr_auc": "logistic regression",
    "mia_quantile_auc": "quantile regression",
    "mia_rmia_auc": "RMIA",
    "mia_lira_auc": "LiRA",
    "mia_ulira_auc": "U-LiRA",
    "mia_difference_auc": "difference from the original",
    "iam_completeness": "interpolation (IAM)",
}
"""Attacks by measure, as they are headed; areas under the curve but where it says otherwise."""


def _parts(
    run: Folder,
    held: Held,
    one: Overview,
    of: Measured,
    moment: Mapping[str, Any],
    prefix: str,
    draw: Draw,
) -> list[Part]:
    name, forgets = moment["id"], moment["forgets"]
    told = {measure: of.summary for measure, of in measures_of(one.kind).items()}
    attacks = listing.chosen(
        one, of, prefix, "attacks", ATTACKS_CAPTION, {**ATTACKS, **words_of(one.kind).attacks}
    )
    probed = listing.chosen(one, of, prefix, "probes", PROBES_CAPTION, _probes(one.kind))
    listed, left = listing.patients(one, of, prefix)
    curves, roc = _rows(held, "curves.parquet", forgets), _rows(held, "roc.parquet", name)
    if not curves.empty:
        curves = curves[~curves["phase"].isin(frames.elsewhere(held, name))]
    if "thresholds" in roc:
        roc = roc[roc["thresholds"] == "one"]
    drawn = partial(figure, run=held, request=name, prefix=prefix, draw=draw)
    kinds = words_of(one.kind).parts
    policy = is_policy(held.read_manifest(), name)
    return [
        Part(
            f"{prefix}-curves",
            "Round by round",
            told=(*_two_moments(held, name), *_ends_only(held, name)),
            figures=(
                *drawn(figures.CURVES, table=listing.rounds(curves, prefix)),
                *drawn(figures.VALIDATION),
            ),
            missing="" if not curves.empty else OF_A_YEAR if policy else NO_CURVES,
        ),
        Part(
            f"{prefix}-attacks",
            "How well attacks tell members",
            figures=drawn(figures.ROC, table=listing.attack(roc, one, prefix)),
            tables=(attacks,) if attacks else (),
            missing=NO_ROC if roc.empty else "",
        ),
        Part(
            f"{prefix}-groups",
            f"Hospitals, {kinds} and groups",
            told=tuple(fairness(held, name)),
            figures=drawn(figures.GROUPS, table=listing.groups(one, of, prefix, _groups(held, name))),
        ),
        Part(
            f"{prefix}-patients",
            "Every patient",
            told=(left,) if left else (),
            tables=(listed,) if listed.rows else (),
            missing="" if listed.rows else NOBODY if one.seeds > 1 and not one.patients[0] else UNTOLD,
        ),
        Part(
            f"{prefix}-probes",
            "After more training",
            figures=(*drawn(figures.RELEARNING), *drawn(figures.PROBES)),
            tables=(probed,) if probed else (),
            missing="" if probed else NO_PROBES,
        ),
        Part(
            f"{prefix}-cost",
            "Cost",
            told=(OF_ALL_REQUESTS,) if policy else (),
            figures=() if policy else drawn(figures.COSTS),
            tables=(listing.costs(one, of, prefix),),
        ),
        *_pictures(run, held, name, prefix),
        Part(f"{prefix}-reasons", "Why: every reason", folded=(listing.reasons(one, prefix),)),
        Part(f"{prefix}-measures", "Every measure", folded=(listing.every_measure(one, of, prefix, told),)),
    ]


def _two_moments(held: Held, request: str) -> tuple[str, ...]:
    """Which part of a request in the middle of training its curves show; nothing of other requests."""
    match frames.elsewhere(held, request):
        case ("continue",):
            return ("Shown is unlearning; training then went on with what it gave.",)
        case ("unlearn",):
            return (
                "Shown is how training went on with what unlearning gave; unlearning itself stands with the models "
                "right after it.",
            )
    return ()


def _ends_only(held: Held, request: str) -> tuple[str, ...]:
    """A sentence about procedures whose rounds nobody has seen, if there are any."""
    named = []
    for one in frames.ends_only(held, request):
        doing = listing.PHASES.get(one["phase"], one["phase"])
        alone = one["phase"] in ("original", "retrained")
        named.append(doing if alone else f"{line(called(one['strategy']))} ({doing})")
    whom = ", ".join(dict.fromkeys(named))
    return (f"Only start and end are known of {whom}: taken from an earlier run.",) if named else ()


OF_ALL_REQUESTS = (
    "Of a policy: of all its answers. % of retraining is of training anew on each day on which something to unlearn "
    "was accepted; retraining itself, and all else in its row, is training anew once."
)
NOBODY = "No patient can be compared with held-out ones."
UNTOLD = "This run cannot tell for anybody. Numbers of theirs in patients.parquet may be luck alone."
OF_A_YEAR = "Not recorded of a year: how models do from look to look is shown above, with the year."
NO_CURVES = "Not recorded: the run is of an older version, or its scenario says evaluation: {curves: false}."
NO_ROC = "No curves of attacks, only their areas: the run is of an older version."
ATTACKS_CAPTION = (
    "Whether an attack tells images to forget from unseen ones. .50 is guessing; what counts is the distance from "
    "retraining, above and below. Means over seeds."
)
PROBES_CAPTION = (
    "After a little more training. Epochs until the images to forget are known as well as to the original, and their "
    "ratio to retraining's: below 1, memory was left (medians over seeds; ∞: not in the epochs given). The rest: means."
)
NO_PROBES = (
    "Not asked for. evaluation: {relearn: true, linear_probe: true, resurgence_rounds: 2} in the scenario trains each "
    "model a little more, and tells whether it relearns faster than a model that never saw the patients."
)


def _probes(kind: str) -> Mapping[str, str]:
    forget = scored(kind).on("forget")
    return {
        "relearn_epochs": "epochs to relearn",
        "relearn_ratio": "of retraining's",
        f"probe_{forget}": "last layer refitted: to forget",
        "probe_mia_loss_auc": "the same: attack's AUC",
        f"resurgence_{forget}": "trained on without: to forget",
        "resurgence_mia_loss_auc": "the same: attack's AUC",
        "canary_success": "wrong labels learnt by heart",
    }


def _pictures(run: Folder, held: Held, request: str, prefix: str) -> list[Part]:
    """The slices of volumes, and the strip of images to forget where a scenario asks for it; if there are any."""
    parts = []
    for kind, text in _SEEN.items():
        kept = held.read_manifest().get(kind, {})
        found = [
            _picture(run, name, text.format(request))
            for entry in kept.get("pictures", ())
            if entry["request"] == request
            for name in entry["files"]
            if name.endswith(".png")
        ]
        if found:
            rule = (kept.get("rule", ""),)
            parts.append(Part(f"{prefix}-{kind}", "What models see", told=rule, pictures=tuple(found)))
    return parts


_SEEN = {
    "slices": "Slices of volumes of {}, as every model segments them",
    "pictures": "Images to forget of {}, and what every model says of them",
}
"""By what the manifest calls pictures of models' answers, what they show."""


def _picture(run: Folder, name: str, text: str) -> Picture:
    from PIL import Image

    run.check([name])
    with Image.open(run.path / name) as whole:
        image = whole.convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return Picture(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}", text)

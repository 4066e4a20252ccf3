"""The story of a run, top to bottom: hospitals, training, requests, strategies, scores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fedunlearn import finished, pages, recording, scenario as scenarios
from fedunlearn.campaign import resuming
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.estimate import available_memory, estimate, model_bytes, most_under_way, require_room
from fedunlearn.campaign.expecting import answering, expected
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.origins import Environment
from fedunlearn.campaign.pictures import Pictures
from fedunlearn.campaign.probing import Probing
from fedunlearn.campaign.shadows import Shadows
from fedunlearn.campaign.slices import Slices
from fedunlearn.campaign.timing import scoring_seconds
from fedunlearn.core import InputError
from fedunlearn.erasure import returning
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Engine, Link, Staff
from fedunlearn.federation.engines.flower import Flower
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import Machine, here, notes
from fedunlearn.federation.jobs import Watcher
from fedunlearn.federation.journal import Journal
from fedunlearn.federation.ledger import Ledger
from fedunlearn.federation.memory import Kept
from fedunlearn.federation.progress import phase, progress, warn, watching
from fedunlearn.recording import Production
from fedunlearn.results import audit
from fedunlearn.results.places import locked
from fedunlearn.results.runfolder import ABOUT, CURVES, RunFolder
from fedunlearn.results.store import Store, earlier
from fedunlearn.results.wording import plain
from fedunlearn.scenario import Scenario
from fedunlearn.scoring.score import score
from fedunlearn.scoring.together import usual


@dataclass(frozen=True)
class Hired:
    """Who plays the hospitals, of one run after the other.

    Attributes:
        staff: they.
        memory: bytes that there were before they came (`available_memory`): what they hold is a part of what runs need.
    """

    staff: Staff
    memory: int


@contextlib.contextmanager
def hired(
    scenario: Scenario, machines: tuple[Machine, ...], console: Console, quiet: bool
) -> Iterator[Hired]:
    """Have those come who play a scenario's hospitals, and let them go at the end (`Engine.staff`).

    Args:
        scenario: whose engine is used.
        machines: those that were found before (`surveyed`).
        console: where what a person may want to know of machines is shown.
        quiet: show nothing.
    """
    available = available_memory()
    with engine(scenario, machines, console, quiet).staff() as staff:
        yield Hired(staff, available)


def simulate(
    scenario: Scenario,
    out: Path,
    data_root: Path,
    console: Console,
    quiet: bool = False,
    resume: bool = False,
    reuse: Sequence[Path] = (),
    given: str = "SCENARIO",
    hands: Hired | None = None,
    tombstones: Sequence[Path] = (),
) -> RunFolder:
    """Run a scenario into the folder ``out`` and score it.

    A run that is stopped, however that comes about, can be resumed: what was done is not done again, and it comes to
    the same bits. The hospitals' images stay in the run folder no longer than a process works on them.

    Args:
        scenario: what to run.
        out: the run folder to make; it must not be in use. With ``resume``, one that was not finished.
        data_root: where the data's files are.
        console: where progress is shown.
        quiet: show none.
        resume: go on with the run in ``out``.
        reuse: earlier run folders; work of the same origin is taken from them instead of being done again.
        given: scenario and options as a command line had them; a run that is stopped is told to go on with them.
        hands: who plays the hospitals, of an engine like the scenario's; None to have some come for this run alone.
        tombstones: of what was purged, which must be neither in the data nor in what earlier runs were trained on.

    Raises:
        InputError: something about the scenario, the data or a folder is wrong, what was purged has come back, or what
            is to be resumed was another scenario, other data or other code; nothing was run.
        SiteError: a hospital failed, or a reference diverged; the folder is left without ``DONE``. A strategy that
            diverges does not stop the run.
    """
    began = time.perf_counter()
    environment = surveyed(scenario, console)
    order = _Order(scenario, environment, out, data_root, resume, tuple(reuse), given, tuple(tombstones))
    with contextlib.ExitStack() as stack:
        if hands is None:  # they come while images are read, and go before models are scored
            hands = stack.enter_context(hired(scenario, environment.machines, console, quiet))
        return _simulated(order, hands, stack.close, console, quiet, began)


@dataclass(frozen=True)
class _Order:
    """What is to be run, and where (`simulate`), on what was found there."""

    scenario: Scenario
    environment: Environment
    out: Path
    data_root: Path
    resume: bool
    reuse: tuple[Path, ...]
    given: str
    tombstones: tuple[Path, ...]


def _simulated(
    order: _Order, hands: Hired, dismiss: Callable[[], None], console: Console, quiet: bool, began: float
) -> RunFolder:
    """See `simulate`; ``dismiss`` is called once nobody is asked any more."""
    scenario, environment, out, resume = order.scenario, order.environment, order.out, order.resume
    returning.refuse_reuse(order.tombstones, order.reuse)
    cohort = gather(scenario, order.data_root, watching(console, quiet))
    returning.refuse(order.tombstones, cohort.table, cohort.pixels)
    shadows, others = Shadows(scenario, cohort, environment), earlier(order.reuse)
    needed = estimate(scenario, cohort)
    require_room(needed, out, [out] if resume else [], hands.memory)
    if not quiet:
        console.print(plain(needed), soft_wrap=True)
    for request in cohort.named:
        for sentence in cohort.warnings(request):
            warn(console, sentence, request)
    with locked(out):
        run = RunFolder.unfinished(out) if resume else RunFolder.create(out)
        if resume:
            resuming.check(run, scenario, cohort, environment)
        try:
            made = _begin(scenario, cohort, environment, shadows, Store(run, others), resume, console)
            machines = train(made, hands.staff, console, quiet)
            dismiss()
            if made.store.taken and not quiet:
                ends = len(made.campaign.stage.curves.ends_only)
                console.print(plain(_taken(made.store.taken, ends)))
            with phase("score", "scoring all models", console, quiet):
                _finish(made, machines, began)
        except BaseException as error:
            if (run.path / ABOUT).is_file() and (
                resume or not isinstance(error, InputError) or run.has_results
            ):
                error.add_note(resuming.advice(run, order.given))
            else:  # it had not begun: no such cluster, no such GPU; nothing is left behind
                run.discard()
            raise
        with phase("page", f"writing {pages.FILE}", console, quiet):
            finished.present(run)
    return run


def engine(scenario: Scenario, machines: tuple[Machine, ...], console: Console, quiet: bool) -> Engine:
    """The engine a scenario asks for.

    Args:
        scenario: what asks.
        machines: those that were found before (`surveyed`).
        console: where what a person may want to know of machines is shown.
        quiet: show nothing.
    """
    config = scenario.engine
    if config.name == "inline":
        return Inline(config.workers, config.timeout, config.device)

    def tell(text: str) -> None:
        if not quiet:
            console.print(plain(text), soft_wrap=True)

    return Flower(
        config.workers, config.gpus_per_client, config.address, config.timeout, config.wait, machines, tell
    )


def surveyed(scenario: Scenario, console: Console) -> Environment:
    """What a run would work on, after a look at all of it; tells in what machines differ that may work together.

    Raises:
        InputError: there is no such cluster, or a machine cannot be used; tells all problems of all of them.
    """
    found, own = engine(scenario, (), console, quiet=True).inspect(), here()
    for text in notes([own, *found]):
        console.print(plain(text), soft_wrap=True)
    return Environment(own, found)


def train(made: Production, staff: Staff, console: Console, quiet: bool) -> tuple[Machine, ...]:
    """Let ``staff`` run all procedures that are not known already; their results are in the run folder then.

    Returns:
        The machines that took part.
    """
    run, scenario, campaign = made.run, made.scenario, made.campaign
    memory = Kept(made.store, Journal(run.scratch / "journal"))
    most = most_under_way(model_bytes(scenario, made.cohort))
    labels = [*campaign.procedures(), *made.shadows.procedures(), *made.probing.procedures()]
    with (
        progress(
            labels,
            console,
            quiet,
            expected(scenario, made.cohort, labels),
            answering(scenario, made.cohort),
            scoring_seconds(scenario, made.cohort),
        ) as shown,
        made.cohort.stored(run.scratch / "federation", scenario.model) as there,
    ):
        watchers: list[Watcher] = [
            *campaign.stage.recorders.values(),
            campaign.unlearning.horizons,
            made.ledger,
            *([campaign.stage.curves.traces] if campaign.stage.curves.wanted else []),
            *shown,
        ]

        def body(link: Link) -> tuple[Machine, ...]:
            first = [*campaign.jobs(), *made.shadows.jobs(run)]
            drive(first, link, watchers, scenario.engine.retries, memory, most)
            further = [*made.probing.jobs(), *made.slices.jobs()]
            drive(further, link, watchers, scenario.engine.retries, memory, most)
            return tuple(link.machines)

        return staff.run(there, body)


def produce(
    scenario: Scenario, cohort: Cohort, environment: Environment, shadows: Shadows, store: Store
) -> Production:
    """All that takes part in a run, ready to begin."""
    ledger = Ledger()
    for plan in scenario.strategies:
        if (cost := plan.tuned) is not None:
            ledger.tuned(
                plan.label, scenario.seeds[0], cost.trials, cost.site_seconds, cost.images, cost.bytes
            )
    campaign = Campaign(scenario, cohort, environment, store, store.run.scratch, ledger)
    return Production(
        scenario,
        cohort,
        store,
        ledger,
        campaign,
        shadows,
        Probing(campaign),
        Slices(campaign),
        Pictures(campaign),
    )


def _begin(
    scenario: Scenario,
    cohort: Cohort,
    environment: Environment,
    shadows: Shadows,
    store: Store,
    resume: bool,
    console: Console,
) -> Production:
    """Write what is known before training."""
    run = store.run
    if not resume:
        resuming.note(run, scenario, cohort, environment)
    for place, file in scenarios.brought(scenario).items():
        run.write_bytes(place, file.content)
    run.write_text("scenario.yaml", scenarios.to_yaml(scenario))
    run.write_table("sites.parquet", cohort.table)
    if resume and (run.path / audit.FILE).is_file():
        recording.resumed(run)
    else:
        recording.requests(run, scenario, cohort)
    made = produce(scenario, cohort, environment, shadows, store)
    shadows.fetch(run, lambda text: console.print(plain(text)))
    return made


def _taken(files: Sequence[str], ends_only: int) -> str:
    """What was taken from earlier runs, in words; of ``ends_only`` of them nobody has seen the rounds."""
    models = sum(name.startswith("weights/") for name in files)
    told = f"taken from earlier runs: {models} models, and {len(files) - models} other results of theirs"
    return f"{told}; round by round, only start and end are known of {ends_only}" if ends_only else told


def _finish(made: Production, machines: Sequence[Machine], began: float) -> None:
    """Write what all models came to, and score it."""
    run = made.run
    made.campaign.blank()
    made.probing.write()
    made.slices.write()
    made.pictures.write()
    run.write_table("ledger.parquet", made.ledger.table())
    if (learnt := made.campaign.references.learnt()) is not None:
        run.write_table("difficulty.parquet", learnt)
    if (curves := made.campaign.stage.curves.table()) is not None:
        run.write_table(CURVES, curves)
    run.write_manifest(recording.manifest(made, machines, began))  # scoring reads it; written anew below
    _, verdicts = score(run.path, usual(made.scenario.engine.workers))
    recording.verdicts(made, verdicts.to_dict("records"))
    made.campaign.forgo()
    run.write_manifest(recording.manifest(made, machines, began))
    run.finish()

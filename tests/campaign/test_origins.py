"""What determines a result changes its origin; what does not leaves it alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedunlearn import scenario as scenarios
from fedunlearn.campaign import sources
from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.origins import Environment, Origins
from fedunlearn.campaign.timeline import chains
from fedunlearn.federation.engines.machines import Machine, here
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.ledger import Ledger
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store, digest
from fedunlearn.scenario import Scenario
from fedunlearn.scoring.kinds import scored
from tests import runs
from tests.runs import TINY, write

ONE = TINY.replace("seeds: [1, 2]", "seeds: [1]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("origins")


def read(folder: Path, *overrides: str, text: str = ONE) -> Scenario:
    return scenarios.read(write(folder, text), overrides)


@pytest.fixture(scope="module")
def scenario(folder: Path) -> Scenario:
    return read(folder)


@pytest.fixture(scope="module")
def cohort(scenario: Scenario, folder: Path) -> Cohort:
    return gather(scenario, folder)


def origins(
    scenario: Scenario, cohort: Cohort, folder: Path, environment: Environment | None = None
) -> dict[str, str]:
    """The digest of each origin, by the file that it is of: trainings and what all strategies come to.

    Nothing is trained: whatever follows from a model is asked for with the initial one.
    """
    store, own = Store(RunFolder(folder / "nowhere")), environment or runs.environment()
    campaign = Campaign(scenario, cohort, own, store, folder / "scratch", Ledger())
    stage, found = campaign.stage, list[Job[Any]]()
    for seed in scenario.seeds:
        weights = stage.initial(seed)
        found += [campaign.references.original(seed, False), *campaign.unlearning.jobs(weights, seed)]
        found += [stage.evaluation(f"original-{seed}", weights, seed), *campaign.references.retrained()]
        found += [job for evaluation in found for job in asked_about_copies(evaluation)]
        found += campaign.references.lessons(weights, seed)
    works = [job.work for job in found if job.work is not None]
    for work in works:
        json.dumps(work.origin, allow_nan=False)  # it is kept in clear
    return {work.keeping.file: digest(work.origin) for work in works}


def asked_about_copies(job: Job[Any]) -> list[Job[Any]]:
    return [*job.then({})] if job.label.phase == "evaluate" else []


ORIGINAL, RETRAINED, LEFT = (
    f"weights/{n}-1.safetensors" for n in ("original", "retrained-some", "retrained-leave")
)
TUNED, NEGATED = (f"weights/some-{n}-1.safetensors" for n in ("fine_tune", "negation"))
ERASED = "weights/leave-federaser-1.safetensors"
SIGNALS, LESSONS = "signals/original-1.parquet", "difficulty/original-1.npy"
COPIES = "copies/original-1.parquet"


@pytest.fixture(scope="module")
def before(scenario: Scenario, cohort: Cohort, folder: Path) -> Mapping[str, str]:
    found = origins(scenario, cohort, folder)
    assert {ORIGINAL, RETRAINED, LEFT, TUNED, ERASED, NEGATED, SIGNALS, LESSONS, COPIES} < found.keys()
    assert len(set(found.values())) == len(found), "no two of these are the same work"
    return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {file for file in before if after.get(file) != before[file]}


# --------------------------------------------------------------------------------------------- what counts


@pytest.mark.parametrize(
    "change",
    [
        "training.lr=0.003",
        "training.rounds=3",
        "training.local_epochs=2",
        "training.optimizer=sgd",
        "seed=5",
        "data.images=264",
        "model.hidden=32",
        "sites.partition={name: label_skew, alpha: 0.5}",
        "sites.split={train: 0.5, val: 0.2, test: 0.3}",
    ],
)
def test_whatever_all_training_depends_on_changes_every_origin(
    before: Mapping[str, str], folder: Path, change: str
) -> None:
    """Signals are those of an untrained model here, which knows no split."""
    other = read(folder, change)
    found = changed(before, origins(other, gather(other, folder), folder))
    assert found | {SIGNALS} == before.keys()


def test_the_training_seed_changes_all_that_is_trained(before: Mapping[str, str], folder: Path) -> None:
    other = read(folder, "seeds=[2]")
    after = origins(other, gather(other, folder), folder)
    assert not set(after.values()) & set(before.values())


def repainted(cohort: Cohort, row: int) -> Cohort:
    """The same images but for one pixel."""
    pixels = cohort.pixels.copy()
    pixels[row].reshape(-1)[5] += np.asarray(1, pixels.dtype)
    return replace(cohort, pixels=pixels)


def first(cohort: Cohort, site: str, split: str = "train", named: bool = False) -> int:
    """The first image of a hospital that request `some` names, or does not."""
    wanted = (cohort.site == site) & (cohort.split == split) & (cohort.forgotten["some"] == named)
    return int(np.flatnonzero(wanted)[0])


def test_one_pixel_of_a_training_image_changes_all_that_is_trained_on_it(
    before: Mapping[str, str], scenario: Scenario, cohort: Cohort, folder: Path
) -> None:
    """At east, which leaves: without it, that retraining is the same."""
    after = origins(scenario, repainted(cohort, first(cohort, "east")), folder)
    assert before.keys() - changed(before, after) == {LEFT}
    retained = origins(scenario, repainted(cohort, first(cohort, "north")), folder)
    assert changed(before, retained) == before.keys() - {COPIES}, (
        "nobody asks about copies of what is retained"
    )


def test_one_pixel_of_an_image_to_forget_changes_no_retraining_without_it(
    before: Mapping[str, str], scenario: Scenario, cohort: Cohort, folder: Path
) -> None:
    after = origins(scenario, repainted(cohort, first(cohort, "north", named=True)), folder)
    assert before.keys() - changed(before, after) == {RETRAINED}


def test_one_pixel_of_a_test_image_changes_no_training_but_what_is_answered(
    before: Mapping[str, str], scenario: Scenario, cohort: Cohort, folder: Path
) -> None:
    """A strategy can see a hospital's validation images; a worker has all images, so any counts for strategies."""
    after = changed(before, origins(scenario, repainted(cohort, first(cohort, "north", "test")), folder))
    assert not after & {ORIGINAL, RETRAINED, LEFT}
    assert {SIGNALS, LESSONS, COPIES} <= after


def test_a_label_counts_as_a_pixel_does(
    before: Mapping[str, str], scenario: Scenario, cohort: Cohort, folder: Path
) -> None:
    targets = cohort.targets.copy()
    row = first(cohort, "north")
    targets[row] = (targets[row] + 1) % cohort.classes
    found = changed(before, origins(scenario, replace(cohort, targets=targets), folder))
    assert found == before.keys() - {COPIES}


def test_two_images_that_change_places_change_the_origin(
    before: Mapping[str, str], scenario: Scenario, cohort: Cohort, folder: Path
) -> None:
    """Batches are drawn by place."""
    rows = np.flatnonzero((cohort.site == "north") & (cohort.split == "train") & ~cohort.forgotten["some"])[
        :2
    ]
    order = np.arange(len(cohort.site))
    order[rows] = rows[::-1]
    moved = replace(cohort, pixels=cohort.pixels[order], targets=cohort.targets[order])
    assert changed(before, origins(scenario, moved, folder)) == before.keys() - {COPIES}


@pytest.mark.parametrize(
    ("change", "files"),
    [
        ("strategies.0.rounds=2", "fine_tune"),
        ("strategies.0.lr=0.5", "fine_tune"),
        ("strategies.1.recovery.rounds=2", "negation"),
        ("strategies.2.every=2", "federaser"),
    ],
)
def test_a_strategys_field_changes_what_it_comes_to_and_nothing_else(
    before: Mapping[str, str], cohort: Cohort, folder: Path, change: str, files: str
) -> None:
    after = origins(read(folder, change), cohort, folder)
    assert changed(before, after) == {file for file in before if files in file} != set()


@pytest.mark.parametrize("change", ["history.precision=float16", "history.precision=bfloat16"])
def test_how_updates_are_kept_changes_what_is_made_of_them_alone(
    before: Mapping[str, str], cohort: Cohort, folder: Path, change: str
) -> None:
    assert changed(before, origins(read(folder, change), cohort, folder)) == {ERASED}
    assert origins(read(folder, "history.limit=7"), cohort, folder) == before


def test_edited_code_that_rounds_changes_what_is_made_of_rounded_updates_alone(
    before: Mapping[str, str], cohort: Cohort, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = read(folder, "history.precision=float16")
    honest = origins(rounded, cohort, folder)
    edit(monkeypatch, "fedunlearn.federation.rows")
    assert changed(honest, origins(rounded, cohort, folder)) == {ERASED}
    assert origins(read(folder), cohort, folder) == before


def test_whom_a_request_names_changes_what_answers_it(before: Mapping[str, str], folder: Path) -> None:
    """Three patients instead of two: the original is the same, and so is what answers the other request.

    But the original is asked about copies of their images.
    """
    other = read(folder, "requests.0.patients.count=3")
    after = changed(before, origins(other, gather(other, folder), folder))
    assert after == {file for file in before if "some" in file} | {COPIES}


def test_what_mistakes_cost_changes_nothing_that_is_trained(
    before: Mapping[str, str], cohort: Cohort, folder: Path
) -> None:
    costs = [[float(true != given) * (1 + true) for given in range(8)] for true in range(8)]
    assert origins(read(folder, f"evaluation.costs={costs}"), cohort, folder) == before


def edit(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """As if a module's file had been edited."""
    honest = sources._sha256

    def sha256(name: str, file: Path) -> str:
        return "edited" if name == module else honest(name, file)

    monkeypatch.setattr(sources, "_sha256", sha256)


@pytest.mark.parametrize(
    ("module", "files"),
    [
        ("strategies.negation", "negation"),
        ("strategies.federaser", "federaser"),
        ("fedunlearn.campaign.difficulty", "difficulty"),
        ("fedunlearn.learning.local", ""),
        ("fedunlearn.core.exchange", ""),
        ("fedunlearn.core", ""),
        ("sites.hospital", ""),
        ("fedunlearn.kinds.classification.learnt", ""),
        ("fedunlearn.kinds.classification.scored", "nothing at all"),
        ("fedunlearn.kinds.segmentation.learnt", "nothing at all"),
        ("fedunlearn.scoring.score", "nothing at all"),
        ("fedunlearn.results.report", "nothing at all"),
        ("fedunlearn.federation.drive", "nothing at all"),
    ],
)
def test_an_edited_source_file_changes_the_origins_of_what_rests_on_it(
    before: Mapping[str, str],
    scenario: Scenario,
    cohort: Cohort,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    files: str,
) -> None:
    edit(monkeypatch, module)
    after = origins(scenario, cohort, folder)
    assert changed(before, after) == {file for file in before if files in file}


def test_an_edit_of_what_quality_is_changes_the_origins_of_curves(
    scenario: Scenario, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curve() -> str:
        return digest(Origins(scenario, cohort, runs.environment()).curve({}, [], whole=True))

    before = curve()
    for module, same in (
        (scored("classification").glanced.__module__, False),
        ("fedunlearn.kinds.classification.learnt", False),
        ("fedunlearn.scoring.attacks.membership", True),
    ):
        with monkeypatch.context() as patch:
            edit(patch, module)
            assert (curve() == before) is same, module


OTHERS: tuple[dict[str, Any], ...] = (
    {"versions": {**here().versions, "torch": "9"}},
    {"versions": {**here().versions, "numpy": "9"}},
    {"architecture": "toaster"},
    {"processor": "another"},
    {"cpu": "NEON"},
    {"instructions": {"ATEN_CPU_CAPABILITY": "default"}},
    {"device": "H200, CUDA 13.0, cuDNN 91002"},
)


@pytest.mark.parametrize(
    "change", OTHERS, ids=["torch", "numpy", *(next(iter(change)) for change in OTHERS[2:])]
)
def test_another_library_or_kind_of_machine_changes_every_origin(
    before: Mapping[str, str], scenario: Scenario, cohort: Cohort, folder: Path, change: dict[str, Any]
) -> None:
    """One such machine among others is enough: nobody knows which task it does."""
    for machines in ((replace(here(), **change),), (here(), replace(here(), **change))):
        after = origins(scenario, cohort, folder, Environment(here(), machines))
        assert changed(before, after) == before.keys()


def test_variables_and_libraries_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    before = runs.environment().told(volumes=False)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "another")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NEON")
    after = runs.environment().told(volumes=False)
    assert {name for name in before if before[name] != after[name]} == {"cpu", "instructions"}
    assert before["torch"] == torch.__version__


@pytest.mark.parametrize("library", ["monai", "scipy"])
def test_libraries_that_compute_for_volumes_alone_count_for_these(
    scenario: Scenario, cohort: Cohort, library: str
) -> None:
    other = replace(here(), versions={**here().versions, library: "9"})
    assert here().versions[library] != "9", "every machine tells its version"

    def start(cohort: Cohort, *machines: Machine) -> str:
        return digest(Origins(scenario, cohort, Environment(here(), machines)).training((), (), range(1), 1))

    of_volumes = replace(cohort, pixels=np.zeros((len(cohort.site), 1, 2, 2, 2), np.float32))
    assert start(cohort, here()) == start(cohort, other)
    assert start(of_volumes, here()) != start(of_volumes, other)


def test_which_machines_of_a_kind_or_how_many_does_not_count() -> None:
    """So runs of the engine inline and of a cluster of like machines may take work from one another."""
    like = replace(here(), host="node2", node="2", images="sent")
    assert runs.environment().told(volumes=False) == Environment(here(), (like, here(), like)).told(
        volumes=False
    )
    one, other = replace(like, processor="A"), replace(like, processor="B")
    assert Environment(one, (one, other)).told(volumes=False) == Environment(other, (other, one)).told(
        volumes=False
    )


# ------------------------------------------------------------------------------------------- what does not count


@pytest.mark.parametrize(
    "change",
    [
        "name=another",
        "engine.workers=1",
        "engine.timeout=5",
        "engine.retries=3",
        "engine={name: flower, workers: 3}",
        "seeds=[1, 2]",
        "evaluation.shadows=4",
        "evaluation={relearn: true, resurgence_rounds: 1}",
    ],
)
def test_what_changes_no_bit_changes_no_origin(
    before: Mapping[str, str], cohort: Cohort, folder: Path, change: str
) -> None:
    other = read(folder, change)
    assert not changed(before, origins(other, cohort, folder))


def test_another_strategy_or_label_changes_no_origin(
    before: Mapping[str, str], cohort: Cohort, folder: Path
) -> None:
    listed = (
        "strategies=[{name: pga}, {name: negation, recovery: {rounds: 1}, as: turned}, "
        "{name: fine_tune, rounds: 1}]"
    )
    after = origins(read(folder, listed), cohort, folder)
    known = set(before.values())
    assert after["weights/some-turned-1.safetensors"] == before[NEGATED]
    assert (
        {file for file in after if after[file] not in known}
        == {
            "weights/some-pga-1.safetensors",
            "weights/leave-pga-1.safetensors",
        }
        & after.keys()
        != set()
    )


def test_another_request_or_name_of_it_changes_no_origin_of_the_others(
    before: Mapping[str, str], folder: Path
) -> None:
    more = (
        "requests=[{id: more, site: west, patients: {count: 1}}, {id: leave, site: east, whole_site: true}, "
        "{id: some, site: north, patients: {count: 2, pick: random}}]"
    )
    other = read(folder, more)
    after = origins(other, gather(other, folder), folder)
    assert changed(before, after) == {COPIES}, (
        "the original is asked about copies of whatever a request names"
    )
    assert any("more" in file for file in after)


def test_an_answer_follows_from_the_requests_before_it_also_from_idle_ones(
    scenario: Scenario, cohort: Cohort, folder: Path
) -> None:
    idle = replace(cohort, forgotten={**cohort.forgotten, "idle": np.zeros(len(cohort.split), bool)})
    campaign = Campaign(
        scenario, idle, runs.environment(), Store(RunFolder(folder / "no")), folder / "scratch", Ledger()
    )
    plan, (chain, *_) = scenario.strategies[0], chains(scenario, cohort.entries)
    case = campaign.unlearning.case(plan, chain.asking[0], campaign.stage.initial(1), 1)
    later = replace(case, forget=replace(case.forget, without=("idle",)))
    found = [campaign.stage.origins.unlearning(plan.strategy, one, {}, {}) for one in (case, later)]
    assert "earlier" not in found[0]
    assert found[1] == {**found[0], "earlier": ["idle"]}


def test_going_on_after_a_request_rests_on_what_it_starts_from(scenario: Scenario, cohort: Cohort) -> None:
    made, sites = Origins(scenario, cohort, runs.environment()), cohort.sites
    of = made.training(sites, (), range(1), 1)
    on = made.further(sites, ("some",), range(1, 2), 1, of)
    assert digest(on) == digest(made.further(sites, ("some",), range(1, 2), 1, dict(of)))
    for other in (
        made.further(sites, ("some",), range(1, 2), 1, made.training(sites, (), range(1), 2)),
        made.further(sites, (), range(1, 2), 1, of),
        made.further(sites, ("some",), range(1, 3), 1, of),
        made.further(sites[:2], ("some",), range(1, 2), 1, of),
        made.further(sites, ("some",), range(1, 2), 2, of),
        made.training(sites, ("some",), range(1, 2), 1),
    ):
        assert digest(other) != digest(on)


def test_the_order_of_hospitals_counts(scenario: Scenario, cohort: Cohort, folder: Path) -> None:
    """Sums are made in that order, and rounding with them."""
    made = Origins(scenario, cohort, runs.environment())
    there, back = (made.training(order, (), range(1), 1) for order in (cohort.sites, cohort.sites[::-1]))
    assert digest(there) != digest(back)

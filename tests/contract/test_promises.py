"""Each promise is broken by a strategy that is made to break it: no check is there for nothing.

The strategies are the documentation's with some texts replaced.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fedunlearn.contract import PROMISES, checking, kinds
from fedunlearn.core import InputError, Strategy
from tests import guest

Changes = list[tuple[str, str]]

BODY = "weights = yield from at_holders(case, confuse)"
END = "return (yield from recover(case, weights, self.recovery))"
EPOCHS = "epochs: Annotated[int, Ge(1), Search(1, 6)] = 2"
NEEDS = "Needs(leaver=Leaver.ONLINE, "
FIELD = ("from dataclasses import dataclass", "from dataclasses import dataclass, field")
TORCH = ("from torch import", "import torch\nfrom torch import")
COUNT = ("from dataclasses", "from itertools import count\nfrom dataclasses")


def first(line: str) -> Changes:
    """A line more at the beginning of the method."""
    return [(BODY, f"{line}\n        {BODY}")]


def last(line: str) -> Changes:
    """Another end of the method, where ``weights`` is what it came to so far."""
    return [(END, f"weights = {END.removeprefix('return ')}\n        {line}")]


HALF_AN_EAR = """replies = yield {site: confuse(site) for site in case.holders}
        replies = {site: reply for site, reply in replies.items() if reply.weights is not None}
        weights = mean(replies) if replies else case.original"""

PREPARE = """    def prepare(self, course):
        yield {site: Fit(course.initial, course.select, course.training.local, 1) for site in course.sites}
        return {"model": {name: x * self.epochs for name, x in course.initial.items()}}

"""

BREAKS: dict[str, tuple[Changes, str]] = {
    "frozen_hashable_and_constructible": (
        [(EPOCHS, "epochs: list[int] = field(default_factory=list)"), FIELD, ("self.epochs", "2")],
        "it cannot be hashed",
    ),
    "the_constructor_only_stores": (
        [("    @property\n", "    def __post_init__(self) -> None: ...\n    @property\n")],
        "it has a __post_init__",
    ),
    "yaml_round_trip": (
        [(EPOCHS, "epochs: frozenset[int] = frozenset()"), ("self.epochs", "2")],
        "cannot be written (Object of type frozenset",
    ),
    "every_number_has_a_range_that_is_kept": (
        [(EPOCHS, "epochs: int = 2")],
        "epochs has no range: write Annotated[int, Ge(…)]",
    ),
    "what_tune_searches_lies_in_the_range": (
        [("Search(1, 6)", "Search(0, 6)")],
        "epochs: 0 is searched, but out of the range",
    ),
    "documented": ([("        epochs: passes", "        passes")], "epochs is not described"),
    "the_file_is_short_and_imports_only_what_it_may": (
        [("import torch\n", "import fedunlearn.federation.drive\nimport torch\n"), TORCH][::-1],
        "may not import fedunlearn.federation.drive",
    ),
    "claims_a_granularity": ([("frozenset(Granularity)", "frozenset()")], "its granularity is empty"),
    "names_shapes_dtypes_and_finite": (
        last("return {name: x.double() for name, x in weights.items()}"),
        "does not fit the original",
    ),
    "batch_norm_stays_valid": (
        last("return {name: -abs(x) if 'var' in name else x for name, x in weights.items()}"),
        "a variance became negative",
    ),
    "a_hospital_may_be_left_with_nothing": (first("assert all(case.kept.values())"), "AssertionError"),
    "same_seed_same_bits": (
        [
            COUNT,
            ("@dataclass", "SEEDS = count()\n@dataclass"),
            ('derive(case.seed, "unsure", site)', "next(SEEDS)"),
        ],
        "a second run came to other bits",
    ),
    "inputs_and_global_rngs_stay_as_they_were": (
        [*first("torch.rand(1)"), TORCH],
        "torch's RNG did not stay as they were",
    ),
    "order_of_hospitals_does_not_matter": (
        last("return weights if case.sites[0] == 'north' else case.initial"),
        "let nothing depend on their order",
    ),
    "exact_means_equal_to_retraining": (
        [("Guarantee.EMPIRICAL", "Guarantee.EXACT")],
        "it is not what retraining comes to",
    ),
    "nearer_to_the_retrained_model_than_the_original": (
        last("return case.original"),
        "it forgets too little or too much",
    ),
    "better_than_a_guess_before_recovery": (
        [(END, "weights = {name: 0 * x for name, x in weights.items()}\n        " + END)],
        'no better than a guess: make it gentler, or say "at chance until it recovers"',
    ),
    "if_it_diverges_it_does_so_without_an_error": (
        first("assert case.training.local.lr < 1"),
        "AssertionError",
    ),
    "works_in_the_middle_of_training": (first("assert case.rounds == 4"), "AssertionError"),
    "what_tune_searches_has_no_part_in_its_own_training": (
        [
            (NEEDS, f"{NEEDS}preparation=True, "),
            ("    def unlearn(", f"{PREPARE}    def unlearn("),
        ],
        "leave out the Search",
    ),
    "declared_is_used": ([(NEEDS, f"{NEEDS}preparation=True, ")], "declared, but not used"),
    "never_asks_a_leaving_site_unless_declared": ([(NEEDS, "Needs(")], "it asks west"),
    "sums_are_enough_unless_each_reply_is_declared": (
        [(NEEDS, f"{NEEDS}each_reply=True, ")],
        "do not declare `needs.each_reply`",
    ),
    "tasks_cross_the_wire": (
        [("class Uniform:\n", "class Uniform:\n    names: list[str] = field(default_factory=list)\n"), FIELD],
        "names is a list, which cannot cross the wire",
    ),
    "a_silent_hospital_is_an_error": (
        [(BODY, HALF_AN_EAR), ("import at_holders, recover", "import mean, recover")],
        "is passed over",
    ),
    "what_it_has_in_hand_is_what_it_would_have_come_to": (
        first("local = paced(local, 1 + self.recovery.rounds)"),
        "not what one round less comes to",
    ),
    "works_on_every_kind_unless_it_declares_class_labels": (
        [("log_softmax(1)", "log_softmax(1)[torch.arange(len(batch.rows)), batch.targets]"), TORCH],
        "on volumes it fails (index 255 is out of bounds",
    ),
    "works_where_hospitals_take_turns_unless_it_declares_everyone": (
        first("case.trained(0).index(case.roster[1])"),
        "where hospitals take turns it fails (",
    ),
    "closing_it_midway_leaves_nothing_behind": (
        [(BODY, f"try:\n            {BODY}\n        finally:\n            torch.rand(1)"), TORCH],
        "torch's RNG did not stay as it was",
    ),
}


def made(folder: Path, changes: Changes, name: str = "unsure.py") -> Strategy:
    """The documentation's strategy with texts replaced."""
    text = guest.unsure()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (strategy,) = checking.named(guest.write(folder, text, name))
    return strategy


def broken(strategy: Strategy, name: str) -> str:
    """Why one promise is not kept; empty if it is."""
    others = [promise.name for promise in PROMISES if promise.name != name]
    return "\n".join(reason for finding in checking.check(strategy, others) for reason in finding.broken)


@pytest.mark.parametrize("name", BREAKS)
def test_a_promise_that_is_not_kept_is_told_with_what_to_do(tmp_path: Path, name: str) -> None:
    changes, words = BREAKS[name]
    assert words in broken(made(tmp_path, changes), name)


def test_a_strategy_may_say_that_it_is_at_chance_until_it_recovers(tmp_path: Path) -> None:
    name = "better_than_a_guess_before_recovery"
    said = ("any other, then repair the model.", "any other.\n\n    It is at chance until it\n    recovers.")
    assert broken(made(tmp_path, [*BREAKS[name][0], said]), name) == ""


def test_who_works_on_every_kind_does_not_declare_class_labels(tmp_path: Path) -> None:
    told = broken(
        made(tmp_path, [(NEEDS, f"{NEEDS}class_labels=True, ")]),
        "works_on_every_kind_unless_it_declares_class_labels",
    )
    for kind, toy in kinds.TOYS.items():
        expected = f"({kind}) it works on {toy.says} as it is: do not declare `needs.class_labels`"
        assert expected in told.splitlines()


def test_a_method_that_takes_an_emptied_hospital_for_one_that_stays_is_told(tmp_path: Path) -> None:
    asked = "[n for site, n in case.kept.items() if site in case.trained(0)]"
    told = broken(
        made(tmp_path, first(f"assert case.training.participation == 1 or 1 / sum({asked})")),
        "works_where_hospitals_take_turns_unless_it_declares_everyone",
    )
    assert "asked only hospitals with nothing left it fails (division by zero)" in told


def test_a_file_of_another_name_is_told(tmp_path: Path) -> None:
    told = broken(made(tmp_path, [], "mine.py"), "the_file_is_named_as_the_strategy")
    assert told == "the file is called mine, the strategy unsure: call both the same"


def test_a_network_of_ones_own_is_told(tmp_path: Path) -> None:
    """A pass that goes by the module's forward method, past what counts."""
    changes = [
        ("-module(batch.inputs).log", "-(module(batch.inputs) + 0 * module.forward(batch.inputs)).log")
    ]
    assert "images passed through the network" in broken(
        made(tmp_path, changes), "every_pass_through_a_network_is_counted"
    )


def test_every_promise_has_one_who_breaks_it() -> None:
    elsewhere = {"the_file_is_named_as_the_strategy", "every_pass_through_a_network_is_counted"}
    assert {*BREAKS} | elsewhere == {promise.name for promise in PROMISES}


@pytest.mark.gate
def test_the_readmes_strategy_keeps_all_and_what_is_excused_is_not_tried(tmp_path: Path) -> None:
    findings = checking.check(made(tmp_path, []), ["documented"])
    assert [finding.broken for finding in findings] == [()] * len(PROMISES)
    assert [finding.promise.name for finding in findings if finding.excused] == ["documented"]
    with pytest.raises(InputError, match="no promise called 'document', did you mean 'documented'"):
        checking.check(made(tmp_path, []), ["document"])


def test_a_strategy_of_ours_is_known_by_its_name_and_settings_are_read_as_in_a_scenario() -> None:
    (strategy,) = checking.named(Path("negation"), ["recovery.rounds=3"])
    assert vars(strategy)["recovery"].rounds == 3
    with pytest.raises(InputError, match=r"--set recovery\.rounds=-1: rounds: expected a number"):
        checking.named(Path("negation"), ["recovery.rounds=-1"])
    with pytest.raises(InputError, match=r"nothing\.py: cannot read it"):
        checking.named(Path("nothing.py"))

"""Promises about what a strategy asks of whom: its needs, the wire, hospitals that fail, an end in the middle."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from fedunlearn import weights as w
from fedunlearn.contract.cases import case, chances, outcome
from fedunlearn.contract.hospitals import ToyLink, answer, by_hand, run
from fedunlearn.contract.promise import WISHES, Broken, hold
from fedunlearn.contract.results import CLOSE, again
from fedunlearn.contract.toy import SITES, select
from fedunlearn.core import (
    SERVER,
    Asks,
    Every,
    FedunlearnError,
    Last,
    Leaver,
    Needs,
    Preparing,
    Replies,
    Reply,
    RequestId,
    SiteError,
    Strategy,
    Task,
)
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Ask

_FORM = (
    "let it be a frozen dataclass at the top of the file, which only stores numbers, texts, tensors, tuples, mappings "
    "and other such dataclasses"
)
_NOBODY = "it asks no hospital, so that this cannot be seen: excuse it if that is how the method is"


def declared_is_used(strategy: Strategy, wish: RequestId) -> None:
    """What it declares in `needs` it uses, and it uses nothing else."""
    log, needs = outcome(strategy, wish).log, strategy.needs
    for what, declared, rounds in (
        ("updates", needs.updates, {t for t, _ in log.updates}),
        ("checkpoints", needs.checkpoints, log.checkpoints),
    ):
        _agree(what, declared, bool(rounds))
        if isinstance(declared, Every | Last):  # of a choice, the toy's memory shows what was chosen
            beyond = sorted(t for t in rounds if t not in declared)
            hold(not beyond, f"it uses {what} of rounds {beyond}, but `needs` declares {declared}")
    _agree("cumulative", needs.cumulative, bool(log.cumulative))
    _agree("preparation", needs.preparation, bool(log.prepared))
    hold(
        needs.preparation == isinstance(strategy, Preparing),
        "`needs.preparation` and a method `prepare` come together: write both or neither",
    )
    missing = [name for name in needs.class_settings if not hasattr(strategy, name)]
    hold(not missing, f"`needs.class_settings` names {missing}, which are no settings of it")
    if not needs.preparation:  # what that kept may be worked on at the server too
        _agree("proxy_examples", needs.proxy_examples, SERVER in {site for site, _ in log.asked})
    hold(
        len(log.rows.get(SERVER, ())) >= needs.proxy_examples,
        f"`needs.proxy_examples` declares {needs.proxy_examples} images of the server's, more than it uses",
    )
    _people(strategy.needs, wish, strategy)


def _people(needs: Needs, wish: RequestId, strategy: Strategy) -> None:
    """Of `declared_is_used`: whose images are looked at."""
    its_case, log = case(wish), outcome(strategy, wish).log
    parts = [(site, its_case.forget) for site in SITES]
    parts.append((SERVER, replace(its_case.forget, split="proxy")))
    forgotten = {row for site, wanted in parts for row in select(site, wanted).rows.tolist()}
    used = bool(forgotten & set().union(*log.rows.values()))
    hold(
        (needs.leaver is Leaver.ONLINE) == used,
        f"the images to forget are {'used' if used else 'not used'}, but `needs.leaver` declares {needs.leaver.name}",
    )
    if wish == "site":
        _agree("stayers", needs.stayers, any(site in its_case.sites for site, _ in log.asked))


def never_asks_a_leaving_site_unless_declared(strategy: Strategy, wish: RequestId) -> None:
    """It asks no hospital that has left, unless it declares so."""
    its_case, log = case(wish), outcome(strategy, wish).log
    allowed = {*its_case.sites, *(its_case.holders if strategy.needs.leaver is Leaver.ONLINE else ())}
    if strategy.needs.proxy_examples or strategy.needs.preparation:  # images of its own, or what it kept
        allowed.add(SERVER)
    asked = {site for site, _ in log.asked} - allowed
    hold(
        not asked,
        f"it asks {', '.join(sorted(asked))}: ask those of `case.sites`, or declare `leaver` or `proxy_examples`",
    )


def sums_are_enough_unless_each_reply_is_declared(strategy: Strategy, wish: RequestId) -> None:
    """The average of a round is all that the server must see, unless it declares `each_reply`."""

    def summed(asks: Asks) -> Replies:
        if isinstance(asks, ChainMap):  # rounds of procedures that run together: one average for each
            return {site: reply for one in asks.maps for site, reply in summed(one).items()}
        replies = {site: answer(task, site) for site, task in asks.items()}
        counts = [reply.count for reply in replies.values()]
        if not sum(counts):
            return replies
        states = [reply.weights for reply in replies.values() if reply.weights is not None]
        common = w.average(states, counts) if states else None
        arrays = w.average([reply.arrays for reply in replies.values()], counts)
        return {site: Reply(common, reply.count, arrays) for site, reply in replies.items()}

    result = by_hand(strategy.unlearn(case(wish, strategy=strategy)), summed)
    difference = float((chances(result, wish) - chances(outcome(strategy, wish).weights, wish)).abs().mean())
    if strategy.needs.each_reply:
        hold(difference > 1e-4, "sums of replies are enough for it: do not declare `needs.each_reply`")
    else:
        hold(
            difference < CLOSE,
            "it needs each hospital's reply, not their sum only: declare `needs.each_reply`",
        )


def tasks_cross_the_wire(strategy: Strategy, wish: RequestId) -> None:
    """Its tasks cross the wire to a hospital and are there what they were here."""
    tasks = again(strategy, wish).tasks
    hold(bool(tasks), _NOBODY)
    for task in tasks:
        _crosses(task)


def uncrossable(strategy: Strategy) -> str | None:
    """Why a task of a strategy cannot cross the wire; None if all can that it comes to ask on the toy.

    What goes wrong there in another way is not told: it may be made for other images. ``check-strategy`` tells.
    """

    class Crossing(ToyLink):
        def submit(self, asks: Sequence[Ask]) -> None:
            for ask in asks:
                _crosses(ask.task)
            super().submit(asks)

    for wish, kind in WISHES.items():
        if kind in strategy.granularity:
            try:
                run(strategy.unlearn(case(wish, strategy=strategy)), Crossing())
            except Broken as broken:
                return str(broken)
            except Exception:  # see above; its code may raise anything
                continue
    return None


def _crosses(task: Task) -> None:
    """Make sure that a task arrives as it is sent.

    Raises:
        Broken: it does not, or cannot be sent.
    """
    try:
        text, arrays = wire.pack(task)
        copy = wire.unpack(text, arrays)
    except TypeError as error:
        raise Broken(f"a task {type(task).__name__} cannot: {error}; {_FORM}") from error
    repeated, others = wire.pack(copy)
    hold(
        type(copy) is type(task) and repeated == text and w.digest(others) == w.digest(arrays),
        f"a task {type(task).__name__} arrives as something else: {_FORM}",
    )


def _raise(reply: Reply) -> Reply:
    raise OSError("disk full")


def _nan(reply: Reply) -> Reply:
    spoil = {name: x * float("nan") for name, x in (reply.weights or reply.arrays).items()}
    return replace(reply, weights=spoil) if reply.weights else replace(reply, arrays=spoil)


FAULTS: Mapping[str, Callable[[Reply], Reply]] = {
    "raises": _raise,
    "nan": _nan,
    "nothing": lambda reply: Reply(None, reply.count),
}
"""What a hospital may do instead of replying."""


def a_silent_hospital_is_an_error(strategy: Strategy, wish: RequestId, fault: str) -> None:
    """A hospital that fails, or replies NaN or nothing, is an error and is never averaged over."""
    first = [site for site, number in outcome(strategy, wish).log.asked if number == 0]
    hold(bool(first), _NOBODY)

    def spoil(ask: Ask, reply: Reply) -> Reply:
        return FAULTS[fault](reply) if ask.site == first[-1] else reply

    try:
        run(strategy.unlearn(case(wish, strategy=strategy)), ToyLink(fault=spoil))
    except FedunlearnError as error:
        if fault == "nothing":  # only the procedure knows that it needed what is missing
            return
        hold(
            isinstance(error, SiteError) and (error.site, error.round) == (first[-1], 0),
            f"where a hospital {fault}, the error is another's: {error}",
        )
        return
    hold(False, f"a hospital whose reply {fault} is passed over: average replies with `procedures.mean`")


def closing_it_midway_leaves_nothing_behind(strategy: Strategy, wish: RequestId) -> None:
    """It is a generator that can be closed midway, and leaves nothing behind."""
    its_case = case(wish, strategy=strategy)
    state, before = torch.get_rng_state(), w.digest(its_case.original)
    procedure = strategy.unlearn(its_case)
    hold(
        inspect.isgenerator(procedure),
        "unlearn must be a generator: nothing may happen before it is driven",
    )
    hold(bool(next(procedure, None)), _NOBODY)
    procedure.close()
    closed = inspect.getgeneratorstate(procedure) == inspect.GEN_CLOSED
    hold(closed, "it goes on when it is closed: do not catch GeneratorExit")
    hold(torch.equal(torch.get_rng_state(), state), "torch's RNG did not stay as it was")
    hold(w.digest(its_case.original) == before, "the original weights did not stay as they were")


# ------------------------------------------------------------------------------------------------ pieces


def _agree(what: str, declared: object, used: bool) -> None:
    hold(
        bool(declared) == used,
        f"`needs.{what}` is {'declared, but not used' if declared else 'used, but not declared'}: change the one or "
        "the other",
    )

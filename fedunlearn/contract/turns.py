"""The promise about training that asks some hospitals at a time: to work there too, or to say that it does not."""

from __future__ import annotations

from collections.abc import Mapping

from fedunlearn import weights as w
from fedunlearn.contract.kinds import shortened
from fedunlearn.contract.promise import Broken, hold
from fedunlearn.contract.toy_turns import EARLIER, TRAINING, case, run
from fedunlearn.core import Case, Guarantee, Preparing, RequestId, SiteId, Strategy, Weights
from fedunlearn.federation.procedures import fedavg


def works_where_hospitals_take_turns_unless_it_declares_everyone(strategy: Strategy, wish: RequestId) -> None:
    """It works where a round of training asks some of the hospitals only, and asks no more; or declares `everyone`.

    Also for a hospital that leaves after others were emptied, which are all that some rounds asked.
    """
    try:
        its_case, result = _unlearnt(shortened(strategy), wish)
    except _FAILURES as error:
        if strategy.needs.takes_all:
            return
        raise Broken(
            f"where hospitals take turns it fails ({error}): go by `case.turn` and `case.trained`, or declare "
            "`needs.everyone`"
        ) from error
    hold(
        not strategy.needs.takes_all,
        "it works where hospitals take turns: do not declare `needs.everyone`",
    )
    _holds_of(strategy, its_case, result, "where hospitals take turns")
    if wish == "site" and not strategy.needs.serves_one:
        when = "where a round of training asked only hospitals with nothing left"
        try:
            its_case, result = _unlearnt(shortened(strategy), wish, EARLIER)
        except _FAILURES as error:
            raise Broken(f"{when} it fails ({error}): go by `case.kept`") from error
        _holds_of(strategy, its_case, result, when)


_FAILURES = (Broken, ArithmeticError, LookupError, RuntimeError, ValueError)


def _holds_of(strategy: Strategy, its_case: Case, result: Weights, when: str) -> None:
    """The result is a model, and that of retraining if it must be."""
    difference, wild = w.first_difference(its_case.original, result), w.first_nonfinite(result)
    hold(difference is None, f"{when} the result does not fit the original: {difference}")
    hold(wild is None, f"{when} the result holds NaN or infinity: {wild}")
    if strategy.guarantee is Guarantee.EXACT:
        hold(
            w.digest(result) == w.digest(_retrained(shortened(strategy), its_case)),
            f"{when} it is not what retraining comes to",
        )


def _unlearnt(strategy: Strategy, wish: RequestId, *before: RequestId) -> tuple[Case, Weights]:
    """The request as a strategy meets it after others, and what it makes of it, having asked nobody out of turn."""
    plain = case(wish, before=before)
    most = len(plain.trained(0))  # a stored round may be done again with those left of it

    def in_turn(asked: frozenset[SiteId], images: Mapping[SiteId, int]) -> None:
        hold(len(asked) <= most, f"a round asks {len(asked)} hospitals beside the holders, not {most}")
        idle = sorted(site for site in asked if not images[site])
        reason = f"a round asks {', '.join(idle)}, which has no image to train on"
        hold(
            not idle or isinstance(strategy, Preparing), reason
        )  # in its own training it says who takes part

    its_case = case(wish, strategy, lambda asked: in_turn(asked, plain.had), before)
    holders = frozenset(its_case.holders)
    return its_case, run(strategy.unlearn(its_case), lambda asked: in_turn(asked - holders, plain.kept))


def _retrained(strategy: Strategy, its_case: Case) -> Weights:
    """The exact answer, in the strategy's own way if it has one."""
    if isinstance(strategy, Preparing):
        return run(strategy.prepare(its_case.course))["model"]
    c, rounds = its_case, range(its_case.rounds)
    return run(fedavg(c.initial, c.rota, c.retain, TRAINING.local, rounds, c.seed))

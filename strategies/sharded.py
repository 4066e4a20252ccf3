"""Sharded training: hospitals that train apart can be retrained apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Course,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Rota,
    SiteId,
    Weights,
)
from fedunlearn.federation.procedures import fedavg, together

Shards = Mapping[str, tuple[SiteId, ...]]


@dataclass(frozen=True)
class Sharded:
    """Train shards of hospitals in isolation, join them late, and retrain only the shards that a request concerns.

    Training itself is done in this way, before any request. Of the T rounds, the hospitals of each shard s spend
    T - J by themselves, all from the same initial weights; then the shards' models are averaged by their numbers
    of images, and everyone trains together for J rounds::

        w_s <- FedAvg(w_0; hospitals of s; rounds 0 … T - J - 1)           kept by the server
        w   <- FedAvg(sum_s n_s / n w_s; all hospitals; rounds T - J … T - 1)

    On a request, only shards that held data to forget train their isolated rounds again, without it; one that has
    nothing left drops out. Average and joint rounds follow anew. That is this way of training without the data, bit
    for bit, for about the share 1/S of the isolated rounds if the request concerns one of S shards. It is not what
    ordinary federated averaging without the data gives: scores compare with that, as for every strategy, and so
    show what isolation costs in accuracy. One shard and J = 0 is retraining.

    Reference:
        Bourtoule et al., "Machine Unlearning", S&P 2021, arXiv 1912.03817 (SISA: shards in isolation); of whole
        hospitals: Lin et al., "Scalable Federated Unlearning via Isolated and Coded Sharding", IJCAI 2024, arXiv
        2401.15957; Su and Li, "Asynchronous Federated Unlearning", INFOCOM 2023 (KNOT); Qiu et al., "FedCIO:
        Efficient Exact Federated Unlearning with Clustering, Isolation, and One-shot Aggregation", BigData 2023.

    Deviations:
        What these share rather than one of them. Hospitals are dealt to shards in turn, not clustered by data or
        speed, and train synchronously; the server stores shards' models whole, and no slices of their training.
        A single network must come out, so the shards' models are averaged instead of asked for a vote each;
        an average of networks trained apart is poor, and the joint rounds that repair it are ours. Where rounds ask a
        share of the hospitals, each shard's ask that share of its own. A request in
        the middle of training finds them done as if training was to end there, and training goes on as usual.

    Attributes:
        shards: number of shards, S; those beyond the number of hospitals stay empty.
        joint_rounds: rounds at the end in which all train together, J; at most all of them.
    """

    name: Literal["sharded"] = "sharded"
    shards: Annotated[int, Ge(1)] = 2
    joint_rounds: Annotated[int, Ge(0)] = 1

    guarantee: ClassVar[Guarantee] = Guarantee.EXACT
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Its own training, and each shard's model of it."""
        return Needs(preparation=True)

    def prepare(self, course: Course) -> Procedure[Mapping[str, Weights]]:
        """See `Preparing.prepare`: each shard's model is kept under the shard's name."""
        shards = self.deal(course)
        models = yield from isolated(course, shards, self.joint_rounds)
        return {"model": (yield from self.join(course, shards, models)), **models}

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        course, concerned = case.course, {self.shard(case.roster, site) for site in case.holders}
        shards = self.deal(course)
        again = {name: sites for name, sites in shards.items() if name in concerned}
        models = yield from isolated(course, again, self.joint_rounds)
        models |= {name: case.history.prepared(name) for name in shards if name not in again}
        return (yield from self.join(course, shards, models))

    def shard(self, roster: tuple[SiteId, ...], site: SiteId) -> str:
        """The shard of a hospital: they are dealt in turn, in scenario order, those that left as well."""
        return f"shard-{roster.index(site) % self.shards}"

    def deal(self, course: Course) -> Shards:
        """The hospitals of each shard that has images to train on."""
        shards: dict[str, tuple[SiteId, ...]] = {}
        for site in course.sites:
            name = self.shard(course.roster, site)
            shards[name] = (*shards.get(name, ()), site)
        return {name: sites for name, sites in shards.items() if images(course, sites)}

    def join(self, course: Course, shards: Shards, models: Mapping[str, Weights]) -> Procedure[Weights]:
        """Average the shards' models and train the joint rounds."""
        states = [models[name] for name in shards]
        weights = w.average(states, [images(course, sites) for sites in shards.values()])
        rounds = range(apart(course, self.joint_rounds), course.rounds)
        local = course.training.local
        return (yield from fedavg(weights, course.rota, course.select, local, rounds, course.seed))


def isolated(course: Course, shards: Shards, joint: int) -> Procedure[dict[str, Weights]]:
    """Each shard's model after training by itself, all of them at once."""
    rounds, local, share = range(apart(course, joint)), course.training.local, course.training.participation
    rotas = {name: Rota.among(sites, course.images, share) for name, sites in shards.items()}
    return together(
        {
            name: fedavg(course.initial, rota, course.select, local, rounds, course.seed)
            for name, rota in rotas.items()
        }
    )


def apart(course: Course, joint: int) -> int:
    """How many rounds come before the ``joint`` ones."""
    return max(course.rounds - joint, 0)


def images(course: Course, sites: tuple[SiteId, ...]) -> int:
    """How many images these hospitals train on."""
    return sum(course.images[site] for site in sites)

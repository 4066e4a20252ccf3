"""What a model cost, as the ledger observed it; no strategy reports its own cost. ``n`` counts rounds.

Where a strategy trained in a way of its own before any request, that is no cost of unlearning: the ledger keeps it as
phase ``prepare``, and what came of it counts as storage here.
"""

from __future__ import annotations

from collections.abc import Callable

from fedunlearn.scoring.evidence import Answers, Estimate, Estimates, Evidence
from fedunlearn.scoring.evidence.measure import Measure


def seconds(evidence: Evidence[Answers]) -> Estimates:
    """Work in seconds: the hospitals' wall times added up, and the server's own."""
    return _cost(evidence, evidence.spent.site_seconds + evidence.spent.server_seconds)


def site_seconds(evidence: Evidence[Answers]) -> Estimates:
    """The hospitals' work in seconds: their wall times added up."""
    return _cost(evidence, evidence.spent.site_seconds)


def share_of_retraining(evidence: Evidence[Answers]) -> Estimates:
    """Passes of images divided by those of retraining with the same seed; undefined if retraining took none.

    Not seconds, which what else a machine does at the time makes longer: strategies are told apart, and one is named
    the cheapest, by this. A pass that only answers counts as one that trains does.
    """
    if not evidence.retraining.images:
        return {}
    return _cost(evidence, evidence.spent.images / evidence.retraining.images)


def tuning_site_seconds(evidence: Evidence[Answers]) -> Estimates:
    """The hospitals' work in seconds for finding its settings, once for all requests and seeds; 0 if untuned."""
    return _cost(evidence, evidence.spent.tuning_seconds)


def bytes_moved(evidence: Evidence[Answers]) -> Estimates:
    """Bytes of arrays sent to and received from the hospitals."""
    return _cost(evidence, evidence.spent.bytes)


def storage_bytes(evidence: Evidence[Answers]) -> Estimates:
    """Bytes that the server must hold of training, before any request arrives, to be able to do this."""
    return _cost(evidence, evidence.spent.storage_bytes)


def rounds(evidence: Evidence[Answers]) -> Estimates:
    """How often any hospital was asked."""
    return _cost(evidence, evidence.spent.rounds)


def images(evidence: Evidence[Answers]) -> Estimates:
    """Passes of one image through a network, at all hospitals and the server: the work, whatever the machine."""
    return _cost(evidence, evidence.spent.images)


def epochs(evidence: Evidence[Answers]) -> Estimates:
    """Epochs of training: the most that a hospital, or the server, was asked for in each round, added up."""
    return _cost(evidence, evidence.spent.epochs)


def _cost(evidence: Evidence[Answers], value: float) -> Estimates:
    return {"all": Estimate(float(value), evidence.spent.rounds)}


def _measure(
    name: str, summary: str, unit: str, function: Callable[..., Estimates], retrained: str
) -> Measure:
    return Measure(name, summary, unit, 0.0, None, "lower", retrained, None, "the run's ledger", function)


_OWN = "its own cost"
COSTS = (
    _measure("seconds", "work of hospitals and server, added up", "s", seconds, _OWN),
    _measure("site_seconds", "work of the hospitals, added up", "s", site_seconds, _OWN),
    _measure(
        "share_of_retraining",
        "passes of images through networks, relative to retraining",
        "ratio",
        share_of_retraining,
        "1",
    ),
    _measure(
        "tuning_site_seconds",
        "hospitals' work for finding its hyper-parameters, once for all requests and seeds",
        "s",
        tuning_site_seconds,
        "0: retraining has nothing to tune",
    ),
    _measure("bytes", "sent to and received from hospitals", "bytes", bytes_moved, _OWN),
    _measure(
        "storage_bytes",
        "training history the server holds to be able to do it",
        "bytes",
        storage_bytes,
        _OWN,
    ),
    _measure("rounds", "how often any hospital was asked", "rounds", rounds, _OWN),
    _measure(
        "images",
        "passes of an image (of a volume's patch) through a network, each time it was trained on, differentiated or "
        "asked about",
        "images",
        images,
        _OWN,
    ),
    _measure(
        "epochs",
        "of training, the most that anybody was asked for in each round",
        "epochs",
        epochs,
        _OWN,
    ),
)
"""Those that say what a model cost, whatever it answers, of every kind of task."""

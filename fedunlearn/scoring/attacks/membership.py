"""Whether a model still knows whom it was trained on: attacks that tell members from non-members.

Non-members come from the *same hospital* as the images to forget, are of other patients, and are matched by label.
Against a pooled test set even a model that never saw a hospital is far from 0.5, because hospitals differ
(evaluation.md A0). Nor is 0.5 the aim: what counts is how near a model is to the retrained one on the same images.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from scipy.special import expit

from fedunlearn.scoring.attacks.pairs import Contest, Pairs, contest, pair_up, share
from fedunlearn.scoring.evidence import Bools, Estimates, Evidence, Floats, Frame, Ints, WithLosses
from fedunlearn.scoring.evidence.bootstrap import ratios
from fedunlearn.scoring.evidence.classification import Outputs

MOST_EXAMPLES = 1000
"""Members, and as many non-members, that an SVC is fitted to at most: its cost grows with the square."""

STEP = 500
"""Images that an SVC judges at a time, to bound the memory."""

STRIP = 64
"""Examples whose kernel is worked out at a time."""


def mia_loss_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """The share of pairs (image to forget, held-out image) in which the one to forget has the lower loss, ties ½.

    Pairs are of the same hospital and label and of different patients; held-out patients have no training image at
    all. Images without such a partner are left out; ``n`` counts those with one. On an attribute's group, the images
    to forget are those in it, the held-out ones all of the same hospital and label. 0.5: the attack learns nothing;
    above: the model remembers; below: forgetting itself can be seen.

    The loss-threshold attack of Yeom et al., CSF 2018 (arXiv 1709.01604). Deviations: the area under its ROC curve, not
    the advantage at one threshold; only comparable pairs. Range 0 to 1; cost: one model.
    """
    return attack_auc(evidence.frame, -evidence.unlearned.losses)


def mia_svc_confidence(evidence: Evidence[Outputs]) -> Estimates:
    """The share of images to forget that an SVC on p_y judges *non-member*: ``1 - mean(SVC(p_y))``, higher = forgotten.

    The MIA-Efficacy ``TN / |D_f|`` of Fan et al., "SalUn", ICLR 2024 (arXiv 2310.12508), as in OPTML-Group/
    Unlearn-Saliency @ a6e89fd, evaluation/SVC_MIA.py, feature "confidence": ``SVC(C=3, gamma="auto", kernel="rbf")``
    fitted to retained images (members, 1) and test images (non-members, 0) of the model under attack itself.
    Deviations: members and non-members are drawn at random and alike by hospital and label, not the first so many
    rows; at most `MOST_EXAMPLES` of each; a hospital without retained images (a leaving one) is judged by the SVC of
    the others; the interval resamples the patients to forget, not the attack.

    A model that forgets nothing but damages what it retains scores high. Read it beside the retrained model's only.
    Range 0 to 1; cost: one model, one SVC.
    """
    return _judged_non_member(evidence, expit(evidence.unlearned.margin))


def mia_svc_correctness(evidence: Evidence[Outputs]) -> Estimates:
    """As `mia_svc_confidence`, of whether the answer is right, 0 or 1.

    The SVC can only say that right answers are members': the value is then 1 - forget accuracy (Unlearn-Saliency,
    feature "correctness"). Left out where the examples are all right or all wrong: there is nothing to learn from.
    """
    return _judged_non_member(evidence, evidence.unlearned.correct)


def mia_svc_entropy(evidence: Evidence[Outputs]) -> Estimates:
    """As `mia_svc_confidence`, of the entropy ``-sum_c p_c log p_c`` in nats, which does not look at the label."""
    return _judged_non_member(evidence, evidence.unlearned.entropy)


def mia_svc_m_entropy(evidence: Evidence[Outputs]) -> Estimates:
    """As `mia_svc_confidence`, of the modified entropy ``-(1 - p_y) log p_y - sum_{c != y} p_c log(1 - p_c)`` in nats.

    Song and Mittal, USENIX Security 2021 (arXiv 2003.10595), eq. 7: low only for the *right* answer given with
    confidence. Unlearn-Saliency's feature of that name is another number, which depends on what else is in the batch
    (it writes every label's column into every row); values published with it cannot be compared with these.
    """
    return _judged_non_member(evidence, evidence.unlearned.modified_entropy)


def attack_auc(frame: Frame, scores: Floats, known: Bools | None = None) -> Estimates:
    """The area under the ROC curve of an attack, by group: as `mia_loss_auc`, of any score.

    Args:
        frame: the images.
        scores: (N,) the higher, the rather a member.
        known: (N,) which images have a score; None for all.
    """
    of = _contest(frame, _of_all(known))
    return {} if of is None else share(of, scores)


def forget_versus_held_out(frame: Frame, known: Bools | None = None) -> Mapping[str, Pairs]:
    """By group, the pairs (image to forget, held-out image) of one hospital and label, of those ``known``."""
    return _pairs(frame, _of_all(known))


def _of_all(known: Bools | None) -> bytes:
    """Which images are known; empty if all are."""
    return b"" if known is None or known.all() else known.tobytes()


@lru_cache(maxsize=4)  # as of `_pairs`
def _contest(frame: Frame, known: bytes) -> Contest | None:
    pairs = _pairs(frame, known)
    return contest(frame, pairs) if pairs else None


@lru_cache(maxsize=4)  # the request at hand and the one before, of all images and of those with shadows
def _pairs(frame: Frame, known: bytes) -> Mapping[str, Pairs]:
    usable = np.frombuffer(known, dtype=bool) if known else np.ones(len(frame.patients), dtype=bool)
    strangers = ~np.isin(frame.patients, frame.patients[frame.train])
    left, right = frame.rows("forget") & usable, frame.rows("test") & strangers & usable
    # Hospital and label decide what is comparable, in every group: of one patient's few images, too few pairs would be
    # left if partners had to be of the same sex and age as well.
    found = {}
    for group, here in frame.within(left).items():
        members = np.zeros(len(left), dtype=bool)
        members[here] = True
        found[group] = pair_up(frame, members, right, alike(frame))
    return {group: pairs for group, pairs in found.items() if pairs is not None}


def alike(frame: Frame) -> Ints:
    """(N,) one code per hospital and label: images with the same are compared."""
    return frame.sites * (frame.classes + 1) + frame.labels + 1


def _judged_non_member(evidence: Evidence[Outputs], signal: Floats) -> Estimates:
    """The share of images to forget that an SVC on a signal (N,) judges non-member."""
    frame = evidence.frame
    members, others = _balanced(frame, evidence.seed)
    if not len(members) or not np.ptp(signal[np.concatenate([members, others])]):
        return {}
    target, judged = frame.rows("forget"), np.zeros((len(signal), 1))
    judged[target, 0] = judge(signal[members], signal[others], signal[target])
    return ratios(frame, target, 1 - judged, np.ones_like(judged))


@lru_cache(maxsize=2)  # the seed at hand, and the one before
def _balanced(frame: Frame, seed: int) -> tuple[Ints, Ints]:
    """Rows of as many retained as test images, equally many of each hospital and label, in random order."""
    rng = np.random.default_rng(seed)
    strata, members, others = alike(frame), [], []
    retained, held_out = np.flatnonzero(frame.rows("retain")), np.flatnonzero(frame.rows("test"))
    for stratum in np.intersect1d(strata[retained], strata[held_out]):
        one, other = retained[strata[retained] == stratum], held_out[strata[held_out] == stratum]
        n = min(len(one), len(other))
        members.append(rng.permutation(one)[:n])
        others.append(rng.permutation(other)[:n])
    if not members:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    order = rng.permutation(sum(len(rows) for rows in members))[:MOST_EXAMPLES]
    return np.concatenate(members)[order], np.concatenate(others)[order]


def judge(members: Floats, others: Floats, asked: Floats) -> Floats:
    """(n,) 1 where an SVC that learnt from ``members`` and ``others`` (m,) says "member" of ``asked`` (n,), else 0.

    As scikit-learn's ``SVC(C=3, gamma="auto")``; a decision of exactly 0 is for the members, as in libsvm.

    Of answers that are right or wrong there is nothing to fit. If m more members than others are right, right ones are
    held at 1 and wrong ones at -1, since that costs the SVC ``2 / (1 - 1 / e) < 2 C m``; if as many are, any line fits.
    """
    examples, truth = np.concatenate([members, others]), np.repeat([1, 0], [len(members), len(others)])
    more, binary = int(members.sum() - others.sum()), bool(np.isin(examples, (0, 1)).all())
    if binary and more and np.isin(asked, (0, 1)).all():
        return asked if more > 0 else 1 - asked
    from sklearn import config_context  # here, because importing them takes a second
    from sklearn.svm import SVC

    with config_context(assume_finite=True, skip_parameter_validation=True):
        if binary:
            either: Floats = SVC(C=3, gamma="auto").fit(examples[:, None], truth).predict(asked[:, None])
            return either.astype(np.float64)
        attack = SVC(C=3, kernel="precomputed").fit(_own_kernel(examples), truth)
    parts = np.split(asked, range(STEP, len(asked), STEP))
    known, weights, level = examples[attack.support_], attack.dual_coef_[0], attack.intercept_
    return np.concatenate([_kernel(some, known) @ weights + level >= 0 for some in parts]).astype(np.float64)


def _own_kernel(examples: Floats) -> Floats:
    """(n, n) `_kernel` of examples with themselves, each pair once: most of the time goes into exponentials."""
    n = len(examples)
    kernel = np.empty((n, n))
    for start in range(0, n, STRIP):
        rows, after = slice(start, start + STRIP), slice(start, None)
        kernel[rows, after] = _kernel(examples[rows], examples[after])
        kernel[after, rows] = kernel[rows, after].T
    return kernel


def _kernel(one: Floats, other: Floats) -> Floats:
    """(n, m) ``exp(-(x - y)^2)``, for one signal the kernel "rbf" with gamma "auto"; the square as libsvm takes it."""
    apart = (one**2)[:, None] + other**2
    apart -= np.multiply.outer(2 * one, other)
    return np.exp(np.negative(apart, out=apart), out=apart)

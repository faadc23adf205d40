"""Thresholds of the named rules, and the sentences on what each guarantees.

The order statistics and binomial probabilities behind "certified" are here too.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mim_jax.decide.conformal import (
    allowed_rank,
    check_share,
    false_alarm_threshold,
    just_below,
    miss_rate_threshold,
)
from mim_jax.decide.decision import Calibration, conformal_guarantee, percent

# The threshold of the authors' application (section 3.4): mpox if the SSIM+HBD score is strictly greater.
# (The text says 0.8526, then 0.852.) It was chosen with test and clinical images in view and applies only to
# the authors' network and metric settings: it carries no guarantee.
PAPER_THRESHOLD = 0.8526


@dataclass(frozen=True)
class Rule:
    """A named decision rule with its target rates."""

    name: str = "calibrated"  # one of `mim_jax.decide.decision.RULES`
    miss_rate: float = 0.1  # share of the training class that may be missed
    confidence: float = 0.95  # confidence of certified bounds
    # share of each group of other classes that may be called mpox-like; 0 = no such bound. Used by
    # "calibrated" and "certified" only.
    false_alarm_rate: float = 0.1


@dataclass(frozen=True)
class FittingScores:
    """The scores that thresholds are fitted on."""

    lowest: list[np.ndarray]  # for each fold, the lowest score of each image group of the training class
    positives: np.ndarray  # all plain scores of the training class
    negatives: np.ndarray  # all scores of other classes
    highest: dict[str, np.ndarray]  # group of classes -> the highest score of each image group


def _calibrated(found: FittingScores, rule: Rule) -> float:
    return just_below(miss_rate_threshold(np.concatenate(found.lowest), miss_rate=rule.miss_rate))


def _certified(found: FittingScores, rule: Rule) -> float:
    values = np.sort(np.concatenate(found.lowest))
    rank = certificate(len(values), miss_rate=rule.miss_rate, confidence=rule.confidence)
    return just_below(float(values[rank - 1]))


def _youden(found: FittingScores, rule: Rule) -> float:
    scores = np.concatenate((found.positives, found.negatives))
    return youden_threshold(scores, np.arange(len(scores)) < len(found.positives))


LOWER: dict[str, Callable[[FittingScores, Rule], float]] = {
    "calibrated": _calibrated,
    "certified": _certified,
    "paper": lambda found, rule: PAPER_THRESHOLD,
    "youden": _youden,
    "sensitivity": lambda found, rule: sensitivity_threshold(found.positives, sensitivity=1 - rule.miss_rate),
}


def lower_threshold(found: FittingScores, rule: Rule) -> tuple[float | None, str]:
    """Threshold that bounds missed mpox under a rule, with ""; or None with the reason."""
    try:
        return LOWER[rule.name](found, rule), ""
    except ValueError as error:
        return None, str(error)


def upper_threshold(found: FittingScores, rule: Rule) -> tuple[float | None, list[str]]:
    """Threshold that bounds false alarms, and the groups of classes too small for the guarantee."""
    if not rule.false_alarm_rate or rule.name not in ("calibrated", "certified"):
        return None, []
    return false_alarm_threshold(found.highest, false_alarm_rate=rule.false_alarm_rate)


def describe(found: FittingScores, metric: str, rule: Rule, positive: str) -> Calibration:
    """Build the calibration of a rule, with its sentences."""
    lower, trouble = lower_threshold(found, rule)
    upper, left_out = upper_threshold(found, rule)
    return Calibration(
        metric=metric,
        positive=positive,
        rule=rule.name,
        miss_rate=rule.miss_rate,
        scores=tuple(tuple(fold.tolist()) for fold in found.lowest),
        lower=lower,
        upper=upper,
        origin=_origin(found, rule, positive),
        promise=f"No guarantee: {trouble}." if trouble else _guarantee(found, rule, positive),
        band=_band(found, rule, lower, upper, left_out),
    )


def _origin(found: FittingScores, rule: Rule, positive: str) -> str:
    count = sum(map(len, found.lowest))
    cases = f"the lowest held-out score in each of {count} {positive} groups"
    images = f"{len(found.positives)} test images of {positive}"
    return {
        "calibrated": (
            f"calibrated to miss {percent(rule.miss_rate)} of {positive} in expectation, on {cases}"
        ),
        "certified": (
            f"certified to miss at most {percent(rule.miss_rate)} of {positive} with "
            f"{percent(rule.confidence)} confidence, on {cases}"
        ),
        "paper": (f"the paper's {PAPER_THRESHOLD}, fitted by its authors on other data and another network"),
        "youden": f"Youden's index on {images} and {len(found.negatives)} of other classes",
        "sensitivity": f"sensitivity {percent(1 - rule.miss_rate)} on {images}",
    }[rule.name]


def _guarantee(found: FittingScores, rule: Rule, positive: str) -> str:
    if rule.name not in ("calibrated", "certified"):
        return "It guarantees nothing about new images."
    folds, count = len(found.lowest), sum(map(len, found.lowest))
    rate, expected = rule.miss_rate, ""
    if rule.name == "calibrated":
        expected = conformal_guarantee(positive, rate, count=count, folds=folds) + " "
        rate = round(certified_rate(count, allowed_rank(rate, count), confidence=rule.confidence), 3)
    return (
        f"{expected}The threshold misses at most {percent(rate)} of {positive} like those calibrated on, "
        f"with {percent(rule.confidence)} confidence, from {count} cases"
    ) + ("." if folds == 1 else f", treating the {folds} models as one.")


def _band(
    found: FittingScores, rule: Rule, lower: float | None, upper: float | None, left_out: Sequence[str]
) -> str:
    if upper is None:
        return "False alarms have no guarantee: many images of other classes may be called mpox-like."
    kept = ", ".join(name for name in found.highest if name not in left_out)
    words = (
        f"In expectation at most {percent(rule.false_alarm_rate)} of the cases of each group of other "
        f"classes ({kept}) are called mpox-like."
    )
    if left_out:
        words += f" There is no guarantee for {', '.join(left_out)}: too few images."
    if lower is not None and upper <= lower:
        words += " Both guarantees hold with one threshold, so that no image is left undecided."
    return words


def certificate(count: int, *, miss_rate: float, confidence: float) -> int:
    """The largest rank k whose order statistic misses at most `miss_rate` with the given confidence.

    The rule is "mpox-like if score >= X_(k)", the k-th smallest of n scores, i.i.d. like new ones. Its miss
    rate is F(X_(k)-), stochastically at most U_(k), the k-th smallest of n uniform numbers, for any F:

        P(miss rate <= a) >= P(U_(k) <= a) = P(Binomial(n, a) >= k) = I_a(k, n - k + 1).

    Ties only lower the miss rate. Unlike a conformal threshold, whose guarantee averages over calibration
    sets, this bounds the share of sets that do worse by 1 - confidence. Wilks, "Determination of sample
    sizes for setting tolerance limits", Annals of Mathematical Statistics, 1941; Vovk, "Conditional validity
    of inductive conformal predictors", 2012.

    >>> certificate(29, miss_rate=0.1, confidence=0.95)
    1

    Args:
      count: n, the number of independent cases that the model was not trained on.
      miss_rate: a, the bound on the miss rate, between 0 and 1.
      confidence: required confidence, between 0 and 1.

    Returns:
      k, from 1 to n: the threshold is the k-th smallest score.

    Raises:
      ValueError: n is too small even for k = 1; the message gives the smallest n that suffices.
    """
    from scipy.special import betainc

    check_share("miss_rate", miss_rate)
    check_share("confidence", confidence)
    # I_a(k, n - k + 1) falls as k rises.
    if rank := bisect_right(
        range(1, count + 1), -confidence, key=lambda k: -betainc(k, count - k + 1, miss_rate)
    ):
        return rank
    raise ValueError(
        f"{count} calibration images cannot certify a miss rate of {miss_rate:g} with {confidence:g} "
        f"confidence: use at least {images_needed(miss_rate=miss_rate, confidence=confidence)}, or allow a "
        "higher miss rate or less confidence"
    )


def images_needed(*, miss_rate: float, confidence: float, rank: int = 1) -> int:
    """The smallest n for which `certificate` gives at least `rank`.

    For rank 1 P(Binomial(n, a) >= 1) = 1 - (1 - a)^n, so n >= log(1 - c) / log(1 - a).

    >>> images_needed(miss_rate=0.1, confidence=0.95)
    29
    """
    from scipy.special import betainc

    check_share("miss_rate", miss_rate)
    check_share("confidence", confidence)
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    if rank == 1:
        # Rounded first, as floating point may put a whole number slightly too high.
        return math.ceil(round(math.log1p(-confidence) / math.log1p(-miss_rate), 9))
    most = rank
    while betainc(rank, most - rank + 1, miss_rate) < confidence:
        most *= 2
    # I_a(k, n - k + 1) rises with n.
    possible = range(rank, most)
    return rank + bisect_left(possible, confidence, key=lambda n: betainc(rank, n - rank + 1, miss_rate))


def certified_rate(count: int, rank: int, *, confidence: float) -> float:
    """Upper confidence bound on the miss rate of the `rank`-th smallest of `count` scores as threshold.

    The quantile of Beta(k, n - k + 1): `certificate` solved for a. A rank outside 1 to `count`, or a
    confidence outside (0, 1), raises ValueError.

    >>> round(certified_rate(29, 1, confidence=0.95), 3)
    0.098
    """
    from scipy.special import betaincinv

    check_share("confidence", confidence)
    if not 1 <= rank <= count:
        raise ValueError(f"rank must lie between 1 and the {count} scores, got {rank}")
    return float(betaincinv(rank, count - rank + 1, confidence))


def youden_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """The threshold that maximises sensitivity + specificity - 1 on the given images.

    Ties go to the lowest threshold, which misses least. It is optimistic for the images it was fitted on and
    guarantees nothing for others. Youden, "Index for rating diagnostic tests", Cancer, 1950.

    >>> round(youden_threshold(np.array([0.2, 0.4, 0.6, 0.8]), np.array([False, False, True, True])), 6)
    0.6

    Args:
      scores: scores `[n]`.
      positive: bool `[n]`, True = mpox.

    Raises:
      ValueError: a score that is not finite, or images of one side only.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if not np.all(np.isfinite(scores)) or positive.all() or not positive.any():
        raise ValueError(
            f"finite scores of mpox and of other images are needed, got {len(scores)} scores of which "
            f"{np.sum(positive)} are of mpox and {np.sum(~np.isfinite(scores))} not finite"
        )
    thresholds = np.unique(scores)
    upper, lower = np.sort(scores[positive]), np.sort(scores[~positive])
    # Youden's index times both counts, minus a constant: integers, so that ties compare exactly.
    index = np.searchsorted(lower, thresholds) * len(upper) - np.searchsorted(upper, thresholds) * len(lower)
    return just_below(float(thresholds[np.argmax(index)]))


def sensitivity_threshold(scores: np.ndarray, *, sensitivity: float) -> float:
    """The largest threshold that reaches `sensitivity` on the given mpox scores `[n]`.

    >>> round(sensitivity_threshold(np.array([0.2, 0.4, 0.6, 0.8]), sensitivity=0.75), 6)
    0.4
    """
    if not 0 < sensitivity < 1 or not len(scores):
        raise ValueError(
            f"a sensitivity between 0 and 1 and scores of mpox are needed, got {sensitivity} and "
            f"{len(scores)} scores"
        )
    missed = math.floor(round((1 - sensitivity) * len(scores), 9))
    return just_below(float(np.sort(scores)[missed]))

"""Conformal thresholds and p-values with a stated guarantee, from held-out scores.

Score = similarity, high = mpox-like. Mpox scores bound the miss rate; scores of other diseases, if there are
any, bound the false alarm rate. For the confidence of a bound given one calibration set, see
`thresholds.certificate`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Scores = Sequence[float] | np.ndarray


def miss_rate_threshold(scores: Scores, *, miss_rate: float) -> float:
    """The largest t for which the rule "mpox-like if score >= t" misses at most `miss_rate` of new mpox.

    Split conformal detection. If n calibration scores and one new score are exchangeable, every rank is
    equally likely (ties only help), so P(new < k-th smallest) <= k / (n + 1); the largest allowed k is
    floor(miss_rate * (n + 1)). The guarantee is an expectation over calibration sets and new images from one
    distribution: images of the same kind and source, scored by a model that was trained on neither. It
    does not transfer to another camera or population, nor hold for each single calibration set.
    Sources: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Laxhammar and
    Falkman, "Conformal prediction for distribution-independent anomaly detection in streaming vessel data",
    2010.

    >>> miss_rate_threshold([0.7, 0.6, 0.9, 0.8], miss_rate=0.2)
    0.6

    Args:
      scores: similarities of n mpox images that the model was not trained on, one per independent case
        (not one per augmented copy).
      miss_rate: the guaranteed bound on the share of mpox images called "not mpox", between 0 and 1.

    Returns:
      The threshold, one of the scores.

    Raises:
      ValueError: a miss rate outside (0, 1), no or non-finite scores, or too few scores for the guarantee.
    """
    check_share("miss_rate", miss_rate)
    values = _checked(scores)
    rank = allowed_rank(miss_rate, len(values))
    if rank == 0:
        raise ValueError(
            f"{len(values)} calibration images cannot guarantee a miss rate of {miss_rate:g}: use at least "
            f"{least_count(miss_rate)}, or allow a higher miss rate"
        )
    return float(np.sort(values)[rank - 1])


def false_alarm_threshold(
    groups: Mapping[str, Scores], *, false_alarm_rate: float
) -> tuple[float | None, list[str]]:
    """The smallest t for which the rule "mpox-like if score > t" keeps the rate in each group of classes.

    The counterpart of `miss_rate_threshold`, group by group: for n scores and a new one of the same group,
    P(new > k-th largest) <= k / (n + 1). The largest threshold over the groups keeps the guarantee in each
    of them, so many images of an easy group cannot hide the false alarms in a hard one.

    >>> false_alarm_threshold({"rashes": [0.2, 0.5, 0.4], "moles": [0.9]}, false_alarm_rate=0.25)
    (0.5, ['moles'])

    Args:
      groups: group name -> scores of its images (no mpox), one per independent case.
      false_alarm_rate: the guaranteed bound on the share of images called "mpox", between 0 and 1.

    Returns:
      The threshold, None if no group has enough scores for the guarantee; and the groups that have too
      few, which the guarantee does not cover.

    Raises:
      ValueError: a rate outside (0, 1), or scores that are not finite.
    """
    check_share("false_alarm_rate", false_alarm_rate)
    thresholds, left_out = [], []
    for name, scores in groups.items():
        values = _checked(scores)
        rank = allowed_rank(false_alarm_rate, len(values))
        if rank == 0:
            left_out.append(name)
        else:
            thresholds.append(float(np.sort(values)[-rank]))
    return max(thresholds, default=None), left_out


def cross_p_values(folds: Sequence[Scores], scores: Sequence[Scores]) -> np.ndarray:
    """Cross-conformal p-values for membership in the calibration class; high = mpox-like.

    Each fold's model compares the new image with its own held-out images:
    p = (1 + sum_k #{calibration scores of fold k <= score by model k}) / (n + 1), n over all folds (Vovk,
    "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence, 2015).

    With one fold this is the conformal p-value: for a new mpox image exchangeable with the calibration
    images, P(p <= a) <= a for every a; ties only lower it (Vovk, Gammerman and Shafer, "Algorithmic Learning
    in a Random World", 2005; for outliers Bates, Candes, Lei, Romano and Sesia, "Testing for outliers with
    conformal p-values", Annals of Statistics, 2023). With K folds every fold's own p-value is valid, and

        sum_k (n_k + 1) p_k = (n + 1) p + K - 1,

    so p is nearly their weighted mean. For such a mean nothing tighter than P(mean <= a) <= 2 a is proven
    (Vovk and Wang, "Combining p-values via averaging", Biometrika, 2020); `proven_rate` computes the bound.
    In practice the share is near a, or below it.

    >>> cross_p_values([[0.6, 0.7, 0.8]], [[0.5, 0.75]])
    array([0.25, 0.75])

    Args:
      folds: for each fold, the scores of mpox images that its model was not trained on, one per
        independent case.
      scores: for each fold, the scores `[N]` of the new images by its model.

    Returns:
      float64 `[N]`, from 1 / (n + 1) to 1; tied for images with no calibration score between their scores.

    Raises:
      ValueError: no calibration scores, numbers that are not finite, or folds that do not pair.
    """
    count = sum(map(len, folds))
    if not count:
        raise ValueError("calibration_scores is empty: at least one mpox image is needed")
    return (1 + counts_not_above(folds, scores)) / (count + 1)


def counts_not_above(folds: Sequence[Scores], scores: Sequence[Scores]) -> np.ndarray:
    """Count, for each new image, the calibration scores not above its own, over all folds: int `[N]`."""
    counts = [
        np.searchsorted(np.sort(_checked(known)), _checked(new), side="right")
        for known, new in zip(folds, scores, strict=True)
    ]
    return np.sum(counts, axis=0)


def proven_rate(alpha: float, *, count: int, folds: int) -> float:
    """Proven bound on the expected share of new mpox with a p-value of at most `alpha`.

    The bound is alpha for one fold and 2 ((n + 1) alpha + K - 1) / (n + K) for K folds. It follows from the
    two facts stated in `cross_p_values`.

    >>> proven_rate(0.1, count=99, folds=1), round(proven_rate(0.1, count=99, folds=5), 3)
    (0.1, 0.269)
    """
    if folds == 1:
        return alpha
    return min(1.0, 2 * ((count + 1) * alpha + folds - 1) / (count + folds))


def allowed_rank(rate: float, count: int) -> int:
    """Number of rejections that a rate allows among `count` exchangeable scores and a new one."""
    # floor(rate (count + 1)). Rounded first: 0.29 * 100 is 28.999999999999996 in binary, but 29 is meant.
    return math.floor(round(rate * (count + 1), 9))


def least_count(rate: float) -> int:
    """The smallest number n of calibration scores that can guarantee a rate: 1 / (n + 1) <= rate.

    >>> least_count(0.1)
    9
    """
    return math.ceil(round(1 / rate, 9)) - 1


def just_below(threshold: float) -> float:
    """The next float64 below a threshold: makes the strict "score > t" equal to "score >= threshold"."""
    return float(np.nextafter(threshold, -np.inf))


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless 0 < value < 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1 (both excluded), got {value}")


def _checked(scores: Scores) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not np.all(np.isfinite(values)):
        raise ValueError(
            f"scores must be a 1-D array of finite numbers, got shape {values.shape} with "
            f"{np.sum(~np.isfinite(values))} non-finite values"
        )
    return values

"""The analytic variance of an AUROC, and of the difference of two on the same images, by groups of images.

DeLong, DeLong and Clarke-Pearson ("Comparing the areas under two or more correlated receiver operating
characteristic curves", Biometrics, 1988), clustered as Obuchowski ("Nonparametric analysis of clustered ROC
curve data", Biometrics, 1997): the copies of an image, or the images of a patient, are one group, and only
groups are independent. Without groups, or with one image a group, the second is the first.
"""

import math

import numpy as np
from scipy.special import ndtri

from mim_jax.evaluate.statistics.auroc import LEVEL, Estimate, checked


def delong(scores: np.ndarray, positive: np.ndarray, *, groups: np.ndarray | None = None) -> Estimate:
    """AUROC with the normal interval of `delong_variance`, cut to [0, 1].

    Near 0 and 1 the interval is too short, and where no pair is lost it has no width: prefer the bootstrap's
    company, and mistrust both.

    Args:
      scores: float `[n]`, high = positive.
      positive: bool `[n]`.
      groups: `[n]`; None = every image stands for itself.

    Raises:
      ValueError: as `auroc` and `delong_variance`.
    """
    upper, lower = _placements(scores, positive)
    variance = _variance(upper, lower, np.asarray(positive, bool), groups)
    return _normal(float(np.mean(upper)), variance, least=0.0, most=1.0)


def delong_difference(
    scores: np.ndarray, others: np.ndarray, positive: np.ndarray, *, groups: np.ndarray | None = None
) -> Estimate:
    """AUROC of `scores` minus AUROC of `others`, paired by image, with a normal interval cut to [-1, 1].

    The difference of the placements takes the place of the placements: the covariances of DeLong, DeLong and
    Clarke-Pearson are bilinear, so this is their contrast (1, -1). Arguments and errors as `delong`.
    """
    (upper, lower), (other_upper, other_lower) = _placements(scores, positive), _placements(others, positive)
    upper, lower = upper - other_upper, lower - other_lower
    variance = _variance(upper, lower, np.asarray(positive, bool), groups)
    return _normal(float(np.mean(upper)), variance, least=-1.0, most=1.0)


def delong_variance(scores: np.ndarray, positive: np.ndarray, *, groups: np.ndarray | None = None) -> float:
    """Variance of the AUROC; arguments as `delong`.

    With A the AUROC, m and n the positives and negatives, P_g the sum over the positives of group g of
    (placement - A) / m, and N_g that over its negatives of (placement - A) / n,

        Var(A) = a / (a - 1) sum_g P_g^2 + b / (b - 1) sum_g N_g^2 + 2 c / (c - 1) sum_g P_g N_g,

    where a, b and c count the groups with positives, with negatives, and all. The last term is that of groups
    with images of both kinds.

    Raises:
      ValueError: fewer than two groups with positives, or with negatives; and as `auroc`.
    """
    return _variance(*_placements(scores, positive), np.asarray(positive, bool), groups)


def _variance(upper: np.ndarray, lower: np.ndarray, positive: np.ndarray, groups: np.ndarray | None) -> float:
    names, group = np.unique(np.arange(len(positive)) if groups is None else groups, return_inverse=True)
    if len(group) != len(positive):
        raise ValueError(f"{len(group)} groups for {len(positive)} images: one an image is needed")
    sums, corrections = [], []
    for kind, values, own in (
        ("positive (mpox)", upper, group[positive]),
        ("negative (other)", lower, group[~positive]),
    ):
        count = len(np.unique(own))
        if count < 2:
            raise ValueError(
                f"all {len(own)} {kind} images are one group: the variance needs two independent groups"
            )
        centred = (values - np.mean(values)) / len(values)
        sums.append(np.bincount(own, weights=centred, minlength=len(names)))
        corrections.append(count / (count - 1))
    apart = corrections[0] * float(np.sum(sums[0] ** 2)) + corrections[1] * float(np.sum(sums[1] ** 2))
    together = 2 * len(names) / (len(names) - 1) * float(np.sum(sums[0] * sums[1]))
    # Rounding, or a strong negative covariance in few groups, may leave a little less than nothing.
    return max(apart + together, 0.0)


def _placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each image contributes to the AUROC (DeLong, DeLong and Clarke-Pearson, Biometrics, 1988).

    With psi(x, y) = [x > y] + [x = y] / 2, a positive x has the mean of psi(x, y) over the negatives y, and a
    negative y the mean over the positives x; the AUROC is the mean of either. A sorted list of the one class
    gives the ranks of the other by bisection: the midranks of Sun and Xu ("Fast implementation of DeLong's
    algorithm", IEEE Signal Processing Letters, 2014), in O(n log n).

    Returns:
      float64 `[positives]` and float64 `[negatives]`, in the order of the images. Errors as `auroc`.
    """
    scores, positive = checked(scores, positive)
    upper, lower = scores[positive], scores[~positive]
    return _count_below(upper, lower) / len(lower), 1 - _count_below(lower, upper) / len(upper)


def _count_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def _normal(value: float, variance: float, *, least: float, most: float) -> Estimate:
    """`value` with its normal interval, cut to the range `[least, most]` that the value can have."""
    half = float(ndtri((1 + LEVEL) / 2)) * math.sqrt(variance)
    return Estimate(value, max(value - half, least), min(value + half, most))

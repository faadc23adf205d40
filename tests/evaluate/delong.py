"""Analytic variance of an AUROC, or of the difference of two on the same images, to check the bootstrap.

DeLong, DeLong and Clarke-Pearson ("Comparing the areas under two or more correlated receiver operating
characteristic curves", Biometrics, 1988), clustered as Obuchowski ("Nonparametric analysis of clustered ROC
curve data", Biometrics, 1997): the copies of an image, or the images of a patient, are one group, and only
groups are independent. With one image per group Obuchowski's variance is DeLong's.
"""

import numpy as np


def delong_variance(
    scores: np.ndarray, positive: np.ndarray, groups: np.ndarray, *, others: np.ndarray | None = None
) -> float:
    """Variance of the AUROC of `scores`, or of its difference from the AUROC of `others`.

    With A the AUROC, m and n the positives and negatives, P_g the sum over the positives of group g of
    (placement - A) / m, and N_g that over its negatives of (placement - A) / n,

        Var(A) = a / (a - 1) sum_g P_g^2 + b / (b - 1) sum_g N_g^2 + 2 c / (c - 1) sum_g P_g N_g,

    where a, b and c count the groups with positives, with negatives, and all. The last term comes from groups
    with images of both kinds. For a difference of AUROCs, use the difference of the placements instead: the
    covariances of DeLong, DeLong and Clarke-Pearson are bilinear.
    """
    upper, lower = _placements(scores, positive)
    if others is not None:
        other_upper, other_lower = _placements(others, positive)
        upper, lower = upper - other_upper, lower - other_lower
    names, group = np.unique(groups, return_inverse=True)
    sums, corrections = [], []
    for values, own in ((upper, group[positive]), (lower, group[~positive])):
        centred = (values - np.mean(values)) / len(values)
        sums.append(np.bincount(own, weights=centred, minlength=len(names)))
        corrections.append(len(np.unique(own)) / (len(np.unique(own)) - 1))
    apart = corrections[0] * np.sum(sums[0] ** 2) + corrections[1] * np.sum(sums[1] ** 2)
    return float(apart + 2 * len(names) / (len(names) - 1) * np.sum(sums[0] * sums[1]))


def _placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Placements of the positives and of the negatives; the AUROC is the mean of either.

    With psi(x, y) = [x > y] + [x = y] / 2, the placement of a positive x is the mean of psi(x, y) over the
    negatives y, and the placement of a negative y is the mean over the positives x.
    """
    upper, lower = scores[positive], scores[~positive]
    return _share_below(upper, lower), 1 - _share_below(lower, upper)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return below / 2 / len(others)

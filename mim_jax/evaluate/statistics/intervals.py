"""Intervals: percentiles of resamples, exact and t intervals, and what the spread of the folds adds."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, stdtrit

LEVEL = 0.95  # of every interval
_NORMAL = 1e6  # degrees of freedom from which a t distribution is the normal one


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def share_estimate(hits: int, count: int) -> Estimate:
    """A share of `count` independent cases with its exact interval (Clopper and Pearson, Biometrika, 1934).

    The ends are quantiles of Beta(hits, count - hits + 1) and Beta(hits + 1, count - hits).

    Raises:
      ValueError: no case, or more hits than cases.
    """
    if not 0 <= hits <= count or not count:
        raise ValueError(f"a share needs a case at least, and no more hits than cases: got {hits} of {count}")
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return Estimate(hits / count, low, high)


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """The central percentiles that hold `LEVEL` of the resamples `[resamples]`."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def fold_half_width(values: np.ndarray, shared_variance: float) -> float | None:
    """Half the width of an interval of the folds' mean that counts the folds as drawn, models included.

    The folds have their own models and their own positives, and share the negatives. So the sample variance
    s^2 of the k values holds what models and positives contribute, the shared negatives move all values
    together and cancel from it, and

        Var(mean) = s^2 / k + V,    V = the variance that the negatives give the mean.

    What the negatives do to one model and not to another is in both terms: a little too wide. This is a
    random-effects analysis with the fold models as readers of the same negatives (Obuchowski and Rockette,
    Communications in Statistics - Simulation and Computation, 1995). s^2 has k - 1 degrees of freedom and V
    many; their sum has those of Satterthwaite (Biometrics Bulletin, 1946), and the half width is the quantile
    of that t distribution times the standard deviation. Resampling five folds with replacement instead would
    shrink s^2 by (k - 1) / k, ignore that it is estimated from k values, and count the positives twice
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

    The folds' training sets overlap, so their values depend on each other in a way that no estimate from one
    cross-validation can see (Bengio and Grandvalet, Journal of Machine Learning Research, 2004): the interval
    is about models trained as these were, and other training images may move the mean further.

    Args:
      values: one a fold, `[k]`.
      shared_variance: V.

    Returns:
      The half width, or None for a single fold, which says nothing of how folds vary.
    """
    count = len(values)
    if count < 2:
        return None
    folds = float(np.var(values, ddof=1)) / count
    total = folds + shared_variance
    # freedom = total^2 / (folds^2 / (k - 1)), without dividing by the zero of folds that agree.
    freedom = (count - 1) * total**2 / folds**2 if folds**2 * _NORMAL > (count - 1) * total**2 else _NORMAL
    return float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(total)

"""How sure a threshold is for the one calibration set there is: order statistics and the binomial law."""

import math
from collections.abc import Callable

from scipy.special import betainc, betaincinv

from mim_jax.decide.conformal import check_share


def certificate(count: int, *, miss_rate: float, confidence: float) -> int:
    """The largest rank k whose order statistic misses at most `miss_rate` with that confidence.

    Let "mpox-like where score >= X_(k)", the k-th smallest of n independent scores drawn as new ones are. Its
    miss rate is F(X_(k)-), which the k-th smallest of n uniform numbers exceeds or equals, whatever F is:

        P(miss rate <= a) >= P(U_(k) <= a) = P(Binomial(n, a) >= k) = I_a(k, n - k + 1).

    Ties only lower the miss rate. Unlike a conformal threshold, whose promise is an average over calibration
    sets, this bounds the share of sets that turn out worse: 1 - confidence. Wilks, "Determination of sample
    sizes for setting tolerance limits", Annals of Mathematical Statistics, 1941; Vovk, "Conditional validity
    of inductive conformal predictors", 2012.

    Args:
      count: n, independent cases that the model has not trained on.
      miss_rate: a, between 0 and 1.
      confidence: between 0 and 1.

    Returns:
      k, from 1 to n: the threshold is the k-th smallest score.

    Raises:
      ValueError: n is too small for even the smallest score; the sentence names the n that is not.
    """
    _check(miss_rate, confidence)
    # I_a(k, n - k + 1) falls as k rises.
    if rank := _last(count, lambda k: betainc(k, count - k + 1, miss_rate) >= confidence):
        return rank
    raise ValueError(
        f"{count} calibration images cannot certify a miss rate of {miss_rate:g} with {confidence:g} "
        f"confidence: use at least {images_needed(miss_rate=miss_rate, confidence=confidence)}, or allow a "
        "higher miss rate or less confidence"
    )


def images_needed(*, miss_rate: float, confidence: float, rank: int = 1) -> int:
    """The smallest n for which `certificate` gives at least `rank`.

    For rank 1 P(Binomial(n, a) >= 1) = 1 - (1 - a)^n, so n >= log(1 - c) / log(1 - a).
    """
    _check(miss_rate, confidence)
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    if rank == 1:
        # Rounded first, as a whole number may come out a little too large.
        return math.ceil(round(math.log1p(-confidence) / math.log1p(-miss_rate), 9))
    most = rank
    while betainc(rank, most - rank + 1, miss_rate) < confidence:
        most *= 2
    # I_a(k, n - k + 1) rises with n.
    return 1 + _last(most, lambda n: n < rank or betainc(rank, n - rank + 1, miss_rate) < confidence)


def certified_rate(count: int, rank: int, *, confidence: float) -> float:
    """The miss rate that the `rank`-th smallest of `count` scores keeps with that confidence.

    The quantile of Beta(k, n - k + 1): `certificate` solved for a.

    Raises:
      ValueError: a rank that is not among the scores, or a confidence outside (0, 1).
    """
    check_share("confidence", confidence)
    if not 1 <= rank <= count:
        raise ValueError(f"rank must lie between 1 and the {count} scores, got {rank}")
    return float(betaincinv(rank, count - rank + 1, confidence))


def _last(most: int, holds: Callable[[int], bool]) -> int:
    """The largest whole number up to `most` for which `holds`, which turns false once; 0 if it never does."""
    low, high = 0, most + 1  # holds below and at `low`, not at `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _check(miss_rate: float, confidence: float) -> None:
    check_share("miss_rate", miss_rate)
    check_share("confidence", confidence)

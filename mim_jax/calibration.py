"""Thresholds with a stated guarantee, from scores of mpox images alone.

Score = similarity, high = mpox-like. The guarantee is on missed mpox (sensitivity); a promise about false
alarms would need images of other diseases.
"""

import math
from collections.abc import Sequence

import numpy as np

# The threshold of the authors' application (section 3.4): mpox where the SSIM+HBD score is strictly greater.
# (Its text says 0.8526, then 0.852.) It was chosen with test and clinical images in view and holds only for
# the authors' network and metric settings: no guarantee goes with it.
PAPER_THRESHOLD = 0.8526


def miss_rate_threshold(scores: Sequence[float] | np.ndarray, *, miss_rate: float) -> float:
    """The largest t for which "mpox-like where score >= t" misses at most `miss_rate` of new mpox.

    Split conformal detection. Among n calibration scores and one new score, exchangeable, every rank is
    equally likely (ties only help), so P(new < k-th smallest) <= k / (n + 1); the largest allowed k is
    floor(miss_rate * (n + 1)). The promise is an expectation over calibration sets and new images drawn
    alike: images of the same kind, from the same source, scored by a model that was trained on neither. It is
    not a promise for another camera or population, nor for each single calibration set.
    Sources: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Laxhammar and
    Falkman, "Conformal prediction for distribution-independent anomaly detection in streaming vessel data",
    2010.

    Args:
      scores: similarities of n mpox images that the model has not seen in training, one an independent case
        (not one an augmented copy).
      miss_rate: the promised share of mpox images called "not mpox", between 0 and 1.

    Returns:
      The threshold, one of the scores.

    Raises:
      ValueError: a miss rate outside (0, 1), no or non-finite scores, or too few scores to carry the promise.
    """
    values = np.asarray(scores, np.float64)
    if not 0 < miss_rate < 1:
        raise ValueError(f"miss_rate must lie between 0 and 1, got {miss_rate}")
    if values.ndim != 1 or not np.all(np.isfinite(values)):
        raise ValueError(
            f"scores must be one row of finite numbers, got shape {values.shape} with "
            f"{np.sum(~np.isfinite(values))} that are not"
        )
    # Rounded first: 0.29 * 100 is 28.999999999999996 in binary, and 29 is meant.
    rank = math.floor(round(miss_rate * (len(values) + 1), 9))
    if rank == 0:
        needed = math.ceil(round(1 / miss_rate, 9)) - 1
        raise ValueError(
            f"{len(values)} calibration images cannot promise a miss rate of {miss_rate:g}: use at least "
            f"{needed}, or allow a higher miss rate"
        )
    return float(np.sort(values)[rank - 1])

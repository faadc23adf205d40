"""Named thresholds that promise nothing about new images: the paper's, Youden's, a wanted sensitivity.

All are for the rule "mpox-like where score > threshold".
"""

import math

import numpy as np

from mim_jax.decide.conformal import just_below
from mim_jax.evaluate.statistics.auroc import roc_thresholds

# The threshold of the authors' application (section 3.4): mpox where the SSIM+HBD score is strictly greater.
# (Its text says 0.8526, then 0.852.) It was chosen with test and clinical images in view and holds only for
# the authors' network and metric settings: no guarantee goes with it.
PAPER_THRESHOLD = 0.8526


def youden_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """The threshold of the largest sensitivity + specificity - 1 on these very images.

    Of several the lowest, which misses least. It is optimistic for the images it was fitted on and promises
    nothing for others. Youden, "Index for rating diagnostic tests", Cancer, 1950.

    Args:
      scores: `[n]`.
      positive: bool `[n]`: mpox?

    Raises:
      ValueError: as `ranking.auroc`.
    """
    false_rate, true_rate, thresholds = roc_thresholds(scores, positive)
    index = true_rate - false_rate
    return just_below(float(thresholds[np.flatnonzero(index == index.max())[-1]]))


def sensitivity_threshold(scores: np.ndarray, *, sensitivity: float) -> float:
    """The largest threshold that finds at least that share of these very images of mpox.

    Args:
      scores: `[n]` of mpox.
      sensitivity: between 0 and 1.

    Raises:
      ValueError: no scores, or a sensitivity outside (0, 1).
    """
    if not 0 < sensitivity < 1 or not len(scores):
        raise ValueError(
            f"a sensitivity between 0 and 1 and scores of mpox are needed, got {sensitivity} and "
            f"{len(scores)} scores"
        )
    missed = math.floor(round((1 - sensitivity) * len(scores), 9))
    return just_below(float(np.sort(scores)[missed]))

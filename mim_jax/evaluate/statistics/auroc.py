"""How well a score ranks positives above negatives: AUROC and the ROC curve.

Positive = mpox, score = similarity (high = mpox-like), float64 throughout, ties count half. Nothing is fitted
or normalised here.
"""

import numpy as np
from sklearn.metrics import roc_curve


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, a tie counting half.

    Raises:
      ValueError: lengths differ, a class is missing, or a score is not finite.
    """
    scores, positive = checked(scores, positive)
    upper, lower = scores[positive], scores[~positive]
    # Halves of whole numbers add up exactly: one rounding, whatever the order of the images.
    return float(np.sum(_count_below(upper, lower)) / (len(upper) * len(lower)))


def roc(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve (Figure 6): false and true positive rates, from 0 to 1; errors as `auroc`."""
    false_rate, true_rate, _ = roc_thresholds(scores, positive)
    return false_rate, true_rate


def roc_thresholds(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `roc`, with the falling thresholds of "score >= threshold" behind the rates, the first infinite."""
    scores, positive = checked(scores, positive)
    return roc_curve(positive, scores)


def checked(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 and labels as bool, both `[n]`; errors as `auroc`."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(
            f"one score and one label an image are needed, got shapes {scores.shape} and {positive.shape}"
        )
    if not np.all(np.isfinite(scores)):
        first = int(np.argmin(np.isfinite(scores)))
        raise ValueError(f"score {first} is {scores[first]}: AUROC needs finite scores")
    if positive.all() or not positive.any():
        raise ValueError(
            f"{np.sum(positive)} of {len(positive)} images are positive: AUROC needs positives and negatives"
        )
    return scores, positive


def _count_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others lie below each value, ties counting half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return (below + not_above) / 2

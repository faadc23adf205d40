"""Refinements of the score that see no test image: complexity taken off, neighbours, combined p-values.

A refinement is fitted on mpox images alone, and on none that it is going to judge. Features (see
`mim_jax.features`) and scores in, float64 out, one an image; each depends on its own image and the images
fitted on alone. Score = similarity, **high = mpox-like**.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mim_jax.evaluate.baselines.image_statistics import nearest_distance

# Ridge strengths to choose from, for each image fitted on; infinite = no correction. The strongest is first:
# it wins a tie.
STRENGTHS = (np.inf, *np.logspace(3, -4, 29).tolist())


@dataclass(frozen=True, eq=False)
class Correction:
    """A linear prediction of the score from what the image is like, and the score less that prediction.

    Attributes:
      mean, scale: float64 `[F]`, standardise the features.
      coefficients: float64 `[F]`, of the standardised features.
      intercept: the mean score fitted on.
      strength: of the ridge, for each image fitted on; infinite where nothing could be predicted.
      explained: the share of the variance of left-out scores that is predicted, from 0 to 1.
    """

    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float
    strength: float
    explained: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The score of an mpox image of these features `[N, F]`: float64 `[N]`."""
        rows = _rows(features, "features", width=len(self.mean))
        # A product of matrices could round a row differently with the number of rows.
        return self.intercept + np.sum((rows - self.mean) / self.scale * self.coefficients, axis=1)

    def residual(self, features: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Score `[N]` minus prediction: what features `[N, F]` do not explain, high = mpox-like."""
        return _column(scores, "scores", count=len(features)) - self.predict(features)


def fit_correction(
    features: np.ndarray, scores: np.ndarray, *, groups: np.ndarray | None = None
) -> Correction:
    """Ridge regression of the scores of mpox images on their standardised features.

    Minimises sum (y - m - x b)^2 + N s |b|^2 over m and b. The strength s is the one of `STRENGTHS` with the
    least squared error on left-out groups. No group is refitted for that: with the hat matrix H of the fit to
    all, and e what that fit leaves, a group G that is left out is missed by (1 - H_GG)^-1 e_G, exactly (for
    single images Allen's PRESS: "The relationship between variable selection and data augmentation and a
    method for prediction", Technometrics, 1974; the singular value decomposition of x gives H for every
    strength). The features are standardised once, over all.

    Args:
      features: `[N, F]` of mpox images.
      scores: `[N]` by a model that has not trained on these images, nor are they to be judged by the result:
        for a fold's test set, the test images of the other folds, each scored by the fold that left it out.
        On its own training images a model scores higher than on new ones.
      groups: `[N]`, images of one patient or copies of one image share a value; None = all are independent.

    Raises:
      ValueError: features and scores of different length, not finite, or of fewer than two groups.
    """
    rows = _rows(features, "features")
    y = _column(scores, "scores", count=len(rows))
    labels = np.arange(len(rows)) if groups is None else np.asarray(groups)
    if labels.shape != (len(rows),):
        raise ValueError(f"groups must be one a row of features, [{len(rows)}], got {list(labels.shape)}")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(members) < 2:
        raise ValueError(
            f"{len(rows)} images in {len(members)} group(s) cannot choose a strength: use at least two groups"
        )
    mean, scale = _standard(rows)
    left, values, right = np.linalg.svd((rows - mean) / scale, full_matrices=False)
    intercept = float(y.mean())
    along = left.T @ (y - intercept)

    def left_out_error(strength: float) -> float:
        shrink = values**2 / (values**2 + strength * len(rows))
        remains = y - intercept - left @ (shrink * along)
        hats = ((left[own] * shrink) @ left[own].T + 1 / len(rows) for own in members)
        missed = [
            np.linalg.solve(np.eye(len(own)) - hat, remains[own])
            for own, hat in zip(members, hats, strict=True)
        ]
        return float(np.mean(np.concatenate(missed) ** 2))

    errors = [left_out_error(strength) for strength in STRENGTHS]
    best = int(np.argmin(errors))
    strength = STRENGTHS[best]
    coefficients = right.T @ (values / (values**2 + strength * len(rows)) * along)
    explained = 1 - errors[best] / errors[0] if errors[0] > 0 else 0.0
    return Correction(mean, scale, coefficients, intercept, strength, explained)


def neighbor_scores(features: np.ndarray, train: np.ndarray, *, k: int = 3) -> np.ndarray:
    """Minus the mean Euclidean distance to the `k` nearest training images, by standardised features.

    Each feature is centred and divided by its standard deviation over the training images, so that none
    outweighs the others by its unit. A training image that is scored counts as its own neighbour: score
    held-out images.

    Args:
      features: `[N, F]`.
      train: `[T, F]`, the same features of at least `k` training images.
      k: neighbours to average over.

    Returns:
      float64 `[N]`, at most 0.
    """
    known = _rows(train, "train")
    rows = _rows(features, "features", width=known.shape[1])
    if not 1 <= k <= len(known):
        raise ValueError(
            f"k={k} neighbours cannot be found among {len(known)} training images: choose 1 to {len(known)}"
        )
    mean, scale = _standard(known)
    return -nearest_distance((rows - mean) / scale, (known - mean) / scale, k)


def combine(p: Sequence[np.ndarray]) -> np.ndarray:
    """Several p-values of each image as one score, 2 sum log p: Fisher's statistic with its sign turned.

    Were the p-values of an mpox image independent, minus the result would be chi-squared with two degrees of
    freedom for each. Scores of one image by one network are not, so this is a score to be ranked and
    calibrated like any other, and no p-value. Fisher, "Statistical Methods for Research Workers", 4th
    edition, 1932, section 21.1.

    Args:
      p: one array `[N]` a score, each in (0, 1]; see `calibration.p_values`.

    Returns:
      float64 `[N]`, at most 0; high = mpox-like.
    """
    columns = [_column(values, f"p[{i}]") for i, values in enumerate(p)]
    if not columns or len({len(column) for column in columns}) > 1:
        raise ValueError(
            f"p must hold at least one array, all of the same images, got {[len(c) for c in columns]} values"
        )
    stacked = np.stack(columns)
    if stacked.size and not (stacked.min() > 0 and stacked.max() <= 1):
        raise ValueError(
            f"p-values must lie in (0, 1], got {stacked.min():g} to {stacked.max():g}: pass what "
            "calibration.p_values gives"
        )
    return 2 * np.log(stacked).sum(axis=0)


def _standard(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, 1 where a column is constant up to float32's rounding."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1.0)


def _rows(features: np.ndarray, name: str, *, width: int | None = None) -> np.ndarray:
    """Float64 `[N, F]` in row order (sums over a row then round alike), or a ValueError."""
    rows = np.array(features, np.float64, order="C")
    if rows.ndim != 2 or width not in (None, rows.shape[1]):
        wanted = f"[N, {'F' if width is None else width}]"
        raise ValueError(f"{name} must be {wanted}, one row an image, got {list(rows.shape)}")
    _check_finite(rows, name)
    return rows


def _column(scores: np.ndarray, name: str, *, count: int | None = None) -> np.ndarray:
    """Float64 `[N]`, or a ValueError."""
    column = np.asarray(scores, np.float64)
    if column.ndim != 1 or count not in (None, len(column)):
        wanted = f"[{'N' if count is None else count}]"
        raise ValueError(f"{name} must be {wanted}, one number an image, got {list(column.shape)}")
    _check_finite(column, name)
    return column


def _check_finite(values: np.ndarray, name: str) -> None:
    finite = np.isfinite(values)
    if not np.all(finite):
        raise ValueError(
            f"{name} holds {np.sum(~finite)} numbers that are not finite, the first in row "
            f"{np.argwhere(~finite)[0][0]}: check that image and the network that scored it"
        )

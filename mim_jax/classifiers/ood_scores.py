"""OOD scores of a classifier, from its logits and features; high = mpox-like, or known.

Some measure how much an image looks like any training class ("known"), others how much it looks like mpox.
All statistics are fitted on training images only. Everything is float64.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from sklearn.covariance import ledoit_wolf_shrinkage

from mim_jax.classifiers.step import normalize
from mim_jax.data.batches import Images, collect, padded_batches

SCORE_NAMES = {
    "probability": "probability of mpox",
    "msp": "highest probability",
    "energy": "energy",
    "mahalanobis": "Mahalanobis distance",
    "neighbors": "neighbours",
    "positive_energy": "logit of mpox",
    "positive_mahalanobis": "Mahalanobis distance to mpox",
    "positive_neighbors": "neighbours among mpox",
}
SCORES = tuple(SCORE_NAMES)
SCORE_CLAUSES = {  # a description of each score
    "probability": "the score the paper ranks by",
    "msp": "of any class the network was trained on (maximum softmax probability)",
    "energy": "how much evidence there is for any class: log of the summed exponentials of the logits",
    "mahalanobis": "how near the features are to the nearest class mean, in units of their spread",
    "neighbors": "how near the features are to the fifth nearest training image of any class",
    "positive_energy": "how much evidence there is for mpox, regardless of the other classes",
    "positive_mahalanobis": "how near the features are to the mean of mpox, in units of their spread",
    "positive_neighbors": "how near the features are to the fifth nearest training image of mpox",
}
KNOWN = ("msp", "energy", "mahalanobis", "neighbors")  # scores for looking like any training class
NEIGHBORS = 5  # fixed before any image was scored


@dataclass(frozen=True, eq=False)
class Fitted:
    """Statistics of N training images for `score`; F features, C classes, R = min(N, F)."""

    means: np.ndarray  # of each class, float64 `[C, F]`
    axes: np.ndarray  # orthonormal directions in which images vary within their classes, float64 `[R, F]`
    variances: np.ndarray  # of the shrunk covariance along each axis, float64 `[R]`
    rest: float  # its variance in every direction orthogonal to the axes
    directions: np.ndarray  # the features, each row scaled to length 1, float64 `[N, F]`
    labels: np.ndarray  # int `[N]`


def fit(features: np.ndarray, labels: np.ndarray, classes: int) -> Fitted:
    """Fit class means, one covariance for all classes, and the training images as neighbours.

    With X the features minus class means, m the mean of its variances, and a the shrinkage of Ledoit and
    Wolf ("A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate
    Analysis, 2004), the covariance is

        (1 - a) X' X / N + a m I.

    With few images and many features it is given by the singular vectors of X: its variances are
    (1 - a) s^2 / N + a m along them, and a m in every other direction. No F x F matrix is inverted.

    `features` are float `[N, F]`, `labels` int `[N]`, 0 to `classes` - 1. ValueError if lengths differ, a
    class has no images, a label is out of range, or features are not finite or do not vary within any class.
    """
    features, labels = _checked(features, "training features"), np.asarray(labels)
    if labels.shape != (len(features),):
        raise ValueError(
            f"{len(features)} rows of training features and labels of shape {list(labels.shape)}: one label "
            "per row is needed"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}: with {classes} classes they must be 0 "
            f"to {classes - 1}"
        )
    counts = np.bincount(labels, minlength=classes)
    if not np.all(counts):
        raise ValueError(
            f"class {int(np.argmin(counts))} has none of the {len(labels)} training images: its mean is "
            f"needed, give images of all {classes} classes"
        )
    means = np.stack([features[labels == label].mean(axis=0) for label in range(classes)])
    centred = features - means[labels]
    variance = float(np.mean(centred**2))
    if variance == 0:
        raise ValueError(
            f"the features of the {len(labels)} training images do not vary within any of the {classes} "
            "classes: a Mahalanobis distance needs a spread, check the network or give more images"
        )
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    # Without shrinkage, features confined to a subspace would cause a division by zero outside it.
    rest = max(shrinkage, float(np.finfo(np.float64).eps)) * variance
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    return Fitted(
        means=means,
        axes=axes,
        variances=(1 - shrinkage) * singular**2 / len(centred) + rest,
        rest=rest,
        directions=_directions(features),
        labels=labels,
    )


def score(
    logits: np.ndarray, features: np.ndarray, fitted: Fitted, *, positive: int = 0
) -> dict[str, np.ndarray]:
    """Every score of `SCORES`, float64 `[M]`, all high = mpox-like, or known.

    "probability": softmax(logits)[positive], the score the paper ranks by. It stays a readable probability:
    if a network is so sure that float64 rounds to 0 or 1, images tie, and count half.
    "msp": the maximum softmax probability (Hendrycks and Gimpel, ICLR 2017).
    "energy": logsumexp(logits), the negative free energy at temperature 1 (Liu et al., NeurIPS 2020).
    "mahalanobis": minus the smallest squared Mahalanobis distance to a class mean, one covariance for all
      classes (Lee et al., NeurIPS 2018), here that of `fit`.
    "neighbors": minus the distance to the `NEIGHBORS`-th nearest training image, features scaled to length 1
      (Sun et al., ICML 2022); to the farthest if there are fewer.
    "positive_energy": logits[positive]. Where "energy" is log p(x) up to a constant, this is log p(x, mpox)
      (Grathwohl et al., ICLR 2020).
    "positive_mahalanobis": minus the squared distance to the mean of the positive class.
    "positive_neighbors": as "neighbors", among training images of the positive class.

    `logits` are float `[M, C]`, `features` `[M, F]`, `fitted` is from `fit` for the same network; `positive`
    is the mpox class. Other shapes, values that are not finite, or an unknown class raise a ValueError.
    """
    logits, features = _checked(logits, "logits"), _checked(features, "features")
    classes, width = fitted.means.shape
    if logits.shape != (len(features), classes) or features.shape[1] != width:
        raise ValueError(
            f"logits {list(logits.shape)} and features {list(features.shape)} do not match: with "
            f"{classes} classes and {width} features they must be [M, {classes}] and [M, {width}], one row "
            "per image"
        )
    if not 0 <= positive < classes:
        raise ValueError(f"positive={positive} is not a class: choose one between 0 and {classes - 1}")
    chances = softmax(logits, axis=1)
    distances = _mahalanobis(features, fitted)
    apart = cdist(_directions(features), fitted.directions)
    return {
        "probability": chances[:, positive],
        "msp": chances.max(axis=1),
        "energy": logsumexp(logits, axis=1),
        "mahalanobis": -distances.min(axis=1),
        "neighbors": -_nearest(apart),
        "positive_energy": logits[:, positive].copy(),
        "positive_mahalanobis": -distances[:, positive],
        "positive_neighbors": -_nearest(apart[:, fitted.labels == positive]),
    }


def _mahalanobis(features: np.ndarray, fitted: Fitted) -> np.ndarray:
    """Squared distances to every class mean, `[M, C]`."""
    along, means = features @ fitted.axes.T, fitted.means @ fitted.axes.T
    distances = np.empty((len(features), len(means)))
    for label, mean in enumerate(fitted.means):
        squares = (along - means[label]) ** 2
        beside = np.sum((features - mean) ** 2, axis=1) - np.sum(squares, axis=1)
        # Pythagoras; rounding may leave slightly less than 0.
        distances[:, label] = squares @ (1 / fitted.variances) + np.maximum(beside, 0) / fitted.rest
    return distances


def _nearest(distances: np.ndarray) -> np.ndarray:
    """The `NEIGHBORS`-th smallest of each row, or the greatest of fewer."""
    rank = min(NEIGHBORS, distances.shape[1]) - 1
    return np.partition(distances, rank, axis=1)[:, rank]


def _directions(features: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    """Return `values` as float64 `[n, k]`; ValueError for another shape or values that are not finite."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"{name} have the shape {list(values.shape)}: one row per image is needed")
    finite = np.all(np.isfinite(values), axis=1)
    if not np.all(finite):
        raise ValueError(
            f"the {name} of image {int(np.argmin(finite))} are not finite ({np.sum(~finite)} of "
            f"{len(values)} images): check the image and the network"
        )
    return values


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network and its variables."""

    network: nn.Module  # images `[B, S, S, 3]`, train= -> logits `[B, C]`, features `[B, F]`
    variables: Any  # {"params", "batch_stats"}
    image_size: int  # S

    def outputs(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Logits `[N, C]` and features `[N, F]`, float64; images as for MIM's `score_samples`."""
        run = functools.partial(_outputs, self.variables, network=self.network)
        logits, features = collect(run, padded_batches(images, size=self.image_size))
        return logits.T, features.T

    def scores(self, images: Images, fitted: Fitted) -> dict[str, np.ndarray]:
        """Every score of `SCORES`, float64 `[N]`; high = like the positive class, or known."""
        return score(*self.outputs(images), fitted)


@functools.partial(jax.jit, static_argnames="network")
def _outputs(variables: Any, images: jax.Array, *, network: nn.Module) -> tuple[jax.Array, jax.Array]:
    """Logits and features with the images on their last axis, as `collect` joins them."""
    outputs: Any = network.apply(variables, normalize(images), train=False)
    logits, features = outputs
    return logits.T, features.T

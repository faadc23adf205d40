"""Scores of one class: how like the training images an image is, from histograms and nothing else.

A kind of score gives one number a layer; numbers are joined with equal weight, each in units of what it gives
for training images that were held out. Everything is fitted on the training class alone.

    nearest      minus the Hellinger distance sqrt(1 - BC) to the nearest training image; BC is the
                 Bhattacharyya coefficient (Eq. 14), a product of the square roots of two histograms
    mahalanobis  minus the Mahalanobis distance of the square roots to the training images, their covariance
                 shrunk after Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
                 matrices", Journal of Multivariate Analysis, 2004
    cosine       the mean cosine similarity to the `NEIGHBORS` nearest training images

All three need only the products of an image's vector with those of the training images (the "gallery"), which
all folds share: each fold says which of them are its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.folds import make_folds

KINDS = ("nearest", "mahalanobis", "cosine")
NEIGHBORS = 5  # of "cosine"
INNER_FOLDS = 5  # of the training images, that hold some of them out
SMALLEST_SPREAD = 1e-6  # of a unit
_HIGHEST = jax.lax.Precision.HIGHEST

Histograms = Mapping[str, Any]  # layer -> [N, C], rows sum to 1


class Units(NamedTuple):
    """Median and interquartile range of scores of held-out training images, each float32 `[F, ...]`."""

    median: Any
    spread: Any


class Reference(NamedTuple):
    """What an image is compared with: T training images, of which each of F folds has its own.

    A pytree of arrays; `fit` makes it.
    """

    gallery: dict[str, Any]  # layer -> histograms float32 [T, C]
    kinds: dict[str, dict[str, dict[str, Any]]]  # kind -> layer -> arrays of that kind, [F, ...]
    units: Units  # of each kind and layer, [F, K]
    joined: Units  # of their mean, [F]

    @staticmethod
    def join(references: "Sequence[Reference]") -> "Reference":
        """Put folds of one gallery together again: the inverse of `of_fold`."""
        rest = [(each.kinds, each.units, each.joined) for each in references]
        joined = jax.tree.map(lambda *leaves: np.concatenate(list(map(np.asarray, leaves))), *rest)
        return Reference(references[0].gallery, *joined)

    def of_fold(self, fold: int) -> "Reference":
        """The same with one fold alone."""
        one = slice(fold, fold + 1)
        rest = jax.tree.map(lambda leaf: leaf[one], (self.kinds, self.units, self.joined))
        return Reference(self.gallery, *rest)

    def own(self) -> "Reference":
        """The same for a single fold without the training images of others; equal scores to rounding."""
        arrays = next(iter(next(iter(self.kinds.values())).values()))
        keep = np.flatnonzero(np.asarray(arrays["members"] if "members" in arrays else arrays["weights"])[0])

        def kept(name: str, array: Any) -> np.ndarray:
            array = np.asarray(array)
            if name in ("towards", "square"):  # the mean of the gallery is then the fold's own
                return np.zeros_like(array[:, keep] if name == "towards" else array)
            return array if name == "scale" else array[(slice(None), *np.ix_(*[keep] * (array.ndim - 1)))]

        kinds = {
            kind: {layer: {n: kept(n, a) for n, a in arrays.items()} for layer, arrays in layers.items()}
            for kind, layers in self.kinds.items()
        }
        gallery = {layer: np.asarray(values)[keep] for layer, values in self.gallery.items()}
        return Reference(gallery, kinds, self.units, self.joined)


def fit(
    histograms: Histograms,
    groups: np.ndarray,
    training: Sequence[np.ndarray],
    *,
    kinds: Sequence[str] = ("nearest", "mahalanobis"),
    seed: int = 0,
) -> Reference:
    """Fit the scores of every fold.

    Args:
      histograms: of the images of the training class, layer -> `[T, C]`.
      groups: the group of each, which is held out as one, `[T]`.
      training: for each fold the positions of its training images.
      kinds: some of `KINDS`.
      seed: of the inner folds that hold training images out.

    Raises:
      ValueError: an unknown kind, or too few training images or groups.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of score {kind!r}: choose some of {', '.join(KINDS)}")
    gallery = {layer: np.asarray(values, np.float32) for layer, values in sorted(histograms.items())}
    groups = np.asarray(groups, str)
    least = NEIGHBORS + 1 if "cosine" in kinds else 2
    rows, held_out = [], []  # training images of each fold, then of each of its inner folds
    for own in training:
        inner = make_folds(groups[own], folds=INNER_FOLDS, seed=seed)
        if min(len(fold.train) for fold in inner) < least:
            raise ValueError(
                f"a fold has {len(own)} training images, of which inner folds leave fewer than the "
                f"{least} that {', '.join(kinds)} need: add images, or ask for fewer folds"
            )
        rows += [own, *(own[fold.train] for fold in inner)]
        held_out += [own[fold.test] for fold in inner]
    made = {kind: {layer: _FITS[kind](values, rows) for layer, values in gallery.items()} for kind in kinds}
    raw = np.asarray(_raw_scores(gallery, made, gallery), np.float64)  # [K, rows, T]
    step = 1 + INNER_FOLDS
    own_scores = []
    for fold in range(len(training)):
        tests = held_out[fold * INNER_FOLDS : (fold + 1) * INNER_FOLDS]
        parts = [raw[:, fold * step + 1 + k, test] for k, test in enumerate(tests)]
        own_scores.append(np.concatenate(parts, axis=1))
    units = units_of(own_scores)
    joined = [
        np.mean((scores - median[:, None]) / spread[:, None], axis=0, keepdims=True)
        for scores, median, spread in zip(own_scores, *units, strict=True)
    ]
    whole = slice(None, None, step)
    return Reference(
        gallery=gallery,
        kinds=jax.tree.map(lambda leaf: leaf[whole], made),
        units=units,
        joined=jax.tree.map(lambda leaf: leaf[:, 0], units_of(joined)),
    )


def score(reference: Reference, histograms: Histograms) -> jax.Array:
    """Scores of images by every fold, in units of held-out training images: float32 `[F, B]`.

    0 is the median of those, and 1 is one interquartile range above it; high = like the training class.
    """
    raw = _raw_scores(reference.gallery, reference.kinds, histograms)
    median, spread = (jnp.asarray(values).T[:, :, None] for values in reference.units)
    joined = jnp.mean((raw - median) / spread, axis=0)
    return (joined - reference.joined.median[:, None]) / reference.joined.spread[:, None]


def coefficients(p: jax.Array, q: jax.Array) -> jax.Array:
    """Bhattacharyya coefficients of all pairs of histograms `[B, C]` and `[T, C]`: `[B, T]`.

    As `mim_jax.measure.histogram.coefficient` of each pair, by one matrix product with the square roots of q
    less their mean, which other scores need as well.
    """
    centre, known = _centred(q)
    roots = jnp.sqrt(p)
    ahead = jnp.matmul(roots, centre[0], precision=_HIGHEST)
    return jnp.matmul(roots, known.T, precision=_HIGHEST) + ahead[:, None]


def _centred(gallery: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean `[1, C]` of the square roots of histograms `[T, C]`, and how far each is from it, `[T, C]`."""
    roots = jnp.sqrt(gallery)
    centre = jnp.mean(roots, axis=0, keepdims=True)
    return centre, roots - centre


def _raw_scores(gallery: Histograms, kinds: Mapping[str, Any], histograms: Histograms) -> Any:
    """Scores `[K, F, B]`, each in its own units, by kind and layer in the order of their names."""
    return jnp.stack(
        [
            _SCORES[kind](jnp.asarray(histograms[layer]), jnp.asarray(gallery[layer]), kinds[kind][layer])
            for kind in sorted(kinds)  # a dictionary's own order does not survive `jax.jit`
            for layer in sorted(gallery)
        ]
    )


def _nearest(p: jax.Array, gallery: jax.Array, arrays: Mapping[str, Any]) -> jax.Array:
    distances = jnp.sqrt(jnp.maximum(1 - coefficients(p, gallery), 0.0))
    return -jnp.min(jnp.where(arrays["members"][:, None, :] > 0, distances[None], jnp.inf), axis=-1)


def _cosine(p: jax.Array, gallery: jax.Array, arrays: Mapping[str, Any]) -> jax.Array:
    unit, known = (rows / jnp.linalg.norm(rows, axis=-1, keepdims=True) for rows in (p, gallery))
    cosines = jnp.matmul(unit, known.T, precision=_HIGHEST)
    own = jnp.where(arrays["members"][:, None, :] > 0, cosines[None], -jnp.inf)
    return jnp.mean(jax.lax.top_k(own, NEIGHBORS)[0], axis=-1)


def _fit_mahalanobis(gallery: np.ndarray, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of every row for `_mahalanobis`, computed from products of training images alone.

    With centred vectors Z `[n, C]` the shrunk covariance is `(1 - s) Z'Z / n + a I`, where `a = s tr(Z'Z) /
    (n C)`. By Woodbury's identity the squared distance of z is `(|z|^2 - |L k|^2) / a`, where `k = Z z`
    and `L'L = (ZZ' + a n / (1 - s) I)^-1`.
    """
    roots = np.sqrt(gallery.astype(np.float64))
    centre = roots.mean(axis=0)  # of all, so that products are of small numbers
    products = (roots - centre) @ (roots - centre).T
    count, channels = gallery.shape
    found: dict[str, list[np.ndarray]] = {
        name: [] for name in ("weights", "towards", "square", "root", "scale")
    }
    for own in rows:
        weights = np.zeros(count)
        weights[own] = 1 / len(own)
        towards = products @ weights
        square = weights @ towards
        inner = products[np.ix_(own, own)] - towards[own][:, None] - towards[own][None] + square
        shrinkage, variance = _ledoit_wolf(inner, channels)
        a = max(shrinkage * variance, 1e-12)
        ridge = a * len(own) / max(1 - shrinkage, 1e-6)
        factor = np.linalg.cholesky(inner + ridge * np.eye(len(own)))
        root = np.zeros((count, count))
        root[np.ix_(own, own)] = np.linalg.inv(factor)
        for name, value in zip(found, (weights, towards, square, root, a), strict=True):
            found[name].append(np.asarray(value, np.float32))
    return {name: np.stack(values) for name, values in found.items()}


def _ledoit_wolf(products: np.ndarray, channels: int) -> tuple[float, float]:
    """Shrinkage and mean variance from the products ZZ' of centred vectors, after Ledoit and Wolf 2004.

    Equal to `sklearn.covariance.ledoit_wolf_shrinkage`, which takes Z.
    """
    count = len(products)
    variance = np.trace(products) / (count * channels)
    squares = np.sum(products**2) / count**2  # |S|^2
    beta = (np.sum(np.diag(products) ** 2) / count - squares) / (channels * count)
    delta = (squares - channels * variance**2) / channels
    return (min(beta, delta) / delta if delta > 0 else 1.0), variance


def _mahalanobis(p: jax.Array, gallery: jax.Array, arrays: Mapping[str, Any]) -> jax.Array:
    centre, known = _centred(gallery)
    z = jnp.sqrt(p) - centre
    products = jnp.matmul(z, known.T, precision=_HIGHEST)  # [B, T]
    ahead = jnp.matmul(products, arrays["weights"].T, precision=_HIGHEST).T  # [F, B], z with the fold's mean
    lengths = jnp.sum(jnp.square(z), axis=-1)[None] - 2 * ahead + arrays["square"][:, None]
    centred = products[None] - ahead[..., None] - arrays["towards"][:, None] + arrays["square"][:, None, None]
    explained = jnp.einsum("fbt,fst->fbs", centred, arrays["root"], precision=_HIGHEST)
    rest = jnp.maximum(lengths - jnp.sum(jnp.square(explained), axis=-1), 0.0)
    return -jnp.sqrt(rest / arrays["scale"][:, None])


def units_of(scores: Sequence[np.ndarray]) -> Units:
    """Units of scores `[K, n]`, one array a fold: each `[F, K]`."""
    median = np.stack([np.median(own, axis=1) for own in scores])
    spread = np.stack([np.subtract(*np.percentile(own, [75, 25], axis=1)) for own in scores])
    return Units(median.astype(np.float32), np.maximum(spread, SMALLEST_SPREAD).astype(np.float32))


def _fit_members(gallery: np.ndarray, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """For each row 1 = its own training image, 0 = another."""
    members = np.zeros((len(rows), len(gallery)), np.float32)
    for row, own in enumerate(rows):
        members[row, own] = 1
    return {"members": members}


_FITS = {"nearest": _fit_members, "mahalanobis": _fit_mahalanobis, "cosine": _fit_members}
_SCORES = {"nearest": _nearest, "mahalanobis": _mahalanobis, "cosine": _cosine}

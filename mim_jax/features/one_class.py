"""One-class scores: how similar an image is to the training images, computed from histograms alone.

Each kind of score gives one number per layer. Each number is standardized by the median and interquartile
range of held-out training images, then all are averaged. Everything is fitted on the training class alone.

    nearest      minus the Hellinger distance sqrt(1 - BC) to the nearest training image; BC is the
                 Bhattacharyya coefficient (Eq. 14), a product of the square roots of two histograms
    mahalanobis  minus the Mahalanobis distance of the square roots to the training images, their covariance
                 shrunk after Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
                 matrices", Journal of Multivariate Analysis, 2004
    cosine       the mean cosine similarity to the `NEIGHBORS` nearest training images

All three need only the inner products of an image's vector with those of the training images (the "gallery").
All folds share one gallery; each fold marks which images are its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.folds import make_folds

KINDS = ("nearest", "mahalanobis", "cosine")
NEIGHBORS = 5  # training images that "cosine" averages over
INNER_FOLDS = 5  # each training image is held out in one of them
SMALLEST_SPREAD = 1e-6  # lower bound of `Units.spread`
_HIGHEST = jax.lax.Precision.HIGHEST

Histograms = Mapping[str, Any]  # layer -> [N, C], rows sum to 1


class Units(NamedTuple):
    """Median and interquartile range of scores of held-out training images, each float32 `[F, ...]`."""

    median: Any
    spread: Any


class Reference(NamedTuple):
    """Reference data for scoring: T training images, of which each of F folds uses its own subset.

    A pytree of arrays, created by `fit`.
    """

    gallery: dict[str, Any]  # layer -> histograms float32 [T, C]
    kinds: dict[str, dict[str, dict[str, Any]]]  # kind -> layer -> arrays of that kind, [F, ...]
    units: Units  # for each kind and layer, [F, K]
    joined: Units  # for the mean over kinds and layers, [F]

    @staticmethod
    def join(references: "Sequence[Reference]") -> "Reference":
        """Join single-fold references that share a gallery: the inverse of `of_fold`."""
        rest = [(each.kinds, each.units, each.joined) for each in references]
        joined = jax.tree.map(lambda *leaves: np.concatenate(list(map(np.asarray, leaves))), *rest)
        return Reference(references[0].gallery, *joined)

    def of_fold(self, fold: int) -> "Reference":
        """Return the reference of one fold alone."""
        one = slice(fold, fold + 1)
        rest = jax.tree.map(lambda leaf: leaf[one], (self.kinds, self.units, self.joined))
        return Reference(self.gallery, *rest)

    def own(self) -> "Reference":
        """Drop other folds' training images from a single-fold reference; equal scores up to rounding."""
        arrays = next(iter(next(iter(self.kinds.values())).values()))
        keep = np.flatnonzero(np.asarray(arrays["members"] if "members" in arrays else arrays["weights"])[0])

        def kept(name: str, array: Any) -> np.ndarray:
            array = np.asarray(array)
            if name in ("towards", "square"):  # 0: the gallery's mean becomes the fold's own
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
      histograms: histograms of the training-class images, layer -> `[T, C]`.
      groups: group of each image, `[T]`; a group is held out as a whole.
      training: positions of the training images, one array per fold.
      kinds: kinds of score, a subset of `KINDS`.
      seed: seed of the inner folds that hold training images out.

    Raises:
      ValueError: an unknown kind, or too few training images or groups.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of score {kind!r}: choose from {', '.join(KINDS)}")
    gallery = {layer: np.asarray(values, np.float32) for layer, values in sorted(histograms.items())}
    groups = np.asarray(groups, str)
    least = NEIGHBORS + 1 if "cosine" in kinds else 2
    rows = []  # training images of each fold, then of each of its inner folds
    held_out = []  # for each fold, the images that its inner folds hold out
    for own in training:
        inner = make_folds(groups[own], folds=INNER_FOLDS, seed=seed)
        if min(len(fold.train) for fold in inner) < least:
            raise ValueError(
                f"a fold has {len(own)} training images; its inner folds train on fewer than the {least} "
                f"that {', '.join(kinds)} need: add images, or use fewer folds"
            )
        rows += [own, *(own[fold.train] for fold in inner)]
        held_out.append([own[fold.test] for fold in inner])
    made = {kind: {layer: _FITS[kind](values, rows) for layer, values in gallery.items()} for kind in kinds}
    raw = np.asarray(_raw_scores(gallery, made, gallery), np.float64)  # [K, rows, T]
    step = 1 + INNER_FOLDS
    own_scores = [
        np.concatenate([raw[:, fold * step + 1 + k, test] for k, test in enumerate(tests)], axis=1)
        for fold, tests in enumerate(held_out)
    ]
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
    """Score images by every fold, standardized by held-out training images: float32 `[F, B]`.

    0 is the median of those images, 1 is one interquartile range above it; high = like the training class.
    """
    raw = _raw_scores(reference.gallery, reference.kinds, histograms)
    median, spread = (jnp.asarray(values).T[:, :, None] for values in reference.units)
    joined = jnp.mean((raw - median) / spread, axis=0)
    return (joined - reference.joined.median[:, None]) / reference.joined.spread[:, None]


def coefficients(p: jax.Array, q: jax.Array) -> jax.Array:
    """Bhattacharyya coefficients of all pairs of histograms `[B, C]` and `[T, C]`: `[B, T]`.

    Equal to `mim_jax.measure.histogram.coefficient` of each pair, but computed by one matrix product with the
    mean-centred square roots of q, which other scores need as well.
    """
    centre, known = _centred(q)
    roots = jnp.sqrt(p)
    ahead = jnp.matmul(roots, centre[0], precision=_HIGHEST)
    return jnp.matmul(roots, known.T, precision=_HIGHEST) + ahead[:, None]


def _centred(gallery: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean `[1, C]` of the square roots of histograms `[T, C]`, and the centred roots `[T, C]`."""
    roots = jnp.sqrt(gallery)
    centre = jnp.mean(roots, axis=0, keepdims=True)
    return centre, roots - centre


def _raw_scores(gallery: Histograms, kinds: Mapping[str, Any], histograms: Histograms) -> Any:
    """Compute scores `[K, F, B]` before standardization, one per kind and layer, sorted by name."""
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
    """Compute the arrays of every row for `_mahalanobis` from inner products of training images alone.

    With centred vectors Z `[n, C]` the shrunk covariance is `(1 - s) Z'Z / n + a I`, where `a = s tr(Z'Z) /
    (n C)`. By Woodbury's identity the squared distance of z is `(|z|^2 - |L k|^2) / a`, where `k = Z z`
    and `L'L = (ZZ' + a n / (1 - s) I)^-1`.
    """
    roots = np.sqrt(gallery.astype(np.float64))
    centre = roots.mean(axis=0)  # mean of all images, which keeps the products small
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
    """Compute shrinkage and mean variance from products ZZ' of centred vectors (Ledoit and Wolf 2004).

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
    ahead = jnp.matmul(products, arrays["weights"].T, precision=_HIGHEST).T  # [F, B], z times the fold's mean
    lengths = jnp.sum(jnp.square(z), axis=-1)[None] - 2 * ahead + arrays["square"][:, None]
    centred = products[None] - ahead[..., None] - arrays["towards"][:, None] + arrays["square"][:, None, None]
    explained = jnp.einsum("fbt,fst->fbs", centred, arrays["root"], precision=_HIGHEST)
    rest = jnp.maximum(lengths - jnp.sum(jnp.square(explained), axis=-1), 0.0)
    return -jnp.sqrt(rest / arrays["scale"][:, None])


def units_of(scores: Sequence[np.ndarray]) -> Units:
    """Compute the units, each `[F, K]`, of scores `[K, n]` given as one array per fold."""
    median = np.stack([np.median(own, axis=1) for own in scores])
    spread = np.stack([np.subtract(*np.percentile(own, [75, 25], axis=1)) for own in scores])
    return Units(median.astype(np.float32), np.maximum(spread, SMALLEST_SPREAD).astype(np.float32))


def _fit_members(gallery: np.ndarray, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Mark each row's own training images: 1 = own, 0 = other."""
    places = np.arange(len(gallery))
    return {"members": np.stack([np.isin(places, own) for own in rows]).astype(np.float32)}


_FITS = {"nearest": _fit_members, "mahalanobis": _fit_mahalanobis, "cosine": _fit_members}
_SCORES = {"nearest": _nearest, "mahalanobis": _mahalanobis, "cosine": _cosine}

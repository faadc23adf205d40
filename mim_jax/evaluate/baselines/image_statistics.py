"""Baselines without inpainting: images scored by their sharpness, brightness or colours alone.

A score here that separates mpox from other images as well as the network is a simpler explanation of the
network's AUROC. Images are uint8 `[N, S, S, 3]`, scores float64 `[N]`; each depends only on its own image and
the training images. **High means mpox-like.** Every sign was fixed before any test image was scored: an
AUROC below one half stays below one half.
"""

from collections.abc import Callable, Sequence

import numpy as np

LUMA = (299, 587, 114)  # thousandths of R, G and B: ITU-R BT.601
BINS = 6  # bins per channel in the joint histograms
BLOCK = 16  # images processed at once


def laplacian_variance(images: np.ndarray) -> np.ndarray:
    """`-ln` of the variance of the luma's Laplacian: blurry is mpox-like.

    Blurry images are easy to inpaint, hence similar to their inpaintings, which sets the sign. The Laplacian
    is the five-point one, mirrored at the border, luma in [0, 1] (not rounded); on the same luma the variance
    equals `cv2.Laplacian(luma, cv2.CV_64F).var()`. Pech-Pacheco, Cristobal, Chamorro-Martinez and
    Fernandez-Valdivia, "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
    An image of constant luma, whose variance of 0 counts as 1e-12, scores 27.6.
    """
    _check_images(images, "images")
    variances = _by_block(lambda block: _laplacian_variances(_to_luma(block)), images)
    # A single pixel that differs by one level of blue from a flat image still gives 8e-11 at a side of 224.
    return -np.log(np.maximum(variances, 1e-12))


def brightness(images: np.ndarray) -> np.ndarray:
    """Minus the mean luma, in [-1, 0]: dark is mpox-like.

    Only a prior: small pixel values bound the inpainting error, so dark images are easy to inpaint; nothing
    about mpox itself makes a photograph dark.
    """
    _check_images(images, "images")
    means = _by_block(lambda block: _to_luma(block).reshape(len(block), -1).mean(axis=1), images)
    return -means / (1000 * 255)


def color_mahalanobis(images: np.ndarray, trains: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Minus the Mahalanobis distance of each channel's mean and standard deviation to training images.

    Returns the scores for each of several training sets. One Gaussian over the six numbers (pixels in [0, 1])
    is fitted on at least two training images, with its covariance shrunk towards a multiple of the identity
    (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis, 2004). 1e-9 on the diagonal of the covariance keeps the distance defined if the
    training images do not differ.
    """
    # scikit-learn takes a second to import, and only this score needs it.
    from sklearn.covariance import ledoit_wolf

    _check_images(images, "images")
    moments, scores = _by_block(_color_moments, images, 6), []
    for train in trains:
        _check_images(train, "train", least=2)
        known = _by_block(_color_moments, train, 6)
        covariance = ledoit_wolf(known)[0] + 1e-9 * np.eye(known.shape[1])
        away = moments - known.mean(axis=0)
        # With the covariance L L', the distance is the length of L^-1 x. It is computed per image, so that
        # the last bit of a score does not depend on the other images.
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        scores.append(-np.linalg.norm(np.sum(away[:, None, :] * whiten[None], axis=-1), axis=-1))
    return scores


def color_neighbors(images: np.ndarray, trains: Sequence[np.ndarray], k: int = 3) -> list[np.ndarray]:
    """Minus the mean distance to the `k` training images with the nearest colours, from -sqrt(2) to 0.

    Returns the scores for each of several training sets. Distances are Euclidean between square roots of
    joint histograms, 6x6x6 bins of RGB that sum to 1, which makes them sqrt(2) times the Hellinger distance:
    0 for the same colours, sqrt(2) for no shared colour. A training image would count as its own neighbour:
    score held-out images only.
    """
    # SciPy takes a while to import, and only this score needs it.
    from scipy.spatial.distance import cdist

    if k < 1:
        raise ValueError(f"k must be at least 1 neighbour, got {k}")
    _check_images(images, "images")
    roots, scores = _by_block(_color_roots, images, BINS**3), []
    for train in trains:
        _check_images(train, "train", least=k)
        distances = cdist(roots, _by_block(_color_roots, train, BINS**3))
        scores.append(-np.partition(distances, k - 1, axis=1)[:, :k].mean(axis=1))
    return scores


# name -> function of images and several training sets: the scores for each of these
STATISTICS: dict[str, Callable[[np.ndarray, Sequence[np.ndarray]], list[np.ndarray]]] = {
    "laplacian_variance": lambda images, trains: [laplacian_variance(images)] * len(trains),
    "brightness": lambda images, trains: [brightness(images)] * len(trains),
    "color_mahalanobis": color_mahalanobis,
    "color_neighbors": color_neighbors,
}


def _by_block(measure: Callable[[np.ndarray], np.ndarray], images: np.ndarray, *size: int) -> np.ndarray:
    """Measure a few images at a time, so that their float or index planes stay in the CPU cache."""
    blocks = [measure(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
    return np.concatenate([np.zeros((0, *size)), *blocks])


def _to_luma(images: np.ndarray) -> np.ndarray:
    """Luma `[B, S, S]` int32 in thousandths of a level: whole numbers, so sums of it are exact."""
    red, green, blue = (images[..., channel].astype(np.int32) for channel in range(3))
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _laplacian_variances(luma: np.ndarray) -> np.ndarray:
    """Variance `[B]` of the Laplacian of luma `[B, S, S]` in thousandths, as if luma were in [0, 1]."""
    wide = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    neighbours = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
    rows = (neighbours - 4 * luma).reshape(len(luma), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.einsum("np,np->n", rows, rows) / rows.shape[1] / (1000 * 255) ** 2


def _color_moments(images: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each channel in [0, 1]: float64 `[N, 6]`."""
    levels = np.arange(256) / 255
    shares = np.stack([_histogram(images[..., channel], 256) for channel in range(3)], axis=1)
    mean = np.sum(shares * levels, axis=-1)
    variance = np.sum(shares * (levels - mean[..., None]) ** 2, axis=-1)
    return np.concatenate([mean, np.sqrt(variance)], axis=1)


def _color_roots(images: np.ndarray) -> np.ndarray:
    """Square roots of the joint histograms: float64 `[N, 216]`, each of length 1."""
    coarse = (np.arange(256) * BINS // 256).astype(np.uint8)
    red, green, blue = (coarse[images[..., channel]] for channel in range(3))
    return np.sqrt(_histogram((red * BINS + green) * BINS + blue, BINS**3))


def _histogram(values: np.ndarray, bins: int) -> np.ndarray:
    """Shares of the values 0 .. bins - 1 in each plane of `[B, S, S]`: float64 `[B, bins]`."""
    return np.stack([np.bincount(plane.ravel(), minlength=bins) for plane in values]) / values[0].size


def _check_images(images: np.ndarray, name: str, *, least: int = 0) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] < 2 or images.shape[3] != 3:
        raise ValueError(
            f"{name} must be uint8 [N, S, S, 3] with S at least 2, got {images.dtype} {list(images.shape)}: "
            "read files with mim_jax.data.images.load_image"
        )
    if len(images) < least:
        raise ValueError(f"{name} holds {len(images)} images, but this score needs at least {least}")

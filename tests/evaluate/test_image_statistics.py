"""The scores without inpainting against OpenCV, scikit-learn and formulas; their signs and invariants."""

import cv2
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from mim_jax.evaluate.baselines.image_statistics import (
    STATISTICS,
    brightness,
    color_mahalanobis,
    color_neighbors,
    laplacian_variance,
)


def photographs(seed: int, count: int, size: int = 20) -> np.ndarray:
    """Blurred noise around a random colour per image, uint8 `[count, size, size, 3]`."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 60, (count, size, size, 3)) + rng.uniform(60, 200, (count, 1, 1, 3))
    levels = np.clip(noise, 0, 255).astype(np.uint8)
    return np.stack([cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2)) for image in levels])


def test_laplacian_variance_is_that_of_opencv():
    images = photographs(0, 40)
    lumas = [cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY) for image in images]
    variances = [cv2.Laplacian(luma.astype(np.float64), cv2.CV_64F).var() for luma in lumas]
    np.testing.assert_allclose(laplacian_variance(images), -np.log(variances), atol=1e-4)


def test_blurry_images_score_high_and_flat_ones_highest():
    sharp = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    blurred = [cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (0.5, 1, 2, 4)]
    flat = [np.full_like(sharp, 130), np.zeros_like(sharp)]
    scores = laplacian_variance(np.stack([sharp, *blurred, *flat]))
    assert np.all(np.diff(scores[:6]) > 0)
    np.testing.assert_allclose(scores[-2:], -np.log(1e-12))


def test_brightness_is_the_mean_of_the_luma():
    images = photographs(2, 20)
    means = [cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY).mean() for image in images]
    np.testing.assert_allclose(brightness(images), -np.array(means), atol=1e-5)
    np.testing.assert_allclose(brightness(np.full((1, 8, 8, 3), 255, np.uint8)), -1)  # dark is high


def test_color_mahalanobis_is_the_distance_under_the_shrunk_covariance():
    images, train = photographs(3, 30), photographs(4, 25)

    def moments(batch):
        pixels = batch.astype(np.float64) / 255
        return np.concatenate([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))], axis=1)

    known = moments(train)
    centred = known - known.mean(axis=0)
    sample = centred.T @ centred / len(known)
    # Ledoit and Wolf 2004: d2 is the distance of the sample covariance from its target m I, b2 the part of it
    # due to noise; norms are Frobenius, divided by the dimension.
    m = np.trace(sample) / 6
    d2 = np.sum((sample - m * np.eye(6)) ** 2) / 6
    b2 = np.mean([np.sum((np.outer(row, row) - sample) ** 2) / 6 for row in centred]) / len(known)
    share = min(b2, d2) / d2
    assert 0.01 < share < 0.99
    covariance = (1 - share) * sample + share * m * np.eye(6)
    away = moments(images) - known.mean(axis=0)
    expected = -np.sqrt(np.sum(away * np.linalg.solve(covariance, away.T).T, axis=1))
    np.testing.assert_allclose(color_mahalanobis(images, [train])[0], expected, rtol=1e-4)


def test_color_neighbors_is_that_of_scikit_learn():
    images, train = photographs(5, 30), photographs(6, 25)

    def roots(batch):
        # Six bins of width 256 / 6, shifted a little so that no level lies on an edge.
        edges = [np.arange(7) * 256 / 6 - 1e-3] * 3
        counts = [np.histogramdd(image.reshape(-1, 3), bins=edges)[0].ravel() for image in batch]
        return np.sqrt(np.stack(counts) / (20 * 20))

    distances, _ = NearestNeighbors(n_neighbors=3).fit(roots(train)).kneighbors(roots(images))
    np.testing.assert_allclose(color_neighbors(images, [train])[0], -distances.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(color_neighbors(images, [train], k=1)[0], -distances[:, 0], atol=1e-7)


def test_color_neighbors_sees_colours_and_not_places():
    train = photographs(7, 4)
    places = np.random.default_rng(8).permutation(400)
    shuffled = train.reshape(4, 400, 3)[:, places].reshape(train.shape)
    np.testing.assert_array_equal(color_neighbors(shuffled, [train], k=1)[0], 0)
    dark, bright = np.zeros((1, 8, 8, 3), np.uint8), np.full((3, 8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(color_neighbors(dark, [bright])[0], -np.sqrt(2))


@pytest.mark.parametrize("name", ["color_mahalanobis", "color_neighbors"])
def test_images_like_the_training_images_score_high(name):
    red = photographs(9, 40)
    red[..., 1:] //= 3
    green = red[..., [1, 0, 2]]
    scores = STATISTICS[name](np.concatenate([red[20:], green[20:]]), [red[:20]])[0]
    assert np.mean(scores[:20, None] > scores[None, 20:]) > 0.95  # the AUROC


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_a_score_depends_on_its_own_image_and_training_set_alone(name):
    images, train = photographs(10, 37), photographs(11, 9)
    scores = STATISTICS[name](images, [train])[0]
    assert scores.dtype == np.float64
    assert np.all(np.isfinite(scores))
    order = np.random.default_rng(12).permutation(37)
    np.testing.assert_array_equal(STATISTICS[name](images[order], [train])[0], scores[order])
    np.testing.assert_array_equal(STATISTICS[name](images[20:21], [train])[0], scores[20:21])
    assert STATISTICS[name](images[:0], [train])[0].shape == (0,)
    np.testing.assert_array_equal(STATISTICS[name](images, [train[:5], train])[1], scores)


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_images_of_one_colour_have_finite_scores(name):
    flat = np.full((4, 8, 8, 3), 120, np.uint8)
    assert np.all(np.isfinite(STATISTICS[name](np.concatenate([flat, photographs(13, 2, 8)]), [flat])[0]))


def test_errors_name_what_is_wrong():
    images = photographs(14, 4)
    for name, score in STATISTICS.items():
        with pytest.raises(ValueError, match=r"images must be uint8 .* got float32 \[4, 20, 20, 3\]"):
            score(images.astype(np.float32), [images])
        with pytest.raises(ValueError, match=r"images must be uint8 .* got uint8 \[20, 20, 3\]"):
            score(images[0], [images])
        if name.startswith("color"):
            with pytest.raises(ValueError, match="train must be uint8"):
                score(images, [images / 255])
            with pytest.raises(ValueError, match="train holds 1 images, but this score needs at least"):
                score(images, [images[:1]])
    with pytest.raises(ValueError, match="k must be at least 1"):
        color_neighbors(images, [images], k=0)

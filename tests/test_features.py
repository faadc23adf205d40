"""Features against OpenCV, NumPy and XLA's own convolutions; each row is that of its own image alone."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.features import COMPLEXITY, complexity_features, discriminator_features
from mim_jax.inpaint.networks.discriminator import PatchDiscriminator


def photographs(seed: int, count: int, size: int = 24) -> np.ndarray:
    """Blurred noise around a colour of its own, uint8 `[count, size, size, 3]`."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 60, (count, size, size, 3)) + rng.uniform(60, 200, (count, 1, 1, 3))
    levels = np.clip(noise, 0, 255).astype(np.uint8)
    return np.stack([cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2)) for image in levels])


@pytest.mark.parametrize("size", [24, 27])
def test_complexity_is_what_opencv_and_numpy_find(size):
    images = photographs(0, 20, size)
    expected = []
    for image in images:
        pixels = image / 255
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        row = []
        for scale in (1, 2, 4):
            side = size // scale
            whole = luma[: side * scale, : side * scale]
            small = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)
            row.append(np.log(cv2.Laplacian(small, cv2.CV_64F).var()))
        moments = [*pixels.mean(axis=(0, 1)), *pixels.std(axis=(0, 1))]
        expected.append([*row, np.log(luma.std()), *moments])
    features = complexity_features(images)
    np.testing.assert_allclose(features, expected, rtol=1e-9)
    assert features.shape == (20, len(COMPLEXITY))
    assert features.dtype == np.float64


def test_blur_takes_the_fine_scales_first():
    sharp = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    blurred = np.stack([sharp, *(cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (0.5, 1, 2))])
    sharpness = complexity_features(blurred)[:, :3]
    assert np.all(np.diff(sharpness, axis=0) < 0)
    losses = sharpness[0] - sharpness[2]  # to a blur of one pixel
    assert losses[0] > losses[1] + 0.5 > losses[2] + 1


def test_an_image_of_one_colour_lies_where_rounding_to_bytes_ends():
    flat = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 120, 255)])
    features = complexity_features(flat)
    np.testing.assert_allclose(features[:, :3], np.log(1e-6))
    np.testing.assert_allclose(features[:, 3], np.log(1e-3))


def discriminator(side: int, width: int = 4):
    """With biases, which a new network does not have."""
    network, rng = PatchDiscriminator(width=width), np.random.default_rng(6)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
    return network, jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape).astype(np.float32), shapes)


def patches(seed: int, count: int, side: int) -> np.ndarray:
    return photographs(seed, count, side).astype(np.float32) / 127.5 - 1


def test_discriminator_features_are_the_moments_of_every_convolution():
    network, params = discriminator(16)
    x = patches(2, 11, 16)
    means, deviations = [], []
    activations = x
    for layer, stride in (("conv_0", 2), ("conv_1", 2), ("conv_2", 2), ("conv_3", 1), ("to_score", 1)):
        raw = jax.lax.conv_general_dilated(
            activations,
            params[layer]["kernel"],
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        raw = np.asarray(raw) + np.asarray(params[layer]["bias"])
        means.append(raw.mean(axis=(1, 2)))
        deviations.append(raw.std(axis=(1, 2)))
        normal = raw
        if layer != "conv_0":
            normal = (raw - raw.mean(axis=(1, 2), keepdims=True)) / np.sqrt(
                raw.var(axis=(1, 2), keepdims=True) + 1e-5
            )
        activations = np.where(normal > 0, normal, 0.2 * normal)
    pairs = zip(means, deviations, strict=True)
    expected = np.concatenate([part for pair in pairs for part in pair], axis=1)
    features = discriminator_features(network, params, x)
    assert features.shape == (11, 2 * (4 + 8 + 16 + 32 + 1))
    assert features.dtype == np.float64
    np.testing.assert_allclose(features, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["complexity", "discriminator"])
def test_a_row_depends_on_its_own_image_alone(name):
    if name == "complexity":
        images, features = photographs(3, 45), complexity_features
    else:
        network, params = discriminator(24, width=8)
        images = patches(3, 45, 24)

        def features(x):
            return discriminator_features(network, params, x)

    rows = features(images)
    assert np.all(np.isfinite(rows))
    order = np.random.default_rng(4).permutation(45)
    np.testing.assert_array_equal(features(images[order]), rows[order])
    np.testing.assert_array_equal(features(images[30:31]), rows[30:31])
    assert features(images[:0]).shape == (0, rows.shape[1])


def test_errors_name_what_is_wrong():
    images = photographs(5, 3)
    with pytest.raises(ValueError, match=r"images must be uint8 .* got float64 \[3, 24, 24, 3\]"):
        complexity_features(images / 255)
    with pytest.raises(ValueError, match=r"images have 7 pixels a side.* at least 8"):
        complexity_features(images[:, :7, :7])
    network, params = discriminator(16)
    with pytest.raises(ValueError, match=r"patches must be floats .* got uint8 \[3, 24, 24, 3\]"):
        discriminator_features(network, params, images)
    with pytest.raises(ValueError, match=r"patches must lie in \[-1, 1\], but reach 2"):
        discriminator_features(network, params, images.astype(np.float32))
    with pytest.raises(ValueError, match="but reach nan"):
        discriminator_features(network, params, np.full((1, 16, 16, 3), np.nan, np.float32))

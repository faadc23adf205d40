"""The corruptions against OpenCV, SciPy and formulas, and properties that all of them must have."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from mim_jax.evaluate.robustness import corruptions
from mim_jax.evaluate.robustness.corruptions import CORRUPTIONS
from mim_jax.measure.similarity import similarities

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE = 48
KEY = jax.random.key(3)


def photographs(count: int = 4, size: int = SIZE) -> np.ndarray:
    """Smooth colour with fine detail: float32 on the levels of a byte, `[count, size, size, 3]`."""
    generator = np.random.default_rng(0)
    smooth = [
        cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
        for image in generator.random((count, 9, 9, 3))
    ]
    noisy = np.clip(smooth + generator.normal(0, 0.02, (count, size, size, 3)), 0, 1)
    return (np.rint(255 * noisy) / 255).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.5])
def test_blur_is_opencvs(sigma):
    image = photographs()[0]
    kernel = (2 * SIZE - 1, 2 * SIZE - 1)
    expected = cv2.GaussianBlur(image, kernel, sigma, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(corruptions.gaussian_blur(image, sigma), expected, atol=2e-6)


@pytest.mark.parametrize("degrees", [7.0, 45.0, -120.0])
def test_rotation_is_scipys(degrees):
    image = photographs()[0]
    expected = scipy.ndimage.rotate(image, degrees, reshape=False, order=1, mode="mirror")
    np.testing.assert_allclose(corruptions.rotate(image, degrees), expected, atol=5e-6)


@pytest.mark.parametrize("border", [1, 6, 12])
def test_crop_is_opencvs_resize_of_the_centre(border):
    image = photographs()[0]
    inner = image[border:-border, border:-border]
    expected = cv2.resize(inner, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(corruptions.crop(image, 2 * border / SIZE), expected, atol=5e-6)


def test_jpeg_loses_what_the_format_loses():
    images = photographs(size=45)  # an odd size: libjpeg pads its blocks
    levels = np.rint(255 * images).astype(np.uint8)
    for quality, least, most in ((100, 4, 8), (75, 7, 10), (10, 20, 26)):
        for image, level in zip(images, levels, strict=True):
            decoded = corruptions.jpeg(level, quality)
            assert decoded.dtype == np.uint8 and decoded.shape == level.shape
            assert least < np.mean(np.abs(decoded.astype(float) - level)) < most, quality
            as_float = corruptions.jpeg(image, quality)
            assert as_float.dtype == np.float32
            np.testing.assert_array_equal(np.rint(255 * as_float), decoded)


def test_jpeg_of_a_uniform_block_pattern_is_exact():
    # Blocks of 16 in one grey hold only a mean, and 128 + 2 k is on the grid of its quantisation step, 2.
    grey = 128 + 2 * np.arange(9).reshape(3, 3)
    image = np.repeat(np.kron(grey, np.ones((16, 16)))[..., None], 3, axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(corruptions.jpeg(image, 92), image)
    # A finer pattern of colour does not survive 4:2:0.
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    assert np.mean(np.abs(corruptions.jpeg(stripes, 100).astype(float) - stripes)) > 10


def test_light_and_colour_are_their_formulas():
    image = photographs()[0]
    np.testing.assert_allclose(corruptions.darken(image, 0.3), 0.7 * image, atol=1e-6)
    warm = np.asarray(corruptions.white_balance(image, 1.0))
    np.testing.assert_allclose(warm[..., 0], np.minimum(image[..., 0] * np.sqrt(2), 1), atol=1e-6)
    np.testing.assert_array_equal(warm[..., 1], image[..., 1])
    np.testing.assert_allclose(warm[..., 2], image[..., 2] / np.sqrt(2), atol=1e-6)


def test_noise_is_normal_clipped_and_the_same_at_every_strength():
    grey = jnp.full((2, 96, 96, 3), 0.5, jnp.float32)
    weak, strong = (
        np.asarray(CORRUPTIONS["noise"](KEY, grey, sigma, index=jnp.arange(2))) for sigma in (0.05, 0.1)
    )
    assert abs(weak.std() - 0.05) < 5e-4 and abs(weak.mean() - 0.5) < 1e-3
    np.testing.assert_allclose(strong - 0.5, 2 * (weak - 0.5), atol=1e-6)
    assert abs(np.corrcoef(weak[0].ravel(), weak[1].ravel())[0, 1]) < 0.03
    extreme = np.asarray(CORRUPTIONS["noise"](KEY, grey, 3.0, index=jnp.arange(2)))
    assert extreme.min() == 0 and extreme.max() == 1


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_every_corruption(name):
    corruption = CORRUPTIONS[name]
    images, index = jnp.asarray(photographs(6, size=64)), jnp.arange(10, 16)
    traces = []

    def apply(images, strength, index):
        traces.append(strength)
        return corruption(KEY, images, strength, index=index)

    if not corruption.on_host:
        apply = jax.jit(apply)

    np.testing.assert_array_equal(apply(images, 0.0, index), images)

    assert corruption.strengths == tuple(sorted(set(corruption.strengths))) and corruption.strengths[0] > 0
    outputs = [apply(images, strength, index) for strength in corruption.strengths]
    assert corruption.on_host or len(traces) == 1, "the strength is traced: one compilation serves all"
    likeness = [1.0]
    for output in outputs:
        assert output.dtype == jnp.float32 and output.shape == images.shape
        assert output.min() >= 0 and output.max() <= 1
        likeness.append(float(jnp.mean(similarities(images, output).mae)))
    assert likeness == sorted(set(likeness), reverse=True), likeness

    # The corruption of an image does not depend on the rest of its batch.
    strength = corruption.strengths[2]
    parts = [apply(images[i : i + 2], strength, index[i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), outputs[2])
    order = np.array([3, 1, 0, 5, 4, 2])
    np.testing.assert_array_equal(apply(images[order], strength, index[order]), outputs[2][order])

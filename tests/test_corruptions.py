"""The corruptions against OpenCV, SciPy and Pillow, and what must hold for each of them."""

import io

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from mim_jax.evaluate.robustness import corruptions
from mim_jax.evaluate.robustness.corruptions import CORRUPTIONS
from mim_jax.measure.similarity import similarities

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


def pillow_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(
        file, "JPEG", quality=quality, subsampling="4:2:0"
    )
    return np.asarray(Image.open(file)) / 255


@pytest.mark.parametrize("size", [48, 45])  # whole blocks of 16, and an odd size that needs padding
def test_jpeg_is_pillows(size):
    images = photographs(size=size)
    jitted = jax.jit(corruptions.jpeg)
    for quality in (10, 30, 50, 75, 95, 100):
        ours = np.stack([jitted(image, quality) for image in images])
        theirs = np.stack([pillow_jpeg(image, quality) for image in images])
        # libjpeg transforms in integers: a coefficient midway between two steps goes the other way, which
        # moves its block by a fraction of a level. That is about a tenth of what the format itself loses,
        # and less than a wrong table or another interpolation of the colour would make.
        assert np.mean(np.abs(ours - theirs)) < 0.8 / 255, quality
        assert np.mean(np.abs(ours - theirs)) < 0.15 * np.mean(np.abs(theirs - images)), quality
        np.testing.assert_allclose(255 * ours, np.rint(255 * ours), atol=1e-4)


def test_jpeg_of_a_uniform_block_pattern_is_exact():
    # Blocks of 16 in one grey each hold nothing but a mean, and 128 + 2 k is on the grid of its step of 2.
    grey = 128 + 2 * np.arange(9).reshape(3, 3)
    image = np.repeat(np.kron(grey, np.ones((16, 16)))[..., None], 3, axis=-1).astype(np.float32) / 255
    np.testing.assert_array_equal(255 * pillow_jpeg(image, 92), np.rint(255 * image))
    np.testing.assert_allclose(jax.jit(corruptions.jpeg)(image, 92), image, atol=1e-6)


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

    @jax.jit
    def apply(images, strength, index):
        traces.append(strength)
        return corruption(KEY, images, strength, index=index)

    np.testing.assert_array_equal(apply(images, 0.0, index), images)

    assert corruption.strengths == tuple(sorted(set(corruption.strengths))) and corruption.strengths[0] > 0
    outputs = [apply(images, strength, index) for strength in corruption.strengths]
    assert len(traces) == 1, "the strength is traced: one compilation serves all"
    likeness = [1.0]
    for output in outputs:
        assert output.dtype == jnp.float32 and output.shape == images.shape
        assert output.min() >= 0 and output.max() <= 1
        likeness.append(float(jnp.mean(similarities(images, output).mae)))
    assert likeness == sorted(set(likeness), reverse=True), likeness

    # What happens to an image has nothing to do with the rest of its batch.
    strength = corruption.strengths[2]
    parts = [apply(images[i : i + 2], strength, index[i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), outputs[2])
    order = np.array([3, 1, 0, 5, 4, 2])
    np.testing.assert_array_equal(apply(images[order], strength, index[order]), outputs[2][order])

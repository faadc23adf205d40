"""The composite metrics equal those of the pasted image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.measure.similarity import composite_similarities, similarities
from tests.measure.examples import image_like

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize(
    "options", [{}, {"window": "global"}, {"filter_size": 5, "bins": 32, "per_channel": True}]
)
@pytest.mark.parametrize("offset", [(14, 14), (0, 0), (28, 28), (0, 9), (23, 28), (1, 27)])
def test_composite_equals_direct(offset, options):
    images, patches = image_like(30, count=2), image_like(31, count=2)[:, :12, :12]
    pasted = images.copy()
    pasted[:, offset[0] : offset[0] + 12, offset[1] : offset[1] + 12] = patches
    direct = np.array(similarities(images, pasted, **options))
    np.testing.assert_allclose(composite_similarities(images, patches, offset, **options), direct, atol=1e-6)


def test_composite_of_own_offsets_shapes_and_uint8():
    images = np.rint(255 * image_like(32, count=3)).astype(np.uint8)
    patches = np.rint(255 * image_like(33, count=3)).astype(np.uint8)[:, :20, :7]
    offsets = np.array([[0, 0], [20, 33], [5, 16]])
    pasted = images.copy()
    for image, patch, (row, column) in zip(pasted, patches, offsets, strict=True):
        image[row : row + 20, column : column + 7] = patch
    direct = np.array(similarities(images, pasted))
    np.testing.assert_allclose(composite_similarities(images, patches, offsets), direct, atol=1e-6)
    for value in composite_similarities(images, images[:, 4:24, 6:13], np.array([[4, 6]] * 3)):
        np.testing.assert_array_equal(value, 1.0)


@pytest.mark.parametrize("offsets", [(3, 4), np.array([[3, 4], [3, 4]])])
def test_composite_under_x64(offsets):
    images, patches = image_like(30, count=2), image_like(31, count=2)[:, :12, :12]
    expected = np.array(composite_similarities(images, patches, (3, 4)))
    with jax.enable_x64(True):
        found = composite_similarities(images, patches, offsets)
        traced = jax.jit(composite_similarities)(images, patches, jnp.asarray(offsets))
    assert {leaf.dtype for leaf in found} == {np.dtype(np.float32)}
    np.testing.assert_allclose(np.array(found), expected, atol=1e-6)
    np.testing.assert_allclose(np.array(traced), expected, atol=1e-6)


def test_composite_of_the_whole_image_and_of_the_mask_region():
    image, other = image_like(34), image_like(35)
    direct = np.array(similarities(image, other))
    np.testing.assert_allclose(composite_similarities(image, other, (0, 0)), direct, atol=1e-6)
    whole = composite_similarities(image, other[:20, :20], (10, 10))
    mask = composite_similarities(image, other[:20, :20], (10, 10), region="mask")
    box = similarities(image[10:30, 10:30], other[:20, :20])
    np.testing.assert_allclose(np.array(mask), np.array(box), atol=1e-6)
    # Errors outside the box are 0: the whole image's is the box's times its share of the area.
    np.testing.assert_allclose(1 - whole.mae, (1 - mask.mae) / 4, rtol=1e-4)
    np.testing.assert_allclose(1 - whole.mse, (1 - mask.mse) / 4, rtol=1e-4)


def test_bounds_of_a_quarter_replaced():
    # 112 of 224 hidden: three quarters of the histogram's mass are shared, and all but 122^2 of the 214^2
    # windows are equal.
    image = jnp.asarray(image_like(36, size=224))
    for patch in (jnp.zeros((112, 112, 3)), jnp.ones((112, 112, 3)), 1 - image[56:168, 56:168]):
        scores = composite_similarities(image, patch, (56, 56))
        assert 1 + np.log(0.75) - 1e-6 <= scores.hbd <= 1
        assert 1 - 2 * (122 / 214) ** 2 - 1e-6 <= scores.ssim <= 1
        assert scores.mae >= 0.75 and scores.mse >= 0.75


def test_composite_has_finite_gradients():
    image, patch = jnp.asarray(image_like(37)), jnp.full((12, 12, 3), 0.5)
    slope = jax.jit(jax.grad(lambda patch, image: composite_similarities(image, patch, (3, 4)).ssim_hbd))
    gradient = slope(patch, image)
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


def test_a_traced_offset_is_compiled_once():
    traces = 0

    @jax.jit
    def score(image, patch, offset):
        nonlocal traces
        traces += 1
        return composite_similarities(image, patch, offset)

    for seed in range(3):
        images, patches = image_like(seed, count=2), image_like(seed + 9, count=2)[:, :12, :12]
        traced = score(images, patches, jnp.array([seed, 28]))
        known = composite_similarities(images, patches, (seed, 28))
        np.testing.assert_allclose(np.array(traced), np.array(known), atol=1e-6)
    assert traces == 1

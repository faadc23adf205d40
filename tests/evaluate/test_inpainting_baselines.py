"""The fills against sparse direct solvers, OpenCV and plain means."""

import cv2
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from mim_jax.evaluate.baselines.inpainting import FILLS, harmonic_fill, mean_fill, telea_fill

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def sparse_solution(image: np.ndarray, offset: tuple[int, int], mask_size: int) -> np.ndarray:
    """The discrete Laplace equation of one channel `[S, S]`, solved by sparse elimination in float64."""
    row, column = offset
    matrix = scipy.sparse.lil_matrix((mask_size**2, mask_size**2))
    known = np.zeros(mask_size**2)
    for i in range(mask_size):
        for j in range(mask_size):
            here = i * mask_size + j
            matrix[here, here] = 4
            for di, dj in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                if 0 <= i + di < mask_size and 0 <= j + dj < mask_size:
                    matrix[here, here + di * mask_size + dj] = -1
                else:
                    known[here] += image[row + i + di, column + j + dj]
    return scipy.sparse.linalg.spsolve(matrix.tocsc(), known).reshape(mask_size, mask_size)


@pytest.mark.parametrize(("mask_size", "offset"), [(1, (3, 4)), (14, (1, 9)), (15, (8, 8)), (30, (1, 1))])
def test_harmonic_fill_solves_the_laplace_equation(mask_size, offset):
    images = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    patches = harmonic_fill(images, offset, mask_size)
    assert patches.shape == (2, mask_size, mask_size, 3)
    for image, patch in zip(images, patches, strict=True):
        for channel in range(3):
            expected = sparse_solution(image[..., channel].astype(np.float64), offset, mask_size)
            np.testing.assert_allclose(patch[..., channel], expected, atol=1e-5)


def test_harmonic_fill_is_exact_at_full_size():
    # A plane is harmonic, and so is u^2 - v^2: both must be restored, whatever the hole contains.
    v, u = np.meshgrid(np.linspace(0, 1, 224), np.linspace(0, 1, 224))
    image = np.stack([0.2 + 0.5 * u + 0.3 * v, (u**2 - v**2 + 1) / 2, np.full_like(u, 0.3)], axis=-1)
    damaged = image.copy()
    damaged[56:168, 56:168] = 1
    patch = harmonic_fill(damaged[None].astype(np.float32), (56, 56), 112)[0]
    np.testing.assert_allclose(patch, image[56:168, 56:168], atol=1e-5)


def test_harmonic_fill_stays_within_its_boundary():
    images = np.random.default_rng(1).random((3, 24, 24, 3)).astype(np.float32)
    patches = np.asarray(harmonic_fill(images, (5, 6), 12))
    rows = images[:, [4, 17], 6:18]
    columns = images[:, 5:17][:, :, [5, 18]].transpose(0, 2, 1, 3)
    ring = np.concatenate([rows, columns], axis=1)
    assert np.all(patches >= ring.min(axis=(1, 2))[:, None, None] - 1e-6)
    assert np.all(patches <= ring.max(axis=(1, 2))[:, None, None] + 1e-6)


def test_telea_fill_is_that_of_opencv():
    rng = np.random.default_rng(5)
    images = np.stack([cv2.GaussianBlur(rng.random((24, 24, 3)), (0, 0), 2) for _ in range(2)])
    patches = np.asarray(telea_fill(images.astype(np.float32), (4, 9), 10))
    assert patches.shape == (2, 10, 10, 3)
    assert patches.dtype == np.float32
    hidden = np.zeros((24, 24), np.uint8)
    hidden[4:14, 9:19] = 255
    for image, patch in zip(images, patches, strict=True):
        levels = np.round(255 * image).astype(np.uint8)
        expected = cv2.inpaint(levels, hidden, 3, cv2.INPAINT_TELEA)[4:14, 9:19]
        # OpenCV fills three channels at once only in bytes, drifting by half a level per step inwards.
        np.testing.assert_allclose(patch, expected / 255, atol=5 / 255)


def test_telea_fill_goes_on_with_what_is_beside_it():
    images = np.full((1, 24, 24, 3), 0.2, np.float32)
    np.testing.assert_allclose(telea_fill(images, (0, 6), 12), 0.2, atol=1e-3)  # at the border, too
    images[:, :, 12:] = 0.8
    patch = np.asarray(telea_fill(images, (6, 6), 12))[0]
    np.testing.assert_allclose(patch[:, 0], 0.2, atol=0.05)
    np.testing.assert_allclose(patch[:, -1], 0.8, atol=0.05)


def test_mean_fill_is_the_mean_of_the_rest():
    images = np.random.default_rng(2).random((2, 20, 20, 3)).astype(np.float32)
    hidden = np.zeros((20, 20), bool)
    hidden[3:11, 12:20] = True
    patches = mean_fill(images, (3, 12), 8)
    expected = images.astype(np.float64)[:, ~hidden].mean(axis=1)
    np.testing.assert_allclose(patches, np.broadcast_to(expected[:, None, None], (2, 8, 8, 3)), atol=1e-6)


@pytest.mark.parametrize("name", sorted(FILLS))
def test_fills_do_not_depend_on_the_batch(name):
    # The batch sizes in which images are scored.
    images = np.random.default_rng(6).random((32, 32, 32, 3)).astype(np.float32)
    patches = np.asarray(FILLS[name](images, (8, 8), 16))
    np.testing.assert_array_equal(FILLS[name](images[:8], (8, 8), 16), patches[:8])
    np.testing.assert_array_equal(FILLS[name](images[::-1], (8, 8), 16)[::-1], patches)


@pytest.mark.parametrize("name", sorted(FILLS))
def test_fills_do_not_see_the_hole_nor_other_images(name):
    images = np.random.default_rng(3).random((3, 24, 24, 3)).astype(np.float32)
    before = np.asarray(FILLS[name](images, (6, 6), 12))
    images[:, 6:18, 6:18] = 0.5
    np.testing.assert_array_equal(FILLS[name](images, (6, 6), 12), before)
    np.testing.assert_allclose(FILLS[name](images[1:2], (6, 6), 12)[0], before[1], atol=1e-6)


def test_errors_name_what_is_wrong():
    images = np.zeros((1, 16, 16, 3), np.float32)
    for offset, mask_size in (((0, 4), 8), ((4, 8), 8)):
        with pytest.raises(ValueError, match="touches the border"):
            harmonic_fill(images, offset, mask_size)
    for fill in (mean_fill, telea_fill):
        with pytest.raises(ValueError, match="hides the whole image"):
            fill(images, (0, 0), 16)
    with pytest.raises(ValueError, match="does not fit"):
        mean_fill(images, (0, 0), 17)
    with pytest.raises(ValueError, match="outside a 16x16 image"):
        mean_fill(images, (9, 0), 8)
    with pytest.raises(ValueError, match="got uint8"):
        mean_fill(images.astype(np.uint8), (4, 4), 8)
    with pytest.raises(ValueError, match=r"\[B, S, S, C\]"):
        mean_fill(images[0], (4, 4), 8)

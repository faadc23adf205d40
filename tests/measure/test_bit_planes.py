"""Counts by bit planes equal NumPy's, wherever the rows of an image's bytes end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.measure import bit_planes, histogram


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 8, 3), (0, 0, 0)),  # all one after the other
        ((128, 128, 3), (1, 6, 10)),  # 12 vectors would start every row with the same channel
        ((131, 153, 1), (1, 6, 13)),
        ((260, 280, 3), (3, 7, 13)),  # several pieces and a remainder
    ],
)
def test_counts_are_exact(shape, layout):
    assert bit_planes.layout(shape[0] * shape[1], shape[2]) == layout
    image = np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)
    image[: shape[0] // 2] = image[0, 0]  # so that sums of bytes reach their largest

    @jax.jit
    def count(image, floats):
        zeros = jnp.zeros(shape, jnp.uint8)
        by_bins = {bins: histogram.histograms([image, zeros], bins=bins) for bins in (256, 7)}
        return by_bins, histogram.histograms([floats, image], bins=256)

    by_bins, (floats, bytes_) = count(image, image / np.float32(255))
    for bins, (found, other) in by_bins.items():
        levels = image.reshape(-1, shape[2]).astype(int) * bins // 256
        expected = [np.bincount(channel, minlength=bins) for channel in levels.T]
        np.testing.assert_array_equal(found, expected)
        assert jnp.all(other[:, 0] == image[..., 0].size)
    np.testing.assert_array_equal(floats, bytes_)

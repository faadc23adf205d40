"""Masks against their definition, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax import mask


def test_centre():
    assert mask.center_offset(224, 112) == (56, 56)


def test_hide_cut_and_paste_against_loops():
    image = np.random.default_rng(0).random((9, 9, 3), np.float32)
    row, column, size = 2, 5, 4
    expected = image.copy()
    for h in range(row, row + size):
        for w in range(column, column + size):
            expected[h, w] = 1.0
    offset = jnp.array([row, column])
    hidden = mask.hide(jnp.asarray(image), offset, mask_size=size)
    np.testing.assert_array_equal(hidden, expected)
    hole = np.asarray(mask.box_mask(offset, size=9, mask_size=size))
    assert hole.sum() == size**2
    np.testing.assert_allclose(image * (1 - hole) + hole, hidden, atol=1e-7)  # Eq. 2 as printed
    patch = mask.cut(jnp.asarray(image), offset, mask_size=size)
    np.testing.assert_array_equal(mask.paste(hidden, patch, offset), image)


def test_offsets_reach_both_ends_and_nothing_beyond():
    offsets = np.asarray(mask.random_offsets(jax.random.key(0), 20_000, size=12, mask_size=6))
    counts = np.stack([np.bincount(offsets[:, axis], minlength=7) for axis in (0, 1)])
    assert counts.shape == (2, 7)  # 0..6, both ends included
    assert np.all(np.abs(counts / 20_000 - 1 / 7) < 0.012)  # five standard deviations


def test_a_mask_larger_than_the_image_is_named():
    with pytest.raises(ValueError, match=r"mask_size=9.*size=8"):
        mask.center_offset(8, 9)

"""Arguments that the metrics refuse, each in one sentence, and unusual ones that they accept."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.measure.similarity import Measure, composite_similarities, hbd, similarities
from mim_jax.measure.ssim import ssim

IMAGE = np.zeros((16, 16, 3))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (IMAGE, np.zeros((16, 17, 3)), r"\(16, 16, 3\) and \(16, 17, 3\)"),
        (np.zeros((16, 16)), np.zeros((16, 16)), "add the channel axis"),
        (np.zeros((2, 3, 16, 16)), np.zeros((2, 3, 16, 16)), "got 16 in .* NCHW"),
        (np.zeros((16, 16, 4)), np.zeros((16, 16, 4)), "1 or 3 channels"),
        (IMAGE.astype(np.int32), IMAGE.astype(np.int32), "got int32"),
        (IMAGE.astype(bool), IMAGE.astype(bool), "got bool"),
        (np.zeros((10, 16, 3)), np.zeros((10, 16, 3)), "10x16 pixels .*filter_size=11"),
        (np.zeros((2, 0, 16, 3)), np.zeros((2, 0, 16, 3)), "must have pixels"),
        (IMAGE, [IMAGE], r"\(16, 16, 3\) and \(1, 16, 16, 3\)"),
        ([], [], "must be an array, got list"),
        ("x.png", "y.png", "must be an array, got str"),
    ],
)
def test_unfit_images_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        similarities(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "box"}, "unknown window 'box'"),
        ({"filter_sigma": 0.0}, "must be positive"),
        ({"filter_sigma": "wide"}, "cannot be used"),
        ({"filter_size": 0}, "must be positive"),
        ({"filter_size": 11.0}, "filter_size and bins integers"),
        ({"bins": 257}, "got 257"),
        ({"bins": 256.0}, "filter_size and bins integers"),
        ({"k1": -0.01}, "k1=-0.01 .*must be 0 or more"),
        ({"k2": math.nan}, "k2=nan must be 0 or more"),
        ({"weights": (1.0,)}, "weights must be two numbers, "),
        ({"weights": None}, "weights must be two numbers, "),
        ({"weights": (1.5, -0.5)}, "weights must be two numbers of 0 or more"),
        ({"weights": (0, 0)}, "not both 0"),
        ({"weights": (math.inf, 0)}, "weights must be two numbers"),
        ({"weights": (math.nan, 1)}, "weights must be two numbers"),
    ],
)
def test_unfit_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        similarities(IMAGE, IMAGE, **options)


@pytest.mark.parametrize("largest", [0.0, -1.0, math.inf, math.nan])
def test_the_largest_value_must_be_positive(largest):
    with pytest.raises(ValueError, match=r"max_val=.* above 0"):
        ssim(IMAGE, IMAGE, max_val=largest)


def test_numbers_of_numpy_are_numbers():
    x = np.random.default_rng(0).random((16, 16, 3), np.float32)
    plain = similarities(x, 1 - x, filter_size=5, bins=32, weights=(0.25, 0.75))
    weights = np.array([0.25, 0.75])
    others = similarities(x, 1 - x, filter_size=np.int64(5), bins=np.uint8(32), weights=weights)
    np.testing.assert_array_equal(np.array(others), np.array(plain))


@pytest.mark.parametrize(
    ("patch", "offset", "options", "message"),
    [
        ((8, 8, 3), (9, 0), {}, r"\(9, 0\) reaches outside .* to \(8, 8\)"),
        ((8, 8, 3), [0, -1], {}, "reaches outside"),
        ((8, 8, 3), np.array([0, 9]), {}, r"\(0, 9\) reaches outside"),
        ((8, 8, 3), jnp.array([0, 9]), {}, r"\(0, 9\) reaches outside"),
        ((8, 8, 3), (2**40, 0), {}, "reaches outside"),
        ((17, 8, 3), (0, 0), {}, "does not fit the image"),
        ((8, 8, 1), (0, 0), {}, "does not fit the image"),
        ((0, 8, 3), (0, 0), {}, "must have pixels"),
        ((8, 8, 3), np.zeros((3, 2), int), {}, r"of shape \(3, 2\)"),
        ((8, 8, 3), (0,), {}, r"whole numbers, \(row, column\) .*of shape \(1,\)"),
        ((8, 8, 3), (0, 0, 0), {}, r"of shape \(3,\)"),
        ((8, 8, 3), None, {}, "whole numbers, .* got None"),
        ((8, 8, 3), (0.0, 1.0), {}, "whole numbers, .* got float64"),
        ((8, 8, 3), jnp.zeros(2), {}, "whole numbers, .* got float32"),
        ((8, 8, 3), [(0, 0), (1,)], {}, "whole numbers"),
        ((8, 8, 3), (0, 0), {"region": "hole"}, "unknown region 'hole'"),
        ((8, 8, 3), (0, 0), {"region": "mask"}, "8x8 pixels .*filter_size=11"),
    ],
)
def test_unfit_composites_are_named(patch, offset, options, message):
    with pytest.raises(ValueError, match=message):
        composite_similarities(jnp.zeros((16, 16, 3)), jnp.zeros(patch), offset, **options)


@pytest.mark.parametrize(
    ("fields", "image_size", "mask_size"),
    [
        ({}, 10, 8),
        ({"region": "mask"}, 16, 8),
        ({"window": "box"}, 16, 12),
        ({"bins": 257}, 16, 12),
        ({}, 4097, 16),
    ],
)
def test_a_measure_refuses_beforehand_what_its_comparison_refuses(fields, image_size, mask_size):
    measure = Measure(**fields)
    images, patches = (jax.ShapeDtypeStruct((1, n, n, 3), jnp.uint8) for n in (image_size, mask_size))
    with pytest.raises(ValueError) as traced:
        jax.eval_shape(lambda x, y: measure.compare(x, y, (0, 0)), images, patches)
    with pytest.raises(ValueError) as checked:
        measure.check(image_size, mask_size)
    assert str(checked.value) == str(traced.value)


def test_offsets_of_a_batch_are_checked_one_by_one():
    images, patches = jnp.zeros((2, 16, 16, 3)), jnp.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match=r"\(8, 9\) reaches outside"):
        composite_similarities(images, patches, np.array([[8, 8], [8, 9]]))


def test_traced_numbers_may_stand_in_a_tuple():
    image = np.random.default_rng(0).random((16, 16, 3), np.float32)
    traced = jax.jit(lambda row: composite_similarities(image, image[:8, :8], (row, 3)))
    known = composite_similarities(image, image[:8, :8], (5, 3))
    np.testing.assert_allclose(np.array(traced(5)), np.array(known), atol=1e-6)
    with pytest.raises(ValueError, match=r"whole numbers, .* got float32"):
        traced(5.0)


@pytest.mark.parametrize("soft", [False, True])
def test_histograms_refuse_more_pixels_than_float32_counts(soft):
    def shape(height):
        image = jax.ShapeDtypeStruct((height, 4096, 1), jnp.uint8)
        return jax.eval_shape(lambda x, y: hbd(x, y, soft=soft), image, image).shape

    assert shape(4096) == ()
    with pytest.raises(ValueError, match="4097x4096 pixels are more than a histogram can count"):
        shape(4097)

"""The metrics against independent implementations, and properties that hold for any pair of images."""

import cv2
import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from mim_jax.measure import histogram as histograms
from mim_jax.measure.similarity import METRICS, hbd, mae, mse, similarities, ssim_hbd
from mim_jax.measure.ssim import ssim
from tests.measure.examples import SIZE, image_like


def reference_ssim(x: np.ndarray, y: np.ndarray, *, window: np.ndarray) -> np.ndarray:
    """Eq. 13 as printed, in float64, at every position of a 2-D window: `[H', W', C]`."""
    shape = window.shape

    def mean(values: np.ndarray) -> np.ndarray:
        views = np.lib.stride_tricks.sliding_window_view(values, shape, axis=(0, 1))
        return np.einsum("hwcij,ij->hwc", views, window)

    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))


def gaussian_window(size: int = 11, sigma: float = 1.5) -> np.ndarray:
    taps = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * sigma**2))
    return np.outer(taps, taps) / np.sum(taps) ** 2


def reference_hbd(x: np.ndarray, y: np.ndarray, *, bins: int = 256, per_channel: bool = False) -> float:
    """Eq. 14 in float64 from NumPy's histograms of the byte levels."""

    def histogram(image: np.ndarray) -> np.ndarray:
        levels = np.rint(255 * image.astype(np.float64))
        edges = np.arange(bins + 1) * 256 / bins
        return np.stack([np.histogram(levels[..., c], edges)[0] for c in range(image.shape[-1])])

    p, q = histogram(x), histogram(y)
    if not per_channel:
        p, q = p.reshape(1, -1), q.reshape(1, -1)
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return float(np.mean(1 + np.log(np.sum(np.sqrt(p * q), axis=1))))


def test_ssim_equals_dm_pix_and_the_formula():
    x, y = image_like(0, count=3), image_like(1, count=3)
    y = (0.7 * x + 0.3 * y).astype(np.float32)
    ours = ssim(x, y)
    assert ours.shape == (3,) and ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, dm_pix.ssim(jnp.asarray(x), jnp.asarray(y)), atol=1e-6)
    expected = reference_ssim(x[0], y[0], window=gaussian_window())
    np.testing.assert_allclose(ours[0], expected.mean(), atol=1e-6)
    # A single window's variance is a small difference of float32 sums; the mean has a tighter tolerance.
    np.testing.assert_allclose(ssim(x[0], y[0], return_map=True), expected, atol=2e-5)


def test_ssim_equals_scikit_image_with_the_settings_of_wang():
    x, y = image_like(2, size=64), image_like(3, size=64)
    expected = structural_similarity(
        x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    np.testing.assert_allclose(ssim(x, y), expected, atol=2e-5)


@pytest.mark.parametrize("size", [4, 7])
def test_ssim_of_other_windows(size):
    x, y = image_like(4), image_like(5)
    expected = reference_ssim(x, y, window=gaussian_window(size, 1.1)).mean()
    np.testing.assert_allclose(ssim(x, y, filter_size=size, filter_sigma=1.1), expected, atol=2e-6)


def test_a_tiny_sigma_leaves_the_nearest_pixels():
    x, y = image_like(4), image_like(5)
    nearest = np.zeros((4, 4))
    nearest[1:3, 1:3] = 0.25
    expected = reference_ssim(x, y, window=nearest).mean()
    for sigma in (1e-2, 1e-9, 1e-200):
        np.testing.assert_allclose(ssim(x, y, filter_size=4, filter_sigma=sigma), expected, atol=2e-5)


def test_global_window_is_equation_13_as_printed():
    x, y = image_like(6), image_like(7)
    expected = reference_ssim(x, y, window=np.full((SIZE, SIZE), 1 / SIZE**2))
    np.testing.assert_allclose(ssim(x, y, window="global"), expected.mean(), atol=1e-6)
    assert ssim(x, y, window="global", return_map=True).shape == (1, 1, 3)


def test_flat_images_have_no_structure_to_differ_in():
    # Both variances are 0 up to rounding, which must not raise a value above that of the luminance alone.
    for a in (0.1, 0.35, 0.8):
        for b in (0.15, 0.6, 0.95):
            x, y = np.full((SIZE, SIZE, 3), a, np.float32), np.full((SIZE, SIZE, 3), b, np.float32)
            expected = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
            values = ssim(x, y, return_map=True)
            assert np.all(values <= expected + 1e-6) and np.all(values >= expected - 1e-4)


def test_max_val_scales():
    x, y = image_like(8), image_like(9)
    np.testing.assert_allclose(ssim(255 * x, 255 * y, max_val=255.0), ssim(x, y), atol=1e-6)


@pytest.mark.parametrize(
    ("bins", "per_channel"), [(256, False), (256, True), (100, True), (16, False), (1, False)]
)
def test_hbd_is_equation_14(bins, per_channel):
    x, y = image_like(10), image_like(11)
    expected = reference_hbd(x, y, bins=bins, per_channel=per_channel)
    np.testing.assert_allclose(hbd(x, y, bins=bins, per_channel=per_channel), expected, atol=1e-6)


def test_hbd_follows_from_opencv():
    x, y = (np.rint(255 * image_like(seed)).astype(np.uint8) for seed in (12, 13))
    p, q = (
        np.concatenate([cv2.calcHist([image], [c], None, [256], [0, 256]) for c in range(3)])
        for image in (x, y)
    )
    distance = cv2.compareHist(p, q, cv2.HISTCMP_BHATTACHARYYA)
    np.testing.assert_allclose(hbd(x, y), 1 + np.log(1 - distance**2), atol=1e-6)


def test_histogram_forms_of_the_backends_count_alike():
    image = jnp.asarray(image_like(14))
    levels = jnp.round(255 * image).astype(jnp.int32)
    expected = np.stack([np.bincount(np.asarray(levels[..., c]).ravel(), minlength=256) for c in range(3)])
    ones = jnp.ones(levels.shape, jnp.bfloat16)
    for form in (histograms._added_counts, histograms._multiplied_counts):
        np.testing.assert_array_equal(form(levels, ones, bins=256), expected)
    masses = jnp.asarray(image_like(15))
    added = histograms._added_counts(levels // 16, masses, bins=16)
    multiplied = histograms._multiplied_counts(levels // 16, masses, bins=16)
    np.testing.assert_allclose(added, multiplied, rtol=1e-5)


def test_all_five_are_the_equations():
    x, y = image_like(16, count=2), image_like(17, count=2)
    got = similarities(x, y, weights=(0.3, 0.7))
    assert got._fields == METRICS
    difference = x.astype(np.float64) - y
    np.testing.assert_allclose(got.mae, 1 - np.abs(difference).mean(axis=(1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(got.mse, 1 - (difference**2).mean(axis=(1, 2, 3)), atol=1e-6)
    for i in range(2):
        structure = reference_ssim(x[i], y[i], window=gaussian_window()).mean()
        np.testing.assert_allclose(got.ssim[i], structure, atol=1e-6)
        np.testing.assert_allclose(got.hbd[i], reference_hbd(x[i], y[i]), atol=1e-6)
        np.testing.assert_allclose(
            got.ssim_hbd[i], 0.3 * structure + 0.7 * reference_hbd(x[i], y[i]), atol=1e-6
        )
    # Each by itself: the same terms, compiled in another program.
    for metric, function in {"mae": mae, "mse": mse, "ssim": ssim, "hbd": hbd}.items():
        np.testing.assert_allclose(function(x, y), getattr(got, metric), atol=5e-7)
    np.testing.assert_array_equal(ssim_hbd(x, y, weights=[0.3, 0.7]), got.ssim_hbd)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    low=st.floats(0, 1, width=32),
    high=st.floats(0, 1, width=32),
    levels=st.sampled_from([1, 2, 255]),
)
def test_identical_images_give_exactly_one_and_no_pair_more(seed, low, high, levels):
    generator = np.random.default_rng(seed)
    x, y = np.rint(levels * generator.random((2, 16, 16, 3))) / levels
    x, y = (np.clip(low + (high - low) * image, 0, 1).astype(np.float32) for image in (x, y))
    for value in similarities(x, x):
        assert float(value) == 1.0
    forth, back = similarities(x, y), similarities(y, x)
    for metric, one, other in zip(METRICS, forth, back, strict=True):
        assert np.isfinite(one) and one <= 1, metric
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=metric)
    assert forth.ssim >= -1 and forth.mae >= 0 and forth.mse >= forth.mae - 1e-6
    assert forth.hbd >= 1 + np.log(histograms.SMALLEST_COEFFICIENT) - 1e-4


def test_more_noise_is_less_similar():
    x = image_like(18)
    noise = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    scores = np.array([similarities(x, np.clip(x + sigma * noise, 0, 1)) for sigma in (0.02, 0.05, 0.1, 0.2)])
    assert np.all(np.diff(scores, axis=0)[:, [0, 1, 3, 4]] < 0)
    assert scores[-1, 2] < scores[0, 2]


def test_disjoint_histograms_are_clamped():
    black, white = jnp.zeros((16, 16, 3)), jnp.ones((16, 16, 3))
    np.testing.assert_allclose(hbd(black, white), 1 + np.log(1e-12), rtol=1e-6)
    np.testing.assert_allclose(hbd(black, white, per_channel=True), 1 + np.log(1e-12), rtol=1e-6)


def test_uint8_and_half_precision():
    x, y = (np.rint(255 * image_like(seed)).astype(np.uint8) for seed in (19, 20))
    expected = similarities(x.astype(np.float32) / 255, y.astype(np.float32) / 255)
    # The conversion is compiled into the sums, which moves their last bit; the histograms are the same.
    np.testing.assert_allclose(np.array(similarities(x, y)), np.array(expected), atol=5e-7)
    np.testing.assert_array_equal(similarities(x, y).hbd, expected.hbd)
    for dtype in (jnp.bfloat16, jnp.float16):
        half = jnp.asarray(x, dtype) / 255, jnp.asarray(y, dtype) / 255
        lifted = similarities(*(image.astype(jnp.float32) for image in half))
        np.testing.assert_allclose(np.array(similarities(*half)), np.array(lifted), atol=5e-7)


def test_nan_is_not_hidden():
    x, y = image_like(21).copy(), image_like(22)
    x[3, 4, 1] = np.nan
    assert all(np.isnan(value) for value in similarities(x, y))
    assert np.isnan(hbd(x, y, soft=True))


def test_a_score_depends_on_nothing_else_in_the_batch():
    x, y = image_like(23, count=7), image_like(24, count=7)
    together = np.array(similarities(x, y))
    order = np.array([3, 1, 6, 0, 5, 2, 4])
    np.testing.assert_array_equal(np.array(similarities(x[order], y[order])), together[:, order])
    np.testing.assert_array_equal(np.array(similarities(x[5:6], y[5:6])), together[:, 5:6])
    padded = np.concatenate([x, np.ones_like(x[:2])]), np.concatenate([y, np.zeros_like(y[:2])])
    np.testing.assert_array_equal(np.array(similarities(*padded))[:, :7], together)
    grid = np.array(similarities(x[:6].reshape(2, 3, *x.shape[1:]), y[:6].reshape(2, 3, *y.shape[1:])))
    np.testing.assert_array_equal(grid.reshape(5, 6), together[:, :6])
    assert similarities(x[:0], y[:0]).hbd.shape == (0,)


def test_values_do_not_need_compilation():
    x, y = image_like(25), image_like(26)
    compiled = np.array(similarities(x, y))
    with jax.disable_jit():
        # Sums may be taken in another order.
        np.testing.assert_allclose(np.array(similarities(x, y)), compiled, atol=2e-6)


def test_gradients_are_finite_on_flat_images():
    functions = (hbd, lambda x, y: hbd(x, y, soft=True), lambda x, y: sum(similarities(x, y)))
    gradients = jax.jit(lambda x, y: [jax.grad(function, (0, 1))(x, y) for function in functions])
    flat = jnp.full((16, 16, 3), 0.5)
    for other in (jnp.zeros((16, 16, 3)), jnp.ones((16, 16, 3)), flat, jnp.asarray(image_like(27, size=16))):
        found = gradients(flat, other)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
        np.testing.assert_array_equal(found[0], 0)


def test_soft_histogram_is_the_hard_one_on_byte_levels_and_has_the_gradient_of_its_value():
    x, y = (np.rint(255 * image_like(seed)).astype(np.uint8) for seed in (28, 29))
    # A pixel within rounding of its level leaves a trace in the next bin, of which BC takes the root.
    np.testing.assert_allclose(hbd(x, y, soft=True), hbd(x, y), atol=1e-4)
    x, y = jnp.asarray(x, jnp.float32) / 255 * 0.9 + 0.03, jnp.asarray(y, jnp.float32) / 255 * 0.9 + 0.03

    def brightened(step: float) -> jax.Array:
        return hbd(x + step, y, bins=16, soft=True)

    slope = jax.grad(brightened)(0.0)
    assert abs(slope) > 0.1
    np.testing.assert_allclose((brightened(1e-3) - brightened(-1e-3)) / 2e-3, slope, rtol=0.02)
    assert float(hbd(x, x, bins=16, soft=True)) == 1.0


def test_soft_histogram_divides_pixels_between_bin_centres():
    x, y = image_like(38), image_like(39)
    centres = (np.arange(16) + 0.5) * 16 - 0.5

    def histogram(image: np.ndarray) -> np.ndarray:
        place = np.interp(255 * image.astype(np.float64), centres, np.arange(16))
        memberships = np.maximum(1 - np.abs(place[..., None] - np.arange(16)), 0)
        return memberships.sum(axis=(0, 1)) / memberships.sum()

    coefficient = np.sum(np.sqrt(histogram(x) * histogram(y)))
    np.testing.assert_allclose(hbd(x, y, bins=16, soft=True), 1 + np.log(coefficient), atol=1e-5)

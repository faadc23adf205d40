"""Masked metrics, MS-SSIM and PSNR: against the formulas, other packages, and the metrics without a mask."""

import functools

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.measure.similarity import hbd, mae, mse, psnr
from mim_jax.measure.ssim import ms_ssim, ssim

pytestmark = pytest.mark.usefixtures("compiled_quickly")

rng = np.random.default_rng(0)
X, Y = rng.random((2, 3, 20, 20, 3), np.float32)
MASK = (rng.random((20, 20)) > 0.3).astype(np.float32)
MASK[:6, :6] = 0
MASK = np.stack([MASK, MASK.T, MASK[::-1, ::-1]])  # equally many pixels are visible
METRICS = {
    "ssim": functools.partial(ssim, filter_size=5),
    "map": functools.partial(ssim, filter_size=5, return_map=True),
    "global": functools.partial(ssim, window="global"),
    "mae": mae,
    "mse": mse,
    "psnr": psnr,
    "hbd": hbd,
    "soft": functools.partial(hbd, soft=True, bins=16),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_mask_of_ones_changes_no_bit_and_one_of_zeros_is_nan(name):
    metric = METRICS[name]
    plain = np.asarray(metric(X, Y))
    np.testing.assert_array_equal(metric(X, Y, mask=np.ones((20, 20), bool)), plain)
    mixed = metric(X, Y, mask=np.stack([np.ones_like(MASK[0]), np.zeros_like(MASK[0]), MASK[2]]))
    np.testing.assert_array_equal(mixed[0], plain[0])
    assert np.all(np.isnan(mixed[1]))


@pytest.mark.parametrize("name", METRICS)
def test_what_is_hidden_does_not_count(name):
    metric = METRICS[name]
    masked = np.asarray(metric(X, Y, mask=MASK))
    other = np.where(MASK[..., None] > 0, Y, rng.random(Y.shape, np.float32))
    np.testing.assert_array_equal(metric(X, other, mask=MASK), masked)
    if name != "map":
        unknown = np.where(MASK[..., None] > 0, Y, np.float32(np.nan))
        np.testing.assert_array_equal(metric(X, unknown, mask=MASK), masked)
    np.testing.assert_array_equal(jax.vmap(lambda x, y, m: metric(x, y, mask=m))(X, Y, MASK), masked)


def test_masked_ssim_is_the_normalised_convolution():
    size, weights = 5, np.exp(-((np.arange(5) - 2) ** 2) / (2 * 1.5**2))
    window = np.outer(weights, weights) / weights.sum() ** 2
    x, y, mask = X[0].astype(np.float64), Y[0].astype(np.float64), MASK[0].astype(np.float64)

    def summed(plane):
        views = np.lib.stride_tricks.sliding_window_view(plane, (size, size), axis=(0, 1))
        return np.einsum("hwcij,ij->hwc", views, window)

    mask = np.repeat(mask[..., None], 3, axis=-1)
    seen = summed(mask)
    with np.errstate(invalid="ignore"):
        mx, my, xx, yy, xy = (summed(p * mask) / seen for p in (x, y, x * x, y * y, x * y))
    top = (2 * mx * my + 1e-4) * (2 * (xy - mx * my) + 9e-4)
    values = top / ((mx**2 + my**2 + 1e-4) * (xx - mx**2 + yy - my**2 + 9e-4))
    expected = np.sum(np.where(seen > 0, values * seen, 0)) / seen.sum()
    np.testing.assert_allclose(METRICS["ssim"](X, Y, mask=MASK)[0], expected, atol=1e-6)
    windows = METRICS["map"](X, Y, mask=MASK)[0]
    np.testing.assert_array_equal(np.isnan(windows), seen == 0)
    np.testing.assert_allclose(windows, np.where(seen > 0, values, np.nan), atol=5e-5)


def test_masked_errors_and_histograms_are_those_of_the_visible_pixels():
    for x, y, mask, error, squared, colour in zip(
        X, Y, MASK, mae(X, Y, mask=MASK), mse(X, Y, mask=MASK), hbd(X, Y, mask=MASK), strict=True
    ):
        seen = [image[mask > 0][:, None] for image in (x, y)]
        np.testing.assert_allclose([error, squared], [mae(*seen), mse(*seen)], atol=1e-6)
        np.testing.assert_allclose(colour, hbd(*seen), atol=1e-6)


def test_masked_gradients_are_finite_and_zero_where_hidden():
    names = ("ssim", "mae", "mse", "psnr", "soft")

    @jax.jit
    def slopes(x, y, mask):
        return [jax.grad(lambda x, m=METRICS[name]: m(x, y, mask=mask).sum())(x) for name in names]

    for name, slope in zip(names, slopes(X, Y, MASK), strict=True):
        assert np.all(np.isfinite(slope)) and np.any(slope != 0), name
        np.testing.assert_array_equal(np.where(MASK[..., None] > 0, 0, slope), 0)


def test_unfit_masks_are_named():
    with pytest.raises(ValueError, match=r"mask must be \[20, 20\] or \[3, 20, 20\], got \[3, 20, 20, 1\]"):
        ssim(X, Y, mask=MASK[..., None])
    with pytest.raises(ValueError, match=r"weights in .* got int32"):
        mae(X, Y, mask=MASK.astype(np.int32))


def test_psnr_is_that_of_dm_pix():
    np.testing.assert_allclose(psnr(X, Y), dm_pix.psnr(jnp.asarray(X), jnp.asarray(Y)), rtol=1e-6)
    np.testing.assert_allclose(psnr(255 * X, 255 * Y, max_val=255), psnr(X, Y), rtol=1e-5)
    assert np.all(np.isinf(psnr(X, X))) and not np.any(jax.grad(lambda x: psnr(x, X).sum())(X))


def smooth(seed, height, width):
    image = np.random.default_rng(seed).random((2, height, width, 1), np.float32)
    for axis in (1, 2, 1, 2):
        image = (image + np.roll(image, 1, axis)) / 2
    return image


def test_ms_ssim_is_that_of_pytorch_msssim():
    torch, other = pytest.importorskip("torch"), pytest.importorskip("pytorch_msssim")
    shape = (33, 52)  # the least size; at five scales odd and even sides
    x, y = smooth(0, *shape), smooth(0, *shape)
    y = np.clip(y + np.random.default_rng(1).normal(0, 0.1, y.shape), 0, 1).astype(np.float32)
    # Windows of 3 pixels: five scales of small images.
    planes = [torch.from_numpy(a.transpose(0, 3, 1, 2).copy()) for a in (x, y)]
    expected = other.ms_ssim(*planes, data_range=1.0, size_average=False, win_size=3)
    np.testing.assert_allclose(ms_ssim(x, y, filter_size=3), expected.numpy(), atol=1e-5)


def test_ms_ssim_of_opposed_images_is_zero_and_of_equal_ones_one_with_finite_gradients():
    x = smooth(2, 9, 9)
    score = functools.partial(ms_ssim, filter_size=3, power_factors=(0.4, 0.6))
    pairs = np.concatenate([x, x]), np.concatenate([1 - x, x])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(score)))(*pairs)
    np.testing.assert_array_equal(values, [0, 0, 1, 1])
    assert np.all(np.isfinite(slopes))


def test_ms_ssim_names_the_least_size():
    with pytest.raises(ValueError, match=r"160x200 pixels .*5 scales .*\(161 a side\)"):
        ms_ssim(np.zeros((160, 200, 3)), np.zeros((160, 200, 3)))
    with pytest.raises(ValueError, match="power_factors"):
        ms_ssim(np.zeros((161, 161, 3)), np.zeros((161, 161, 3)), power_factors=())

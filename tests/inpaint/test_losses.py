"""Losses against float64 sums of the printed equations."""

import numpy as np
import pytest

from mim_jax.inpaint import losses

RNG = np.random.default_rng(0)
X, Y = RNG.random((2, 5, 4, 3, 2), np.float32)


def test_errors_are_eq_4_and_6_for_each_example():
    for i in range(5):
        difference = X[i].astype(np.float64) - Y[i]
        assert float(losses.mean_absolute_error(X, Y)[i]) == pytest.approx(
            np.abs(difference).sum() / 24, rel=1e-6
        )
        assert float(losses.mean_squared_error(X, Y)[i]) == pytest.approx(
            (difference**2).sum() / 24, rel=1e-6
        )


def test_weighted_sums_are_eq_7_and_10():
    total = losses.generator_loss(
        np.array([2.0]), np.array([3.0]), pixel_weight=0.99, adversarial_weight=0.01
    )
    assert float(total[0]) == pytest.approx(2.01)
    real, fake = X[..., :1], Y[..., :1]
    expected = 0.25 * ((real - 1) ** 2).mean((1, 2, 3)) + 0.75 * (fake**2).mean((1, 2, 3))
    np.testing.assert_allclose(
        losses.discriminator_loss(real, fake, real_weight=0.25, fake_weight=0.75), expected, rtol=1e-5
    )


def test_a_perfect_discriminator_has_no_loss():
    one, zero = np.ones((2, 4, 4, 1), np.float32), np.zeros((2, 4, 4, 1), np.float32)
    assert np.all(np.asarray(losses.discriminator_loss(one, zero, real_weight=0.5, fake_weight=0.5)) == 0)

"""The losses of Eq. 3-10, one value per example; the caller averages (the expectation over I ~ D_in).

Pixel losses are measured in the network's range [-1, 1], where differences are twice those in [0, 1].
"""

import jax
import jax.numpy as jnp


def mean_absolute_error(x: jax.Array, y: jax.Array) -> jax.Array:
    """f_MAE of Eq. 4: `[B, ...]`, `[B, ...]` -> `[B]`."""
    return jnp.mean(jnp.abs(x - y), axis=tuple(range(1, x.ndim)))


def mean_squared_error(x: jax.Array, y: jax.Array | float) -> jax.Array:
    """f_MSE of Eq. 6: `[B, ...]` against the same shape or one number -> `[B]`."""
    return jnp.mean(jnp.square(x - y), axis=tuple(range(1, x.ndim)))


def generator_loss(
    pixel: jax.Array, adversarial: jax.Array, *, pixel_weight: float, adversarial_weight: jax.Array | float
) -> jax.Array:
    """Eq. 7, `alpha_G * L_pixel + beta_G * L_adversarial`, per example.

    The paper prints alpha_G = 0.01 and beta_G = 0.99; the context encoder it builds on uses 0.999 and 0.001.
    """
    return pixel_weight * pixel + adversarial_weight * adversarial


def discriminator_loss(
    real: jax.Array, fake: jax.Array, *, real_weight: float, fake_weight: float
) -> jax.Array:
    """Eq. 10, `alpha_D * MSE(D(real), 1) + beta_D * MSE(D(fake), 0)` (Eq. 8-9), on maps `[B, h, w, 1]`."""
    return real_weight * mean_squared_error(real, 1.0) + fake_weight * mean_squared_error(fake, 0.0)

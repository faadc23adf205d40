"""Both forms of each convolution agree, forward and backward; transposed ones match the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.inpaint import convolution, layers

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# (side, features in, features out, taps, stride, padding): every shape of layer that the networks have, and
# odd sizes.
CONVOLUTIONS = [
    (16, 3, 8, 4, 2, 1),
    (16, 3, 8, 3, 2, 1),
    (9, 4, 6, 3, 2, 1),
    (7, 16, 2, 3, 1, 1),
    (6, 5, 40, 1, 1, 0),
]
CONVOLUTIONS += [(4, 5, 7, 4, 1, 0), (5, 3, 4, 3, 1, 1)]
# Few features out of many, with and without padding; a last row and column that no window reaches.
CONVOLUTIONS += [(6, 13, 3, 3, 1, 0), (5, 30, 2, 5, 1, 1), (9, 16, 4, 2, 2, 0)]
TRANSPOSED = [
    (7, 12, 5, 4, 2, 1),
    (3, 4, 6, 4, 2, 1),
    (1, 6, 3, 4, 1, 0),
    (5, 3, 4, 3, 2, 1),
    (4, 3, 2, 2, 2, 0),
]


def check(forms, case):
    side, before, after, taps, stride, padding = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, side, side, before), np.float32)
    kernel = rng.standard_normal((taps, taps, before, after), np.float32) * 0.1

    def value(form, x, kernel):
        """A loss in which every output pixel counts differently, and the output."""
        y = form(x, kernel, stride, padding)
        return jnp.sum(jnp.sin(y) * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape) / y.size), y

    @jax.jit
    def both(x, kernel):
        return [
            jax.grad(functools.partial(value, form), argnums=(0, 1), has_aux=True)(x, kernel)
            for form in forms
        ]

    (plain, y), (matrix, z) = both(x, kernel)
    np.testing.assert_allclose(y, z, atol=1e-5)
    for a, b in zip(plain, matrix, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    return x, kernel, np.asarray(y)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_as_matrix_product(case):
    check((convolution._conv_lax, convolution._conv_matrix), case)


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolution_as_matrix_product(case):
    x, kernel, y = check((convolution._conv_transpose_lax, convolution._conv_transpose_matrix), case)
    # Its definition, by loops: input pixel (i, j) adds x[i, j] @ kernel[a, b] to output pixel (s i + a
    # - p, s j + b - p).
    _, _, _, taps, stride, padding = case
    side = x.shape[1]
    expected = np.zeros((2, *(((side - 1) * stride + taps),) * 2, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            block = np.einsum("bc,klcf->bklf", x[:, i, j].astype(np.float64), kernel)
            expected[:, stride * i : stride * i + taps, stride * j : stride * j + taps] += block
    inner = slice(padding, expected.shape[1] - padding)
    np.testing.assert_allclose(y, expected[:, inner, inner], atol=1e-5)


def test_leaky_relu_and_its_gradient():
    x = jnp.array([-3.0, -1e-30, -0.0, 0.0, 1e-30, 2.0])
    y, tangent = jax.jvp(layers.leaky_relu, (x,), (jnp.full(6, 5.0),))
    np.testing.assert_array_equal(y, jnp.array([-0.6, -2e-31, 0, 0, 1e-30, 2]))
    np.testing.assert_array_equal(tangent, [1, 1, 5, 5, 5, 5])
    gradient = jax.grad(lambda x: jnp.sum(5 * layers.leaky_relu(x)))(x)
    np.testing.assert_array_equal(gradient, tangent)


def test_instance_norm_does_not_mix_samples():
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 3))
    whole = layers.instance_norm(x)
    np.testing.assert_array_equal(whole[1:2], layers.instance_norm(x[1:2]))
    np.testing.assert_allclose(jnp.mean(whole, (1, 2)), 0, atol=1e-6)


@pytest.mark.parametrize(("stride", "padding", "taps"), [(2, 1, 4), (2, 1, 3), (1, 0, 4)])
def test_a_pointwise_and_a_transposed_convolution_compose_into_one(stride, padding, taps):
    """The same map and the same gradients, also at the border, where fewer taps see the first one's bias."""
    rng = np.random.default_rng(0)
    shapes = [(3, 5, 5, 6), (1, 1, 6, 40), (40,), (taps, taps, 40, 7), (7,)]
    values = [rng.normal(size=shape).astype(np.float32) for shape in shapes]

    def apart(x, inner, constant, kernel, bias):
        hidden = convolution.conv(x, inner, stride=1, padding=0) + constant[None, None, None]
        y = convolution.conv_transpose(hidden, kernel, stride=stride, padding=padding)
        return y + bias[None, None, None]

    def together(x, inner, constant, kernel, bias):
        pairs = (inner, constant), (kernel, bias)
        return convolution.pointwise_then_transpose(x, *pairs, stride=stride, padding=padding)

    weights = rng.normal(size=jax.eval_shape(apart, *values).shape).astype(np.float32)

    @jax.jit
    def both(*values):
        def loss(form, *values):
            y = form(*values)
            return jnp.sum(jnp.sin(y / 30) * weights), y

        return [
            jax.grad(functools.partial(loss, form), argnums=range(5), has_aux=True)(*values)
            for form in (apart, together)
        ]

    for expected, found in zip(*map(jax.tree.leaves, both(*values)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

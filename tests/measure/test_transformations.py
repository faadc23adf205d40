"""The scorer under `vmap`, `grad` and other transformations equals a batch given as leading axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.measure.each import each_p
from mim_jax.measure.similarity import composite_similarities, hbd, mae, mse, similarities, ssim_hbd
from mim_jax.measure.ssim import ssim

pytestmark = pytest.mark.usefixtures("compiled_quickly")

X, Y = np.random.default_rng(0).random((2, 4, 12, 12, 1), np.float32)
small_ssim = functools.partial(ssim, filter_size=5)
joint = functools.partial(ssim_hbd, filter_size=5)


def every(x, y):
    return jnp.stack(similarities(x, y, filter_size=5), axis=-1)


def composite(image, other):
    return jnp.stack(composite_similarities(image, other[..., 2:9, 2:9, :], (1, 3), filter_size=3), axis=-1)


def soft(x, y):
    return hbd(x, y, soft=True, bins=16)


def window_map(x, y):
    return small_ssim(x, y, return_map=True)


METRICS = {
    "ssim": small_ssim,
    "map": window_map,
    "hbd": hbd,
    "soft hbd": soft,
    "mae": mae,
    "mse": mse,
    "five": every,
    "composite": composite,
}


def grid(images):
    return images.reshape(2, 2, *images.shape[1:])


def flat(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(4, *leaf.shape[2:]), tree)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", METRICS)
def test_mapped_values_are_those_of_leading_axes_bit_for_bit(name):
    metric = METRICS[name]
    leading = np.asarray(metric(X, Y))
    equal(leading, jax.vmap(metric)(X, Y))
    equal(leading, jax.jit(jax.vmap(metric))(X, Y))


# All metrics are mapped by `each`: two stand for the others in the forms below.
@pytest.mark.parametrize("name", ["ssim", "hbd"])
def test_values_in_loops_and_nested_maps_are_those_of_leading_axes_bit_for_bit(name):
    metric = METRICS[name]
    leading = np.asarray(metric(X, Y))
    equal(leading, np.stack([metric(x, y) for x, y in zip(X, Y, strict=True)]))
    equal(leading, flat(jax.jit(jax.vmap(jax.vmap(metric)))(grid(X), grid(Y))))
    equal(
        leading, flat(jax.vmap(metric, in_axes=1, out_axes=0)(*(np.swapaxes(grid(a), 0, 1) for a in (X, Y))))
    )
    equal(leading, jax.jit(lambda: jax.lax.scan(lambda c, pair: (c, metric(*pair)), 0, (X, Y))[1])())
    repeated = np.asarray(metric(X, np.broadcast_to(Y[0], Y.shape)))
    equal(repeated, jax.vmap(metric, in_axes=(0, None))(X, Y[0]))
    pairs = jax.vmap(jax.vmap(metric, in_axes=(None, 0)), in_axes=(0, None))(X, Y)
    equal(leading, np.stack([pairs[k, k] for k in range(4)]))


SCALARS = {
    "ssim": small_ssim,
    "soft hbd": soft,
    "joint": joint,
    "composite": lambda x, y: composite(x, y).sum(axis=-1),
}


@functools.cache
def slopes_of(name):
    return jax.grad(lambda x, y: SCALARS[name](x, y).sum(), argnums=(0, 1))(X, Y)


@pytest.mark.parametrize("name", SCALARS)
def test_mapped_derivatives_are_those_of_leading_axes_bit_for_bit(name):
    slopes, slope = slopes_of(name), jax.grad(SCALARS[name], argnums=(0, 1))
    assert all(np.any(leaf != 0) and np.all(np.isfinite(leaf)) for leaf in slopes)
    equal(slopes, jax.vmap(slope)(X, Y))
    equal(slopes, jax.jit(jax.vmap(slope))(X, Y))


@pytest.mark.parametrize("name", ["ssim", "soft hbd"])
def test_derivatives_in_loops_and_nested_maps_are_those_of_leading_axes_bit_for_bit(name):
    metric, slopes = METRICS[name], slopes_of(name)
    leading = metric(X, Y)
    both = jax.value_and_grad(metric, argnums=(0, 1))
    equal((leading, slopes), flat(jax.vmap(jax.vmap(both))(grid(X), grid(Y))))
    equal(slopes, jax.grad(lambda x, y: jax.vmap(metric)(x, y).sum(), argnums=(0, 1))(X, Y))
    equal(slopes, jax.grad(jax.checkpoint(lambda x, y: metric(x, y).sum()), argnums=(0, 1))(X, Y))
    looped = jax.jit(lambda: jax.lax.scan(lambda c, pair: (c, both(*pair)), 0, (X, Y))[1])()
    equal((leading, slopes), looped)
    one_target = jax.grad(lambda x: metric(x, np.broadcast_to(Y[0], Y.shape)).sum())(X)
    equal(one_target, jax.vmap(jax.grad(metric), in_axes=(0, None))(X, Y[0]))
    pushed = jax.jvp(metric, (X, Y), (Y, X))
    equal(pushed, jax.vmap(lambda x, y: jax.jvp(metric, (x, y), (y, x)))(X, Y))
    np.testing.assert_allclose(
        pushed[1], np.sum(slopes[0] * Y + slopes[1] * X, axis=(1, 2, 3)), rtol=1e-4, atol=1e-5
    )


def test_second_derivatives_of_either_order_agree():
    metric = functools.partial(ssim, filter_size=3)

    @jax.jit
    def hessians(x, y):
        mapped = jax.vmap(jax.hessian(metric))(x, y)
        one, other = jax.jacrev(jax.jacfwd(metric)), jax.jacrev(jax.jacrev(metric))
        return mapped[0], one(x[0], y[0]), other(x[0], y[0])

    forward_of_reverse, *others = hessians(X[:2, :5, :5], Y[:2, :5, :5])
    for hessian in others:
        np.testing.assert_allclose(hessian, forward_of_reverse, rtol=1e-4, atol=1e-6)
    matrix = forward_of_reverse.reshape(25, 25)
    assert np.any(matrix != 0)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)


def test_gradients_are_those_of_finite_differences():
    x, y = (jnp.asarray(a[0], jnp.float32) for a in (X, Y))
    direction = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), jnp.float32)
    for metric in (small_ssim, soft):
        step = 1e-3
        measured = (metric(x + step * direction, y) - metric(x - step * direction, y)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(jax.grad(metric)(x, y) * direction), measured, rtol=0.02)


def test_bytes_carry_no_gradient_and_may_be_the_target():
    target = np.rint(255 * Y).astype(np.uint8)
    slopes = jax.grad(lambda x: joint(x, target).sum())(X)
    equal(slopes, jax.vmap(jax.grad(joint))(X, target))
    equal(slopes, jax.vmap(jax.grad(lambda x, y: joint(y, x), argnums=1))(target, X))


def test_an_empty_batch_is_mapped():
    assert jax.vmap(every)(X[:0], Y[:0]).shape == (0, 5)
    assert jax.vmap(jax.grad(small_ssim))(X[:0], Y[:0]).shape == X[:0].shape


def test_a_mapped_metric_is_one_operation_on_all_images():
    mapped = jax.make_jaxpr(jax.vmap(jax.vmap(jax.grad(small_ssim))))(grid(X), grid(Y))
    applied = [equation for equation in _equations(mapped.jaxpr) if equation.primitive is each_p]
    assert {equation.invars[0].aval.shape[0] for equation in applied} == {4}


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name == "jit":
            yield from _equations(equation.params["jaxpr"].jaxpr)

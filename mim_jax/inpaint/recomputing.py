"""Layers whose gradient computes them again, so that what they hold between need not be kept: less memory.

`flax.linen.remat` does this where the compiler keeps both computations apart. XLA for CPU drops the barrier
between them and merges them again. Here what a layer was given passes a branch that is always taken, which
XLA cannot know, and which waits for the gradient that comes in.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import lift
from jax import export, lax

Layer = TypeVar("Layer", bound=Callable[..., nn.Module])

LARGE = 2**26  # bytes, from which on memory matters more than time
_inside: ContextVar[bool] = ContextVar("inside", default=False)  # what is computed again as a whole
_NEVER = np.int32(0x7FC0_1234)  # the bits of a NaN that no arithmetic makes


def recomputed(layer: Layer) -> Layer:
    """Return a class of modules like `layer`, of the same names and numbers, that holds less for gradients.

    Its statistics change once, as they do without. It is called with arrays alone, and what it draws at
    random is drawn anew from another key than without.
    """
    return nn.transforms.lift_transform(_lifted, layer)


def _lifted(fn: Callable[..., Any]) -> Any:
    def inner(scope_fn: Any, repack: Any, variables: Any, rngs: Any, *args: Any) -> Any:
        @again
        def whole(variables: Any, rngs: Any, *args: Any) -> Any:
            scope = scope_fn(variables, rngs)
            y = fn(scope, *args)
            return y, repack(scope)

        return whole(variables, rngs, *args)

    return lift.pack(inner, (True,), (True,), (True,), name="recomputed")


def is_worth_it(x: jax.Array) -> bool:
    """Whether to compute again what comes of this array: it is large, and nothing around it will be."""
    if _inside.get() or any(map(export.is_symbolic_dim, x.shape)):  # an export for any batch has no gradients
        return False
    return x.size * x.dtype.itemsize >= LARGE


def lean(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `fn` that on a CPU is `again(fn)` where its first argument is worth it."""

    def call(x: jax.Array, *rest: Any) -> Any:
        if not is_worth_it(x):
            return fn(x, *rest)
        return lax.platform_dependent(x, *rest, cpu=again(fn), default=fn)

    return call


def again(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `fn` whose gradient computes it again from its arguments."""

    def inside(*args: Any) -> Any:
        token = _inside.set(True)
        try:
            return fn(*args)
        finally:
            _inside.reset(token)

    @jax.custom_vjp
    def whole(*args: Any) -> Any:
        return inside(*args)

    def forward(*args: Any) -> Any:
        return inside(*args), args

    def backward(args: Any, gradient: Any) -> Any:
        return jax.vjp(inside, *_hidden(args, gradient))[1](gradient)

    whole.defvjp(forward, backward)
    return functools.wraps(fn)(whole)


def _hidden(tree: Any, gradient: Any) -> Any:
    """Return the arrays of `tree`, by a way that XLA cannot see through, once there is a gradient."""
    first = jax.tree.leaves(gradient)[0].reshape(-1)[0].astype(jnp.float32)
    bits = lax.bitcast_convert_type(first, jnp.int32)
    leaves, shape = jax.tree.flatten(tree)
    real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    passed = [leaves[i] for i in real]
    passed = lax.cond(bits != _NEVER, lambda x: x, lambda x: jax.tree.map(jnp.zeros_like, x), passed)
    for i, leaf in zip(real, passed, strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(shape, leaves)

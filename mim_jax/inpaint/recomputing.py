"""Layers whose gradient recomputes them, so that intermediate values need not be stored: less memory.

`flax.linen.remat` does this if the compiler keeps both computations apart. XLA for CPU drops the barrier
between them and merges them again. Here a layer's inputs pass through a branch that is always taken, which
XLA cannot know, and which depends on the incoming gradient.
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

LARGE = 2**26  # bytes from which memory matters more than time
_inside: ContextVar[bool] = ContextVar("inside", default=False)  # in a recomputed function
_NEVER = np.int32(0x7FC0_1234)  # the bits of a NaN that no arithmetic produces


def recomputed(layer: Layer) -> Layer:
    """Return a class of modules like `layer`, with the same names and values, that stores less for gradients.

    Its statistics are updated once, like those of `layer`. Call it with arrays only; its random numbers come
    from a different key than those of `layer`.
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
    """Whether to recompute results of this array: it is large, and no enclosing function is recomputed."""
    if _inside.get() or any(map(export.is_symbolic_dim, x.shape)):  # an export for any batch has no gradients
        return False
    return x.size * x.dtype.itemsize >= LARGE


def lean(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `fn` that on a CPU is `again(fn)` if its first argument `is_worth_it`."""

    def call(x: jax.Array, *rest: Any) -> Any:
        if not is_worth_it(x):
            return fn(x, *rest)
        return lax.platform_dependent(x, *rest, cpu=again(fn), default=fn)

    return call


def again(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `fn` whose gradient recomputes it from its arguments."""

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
    """Return the arrays of `tree` in a way that XLA cannot see through, once `gradient` is available."""
    first = jax.tree.leaves(gradient)[0].reshape(-1)[0].astype(jnp.float32)
    bits = lax.bitcast_convert_type(first, jnp.int32)
    leaves, shape = jax.tree.flatten(tree)
    real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    passed = [leaves[i] for i in real]
    passed = lax.cond(bits != _NEVER, lambda x: x, lambda x: jax.tree.map(jnp.zeros_like, x), passed)
    for i, leaf in zip(real, passed, strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(shape, leaves)

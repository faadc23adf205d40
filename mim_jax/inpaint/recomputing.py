"""Less memory for large arrays: layers whose gradient recomputes them, and products in parts of the batch.

`flax.linen.remat` recomputes too, if the compiler keeps both computations apart. XLA for CPU drops the
barrier between them and merges them again. Here a layer's inputs pass through a branch that is always taken,
which XLA cannot know, and which depends on the incoming gradient.
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

LARGE = 2**26  # bytes of an input from which memory matters more than time
LARGEST = 2**29  # bytes of the largest matrix written out for a product
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


def lean(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `fn` that on a CPU is `again(fn)` if its first argument is large.

    Not if an enclosing function is recomputed anyway.
    """

    def call(x: jax.Array, *rest: Any) -> Any:
        if _inside.get() or _any_size(x) or x.size * x.dtype.itemsize < LARGE:
            return fn(x, *rest)
        return lax.platform_dependent(x, *rest, cpu=again(fn), default=fn)

    return call


def with_large_matrix(
    form: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    *,
    elements: int,
    stored: bool,
) -> jax.Array:
    """Return `form(x, kernel)`, for a convolution of images `[B, ...]` that writes out a matrix.

    The matrix has `elements` numbers. If it is large and gradients need it (`stored`), they recompute it. A
    matrix of more than `LARGEST` bytes is written out for one part of the batch after the other.
    """
    if _any_size(x):
        return form(x, kernel)
    size = elements * x.dtype.itemsize
    parts = min(-(-size // LARGEST), len(x))
    if parts > 1:
        return _in_parts(form, parts)(x, kernel)
    recompute = stored and size >= 2 * LARGE and not _inside.get()
    return (again(form) if recompute else form)(x, kernel)


def _in_parts(form: Callable[[jax.Array, jax.Array], jax.Array], parts: int) -> Any:
    """Return `form` computed, and recomputed for gradients, for one part of the batch after the other.

    A loop would do too, but XLA allocates and clears its results long before they are needed.
    """

    def part(n: int, x: jax.Array) -> jax.Array:
        return lax.slice_in_dim(x, n * len(x) // parts, (n + 1) * len(x) // parts)

    @jax.custom_vjp
    def whole(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = [form(part(0, x), kernel)]
        for n in range(1, parts):
            y.append(form(_hidden(x, y[-1], functools.partial(part, n)), kernel))
        return jnp.concatenate(y)

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return whole(x, kernel), (x, kernel)

    def backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = saved
        found: list[Any] = []
        for n in range(parts):
            own = _hidden(x, found[-1] if found else dy, functools.partial(part, n))
            found.append(jax.vjp(form, own, kernel)[1](part(n, dy)))
        dx, dkernel = zip(*found, strict=True)
        return jnp.concatenate(dx), sum(dkernel[1:], start=dkernel[0])

    whole.defvjp(forward, backward)
    return whole


def _any_size(x: jax.Array) -> bool:
    """Whether the shape has unknown dimensions: an export for any batch, which has no gradients."""
    return any(map(export.is_symbolic_dim, x.shape))


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


def _hidden(tree: Any, after: Any, take: Callable[[jax.Array], jax.Array] = lambda x: x) -> Any:
    """Return `take` of the arrays of `tree`, once `after` is available, in a way that XLA cannot see through.

    Arrays of integers are returned as they are.
    """
    known = [leaf for leaf in jax.tree.leaves(after) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    first = sum(leaf.reshape(-1)[0].astype(jnp.float32) for leaf in known)
    bits = lax.bitcast_convert_type(first, jnp.int32)
    leaves, shape = jax.tree.flatten(tree)
    real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def taken(leaves: list[jax.Array]) -> list[jax.Array]:
        return [take(leaf) for leaf in leaves]

    passed = lax.cond(
        bits != _NEVER,
        taken,
        lambda leaves: jax.tree.map(jnp.zeros_like, taken(leaves)),
        [leaves[i] for i in real],
    )
    for i, leaf in zip(real, passed, strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(shape, leaves)

"""Initial weights of all layers, drawn in one loop.

Normally each layer draws its own weights, and XLA compiles each draw separately: for a small network that
takes longer than compiling its training. So a first pass records what the layers ask for, one loop draws it
in blocks, and a second pass hands it out: bit for bit the numbers of `jax.random.normal`.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random as extended

T = TypeVar("T")
DEVIATION = 0.02
BLOCK = 2**14  # numbers drawn at a time

_draw: ContextVar[Callable[..., jax.Array] | None] = ContextVar("draw", default=None)


def gaussian(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, mean: float = 0) -> jax.Array:
    """Draw from N(mean, 0.02), as a Flax initializer."""
    if draw := _draw.get():
        return draw(key, shape, mean).astype(dtype)
    drawn = DEVIATION * jax.random.normal(key, shape, dtype)
    return mean + drawn if mean else drawn


def together(init: Callable[[], T]) -> T:
    """Return the result of `init()`, with all `gaussian` draws of its layers made in one loop.

    `init` is called twice: trace it, so that XLA removes what else it computes.
    """
    asked = list[tuple[jax.Array, tuple[int, ...], float]]()

    def ask(key: jax.Array, shape: tuple[int, ...], mean: float) -> jax.Array:
        asked.append((key, shape, mean))
        return jnp.zeros(shape)

    with _drawing(ask):
        found = init()
    if not all(_is_counted(key) for key, _, _ in asked):
        return init()
    if not asked:
        return found
    drawn = iter(_draw_all(asked))
    with _drawing(lambda *_: next(drawn)):
        return init()


@contextlib.contextmanager
def _drawing(draw: Callable[..., jax.Array]) -> Iterator[None]:
    token = _draw.set(draw)
    try:
        yield
    finally:
        _draw.reset(token)


def _is_counted(key: jax.Array) -> bool:
    """Whether random number i depends only on the key and i, which is JAX's default."""
    return (
        bool(jax.config.values["jax_threefry_partitionable"]) and jax.random.key_impl(key) == "threefry2x32"
    )


def _draw_all(asked: list[tuple[jax.Array, tuple[int, ...], float]]) -> Iterator[jax.Array]:
    sizes = [int(np.prod(shape)) for _, shape, _ in asked]
    blocks = [-(-size // BLOCK) for size in sizes]
    starts = np.concatenate([BLOCK * np.arange(count, dtype=np.uint32) for count in blocks])
    means = np.repeat(np.array([mean for _, _, mean in asked], np.float32), blocks)
    keys = jnp.stack([jax.random.key_data(key) for key, _, _ in asked])
    keys = jnp.repeat(keys, np.array(blocks), axis=0, total_repeat_length=len(starts))

    def block(given: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        key, start, mean = given
        counter = jax.random.wrap_key_data(jnp.append(key, start), impl=_FROM)
        return mean + DEVIATION * jax.random.normal(counter, (BLOCK,))

    drawn = lax.map(block, (keys, jnp.asarray(starts), jnp.asarray(means)))
    ends = np.cumsum(blocks)
    for (_, shape, _), size, count, end in zip(asked, sizes, blocks, ends, strict=True):
        yield drawn[end - count : end].reshape(-1)[:size].reshape(shape)


def _bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    """Threefry bits for the counters from `key[2]` on, under the key `key[:2]`."""
    counts = key[2] + lax.iota(jnp.uint32, shape[0])
    both = extended.threefry_2x32(key[:2], jnp.concatenate((jnp.zeros_like(counts), counts)))
    return both[: shape[0]] ^ both[shape[0] :]


def _none(*_: Any) -> Any:
    raise NotImplementedError("this kind of key only draws one block of numbers")


_FROM = extended.define_prng_impl(
    key_shape=(3,), seed=_none, split=_none, random_bits=_bits, fold_in=_none, name="mim_jax_from", tag="from"
)

"""Initial weights: those of all layers are drawn in one loop.

A layer draws its weights where it is initialised, and XLA compiles each draw apart: for a small network that
takes longer than compiling its training. So layers say what they want first, one loop draws it in blocks,
and then they get it: the numbers of `jax.random.normal`, bit for bit.
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
    """Draw from N(mean, 0.02): an initializer, as Flax calls it."""
    if draw := _draw.get():
        return draw(key, shape, mean).astype(dtype)
    drawn = DEVIATION * jax.random.normal(key, shape, dtype)
    return mean + drawn if mean else drawn


def together(init: Callable[[], T]) -> T:
    """Return what `init()` returns, with all that its layers draw by `gaussian` drawn in one loop.

    It is called twice, so it should compute nothing else: as by `flax.linen.Module.lazy_init`.
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
    """Whether number i depends on the key and i alone: so JAX has it unless it is told otherwise."""
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
    """Threefry's bits of the numbers from `key[2]` on, under the key `key[:2]`."""
    counts = key[2] + lax.iota(jnp.uint32, shape[0])
    both = extended.threefry_2x32(key[:2], jnp.concatenate((jnp.zeros_like(counts), counts)))
    return both[: shape[0]] ^ both[shape[0] :]


def _none(*_: Any) -> Any:
    raise NotImplementedError("a block of numbers is drawn once")


_FROM = extended.define_prng_impl(
    key_shape=(3,), seed=_none, split=_none, random_bits=_bits, fold_in=_none, name="mim_jax_from", tag="from"
)

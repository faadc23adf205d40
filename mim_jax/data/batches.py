"""Batches of a fixed size from any number of images: one compilation, and the same rounding for all."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.measure.host import as_array, checked_range

# `[N, S, S, 3]` in memory or memory-mapped, one `[S, S, 3]`, one PIL image, or an iterable of single images.
# Also tensors of other libraries on the CPU.
Images = np.ndarray | jax.Array | Iterable[np.ndarray]


PIECE = 8  # batches between two reports of progress


def batch_size() -> int:
    """Number of images scored at once: 8 on CPU, where more are not faster, else 32.

    The size is fixed, because matrix products over another number of rows are summed in another order: the
    score of an image would depend on how many others are in its batch.
    """
    return 8 if jax.default_backend() == "cpu" else 32


def padded_batches(images: Images, *, size: int, most: int | None = None) -> Iterator[tuple[np.ndarray, int]]:
    """Yield batches of `most` images, the last padded with zeros, each with its number of real images.

    `most` is `batch_size()` if not given. Holds at most one batch of an iterable, so a generator may read any
    number of files. If there are no images, one batch of zeros shows the shape of a result. `size` is the
    side that the images must have. ValueError for a wrong shape or dtype, two dtypes in one iterable, or
    floats outside [0, 1].
    """
    most = most or batch_size()
    images = at_the_door(images)
    if isinstance(images, np.ndarray):
        array = images[None] if images.ndim == 3 else images
        check_batch(array, size, wanted="[N, {0}, {0}, 3] or one [{0}, {0}, 3]", found=np.shape(images))
        starts = range(0, max(len(array), 1), most)
        batches: Iterator[np.ndarray] = (array[start : start + most] for start in starts)
    else:
        batches = _stacked(iter(images), size, most)
    for batch in batches:
        checked_range(batch)
        rest = np.zeros((most - len(batch), *batch.shape[1:]), batch.dtype)
        yield np.concatenate((batch, rest)), len(batch)


def at_the_door(images: Any) -> Any:
    """Convert one array (NumPy, JAX or a CPU tensor) or one PIL image to a NumPy array.

    Iterables of single images are returned unchanged.
    """
    if isinstance(images, np.ndarray):
        return images
    single = hasattr(images, "__array__") or hasattr(images, "convert")
    single = single or isinstance(images, str) or not isinstance(images, Iterable)
    return np.asanyarray(as_array(images)) if single else images


def on_device(batch: Any) -> Any:
    """Put a batch on the device, and wait until it is there.

    A program on the CPU runs in the thread that calls it only if its inputs are ready, which matters for
    memory: see `mim_jax.train.heap`.
    """
    return jax.block_until_ready(jax.device_put(batch))


def collect(score: Callable[[jax.Array], Any], batches: Iterable[tuple[np.ndarray, int]]) -> Any:
    """Score padded batches and join the results, as float64, along the last axis (the images).

    The next batch is read while the device computes the current one. `score` takes one padded batch on the
    device and returns a tree of arrays `[..., B]`; `batches`, at least one, are those of `padded_batches`.
    """
    parts = []
    waiting: tuple[Any, int] | None = None

    def fetch(scores: Any, real: int) -> Any:
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[..., :real], scores)

    for batch, real in batches:
        begun = score(on_device(batch)), real
        if waiting:
            parts.append(fetch(*waiting))
        waiting = begun
    assert waiting
    parts.append(fetch(*waiting))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1), *parts)


def in_pieces(score: Callable[[Any], Any], images: Any, progress: Callable[[int], None]) -> Any:
    """Score images piece by piece and join the results, reporting progress after each piece.

    A piece is a whole number of batches, so that the scores equal those of a single call: of `score`, a
    function of images `[N, S, S, 3]` that returns a tree of arrays `[..., N]`. `progress` is called with the
    number of images of each piece.
    """
    step, parts = PIECE * batch_size(), []
    for start in range(0, max(len(images), 1), step):
        piece = images[start : start + step]
        parts.append(score(piece))
        progress(len(piece))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1), *parts)


def _stacked(images: Iterator[np.ndarray], size: int, most: int) -> Iterator[np.ndarray]:
    dtype = None
    while few := [np.asarray(as_array(image)) for image in itertools.islice(images, most)]:
        for image in few:
            check_batch(image[None], size, wanted="[{0}, {0}, 3] each", found=image.shape)
            dtype = dtype or image.dtype
            if image.dtype != dtype:
                raise ValueError(f"images must have one dtype, got {dtype} and {image.dtype}: convert them")
        yield np.stack(few)
    if dtype is None:
        yield np.zeros((0, size, size, 3), np.uint8)


def check_batch(
    batch: np.ndarray | jax.Array,
    size: int,
    *,
    wanted: str = "[B, {0}, {0}, 3]",
    found: tuple[int, ...] | None = None,
) -> None:
    """Raise ValueError unless `batch`, which may be traced, is `[B, size, size, 3]`, uint8 or floating.

    The message names the required shape `wanted` and the shape `found`, by default that of the batch.
    """
    if batch.ndim != 4 or batch.shape[1:] != (size, size, 3):
        raise ValueError(
            f"images must be {wanted.format(size)}, got {list(batch.shape if found is None else found)}: "
            f"read files with mim_jax.data.images.load_image(path, size={size})"
        )
    # JAX's check, because NumPy does not count bfloat16 as a floating dtype.
    if batch.dtype != np.uint8 and not jnp.issubdtype(batch.dtype, jnp.floating):
        raise ValueError(f"images must be uint8, or float in [0, 1], not {batch.dtype}")

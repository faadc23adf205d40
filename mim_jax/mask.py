"""Masks: hole positions, and hiding, cutting and pasting an image's pixels (Eq. 1-3).

One image `[H, W, C]` at a time; use `jax.vmap` for a batch. Boxes are half-open: a hole of `mask_size` at
`offset = (row, column)` covers rows `row .. row + mask_size - 1`. (Eq. 1 prints inclusive bounds up to H,
which would reach outside the image.) In a mask 1 means hidden. All functions accept any pixel range; `fill`
is in the image's range.
"""

from typing import Any

import jax
import jax.numpy as jnp


def center_offset(size: int, mask_size: int) -> tuple[int, int]:
    """Offset of the centred hole used at inference.

    >>> center_offset(224, 112)
    (56, 56)
    """
    check_sizes(size, mask_size)
    start = (size - mask_size) // 2
    return start, start


def random_offsets(key: jax.Array, count: int, *, size: int, mask_size: int) -> jax.Array:
    """Draw hole positions, uniform over 0 .. size - mask_size inclusive on both axes: int32 `[count, 2]`.

    >>> random_offsets(jax.random.key(0), 5, size=224, mask_size=112).shape
    (5, 2)
    """
    check_sizes(size, mask_size)
    return jax.random.randint(key, (count, 2), 0, size - mask_size + 1, dtype=jnp.int32)


# Hole positions for scoring, as fractions of size - mask_size: 4 holes of half the image's size tile it.
_GRIDS: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.5, 0.5),),
    4: ((0, 0), (0, 1), (1, 0), (1, 1)),
    5: ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)),
    9: tuple((row, column) for row in (0, 0.5, 1) for column in (0, 0.5, 1)),
}


def grid_offsets(size: int, mask_size: int, holes: int) -> tuple[tuple[int, int], ...]:
    """Offsets of 1 hole (the centre), 4 (the corners), 5 (both) or 9 (three by three).

    >>> grid_offsets(224, 112, 4)
    ((0, 0), (0, 112), (112, 0), (112, 112))
    """
    if holes not in _GRIDS:
        raise ValueError(f"holes must be {', '.join(map(str, _GRIDS))}, got {holes}")
    check_sizes(size, mask_size)
    free = size - mask_size
    return tuple((int(row * free), int(column * free)) for row, column in _GRIDS[holes])


def box_mask(offset: jax.Array | tuple[Any, Any], *, size: int, mask_size: int) -> jax.Array:
    """The mask M of Eq. 1: float32 `[size, size, 1]`, 1 inside the hole and 0 elsewhere.

    >>> int(box_mask((56, 56), size=224, mask_size=112).sum()) == 112**2
    True
    """
    check_sizes(size, mask_size)
    row, column = offset[0], offset[1]
    index = jnp.arange(size)
    rows = (index >= row) & (index < row + mask_size)
    columns = (index >= column) & (index < column + mask_size)
    return (rows[:, None] & columns[None, :])[..., None].astype(jnp.float32)


def hide(
    image: jax.Array,
    offset: jax.Array | tuple[int, int],
    *,
    mask_size: int,
    margin: int = 0,
    fill: float = 1.0,
) -> jax.Array:
    """Image `[S, S, C]` with the hole set to `fill`, 1 = white (Eq. 2, `I' = I * (1 - M) + M`).

    A border of `margin` pixels around the hole is hidden too, clipped at the edge of the image.

    >>> hide(jnp.zeros((4, 4, 3)), (1, 1), mask_size=2)[:, :, 0].sum()
    Array(4., dtype=float32)
    """
    corner = offset[0] - margin, offset[1] - margin
    mask = box_mask(corner, size=image.shape[0], mask_size=mask_size + 2 * margin)
    # A selection instead of the paper's sum: same values, but pixels outside the hole stay bit-identical.
    return jnp.where(mask > 0, jnp.asarray(fill, image.dtype), image)


def cut(image: jax.Array, offset: jax.Array | tuple[int, int], *, mask_size: int) -> jax.Array:
    """Pixels inside the hole, `I_masked` of Eq. 3: `[mask_size, mask_size, C]`.

    >>> cut(jnp.zeros((224, 224, 3)), (56, 56), mask_size=112).shape
    (112, 112, 3)
    """
    check_sizes(image.shape[0], mask_size)
    return jax.lax.dynamic_slice(image, _start(offset), (mask_size, mask_size, image.shape[-1]))


def paste(image: jax.Array, patch: jax.Array, offset: jax.Array | tuple[int, int]) -> jax.Array:
    """Image with `patch` `[M, M, C]` pasted into the hole; all other pixels stay bit-identical.

    >>> paste(jnp.zeros((4, 4, 3)), jnp.ones((2, 2, 3)), (1, 1))[..., 0].sum()
    Array(4., dtype=float32)
    """
    check_sizes(image.shape[0], patch.shape[0])
    return jax.lax.dynamic_update_slice(image, patch.astype(image.dtype), _start(offset))


def _start(offset: jax.Array | tuple[int, int]) -> tuple[Any, Any, Any]:
    """Start of the hole on three axes, all int32: under x64 a bare 0 would be int64."""
    row, column = (jnp.asarray(each, jnp.int32) for each in (offset[0], offset[1]))
    return row, column, jnp.int32(0)


def check_sizes(size: int, mask_size: int, margin: int = 0) -> None:
    """Raise ValueError unless a hole of `mask_size` with its margin fits into an image of `size`."""
    if not 0 < mask_size <= size - 2 * margin:
        hidden = f"mask_size={mask_size}" + (
            f" + 2 x margin={margin} = {mask_size + 2 * margin}" if margin else ""
        )
        raise ValueError(f"{hidden} does not fit the image (size={size}): choose 1 to {size}")

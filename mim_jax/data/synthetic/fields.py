"""Fields on the unit square, sampled at `size` pixels: noise, blur, soft steps, strokes; and positions in it.

Lengths are in image sides, so that the size changes the sharpness and not the scene. NumPy only.
"""

from functools import lru_cache

import numpy as np

LATTICES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@lru_cache(maxsize=128)
def _spline(cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cubic B-spline interpolation of a lattice of cells + 3 points, averaged over each pixel.

    Returns the indices [T, size] of the points each pixel mixes and their weights, of unit mean square.
    """
    position = (np.arange(4 * size) + 0.5) / (4 * size) * cells
    t = np.abs(position[:, None] - (np.arange(cells + 3) - 1))
    weight = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.maximum(2 - t, 0) ** 3 / 6)
    weight = weight.reshape(size, 4, -1).mean(1)
    first = (weight > 0).argmax(1)
    taps = np.arange(int((weight > 0).sum(1).max()))
    index = np.minimum(first + taps[:, None], cells + 2)
    inside = first + taps[:, None] < cells + 3
    mean_square = 0.479  # mean square of the spline's weights over a cell
    mixed = weight[np.arange(size), index] * inside / mean_square**0.5
    return index, mixed.astype(np.float32)


def _upsampled(lattice: np.ndarray, size: int) -> np.ndarray:
    """A lattice [cells + 3, n] interpolated along its first axis to [size, n]."""
    index, weight = _spline(len(lattice) - 3, size)
    total = weight[0][:, None] * lattice[index[0]]
    for i, w in zip(index[1:], weight[1:], strict=True):
        total += w[:, None] * lattice[i]
    return total


def blurred(planes: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur over the last two axes, borders repeated; sigma in image sides, kernel cut at 2.5 sigma.

    Written as shifted slices: matrix products would work too, but for matrices this small a threaded BLAS on
    busy cores takes ten times as long.
    """
    spread = sigma * planes.shape[-1]
    if spread < 0.25:
        return planes
    reach = int(np.ceil(2.5 * spread))
    weight = np.exp(-0.5 * (np.arange(reach + 1) / spread) ** 2)
    weight = (weight / (2 * weight.sum() - weight[0])).astype(np.float32)
    for axis in (-2, -1):
        margin = [(0, 0)] * planes.ndim
        margin[axis] = (reach, reach)
        padded = np.moveaxis(np.pad(planes, margin, mode="edge"), axis, 0)
        side = len(padded) - 2 * reach
        total = weight[0] * padded[reach : reach + side]
        for shift in range(1, reach + 1):
            ahead, behind = reach + shift, reach - shift
            total += weight[shift] * (padded[ahead : ahead + side] + padded[behind : behind + side])
        planes = np.moveaxis(total, 0, axis)
    return planes


@lru_cache(maxsize=8)
def centres(size: int) -> np.ndarray:
    """Pixel centres [size] along a side, in image sides."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


def noise(rng: np.random.Generator, cells: float, size: int, *, across: float | None = None) -> np.ndarray:
    """Smooth noise [size, size] of about unit variance with `cells` features a side (`across`: horizontally).

    Features finer than a pixel average out as they do in a camera, and the draw does not depend on the size.
    """
    rows, columns = (
        min(LATTICES, key=lambda lattice: abs(lattice - wanted))
        for wanted in (cells, cells if across is None else across)
    )
    lattice = rng.standard_normal((rows + 3, columns + 3), np.float32)
    return _upsampled(_upsampled(lattice, size).T, size).T


def falling(rho: np.ndarray, edge: float, soft: float) -> np.ndarray:
    """Smooth step from 1 (rho below edge - soft) to 0 (rho above edge + soft)."""
    t = np.clip((edge + soft - rho) * (0.5 / soft), 0, 1)
    return t * t * (3 - 2 * t)


def ring(rho: np.ndarray, at: float, width: float) -> np.ndarray:
    """Smooth bump of height 1 at rho = at that reaches 0 at a distance of `width`."""
    t = (rho - at) * (1 / width)
    t = np.maximum(1 - t * t, 0)
    return t * t


def strokes(size: int, control: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Coverage [size, size] in [0, 1] of quadratic Bezier strokes.

    `control` holds their control points [K, 3, 2] as (row, column), `width` their widths [K], in image sides.
    Every stroke is cut into samples that carry their own area, and each sample is divided among the four
    nearest pixels; a hair thinner than a pixel thus gets paler, not ragged.
    """
    first, middle, last = (control[:, i, None, :] for i in range(3))
    reach = np.abs(np.diff(control, axis=1)).sum(axis=(1, 2)).max(initial=0)
    steps = int(1.6 * size * reach) + 2
    lanes = int(np.ceil(1.6 * size * width.max(initial=0))) + 1
    t = ((np.arange(steps) + 0.5) / steps)[None, :, None]
    tangent = 2 * (1 - t) * (middle - first) + 2 * t * (last - middle)
    speed = np.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-9
    normal = np.concatenate([-tangent[..., 1:], tangent[..., :1]], -1) / speed
    lane = ((np.arange(lanes) + 0.5) / lanes - 0.5) * width[:, None]
    point = (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last
    sample = point[:, :, None, :] + normal[:, :, None, :] * lane[:, None, :, None]
    area = np.broadcast_to(speed * (width[:, None, None] * (size * size / (steps * lanes))), sample.shape[:3])

    # One pixel of margin catches samples outside the image.
    place = np.clip(sample * size + 0.5, 0, size + 0.999).reshape(-1, 2)
    corner = place.astype(np.intp)
    part = place - corner
    side = size + 2
    total = np.zeros(side * side)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1]) * area.ravel()
            index = (corner[:, 0] + down) * side + corner[:, 1] + right
            total += np.bincount(index, share, side * side)
    return np.minimum(total.reshape(side, side)[1:-1, 1:-1], 1).astype(np.float32)


def scatter(
    rng: np.random.Generator, count: int, apart: float, *, spread: float | None = None
) -> list[tuple[float, float]]:
    """Draw up to `count` positions (x, y), at least `apart`, all over the image or in a cluster.

    `spread`: standard deviation of the cluster; above 1 = all over the image; None = drawn at random.
    """
    if spread is None:
        spread = float(rng.choice([0.18, 0.3, 9.0], p=[0.15, 0.25, 0.6]))
    if spread > 1:
        candidates = rng.uniform(-0.06, 1.06, (5 * count + 5, 2))
    else:
        candidates = rng.uniform(0.35, 0.65, 2) + rng.normal(0, spread, (5 * count + 5, 2))
    # The first is well inside the picture: somebody aimed the camera.
    kept = [0.5 + 0.5 * (np.clip(candidates[0], 0.1, 0.9) - 0.5)]
    for candidate in candidates[1:]:
        if len(kept) >= count:
            break
        gap = np.asarray(kept) - candidate
        if (gap * gap).sum(1).min() >= apart * apart:
            kept.append(candidate)
    return [(float(x), float(y)) for x, y in kept]

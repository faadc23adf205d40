"""The clinical test of the paper (section 3.4): which images meet in it, whatever scores them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mim_jax.evaluate.robustness.conditions import GroupedImages
from mim_jax.evaluate.robustness.corruptions import CORRUPTIONS

BATCH = 16


def draw(positives: Sequence[GroupedImages], count: int, *, sigma: float, seed: int) -> list[GroupedImages]:
    """For each fold `count` of its mpox test images, in shuffled rounds: none again before every other.

    Raises:
      ValueError: a sigma that is no standard deviation.
    """
    if not 0 <= sigma < np.inf:
        raise ValueError(f"sigma={sigma} is no standard deviation: give 0 or more, for values in [0, 1]")
    generator = np.random.default_rng(seed)
    return [own.take(_rounds(generator, len(own.images), count)) for own in positives]


def add_noise(images: np.ndarray, *, sigma: float, seed: int, first: int) -> np.ndarray:
    """Images uint8 `[N, S, S, 3]` with clipped Gaussian noise, float32 in [0, 1].

    Image i has the noise of number `first + i`, as in `conditions.score_conditions`.
    """
    noise = jax.jit(CORRUPTIONS["noise"])
    key, parts = jax.random.key(seed), []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH].astype(np.float32) / 255
        index = np.arange(first + start, first + start + len(part), dtype=np.int32)
        parts.append(np.asarray(noise(key, part, sigma, index=index)))
    return np.concatenate(parts)


def describe(positives: Sequence[GroupedImages], count: int, *, sigma: float, seed: int) -> dict[str, Any]:
    """What the test was, for results.json."""
    return {
        "sigma": float(sigma),
        "seed": seed,
        "images": {
            "positives": count,
            "negatives": count,
            "of_positives": [len(own.images) for own in positives],
        },
    }


def _rounds(generator: np.random.Generator, count: int, wanted: int) -> np.ndarray:
    """`wanted` of `count` positions, in shuffled rounds through all of them."""
    rounds = [generator.permutation(count) for _ in range(-(-wanted // max(count, 1)))]
    return np.concatenate([np.zeros(0, int), *rounds])[:wanted]

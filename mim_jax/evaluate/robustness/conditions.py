"""Score images under changed conditions: corrupted, or with another hole.

A condition is a corruption at a strength, a position of the hole, and a side of the patch pasted into it.
Each is a number given to a compiled program, so that one program scores all conditions. Corruptions by
Pillow (JPEG) are made on the host.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mim_jax import mask
from mim_jax.data.batches import collect, on_device, padded_batches
from mim_jax.detector import Detector
from mim_jax.evaluate.robustness.corruptions import CORRUPTIONS
from mim_jax.evaluate.scores import two_sides
from mim_jax.evaluate.statistics.auroc import draw_groups, sample_aurocs
from mim_jax.inpaint.inference import network_fill
from mim_jax.measure import METRICS
from mim_jax.measure import images as pixels
from mim_jax.measure.similarity import Measure, Similarities

Scores = dict[str, np.ndarray]  # each metric, float64 [conditions, N]
BATCH = 16  # images per batch; at least 2, because a batch of one rounds differently on a CPU


class Condition(NamedTuple):
    """The way an image is scored; the defaults are the plain score."""

    corruption: str = "noise"  # one of `CORRUPTIONS`
    strength: float = 0.0
    position: float = 0.0  # position of the hole, from 0 = centre to 1 = upper left corner
    # Side of the pasted patch, as a share of the hole's side. The network always fills the hole it was
    # trained on; around the central patch, the image's own pixels are restored.
    side: float = 1.0


class GroupedImages(NamedTuple):
    """Images `[N, S, S, 3]`, uint8 or float in [0, 1], and the group of each (e.g. its patient), `[N]`."""

    images: np.ndarray
    groups: np.ndarray

    def take(self, index: np.ndarray) -> "GroupedImages":
        """Select the images at positions `index`."""
        return GroupedImages(self.images[index], np.asarray(self.groups)[index])


def score_conditions(
    models: Sequence[Detector],
    images: np.ndarray,
    conditions: Sequence[Condition],
    *,
    key: jax.Array,
    first: int = 0,
    progress: Callable[[int], None] | None = None,
    like: Any = None,
) -> list[Scores]:
    """Compute each metric of every image in every condition, for each model: float64 `[conditions, N]`.

    Hole conditions do not apply to detectors other than MIM. The region "mask" is the whole trained hole in
    all conditions.

    Args:
      models: single-fold detectors that differ only in their variables.
      images: uint8 or float in [0, 1], `[N, S, S, 3]`.
      conditions: the conditions to score in.
      key, first: the noise of image i depends only on `key` and `first + i`.
      progress: called with the number of images scored since the last call, summed over models.
      like: detector whose compiled program is reused for detectors other than MIM; None = the first model.
    """
    score = _scorer(models, like or models[0])
    holes: dict[tuple[float, float], list[int]] = {}  # position and side -> the conditions with that hole
    for i, condition in enumerate(conditions):
        holes.setdefault((condition.position, condition.side), []).append(i)
    found: list[Scores] = [{} for _ in models]
    for start in range(0, len(images), BATCH):
        chunk = np.asarray(images[start : start + BATCH])
        corrupt = _corrupter(key, chunk, first + start)
        for hole, rows in holes.items():
            # The images of all conditions share batches, of which only the last is padded.
            made = (image for i in rows for image in corrupt(conditions[i]))
            batches = padded_batches(made, size=chunk.shape[1], most=BATCH)
            every = collect(functools.partial(score, hole=hole), batches)
            for metric, by_model in every.items():
                for scores, own in zip(found, by_model, strict=True):
                    whole = scores.setdefault(metric, np.empty((len(conditions), len(images))))
                    whole[rows, start : start + len(chunk)] = own.reshape(len(rows), len(chunk))
        if progress:
            progress(len(chunk) * len(models))
    return found


def _scorer(models: Sequence[Any], like: Any) -> Callable[..., Mapping[str, Any]]:
    """Return a function of images and `hole`, a position and a side: each metric, `[B]` for each model."""
    if not isinstance(like, Detector):
        program = like.program[0]
        _, variables = models[0].join(models).pure(each_fold=True)
        return lambda images, hole: {m: list(own) for m, own in program(variables, images).items()}
    size, centre = like.mask_size, mask.center_offset(like.image_size, like.mask_size)[0]
    sizes = {"mask_size": size, "margin": like.margin}

    def score(images: jax.Array, hole: tuple[float, float]) -> Mapping[str, Any]:
        start = round(centre * (1 - hole[0]))
        offset, side = np.full(2, start, np.int32), np.int32(max(1, round(size * hole[1])))
        every = [
            _similarities(m.generator, m.variables[0], images, offset, side, measure=m.measure, **sizes)
            for m in models
        ]
        return {metric: [getattr(scores, metric) for scores in every] for metric in METRICS}

    return score


def _corrupter(key: jax.Array, images: np.ndarray, first: int) -> Callable[[Condition], np.ndarray]:
    """Return a function of a condition: at most `BATCH` images corrupted, float32 in [0, 1]."""
    padded, count = next(padded_batches(images, size=images.shape[1], most=BATCH))
    here, index = on_device(padded), np.arange(first, first + BATCH, dtype=np.int32)

    def corrupt(condition: Condition) -> np.ndarray:
        name, strength = condition.corruption, condition.strength
        if CORRUPTIONS[name].on_host:
            changed = _as_float(CORRUPTIONS[name](key, padded, strength, index=index))
        else:
            changed = _corrupted(key, here, np.float32(strength), index, name=name)
        return np.asarray(changed)[:count]

    return corrupt


_as_float = jax.jit(pixels.as_float)


@functools.partial(jax.jit, static_argnames="name")
def _corrupted(key: jax.Array, images: Any, strength: Any, index: Any, *, name: str) -> jax.Array:
    return CORRUPTIONS[name](key, pixels.as_float(images), strength, index=index)


def score_folds(
    models: Sequence[Detector],
    positives: Sequence[GroupedImages],
    negatives: GroupedImages,
    conditions: Sequence[Condition],
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Scores], list[Scores]]:
    """Score each fold's own positives, and the shared negatives by every fold's model.

    Every image has its own noise, the same for all models. ValueError if a side has no images.
    """
    sides = {"negatives": negatives} | {f"positives of fold {k}": own for k, own in enumerate(positives)}
    for name, side in sides.items():
        if not len(side.images):
            raise ValueError(f"there are no {name}: AUROC needs images of both sides in every fold")
    key = jax.random.key(seed)
    score = functools.partial(
        score_conditions, conditions=conditions, key=key, progress=progress, like=models[0]
    )
    upper, first = [], len(negatives.images)
    for model, own in zip(models, positives, strict=True):
        upper += score([model], own.images, first=first)
        first += len(own.images)
    return upper, score(models, negatives.images)


def areas(
    upper: Sequence[np.ndarray],
    lower: Sequence[np.ndarray],
    positives: Sequence[GroupedImages],
    negatives: GroupedImages,
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """AUROC in every condition: {"mean", "low", "high", "folds": [floats]}.

    `upper` holds the scores of each fold's positives, `[conditions, P_k]`, `lower` the scores of the
    negatives by each fold's model, `[conditions, N]`; `positives` and `negatives` provide only the groups.
    The resamples of the cluster bootstrap are the same for all conditions.
    """
    folds = []
    for own, other, images in zip(upper, lower, positives, strict=True):
        rows = np.concatenate((own, other), axis=1)
        columns = {f"condition {i}": row for i, row in enumerate(rows)}  # instead of one per metric
        folds.append(two_sides(columns, images.groups, negatives.groups))
    draws = draw_groups(folds, resamples=resamples, seed=seed)
    result = []
    for condition in folds[0].similarities:
        samples = sample_aurocs(folds, condition, draws)
        value, low, high = samples.mean()
        result.append({"mean": value, "low": low, "high": high, "folds": samples.values.tolist()})
    return result


@functools.partial(jax.jit, static_argnames=("generator", "mask_size", "margin", "measure"))
def _similarities(
    generator: nn.Module,
    variables: Any,
    images: jax.Array,
    offset: jax.Array,
    side: jax.Array,
    *,
    mask_size: int,
    margin: int,
    measure: Measure,
) -> Similarities:
    """Compute each metric `[B]` of images `[B, S, S, 3]` with a patch of `side` pixels in the hole."""
    painted = network_fill(generator, variables, images, offset, mask_size=mask_size, margin=margin)
    own = jax.vmap(functools.partial(mask.cut, offset=offset, mask_size=mask_size))(images)
    start, at = (mask_size - side) // 2, jnp.arange(mask_size)
    inside = (at >= start) & (at < start + side)
    patches = jnp.where((inside[:, None] & inside[None, :])[None, :, :, None], painted, own)
    return measure.compare(images, patches, offset)

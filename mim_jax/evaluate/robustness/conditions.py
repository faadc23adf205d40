"""Score images under changed conditions: corrupted, or with another hole.

A condition is a corruption at a strength, a position of the hole, and a side of the patch pasted into it.
All conditions are one program: a batch goes to the device once and is scored in every condition. Corruptions
by Pillow (JPEG) are made on the host beforehand: the original batch and each of these versions are sent.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mim_jax import mask
from mim_jax.detector import Detector
from mim_jax.evaluate.robustness.corruptions import CORRUPTIONS
from mim_jax.evaluate.scores import two_sides
from mim_jax.evaluate.statistics.auroc import draw_groups, sample_aurocs
from mim_jax.inpaint.inference import network_fill
from mim_jax.measure import METRICS
from mim_jax.measure import images as pixels
from mim_jax.measure.similarity import Measure, Similarities

Scores = dict[str, np.ndarray]  # each metric, float64 [conditions, N]
_ON_DEVICE = [name for name, corruption in CORRUPTIONS.items() if not corruption.on_host]


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


class _Numbers(NamedTuple):
    """Conditions as arrays: int32 `[n]` twice, float32 `[n]`, int32 `[n, 2]`, int32 `[n]`."""

    source: jax.Array  # 0 = the original images, 1, 2, ... = versions corrupted on the host
    corruption: jax.Array  # index in `_ON_DEVICE`
    strength: jax.Array
    offset: jax.Array
    side: jax.Array


def score_conditions(
    models: Sequence[Detector],
    images: np.ndarray,
    conditions: Sequence[Condition],
    *,
    key: jax.Array,
    first: int = 0,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
    like: Any = None,
) -> list[Scores]:
    """Compute each metric of every image in every condition, for each model: float64 `[conditions, N]`.

    One program scores MIM in all conditions. Other detectors use their own program, one condition after the
    other; hole conditions do not apply to them.

    The region "mask" is the whole trained hole in all conditions.

    Args:
      models: single-fold detectors that differ only in their variables.
      images: uint8 or float in [0, 1], `[N, S, S, 3]`.
      conditions: the conditions to score in.
      key: key of the noise; the noise of image i depends only on `key` and `first + i`.
      first: number of the first image.
      batch: images per batch; the last batch is padded to avoid recompilation.
      progress: called with the number of images scored since the last call, summed over models.
      like: detector whose compiled program is reused for detectors other than MIM; None = the first model.
    """
    if not isinstance(models[0], Detector):
        score = (like or models[0]).program[0]
        return _score_by_pixels(models, images, conditions, key, first, batch, progress, score)
    on_host = list(
        dict.fromkeys((c.corruption, c.strength) for c in conditions if CORRUPTIONS[c.corruption].on_host)
    )
    numbers = _numbers(conditions, on_host, models[0].image_size, models[0].mask_size)
    done: list[list[Similarities]] = [[] for _ in models]
    for part, index, real in _batches(images, first, batch):
        made = [CORRUPTIONS[name](key, part, strength, index=index) for name, strength in on_host]
        on_device = jax.device_put((np.stack([part, *made]), index))
        for scores, model in zip(done, models, strict=True):
            every = _similarities(
                key,
                model.variables[0],
                *on_device,
                numbers,
                generator=model.generator,
                mask_size=model.mask_size,
                margin=model.margin,
                measure=model.measure,
            )
            scores.append(jax.tree.map(lambda s, real=real: np.asarray(s, np.float64)[:, :real], every))
            if progress:
                progress(real)
    return [
        {metric: np.concatenate([getattr(s, metric) for s in scores], axis=1) for metric in METRICS}
        for scores in done
    ]


def _score_by_pixels(
    models: Sequence[Any],
    images: np.ndarray,
    conditions: Sequence[Condition],
    key: jax.Array,
    first: int,
    batch: int,
    progress: Callable[[int], None] | None,
    score: Callable[..., Any],
) -> list[Scores]:
    """Score detectors other than MIM: corrupt the images for each condition, then score them."""
    _, variables = models[0].join(models).pure(each_fold=True)
    parts: list[Scores] = []  # metric -> [conditions, models, images]
    for part, index, real in _batches(images, first, batch):
        rows = []
        for name, strength in ((condition.corruption, condition.strength) for condition in conditions):
            if CORRUPTIONS[name].on_host:
                made = CORRUPTIONS[name](key, part, strength, index=index)
            else:
                made = _corrupted(key, part, strength, index, name=name)
            rows.append(score(variables, made))
        parts.append({m: np.stack([np.asarray(r[m], np.float64)[:, :real] for r in rows]) for m in rows[0]})
        if progress:
            progress(real * len(models))
    every = {m: np.concatenate([part[m] for part in parts], axis=-1) for m in models[0].metrics}
    return [{m: scores[:, k] for m, scores in every.items()} for k in range(len(models))]


@functools.partial(jax.jit, static_argnames="name")
def _corrupted(key: jax.Array, images: Any, strength: float, index: Any, *, name: str) -> jax.Array:
    return CORRUPTIONS[name](key, pixels.as_float(images), strength, index=index)


def score_folds(
    models: Sequence[Detector],
    positives: Sequence[GroupedImages],
    negatives: GroupedImages,
    conditions: Sequence[Condition],
    *,
    seed: int,
    batch: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Scores], list[Scores]]:
    """Score each fold's own positives, and the shared negatives by every fold's model.

    Every image has its own noise, the same for all models.

    Raises:
      ValueError: models and images that do not match, or a side without images.
    """
    _check(models, positives, negatives, batch)
    score = functools.partial(
        score_conditions,
        conditions=conditions,
        key=jax.random.key(seed),
        batch=batch,
        progress=progress,
        like=models[0],
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
    key: jax.Array,
    variables: Any,
    images: jax.Array,
    index: jax.Array,
    conditions: _Numbers,
    *,
    generator: nn.Module,
    mask_size: int,
    margin: int,
    measure: Measure,
) -> Similarities:
    """Compute each metric `[conditions, B]` of images `[sources, B, S, S, 3]`.

    Conditions run one at a time, so that memory is needed for only one.
    """
    images = pixels.as_float(images)
    corruptions = [functools.partial(CORRUPTIONS[name], key, index=index) for name in _ON_DEVICE]
    at = jnp.arange(mask_size)

    def score(condition: _Numbers) -> Similarities:
        corrupted = jax.lax.switch(
            condition.corruption, corruptions, images[condition.source], condition.strength
        )
        painted = network_fill(
            generator, variables, corrupted, condition.offset, mask_size=mask_size, margin=margin
        )
        cut = functools.partial(mask.cut, offset=condition.offset, mask_size=mask_size)
        start = (mask_size - condition.side) // 2
        inside = (at >= start) & (at < start + condition.side)
        patches = jnp.where(
            (inside[:, None] & inside[None, :])[None, :, :, None], painted, jax.vmap(cut)(corrupted)
        )
        return measure.compare(corrupted, patches, condition.offset)

    return jax.lax.map(score, conditions)


def _numbers(
    conditions: Sequence[Condition], on_host: Sequence[tuple[str, float]], size: int, mask_size: int
) -> _Numbers:
    sources = {made: row for row, made in enumerate(on_host, start=1)}
    centre = mask.center_offset(size, mask_size)[0]
    starts = [round(centre * (1 - condition.position)) for condition in conditions]
    source = [sources.get((condition.corruption, condition.strength), 0) for condition in conditions]
    # Images corrupted on the host pass unchanged through the first corruption of the device, at strength 0.
    here = [
        (0, 0.0) if row else (_ON_DEVICE.index(condition.corruption), condition.strength)
        for row, condition in zip(source, conditions, strict=True)
    ]
    return _Numbers(
        source=jnp.array(source, jnp.int32),
        corruption=jnp.array([place for place, _ in here], jnp.int32),
        strength=jnp.array([strength for _, strength in here], jnp.float32),
        offset=jnp.array([(start, start) for start in starts], jnp.int32),
        side=jnp.array([max(1, round(mask_size * condition.side)) for condition in conditions], jnp.int32),
    )


def _batches(images: np.ndarray, first: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield batches padded with zeros to `size`, the image numbers, and the number of real images."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padding = np.zeros((size - len(part), *part.shape[1:]), part.dtype)
        index = np.arange(first + start, first + start + size, dtype=np.int32)
        yield np.concatenate((part, padding)), index, len(part)


def _check(
    models: Sequence[Detector], positives: Sequence[GroupedImages], negatives: GroupedImages, batch: int
) -> None:
    if not models or len(models) != len(positives):
        raise ValueError(
            f"{len(models)} models for {len(positives)} sets of positives: give every model its test set"
        )
    first = models[0]
    for index, model in enumerate(models):
        if model.folds != 1:
            raise ValueError(
                f"detector {index} holds {model.folds} folds, expected one: load single folds with "
                "mim_jax.load(path, fold=k)"
            )
        kinds = [_kind(m) for m in (first, model)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"detectors 0 and {index} differ in network, image size, mask size or measure: use one run's"
            )
    if batch < 2:
        # On a CPU a batch of one rounds differently from larger batches.
        raise ValueError(f"batch={batch} is too small: score at least 2 images at once")
    sides = {"negatives": negatives} | {f"positives of fold {k}": own for k, own in enumerate(positives)}
    shape = (first.image_size, first.image_size, 3)
    for name, (images, groups) in sides.items():
        if not len(images):
            raise ValueError(f"there are no {name}: AUROC needs images of both sides in every fold")
        if images.shape[1:] != shape:
            raise ValueError(f"the {name} must be [N, {shape[0]}, {shape[1]}, 3], got {images.shape}")
        if len(groups) != len(images):
            raise ValueError(
                f"the {name} are {len(images)} images with {len(groups)} groups: give one per image"
            )


def _kind(model: Any) -> tuple[Any, ...]:
    if isinstance(model, Detector):
        return model.generator, model.image_size, model.mask_size, model.measure
    return type(model), model.image_size, model.metrics

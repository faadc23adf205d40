"""The robustness sheet and the clinical test: AUROC on degraded photographs, and on clinical images.

Two experiments on the fold models: a sheet of corruptions, mask positions and mask sizes at five strengths
each, and the clinical test of the paper (section 3.4). Nothing is fitted here; thresholds are arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mim_jax.detector import Detector
from mim_jax.evaluate.robustness.conditions import BATCH, Condition, GroupedImages, areas, score_folds
from mim_jax.evaluate.robustness.corruptions import CORRUPTIONS
from mim_jax.evaluate.scores import ScoredImages, two_sides

POSITIONS = (0.2, 0.4, 0.6, 0.8, 1.0)  # positions of the hole, 0 = centre; see `Condition`
SIDES = (0.9, 0.8, 0.65, 0.5, 0.35)  # sides of the pasted patch, 1 = the hole; see `Condition`
SIGMAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)  # standard deviations of the noise sweep, values in [0, 1]


def robustness_sheet(
    models: Sequence[Detector],
    positives: Sequence[GroupedImages],
    negatives: GroupedImages,
    thresholds: Sequence[float | None],
    *,
    limit: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """AUROC and missed mpox under seven corruptions, mask positions and mask sizes, at five strengths each.

    Mpox and other images are corrupted alike. Read missed mpox together with "false_alarms", which here are
    all other images above the lower threshold, called mpox-like or undecided: a corruption that raises every
    score misses nothing and rules nothing out. A hole larger than the trained one cannot be inpainted, so
    sizes are shares of it. With a `limit`, the AUROC of uncorrupted images is for the drawn images only.
    Arguments and errors are those of `clinical_test`, and:

    Args:
      thresholds: for each fold, the score that mpox-like images must strictly exceed; None = no threshold.
      limit: maximum number of mpox images per fold, and of other images in all, drawn by `seed`; None = all.
        Each image needs 46 scores by every model that scores it.

    Returns:
      Plain values, ready for JSON: "metric"; "limit"; "seed"; "images": {"positives": [used in each fold],
        "negatives": used, "of_positives": [given], "of_negatives": given}; "thresholds"; "plain": the entry
        without corruption; "axes": {name: {"unit": str, "strengths": [5 floats], "entries": [5 entries]}},
        named as in `CORRUPTIONS`, then "mask_position" and "mask_size". An entry is {"auroc": {"mean", "low",
        "high", "folds"}, "missed": {"mean", "folds"}, "false_alarms": {"mean", "folds"}}: means over folds,
        the 95 % interval of the cluster bootstrap, the share of mpox not above the fold's threshold, and the
        share of other images above it; shares are None if there is no threshold.
    """
    generator = np.random.default_rng(seed)
    own = [_limited(generator, images, limit) for images in positives]
    others = _limited(generator, negatives, limit)
    axes = _axes(holes=isinstance(models[0], Detector))
    conditions = [Condition(), *(condition for _, _, row in axes.values() for condition in row)]
    scores = score_folds(models, own, others, conditions, seed=seed, progress=progress)
    metric = models[0].metric
    upper, lower = ([fold[metric] for fold in side] for side in scores)
    entries = [
        {
            "auroc": area,
            "missed": _shares([fold[i] for fold in upper], thresholds, above=False),
            "false_alarms": _shares([fold[i] for fold in lower], thresholds, above=True),
        }
        for i, area in enumerate(areas(upper, lower, own, others, resamples=resamples, seed=seed))
    ]
    rows = iter(entries[1:])
    return {
        "metric": metric,
        "limit": limit,
        "seed": seed,
        "images": {
            "positives": [len(fold.images) for fold in own],
            "negatives": len(others.images),
            "of_positives": [len(fold.images) for fold in positives],
            "of_negatives": len(negatives.images),
        },
        "thresholds": list(thresholds),
        "plain": entries[0],
        "axes": {
            name: {"unit": unit, "strengths": list(strengths), "entries": [next(rows) for _ in strengths]}
            for name, (unit, strengths, _) in axes.items()
        },
    }


def clinical_test(
    models: Sequence[Detector],
    positives: Sequence[GroupedImages],
    negatives: GroupedImages,
    *,
    sigma: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], list[ScoredImages]]:
    """Clinical test (section 3.4 of the paper): noisy mpox against as many clinical images, by every model.

    For each fold, as many mpox test images are drawn as there are clinical images, in shuffled rounds: no
    image is repeated before all others are drawn. Each drawn copy gets its own Gaussian noise, clipped. The
    paper states no sigma and adds noise to mpox only. Noise is hard to inpaint, so mpox scores fall for a
    reason unrelated to disease; the sweep therefore also has noise on both sides. ValueError if a side has no
    images.

    Args:
      models: one single-fold detector per fold.
      positives: mpox test images of each fold.
      negatives: the other images, shared by all folds.
      sigma: standard deviation of the noise, values in [0, 1].
      resamples: number of cluster-bootstrap resamples; all copies and images of a group are drawn together.
      seed: seed of draws, noise and resamples. An image has the same noise at every strength.
      progress: called with the number of images scored since the last call, summed over models.

    Returns:
      1. Plain values, ready for JSON: "sigma"; "seed"; "images": {"positives": drawn in each fold,
      "negatives", "of_positives": [given in each fold]}; "metric": the primary metric; "auroc": {metric:
      area} for all metrics of the models; "noise_sweep": {"sigmas": [7 floats], "positives": [7 areas],
      "both": [7 areas]} of the primary metric, with noise on mpox alone and on both sides. An area is
      {"mean", "low", "high", "folds": [floats]}.
      2. The scores behind "auroc", one table per fold: the drawn images, then the clinical images.
    """
    count = len(negatives.images)
    drawn = draw_clinical(positives, count, seed=seed)
    sigmas = list(dict.fromkeys((*SIGMAS, sigma)))
    conditions = [Condition("noise", strength) for strength in sigmas]
    upper, lower = score_folds(models, drawn, negatives, conditions, seed=seed, progress=progress)
    noisy, clean, swept = sigmas.index(sigma), SIGMAS.index(0.0), list(range(len(SIGMAS)))

    def compare(metric: str, rows: list[int], against: list[int]) -> list[dict[str, Any]]:
        """AUROCs of mpox in the conditions `rows` against clinical images in the conditions `against`."""
        return areas(
            [fold[metric][rows] for fold in upper],
            [fold[metric][against] for fold in lower],
            drawn,
            negatives,
            resamples=resamples,
            seed=seed,
        )

    metric, metrics = models[0].metric, models[0].metrics
    scored = [
        two_sides(
            {name: np.concatenate((own[name][noisy], other[name][clean])) for name in metrics},
            images.groups,
            negatives.groups,
        )
        for own, other, images in zip(upper, lower, drawn, strict=True)
    ]
    values = {
        **describe_clinical(positives, count, sigma=sigma, seed=seed),
        "metric": metric,
        "auroc": {name: compare(name, [noisy], [clean])[0] for name in metrics},
        "noise_sweep": {
            "sigmas": list(SIGMAS),
            "positives": compare(metric, swept, [clean] * len(swept)),
            "both": compare(metric, swept, swept),
        },
    }
    return values, scored


def draw_clinical(positives: Sequence[GroupedImages], count: int, *, seed: int) -> list[GroupedImages]:
    """Draw `count` mpox test images for each fold, in shuffled rounds without repetition in a round."""
    generator = np.random.default_rng(seed)
    return [own.take(_rounds(generator, len(own.images), count)) for own in positives]


def add_noise(images: np.ndarray, *, sigma: float, seed: int, first: int) -> np.ndarray:
    """Add Gaussian noise to images, uint8 `[N, S, S, 3]`, and clip: float32 in [0, 1].

    Image i gets the noise of image number `first + i`, as in `conditions.score_conditions`.
    """
    noise = jax.jit(CORRUPTIONS["noise"])
    key, parts = jax.random.key(seed), []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH].astype(np.float32) / 255
        index = np.arange(first + start, first + start + len(part), dtype=np.int32)
        parts.append(np.asarray(noise(key, part, sigma, index=index)))
    return np.concatenate(parts)


def describe_clinical(
    positives: Sequence[GroupedImages], count: int, *, sigma: float, seed: int
) -> dict[str, Any]:
    """Describe the test for results.json."""
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
    """Draw `wanted` of `count` positions, in shuffled rounds through all of them."""
    rounds = [generator.permutation(count) for _ in range(-(-wanted // max(count, 1)))]
    return np.concatenate([np.zeros(0, int), *rounds])[:wanted]


def _axes(*, holes: bool) -> dict[str, tuple[str, Sequence[float], list[Condition]]]:
    """Axes of the sheet: name -> unit, strengths, conditions; hole axes for MIM only."""
    axes: dict[str, tuple[str, Sequence[float], list[Condition]]] = {
        name: (kind.unit, kind.strengths, [Condition(name, strength) for strength in kind.strengths])
        for name, kind in CORRUPTIONS.items()
    }
    if not holes:
        return axes
    axes["mask_position"] = (
        "share of the way from the centre to the upper left corner",
        POSITIONS,
        [Condition(position=share) for share in POSITIONS],
    )
    axes["mask_size"] = (
        "side of the patch pasted, as a share of the trained hole's",
        SIDES,
        [Condition(side=share) for share in SIDES],
    )
    return axes


def _shares(
    scores: Sequence[np.ndarray], thresholds: Sequence[float | None], *, above: bool
) -> dict[str, Any]:
    """Share of each fold's images above its threshold, or not above it, and the mean over folds."""
    folds = [
        None if threshold is None else float(np.mean((values > threshold) == above))
        for values, threshold in zip(scores, thresholds, strict=True)
    ]
    known = [share for share in folds if share is not None]
    return {"mean": float(np.mean(known)) if known else None, "folds": folds}


def _limited(generator: np.random.Generator, images: GroupedImages, limit: int | None) -> GroupedImages:
    """Draw at most `limit` of the images, keeping their order."""
    count = len(images.images)
    if limit is None or limit >= count:
        return images
    return images.take(np.sort(generator.choice(count, limit, replace=False)))

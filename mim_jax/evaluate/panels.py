"""Choose the test images that the report shows, with their inpaintings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mim_jax import mask
from mim_jax.detector import Detector
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.test_set import TestSet
from mim_jax.features.detector import FeatureDetector
from mim_jax.features.unlikeness import unlikeness
from mim_jax.measure.ssim import ssim

KINDS = ("typical", "best", "worst")


@dataclass(frozen=True, eq=False)
class Chosen:
    """Test images to show, `n` in number."""

    images: np.ndarray  # uint8, or float in [0, 1], `[n, S, S, 3]`
    names: np.ndarray  # str `[n]`
    classes: np.ndarray  # str `[n]`
    scores: np.ndarray  # the deciding metric by the model of the fold that tests the image, `[n]`
    folds: np.ndarray  # int `[n]`, from 0
    positive: np.ndarray  # bool `[n]`, True = training class


@dataclass(frozen=True, eq=False)
class Panels(Chosen):
    """Test images, with their inpaintings if the detector inpaints."""

    inpainted: np.ndarray | None  # the composites, float in [0, 1], `[n, S, S, 3]`
    offset: tuple[int, int]  # (row, column) of the hole's first pixel
    mask_size: int  # side of the hole in pixels; 0 = none
    # str `[n]`: "typical" (median score), "best" (highest scores of positives or negatives), "worst" (lowest)
    kind: np.ndarray
    maps: np.ndarray | None  # `similarity_maps` of original and inpainted, `[n, S, S]`


@dataclass(frozen=True, eq=False)
class UnlikeImages(Chosen):
    """Test images with maps of where a frozen network finds them unlike the training class."""

    maps: np.ndarray  # float `[n, S, S]` in [0, 1], 1 = unlike


def choose_panels(
    test_set: TestSet,
    models: Sequence[Detector],
    scored: Sequence[ScoredImages],
    *,
    metric: str,
) -> Panels:
    """Choose the images of Figure 5: median scores, and the best and worst positives and negatives.

    `models` holds one inpainting detector per fold; it is empty if nothing is inpainted.
    """
    chosen = _choose(scored, metric, 4)
    about = _described(test_set, test_set.images, scored, chosen, metric)
    images = about["images"]
    inpainted = np.zeros(images.shape, np.float32)
    for fold, model in enumerate(models):
        rows = about["folds"] == fold
        inpainted[rows] = model.inpaint(images[rows])
    size = models[0].mask_size if models else 0
    return Panels(
        **about,
        inpainted=inpainted if models else None,
        offset=mask.center_offset(images.shape[1], size) if models else (0, 0),
        mask_size=size,
        kind=np.array([kind for _, _, kind in chosen]),
        maps=similarity_maps(images, inpainted) if models else None,
    )


def choose_unlike(
    test_set: TestSet,
    detectors: Sequence[FeatureDetector],
    scored: Sequence[ScoredImages],
    *,
    metric: str,
) -> UnlikeImages:
    """Choose the two best and worst positives and negatives, and a median image of each fold and other class.

    `detectors` holds one detector per fold.
    """
    whole = test_set.images if test_set.large is None else test_set.large
    about = _described(test_set, whole, scored, _choose(scored, metric, 2), metric)
    maps = np.zeros(about["images"].shape[:3], np.float32)
    for fold in np.unique(about["folds"]):
        rows = about["folds"] == fold
        maps[rows] = unlikeness(detectors[fold], about["images"][rows])
    return UnlikeImages(**about, maps=maps)


def _described(
    test_set: TestSet,
    images: np.ndarray,
    scored: Sequence[ScoredImages],
    chosen: Sequence[tuple[int, int, str]],
    metric: str,
) -> dict[str, Any]:
    """The chosen ones of `images`, with the name, class, score, fold and side of each."""
    index = np.array([test_set.parts[fold][i] for fold, i, _ in chosen])
    return {
        "images": images[index],
        "names": test_set.table.names[index],
        "classes": test_set.table.classes[index],
        "scores": np.array([scored[fold].similarities[metric][i] for fold, i, _ in chosen]),
        "folds": np.array([fold for fold, _, _ in chosen]),
        "positive": test_set.table.positive[index],
    }


def _choose(scored: Sequence[ScoredImages], metric: str, extremes: int) -> list[tuple[int, int, str]]:
    """Choose (fold, position in its test set, kind): median scores, then the worst and best of both sides."""

    def median(test: ScoredImages, mask: np.ndarray) -> int:
        own = np.flatnonzero(mask)
        order = own[np.argsort(test.similarities[metric][own], kind="stable")]
        return int(order[len(order) // 2])

    chosen = [(k, median(test, test.positive & test.plain), "typical") for k, test in enumerate(scored)]
    first = scored[0]
    for label in sorted(set(first.classes[~first.positive].tolist())):
        chosen.append((0, median(first, first.classes == label), "typical"))
    for side in (True, False):
        pool = [
            (float(test.similarities[metric][i]), fold, int(i))
            for fold, test in enumerate(scored)
            if side or fold == 0
            for i in np.flatnonzero((test.positive == side) & test.plain)
        ]
        pool.sort()
        few = min(extremes, len(pool) // 2)
        chosen += [(fold, i, "worst") for _, fold, i in pool[:few]]
        chosen += [(fold, i, "best") for _, fold, i in pool[len(pool) - few :]]
    return chosen


def similarity_maps(images: np.ndarray, inpainted: np.ndarray) -> np.ndarray:
    """Maps `[n, S, S]` of the local SSIM of originals (uint8) and inpaintings ([0, 1]), mean of the channels.

    Each window's value is at its centre; the border, where no window is centred, is 1.
    """
    windows = np.asarray(ssim(images / np.float32(255), inpainted, return_map=True)).mean(axis=-1)
    rest = images.shape[1] - windows.shape[1]
    edge = (rest // 2, rest - rest // 2)
    return np.pad(windows, ((0, 0), edge, edge), constant_values=1)

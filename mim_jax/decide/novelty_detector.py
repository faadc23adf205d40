"""The interface of everything that scores images: scikit-learn's names and signs of novelty detection.

It is no scikit-learn estimator: it has no `fit`, and `clone` and pipelines do not take it. Curves are drawn
from its scores, as by `RocCurveDisplay.from_predictions`.
"""

import abc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mim_jax.data.batches import Images, at_the_door
from mim_jax.decide import decision
from mim_jax.decide.decision import Assessment, Calibration


class NoveltyDetector(abc.ABC):
    """Decisions of a detector on top of its `score_samples`, threshold and calibration.

    Attributes:
      threshold: an image whose score is strictly greater is like the training class; None = not calibrated.
      calibration: what `assess` decides by; None = not calibrated.
      notice: a sentence that every assessment carries, such as that the training images were drawn; or "".
    """

    threshold: float | None
    calibration: Calibration | None
    notice: str = ""

    @abc.abstractmethod
    def score_samples(self, images: Images) -> np.ndarray:
        """The chosen metric, float64 `[N]`; high = like the training class.

        Args:
          images: uint8, or float in [0, 1]: `[N, S, S, 3]`, also memory-mapped; one `[S, S, 3]`; or an
            iterable of single images, which is read a batch at a time and may be longer than memory. Single
            ones may be PIL images (RGB). Floats outside [0, 1] are a ValueError.
        """

    @abc.abstractmethod
    def _assessed(self, images: Images) -> tuple[str, dict[str, np.ndarray]]:
        """The deciding metric, and each metric for each fold, float64 `[folds, N]`."""

    def assess(
        self, images: Images | Iterable[np.ndarray | ValueError], *, alpha: float = 0.1
    ) -> list[Assessment]:
        """Decisions with their reasons, one an image; see `mim_jax.decide.decision.assess`.

        Args:
          images: as `score_samples`; in an iterable an entry may also be the `UnusableImage` that reading a
            file raised, and is then assessed as unusable, with its reason.
          alpha: the share of mpox that may be missed, between 0 and 1; the rule "calibrated" heeds it.

        Raises:
          ValueError: an alpha outside (0, 1); as `score_samples`.
        """
        refused: dict[int, str] = {}
        kept: Any = at_the_door(images)
        if not isinstance(kept, np.ndarray):
            kept = _usable(kept, refused)
        metric, similarities = self._assessed(kept)
        how: dict[str, Any] = {"metric": metric, "alpha": alpha, "notice": self.notice}
        assessed = iter(decision.assess(similarities, self.calibration, **how))
        count = len(refused) + next(iter(similarities.values())).shape[1]
        return [decision.unusable(refused[k]) if k in refused else next(assessed) for k in range(count)]

    def anomaly_score(self, images: Images) -> np.ndarray:
        """Anomaly score `1 - score_samples`: high = unlike the training class."""
        return 1.0 - self.score_samples(images)

    def decision_function(self, images: Images) -> np.ndarray:
        """Score less the threshold: positive = like the training class.

        Raises:
          ValueError: no threshold, or an image without a finite score, which is on neither side of it.
        """
        if self.threshold is None:
            raise ValueError(
                "this detector has no threshold: evaluate its workdir with --mode=evaluate, or give one with "
                "dataclasses.replace(detector, threshold=...)"
            )
        scores = self.score_samples(images)
        if not np.all(np.isfinite(scores)):
            missing = np.flatnonzero(~np.isfinite(scores))
            raise ValueError(
                f"{len(missing)} of {len(scores)} images have no finite score (first image {missing[0]}): "
                "their pixels or the network's weights contain NaN; assess() calls such images unusable"
            )
        return scores - self.threshold

    def predict(self, images: Images) -> np.ndarray:
        """Class of each image, int64 `[N]`: 1 = like the training class, -1 = not."""
        return np.where(self.decision_function(images) > 0, 1, -1)


def describe(detector: NoveltyDetector, **facts: object) -> str:
    """The `repr` of a detector: facts that fit on a screen, and its threshold; no weights."""
    listed = ", ".join(f"{name}={value!r}" for name, value in facts.items())
    threshold = None if detector.threshold is None else float(f"{detector.threshold:.6g}")
    return f"{type(detector).__name__}({listed}, threshold={threshold})"


def _usable(images: Iterable[np.ndarray | ValueError], refused: dict[int, str]) -> Iterator[np.ndarray]:
    """Yield the images one by one; keep the reason of each refused one by its index."""
    for index, image in enumerate(images):
        if isinstance(image, ValueError):
            refused[index] = str(getattr(image, "reason", image))  # `UnusableImage`, which would bring Pillow
        else:
            yield image

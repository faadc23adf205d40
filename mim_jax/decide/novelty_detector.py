"""The common interface of all detectors, with scikit-learn's names and signs for novelty detection.

A detector is not a scikit-learn estimator: it has no `fit`, and does not work with `clone` or in pipelines.
Curves can be drawn from its scores, e.g. by `RocCurveDisplay.from_predictions`.
"""

import abc
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mim_jax.data.batches import Images, at_the_door
from mim_jax.decide import decision
from mim_jax.decide.decision import Assessment, Calibration

if TYPE_CHECKING:
    from mim_jax.data.images import UnusableImage
    from mim_jax.data.quality import Gate


class NoveltyDetector(abc.ABC):
    """Base class of detectors: decisions from scores, a threshold and a calibration.

    Attributes:
      metric: the score that decides, one of `metrics`.
      image_size: side of the input images in pixels.
      threshold: an image whose score is strictly greater is like the training class; None = not calibrated.
      calibration: the rule and thresholds that `assess` applies; None = not calibrated.
      notice: a sentence added to every assessment, e.g. that the training images are synthetic; "" = none.
    """

    metric: str
    image_size: int
    threshold: float | None
    calibration: Calibration | None
    notice: str = ""

    @property
    @abc.abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `similarities` returns."""

    @property
    @abc.abstractmethod
    def folds(self) -> int:
        """Number of folds whose scores are averaged."""

    @property
    def min_side(self) -> int:
        """Minimum length in pixels of the shorter side of an image file."""
        return self.image_size // 2

    @abc.abstractmethod
    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each of `metrics` for each fold, float64 `[folds, N]`; images as in `score_samples`."""

    def score_samples(self, images: Images) -> np.ndarray:
        """The deciding score averaged over folds, float64 `[N]`; high = like the training class.

        Args:
          images: uint8, or float in [0, 1]: `[N, S, S, 3]`, also memory-mapped; one `[S, S, 3]`; or an
            iterable of single images, which is read one batch at a time and need not fit into memory. Single
            images may be PIL images (RGB). Floats outside [0, 1] raise ValueError.
        """
        return self.similarities(images)[self.metric].mean(axis=0)

    def read(
        self, path: str | os.PathLike[str], *, gate: "Gate | None" = None
    ) -> "np.ndarray | UnusableImage":
        """Read an image file as `--mode=score` does: uint8 `[S, S, 3]`, or the reason why it is unusable.

            assessments = detector.assess(map(detector.read, paths))

        `mim_jax.load_image` reads without an input gate: `assess` then treats a black image like any other.

        Args:
          path: the image file.
          gate: the checks that the image must pass; None = all of them.
        """
        from mim_jax.data.images import UnusableImage, load_image  # these import Pillow
        from mim_jax.data.quality import Gate

        try:
            return load_image(path, size=self.image_size, gate=gate or Gate(), min_side=self.min_side)
        except UnusableImage as error:
            return error

    def assess(
        self, images: Images | Iterable[np.ndarray | ValueError] | ValueError, *, alpha: float = 0.1
    ) -> list[Assessment]:
        """Decide on each image, with reasons; see `mim_jax.decide.decision.assess`.

        Args:
          images: as in `score_samples`; no input gate is applied. Any item may also be an `UnusableImage`,
            returned by `read` or raised while reading a file: it is assessed as unusable, with its reason.
          alpha: the share of mpox that may be missed, between 0 and 1; used by the rule "calibrated" only.

        Raises:
          ValueError: an alpha outside (0, 1), or images that `score_samples` rejects.
        """
        refused: dict[int, str] = {}
        kept: Any = at_the_door([images] if isinstance(images, ValueError) else images)
        if not isinstance(kept, np.ndarray):
            kept = _usable(kept, refused)
        found = self.similarities(kept)
        how: dict[str, Any] = {"metric": self.metric, "alpha": alpha, "notice": self.notice}
        assessed = iter(decision.assess(found, self.calibration, **how))
        count = len(refused) + next(iter(found.values())).shape[1]
        return [decision.unusable(refused[k]) if k in refused else next(assessed) for k in range(count)]

    def anomaly_score(self, images: Images) -> np.ndarray:
        """Anomaly score `1 - score_samples`: high = unlike the training class."""
        return 1.0 - self.score_samples(images)

    def decision_function(self, images: Images) -> np.ndarray:
        """Score minus the threshold: positive = like the training class.

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
    """The `repr` of a detector: short facts and its threshold, without weights."""
    listed = ", ".join(f"{name}={value!r}" for name, value in facts.items())
    threshold = None if detector.threshold is None else float(f"{detector.threshold:.6g}")
    return f"{type(detector).__name__}({listed}, threshold={threshold})"


def _usable(images: Iterable[np.ndarray | ValueError], refused: dict[int, str]) -> Iterator[np.ndarray]:
    """Yield the usable images one by one; store the reason of each unusable one by its index in `refused`."""
    for index, image in enumerate(images):
        if isinstance(image, ValueError):
            refused[index] = str(getattr(image, "reason", image))  # importing `UnusableImage` imports Pillow
        else:
            yield image

"""The interface of everything that scores images: scikit-learn's names and signs of novelty detection.

It is no scikit-learn estimator: it has no `fit`, and `clone` and pipelines do not take it. Curves are drawn
from its scores, as by `RocCurveDisplay.from_predictions`.
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
    """Decisions of a detector on top of its `score_samples`, threshold and calibration.

    Attributes:
      metric: the score that decides, one of `metrics`.
      image_size: pixels a side of the images it takes.
      threshold: an image whose score is strictly greater is like the training class; None = not calibrated.
      calibration: what `assess` decides by; None = not calibrated.
      notice: a sentence that every assessment carries, such as that the training images were drawn; or "".
    """

    metric: str
    image_size: int
    threshold: float | None
    calibration: Calibration | None
    notice: str = ""

    @property
    @abc.abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores, as `similarities` has them."""

    @property
    @abc.abstractmethod
    def folds(self) -> int:
        """Number of folds whose scores are averaged."""

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side of an image must have to be scored."""
        return self.image_size // 2

    @abc.abstractmethod
    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each of `metrics` for each fold, float64 `[folds, N]`; images as `score_samples`."""

    def score_samples(self, images: Images) -> np.ndarray:
        """The deciding score averaged over folds, float64 `[N]`; high = like the training class.

        Args:
          images: uint8, or float in [0, 1]: `[N, S, S, 3]`, also memory-mapped; one `[S, S, 3]`; or an
            iterable of single images, which is read a batch at a time and may be longer than memory. Single
            ones may be PIL images (RGB). Floats outside [0, 1] are a ValueError.
        """
        return self.similarities(images)[self.metric].mean(axis=0)

    def read(
        self, path: str | os.PathLike[str], *, gate: "Gate | None" = None
    ) -> "np.ndarray | UnusableImage":
        """Read a picture to be assessed, as `--mode=score` does: uint8 `[S, S, 3]`, or why it is unusable.

            assessments = detector.assess(map(detector.read, paths))

        `mim_jax.load_image` reads without an input gate: `assess` then judges a black picture as any other.

        Args:
          path: the file.
          gate: the checks that the picture must pass; None = all of them.
        """
        from mim_jax.data.images import UnusableImage, load_image  # they bring Pillow
        from mim_jax.data.quality import Gate

        try:
            return load_image(path, size=self.image_size, gate=gate or Gate(), min_side=self.min_side)
        except UnusableImage as error:
            return error

    def assess(
        self, images: Images | Iterable[np.ndarray | ValueError] | ValueError, *, alpha: float = 0.1
    ) -> list[Assessment]:
        """Decisions with their reasons, one an image; see `mim_jax.decide.decision.assess`.

        Args:
          images: as `score_samples`, without any input gate. One of them may also be the `UnusableImage` that
            `read` returns or that reading a file raised: it is assessed as unusable, with its reason.
          alpha: the share of mpox that may be missed, between 0 and 1; the rule "calibrated" heeds it.

        Raises:
          ValueError: an alpha outside (0, 1); as `score_samples`.
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

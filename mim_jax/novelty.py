"""What everything that scores images offers: novelty detection in scikit-learn's words and signs."""

import abc

import numpy as np

from mim_jax.batches import Images


class NoveltyDetector(abc.ABC):
    """Scores, decisions and their opposite, on `score_samples` and a threshold.

    Attributes:
      threshold: an image whose score is strictly greater is like the training class; None = not calibrated.
    """

    threshold: float | None

    @abc.abstractmethod
    def score_samples(self, images: Images) -> np.ndarray:
        """The chosen metric, float64 `[N]`; high = like the training class.

        Args:
          images: uint8, or float in [0, 1]: `[N, S, S, 3]`, also memory-mapped; one `[S, S, 3]`; or an
            iterable of single images, which is read a batch at a time and may be longer than memory.
        """

    def anomaly_score(self, images: Images) -> np.ndarray:
        """`1 - score_samples`, for those who count the other way."""
        return 1.0 - self.score_samples(images)

    def decision_function(self, images: Images) -> np.ndarray:
        """`score_samples - threshold`: positive = like the training class."""
        if self.threshold is None:
            raise ValueError(
                "this detector has no threshold: evaluate its workdir with --mode=evaluate, or give one with "
                "dataclasses.replace(detector, threshold=...)"
            )
        return self.score_samples(images) - self.threshold

    def predict(self, images: Images) -> np.ndarray:
        """1 = like the training class, -1 = not; int64 `[N]`."""
        return np.where(self.decision_function(images) > 0, 1, -1)

"""The public detectors: mask, inpaint, measure, decide; also combined with a frozen network.

The interface follows scikit-learn's novelty detectors: `score_samples` is high for images like the training
class, `predict` returns 1 for them and -1 for all others. A score never depends on the rest of the batch.
"""

from mim_jax.detector.combined import CombinedDetector
from mim_jax.detector.mim import Detector, measure_filled
from mim_jax.detector.workdir import load_workdir

__all__ = ["CombinedDetector", "Detector", "load_workdir", "measure_filled"]

"""The detectors that people load: mask, inpaint, measure, decide; and the same with a frozen network.

The shape is scikit-learn's of novelty detection: `score_samples` is high for images like the training class,
`predict` gives 1 for them and -1 for the rest. A score never depends on what else is in the batch.
"""

from mim_jax.detector.combined import CombinedDetector
from mim_jax.detector.mim import Detector, measure_filled
from mim_jax.detector.workdir import load_workdir

__all__ = ["CombinedDetector", "Detector", "load_workdir", "measure_filled"]

"""One detector that combines MIM, a frozen network and colour histograms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.batches import check_batch
from mim_jax.data.resize import shrink
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import describe
from mim_jax.detector.mim import Detector
from mim_jax.features.detector import COLOR, FEATURES, BatchScorer, FeatureDetector, PureScorer
from mim_jax.features.one_class import Units
from mim_jax.measure import METRICS
from mim_jax.measure import images as pixels


def join_scores(mim: Any, units: Units, found: Mapping[str, Any]) -> Any:
    """Average MIM's score, standardised by `units`, with the standardised network and colour scores."""
    return ((mim - units.median) / units.spread + found[FEATURES] + found[COLOR]) / 3


@dataclass(frozen=True, eq=False)
class CombinedDetector(BatchScorer):
    """MIM, a frozen network and colour histograms, averaged with equal weight.

    Each score is standardised by its distribution on the training class: network and colours on training
    images held out by inner folds, MIM on its training images (held-out ones would need another training).

    Attributes:
      mim: the detector of the paper; it gets the images reduced to its own size.
      features: the detector of the frozen network, with colours; same folds as `mim`.
      units: median and interquartile range of MIM's scores of each fold's training images.
      threshold, threshold_origin, calibration, notice: as in `Detector`.
    """

    mim: Detector
    features: FeatureDetector
    units: Units
    threshold: float | None = None
    threshold_origin: str = ""
    calibration: Calibration | None = None
    notice: str = ""
    metric: str = "combined"

    def __post_init__(self) -> None:
        if self.mim.folds != self.features.folds or COLOR not in self.features.references:
            raise ValueError(
                f"MIM has {self.mim.folds} folds and {self.features!r} scores by "
                f"{', '.join(self.features.metrics)}: both need the same folds, and colours"
            )

    def __repr__(self) -> str:
        return describe(self, mim=self.mim, features=self.features)

    @property
    def image_size(self) -> int:  # type: ignore[override]
        return self.features.image_size

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the combined score, then of the scores of its parts."""
        return (self.metric, *self.features.metrics, *METRICS)

    @property
    def min_side(self) -> int:
        return self.mim.min_side

    @property
    def folds(self) -> int:
        return self.mim.folds

    @staticmethod
    def join(detectors: "Sequence[CombinedDetector]") -> "CombinedDetector":
        """Merge single-fold detectors into one; as `FeatureDetector.join`."""
        mim = replace(detectors[0].mim, variables=[each.mim.variables[0] for each in detectors])
        features = FeatureDetector.join([each.features for each in detectors])
        units = Units(*(np.concatenate(values) for values in zip(*(d.units for d in detectors), strict=True)))
        return CombinedDetector(mim, features, units)

    def of_fold(self, fold: int) -> "CombinedDetector":
        """The detector of a single fold, without the calibration of all folds."""
        units = Units(*(values[fold : fold + 1] for values in self.units))
        return CombinedDetector(self.mim.of_fold(fold), self.features.of_fold(fold), units)

    def pure(self, *, each_fold: bool = False) -> tuple[PureScorer, Any]:
        """The scorer as `(fn, variables)`, for use inside your own `jit`; as `FeatureDetector.pure`."""
        mim, mim_variables = self.mim.pure(each_fold=True)
        features, feature_variables = self.features.pure(each_fold=True)
        size, decides = self.mim.image_size, self.mim.metric

        def fn(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
            check_batch(images, self.image_size)
            similarities = mim(variables["mim"], shrink(pixels.as_float(images), size))._asdict()
            found = features(variables["features"], images)
            units = Units(*(values[:, None] for values in variables["units"]))
            joined = join_scores(similarities[decides], units, found)
            scores = {self.metric: joined, **found, **similarities}
            return scores if each_fold else {name: jnp.mean(each, axis=0) for name, each in scores.items()}

        return fn, {"mim": mim_variables, "features": feature_variables, "units": self.units}

    def units_of_mim(self) -> list[float]:
        """The units of a single-fold detector as plain floats: median and spread."""
        return [float(values[0]) for values in self.units]

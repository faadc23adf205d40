"""Load the detector of a finished workdir: the one its evaluation used to decide."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.detector.calibration import calibrated, chosen_folds, read_decision
from mim_jax.detector.combined import CombinedDetector
from mim_jax.detector.mim import Detector, load_networks
from mim_jax.features import saved
from mim_jax.features.one_class import Units
from mim_jax.measure.similarity import Measure


def load_workdir(path: str | os.PathLike[str], *, fold: int | None = None) -> NoveltyDetector:
    """Load the detector of a finished workdir: all folds, whose scores are averaged, or one of them.

    Raises:
      ValueError: not a workdir; no such fold; or networks or features that are missing, damaged or not those
        that the calibration was made for.
    """
    root = Path(path).expanduser().resolve()
    kind, found = read_decision(root)
    if kind == "mim" or found is None:
        return Detector.load(root, fold=fold)
    chosen = chosen_folds(root, fold)
    features = saved.load(root, fold=fold)
    detector: NoveltyDetector
    if kind == "features":
        detector = replace(features, metric=found["pooled"]["metric"])
    else:
        mim = replace(load_networks(root, fold=fold), measure=Measure(**found["measure"]))
        units = Units(*np.array([found["units"][k] for k in chosen], np.float32).T)
        detector = CombinedDetector(mim, features, units)
    alone = [detector.of_fold(k) for k in range(len(chosen))]
    loaded: NoveltyDetector = calibrated(detector, root, found, [each.networks for each in alone], fold=fold)
    return loaded

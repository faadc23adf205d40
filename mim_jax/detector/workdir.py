"""Load the detector of a finished workdir: the one its evaluation used to decide, with its thresholds."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.detector.combined import CombinedDetector
from mim_jax.detector.mim import Detector
from mim_jax.features import saved
from mim_jax.features.detector import FeatureDetector
from mim_jax.features.one_class import Units
from mim_jax.inpaint.inference import abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure
from mim_jax.train import workdir


def load_workdir(path: str | os.PathLike[str], *, fold: int | None = None) -> NoveltyDetector:
    """Load the detector of a finished workdir: all folds, whose scores are averaged, or one of them.

    Raises:
      ValueError: not a workdir; no such fold; or networks or features that are missing, damaged or not those
        that the calibration was made for.
    """
    # Orbax takes a second to import, and scoring arrays does not need it.
    from mim_jax.train.checkpoints import parameter_hash

    root = Path(path).expanduser().resolve()
    kind, found = read_decision(root)
    if found is None:
        return replace(load_networks(root, fold=fold), notice=workdir.read_notice(root))
    chosen = chosen_folds(root, fold)
    detector: Detector | FeatureDetector | CombinedDetector
    if kind == "features":
        detector = replace(saved.load(root, fold=fold), metric=found["pooled"]["metric"])
    else:
        detector = mim = replace(load_networks(root, fold=fold), measure=Measure(**found["measure"]))
    if kind == "combined":
        units = Units(*np.array([found["units"][k] for k in chosen], np.float32).T)
        detector = CombinedDetector(mim, saved.load(root, fold=fold), units)
    # Calibrations of older versions have no hashes.
    if hashes := found.get("parameter_hash"):
        networks = [detector.of_fold(k).networks for k in range(len(chosen))]
        if [parameter_hash(each) for each in networks] != [hashes[k] for k in chosen]:
            raise ValueError(
                f"{root / workdir.CALIBRATION} was made for other networks than the workdir holds: finish "
                "the run with --mode=run, or evaluate it again with --mode=evaluate"
            )
    calibration = Calibration.from_json(found["pooled"] if fold is None else found["alone"][fold])
    return replace(
        detector,
        threshold=calibration.lower,
        threshold_origin=calibration.origin,
        calibration=calibration,
        notice=workdir.read_notice(root),
    )


def read_decision(root: Path) -> tuple[str, dict[str, Any] | None]:
    """Read which detector decides, "mim", "features" or "combined", and its calibration.

    It is None before an evaluation; ValueError if it is missing after one, or of another version.
    """
    if (root / workdir.CALIBRATION).exists():
        found = workdir.read_calibration(root)
        return found.get("detector", "mim"), found
    if (root / "results.json").exists():
        raise ValueError(
            f"{root / workdir.CALIBRATION} is missing, though the run was evaluated: evaluate it again with "
            "--mode=evaluate"
        )
    return "mim", None


def chosen_folds(root: Path, fold: int | None) -> list[int]:
    """The folds to load: all, or only `fold`; ValueError if there is no such fold."""
    folds = range(workdir.read_config(root)["data"]["folds"])
    if fold is not None and fold not in folds:
        raise ValueError(f"{root} has folds 0 to {len(folds) - 1}, not {fold}")
    return list(folds) if fold is None else [fold]


def load_networks(root: Path, *, fold: int | None = None) -> Detector:
    """Load the generators of a workdir's folds from their checkpoints, as a detector without calibration."""
    from mim_jax.train.checkpoints import FoldCheckpoints

    model: dict[str, Any] = {}
    variables = []
    for k in chosen_folds(root, fold):
        with FoldCheckpoints(root / f"fold_{k}" / "checkpoints", read_only=True) as checkpoints:
            model = checkpoints.model()
            if "generator" not in model:
                raise ValueError(f"{root} is a classifier's workdir: scoring needs a MIM workdir")
            generator = make_generator(model["generator"], model["options"], dtype=jnp.float32)
            abstract = abstract_variables(generator, model["image_size"])
            variables.append(checkpoints.network("generator", abstract))
    return Detector(generator, variables, model["image_size"], model["mask_size"], model=model)

"""Read the calibration that an evaluation saved in a workdir: the deciding detector and its thresholds."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mim_jax.decide.decision import Calibration
from mim_jax.train import workdir


def read_decision(root: Path) -> tuple[str, dict[str, Any] | None]:
    """Read which detector decides, "mim", "features" or "combined", and its calibration.

    The calibration is None if the run has not been evaluated yet.

    Raises:
      ValueError: the run was evaluated, but its calibration is missing or of another version.
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
    folds = range(workdir.fold_count(root))
    if fold is not None and fold not in folds:
        raise ValueError(f"{root} has folds 0 to {len(folds) - 1}, not {fold}")
    return list(folds) if fold is None else [fold]


def calibrated(
    detector: Any,
    root: Path,
    found: Mapping[str, Any],
    networks: Sequence[Any],
    *,
    fold: int | None = None,
    **changes: Any,
) -> Any:
    """Return the detector with the thresholds of its workdir, and with `changes` to its fields.

    `networks` holds its weights, one tree of arrays per fold; ValueError if the calibration is for others.
    """
    from mim_jax.train.checkpoints import parameter_hash

    hashes, chosen = found.get("parameter_hash"), chosen_folds(root, fold)
    # Calibrations of older versions have no hashes.
    if hashes and [parameter_hash(each) for each in networks] != [hashes[k] for k in chosen]:
        raise ValueError(
            f"{root / workdir.CALIBRATION} was made for other networks than the workdir holds: finish the "
            "run with --mode=run, or evaluate it again with --mode=evaluate"
        )
    calibration = Calibration.from_json(found["pooled"] if fold is None else found["alone"][fold])
    return dataclasses.replace(
        detector,
        threshold=calibration.lower,
        threshold_origin=calibration.origin,
        calibration=calibration,
        notice=workdir.read_notice(root),
        **changes,
    )

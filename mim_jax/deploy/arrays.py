"""Arrays of an export by name, such as "0/params/down_0/kernel" of fold 0, and the trees they form."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax.data import weight_files

_FOLDS, _REST = r"(0|[1-9][0-9]*)/(params|batch_stats)(/[^/]+)+", r"backbone(/[^/]+)*|references(/[^/]+)+"
# Kind of detector -> pattern of its array names.
KINDS = {
    "mim": re.compile(_FOLDS),
    "features": re.compile(_REST),
    "combined": re.compile(rf"mim/{_FOLDS}|features/({_REST})|units/(median|spread)"),
}


def read_arrays(path: Path, kind: str, folds: int) -> dict[str, np.ndarray]:
    """Read the arrays of an export by name; ValueError for arrays of another kind, NaN or infinity."""
    arrays = weight_files.load(path)
    for name, array in arrays.items():
        if not KINDS[kind].fullmatch(name):
            what = "a weight of a fold" if kind == "mim" else f"an array of a {kind!r} detector"
            raise ValueError(f"{path} holds {name!r:.60}, which does not name {what}: fetch it again")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{path}: {name} contains NaN or infinity: fetch it again, or export again")
    if kind == "features":
        return arrays
    own = arrays if kind == "mim" else under(arrays, "mim/")
    found = {name.split("/", 1)[0] for name in own}
    if len(found) != folds or found != {str(fold) for fold in range(len(found))}:
        raise ValueError(
            f"{path} holds the folds {', '.join(sorted(found)) or 'none'}, expected 0 to {folds - 1} as "
            "config.json says: fetch it again"
        )
    return arrays


def under(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Select the arrays whose names begin with `prefix`, and strip it from the names."""
    return {name.removeprefix(prefix): leaf for name, leaf in arrays.items() if name.startswith(prefix)}

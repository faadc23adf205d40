"""The source of each file (repository, clinic or camera), from a column of the manifest."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mim_jax.data.folder import read_csv, spelled


def read_sources(path: Path, column: str, names: Sequence[str]) -> np.ndarray:
    """Read the source of each file: str `[N]`, "" if the manifest does not give it.

    The manifest has columns `file`, a path relative to the data folder like those in `names`, and `column`.
    ValueError if it or a column does not exist, or none of the names has a source.
    """
    if not path.exists():
        raise ValueError(
            f"config.data.source_column={column} needs a manifest, and there is no {path}: "
            "leave it out, or name the manifest with --config.data.manifest"
        )
    columns, rows = read_csv(path)
    if not {"file", column.lower()} <= set(columns):
        raise ValueError(
            f"the manifest {path} needs columns file and {column}; found {', '.join(columns) or 'nothing'}"
        )
    known = {spelled(row["file"]): row[column.lower()] for row in rows}
    found = np.array([known.get(spelled(name), "") for name in names], dtype=str)
    if not np.any(found != ""):
        raise ValueError(
            f"the manifest {path} gives a {column} for none of the {len(names)} images: its column 'file' "
            f"must be relative to the data folder, such as {names[0]!r}"
        )
    return found

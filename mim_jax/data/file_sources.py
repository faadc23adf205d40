"""The source of each file, by a column of the manifest: repositories, clinics or cameras."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mim_jax.data.folder import read_csv, spelled


def read_sources(path: Path, column: str, names: Sequence[str]) -> np.ndarray:
    """Read the source of each file: str `[N]`, "" where the manifest does not say it.

    Args:
      path: a CSV file with the column `file`, relative to its own folder.
      column: the column with the sources.
      names: the files.

    Raises:
      ValueError: no such file, no such column, or a source for none of the names.
    """
    if not path.exists():
        raise ValueError(
            f"config.data.source_column={column} is a column of the manifest, and there is no {path}: "
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
            f"the manifest {path} says the {column} of none of the {len(names)} images: its column 'file' "
            f"must be relative to the folder, such as {names[0]!r}"
        )
    return found

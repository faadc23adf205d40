"""Array files in the safetensors format, which cannot execute code; unreadable ones raise ValueError."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # JAX's own dependency: NumPy has no bfloat16
import numpy as np
import safetensors
import safetensors.numpy

_DTYPES = {  # `safetensors.numpy` cannot read bfloat16
    "BOOL": np.dtype(bool),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays; the same arrays give the same bytes, whatever their order in the mapping."""
    # The package writes an array's memory as it is: row-major order is up to the caller.
    content = safetensors.numpy.save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})
    Path(path).write_bytes(content)


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a safetensors file: arrays by name, sorted by name.

    ValueError for another format, a truncated file, gaps, overlaps, an unknown dtype or an impossible shape.
    """
    data = Path(path).read_bytes()
    try:
        return {
            name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in sorted(safetensors.deserialize(data), key=lambda item: item[0])
        }
    except (safetensors.SafetensorError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} is not a safetensors file, or is damaged ({error}): fetch it again"
        ) from error


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flatten_arrays(tree: Any) -> dict[str, Any]:
    """Flatten a tree to arrays by name, such as "0/params/down_0/kernel" for a list of folds."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

"""Arrays in a safetensors file, read and written with NumPy alone: no pickle, nothing that can run.

The format (https://huggingface.co/docs/safetensors): eight bytes, little-endian, with the length of a JSON
header; the header, name -> {"dtype", "shape", "data_offsets"}; then the arrays' bytes, without gaps.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # JAX's own dependency: NumPy has no bfloat16
import numpy as np

LARGEST_HEADER = 100_000_000  # bytes; the limit of the reference implementation

_DTYPES = {
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
    """Writes arrays by name, in the order of their names.

    Raises:
      ValueError: a dtype that the format does not have.
    """
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header, start = {}, 0
    for name, array in sorted(arrays.items()):
        if array.dtype not in codes:
            raise ValueError(f"{name} is {array.dtype}, and a file can hold {', '.join(_DTYPES)}: convert it")
        header[name] = {
            "dtype": codes[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # arrays start at a multiple of eight bytes
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in sorted(arrays.items()):
            file.write(np.ascontiguousarray(array).tobytes())


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name; read-only views of one block of memory.

    Raises:
      ValueError: not such a file, or one that is cut short, has gaps or overlaps, an unknown dtype, a name
        twice, or a shape that no array can have.
    """
    data = Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(LARGEST_HEADER, len(data) - 8):
        raise ValueError(f"{path} is no safetensors file, or is cut short: its header does not fit into it")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
        header.pop("__metadata__", None)
        entries = [(name, *_entry(fields)) for name, fields in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} has a header that cannot be read ({error}): fetch it again") from error
    arrays, reached = {}, 8 + length
    for name, dtype, shape, begin, end in sorted(entries, key=lambda entry: entry[3:]):
        begin, end = begin + 8 + length, end + 8 + length
        if begin != reached or end - begin != math.prod(shape) * dtype.itemsize or end > len(data):
            raise ValueError(f"{path}: the bytes of {name} do not lie where they should: fetch it again")
        try:
            arrays[name] = np.frombuffer(data, dtype, math.prod(shape), begin).reshape(shape)
        except (ValueError, OverflowError) as error:  # no bytes, and sides or a number of them beyond NumPy's
            raise ValueError(
                f"{path}: {name} has a shape that no array has ({error}): fetch it again"
            ) from error
        reached = end
    if reached != len(data):
        raise ValueError(f"{path} is longer than its header says: fetch it again")
    return arrays


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _entry(fields: Mapping[str, object]) -> tuple[np.dtype, tuple[int, ...], int, int]:
    dtype, shape, offsets = _DTYPES[str(fields["dtype"])], fields["shape"], fields["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise TypeError("shape and data_offsets must be lists")
    numbers = [*shape, *offsets]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise TypeError("shape and data_offsets must hold whole numbers")
    return dtype, tuple(shape), offsets[0], offsets[1]

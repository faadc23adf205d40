"""The weights of an ONNX program in fewer bits; widened when it loads, so that arithmetic stays float32."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# In the order of size; the export takes the first whose golden similarities stay within the tolerance.
KINDS = ("int8", "float16", "float32")
# What golden similarities may be off by: rounding of weights, or of sums in another order.
TOLERANCE = {"int8": 1e-3, "float16": 1e-3, "float32": 1e-4}
# Inputs below which a factor for each tap and feature would take more room than it saves.
FEWEST_INPUTS = 8


def shrink(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """A copy of the program whose kernels are stored as `kind`.

    int8: w = f q with q in -127 to 127, and one float32 factor f for each tap and output feature, so that
    only the weights that are summed for it share their steps. float16: rounded.

    Raises:
      ValueError: unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of weights {kind!r}: choose one of {', '.join(KINDS)}")
    small = onnx.ModelProto()
    small.CopyFrom(model)
    if kind == "float32":
        return small
    kept, nodes = [], []
    for tensor in small.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if not _is_kernel(array):
            kept.append(tensor)
            continue
        stored = {"float16": _halved, "int8": _quantised}[kind](array)
        names = [f"{tensor.name}_{part}" for part in ("stored", "factor")][: len(stored)]
        kept += [numpy_helper.from_array(part, name) for part, name in zip(stored, names, strict=True)]
        wide = tensor.name if len(stored) == 1 else f"{tensor.name}_wide"
        nodes.append(helper.make_node("Cast", [names[0]], [wide], to=onnx.TensorProto.FLOAT))
        if len(stored) == 2:
            nodes.append(helper.make_node("Mul", [wide, names[1]], [tensor.name]))
    replace(small.graph.initializer, kept)
    replace(small.graph.node, [*nodes, *small.graph.node])
    return small


def replace(field: Any, items: list[Any]) -> None:
    """Puts `items` in the place of all that a repeated field of a message holds."""
    items = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(items)


def _is_kernel(array: np.ndarray) -> bool:
    """`[..., inputs, features]`: neither a bias, nor a map of them, nor a few numbers."""
    return array.dtype == np.float32 and array.ndim >= 3 and min(array.shape) > 1 and array.size > 1024


def _halved(array: np.ndarray) -> tuple[np.ndarray, ...]:
    return (array.astype(np.float16),)


def _quantised(array: np.ndarray) -> tuple[np.ndarray, ...]:
    if array.shape[-2] < FEWEST_INPUTS:
        return _halved(array)
    factor = np.abs(array).max(axis=-2, keepdims=True) / 127
    factor[factor == 0] = 1
    return np.rint(array / factor).astype(np.int8), factor.astype(np.float32)

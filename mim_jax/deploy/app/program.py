"""A single-fold detector as an ONNX program: one uint8 image in; scores, inpainting and maps out.

It is traced from `mim_jax.deploy.app.view`. jax2onnx, which writes the file, supports neither the choice of a
form by platform nor bfloat16, so `primitive` first rewrites the program in plain float32 operations: the
forms for accelerators, which have no scatter, without calls or branches. `shrink` then stores the weights in
fewer bits; they are widened when the program loads, so that arithmetic stays float32.
"""

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend import core
from onnx import helper, numpy_helper

from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy.app.view import SCORES, outputs, viewer
from mim_jax.measure.each import all_at_once, each_p

INPUT = "image"
OPSET = 17
# In order of size; the export uses the first that keeps the golden similarities within the tolerance.
KINDS = ("int8", "mixed", "float16", "float32")
# Largest allowed error of golden similarities, from rounding of weights or of sums in another order.
TOLERANCE = {"int8": 1e-3, "mixed": 1e-3, "float16": 1e-3, "float32": 1e-4}
# The same for scores in units of the training images' interquartile range: a hundredth of it, which contains
# about one training image in two hundred, so that a p-value changes by half a percent.
UNIT_TOLERANCE = {"int8": 1e-2, "mixed": 1e-2, "float16": 1e-2, "float32": 1e-3}
LARGE = 65_536  # number of weights in a kernel from which "mixed" stores it in int8
GROUP = 32  # inputs that share a factor in "mixed"
# Below this number of inputs a factor for each tap and feature takes more space than it saves.
FEWEST_INPUTS = 8

# Call primitive -> its parameter that holds the called program.
_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def primitive(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> Callable[..., list[Any]]:
    """Rewrite a function in plain float32 operations: the form that `lax.platform_dependent` calls default.

    Calls are inlined, branches that depend on the platform are resolved, constants are computed beforehand,
    and bfloat16 becomes float32.
    """
    program = jax.make_jaxpr(function)(*shapes)
    return lambda *arguments: _run(program, arguments)


def _run(program: core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    jaxpr = program.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *arguments), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        name, params = equation.primitive.name, equation.params
        known = not any(isinstance(value, jax.core.Tracer) for value in inputs)
        if name == "platform_index":
            results: Sequence[Any] = [np.int32(params["platforms"].index(None))]  # None: the default form
        elif name == "cond" and not isinstance(inputs[0], jax.core.Tracer):
            results = _run(params["branches"][int(inputs[0])], inputs[1:])
        elif name in _CALLS:
            results = _run(params[_CALLS[name]], inputs)
        elif not known and (form := _rewrite(name, inputs, params)):
            results = _run(jax.make_jaxpr(functools.partial(form, **params))(*inputs), inputs)
        elif equation.primitive is each_p:
            results = _run(jax.make_jaxpr(functools.partial(all_at_once, **params))(*inputs), inputs)
        else:
            results = _bind(equation.primitive, inputs, params, known)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _pooled(x: jax.Array, *, window_dimensions: Any, window_strides: Any, padding: Any, **_: Any) -> Any:
    """Pool by the maximum of slices, because jax2onnx pools only channels-first images."""
    x = jnp.pad(x, padding, constant_values=-np.inf)
    shape = zip(x.shape, window_dimensions, window_strides, strict=True)
    lengths = [(side - size) // step * step + 1 for side, size, step in shape]
    slices = (
        x[tuple(map(slice, place, np.add(place, lengths), window_strides))]
        for place in np.ndindex(*window_dimensions)
    )
    return [functools.reduce(jnp.maximum, slices)]


def _flattened(x: jax.Array, kernel: jax.Array, *, dimension_numbers: Any, **params: Any) -> Any:
    """Multiply as two matrices, which is faster in onnxruntime than `Einsum`."""
    rows = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **params)
    return [rows.reshape(*x.shape[:-1], -1)]


def _rewrite(name: str, inputs: Sequence[Any], params: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return a form of an operation that jax2onnx converts better, or None if there is none."""
    if name == "reduce_window_max":
        return _pooled
    if name == "dot_general" and np.ndim(inputs[0]) > 2 == np.ndim(inputs[1]):
        last = ((np.ndim(inputs[0]) - 1,), (0,))
        return _flattened if params["dimension_numbers"] == (last, ((), ())) else None
    return None


def _bind(primitive: Any, inputs: Sequence[Any], params: dict[str, Any], known: bool) -> Sequence[Any]:
    if params.get("new_dtype") == jnp.bfloat16:
        params = {**params, "new_dtype": np.dtype(np.float32)}
    # A number broadcast to an image stays an operation, so that the file holds only the number.
    early = known and primitive.name != "broadcast_in_dim"
    with jax.ensure_compile_time_eval() if early else contextlib.nullcontext():
        results = primitive.bind(*inputs, **params)
    return results if primitive.multiple_results else [results]


def to_onnx(detector: NoveltyDetector) -> onnx.ModelProto:
    """Convert a single-fold detector to ONNX with float32 weights; ValueError without jax2onnx."""
    try:
        import jax2onnx
    except ImportError as error:
        raise ValueError(
            f'jax2onnx is needed to write ONNX ({error}): see "The app" in docs/deploy.md'
        ) from error
    size = detector.image_size
    image = jax.ShapeDtypeStruct((size, size, 3), jnp.uint8)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(outputs(detector))}
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    # It warns about every constant whose type is written elsewhere in the file.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
            warnings.simplefilter("ignore")
            flat = primitive(viewer(detector), image)
            model = jax2onnx.to_onnx(flat, [image], opset=OPSET, **names)
    finally:
        logger.setLevel(level)
    return _without_copies(model)


def _without_copies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Merge equal constants; several scores compare with the same images."""
    kept: dict[bytes, str] = {}
    names = {}
    for tensor in model.graph.initializer:
        content = onnx.TensorProto.FromString(tensor.SerializeToString())
        content.name = ""
        names[tensor.name] = kept.setdefault(content.SerializeToString(), tensor.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    once = [tensor for tensor in model.graph.initializer if names[tensor.name] == tensor.name]
    replace(model.graph.initializer, once)
    return model


def run(model: bytes, images: np.ndarray) -> np.ndarray:
    """Compute scores `[N, metrics]` with onnxruntime, one image after the other."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"onnxruntime is needed to check the ONNX program ({error}): pip install 'mim-jax[app]'"
        ) from error
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.stack([session.run([SCORES], {INPUT: image})[0] for image in images])


def shrink(model: onnx.ModelProto, kind: str, *, training: int = 0) -> onnx.ModelProto:
    """Copy the program with kernels stored as `kind`; ValueError for an unknown kind.

    int8: w = f q with q in -127 to 127, and one float32 factor f for each tap and output feature, so that
    only weights that are summed together share a step size. float16: rounded. mixed: int8 for large kernels
    only, with a factor for each `GROUP` inputs. Reference data of training images, arrays with `training`
    rows or columns, are never stored in fewer than 16 bits.
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
        known = training > 1 and training in array.shape and array.dtype == np.float32
        if not known and not _is_kernel(array):
            kept.append(tensor)
            continue
        if known or kind == "float16" or (kind == "mixed" and array.size < LARGE):
            stored: tuple[np.ndarray, ...] = (array.astype(np.float16),)
        else:
            stored = _quantised(array, GROUP if kind == "mixed" else array.shape[-2])
        parts = dict(zip(("stored", "factor"), stored, strict=False))
        if stored[0].shape != array.shape:
            parts["shape"] = np.array(array.shape, np.int64)
        kept += [numpy_helper.from_array(part, f"{tensor.name}_{name}") for name, part in parts.items()]
        # One operation per part; the output of the last has the tensor's name.
        cast: dict[str, Any] = {"to": onnx.TensorProto.FLOAT}
        steps = [("Cast", cast), ("Mul", {}), ("Reshape", {})][: len(parts)]
        before = f"{tensor.name}_stored"
        for (operation, options), name in zip(steps, parts, strict=True):
            after = tensor.name if name == list(parts)[-1] else f"{tensor.name}_{operation}"
            inputs = [before] if operation == "Cast" else [before, f"{tensor.name}_{name}"]
            nodes.append(helper.make_node(operation, inputs, [after], **options))
            before = after
    replace(small.graph.initializer, kept)
    replace(small.graph.node, [*nodes, *small.graph.node])
    return small


def replace(field: Any, items: list[Any]) -> None:
    """Replace all items of a repeated field of a protobuf message."""
    items = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(items)


def _is_kernel(array: np.ndarray) -> bool:
    """Whether an array is a kernel `[..., inputs, features]`, or histograms of training images `[C, T]`.

    Not a bias, a bias map, a few numbers, or a filter, whose rows or columns sum to 1.
    """
    if array.dtype != np.float32 or array.ndim < 2 or min(array.shape) == 1 or array.size <= 1024:
        return False
    return array.ndim > 2 or not any(np.allclose(array.sum(axis=axis), 1, atol=1e-3) for axis in (0, 1))


def _quantised(array: np.ndarray, group: int) -> tuple[np.ndarray, ...]:
    inputs, features = array.shape[-2:]
    if inputs < FEWEST_INPUTS:
        return (array.astype(np.float16),)
    if inputs > group and inputs % group == 0:
        array = array.reshape(*array.shape[:-2], inputs // group, group, features)
    factor = np.abs(array).max(axis=-2, keepdims=True) / 127
    factor[factor == 0] = 1
    return np.rint(array / factor).astype(np.int8), factor.astype(np.float32)

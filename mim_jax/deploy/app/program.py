"""The detector of one fold as an ONNX program: one uint8 image in; similarities, inpainting and map out.

It is traced from the functions that the detector runs, with the folded generator. jax2onnx, which writes the
file, knows neither the choice of a form by platform nor bfloat16; `primitive` puts the program into plain
float32 operations first: the forms for accelerators, which have no scatter, and no calls or branches left.
`shrink` then stores the weights in fewer bits; they are widened when the program loads, so that arithmetic
stays float32.
"""

import dataclasses
import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend import core
from onnx import helper, numpy_helper

from mim_jax import mask
from mim_jax.deploy import fuse
from mim_jax.detector import Detector
from mim_jax.inpaint.inference import network_fill
from mim_jax.measure.each import all_at_once, each_p
from mim_jax.measure.images import as_float
from mim_jax.measure.ssim import ssim

INPUT = "image"
OUTPUTS = ("similarities", "inpainted", "map")
OPSET = 17
# In the order of size; the export takes the first whose golden similarities stay within the tolerance.
KINDS = ("int8", "float16", "float32")
# Greatest error of golden similarities: rounding of weights, or of sums in another order.
TOLERANCE = {"int8": 1e-3, "float16": 1e-3, "float32": 1e-4}
# Inputs below which a factor for each tap and feature would take more room than it saves.
FEWEST_INPUTS = 8

# Primitive of a call -> its parameter that holds the program.
_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def folded(detector: Detector) -> Detector:
    """Fold each generator of a detector; the same scores to rounding."""
    pairs = [
        fuse.fold(detector.generator, variables, image_size=detector.image_size)
        for variables in detector.variables
    ]
    return dataclasses.replace(detector, generator=pairs[0][0], variables=[v for _, v in pairs])


def viewer(detector: Detector) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """Make the function of the app, of one image uint8 `[S, S, 3]`, from a detector of one fold.

    It returns the five similarities float32 `[5]`, in the order of `METRICS`; the image with its centre
    painted, uint8 `[S, S, 3]`; and SSIM of the two, float32 `[S, S]`: the mean over channels of the window
    around each pixel, 1 along the border, where no window is centred.
    """
    if len(detector.variables) != 1:
        raise ValueError(
            f"the app holds one fold, and this detector has {len(detector.variables)}: load it with fold=0"
        )
    variables, size, measure = detector.variables[0], detector.image_size, detector.measure
    sizes = {"mask_size": detector.mask_size, "margin": detector.margin}
    center = mask.center_offset(size, detector.mask_size)
    offsets = mask.grid_offsets(size, detector.mask_size, measure.holes)

    def view(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        batch = image[None]
        patches = {
            offset: network_fill(detector.generator, variables, batch, offset, **sizes)
            for offset in dict.fromkeys((*offsets, center))
        }
        scores = [measure.compare(batch, patches[offset], offset) for offset in offsets]
        joined = measure.reduced(jax.tree.map(lambda *values: jnp.stack(values), *scores))
        inpainted = mask.paste(as_float(image), patches[center][0], center)
        windows = jnp.mean(ssim(as_float(image), inpainted, return_map=True), axis=-1)
        before = (size - len(windows)) // 2
        edge = (before, size - len(windows) - before)
        return (
            jnp.concatenate(list(joined)),
            jnp.round(255 * jnp.clip(inpainted, 0, 1)).astype(jnp.uint8),
            jnp.pad(windows, (edge, edge), constant_values=1.0),
        )

    return view


def primitive(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> Callable[..., list[Any]]:
    """Rewrite a function in plain float32 operations: the form that `lax.platform_dependent` calls default.

    Calls are inlined, branches that the platform decides are taken, constants are computed beforehand, and
    bfloat16
    becomes float32.
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
        elif equation.primitive is each_p:
            results = _run(jax.make_jaxpr(functools.partial(all_at_once, **params))(*inputs), inputs)
        else:
            results = _bind(equation.primitive, inputs, params, known)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(primitive: Any, inputs: Sequence[Any], params: dict[str, Any], known: bool) -> Sequence[Any]:
    if params.get("new_dtype") == jnp.bfloat16:
        params = {**params, "new_dtype": np.dtype(np.float32)}
    # A number spread over an image is left as one operation: the file should hold one number.
    if known and primitive.name != "broadcast_in_dim":
        with jax.ensure_compile_time_eval():
            results = primitive.bind(*inputs, **params)
    else:
        results = primitive.bind(*inputs, **params)
    return results if primitive.multiple_results else [results]


def to_onnx(detector: Detector) -> onnx.ModelProto:
    """Convert a detector of one fold to ONNX, weights in float32; ValueError without jax2onnx."""
    try:
        import jax2onnx
    except ImportError as error:
        raise ValueError(
            f'jax2onnx is needed to write ONNX ({error}): see "The app" in docs/deploy.md'
        ) from error
    size = detector.image_size
    image = jax.ShapeDtypeStruct((size, size, 3), jnp.uint8)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(OUTPUTS)}
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    # It warns of every constant whose type is written elsewhere in the file.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
            warnings.simplefilter("ignore")
            flat = primitive(viewer(folded(detector)), image)
            model = jax2onnx.to_onnx(flat, [image], opset=OPSET, **names)
    finally:
        logger.setLevel(level)
    return model


def run(model: bytes, images: np.ndarray) -> np.ndarray:
    """Similarities `[N, 5]` that onnxruntime computes, one image after the other."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"onnxruntime is needed to check what was written ({error}): pip install 'mim-jax[app]'"
        ) from error
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.stack([session.run(OUTPUTS[:1], {INPUT: image})[0] for image in images])


def shrink(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """Copy the program with kernels stored as `kind`; an unknown one is a ValueError.

    int8: w = f q with q in -127 to 127, and one float32 factor f for each tap and output feature, so that
    only the weights that are summed for it share their steps. float16: rounded.
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
    """Replace all items of a repeated field of a message."""
    items = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(items)


def _is_kernel(array: np.ndarray) -> bool:
    """Whether an array is a kernel `[..., inputs, features]`, not a bias, a map of them, or a few numbers."""
    return array.dtype == np.float32 and array.ndim >= 3 and min(array.shape) > 1 and array.size > 1024


def _halved(array: np.ndarray) -> tuple[np.ndarray, ...]:
    return (array.astype(np.float16),)


def _quantised(array: np.ndarray) -> tuple[np.ndarray, ...]:
    if array.shape[-2] < FEWEST_INPUTS:
        return _halved(array)
    factor = np.abs(array).max(axis=-2, keepdims=True) / 127
    factor[factor == 0] = 1
    return np.rint(array / factor).astype(np.int8), factor.astype(np.float32)

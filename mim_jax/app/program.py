"""The detector of one fold as an ONNX program: one uint8 image in; similarities, inpainting and map out.

It is traced from the functions that the detector runs, with the folded generator. jax2onnx, which writes the
file, knows neither the choice of a form by platform nor bfloat16; `primitive` puts the program into plain
float32 operations first: the forms for accelerators, which have no scatter, and no calls or branches left.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from mim_jax import folding, mask
from mim_jax.detector import Detector
from mim_jax.inpaint.inference import network_fill
from mim_jax.measure import ssim
from mim_jax.measure.images import as_float

if TYPE_CHECKING:
    import onnx

INPUT = "image"
OUTPUTS = ("similarities", "inpainted", "map")
OPSET = 17

# What a call holds its program under, by the name of its primitive.
_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def folded(detector: Detector) -> Detector:
    """The detector with each generator folded; the same scores to rounding."""
    pairs = [
        folding.fold(detector.generator, variables, image_size=detector.image_size)
        for variables in detector.variables
    ]
    return dataclasses.replace(detector, generator=pairs[0][0], variables=[v for _, v in pairs])


def viewer(detector: Detector) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """What the app asks of a detector of one fold, as a function of one image, uint8 `[S, S, 3]`.

    It returns the five similarities float32 `[5]`, in the order of `METRICS`; the image with its centre
    painted, uint8 `[S, S, 3]`; and SSIM of the two, float32 `[S, S]`: the mean over channels of the window
    around each pixel, 1 along the border, where no window is centred.

    Raises:
      ValueError: a detector of several folds.
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
        windows = jnp.mean(ssim.ssim(as_float(image), inpainted, return_map=True), axis=-1)
        before = (size - len(windows)) // 2
        edge = (before, size - len(windows) - before)
        return (
            jnp.concatenate(list(joined)),
            jnp.round(255 * jnp.clip(inpainted, 0, 1)).astype(jnp.uint8),
            jnp.pad(windows, (edge, edge), constant_values=1.0),
        )

    return view


def primitive(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> Callable[..., list[Any]]:
    """The same function in plain float32 operations: what `lax.platform_dependent` calls the default form.

    Calls are inlined, branches that the platform decides are taken, what does not depend on the arguments is
    computed beforehand, and bfloat16 becomes float32.
    """
    program = jax.make_jaxpr(function)(*shapes)
    return lambda *arguments: _run(program, arguments)


def _run(program: core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    jaxpr = program.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *arguments), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs, name, params = (
            [read(atom) for atom in equation.invars],
            equation.primitive.name,
            equation.params,
        )
        known = not any(isinstance(value, jax.core.Tracer) for value in inputs)
        if name == "platform_index":
            results: Sequence[Any] = [np.int32(params["platforms"].index(None))]  # None: the default form
        elif name == "cond" and not isinstance(inputs[0], jax.core.Tracer):
            results = _run(params["branches"][int(inputs[0])], inputs[1:])
        elif name in _CALLS:
            results = _run(params[_CALLS[name]], inputs)
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


def to_onnx(detector: Detector) -> "onnx.ModelProto":
    """The ONNX program of a detector of one fold, weights in float32.

    Raises:
      ValueError: several folds; jax2onnx is not installed.
    """
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
    """The similarities that onnxruntime computes, one image after the other: `[N, 5]`."""
    session = _session(model)
    return np.stack([session.run(OUTPUTS[:1], {INPUT: image})[0] for image in images])


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"onnxruntime is needed to check what was written ({error}): pip install 'mim-jax[app]'"
        ) from error
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

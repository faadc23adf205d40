"""Published weights of the classifiers from safetensors files, in torchvision's or timm's naming.

Parameters here carry torchvision's names with "_" for ".", so that a file is matched name by name; timm's
names are rewritten to torchvision's first. Nothing in a file is ever executed.
"""

import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.classifiers import CLASSIFIERS
from mim_jax.data import weight_files

NAMED = 10  # most wrong tensors that a message lists; it counts all
# Counters and tables, not weights.
PASSED_OVER = ("num_batches_tracked", "relative_position_index", "attn_mask")
WRAPPERS = ("module.", "_orig_mod.")  # prefixes that PyTorch's DataParallel and compile add to every name
PICKLES = (".pth", ".pt", ".bin", ".pkl", ".pickle", ".ckpt")
BATCH_NORM_EPS = 1e-3  # of MobileNetV3Large, as in torchvision
TIMM_BATCH_NORM_EPS = 1e-5  # of timm's mobilenetv3_large_100


# The last dense layer of each network, in torchvision's naming.
_HEADS = {"resnet50": "fc", "mobilenet_v3_large": "classifier.3", "swin_b": "head"}


def load_pretrained(
    name: str, path: str | os.PathLike[str], *, classes: int = 1000, key: jax.Array | None = None
) -> dict[str, Any]:
    """Load the parameters and statistics of a classifier from a safetensors file.

    torchvision's `resnet50`, `mobilenet_v3_large` and `swin_b`, and timm's `resnet50`,
    `mobilenetv3_large_100` and `swin_base_patch4_window7_224`, recognised by their names. In evaluation mode
    outputs equal those of the network that was saved. timm's MobileNetV3 has a BatchNorm eps of 1e-5, this
    one has 1e-3: the difference is absorbed into the scales, which is exact as long as the running variances
    are those of the file, and approximate in training. (timm's `tf_mobilenetv3_large_100` has the same names,
    but a different padding and eps, so its outputs differ here.)

    `name` is a key of `CLASSIFIERS`, at its published width. If the file has another number of `classes`
    or no last layer, a new last layer is drawn by the network's `init` with `key`. Returns {"params": ...,
    "batch_stats": ...} structured as by `init`, float32; without BatchNorm "batch_stats" is empty.

    Raises:
      ValueError: unknown `name`; fewer than one class; the file is missing, a pickle, damaged, or of another
        network; tensors are missing, unknown, of the wrong shape or not finite, or variances are negative;
        no `key` for a new layer.
    """
    if name not in _HEADS:
        raise ValueError(f"unknown classifier {name!r}: choose one of {', '.join(sorted(_HEADS))}")
    if classes < 1:
        raise ValueError(f"a classifier needs at least 1 class, got classes={classes}")
    arrays = _read(path)
    likeness = _looks_like(arrays)
    if likeness not in (name, None):
        raise ValueError(f"{path} looks like weights of {likeness}, not of {name}: load it as {likeness}")
    entries = _as_torchvision(name, arrays)
    head, layer = _HEADS[name], _HEADS[name].replace(".", "_")
    _, last_weight = entries.get(f"{head}.weight", ("", np.empty(0)))
    found = last_weight.shape[0] if last_weight.ndim == 2 else classes
    shapes = _shapes(name, found)
    if backbone := not {f"{head}.weight", f"{head}.bias"} & entries.keys():
        del shapes["params"][layer]
    variables = _fill(shapes, entries, f"{path} does not fit {name}")
    if backbone or found != classes:
        if key is None:
            has = f"no last layer {head}" if backbone else f"{found} classes, not {classes}"
            raise ValueError(f"{path} has {has}: give a key to draw a new last layer with")
        network, images = CLASSIFIERS[name](classes=classes), jnp.zeros((1, 32, 32, 3))
        # As one program, from which XLA removes the other layers.
        draw = jax.jit(lambda key: network.init(key, images, train=False)["params"][layer])
        variables["params"][layer] = draw(key)
    return variables


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: give the path of a safetensors file")
    try:
        arrays = weight_files.load(path)
    except ValueError as error:
        with Path(path).open("rb") as file:
            start = file.read(4)
        # PyTorch's files are zip archives or, older ones, bare pickles.
        if Path(path).suffix in PICKLES or start == b"PK\x03\x04" or start[:1] == b"\x80":
            raise ValueError(
                f"{path} is a pickle, which can run any code, and is not read: if you trust it, convert it "
                'with safetensors.torch.save_file(torch.load(path, weights_only=True), "weights.safetensors")'
            ) from error
        raise
    while wrapper := next(
        (each for each in WRAPPERS if arrays and all(name.startswith(each) for name in arrays)), ""
    ):
        arrays = {name.removeprefix(wrapper): array for name, array in arrays.items()}
    return {name: array for name, array in arrays.items() if not name.endswith(PASSED_OVER)}


def _looks_like(names: Mapping[str, Any]) -> str | None:
    """Recognise a network by tell-tale names."""
    if any(name.endswith("relative_position_bias_table") for name in names):
        return "swin_b"
    if "layer1.0.conv1.weight" in names:
        return "resnet50"
    if {"conv_stem.weight", "conv_head.weight"} <= names.keys() or "features.1.block.0.0.weight" in names:
        return "mobilenet_v3_large"
    return None


def _shapes(name: str, classes: int) -> dict[str, Any]:
    """Shapes that `init` would give."""
    network = CLASSIFIERS[name](classes=classes)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), images)
    return {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}


def _as_torchvision(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Map torchvision's name -> (name in the file, array), with values as torchvision's network needs them.

    Names that are not timm's stay as they are.
    """
    rewrite: Callable[[str], str] = str
    if name == "swin_b" and "patch_embed.proj.weight" in arrays:
        # Until 2023 timm merged patches at the end of a stage, as the authors do; since then before the next.
        merged_behind = any(entry.startswith("layers.0.downsample.") for entry in arrays)
        rewrite = functools.partial(_swin_name, merged_behind=merged_behind)
    elif name == "mobilenet_v3_large" and "conv_stem.weight" in arrays:
        arrays, rewrite = _with_our_eps(arrays), _mobilenet_name
    renamed: dict[str, tuple[str, np.ndarray]] = {}
    for entry, array in arrays.items():
        target = rewrite(entry)
        # Two entries for one tensor: the second gets a name that no network has, and is reported as unknown.
        renamed[f"{target} again" if target in renamed else target] = (entry, array)
    return renamed


def _swin_name(entry: str, *, merged_behind: bool) -> str:
    entry = re.sub(r"^patch_embed\.proj\.", "features.0.0.", entry)
    entry = re.sub(r"^patch_embed\.norm\.", "features.0.2.", entry)
    entry = re.sub(r"^head\.fc\.", "head.", entry)
    if matched := re.fullmatch(r"layers\.(\d)\.downsample\.(.+)", entry):
        stage = int(matched[1]) + merged_behind
        return f"features.{2 * stage}.{matched[2]}"
    if matched := re.fullmatch(r"layers\.(\d)\.blocks\.(.+)", entry):
        rest = matched[2].replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")
        return f"features.{2 * int(matched[1]) + 1}.{rest}"
    return entry


_MOBILENET_STAGES = (1, 2, 3, 4, 2, 3)  # blocks per stage
_MOBILENET_EXCITED = (2, 4, 5)  # stages with squeeze-and-excitation
_MOBILENET_ENDS = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "blocks.6.0.conv": "features.16.0",
    "blocks.6.0.bn1": "features.16.1",
    "conv_head": "classifier.0",
    "classifier": "classifier.3",
}


def _mobilenet_name(entry: str) -> str:
    layer, _, last = entry.rpartition(".")
    if layer in _MOBILENET_ENDS:
        return f"{_MOBILENET_ENDS[layer]}.{last}"
    matched = re.fullmatch(r"blocks\.([0-5])\.(\d)\.(.+)", layer)
    if not matched:
        return entry
    stage, block = int(matched[1]), int(matched[2])
    if stage == 0:  # no expansion before its depthwise convolution
        inner = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1.0", "bn2": "1.1"}
    else:
        shrink = 3 if stage in _MOBILENET_EXCITED else 2
        inner = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1"}
        inner |= {"se.conv_reduce": "2.fc1", "se.conv_expand": "2.fc2"} if shrink == 3 else {}
        inner |= {"conv_pwl": f"{shrink}.0", "bn3": f"{shrink}.1"}
    if matched[3] not in inner:
        return entry
    return f"features.{1 + sum(_MOBILENET_STAGES[:stage]) + block}.block.{inner[matched[3]]}.{last}"


def _with_our_eps(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replace the scales g by g' with g' / sqrt(var + ours) = g / sqrt(var + timm's).

    Changing variances to var + timm's - ours could make them negative, and training would use other scales.
    """
    changed = dict(arrays)
    for entry, var in arrays.items():
        scale = entry.removesuffix("running_var") + "weight"
        if entry.endswith(".running_var") and scale in arrays and arrays[scale].shape == var.shape:
            wide = var.astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):  # for variances that `_fill` rejects
                factor = np.sqrt((wide + BATCH_NORM_EPS) / (wide + TIMM_BATCH_NORM_EPS))
            changed[scale] = (arrays[scale].astype(np.float64) * factor).astype(np.float32)
    return changed


def _fill(shapes: Any, arrays: Mapping[str, tuple[str, np.ndarray]], complaint: str) -> dict[str, Any]:
    """Put every array in its place, transposed to Flax's layout.

    The ValueError has `complaint` and the arrays that are missing, unknown, or of wrong shape or values.
    """
    left, wrong = dict(arrays), list[str]()

    def place(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray | None:
        keys = [str(part.key) for part in path[1:]]
        last = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
        wanted = "_".join(keys[:-1]), last.get(keys[-1], keys[-1])
        if wanted not in by_name:
            wrong.append(f"{'/'.join(keys)} is missing")
            return None
        entry, array = left.pop(by_name[wanted])
        turned = _turned(array, leaf.ndim) if keys[-1] == "kernel" else array
        if turned.shape != leaf.shape:
            wrong.append(f"{entry} has shape {turned.shape}, not {leaf.shape}")
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            wrong.append(f"{entry} holds {array.dtype}, not floating-point numbers")
        values = np.array(turned, np.float32, order="C")
        if not np.all(np.isfinite(values)):
            wrong.append(f"{entry} holds NaN or infinite numbers")
        elif keys[-1] == "var" and values.min(initial=0) < 0:
            wrong.append(f"{entry} holds negative variances")
        return values

    by_name = {
        (layer.replace(".", "_"), last): name for name in arrays for layer, _, last in (name.rpartition("."),)
    }
    filled = jax.tree_util.tree_map_with_path(place, shapes)
    unknown = [f"{entry} is not known" for entry, _ in left.values()]
    if total := len(wrong) + len(unknown):
        # List some of both kinds, so that a prefix common to all names shows.
        named = [*wrong[: NAMED - min(len(unknown), NAMED // 2)], *unknown][:NAMED]
        more = f"; and {total - NAMED} more" if total > NAMED else ""
        count = f"{total} tensor{'s are' if total > 1 else ' is'} wrong"
        raise ValueError(f"{complaint}, {count}: {'; '.join(named)}{more}; give a file of that network")
    return jax.tree.map(jnp.asarray, filled)


def _turned(weight: np.ndarray, ndim: int) -> np.ndarray:
    """Transpose PyTorch's `[O, I, k, k]` to `[k, k, I, O]`, `[O, I]` to `[I, O]`; convert 1x1 <-> dense."""
    turned = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight
    if ndim == 2 and turned.shape[:-2] == (1, 1):
        return turned[0, 0]
    if ndim == 4 and turned.ndim == 2:
        return turned[None, None]
    return turned

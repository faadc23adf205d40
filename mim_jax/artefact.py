"""A folder of files that vouch for each other: what an export is on disk. Needs JAX and NumPy alone.

manifest.json       format, versions, and the SHA-256 of every other file
config.json         network, sizes, metric, threshold: for people and for `Detector.from_export`
model.safetensors   the weights of every fold
scorer.stablehlo    the scorer as `jax.export` writes it: uint8 images -> five similarities
golden.safetensors  images, and the similarities they had when the folder was written
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mim_jax import tensors

FORMAT = 1
MANIFEST, CONFIG, WEIGHTS = "manifest.json", "config.json", "model.safetensors"
SCORER, GOLDEN = "scorer.stablehlo", "golden.safetensors"


def write(
    folder: Path, *, config: Mapping[str, Any], weights: Sequence[Any], facts: Mapping[str, Any]
) -> str:
    """Writes config, weights and, over everything in the folder by then, the manifest. Returns its digest."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors.save(folder / WEIGHTS, flatten(weights))
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    manifest = json.dumps({"format": FORMAT, **facts, "files": files}, indent=2) + "\n"
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    return _sha256(folder / MANIFEST)


def verify(path: str | os.PathLike[str], *, digest: str | None = None) -> dict[str, Any]:
    """The manifest, after every file has been held against it.

    Args:
      path: the folder.
      digest: what `export` returned, where it is known: then nothing can have been exchanged.

    Raises:
      ValueError: not an export, of another format, or not as it was written.
    """
    root = Path(path).expanduser()
    if not (root / MANIFEST).is_file():
        raise ValueError(f"{root} is no export, it has no {MANIFEST}: make one with launch.py --mode=export")
    found = _sha256(root / MANIFEST)
    if digest is not None and digest != found:
        raise ValueError(f"{root / MANIFEST} has the digest {found}, not {digest}: this is another export")
    manifest = read_json(root / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{root} has format {manifest.get('format')!r} and this mim_jax reads {FORMAT}: export it anew "
            "from its workdir"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {CONFIG, WEIGHTS, SCORER, GOLDEN}:
        raise ValueError(f"{root / MANIFEST} does not list the files of an export: fetch the folder again")
    for name, expected in files.items():
        if not (root / name).is_file():
            raise ValueError(f"{root} lacks {name}: fetch the folder again, whole")
        if _sha256(root / name) != expected:
            raise ValueError(
                f"{root / name} is not the file that was exported (its SHA-256 differs): fetch it again"
            )
    return manifest


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Any]]:
    """config.json, and the variables of each fold, of a verified folder."""
    root = Path(path).expanduser()
    verify(root)
    return read_json(root / CONFIG), unflatten(tensors.load(root / WEIGHTS))


def check_weights(weights: Sequence[Any], wanted: Any) -> None:
    """Raises ValueError unless every fold has the arrays of `wanted`, a tree of shapes and dtypes."""
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in flatten([wanted]).items()}
    for fold, variables in enumerate(weights):
        found = {name: (leaf.shape, leaf.dtype) for name, leaf in flatten([variables]).items()}
        if found != expected:
            names = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            raise ValueError(
                f"fold {fold} does not fit the network of {CONFIG}: {names[0]} is {found.get(names[0])}, "
                f"expected {expected.get(names[0])}"
            )


def flatten(folds: Sequence[Any]) -> dict[str, Any]:
    """Nested dictionaries, one a fold -> arrays by name, such as "0/params/down_0/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(list(folds))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(arrays: Mapping[str, Any]) -> list[Any]:
    """What `flatten` was given; a collection without arrays, such as the statistics of a network that keeps
    none, comes back empty.
    """
    folds: dict[int, Any] = {}
    for name, leaf in arrays.items():
        fold, *path, last = name.split("/")
        node = folds.setdefault(int(fold), {"params": {}, "batch_stats": {}})
        for part in path:
            node = node.setdefault(part, {})
        node[last] = leaf
    return [folds[fold] for fold in sorted(folds)]


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: fetch it again")
    return content


def save_golden(folder: Path, images: np.ndarray, scores: np.ndarray) -> None:
    tensors.save(folder / GOLDEN, {"images": images, "similarities": scores})


def load_golden(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    golden = tensors.load(folder / GOLDEN)
    return golden["images"], golden["similarities"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

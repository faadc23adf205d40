"""Disk cache of feature histograms, keyed by image content."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mim_jax.data import weight_files
from mim_jax.data.batches import PIECE, batch_size
from mim_jax.features.backbone import Backbone
from mim_jax.features.detector import FEATURES, describe_images
from mim_jax.features.one_class import Histograms

VERSION = 1  # raise it when the same image and network give different histograms
_KEYS = "sha256"  # name of the array of pixel hashes, uint8 [N, 32]; every other array is a layer


def described(
    backbone: Backbone,
    images: np.ndarray,
    *,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Histograms:
    """Compute channel histograms of images uint8 `[N, S, S, 3]`, or read them: layer -> float32 `[N, C]`.

    They are cached in `folder`, one file per network. Nothing is cached if `folder` is None or the network is
    custom and so has no digest. `progress` is called with the number of images done since the last call.
    """
    tell = progress or (lambda done: None)
    keys = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    path = folder / f"{backbone.name}-{backbone.digest[:16]}-v{VERSION}.safetensors" if folder else None
    kept = _read(path) if path and backbone.digest else {}
    rows = {key.tobytes(): row for row, key in enumerate(kept.pop(_KEYS, np.zeros((0, 32), np.uint8)))}
    new = [index for key, index in dict(zip(keys, range(len(keys)), strict=True)).items() if key not in rows]
    tell(len(images) - len(new))
    step, parts = PIECE * batch_size(), [kept] if kept else []
    for start in range(0, len(new), step):
        few = new[start : start + step]
        parts.append(describe_images(backbone, images[few])[FEATURES])
        rows |= {keys[index]: len(rows) + k for k, index in enumerate(few)}
        tell(len(few))
    kept = {layer: np.concatenate([part[layer] for part in parts]) for layer in (parts or [{}])[0]}
    if path and backbone.digest and new:
        _write(path, kept, rows)
    return {layer: values[[rows[key] for key in keys]] for layer, values in kept.items()}


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return weight_files.load(path)
    except (OSError, ValueError):  # missing, or truncated by a full disk: computed again
        return {}


def _write(path: Path, kept: Histograms, rows: dict[bytes, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    keys = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)  # in the order of the rows
    weight_files.save(unfinished, {**kept, _KEYS: keys})
    unfinished.replace(path)

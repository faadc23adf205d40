"""A small detector to export, and changes of its export that damage would never make."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax import Detector
from mim_jax.data import weight_files
from mim_jax.decide.decision import Calibration
from mim_jax.deploy import export, format
from mim_jax.inpaint.inference import abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure

SIZE = 32
MODEL = {
    "generator": "context_encoder",
    "options": {"width": 4, "bottleneck": "pointwise", "bottleneck_channels": 8},
    "image_size": SIZE,
    "mask_size": SIZE // 2,
}
CALIBRATION = Calibration(
    metric="ssim_hbd",
    positive="mpox",
    rule="calibrated",
    miss_rate=0.1,
    # In the range of the scores, and shifted between the folds, so that mixing them up would show.
    scores=tuple(tuple(np.linspace(low, low + 0.01, 15).tolist()) for low in (0.715, 0.7225)),
    lower=0.72,
    upper=0.728,
    origin="invented",
    promise="none",
    band="none",
)
REMOVED = "a field to remove"


def make_detector():
    generator = make_generator(MODEL["generator"], MODEL["options"], dtype=jnp.float32)
    shapes, rng = abstract_variables(generator, SIZE), np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.normal(0, 0.1, leaf.shape)
        return jnp.asarray(1 + abs(values) if path[-1].key == "var" else values, jnp.float32)

    folds = [jax.tree_util.tree_map_with_path(draw, shapes) for _ in range(2)]
    return Detector(
        generator,
        folds,
        SIZE,
        SIZE // 2,
        0.7,
        "invented",
        Measure(region="image", bins=64),
        MODEL,
        CALIBRATION,
    )


def images(count):
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def rewrite(folder, name, content):
    """Replace a file and its hash, as damage never would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / format.MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / format.MANIFEST).write_text(json.dumps(manifest))


def exchange(folder, name, **fields):
    """Replace fields of a JSON file, named like `model__image_size`, or arrays of a weight file by name."""
    if name in (format.WEIGHTS, format.GOLDEN):
        arrays = {**weight_files.load(folder / name), **fields}
        weight_files.save(folder / "new", {key: array for key, array in arrays.items() if array is not None})
        content = (folder / "new").read_bytes()
        (folder / "new").unlink()
        rewrite(folder, name, content)
        return
    content = json.loads((folder / name).read_text())
    for path, value in fields.items():
        *parents, last = path.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
        if value is REMOVED:
            del node[last]
    text = json.dumps(content)
    if name == format.MANIFEST:
        (folder / name).write_text(text)
    else:
        rewrite(folder, name, text.encode())


def refused(folder, message, *, loaders=(export.load_exported, export.load_detector)):
    """Check that each loader raises a ValueError with a one-line message."""
    for load in loaders:
        with pytest.raises(ValueError, match=message) as caught:
            load(folder)
        assert "\n" not in str(caught.value)

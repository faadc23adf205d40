"""Small detectors with weights like trained ones: none is 0 or 1, and the fill varies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.detector import CombinedDetector, Detector
from mim_jax.features.backbone import Backbone
from mim_jax.features.detector import fit_detector
from mim_jax.features.one_class import Units
from mim_jax.inpaint.inference import abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure

SIZE = 64


def make_detector(generator="context_encoder", *, size=SIZE, width=8, channels=40, **measure):
    options = {"width": width, "bottleneck": "pointwise", "bottleneck_channels": channels}
    network = make_generator(generator, options, dtype=jnp.float32)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        spread = 1.5 / np.sqrt(np.prod(leaf.shape[:3]) / 4) if path[-1].key == "kernel" else 0.1
        return jnp.asarray(rng.normal(0, spread, leaf.shape), jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract_variables(network, size))
    model = {"generator": generator, "options": options, "image_size": size, "mask_size": size // 2}
    return Detector(network, [variables], size, size // 2, 0.7, "invented", Measure(**measure), model)


def small_network(weights, images):
    """Two layers of a ReLU network, each at half the resolution of the one before."""
    found, x = {}, images - 0.5
    for name, kernel in weights.items():
        x = jax.nn.relu(x[:, ::2, ::2] @ kernel[0] + x[:, 1::2, 1::2] @ kernel[1])
        found[name] = x
    return found


def make_features(color=True, folds=1, size=SIZE, name="small"):
    """A feature detector on an invented network, fitted on images with one kind of texture."""
    rng = np.random.default_rng(3)
    shapes = {"first": (2, 3, 12), "second": (2, 12, 16)}
    weights = {layer: rng.normal(0, 0.5, shape).astype(np.float32) for layer, shape in shapes.items()}
    backbone = Backbone(name, small_network, size, weights, "0" * 64, "invented")
    images, count = striped(20 * folds, size), 20 * folds
    training = [np.flatnonzero(np.arange(count) % folds != k) for k in range(folds)]
    training = training if folds > 1 else [np.arange(count)]
    fitted = fit_detector(backbone, images, groups=np.arange(count), training=training, color=color)
    return dataclasses.replace(fitted, threshold=-1.0, threshold_origin="invented")


def striped(count, size=SIZE, seed=0):
    """Images of reddish stripes with grain, uint8 `[count, size, size, 3]`."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(size) * rng.uniform(0.5, 0.9, (count, 1)))[:, :, None, None]
    tone = np.array([170, 110, 90]) + rng.normal(0, 8, (count, 1, 1, 3))
    grain = rng.normal(0, 10, (count, size, size, 3))
    return np.clip(tone + 30 * wave + grain, 0, 255).astype(np.uint8)


def make_combined(folds=1, size=SIZE):
    """A combined detector (MIM, features, colours); MIM sees reduced images if `size` exceeds its own."""
    mim = make_detector()
    mim = dataclasses.replace(mim, variables=[*mim.variables] * folds)
    units = Units(np.full(folds, 0.6, np.float32), np.full(folds, 0.05, np.float32))
    features = make_features(folds=folds, size=size)
    return CombinedDetector(mim, features, units, threshold=-1.0, threshold_origin="invented")

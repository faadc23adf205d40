"""A small detector whose weights are as training leaves them: nothing is 0 or 1, and the fill varies."""

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.detector import Detector
from mim_jax.inpaint.inference import abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure

SIZE = 64


def make_detector(generator="context_encoder", **measure):
    options = {"width": 8, "bottleneck": "pointwise", "bottleneck_channels": 40}
    network = make_generator(generator, options, dtype=jnp.float32)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        spread = 1.5 / np.sqrt(np.prod(leaf.shape[:3]) / 4) if path[-1].key == "kernel" else 0.1
        return jnp.asarray(rng.normal(0, spread, leaf.shape), jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract_variables(network, SIZE))
    model = {"generator": generator, "options": options, "image_size": SIZE, "mask_size": SIZE // 2}
    return Detector(network, [variables], SIZE, SIZE // 2, 0.7, "invented", Measure(**measure), model)

"""The folded generator gives the same patches and the same scores, from fewer parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.deploy import fuse
from mim_jax.detector import Detector
from mim_jax.inpaint.inference import abstract_variables, to_network_range
from mim_jax.inpaint.networks import ContextEncoder, UNet

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE = 64


def trained_like(generator, size=SIZE):
    """Variables like trained ones: no statistic, scale or shift is 0 or 1."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.3, 2, leaf.shape), jnp.float32)
        return jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(generator, size))


@pytest.mark.parametrize("bottleneck", ["pointwise", "channelwise_fc", "global"])
def test_the_folded_network_paints_the_same(bottleneck):
    generator = ContextEncoder(width=4, bottleneck=bottleneck, bottleneck_channels=24)
    variables = trained_like(generator)
    folded, arrays = fuse.fold(generator, variables, image_size=SIZE)
    image = jnp.zeros((1, SIZE, SIZE, 3))
    wanted = jax.eval_shape(functools.partial(folded.init, train=False), jax.random.key(0), image)
    assert jax.tree.map(jnp.shape, arrays["params"]) == jax.tree.map(jnp.shape, wanted["params"])
    masked = to_network_range(jax.random.uniform(jax.random.key(1), (3, SIZE, SIZE, 3)))
    before, after = (
        jax.jit(functools.partial(network.apply, train=False))(values, masked)
        for network, values in ((generator, variables), (folded, arrays))
    )
    assert np.ptp(before) > 0.2
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_detector_of_folded_networks_scores_the_same():
    generator = ContextEncoder(width=4, bottleneck_channels=24)
    detector = Detector(generator, [trained_like(generator)], SIZE, SIZE // 2)
    folded, arrays = fuse.fold(generator, detector.variables[0], image_size=SIZE)
    images = np.random.default_rng(2).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    again = dataclasses.replace(detector, generator=folded, variables=[arrays])
    before, after = detector.similarities(images), again.similarities(images)
    for metric, values in before.items():
        # A pixel on the edge between two levels of the histogram may fall to the other side.
        np.testing.assert_allclose(after[metric], values, atol=2e-4 if "hbd" in metric else 1e-5)


def test_folding_leaves_a_quarter_at_full_size():
    generator = ContextEncoder()
    shapes = abstract_variables(generator, 224)
    folded = jax.eval_shape(
        lambda key, x: fuse.FoldedContextEncoder().init(key, x, train=False),
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
    )
    before, after = (sum(leaf.size for leaf in jax.tree.leaves(v["params"])) for v in (shapes, folded))
    assert (before, after) == (40_401_187, 9_871_491)


def test_other_generators_stay_and_folded_ones_do_not_train():
    unet = UNet(width=4)
    assert fuse.fold(unet, {"params": {}}, image_size=64)[0] is unet
    with pytest.raises(ValueError, match="train it before folding"):
        fuse.FoldedContextEncoder(4).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=True)

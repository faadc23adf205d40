"""The networks have the published sizes and shapes, and name what they cannot take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mim_jax.inpaint.convolution import saves_to_compose
from mim_jax.inpaint.networks import GENERATORS, ContextEncoder, PatchDiscriminator, UNet, make_generator
from mim_jax.inpaint.networks.context_encoder import BOTTLENECKS


def shapes(module, size, **options):
    """Output shape and number of parameters, without computing anything."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    out, variables = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, **options), images
    )
    return out.shape, sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))


def test_published_sizes():
    assert shapes(ContextEncoder(), 224, train=True) == ((2, 112, 112, 3), 40_401_187)
    assert shapes(PatchDiscriminator(), 112) == ((2, 14, 14, 1), 1_555_585)
    # 512 maps of 7 x 7, each through its own dense layer (Pathak et al. 2016).
    assert shapes(ContextEncoder(bottleneck="channelwise_fc"), 224, train=True)[1] == 40_401_187 + 1_254_400


@pytest.mark.parametrize("module", [UNet(8), *(ContextEncoder(8, kind, 24) for kind in BOTTLENECKS)])
@pytest.mark.parametrize("size", [64, 96])
def test_every_generator_paints_half_the_side(module, size):
    assert shapes(module, size, train=True)[0] == (2, size // 2, size // 2, 3)


def test_composed_layers_are_the_same_network(compiled_quickly):
    """Composed only in training, if that is less work; parameters keep their names and initial values."""
    images = jax.random.uniform(jax.random.key(1), (4, 96, 96, 3), minval=-1)
    composed, apart = (ContextEncoder(4, "pointwise", 400, compose=compose) for compose in (True, False))
    key = jax.random.key(0)
    variables, others = jax.jit(
        lambda: [module.init(key, images, train=True) for module in (composed, apart)]
    )()
    jax.tree.map(np.testing.assert_array_equal, variables, others)

    @jax.jit
    def painted(variables):
        return [
            module.apply(variables, images, train=train, mutable=["batch_stats"])[0]
            for train in (True, False)
            for module in (composed, apart)
        ]

    assert saves_to_compose(4 * 3 * 3, 32, 400, 32, 4) and not saves_to_compose(32, 32, 400, 32, 4)
    trained, expected, evaluated, same = painted(variables)
    np.testing.assert_allclose(trained, expected, atol=1e-5)
    assert np.any(trained != expected)
    np.testing.assert_array_equal(evaluated, same)


def test_bfloat16_changes_the_computation_but_not_the_parameters():
    module = ContextEncoder(8, "pointwise", 24, dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    out, variables = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, train=True), images
    )
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_a_generator_plugged_in_by_name(monkeypatch):
    class Grey(nn.Module):
        dtype: type = jnp.float32

        @nn.compact
        def __call__(self, masked, *, train):
            return jnp.zeros((masked.shape[0], masked.shape[1] // 2, masked.shape[2] // 2, 3))

    monkeypatch.setitem(GENERATORS, "grey", Grey)
    module = make_generator("grey", {"width": 3}, dtype=jnp.float32)
    assert shapes(module, 64, train=True)[0] == (2, 32, 32, 3)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"multiples of 32, not 100: try 96 or 128"):
        shapes(ContextEncoder(8), 100, train=True)
    with pytest.raises(ValueError, match=r"'gans'.*context_encoder, unet"):
        make_generator("gans", {}, dtype=jnp.float32)
    with pytest.raises(ValueError, match="unknown bottleneck 'dense'"):
        shapes(ContextEncoder(8, bottleneck="dense"), 64, train=True)

"""Initial weights drawn in one loop equal those that each layer draws itself, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs.mim import get_config
from mim_jax.inpaint import initial
from mim_jax.inpaint.layers import BatchNorm, Conv
from mim_jax.train.config import parse
from mim_jax.train.epochs import init_state
from mim_jax.train.mim import make_gan

pytestmark = pytest.mark.usefixtures("compiled_quickly")


class Network(nn.Module):
    """Weights of several blocks, of one block, and of a few numbers, with and without a mean."""

    @nn.compact
    def __call__(self, x):
        x = BatchNorm(train=True)(Conv(20, 4)(x))
        return nn.Dense(3)(Conv(2 * initial.BLOCK // 20 + 7, 1)(x))  # Dense draws in Flax's own way


IMAGES = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)


def drawn(key):
    return initial.together(lambda: Network().lazy_init(key, IMAGES))


@pytest.mark.parametrize("impl", ("threefry2x32", "rbg"))
def test_one_loop_draws_what_each_layer_draws(impl):
    key = jax.random.key(5, impl=impl)
    apart = jax.jit(lambda key: Network().init(key, jnp.zeros(IMAGES.shape)))(key)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(drawn)(key), apart)
    scale, kernel = apart["params"]["BatchNorm_0"]["scale"], apart["params"]["Conv_1"]["kernel"]
    assert abs(scale.mean() - 1) < 0.02 and abs(kernel.mean()) < 0.001 and abs(kernel.std() / 0.02 - 1) < 0.02


def test_another_numbering_of_the_draws_is_left_alone():
    with jax.threefry_partitionable(False):
        key = jax.random.key(5)
        apart = jax.jit(lambda key: Network().init(key, jnp.zeros(IMAGES.shape)))(key)
        jax.tree.map(np.testing.assert_array_equal, jax.jit(drawn)(key), apart)


def test_the_state_of_a_training_is_one_draw_and_no_network():
    gan = make_gan(parse(get_config("quick").to_dict()), steps=1)
    text = init_state.lower(gan, jax.random.key(0)).as_text()
    assert text.count("chlo.erf_inv") == 1
    assert "stablehlo.dot_general" not in text and "stablehlo.convolution" not in text

"""Layers recomputed for gradients give the same numbers, names and statistics, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import classifiers
from mim_jax.classifiers.resnet import ResNet50
from mim_jax.classifiers.train import make_config
from mim_jax.inpaint import recomputing
from mim_jax.inpaint.layers import BatchNorm, Conv, instance_norm, leaky_relu
from mim_jax.inpaint.recomputing import recomputed
from mim_jax.train.config import parse

# Which arrays are held at once is decided before machine code is generated.
pytestmark = pytest.mark.usefixtures("compiled_quickly")


class Block(nn.Module):
    """Two dense layers with a norm between them."""

    @nn.compact
    def __call__(self, x):
        y = nn.relu(BatchNorm(True, name="norm")(nn.Dense(256, name="wide")(x)))
        return x + jnp.sin(nn.Dense(8, name="narrow")(y))


class Tower(nn.Module):
    """Blocks one after the other."""

    again: bool

    @nn.compact
    def __call__(self, x):
        block = recomputed(Block) if self.again else Block
        for k in range(4):
            x = block(name=f"block_{k}")(x)
        return x


def test_numbers_names_and_statistics_are_the_same_in_less_memory():
    x = jax.random.normal(jax.random.key(0), (8, 16, 16, 8))
    key = jax.random.key(1)
    variables = Tower(False).init(key, x)
    again = jax.eval_shape(Tower(True).init, key, x)
    assert jax.tree.structure(variables) == jax.tree.structure(again)

    def run(tower):
        def loss(params, x):
            given = {**variables, "params": params}
            y, changed = tower.apply(given, x, mutable=["batch_stats"])
            return jnp.sum(y**2), changed

        program = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(variables["params"], x)
        compiled = program.compile()
        return compiled(variables["params"], x), compiled.memory_analysis().temp_size_in_bytes

    (plain, held), (other, less) = run(Tower(False)), run(Tower(True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), plain, other)
    moved = plain[0][1]["batch_stats"]["block_0"]["norm"]["mean"]
    assert np.abs(moved - variables["batch_stats"]["block_0"]["norm"]["mean"]).max() > 0
    assert less < 0.6 * held


class Layers(nn.Module):
    """Layers of MIM: convolutions whose windows are written out, and norms with their activations."""

    @nn.compact
    def __call__(self, x):
        x = leaky_relu(Conv(16, 3, padding=1, name="first")(x))
        x = BatchNorm(True, activation=leaky_relu, name="norm")(
            Conv(16, 4, stride=2, padding=1, name="second")(x)
        )
        x = Conv(16, 4, stride=2, padding=1, transpose=True, name="third")(x)
        return instance_norm(x, nn.relu)


def test_layers_of_large_images_are_the_same_in_less_memory(monkeypatch):
    x = jax.random.normal(jax.random.key(0), (4, 64, 64, 16))
    variables = Layers().init(jax.random.key(1), x)

    def run():
        def loss(params, x):
            y, changed = Layers().apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(y**3), changed

        program = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(variables["params"], x)
        compiled = program.compile()
        return compiled(variables["params"], x), compiled.memory_analysis().temp_size_in_bytes

    plain, held = run()
    monkeypatch.setattr(recomputing, "LARGE", 2**16)
    other, less = run()
    # Matrices have 4 to 10 MB: up to three parts of four images.
    monkeypatch.setattr(recomputing, "LARGEST", 2**22)
    parts, least = run()
    rounding = 1e-6 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))
    for found in (other, parts):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=rounding), plain, found)
    assert less < 0.9 * held and least < 0.9 * less


@pytest.mark.parametrize("outer", [lambda fn: fn, recomputing.again], ids=["alone", "inside"])
def test_layers_inside_a_recomputed_part_are_not_recomputed_again(monkeypatch, outer):
    monkeypatch.setattr(recomputing, "LARGE", 0)
    layer = outer(recomputing.lean(jnp.sin))
    program = jax.jit(jax.grad(lambda x: jnp.sum(layer(x)))).trace(jnp.ones(3))
    text = program.lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("bitcast_convert") == 1


def test_a_gpu_keeps_what_it_has_computed(monkeypatch):
    """A GPU has enough memory, and its compiler its own optimisations."""
    monkeypatch.setattr(recomputing, "LARGE", 0)
    x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    text = {
        platform: jax.jit(jax.grad(lambda x: jnp.sum(instance_norm(x, leaky_relu))))
        .trace(x)
        .lower(lowering_platforms=(platform,))
        .as_text()
        for platform in ("cpu", "cuda")
    }
    assert "bitcast_convert" in text["cpu"] and "bitcast_convert" not in text["cuda"]


def test_a_resnet_has_the_same_parameters():
    images = jnp.zeros((1, 32, 32, 3))
    shapes = [
        jax.eval_shape(lambda network=network: network.init(jax.random.key(0), images, train=True))
        for network in (ResNet50(classes=2, width=4, recompute=again) for again in (False, True))
    ]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])


@pytest.mark.parametrize(("batch", "again"), [(128, True), (8, False)])
def test_a_cpu_gives_time_for_memory_where_batches_are_large(batch, again):
    config = classifiers.get_config("resnet50").to_dict()
    config["training"]["batch_size"] = batch
    assert make_config(parse(config), steps=1).network.recompute is again

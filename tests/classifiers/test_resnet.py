"""ResNet50 matches torchvision's in outputs, gradients and running statistics; its pooling PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_torchvision import check_against, count, drawn, import_torchvision, lively

from mim_jax.classifiers import resnet
from mim_jax.classifiers.resnet import Bottleneck, ResNet50

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_parameters():
    assert count(ResNet50(1000)) == 25_557_032


def test_same_numbers_as_torchvision():
    models = import_torchvision().models
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    width = 8
    module = models.resnet50(num_classes=5)
    # torchvision's network has a fixed width: rebuild its stages, thinner.
    module.inplanes = width
    module.conv1 = torch.nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
    module.bn1 = torch.nn.BatchNorm2d(width)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        block = models.resnet.Bottleneck
        made = module._make_layer(block, width * 2**stage, blocks, stride=2 if stage else 1)
        setattr(module, f"layer{stage + 1}", made)
    module.fc = torch.nn.Linear(32 * width, 5)
    images = np.random.default_rng(0).standard_normal((4, 64, 64, 3), np.float32)
    lively(module)
    # Small residual branches: fifty large layers amplify float32 rounding beyond 1e-4, in PyTorch too.
    with torch.no_grad():
        for name, scale in module.named_parameters():
            if name.endswith("bn3.weight"):
                scale.mul_(0.1)
    check_against(ResNet50(5, width=width), module, images, "fc")


def test_initialised_as_in_torchvision():
    first, inner, shortcut, kernel, bias, scale = drawn(
        ResNet50(1000, width=32),
        ("conv1", "kernel"),
        ("layer4_2_conv2", "kernel"),
        ("layer3_0_downsample_0", "kernel"),
        ("fc", "kernel"),
        ("fc", "bias"),
        ("layer1_0_bn3", "scale"),
    )
    for values, fan_out in ((first, 49 * 32), (inner, 9 * 256), (shortcut, 512)):
        np.testing.assert_allclose(np.std(values), np.sqrt(2 / fan_out), rtol=0.05)
    for values in (kernel, bias):
        np.testing.assert_allclose(np.abs(values).max(), 1024**-0.5, rtol=0.01)
        np.testing.assert_allclose(np.std(values), (3 * 1024) ** -0.5, rtol=0.05)
    assert np.all(scale == 1)


def test_bfloat16_computes_and_float32_remains():
    network = ResNet50(3, width=8, dtype=jnp.bfloat16)
    images = jnp.zeros((2, 96, 96, 3))
    (outputs, updated), variables = jax.eval_shape(
        lambda: (
            network.apply(
                v := network.init(jax.random.key(0), images, train=False),
                images,
                train=True,
                mutable=["batch_stats"],
            ),
            v,
        )
    )
    assert [(o.shape, o.dtype) for o in outputs] == [((2, 3), jnp.float32), ((2, 256), jnp.float32)]
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {jnp.dtype("float32")}
    hidden = jax.eval_shape(
        lambda: Bottleneck(4, 2, True, True, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), images)[
            0
        ]
    )
    assert hidden.dtype == jnp.bfloat16


@pytest.mark.parametrize("side", [8, 7])
def test_both_forms_of_max_pool_are_pytorchs(side):
    torch = pytest.importorskip("torch")
    # Few distinct values give ties in nearly every window; the first maximum gets the gradient.
    x = np.random.default_rng(0).integers(0, 3, (2, side, side, 5)).astype(np.float32)
    batch = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(batch, 3, stride=2, padding=1)
    weights = np.random.default_rng(1).standard_normal(tuple(pooled.shape), np.float32)
    pooled.backward(torch.from_numpy(weights))
    for form in (resnet._max_pool_lax, resnet._max_pool_slices):
        value, gradient = jax.jit(lambda x, y, form=form: (form(x), jax.vjp(form, x)[1](y)[0]))(
            x, weights.transpose(0, 2, 3, 1)
        )
        np.testing.assert_array_equal(value, pooled.detach().permute(0, 2, 3, 1).numpy())
        np.testing.assert_allclose(gradient, batch.grad.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    assert np.isnan(resnet.max_pool(jnp.asarray(x).at[0, 3, 3, 0].set(jnp.nan))[0, 1:3, 1:3, 0]).all()

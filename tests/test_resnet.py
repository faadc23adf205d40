"""ResNet50 is torchvision's, forward, backward and in its running statistics; its pooling is PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.models import layers
from mim_jax.models.resnet import Bottleneck, ResNet50


def import_torchvision():
    """torchvision, or a skip where it is not installed.

    Beside a CPU build of PyTorch, the CUDA build of torchvision finds none of its compiled operations and stops
    at the first of two whose shapes it wants to register. Networks need neither: declared, they let it pass.
    """
    torch = pytest.importorskip("torch")
    try:
        return pytest.importorskip("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        return pytest.importorskip("torchvision")


def lively(module):
    """`module` with scales, biases and running statistics that are neither zero nor one."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(0.0, 0.1, generator=generator)
            elif name.endswith("running_var") or tensor.ndim == 1:
                tensor.uniform_(0.75, 1.25, generator=generator)
    return module


def leaves(module, *, gradients=False):
    """(path joined by "_", last component) -> array in Flax's layout: what a module has, or its gradients."""
    named = module.named_parameters() if gradients else module.state_dict().items()
    found = {}
    for name, tensor in named:
        array = (tensor.grad if gradients else tensor).detach().numpy()
        path, _, last = name.rpartition(".")
        if last == "num_batches_tracked":
            continue
        if last == "weight":
            last = "scale" if array.ndim == 1 else "kernel"
        key = path.replace(".", "_"), last.removeprefix("running_")
        found[key] = (array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T).copy()
    return found


def flat(tree):
    """The same keys for a Flax tree below "params" or "batch_stats"."""
    with_paths = jax.tree_util.tree_leaves_with_path(tree)
    keys = [[step.key for step in path] for path, _ in with_paths]
    return {("_".join(key[:-1]), key[-1]): leaf for key, (_, leaf) in zip(keys, with_paths, strict=True)}


def take_over(network, images, module):
    """The variables of `network` with the values of `module`: every name and shape must be the same."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    values = leaves(module)
    assert {k: v.shape for tree in shapes.values() for k, v in flat(tree).items()} == {
        k: v.shape for k, v in values.items()
    }
    filled = {name: [values[key] for key in flat(tree)] for name, tree in shapes.items()}
    return {name: jax.tree.unflatten(jax.tree.structure(shapes[name]), filled[name]) for name in shapes}


def count(network):
    shapes = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False), jnp.zeros((1, 64, 64, 3))
    )
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def check_against(network, module, images, head, beside=lambda variables, images: ()):
    """Logits, features, statistics and gradients of `network` are those of `module`.

    `head` names the last dense layer of `module`, whose input the features are. Returns what `beside` gives: it
    is compiled with the rest, which saves most of its time.
    """
    torch = pytest.importorskip("torch")
    variables = take_over(network, images, module)
    weights = np.random.default_rng(2).standard_normal((len(images), network.classes), np.float32)

    @jax.jit
    def everything(variables, images):
        def loss(params):
            (logits, features), updated = network.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.asarray(weights) * logits), (logits, features, updated["batch_stats"])

        (_, trained), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        evaluated = network.apply(variables, images, train=False)
        return evaluated, trained, gradients, beside(variables, images)

    (logits, features), trained, gradients, more = everything(variables, images)
    train_logits, train_features, statistics = trained

    seen = []
    module.get_submodule(head).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = module.eval()(batch)
    trained = module.train()(batch)
    (torch.from_numpy(weights) * trained).sum().backward()
    for ours, theirs in (
        (logits, expected),
        (features, seen[0]),
        (train_logits, trained.detach()),
        (train_features, seen[1]),
    ):
        assert np.std(theirs.numpy()) > 0.01  # else there is nothing to compare
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
    theirs = leaves(module)
    for key, value in flat(statistics).items():
        np.testing.assert_allclose(value, theirs[key], rtol=1e-4, atol=1e-5, err_msg=str(key))
    theirs = leaves(module, gradients=True)
    sizes = {key: np.linalg.norm(gradient) for key, gradient in theirs.items()}
    for key, value in flat(gradients).items():
        # Rounding is far below a fiftieth; one unit that rounds to the other side of a ReLU's bend is not. Biases
        # that a normalisation behind them takes away have a gradient of zero, up to rounding.
        allowed = 0.02 * sizes[key] + 1e-5 * max(sizes.values())
        assert np.linalg.norm(value - theirs[key]) < allowed, key
    return more


def test_parameters():
    assert count(ResNet50(1000)) == 25_557_032


def test_same_numbers_as_torchvision():
    models = import_torchvision().models
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    width = 8
    module = models.resnet50(num_classes=5)
    # torchvision's network has one width: its stages are laid again, thinner.
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
    # Small branches: fifty layers of large ones amplify float32's rounding, PyTorch's own too, beyond 1e-4.
    with torch.no_grad():
        for name, scale in module.named_parameters():
            if name.endswith("bn3.weight"):
                scale.mul_(0.1)
    check_against(ResNet50(5, width=width), module, images, "fc")


def drawn(network, *keys):
    """Some initial parameters; the others are never computed."""

    @jax.jit
    def values(key):
        params = flat(network.init(key, jnp.zeros((1, 32, 32, 3)), train=False)["params"])
        return [params[key] for key in keys]

    return [np.asarray(value) for value in values(jax.random.key(0))]


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
        lambda: Bottleneck(4, 2, True, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), images, True)[
            0
        ]
    )
    assert hidden.dtype == jnp.bfloat16


def test_jitted_equals_eager():
    block = Bottleneck(4, 2, True)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 8))
    variables = jax.jit(lambda: block.init(jax.random.key(1), x, False))()

    def apply(variables, x):
        return block.apply(variables, x, True, mutable=["batch_stats"])

    pair = apply(variables, x), jax.jit(apply)(variables, x)
    for a, b in zip(*map(jax.tree.leaves, pair), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [8, 7])
def test_both_forms_of_max_pool_are_pytorchs(side):
    torch = pytest.importorskip("torch")
    # Few distinct values: ties in nearly every window, whose first maximum has the gradient.
    x = np.random.default_rng(0).integers(0, 3, (2, side, side, 5)).astype(np.float32)
    batch = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(batch, 3, stride=2, padding=1)
    weights = np.random.default_rng(1).standard_normal(tuple(pooled.shape), np.float32)
    pooled.backward(torch.from_numpy(weights))
    for form in (layers._max_pool_lax, layers._max_pool_slices):
        value, gradient = jax.jit(lambda x, y, form=form: (form(x), jax.vjp(form, x)[1](y)[0]))(
            x, weights.transpose(0, 2, 3, 1)
        )
        np.testing.assert_array_equal(value, pooled.detach().permute(0, 2, 3, 1).numpy())
        np.testing.assert_allclose(gradient, batch.grad.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    assert np.isnan(layers.max_pool(jnp.asarray(x).at[0, 3, 3, 0].set(jnp.nan))[0, 1:3, 1:3, 0]).all()

"""Swin against torchvision's, forward and backward; drop path and half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_torchvision import import_torchvision

from mim_jax.classifiers.swin import SwinB

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CLASSES, WIDTH, DEPTHS = 3, 32, (2, 1, 1, 2)
# Sides of 25, 13, 7 and 4 patches: padded and shifted, padded for merging, one window, one not shifted.
SIDE = 100


def network(**options):
    return SwinB(CLASSES, width=WIDTH, depths=DEPTHS, **options)


def drawn(module, images, seed):
    """Random variables, none of them neutral: biases, scales and position tables matter too."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = rng.standard_normal(leaf.shape, np.float32)
        match path[-1].key:
            case "scale":
                return 1 + np.float32(0.2) * values
            case "kernel":
                return values / np.float32(np.sqrt(leaf.size / leaf.shape[-1]))
            case _:
                return np.float32(0.5) * values

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def variables(images):
    return drawn(network(), images, seed=0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).standard_normal((3, SIDE, SIDE, 3), np.float32)


@pytest.fixture(scope="module")
def twin(variables):
    """torchvision's network with the same weights."""
    torch = pytest.importorskip("torch")
    import_torchvision()
    from torchvision.models.swin_transformer import SwinTransformer

    heads = [WIDTH // 32 * 2**stage for stage in range(4)]
    model = SwinTransformer([4, 4], WIDTH, list(DEPTHS), heads, [7, 7], num_classes=CLASSES).eval()
    ours = {joined(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(in_torchs_layout(ours.pop(name.replace(".", "_"))).copy()))
    assert not ours
    return model


def joined(path):
    *layer, last = (part.key for part in path)
    return "_".join([*layer, {"kernel": "weight", "scale": "weight"}.get(last, last)])


def in_torchs_layout(leaf):
    leaf = np.asarray(leaf)
    if leaf.shape[0] == 169:  # position tables
        return leaf
    return leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T


def test_parameters_are_as_many_as_published():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(lambda key, x: SwinB(1000).init(key, x, train=False), jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 87_768_224


def test_numbers_and_gradients_are_torchvisions(variables, images, twin):
    import torch

    def loss(params):
        logits, features = network().apply({"params": params}, images, train=False)
        return jnp.mean(jnp.sin(3 * logits)), (logits, features)

    quickly = {"xla_backend_optimization_level": 0}  # compiles in half the time
    compiled = jax.jit(jax.grad(loss, has_aux=True), compiler_options=quickly)
    gradients, (logits, features) = compiled(variables["params"])
    seen = []
    twin.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().numpy()))
    expected = twin(torch.from_numpy(images).permute(0, 3, 1, 2))
    torch.sin(3 * expected).mean().backward()
    assert expected.abs().max() > 0.5
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(features, seen[0], atol=1e-4)
    theirs = {name.replace(".", "_"): p.grad.numpy() for name, p in twin.named_parameters()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        wanted = theirs[joined(path)]
        # Key biases have a zero gradient up to rounding: atol is relative to each parameter's largest one.
        np.testing.assert_allclose(
            in_torchs_layout(leaf), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max()
        )


SMALL = SwinB(CLASSES, width=WIDTH, depths=(2,), drop_path=0.5)  # the first block is always kept
IMAGE = np.random.default_rng(2).standard_normal((1, 28, 28, 3), np.float32)


def test_without_drop_path_training_is_evaluation():
    kept = SMALL.clone(drop_path=0.0)

    @jax.jit
    def both(variables):
        trained = kept.apply(variables, IMAGE, train=True, rngs={"dropout": jax.random.key(0)})
        return SMALL.apply(variables, IMAGE, train=False), trained

    for expected, found in zip(*both(drawn(SMALL, IMAGE, seed=3)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_half_precision_gives_float32_near_the_full_one():
    variables = drawn(SMALL, IMAGE, seed=5)
    full, half = (
        jax.jit(lambda v, module=module: module.apply(v, IMAGE, train=False))(variables)
        for module in (SMALL, SMALL.clone(dtype=jnp.bfloat16))
    )
    for found, expected in zip(half, full, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
        assert np.abs(found - expected).max() > 1e-5  # it was half precision


def test_drop_path_drops_branches_of_single_images_and_scales_the_others():
    params = drawn(SMALL, IMAGE, seed=4)["params"]

    @jax.jit
    def trained(images):
        return SMALL.apply({"params": params}, images, train=True, rngs={"dropout": jax.random.key(2)})[1]

    @jax.jit
    def scaled(attention, mlp):
        """Features in evaluation mode with both branches of the second block scaled."""
        block = params["features_1_1"]
        projection = jax.tree.map(lambda w: attention * w, block["attn"]["proj"])
        last = jax.tree.map(lambda w: mlp * w, block["mlp_3"])
        block = {**block, "attn": {**block["attn"], "proj": projection}, "mlp_3": last}
        return SMALL.apply({"params": {**params, "features_1_1": block}}, IMAGE, train=False)[1][0]

    rows = np.asarray(trained(np.repeat(IMAGE, 64, axis=0)))
    cases = np.stack([scaled(attention, mlp) for attention in (0.0, 2.0) for mlp in (0.0, 2.0)])
    distances = np.abs(rows[:, None] - cases[None]).max(-1)
    assert (distances.min(1) < 1e-4).all()
    counts = np.bincount(distances.argmin(1), minlength=4)
    assert counts.min() >= 6 and counts.max() <= 28  # of 64, each with probability 1/4


def test_a_width_without_whole_heads_is_refused():
    with pytest.raises(ValueError, match="multiples of 32, not 40"):
        SwinB(2, width=40).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)

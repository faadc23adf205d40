"""Shared by the tests of classifiers and backbones: torchvision's networks, and comparisons with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import vision


def import_torchvision():
    """Import torchvision; skip the test if it is not installed."""
    pytest.importorskip("torch")
    try:
        return vision.import_torchvision()
    except ModuleNotFoundError as error:
        pytest.skip(f"torchvision is not installed: {error}")


def lively(module):
    """Randomise scales, biases and running statistics of `module`, so that none is exactly 0 or 1."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(0.0, 0.1, generator=generator)
            elif name.endswith("running_var") or (tensor.ndim == 1 and tensor.is_floating_point()):
                tensor.uniform_(0.75, 1.25, generator=generator)
    return module


def leaves(module, *, gradients=False):
    """A module's state (or gradients) in Flax's layout: (path joined by "_", last component) -> array."""
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
    """Flatten a Flax tree, "params" or "batch_stats", to the keys of `leaves`."""
    with_paths = jax.tree_util.tree_leaves_with_path(tree)
    keys = [[step.key for step in path] for path, _ in with_paths]
    return {("_".join(key[:-1]), key[-1]): leaf for key, (_, leaf) in zip(keys, with_paths, strict=True)}


def take_over(network, images, module):
    """Variables of `network` with the values of `module`; all names and shapes must match."""
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


def check_against(network, module, images, head):
    """Check that logits, features, statistics and gradients of `network` match `module`.

    `head` names the last dense layer of `module`; its input is compared with the features.
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
        return evaluated, trained, gradients

    (logits, features), trained, gradients = everything(variables, images)
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
        # Rounding changes a gradient by far less than 2 %, unless a unit lands on the other side of a ReLU's
        # kink. Biases cancelled by the normalisation that follows have a zero gradient, up to rounding.
        allowed = 0.02 * sizes[key] + 1e-5 * max(sizes.values())
        assert np.linalg.norm(value - theirs[key]) < allowed, key


def drawn(network, *keys):
    """Initial values of the parameters `keys`; the others are never computed."""

    @jax.jit
    def values(key):
        params = flat(network.init(key, jnp.zeros((1, 32, 32, 3)), train=False)["params"])
        return [params[key] for key in keys]

    return [np.asarray(value) for value in values(jax.random.key(0))]

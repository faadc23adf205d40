"""The same weights and masks through this package and through its PyTorch twin give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mim_jax import mask
from mim_jax.inpaint import gan, inference
from mim_jax.inpaint.networks import ContextEncoder, PatchDiscriminator

torch = pytest.importorskip("torch")

from benchmarks import torch_twin  # noqa: E402 (needs torch)

SIZE, MASK, WIDTH, CHANNELS, BATCH = 64, 32, 8, 40, 6


def constant(step):
    return 1e-3


CONFIG = gan.GanConfig(
    generator=ContextEncoder(WIDTH, "pointwise", CHANNELS),
    discriminator=PatchDiscriminator(WIDTH),
    optimizer=optax.adam(1e-3),
    schedule=constant,
    image_size=SIZE,
    mask_size=MASK,
    margin=0,
    flips=False,
    pixel_weight=0.999,
    adversarial_weight=0.001,
    generator_target=1.0,
    real_weight=0.5,
    fake_weight=0.5,
    real_input="patch",
)
INIT = jax.jit(gan.init_state, static_argnums=1)
STEP = jax.jit(gan.update_on, static_argnums=0)


@pytest.fixture
def pair():
    """A state, and the twin with its weights. Norm scales and biases are moved off their neutral values."""
    state = INIT(jax.random.key(0), CONFIG)
    rng = np.random.default_rng(1)

    def shaken(tree):
        return jax.tree.map(
            lambda leaf: leaf + np.float32(0.02) * rng.standard_normal(leaf.shape, np.float32), tree
        )

    state = state.replace(
        generator_params=shaken(state.generator_params),
        discriminator_params=shaken(state.discriminator_params),
    )
    generator, discriminator = torch_twin.Generator(WIDTH, CHANNELS), torch_twin.Discriminator(WIDTH)
    torch_twin.load(generator, torch_twin.GENERATOR_LAYERS, state.generator_params)
    torch_twin.load(discriminator, torch_twin.DISCRIMINATOR_LAYERS, state.discriminator_params)
    return state, torch_twin.Twin(generator, discriminator)


def batch(seed):
    """Masked images and hidden patches, in [-1, 1]."""
    # Dark, coarse noise: the networks have a colour and a scale to learn.
    images = np.random.default_rng(seed).integers(0, 128, (BATCH, SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    images = np.repeat(np.repeat(images, 8, 1), 8, 2)
    return _masked(jax.random.key(seed), images)


@jax.jit
def _masked(key, images):
    real = inference.to_network_range(images)
    offsets = mask.random_offsets(key, BATCH, size=SIZE, mask_size=MASK)
    hidden = jax.vmap(lambda image, at: mask.hide(image, at, mask_size=MASK))(real, offsets)
    return hidden, jax.vmap(lambda image, at: mask.cut(image, at, mask_size=MASK))(real, offsets)


def to_torch(x):
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def relative(found, expected):
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12)


def test_the_twin_has_the_published_sizes():
    count = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in {"g": torch_twin.Generator(), "d": torch_twin.Discriminator()}.items()
    }
    assert count == {"g": 40_401_187, "d": 1_555_585}


def test_same_weights_same_outputs(pair):
    state, twin = pair
    hidden, patches = batch(0)
    with torch.no_grad():
        scores = twin.discriminator(to_torch(patches)).numpy().transpose(0, 2, 3, 1)
        painted = twin.generator.eval()(to_torch(hidden)).numpy().transpose(0, 2, 3, 1)
    ours = jax.jit(CONFIG.discriminator.apply)({"params": state.discriminator_params}, patches)
    np.testing.assert_allclose(ours, scores, atol=1e-5)
    variables = {"params": state.generator_params, "batch_stats": state.batch_stats}
    ours = jax.jit(CONFIG.generator.apply, static_argnames="train")(variables, hidden, train=False)
    np.testing.assert_allclose(ours, painted, atol=1e-5)


def test_one_step_has_the_same_losses_gradients_and_statistics(pair):
    state, twin = pair
    hidden, patches = batch(0)
    after, metrics = STEP(CONFIG, state, hidden, patches)
    expected = twin.step(to_torch(hidden), to_torch(patches))
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name

    for module, names, optimizer in (
        (twin.generator, torch_twin.GENERATOR_LAYERS, after.generator_opt),
        (twin.discriminator, torch_twin.DISCRIMINATOR_LAYERS, after.discriminator_opt),
    ):
        # Adam's first moment after one step is a tenth of the gradient.
        grads = jax.tree.map(lambda moment: moment / 0.1, optax.tree.get(optimizer, "mu"))
        whole = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads)))
        for layer, name in zip(torch_twin.with_parameters(module), names, strict=True):
            weight = "scale" if isinstance(layer, torch.nn.BatchNorm2d) else "kernel"
            for key, tensor in ((weight, layer.weight), ("bias", layer.bias)):
                found, wanted = np.asarray(grads[name][key]), torch_twin.to_flax(layer, tensor.grad)
                # A bias before a norm has gradient 0 up to rounding: compare it with all gradients.
                assert relative(found, wanted) < 1e-4 or np.linalg.norm(found - wanted) < 1e-6 * whole, (
                    name,
                    key,
                )

    norms = [layer for layer in twin.generator.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    names = [name for name in torch_twin.GENERATOR_LAYERS if "norm" in name]
    for layer, name in zip(norms, names, strict=True):
        np.testing.assert_allclose(after.batch_stats[name]["mean"], layer.running_mean.numpy(), atol=1e-6)
        np.testing.assert_allclose(after.batch_stats[name]["var"], layer.running_var.numpy(), rtol=1e-5)


def test_loss_curves_of_twenty_steps_agree(pair):
    """Adam turns the rounding of zero gradients into signs, so parameters drift apart.

    The loss curves do not.
    """
    state, twin = pair
    ours, theirs = [], []
    for n in range(20):
        hidden, patches = batch(n)
        state, metrics = STEP(CONFIG, state, hidden, patches)
        ours.append([float(metrics[name]) for name in ("loss_pixel", "loss_discriminator")])
        expected = twin.step(to_torch(hidden), to_torch(patches))
        theirs.append([expected[name] for name in ("loss_pixel", "loss_discriminator")])
    ours, theirs = np.array(ours), np.array(theirs)
    assert theirs[-5:, 0].mean() < 0.9 * theirs[:5, 0].mean(), "nothing was learnt, so nothing was compared"
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=0.02)
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=0.1)

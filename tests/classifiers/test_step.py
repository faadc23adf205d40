"""The update follows its formula, epochs are sequences of updates, and training is reproducible."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mim_jax.classifiers.step import ClassifierConfig
from mim_jax.train.epochs import init_state, run_epochs

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], np.int32)


class Small(nn.Module):
    """A network with logits, features, statistics and dropout, like the real ones."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.relu(nn.Dense(6)(images.reshape(len(images), -1)))
        features = nn.BatchNorm(use_running_average=not train)(features)
        return nn.Dense(3)(nn.Dropout(self.rate, deterministic=not train)(features)), features


@functools.cache  # equal optimisers are not the same one, and would be compiled again
def make_config(rate=0.0, flips=False):
    return ClassifierConfig(
        Small(rate), optax.sgd(0.1), optax.constant_schedule(0.1), image_size=8, flips=flips
    )


@functools.partial(jax.jit, static_argnames="config")
def step(config, state, images, labels, key):
    return config.step(state, {"images": images, "labels": labels}, key)


def run(config, state, images, labels, epochs):
    examples = {"images": images, "labels": labels}
    return run_epochs(
        config, state, epochs, examples=examples, scalars={}, key=KEY, batch_size=4, drop_last=False
    )


def test_one_update_follows_the_gradient_of_the_cross_entropy():
    config = make_config()
    state = init_state(config, KEY)

    def loss_of(params):
        mean = np.array([0.485, 0.456, 0.406], np.float32)[None, None, None]
        deviation = np.array([0.229, 0.224, 0.225], np.float32)[None, None, None]
        inputs = (IMAGES.astype(np.float32) / 255 - mean) / deviation
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, _), _ = config.network.apply(variables, inputs, train=True, mutable=["batch_stats"])
        shares = jnp.exp(logits) / jnp.exp(logits).sum(axis=1, keepdims=True)
        return -jnp.log(shares[np.arange(10), LABELS]).mean(), logits

    (loss, logits), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(state.params)
    after, metrics = step(config, state, IMAGES, LABELS, KEY)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), after.params, expected)
    assert metrics["loss"] == pytest.approx(float(loss), abs=1e-5)
    assert metrics["accuracy"] == pytest.approx(np.mean(np.argmax(logits, 1) == LABELS))
    assert int(after.step) == 1
    statistics = after.batch_stats["BatchNorm_0"]["mean"]
    assert np.any(statistics != state.batch_stats["BatchNorm_0"]["mean"])


def test_epochs_are_their_updates_and_can_be_cut_in_two():
    config = make_config(rate=0.5, flips=True)
    whole, metrics = run(config, init_state(config, KEY), IMAGES, LABELS, jnp.arange(2))
    first, _ = run(config, init_state(config, KEY), IMAGES, LABELS, jnp.arange(1))
    second, again = run(config, first, IMAGES, LABELS, jnp.arange(1, 2))
    jax.tree.map(np.testing.assert_array_equal, whole, second)
    assert int(whole.step) == 6  # batches of 4, 4, 2
    np.testing.assert_array_equal(metrics["loss"][1], again["loss"][0])


def test_labels_stay_with_their_images():
    """Images that show their label are learned; with shuffled labels they would not be."""
    images = np.zeros((30, 8, 8, 3), np.uint8)
    labels = np.arange(30, dtype=np.int32) % 3
    images[np.arange(30), :, :, labels] = 255
    config = make_config()
    _, metrics = run(config, init_state(config, KEY), images, labels, jnp.arange(20))
    assert metrics["accuracy"][-1] == 1


def test_dropout_and_flips_change_with_the_step_and_not_with_the_call():
    config = make_config(rate=0.5, flips=True)
    state = init_state(config, KEY)
    losses = [
        float(step(config, s, IMAGES, LABELS, KEY)[1]["loss"]) for s in (state, state, state.replace(step=1))
    ]
    assert losses[0] == losses[1] != losses[2]

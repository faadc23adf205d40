"""The update of a classifier: a pure function on explicit state. Nothing here touches a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from mim_jax.measure.images import as_float, flip_at_random
from mim_jax.train.epochs import Metrics

# Of ImageNet's training images (R, G, B), as published weights expect.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class ClassifierState(struct.PyTreeNode):
    """Training state: the network, its statistics and the optimiser's state."""

    # As `inpaint.gan.AdversarialState.SCORING`.
    SCORING: ClassVar = ("classifier", {"params": "params", "batch_stats": "batch_stats"})

    step: jax.Array  # int32 [], updates made
    params: Any
    batch_stats: Any
    opt: optax.OptState


@dataclass(frozen=True)
class ClassifierConfig:
    """Network, optimiser and image size of a training, hashable as a static argument of `jit`.

    It is a `mim_jax.train.epochs.Task`.
    """

    network: nn.Module  # images [B, S, S, 3], train= -> logits [B, classes], features [B, F]
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    image_size: int
    flips: bool  # mirror training images left to right and upside down, each at random

    def init(self, key: jax.Array) -> ClassifierState:
        images = jnp.zeros((1, self.image_size, self.image_size, 3))
        return self.start_from(self.network.init(key, images, train=False))

    def start_from(self, variables: Any) -> ClassifierState:
        """Make the initial state from given variables, such as published weights."""
        return ClassifierState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt=self.optimizer.init(variables["params"]),
        )

    def step(
        self, state: ClassifierState, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[ClassifierState, Metrics]:
        """Update the network once, by the mean cross-entropy.

        `batch` holds `images` `[B, S, S, 3]` and int32 `labels` `[B]`. `key` is the run's; it is folded with
        the step here, so pass the same key for every update. Returns the state after the update and scalar
        float32 metrics: loss, accuracy, learning rate.
        """
        images, labels = batch["images"], batch["labels"]
        flip_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        inputs = normalize(flip_at_random(flip_key, images) if self.flips else images)

        def loss_of(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
            (logits, _), changed = self.network.apply(
                {"params": params, "batch_stats": state.batch_stats},
                inputs,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), (changed.get("batch_stats", {}), logits)

        (loss, (batch_stats, logits)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt = self.optimizer.update(grads, state.opt, state.params)
        metrics = {
            "loss": loss,
            "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
            "learning_rate": jnp.asarray(self.schedule(state.step), jnp.float32),
        }
        params = optax.apply_updates(state.params, updates)
        return ClassifierState(step=state.step + 1, params=params, batch_stats=batch_stats, opt=opt), metrics


def normalize(images: jax.Array) -> jax.Array:
    """Normalise uint8 or [0, 1] images to float32 by ImageNet's mean and standard deviation per channel."""
    mean, deviation = (jnp.array(values)[(None,) * (images.ndim - 1)] for values in (MEAN, DEVIATION))
    return (as_float(images) - mean) / deviation

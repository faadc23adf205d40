"""One update of a classifier, and epochs of it: pure functions on explicit state, no file touched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import NamedSharding

from mim_jax.measure.images import as_float, flip_at_random
from mim_jax.train.epochs import Metrics, scan_epochs

# Of ImageNet's training images, R, G, B: what published weights expect.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class ClassifierState(struct.PyTreeNode):
    """Everything that changes while training."""

    # As `training.AdversarialState.SCORING`.
    SCORING: ClassVar = ("classifier", {"params": "params", "batch_stats": "batch_stats"})

    step: jax.Array  # int32 [], updates made
    params: Any
    batch_stats: Any
    opt: optax.OptState


@dataclass(frozen=True)
class Task:
    """Everything that stays. Hashable, so that it can be a static argument of `jit`."""

    network: nn.Module  # images [B, S, S, 3], train= -> logits [B, classes], features [B, F]
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    image_size: int
    flips: bool  # mirror training images left to right and upside down, each at random


def normalize(images: jax.Array) -> jax.Array:
    """uint8 or [0, 1] -> float32 with ImageNet's mean 0 and deviation 1 in each channel."""
    mean, deviation = (jnp.array(values)[(None,) * (images.ndim - 1)] for values in (MEAN, DEVIATION))
    return (as_float(images) - mean) / deviation


def init_state(key: jax.Array, task: Task) -> ClassifierState:
    """A fresh network and optimiser state."""
    images = jnp.zeros((1, task.image_size, task.image_size, 3))
    return start_from(task, task.network.init(key, images, train=False))


def start_from(task: Task, variables: Any) -> ClassifierState:
    """The state before the first update of a network with these variables: published weights, for one."""
    return ClassifierState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt=task.optimizer.init(variables["params"]),
    )


def classification_step(
    task: Task, state: ClassifierState, images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[ClassifierState, Metrics]:
    """One update on one batch, by the mean cross-entropy.

    Args:
      task: network and optimiser.
      state: before the update.
      images: uint8 or float in [0, 1], `[B, S, S, 3]`.
      labels: int32 `[B]`.
      key: the run's key; folded with the step here, so the same key serves every update.

    Returns:
      The state after the update and scalar float32 metrics: loss, accuracy, learning rate.
    """
    flip_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    inputs = normalize(flip_at_random(flip_key, images) if task.flips else images)

    def loss_of(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        (logits, _), changed = task.network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), (changed.get("batch_stats", {}), logits)

    (loss, (batch_stats, logits)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt = task.optimizer.update(grads, state.opt, state.params)
    metrics = {
        "loss": loss,
        "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
        "learning_rate": jnp.asarray(task.schedule(state.step), jnp.float32),
    }
    params = optax.apply_updates(state.params, updates)
    return ClassifierState(step=state.step + 1, params=params, batch_stats=batch_stats, opt=opt), metrics


def train_epochs(
    task: Task,
    state: ClassifierState,
    images: jax.Array,
    labels: jax.Array,
    epochs: jax.Array,
    key: jax.Array,
    *,
    batch_size: int,
    drop_last: bool,
    split: NamedSharding | None = None,
) -> tuple[ClassifierState, Metrics]:
    """Whole epochs in one dispatch.

    Args:
      task: network and optimiser.
      state: before the first of these epochs.
      images: uint8 `[N, S, S, 3]`, all training images, on the device.
      labels: int32 `[N]`.
      epochs: int32 `[E]`, the epoch numbers to run.
      key: the fold's key.
      batch_size: as `scan_epochs`.
      drop_last: as `scan_epochs`.
      split: as `scan_epochs`.

    Returns:
      As `scan_epochs`.
    """
    step_key = jax.random.fold_in(key, 1)

    def step(state: ClassifierState, index: jax.Array) -> tuple[ClassifierState, Metrics]:
        return classification_step(task, state, images[index], labels[index], step_key)

    return scan_epochs(
        step, state, len(images), epochs, key, batch_size=batch_size, drop_last=drop_last, split=split
    )

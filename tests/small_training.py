"""Trainings that compile quickly: small networks in place of MIM's, and a task that only counts."""

import contextlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import struct

from configs.mim import get_config
from mim_jax.inpaint.gan import GanConfig
from mim_jax.inpaint.networks import GENERATORS
from mim_jax.train import config, metric_writer, mim, trainer
from mim_jax.train.settings import TrainingSettings

FIELDS = {
    "data.image_size": 32,
    "mask.size": 16,
    "data.folds": 3,
    "data.procedural_positives": 15,
    "data.procedural_negatives": 18,
    "training.epochs": 4,
    "training.batch_size": 4,
    "training.checkpoint_every": 2,
    "training.panel_every": 0,
    "training.autoencoder": False,
}
# A complete run of two folds, from launch to report, with the shortest evaluation.
SHORT = {
    "data.folds": 2,
    "data.procedural_positives": 10,
    "training.epochs": 2,
    "training.checkpoint_every": 1,
    "evaluation.procedural_clinical": 0,
    "evaluation.robustness_images": 0,
    "evaluation.more_holes": 1,
    "evaluation.resamples": 40,
}


class Painter(nn.Module):
    """A small generator; its BatchNorm makes it depend on the batch."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masked, *, train):
        x = nn.Conv(4, (4, 4), strides=2)(masked)
        return jnp.tanh(nn.Dense(3)(nn.relu(nn.BatchNorm(use_running_average=not train)(x))))


class Judge(nn.Module):
    """A small discriminator."""

    width: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, patches):
        return nn.Dense(1)(nn.relu(nn.Conv(4, (4, 4), strides=4)(patches)))


def _constant(step):
    return 1e-3


CONFIG = GanConfig(
    generator=Painter(),
    discriminator=Judge(),
    optimizer=optax.adam(1e-3),
    schedule=_constant,
    image_size=32,
    mask_size=16,
    margin=0,
    flips=False,
    pixel_weight=0.999,
    adversarial_weight=0.001,
    generator_target=1.0,
    real_weight=0.5,
    fake_weight=0.5,
    real_input="patch",
)


@contextlib.contextmanager
def small_networks():
    """Replace MIM's networks by `Painter` and `Judge`, in training and in loading."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GENERATORS, "context_encoder", Painter)
        patch.setattr(mim, "PatchDiscriminator", Judge)
        yield


def configuration(**fields):
    """Configuration of a small run, as a dictionary like launch.py's."""
    found = get_config("quick")
    found.update_from_flattened_dict({**FIELDS, **fields})
    return found.to_dict()


def build(**fields):
    """The experiment of a small run."""
    return config.build(config.parse(configuration(**fields)), mim, clinical=False)


def train(path, **fields):
    """Train a small run in a workdir."""
    experiment = build(**fields)
    with metric_writer.Recorder(path) as recorder:
        trainer.train(mim.trainings(experiment, path), experiment.settings.training, recorder)


def events_of(path):
    """Recorded events without their times, sorted by fold and epoch."""
    events = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        del event["seconds"], event["images_per_s"]
    return sorted(events, key=lambda event: (event["fold"], event["epoch"]))


def steps_of(path):
    """Checkpointed steps of each fold."""
    return {
        fold.name: sorted(int(step.name) for step in (fold / "checkpoints").iterdir())
        for fold in sorted(path.glob("fold_*"))
    }


class Count(struct.PyTreeNode):
    """State of a training that counts its updates."""

    SCORING: ClassVar = ("generator", {"params": "params"})
    step: jax.Array
    params: Any


@dataclass(frozen=True)
class Counter:
    """A task that counts its updates; from update `broken_at` on its loss is NaN."""

    by: int
    broken_at: int

    def init(self, key):
        return Count(jnp.zeros((), jnp.int32), jnp.zeros(3))

    def step(self, state, batch, key):
        after = Count(state.step + 1, state.params + self.by)
        return after, {"loss": jnp.where(after.step >= self.broken_at, jnp.nan, 0.0)}


def counting(path, fold, *, broken_at=10**6):
    """A training with one update per epoch."""
    return trainer.Training(
        role="mim",
        fold=fold,
        title=f"fold {fold}",
        folder=path / f"fold_{fold}" / "checkpoints",
        task=Counter(fold, broken_at),
        examples={"images": np.zeros((1, 1), np.uint8)},
        scalars={},
        key=jax.random.key(0),
        updates=1,
        model={},
        shown=("loss",),
    )


# Settings of the training loop for `counting`.
SETTINGS = TrainingSettings(
    epochs=4,
    batch_size=1,
    drop_last=False,
    flips=False,
    precision="float32",
    epochs_per_dispatch=1,
    devices=1,
    shards=1,
    checkpoint_every=4,
    keep=1,
)

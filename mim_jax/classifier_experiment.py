"""The trainings of a classifier: every fold."""

import functools
from collections.abc import Iterator
from pathlib import Path

import jax

from mim_jax import classification, trainer
from mim_jax.classifier_protocol import Split, describe_model, load_start, make_splits, make_task
from mim_jax.data.datasets import Dataset
from mim_jax.devices import Place
from mim_jax.epochs import steps_per_epoch
from mim_jax.memory import Program
from mim_jax.protocol import Config
from mim_jax.recorder import Recorder


def train(config: Config, path: Path, dataset: Dataset, recorder: Recorder) -> None:
    """Trains every fold that is not finished, from its newest checkpoint.

    Raises:
      trainer.Interrupted, trainer.NonFiniteLoss: as `trainer.train`.
      ValueError: as `load_start`.
    """
    trainer.train(list(trainings(config, path, dataset)), config["training"], recorder)


def trainings(config: Config, path: Path, dataset: Dataset) -> Iterator[trainer.Training]:
    """The training of each fold; nothing is computed or read before it begins."""
    settings = config["training"]
    sizes = {"batch_size": settings["batch_size"], "drop_last": settings["drop_last"]}
    run_epochs = jax.jit(
        classification.train_epochs,
        static_argnames=("task", "batch_size", "drop_last", "split"),
        donate_argnames="state",
    )
    init = jax.jit(classification.init_state, static_argnames="task")
    tasks: dict[int, classification.Task] = {}
    splits = make_splits(config, dataset)
    for fold, split in enumerate(splits):
        updates = steps_per_epoch(len(split.train), **sizes)
        task = tasks.setdefault(updates, make_task(config, steps=updates * settings["epochs"]))
        key = jax.random.fold_in(jax.random.key(config["seed"]), fold)

        def begin(
            place: Place, split: Split = split, task: classification.Task = task, key: jax.Array = key
        ) -> trainer.Run:
            here = place.put({"images": dataset.images[split.train], "labels": split.labels, "key": key})
            return Program(run_epochs, task=task, split=place.split, **here, **sizes)

        def start(task: classification.Task = task) -> classification.ClassifierState:
            return classification.start_from(task, load_start(config))

        pretrained = config["classifier"]["pretrained"]
        yield trainer.Training(
            role=config["classifier"]["name"],
            fold=fold,
            title=f"training fold {fold + 1}/{len(splits)}",
            folder=path / f"fold_{fold}" / "checkpoints",
            examples=len(split.train),
            updates=updates,
            init=start if pretrained else functools.partial(init, key, task=task),
            begin=begin,
            model=describe_model(config),
            shown=("loss", "accuracy"),
        )

"""MIM's trainings: every fold, with and without the adversary."""

import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from mim_jax import detector, trainer, training
from mim_jax.data.datasets import Dataset
from mim_jax.devices import Place
from mim_jax.epochs import steps_per_epoch
from mim_jax.memory import Program
from mim_jax.protocol import Config, describe_model, make_folds, make_game, split_training
from mim_jax.recorder import Recorder

# The trainings of a fold: where their checkpoints lie, and whether there is an adversary.
ROLES = {"mim": ("checkpoints", True), "autoencoder": ("autoencoder", False)}


def train(config: Config, path: Path, dataset: Dataset, recorder: Recorder) -> None:
    """Trains every fold that is not finished, from its newest checkpoint.

    Raises:
      trainer.Interrupted, trainer.NonFiniteLoss: as `trainer.train`.
    """
    trainer.train(list(trainings(config, path, dataset)), config["training"], recorder)


def trainings(config: Config, path: Path, dataset: Dataset) -> Iterator[trainer.Training]:
    """The trainings of every fold; nothing is computed before they begin."""
    settings = config["training"]
    splits = [split_training(config, dataset, fold)[0] for fold in make_folds(config, dataset)]
    sizes = {"batch_size": settings["batch_size"], "drop_last": settings["drop_last"]}
    run_epochs = jax.jit(
        training.train_epochs,
        static_argnames=("game", "batch_size", "drop_last", "split"),
        donate_argnames="state",
    )
    init = jax.jit(training.init_state, static_argnames="game")
    games: dict[int, training.Game] = {}
    for role in [role for role in ROLES if role == "mim" or settings["autoencoder"]]:
        folder, adversary = ROLES[role]
        for fold, split in enumerate(splits):
            updates = steps_per_epoch(len(split), **sizes)
            game = games.setdefault(updates, make_game(config, steps=updates * settings["epochs"]))
            key = jax.random.fold_in(jax.random.key(config["seed"]), fold)
            images = dataset.images[split]

            def begin(
                place: Place,
                game: training.Game = game,
                images: np.ndarray = images,
                key: jax.Array = key,
                adversary: bool = adversary,
            ) -> trainer.Run:
                here = place.put({"images": images, "key": key, "adversary": np.float32(adversary)})
                return Program(run_epochs, game=game, split=place.split, **here, **sizes)

            yield trainer.Training(
                role=role,
                fold=fold,
                title=f"training fold {fold + 1}/{len(splits)}" + ("" if adversary else ", no adversary"),
                folder=path / f"fold_{fold}" / folder,
                examples=len(split),
                updates=updates,
                init=functools.partial(init, key, game=game),
                begin=begin,
                model=describe_model(config),
                shown=("loss_pixel", "d_fake"),
                panel=functools.partial(_panel, game, images=images[:4]),
                panel_every=settings["panel_every"],
                smaller=("training.batch_size", "generator.width", "data.image_size"),
            )


def _panel(game: training.Game, state: training.AdversarialState, *, images: np.ndarray) -> np.ndarray:
    """Rows of original | inpainted, uint8."""
    variables = {"params": state.generator_params, "batch_stats": state.batch_stats}
    sizes = {"mask_size": game.mask_size, "margin": game.margin}
    painted = detector.inpaint_all(game.generator, variables, images, **sizes)
    rows = np.concatenate((images / 255.0, painted), axis=2)
    return np.round(255 * np.concatenate(rows, axis=0)).astype(np.uint8)

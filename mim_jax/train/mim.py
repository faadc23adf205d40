"""MIM's trainings: every fold, with and without the adversary."""

import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from mim_jax.data.dataset import Dataset
from mim_jax.inpaint import gan, inference
from mim_jax.train import trainer
from mim_jax.train.config import Config, describe_model, make_folds, make_game, split_training
from mim_jax.train.devices import Place
from mim_jax.train.epochs import steps_per_epoch
from mim_jax.train.metric_writer import Recorder

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
        gan.train_epochs,
        static_argnames=("game", "batch_size", "drop_last", "split"),
        donate_argnames="state",
    )
    init = jax.jit(gan.init_state, static_argnames="game")
    games: dict[int, gan.Game] = {}
    for role in [role for role in ROLES if role == "mim" or settings["autoencoder"]]:
        folder, adversary = ROLES[role]
        for fold, split in enumerate(splits):
            updates = steps_per_epoch(len(split), **sizes)
            game = games.setdefault(updates, make_game(config, steps=updates * settings["epochs"]))
            key = jax.random.fold_in(jax.random.key(config["seed"]), fold)
            images = dataset.images[split]

            def begin(
                place: Place,
                game: gan.Game = game,
                images: np.ndarray = images,
                key: jax.Array = key,
                adversary: bool = adversary,
            ) -> trainer.Run:
                here = place.put({"images": images, "key": key, "adversary": np.float32(adversary)})
                return lambda state, epochs: run_epochs(
                    game=game, state=state, epochs=epochs, split=place.split, **here, **sizes
                )

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
            )


def _panel(game: gan.Game, state: gan.AdversarialState, *, images: np.ndarray) -> np.ndarray:
    """Rows of original | inpainted, uint8."""
    variables = {"params": state.generator_params, "batch_stats": state.batch_stats}
    sizes = {"mask_size": game.mask_size, "margin": game.margin}
    painted = inference.inpaint_all(game.generator, variables, images, **sizes)
    rows = np.concatenate((images / 255.0, painted), axis=2)
    return np.round(255 * np.concatenate(rows, axis=0)).astype(np.uint8)

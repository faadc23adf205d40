"""The folds of a workdir as they were trained: networks to score with, and what they were trained on."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Fold
from mim_jax.detector import Detector
from mim_jax.inpaint import gan
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure
from mim_jax.train import trainer
from mim_jax.train.config import Config, describe_model, make_folds, make_game, split_training
from mim_jax.train.epochs import steps_per_epoch
from mim_jax.train.mim import ROLES


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """One fold.

    Attributes:
      split: which positives it trains and tests on.
      train: indices into the dataset of the images it was trained on.
      held_out: of those kept out of training.
      state: the networks at the end of training.
      detector: MIM.
      networks: what MIM is compared with, by name: "untrained", and "autoencoder" where it was trained.
    """

    split: Fold
    train: np.ndarray
    held_out: np.ndarray
    state: gan.AdversarialState
    detector: Detector
    networks: dict[str, Detector]


def load_folds(config: Config, path: Path, dataset: Dataset, measure: Measure) -> list[TrainedFold]:
    """Restores what `experiment.train` saved.

    Raises:
      ValueError: a fold is not trained to its end, or its checkpoint is missing or damaged.
    """
    # Neither shapes nor initial values depend on the number of steps: one program serves every fold.
    game = make_game(config, steps=1)
    init = jax.jit(functools.partial(gan.init_state, game=game))
    return [_load_fold(config, path, dataset, split, measure, init) for split in make_folds(config, dataset)]


def _load_fold(
    config: Config, path: Path, dataset: Dataset, split: Fold, measure: Measure, init: Any
) -> TrainedFold:
    train, held_out = split_training(config, dataset, split)
    settings = config["training"]
    updates = steps_per_epoch(len(train), settings["batch_size"], drop_last=settings["drop_last"])
    fresh = functools.partial(init, jax.random.fold_in(jax.random.key(config["seed"]), split.index))

    def restore(role: str) -> gan.AdversarialState:
        folder = path / f"fold_{split.index}" / ROLES[role][0]
        return trainer.restore(folder, updates=updates * settings["epochs"], init=fresh)

    state = restore("mim")
    networks = {"untrained": _detector(config, fresh(), measure)}
    if settings["autoencoder"]:
        networks["autoencoder"] = _detector(config, restore("autoencoder"), measure)
    model = _detector(config, state, measure)
    return TrainedFold(split, train, held_out, state, model, networks)


def _detector(config: Config, state: gan.AdversarialState, measure: Measure) -> Detector:
    model = describe_model(config)
    return Detector(
        generator=make_generator(model["generator"], model["options"], dtype=jnp.float32),
        variables=[{"params": state.generator_params, "batch_stats": state.batch_stats}],
        image_size=model["image_size"],
        mask_size=model["mask_size"],
        measure=measure,
        model=model,
    )

"""The trained folds of a workdir: networks to score with, and the images they were trained on."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from mim_jax.data.folds import Split
from mim_jax.detector import Detector
from mim_jax.inpaint import gan
from mim_jax.inpaint.networks import make_generator
from mim_jax.train import trainer
from mim_jax.train.config import Experiment
from mim_jax.train.epochs import init_state
from mim_jax.train.mim import ROLES, describe_model, fold_key, fold_updates, make_gan, mim_settings
from mim_jax.train.settings import Settings


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """The networks of one fold at the end of training, and its images."""

    split: Split  # the fold's images
    state: gan.AdversarialState  # the networks at the end of training
    detector: Detector  # MIM
    # networks that MIM is compared with, by name: "untrained", and "autoencoder" if it was trained
    networks: dict[str, Detector]


def load_folds(experiment: Experiment, path: Path) -> list[TrainedFold]:
    """Restore the trained folds of a workdir; ValueError if one is unfinished, missing or damaged."""
    # Neither shapes nor initial values depend on the number of steps: one program serves every fold.
    config = make_gan(experiment.settings, steps=1)
    return [_load_fold(experiment.settings, path, split, config) for split in experiment.splits]


def _load_fold(settings: Settings, path: Path, split: Split, config: gan.GanConfig) -> TrainedFold:
    updates = fold_updates(settings, split) * settings.training.epochs

    def fresh() -> gan.AdversarialState:
        return init_state(config, fold_key(settings, split))

    def restore(role: str) -> gan.AdversarialState:
        folder = path / f"fold_{split.index}" / ROLES[role][0]
        return trainer.restore(folder, updates=updates, init=fresh)

    state = restore("mim")
    # On a device of its own like the restored networks: otherwise it would be compiled once more.
    networks = {"untrained": _detector(settings, jax.device_put(fresh(), jax.local_devices()[0]))}
    if settings.training.autoencoder:
        networks["autoencoder"] = _detector(settings, restore("autoencoder"))
    return TrainedFold(split, state, _detector(settings, state), networks)


def _detector(settings: Settings, state: gan.AdversarialState) -> Detector:
    model = describe_model(settings)
    return Detector(
        generator=make_generator(model["generator"], model["options"], dtype=jnp.float32),
        variables=[{"params": state.generator_params, "batch_stats": state.batch_stats}],
        image_size=model["image_size"],
        mask_size=model["mask_size"],
        measure=mim_settings(settings).measure,
        model=model,
    )

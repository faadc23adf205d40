"""The trained folds of a workdir: networks to score with, and the images they were trained on."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp

from mim_jax.data.folds import Split
from mim_jax.detector import Detector
from mim_jax.inpaint.inference import abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.train import trainer
from mim_jax.train.config import Experiment
from mim_jax.train.epochs import init_state
from mim_jax.train.mim import ROLES, describe_model, fold_key, fold_updates, make_gan, mim_settings


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """The networks of one fold at the end of training, and its images."""

    split: Split  # the fold's images
    detector: Detector  # MIM
    # networks that MIM is compared with, by name: "untrained", and "autoencoder" if it was trained
    networks: dict[str, Detector]


def load_folds(experiment: Experiment, path: Path) -> list[TrainedFold]:
    """Restore the trained folds of a workdir; ValueError if one is unfinished, missing or damaged."""
    settings = experiment.settings
    model = describe_model(settings)
    blank = Detector(
        generator=make_generator(model["generator"], model["options"], dtype=jnp.float32),
        variables=[],
        image_size=model["image_size"],
        mask_size=model["mask_size"],
        measure=mim_settings(settings).measure,
        model=model,
    )
    abstract = abstract_variables(blank.generator, blank.image_size)
    # Initial values do not depend on the number of steps: one program draws those of every fold.
    gan = make_gan(settings, steps=1)

    def load(split: Split) -> TrainedFold:
        def trained(role: str) -> Detector:
            folder = path / f"fold_{split.index}" / ROLES[role][0]
            updates = fold_updates(settings, split) * settings.training.epochs
            own = trainer.restore_network(folder, updates=updates, name="generator", abstract=abstract)
            return replace(blank, variables=[own])

        # On a device of its own like the restored networks: otherwise it would be compiled once more.
        fresh = jax.device_put(init_state(gan, fold_key(settings, split)), jax.local_devices()[0])
        start = {"params": fresh.generator_params, "batch_stats": fresh.batch_stats}
        networks = {"untrained": replace(blank, variables=[start])}
        if settings.training.autoencoder:
            networks["autoencoder"] = trained("autoencoder")
        return TrainedFold(split, trained("mim"), networks)

    return [load(split) for split in experiment.splits]

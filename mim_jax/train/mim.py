"""MIM's trainings: folds, networks, and each fold with and without the adversary."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mim_jax import mask
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Split, make_folds
from mim_jax.inpaint import gan, inference
from mim_jax.inpaint.networks import PatchDiscriminator, is_own, make_generator
from mim_jax.measure.similarity import Measure
from mim_jax.train.config import Experiment, compute_dtype, recipe
from mim_jax.train.epochs import steps_per_epoch
from mim_jax.train.optimizer import make_optimizer
from mim_jax.train.settings import MimSettings, Settings
from mim_jax.train.trainer import Training

# Trainings of a fold: role -> (folder of the checkpoints, whether there is an adversary).
ROLES = {"mim": ("checkpoints", True), "autoencoder": ("autoencoder", False)}


def check(settings: Settings) -> None:
    """Raise ValueError for mistakes that can be found before any image is read."""
    own, size = mim_settings(settings), settings.data.image_size
    measure = own.measure
    if settings.detector != "mim" and own.rule.name == "paper":
        raise ValueError(
            f"config.decision.rule=paper is a threshold on MIM's SSIM+HBD, but config.detector is "
            f"{settings.detector}: use config.decision.rule=calibrated"
        )
    if settings.detector == "features":
        if measure != Measure() or own.mask.margin:
            raise ValueError(
                "config.detector=features inpaints nothing, so it has no hole and no MIM metric: keep the "
                "defaults of config.evaluation.metric, window, bins, region, holes and config.mask.margin"
            )
        return
    if own.rule.name == "paper" and measure != Measure():
        raise ValueError(
            "config.decision.rule=paper is a threshold on SSIM+HBD of the whole image and does not apply to "
            f"{measure}: use config.decision.rule=calibrated"
        )
    mask.check_sizes(size, own.mask.size, own.mask.margin)
    for holes in (measure.holes, settings.evaluation.more_holes):
        mask.grid_offsets(size, own.mask.size, holes)
    measure.check(size, own.mask.size)
    gan.check_patch(make_gan(settings, steps=1))


def mim_settings(settings: Settings) -> MimSettings:
    """MIM section of the settings; ValueError if they are those of a classifier."""
    if settings.mim is None:
        raise ValueError("this is the configuration of a classifier, not of MIM")
    return settings.mim


def split(settings: Settings, dataset: Dataset) -> list[Split]:
    """Split the positive images into folds, each with its held-out part; errors as `make_folds`."""
    data, splits = settings.data, []
    how: dict[str, Any] = {"seed": settings.seed, "grouped": data.grouped}
    for fold in make_folds(dataset.groups[dataset.positives], folds=data.folds, **how):
        train = dataset.positives[fold.train]
        held_out = train[:0]
        if data.held_out:
            parts = max(2, round(1 / data.held_out))
            inner = make_folds(dataset.groups[train], folds=parts, **how)[0]
            train, held_out = train[inner.train], train[inner.test]
        splits.append(
            Split(
                index=fold.index,
                train=train,
                labels=np.zeros(len(train), np.int32),
                held_out=held_out,
                test=dataset.positives[fold.test],
                seen=dataset.negatives[:0],
            )
        )
    return splits


def trainings(experiment: Experiment, path: Path) -> list[Training]:
    """List the trainings of every fold in every role; nothing is computed until they begin.

    The list is empty if a frozen network decides alone.
    """
    settings, splits = experiment.settings, experiment.splits
    if settings.detector == "features":
        return []
    make = functools.cache(lambda steps: make_gan(settings, steps=steps))
    images = [experiment.dataset.images[one.train] for one in splits]
    found = []
    for role in [role for role in ROLES if role == "mim" or settings.training.autoencoder]:
        folder, adversary = ROLES[role]
        for one, own in zip(splits, images, strict=True):
            updates = fold_updates(settings, one)
            steps = updates * settings.training.epochs
            config = make(steps)
            found.append(
                Training(
                    role=role,
                    fold=one.index,
                    title=f"training fold {one.index} (of {len(splits)})"
                    + ("" if adversary else ", no adversary"),
                    folder=path / f"fold_{one.index}" / folder,
                    task=config,
                    examples={"images": own},
                    scalars={"adversary": np.asarray(adversary, np.float32)},
                    key=fold_key(settings, one),
                    updates=updates,
                    model=describe_model(settings),
                    shown=("loss_pixel", "d_fake"),
                    panel=functools.partial(_panel, config, images=own[:4]),
                    panel_every=settings.training.panel_every,
                    smaller=("training.batch_size", "generator.width", "data.image_size"),
                    # The code of a user's own generator may be anywhere.
                    recipe=recipe(settings, steps=steps) if is_own(mim_settings(settings).generator) else "",
                )
            )
    return found


def fold_updates(settings: Settings, one: Split) -> int:
    """Number of updates per epoch of a fold."""
    training = settings.training
    return steps_per_epoch(len(one.train), training.batch_size, drop_last=training.drop_last)


def fold_key(settings: Settings, one: Split) -> jax.Array:
    """Random key for all trainings of a fold."""
    return jax.random.fold_in(jax.random.key(settings.seed), one.index)


def make_gan(settings: Settings, *, steps: int) -> gan.GanConfig:
    """Build networks, optimiser and losses for a training of `steps` updates."""
    own, dtype = mim_settings(settings), compute_dtype(settings)
    optimizer, schedule = make_optimizer(settings.optimizer, steps=steps)
    return gan.GanConfig(
        generator=make_generator(own.generator, own.generator_options, dtype=dtype),
        discriminator=PatchDiscriminator(own.discriminator_width, dtype=dtype),
        optimizer=optimizer,
        schedule=schedule,
        image_size=settings.data.image_size,
        mask_size=own.mask.size,
        margin=own.mask.margin,
        flips=settings.training.flips,
        **dataclasses.asdict(own.loss),
    )


def describe_model(settings: Settings) -> dict[str, Any]:
    """Describe the generator for a checkpoint, so that it can be built without the configuration."""
    own = mim_settings(settings)
    return {
        "generator": own.generator,
        "options": dict(own.generator_options),
        "image_size": settings.data.image_size,
        "mask_size": own.mask.size,
        "margin": own.mask.margin,
    }


def _panel(config: gan.GanConfig, state: gan.AdversarialState, *, images: np.ndarray) -> np.ndarray:
    """Draw rows of original | inpainted, uint8."""
    variables = {"params": state.generator_params, "batch_stats": state.batch_stats}
    sizes = {"mask_size": config.mask_size, "margin": config.margin}
    painted = inference.inpaint_all(config.generator, variables, images, **sizes)
    rows = np.concatenate((images / 255.0, painted), axis=2)
    return np.round(255 * np.concatenate(rows, axis=0)).astype(np.uint8)

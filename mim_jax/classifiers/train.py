"""A classifier's trainings: classes, folds and network."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.classifiers import make_classifier
from mim_jax.classifiers.pretrained import load_pretrained
from mim_jax.classifiers.step import ClassifierConfig, ClassifierState
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Split, make_folds
from mim_jax.train.config import Experiment, compute_dtype, recipe
from mim_jax.train.images import check_negatives
from mim_jax.train.mim import fold_key, fold_updates
from mim_jax.train.optimizer import make_optimizer
from mim_jax.train.settings import ClassifierSettings, Settings
from mim_jax.train.trainer import Training

# Images x pixels x width from which a CPU trades time for memory: 64 images of 224 pixels at width 64.
LARGE = 64 * 224**2 * 64


def check(settings: Settings) -> None:
    """Raise ValueError for mistakes that can be found before any image is read."""
    known, positive = settings.data.known, settings.data.positive
    if not known or positive in known:
        raise ValueError(
            f"config.data.known is {known!r}: name one or more classes other than {positive!r} to train "
            "against"
        )
    if len(set(known)) < len(known):
        raise ValueError(f"config.data.known names a class twice: {', '.join(known)}")
    jax.eval_shape(make_config(settings, steps=1).init, jax.random.key(0))
    if classifier_settings(settings).pretrained:
        load_start(settings)


def classifier_settings(settings: Settings) -> ClassifierSettings:
    """Classifier section of the settings; ValueError if they are those of MIM."""
    if settings.classifier is None:
        raise ValueError("this is the configuration of MIM, not of a classifier")
    return settings.classifier


def class_names(settings: Settings) -> tuple[str, ...]:
    """Names of the classes in the order of the logits."""
    known = settings.data.known
    others = (" + ".join(known),) if classifier_settings(settings).merged else known
    return (settings.data.positive, *others)


def split(settings: Settings, dataset: Dataset) -> list[Split]:
    """Split the images into the folds of Table 3.

    The positives are split as for MIM. The known negatives are split like them, by group; those that share a
    group with a positive are used neither for training nor for testing. ValueError if there is nothing to
    test against, or a known class is not in the data or has no training image in some fold.
    """
    check_negatives(dataset)
    data, merged = settings.data, classifier_settings(settings).merged
    negatives = dataset.tested_negatives
    absent = [name for name in data.known if name not in dataset.labels[negatives]]
    if absent:
        raise ValueError(
            f"config.data.known names {', '.join(absent)}, of which {dataset.source} has no image to train "
            f"on; its classes are {', '.join(dataset.class_counts())}: name those to train on with "
            "--config.data.known=\"('measles',)\""
        )
    known = negatives[np.isin(dataset.labels[negatives], data.known)]
    how: dict[str, Any] = {"folds": data.folds, "seed": settings.seed, "grouped": data.grouped}
    positives = make_folds(dataset.groups[dataset.positives], **how)
    negative_folds = make_folds(dataset.groups[known], **how)
    order = {dataset.positive: 0} | {
        name: 1 if merged else 1 + number for number, name in enumerate(data.known)
    }
    splits = []
    for own, others in zip(positives, negative_folds, strict=True):
        train = np.concatenate((dataset.positives[own.train], known[others.train]))
        labels = np.array([order[label] for label in dataset.labels[train].tolist()], np.int32)
        missing = set(order.values()) - set(labels.tolist())
        if missing:
            names = [class_names(settings)[number] for number in sorted(missing)]
            raise ValueError(
                f"fold {own.index} has no training image of {', '.join(names)}: use fewer folds "
                "(--config.data.folds), or leave the class out of --config.data.known"
            )
        splits.append(
            Split(
                index=own.index,
                train=train,
                labels=labels,
                held_out=train[:0],
                test=dataset.positives[own.test],
                seen=negatives[np.isin(dataset.groups[negatives], dataset.groups[train])],
            )
        )
    return splits


def trainings(experiment: Experiment, path: Path) -> list[Training]:
    """List the training of every fold; nothing is computed or read until they begin."""
    settings, splits = experiment.settings, experiment.splits
    own = classifier_settings(settings)
    make = functools.cache(lambda steps: make_config(settings, steps=steps))
    found = []
    for one in splits:
        updates = fold_updates(settings, one)
        steps = updates * settings.training.epochs
        config = make(steps)

        def start(config: ClassifierConfig = config) -> ClassifierState:
            return config.start_from(load_start(settings))

        found.append(
            Training(
                role=own.name,
                fold=one.index,
                title=f"training fold {one.index} (of {len(splits)})",
                folder=path / f"fold_{one.index}" / "checkpoints",
                task=config,
                examples={"images": experiment.dataset.images[one.train], "labels": one.labels},
                scalars={},
                key=fold_key(settings, one),
                updates=updates,
                model=describe_model(settings),
                shown=("loss", "accuracy"),
                start=start if own.pretrained else None,
                recipe=recipe(settings, steps=steps),
            )
        )
    return found


def make_config(settings: Settings, *, steps: int) -> ClassifierConfig:
    """Build network and optimiser for a training of `steps` updates."""
    optimizer, schedule = make_optimizer(settings.optimizer, steps=steps)
    network = make_network(settings, dtype=compute_dtype(settings))
    if hasattr(network, "recompute") and jax.default_backend() == "cpu":
        size = settings.training.batch_size * settings.data.image_size**2 * network.width
        network = network.clone(recompute=size >= LARGE)
    return ClassifierConfig(
        network=network,
        optimizer=optimizer,
        schedule=schedule,
        image_size=settings.data.image_size,
        flips=settings.training.flips,
    )


def make_network(settings: Settings, *, dtype: Any = jnp.float32) -> Any:
    """Build the untrained network; the default, float32, is for all but training."""
    own = classifier_settings(settings)
    return make_classifier(own.name, own.options, classes=len(class_names(settings)), dtype=dtype)


def load_start(settings: Settings) -> Mapping[str, Any]:
    """Load the published variables that `config.classifier.pretrained` names, with a fresh last layer.

    Errors as in `load_pretrained`; also if the network has another width than the published one.
    """
    own = classifier_settings(settings)
    key = jax.random.fold_in(jax.random.key(settings.seed), settings.data.folds)  # not the key of any fold
    loaded = load_pretrained(own.name, own.pretrained, classes=len(class_names(settings)), key=key)
    wanted = jax.eval_shape(make_config(settings, steps=1).init, key).params
    shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (wanted, loaded["params"])]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{own.pretrained} holds the published {own.name}, but config.classifier.width="
            f"{own.options['width']} makes another network: use the published width"
        )
    return loaded


def describe_model(settings: Settings) -> dict[str, Any]:
    """Describe the network for a checkpoint, so that it can be built without the configuration."""
    own = classifier_settings(settings)
    return {
        "classifier": own.name,
        "options": dict(own.options),
        "classes": list(class_names(settings)),
        "image_size": settings.data.image_size,
    }

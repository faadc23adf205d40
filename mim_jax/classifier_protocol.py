"""What a configuration of a classifier means: classes, folds of the known ones, network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import protocol
from mim_jax.classification import Task, init_state
from mim_jax.data import folds
from mim_jax.data.datasets import Dataset
from mim_jax.models import load_pretrained, make_classifier
from mim_jax.protocol import Config

# Images times pixels times width, from which on a CPU gives time for memory: 64 of 224 pixels at width 64.
LARGE = 64 * 224**2 * 64


@dataclass(frozen=True, eq=False)
class Split:
    """One fold. Indices into the dataset.

    Attributes:
      positives: which of `dataset.positives` are trained and tested on; MIM's own split.
      train: images trained on.
      labels: int32, the class of each of them; 0 = the positive one.
      seen: negatives whose group is trained on: not Table 3's test, though MIM is tested on them.
    """

    positives: folds.Fold
    train: np.ndarray
    labels: np.ndarray
    seen: np.ndarray


def class_names(config: Config) -> tuple[str, ...]:
    """The classes in the order of the logits."""
    data = config["data"]
    others = (" + ".join(data["known"]),) if config["classifier"]["merged"] else tuple(data["known"])
    return (data["positive"], *others)


def make_splits(config: Config, dataset: Dataset) -> list[Split]:
    """The folds of Table 3.

    The known negatives are dealt like the positives, by group; those that share a group with a positive
    neither train nor test.

    Raises:
      ValueError: a known class is not in the data, or has no training image in some fold.
    """
    data, merged = config["data"], config["classifier"]["merged"]
    negatives = dataset.tested_negatives
    absent = [name for name in data["known"] if name not in dataset.labels[negatives]]
    if absent:
        raise ValueError(
            f"config.data.known names {', '.join(absent)}, of which {dataset.source} has no image to train "
            f"on; its classes are {', '.join(dataset.class_counts())}: name those to train on with "
            "--config.data.known=\"('measles',)\""
        )
    known = negatives[np.isin(dataset.labels[negatives], data["known"])]
    dealt = folds.make_folds(
        dataset.groups[known], folds=data["folds"], seed=config["seed"], grouped=data["grouped"]
    )
    splits = []
    for positives, others in zip(protocol.make_folds(config, dataset), dealt, strict=True):
        train = np.concatenate((dataset.positives[positives.train], known[others.train]))
        order = {dataset.positive: 0} | {
            name: 1 if merged else 1 + place for place, name in enumerate(data["known"])
        }
        labels = np.array([order[label] for label in dataset.labels[train].tolist()], np.int32)
        seen = negatives[np.isin(dataset.groups[negatives], dataset.groups[train])]
        splits.append(Split(positives, train, labels, seen))
        missing = set(order.values()) - set(labels.tolist())
        if missing:
            names = [class_names(config)[place] for place in sorted(missing)]
            raise ValueError(
                f"fold {positives.index + 1} has no training image of {', '.join(names)}: use fewer folds "
                "(--config.data.folds), or leave the class out of --config.data.known"
            )
    return splits


def check(config: Config) -> None:
    """Raises ValueError for what can be known to be wrong before any image is read."""
    protocol.check_fields(config)
    data = config["data"]
    if not data["known"] or data["positive"] in data["known"]:
        raise ValueError(
            f"config.data.known is {tuple(data['known'])!r}: name one or more classes other than "
            f"{data['positive']!r} to train against"
        )
    if len(set(data["known"])) < len(data["known"]):
        raise ValueError(f"config.data.known names a class twice: {', '.join(data['known'])}")
    jax.eval_shape(lambda key: init_state(key, make_task(config, steps=1)), jax.random.key(0))
    if config["classifier"]["pretrained"]:
        load_start(config)


def check_data(config: Config, dataset: Dataset, *, evaluation: bool) -> None:
    """Raises ValueError where the images cannot carry the protocol, before anything is claimed or trained."""
    protocol.check_negatives(dataset)
    smallest = min(len(split.train) for split in make_splits(config, dataset))
    protocol.check_batch_size(config, smallest)


def make_task(config: Config, *, steps: int) -> Task:
    """Network and optimiser for a training of `steps` updates."""
    optimizer, schedule = protocol.make_optimizer(config, steps=steps)
    network = make_network(config, dtype=protocol.compute_dtype(config))
    if hasattr(network, "recompute") and _large(config):
        network = network.clone(recompute=True)
    return Task(
        network=network,
        optimizer=optimizer,
        schedule=schedule,
        image_size=config["data"]["image_size"],
        flips=config["training"]["flips"],
    )


def make_network(config: Config, *, dtype: Any = jnp.float32) -> Any:
    """The untrained network; float32 unless it is to be trained."""
    model = describe_model(config)
    return make_classifier(model["classifier"], model["options"], classes=len(model["classes"]), dtype=dtype)


def _large(config: Config) -> bool:
    """Is a training on a CPU so large that it saves memory, at the price of computing layers twice?"""
    images, side = config["training"]["batch_size"], config["data"]["image_size"]
    large = images * side**2 * config["classifier"]["width"] >= LARGE
    return jax.default_backend() == "cpu" and large


def load_start(config: Config) -> Mapping[str, Any]:
    """The published variables that `config.classifier.pretrained` names, with a fresh last layer.

    Raises:
      ValueError: as `models.load_pretrained`, or a network that was made narrower than the published one.
    """
    key = jax.random.fold_in(jax.random.key(config["seed"]), config["data"]["folds"])  # no fold's own
    loaded = load_pretrained(
        config["classifier"]["name"],
        config["classifier"]["pretrained"],
        classes=len(class_names(config)),
        key=key,
    )
    task = make_task(config, steps=1)
    wanted = jax.eval_shape(lambda key: init_state(key, task), key).params
    shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (wanted, loaded["params"])]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{config['classifier']['pretrained']} holds the published {config['classifier']['name']}, and "
            f"config.classifier.width={config['classifier']['width']} makes another: leave the width as it is"
        )
    return loaded


def describe_model(config: Config) -> dict[str, Any]:
    """What a checkpoint must say so that its network can be built without the configuration."""
    options = {k: v for k, v in config["classifier"].items() if k not in ("name", "merged", "pretrained")}
    return {
        "classifier": config["classifier"]["name"],
        "options": options,
        "classes": list(class_names(config)),
        "image_size": config["data"]["image_size"],
    }

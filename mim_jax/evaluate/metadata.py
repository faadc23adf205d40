"""Metadata of a run for results.json: data, splits, networks and versions, as plain values."""

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mim_jax
from mim_jax.data.dataset import NOTICE, Dataset
from mim_jax.data.folds import Split
from mim_jax.data.synthetic.lesions import CLASS_GROUPS
from mim_jax.evaluate.folds import TrainedFold
from mim_jax.evaluate.test_set import TestSet
from mim_jax.inpaint.inference import abstract_patch, abstract_variables
from mim_jax.measure import similarity
from mim_jax.train.config import Experiment
from mim_jax.train.mim import make_gan
from mim_jax.train.settings import Settings

# Table 2 of the paper: mean and population standard deviation over five folds, on its own images.
PAPER_AUROC = {
    "ssim_hbd": (0.8237, 0.0101),
    "ssim": (0.7582, 0.0455),
    "hbd": (0.7979, 0.0243),
    "mae": (0.7214, 0.0312),
    "mse": (0.6984, 0.0286),
}
PAPER_CLINICAL = 0.881  # section 3.4: mean AUROC of the five fold models on its clinical images
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "dm-pix", "numpy", "pillow", "scikit-learn")


def class_groups(dataset: Dataset) -> dict[str, list[str]]:
    """The paper's groups of classes, restricted to the other classes present in this dataset."""
    others = dataset.class_counts().keys() - {dataset.positive}
    groups = {name: [each for each in labels if each in others] for name, labels in CLASS_GROUPS.items()}
    return {name: labels for name, labels in groups.items() if labels}


def held_out_error(dataset: Dataset, folds: Sequence[TrainedFold]) -> dict[str, Any] | None:
    """Inpainting error of the central hole on the images held out of training, per fold.

    It is safe to make choices by, as no test image is used. None if nothing was held out.
    """
    if not folds or not all(len(fold.split.held_out) for fold in folds):
        return None
    errors = []
    for fold in folds:
        model = dataclasses.replace(fold.detector, measure=similarity.Measure(region="mask"))
        similarities = model.similarities(dataset.images[fold.split.held_out])
        errors.append(
            {"mae": float(np.mean(1 - similarities["mae"])), "ssim": float(np.mean(similarities["ssim"]))}
        )
    mean = {name: float(np.mean([error[name] for error in errors])) for name in ("mae", "ssim")}
    return {"images": [len(fold.split.held_out) for fold in folds], "folds": errors, "mean": mean}


def describe_splits(dataset: Dataset, splits: Sequence[Split], test_set: TestSet) -> list[dict[str, Any]]:
    """Count the images that each fold of MIM trains and tests on (the paper's Table 1)."""
    positive, augmented = test_set.table.positive, test_set.table.augmented
    return [
        {
            "fold": split.index,
            "train": len(split.train),
            "held_out": len(split.held_out),
            "test": len(split.test),
            "augmented": int(np.sum(positive[part] & augmented[part])),
            "negatives": int(np.sum(~positive[part])),
            "train_groups": len(np.unique(dataset.groups[split.train])),
            "test_groups": len(np.unique(dataset.groups[split.test])),
        }
        for split, part in zip(splits, test_set.parts, strict=True)
    ]


def describe_run(method: str, experiment: Experiment) -> dict[str, Any]:
    """Describe a run of any kind: title, data, environment, configuration."""
    settings, dataset = experiment.settings, experiment.dataset
    data = settings.data
    name = "procedural lesions" if data.procedural else ", ".join(data.sources) or Path(data.root).name
    return {
        "title": f"{method} on {name}",
        "notice": NOTICE if data.procedural else None,
        "data": {
            "source": dataset.source,
            "digest": dataset.digest(),
            "positive": dataset.positive,
            "grouped": dataset.grouped and data.grouped and not dataset.group_problems,
            "classes": dataset.class_counts(),
            "groups": {
                label: len(np.unique(dataset.groups[dataset.labels == label]))
                for label in dataset.class_counts()
            },
            "class_groups": class_groups(dataset),
            **{
                name: list(map(list, getattr(dataset, name)))
                for name in ("unusable", "passed_over", "doubtful", "group_problems", "duplicates")
            },
            "left_out": dataset.names[dataset.shared_negatives].tolist(),
            "remarks": list(dataset.remarks),
        },
        "environment": {
            "versions": {
                **{package: importlib.metadata.version(package) for package in PACKAGES},
                "mim-jax": mim_jax.__version__,
            },
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
        },
        "seed": settings.seed,
        "config": dict(settings.given),
    }


def describe_clinical(clinical: Dataset) -> dict[str, Any]:
    """Describe the images of the clinical test."""
    return {
        "source": clinical.source,
        "classes": clinical.class_counts(),
        "digest": clinical.digest(),
        "unusable": [list(item) for item in clinical.unusable],
        "doubtful": [list(item) for item in clinical.doubtful],
        "paper": PAPER_CLINICAL,
    }


def count_parameters(params: Any) -> int:
    """Count the elements of a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def describe_parameters(settings: Settings) -> dict[str, int]:
    """Count the parameters of both networks of a MIM training."""
    gan = make_gan(settings, steps=1)
    patch = jax.ShapeDtypeStruct(abstract_patch(gan.generator, gan.image_size), jnp.float32)
    critic = jax.eval_shape(gan.discriminator.init, jax.random.key(0), patch)
    return {
        "generator": count_parameters(abstract_variables(gan.generator, gan.image_size)["params"]),
        "discriminator": count_parameters(critic["params"]),
    }


def wall_time(
    history: Sequence[Mapping[str, Any]], folds: int, *, started: float, began: float
) -> dict[str, Any]:
    """Wall time in seconds: "train" for each fold, "evaluate" and "total".

    `history` holds the epochs of all trainings; a fold's time is the sum over its epochs, compilation
    included. `started` and `began` are the `time.perf_counter` at the start of the evaluation and of the run.
    """
    seconds = [0.0] * folds
    for event in history:
        seconds[event["fold"]] += event["seconds"]
    return {"train": seconds, "evaluate": time.perf_counter() - started, "total": time.perf_counter() - began}

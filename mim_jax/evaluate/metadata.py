"""What a run was: data, splits, networks, versions, in plain values for results.json."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mim_jax
from mim_jax.data.dataset import Dataset
from mim_jax.data.synthetic import lesions
from mim_jax.evaluate.folds import TrainedFold
from mim_jax.evaluate.test_set import Bank
from mim_jax.measure import similarity
from mim_jax.train.checkpoints import parameter_hash
from mim_jax.train.config import Config, is_procedural

NOTICE = "These are procedural images. They prove that the machinery runs and say nothing about mpox."
# Table 2 of the paper: mean and population standard deviation over five folds, on its own images.
PAPER_AUROC = {
    "ssim_hbd": (0.8237, 0.0101),
    "ssim": (0.7582, 0.0455),
    "hbd": (0.7979, 0.0243),
    "mae": (0.7214, 0.0312),
    "mse": (0.6984, 0.0286),
}
PAPER_CLINICAL = 0.881  # section 3.4: mean AUROC of the five fold models on its clinical images
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "dm-pix",
    "numpy",
    "pillow",
    "scikit-learn",
)


def class_groups(dataset: Dataset) -> dict[str, list[str]]:
    """The groups of classes of the paper's data that occur here."""
    present = dataset.class_counts()
    groups = {
        name: [label for label in labels if label in present and label != dataset.positive]
        for name, labels in lesions.CLASS_GROUPS.items()
    }
    return {name: labels for name, labels in groups.items() if labels}


def held_out_error(dataset: Dataset, folds: Sequence[TrainedFold]) -> dict[str, Any] | None:
    """Inpainting error of the central hole on the images held out of training, per fold.

    What choices may be made by. None where nothing was held out.
    """
    if not all(len(fold.held_out) for fold in folds):
        return None
    errors = []
    for fold in folds:
        model = dataclasses.replace(fold.detector, measure=similarity.Measure(region="mask"))
        similarities = model.similarities(dataset.images[fold.held_out])
        errors.append(
            {"mae": float(np.mean(1 - similarities["mae"])), "ssim": float(np.mean(similarities["ssim"]))}
        )
    mean = {name: float(np.mean([error[name] for error in errors])) for name in ("mae", "ssim")}
    return {"images": [len(fold.held_out) for fold in folds], "folds": errors, "mean": mean}


def describe(
    config: Config,
    dataset: Dataset,
    folds: Sequence[TrainedFold],
    bank: Bank,
    parts: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Title, data, splits, training and environment of a run of MIM."""
    groups = dataset.groups[dataset.positives]
    positive = dataset.labels[bank.index] == dataset.positive
    rows = []
    for fold, part in zip(folds, parts, strict=True):
        rows.append(
            {
                "fold": fold.split.index,
                "train": len(fold.train),
                "held_out": len(fold.held_out),
                "test": len(fold.split.test),
                "augmented": int(np.sum(positive[part] & bank.augmented[part])),
                "negatives": int(np.sum(~positive[part])),
                "train_groups": len(np.unique(dataset.groups[fold.train])),
                "test_groups": len(np.unique(groups[fold.split.test])),
            }
        )
    state = folds[0].state
    return {
        **describe_run("MIM", config, dataset),
        "splits": rows,
        "paper": {metric: list(values) for metric, values in PAPER_AUROC.items()},
        "training": {
            "epochs": config["training"]["epochs"],
            "parameters": {
                "generator": count_parameters(state.generator_params),
                "discriminator": count_parameters(state.discriminator_params),
            },
            "parameter_hash": [parameter_hash(fold.detector.variables[0]) for fold in folds],
        },
    }


def notice(config: Config) -> str | None:
    """What has to stand above everything that comes of procedural images."""
    return NOTICE if is_procedural(config) else None


def describe_run(method: str, config: Config, dataset: Dataset) -> dict[str, Any]:
    """What is said of a run of any kind: title, data, environment, configuration."""
    procedural = is_procedural(config)
    sources = [name for name, folder in config["data"]["sources"].items() if folder]
    name = "procedural lesions" if procedural else ", ".join(sources) or Path(config["data"]["root"]).name
    return {
        "title": f"{method} on {name}",
        "notice": notice(config),
        "data": {
            "source": dataset.source,
            "digest": dataset.digest(),
            "positive": dataset.positive,
            "grouped": dataset.grouped and config["data"]["grouped"] and not dataset.group_problems,
            "classes": dataset.class_counts(),
            "groups": {
                label: len(np.unique(dataset.groups[dataset.labels == label]))
                for label in dataset.class_counts()
            },
            "class_groups": class_groups(dataset),
            "unusable": [list(item) for item in dataset.unusable],
            "group_problems": [list(item) for item in dataset.group_problems],
            "duplicates": [list(names) for names in dataset.duplicates],
            "left_out": dataset.names[dataset.shared_negatives].tolist(),
            "remarks": list(dataset.remarks),
        },
        "environment": {
            "versions": {package: _version(package) for package in PACKAGES}
            | {"mim-jax": mim_jax.__version__},
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
        },
        "seed": config["seed"],
        "config": dict(config),
    }


def describe_clinical(clinical: Dataset) -> dict[str, Any]:
    """Which clinical images a test had."""
    return {
        "source": clinical.source,
        "classes": clinical.class_counts(),
        "digest": clinical.digest(),
        "paper": PAPER_CLINICAL,
    }


def count_parameters(params: Any) -> int:
    """How many numbers a tree of arrays holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def training_seconds(history: Sequence[Mapping[str, Any]], count: int) -> list[float]:
    """Seconds inside the epochs of each fold, both trainings (compilation included), resumed or not."""
    seconds = [0.0] * count
    for event in history:
        seconds[event["fold"]] += event["seconds"]
    return seconds

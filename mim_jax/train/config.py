"""What a configuration means: data, folds, networks, and what can be known to be wrong beforehand."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mim_jax import mask
from mim_jax.data import dataset as datasets
from mim_jax.data import duplicates, folder, folds, quality
from mim_jax.data.images import MIN_SIDE
from mim_jax.data.sources.load import load
from mim_jax.decide import decision
from mim_jax.inpaint import gan
from mim_jax.inpaint.networks import PatchDiscriminator, make_generator
from mim_jax.measure import similarity

Config = Mapping[str, Any]
MEASURE_FIELDS = ("metric", "window", "bins", "region", "holes", "reduce")

# Least and most of what a number in the configuration may be.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "data.folds": (2, 1000),
    "data.held_out": (0, 0.5),
    "data.per_class": (0, 10**6),
    "data.procedural_positives": (1, 10**6),
    "data.procedural_negatives": (18, 10**6),
    "mask.margin": (0, 10**4),
    "generator.width": (1, 4096),
    "generator.bottleneck_channels": (1, 10**6),
    "discriminator.width": (1, 4096),
    **dict.fromkeys(("loss.pixel_weight", "loss.adversarial_weight", "loss.generator_target"), (0, 10**6)),
    **dict.fromkeys(("loss.real_weight", "loss.fake_weight"), (0, 10**6)),
    "optimizer.learning_rate": (0, math.inf),
    **dict.fromkeys(("optimizer.b1", "optimizer.b2"), (0, 1 - 1e-6)),
    "training.epochs": (1, 10**9),
    "training.batch_size": (1, 10**9),
    "training.epochs_per_dispatch": (0, 10**6),
    "training.devices": (0, 10**6),
    "training.shards": (1, 10**6),
    "training.checkpoint_every": (1, 10**9),
    "training.keep": (1, 10**6),
    "training.panel_every": (0, 10**9),
    "evaluation.resamples": (1, 10**6),
    "evaluation.procedural_clinical": (0, 10**6),
    "evaluation.clinical_sigma": (0, 1),
    "evaluation.robustness_images": (0, 10**6),
    "decision.miss_rate": (1e-6, 1 - 1e-6),
    "decision.confidence": (1e-6, 1 - 1e-6),
    "decision.false_alarm_rate": (0, 1 - 1e-6),
}


def load_data(config: Config, progress: Callable[[int, int], None] | None = None) -> datasets.Dataset:
    """The images that the configuration names: a folder, the paper's sources, or the procedural ones."""
    data = config["data"]
    folders = {name: folder for name, folder in data["sources"].items() if folder}
    if data["root"] and folders:
        raise ValueError(
            f"config.data.root ({data['root']}) and config.data.sources ({', '.join(folders)}) are both "
            "given: name one of the two"
        )
    if not data["root"] and not folders:
        # Drawn one by one from their own random numbers: no copies to look for.
        return datasets.from_lesions(
            size=data["image_size"],
            positives=data["procedural_positives"],
            negatives=data["procedural_negatives"],
            seed=config["seed"],
        )
    min_side = least_side(config)
    if folders:
        dataset = load.load_sources(
            folders,
            data_dir=prepared_folder(config),
            size=data["image_size"],
            per_class=data["per_class"],
            seed=config["seed"],
            positive=data["positive"],
            min_side=min_side,
            progress=progress,
        )
        remarks = (
            *load.shortfalls(dataset, per_class=data["per_class"]),
            *load.count_differences(dataset),
        )
        dataset = replace(dataset, remarks=remarks)
    else:
        dataset = folder.from_folder(
            data["root"],
            size=data["image_size"],
            positive=data["positive"],
            manifest=data["manifest"],
            group_pattern=data["group_pattern"],
            strict=data["strict"],
            min_side=min_side,
            progress=progress,
        )
    dataset = quality.screen(dataset, make_gate(config), data["gate"]["training"], strict=data["strict"])
    return duplicates.settle(dataset, data["duplicates"])


def make_gate(config: Config) -> quality.Gate:
    """The checks that a picture must pass."""
    return quality.Gate(**{name: on for name, on in config["data"]["gate"].items() if name != "training"})


def load_clinical(config: Config) -> datasets.Dataset | None:
    """The images of the clinical test, none of them mpox; None where the configuration names none.

    For procedural data they are drawn with another seed.
    """
    data, evaluation = config["data"], config["evaluation"]
    if evaluation["clinical"]:
        return load.load_clinical(
            evaluation["clinical"],
            data_dir=prepared_folder(config),
            size=data["image_size"],
            positive=data["positive"],
            min_side=least_side(config),
        )
    if is_procedural(config) and evaluation["procedural_clinical"]:
        drawn = datasets.from_lesions(
            size=data["image_size"],
            positives=1,
            negatives=evaluation["procedural_clinical"],
            seed=config["seed"] + 1,
        )
        return drawn.select(drawn.negatives)
    return None


def least_side(config: Config) -> int:
    """Pixels that an image's shorter side must have: the hole's. Classifiers, which have none, as MIM."""
    size = config["data"]["image_size"] // 2
    return max(MIN_SIDE, config["mask"]["size"] if "mask" in config else size)


def is_procedural(config: Config) -> bool:
    """Are the images drawn by this package?"""
    return not config["data"]["root"] and not any(config["data"]["sources"].values())


def prepared_folder(config: Config) -> Path:
    """Where sources are kept decoded. Raises ValueError where it is not given and the user has no home."""
    if config["data"]["data_dir"]:
        return Path(config["data"]["data_dir"]).expanduser()
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise ValueError(
            "this user has no home folder to keep decoded sources in: give one as --config.data.data_dir"
        ) from error
    return Path(cache) / "mim_jax" / "prepared"


def make_folds(config: Config, dataset: datasets.Dataset) -> list[folds.Fold]:
    """The splits of the positive images; indices count within `dataset.positives`."""
    data = config["data"]
    groups = dataset.groups[dataset.positives]
    return folds.make_folds(groups, folds=data["folds"], seed=config["seed"], grouped=data["grouped"])


def split_training(
    config: Config, dataset: datasets.Dataset, fold: folds.Fold
) -> tuple[np.ndarray, np.ndarray]:
    """Indices into `dataset` of the images to train on and of those held out of training, by group."""
    share = config["data"]["held_out"]
    indices = dataset.positives[fold.train]
    if not share:
        return indices, indices[:0]
    parts = max(2, round(1 / share))
    inner = folds.make_folds(
        dataset.groups[indices], folds=parts, seed=config["seed"], grouped=config["data"]["grouped"]
    )[0]
    return indices[inner.train], indices[inner.test]


def check_fields(config: Config) -> None:
    """Raises ValueError for what is wrong in the fields that every kind of run has."""
    for field, (least, most) in RANGES.items():
        section, _, name = field.rpartition(".")
        fields = config.get(section, {}) if section else config
        if name in fields and not least <= fields[name] <= most:
            raise ValueError(f"config.{field} must lie between {least} and {most}, got {fields[name]}")
    choices = (
        ("training.precision", ("auto", "bfloat16", "float32")),
        ("evaluation.augmentation", ("fixed", "random")),
        ("data.duplicates", duplicates.MODES),
        ("data.gate.training", quality.MODES),
    )
    for field, known in choices:
        value: Any = config
        for name in field.split("."):
            value = value[name]
        if value not in known:
            raise ValueError(f"unknown config.{field} {value!r}: choose one of {', '.join(known)}")


def check(config: Config) -> None:
    """Raises ValueError for what can be known to be wrong before any image is read."""
    check_fields(config)
    size, mask_size = config["data"]["image_size"], config["mask"]["size"]
    measure = similarity.Measure(**measure_options(config))
    if config["decision"]["rule"] not in decision.RULES:
        raise ValueError(
            f"unknown decision rule {config['decision']['rule']!r}: choose one of {', '.join(decision.RULES)}"
        )
    if config["decision"]["rule"] == "paper" and measure != similarity.Measure():
        raise ValueError(
            "config.decision.rule=paper is a threshold on SSIM+HBD of the whole image; with "
            f"{measure} it means nothing: use config.decision.rule=calibrated"
        )
    mask.check_sizes(size, mask_size + 2 * config["mask"]["margin"])
    for holes in (measure.holes, config["evaluation"]["more_holes"]):
        mask.grid_offsets(size, mask_size, holes)
    images, patches = (jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32) for side in (size, mask_size))
    jax.eval_shape(
        functools.partial(measure.compare, offset=mask.center_offset(size, mask_size)), images, patches
    )
    jax.eval_shape(functools.partial(gan.init_state, game=make_game(config, steps=1)), jax.random.key(0))


def check_data(config: Config, dataset: datasets.Dataset, *, evaluation: bool) -> None:
    """Raises ValueError where the images cannot carry the protocol, before anything is claimed or trained."""
    smallest = min(len(split_training(config, dataset, fold)[0]) for fold in make_folds(config, dataset))
    check_batch_size(config, smallest)
    if evaluation:
        check_negatives(dataset)


def check_batch_size(config: Config, smallest: int) -> None:
    """Raises ValueError where a batch is larger than the smallest training set of a fold."""
    batch_size = config["training"]["batch_size"]
    if batch_size > smallest:
        raise ValueError(
            f"config.training.batch_size (={batch_size}) exceeds the {smallest} training images of a fold: "
            f"set --config.training.batch_size={smallest} or less"
        )


def check_negatives(dataset: datasets.Dataset) -> None:
    """Raises ValueError where there is nothing to test against."""
    if len(dataset.negatives) and not len(dataset.tested_negatives):
        raise ValueError(
            f"every image of another class shares a group with {dataset.positive!r}, on which some fold "
            "trains: correct the groups (--mode=check_data lists them), or only train with --mode=train"
        )
    if not len(dataset.negatives):
        raise ValueError(
            f"{dataset.source} holds nothing but {dataset.positive!r}: add folders of other classes to test "
            "against, or only train with --mode=train"
        )


def measure_options(config: Config) -> dict[str, Any]:
    """The fields of `similarity.Measure`, from the section `evaluation`."""
    return {name: config["evaluation"][name] for name in MEASURE_FIELDS}


def compute_dtype(config: Config) -> Any:
    """What convolutions and products compute in."""
    precision = config["training"]["precision"]
    fast = precision == "bfloat16" or (precision == "auto" and jax.default_backend() == "gpu")
    return jnp.bfloat16 if fast else jnp.float32


def make_optimizer(config: Config, *, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser, and its learning rate, for a training of `steps` updates."""
    rates = config["optimizer"]
    schedule = gan.make_schedule(rates["decay"], learning_rate=rates["learning_rate"], steps=steps)
    return optax.adam(schedule, b1=rates["b1"], b2=rates["b2"]), schedule


def make_game(config: Config, *, steps: int) -> gan.Game:
    """Networks, optimiser and losses for a training of `steps` updates."""
    dtype = compute_dtype(config)
    optimizer, schedule = make_optimizer(config, steps=steps)
    return gan.Game(
        generator=make_generator(config["generator"]["name"], config["generator"], dtype=dtype),
        discriminator=PatchDiscriminator(config["discriminator"]["width"], dtype=dtype),
        optimizer=optimizer,
        schedule=schedule,
        image_size=config["data"]["image_size"],
        mask_size=config["mask"]["size"],
        margin=config["mask"]["margin"],
        flips=config["training"]["flips"],
        **config["loss"],
    )


def describe_model(config: Config) -> dict[str, Any]:
    """What a checkpoint must say so that its generator can be built without the configuration."""
    options = {name: value for name, value in config["generator"].items() if name != "name"}
    return {
        "generator": config["generator"]["name"],
        "options": options,
        "image_size": config["data"]["image_size"],
        "mask_size": config["mask"]["size"],
        "margin": config["mask"]["margin"],
    }

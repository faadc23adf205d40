"""Configuration -> experiment: `parse` turns it into typed settings, `build` loads the images.

Code downstream of this module uses the settings and reads no field of the raw configuration.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mim_jax.data import dataset as datasets
from mim_jax.data import duplicates, quality
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Split
from mim_jax.data.images import MIN_SIDE
from mim_jax.decide.decision import RULES
from mim_jax.decide.thresholds import Rule
from mim_jax.measure.similarity import Measure
from mim_jax.train import images
from mim_jax.train import settings as typed
from mim_jax.train.optimizer import DECAYS
from mim_jax.train.settings import Settings
from mim_jax.train.trainer import Training
from mim_jax.train.workdir import flatten

DETECTORS = ("mim", "features", "combined")  # methods that can make the decision

_MEASURE = tuple(field.name for field in dataclasses.fields(Measure))
# Inclusive bounds of numbers in the configuration.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "data.folds": (2, 1000),
    "data.held_out": (0, 0.5),
    "data.per_class": (0, 10**6),
    "data.procedural_positives": (1, 10**6),
    "data.procedural_negatives": (18, 10**6),
    "features.image_size": (8, 4096),
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
    "evaluation.resamples": (40, 10**6),  # fewer leave no resample in a tail of a 95 % interval
    "evaluation.procedural_clinical": (0, 10**6),
    "evaluation.clinical_sigma": (0, 1),
    "evaluation.robustness_images": (0, 10**6),
    "decision.miss_rate": (1e-6, 1 - 1e-6),
    "decision.confidence": (1e-6, 1 - 1e-6),
    "decision.false_alarm_rate": (0, 1 - 1e-6),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "detector": DETECTORS,
    "training.precision": ("auto", "bfloat16", "float32"),
    "optimizer.decay": tuple(DECAYS),
    "evaluation.augmentation": ("fixed", "random"),
    "data.duplicates": duplicates.MODES,
    "data.gate.training": quality.MODES,
    "decision.rule": RULES,
}


@dataclass(frozen=True, eq=False)
class Experiment:
    """A run with its images: the input of training and evaluation."""

    settings: Settings  # the parsed configuration
    dataset: Dataset  # the images to train and test on
    splits: tuple[Split, ...]  # one per fold
    # images of the clinical test; None = no clinical test, or no evaluation in this process
    clinical: Dataset | None


class Method(Protocol):
    """A kind of run: MIM (`mim_jax.train.mim`) or a classifier (`mim_jax.classifiers.train`)."""

    def check(self, settings: Settings) -> None:
        """Raise ValueError for mistakes that can be found before any image is read."""

    def split(self, settings: Settings, dataset: Dataset) -> list[Split]:
        """Split the images into folds; ValueError if there are too few."""

    def trainings(self, experiment: Experiment, path: Path) -> list[Training]:
        """List the trainings of a workdir, without computing anything."""


def parse(config: Mapping[str, Any]) -> Settings:
    """Parse a configuration, a plain dict as from `get_config` of a file in configs/, into settings.

    ValueError names a field that is missing, unknown, or out of range.
    """
    try:
        return _parse(config)
    except KeyError as error:
        raise ValueError(f"the configuration lacks {error}: start from a file in configs/") from None
    except TypeError as error:
        raise ValueError(f"the configuration has a value of the wrong type: {error}") from error


def _parse(config: Mapping[str, Any]) -> Settings:
    flat = flatten(config)
    seeds = tuple(config.get("seeds", ()))
    _check_type("seed", config["seed"], int)
    _check_type("seeds", seeds, tuple[int, ...])
    numbers = [(name, flat[name], *RANGES[name]) for name in RANGES if name in flat]
    for name, value, least, most in [*numbers, *(("seeds", seed, *RANGES["seed"]) for seed in seeds)]:
        if not _is_a(value, float) or not least <= value <= most:
            bounds = f"between {least} and {most}" if math.isfinite(most) else f"a finite number >= {least}"
            raise ValueError(f"config.{name} must be {bounds}, got {value!r}")
    for name, known in CHOICES.items():
        if name in flat and flat[name] not in known:
            raise ValueError(f"unknown config.{name} {flat[name]!r}: choose one of {', '.join(known)}")
    data, evaluation = dict(config["data"]), dict(config["evaluation"])
    gate = data.pop("gate")
    mask = config.get("mask")
    least = mask["size"] if mask else data["image_size"] // 2  # classifiers have no hole: MIM's default
    data |= {
        "gate_training": gate["training"],
        "gate": read_gate(config),
        "sources": {name: folder for name, folder in data["sources"].items() if folder},
        "positive": datasets.printable(data["positive"]),  # spelled like the class names of a data set
        "known": tuple(map(datasets.printable, data.get("known", ()))),
        "min_side": max(MIN_SIDE, least),
    }
    measure = {name: evaluation.pop(name) for name in _MEASURE if name in evaluation}
    return Settings(
        seed=config["seed"],
        seeds=seeds,
        data=_read(typed.DataSettings, data, "data"),
        optimizer=_read(typed.OptimizerSettings, config["optimizer"], "optimizer"),
        training=_read(typed.TrainingSettings, config["training"], "training"),
        evaluation=_read(typed.EvaluationSettings, evaluation, "evaluation"),
        mim=_read_mim(config, measure) if mask else None,
        classifier=_read_classifier(config["classifier"]) if "classifier" in config else None,
        features=_read_features(config),
        detector=config.get("detector", "mim"),
        given=config,
    )


def read_gate(config: Mapping[str, Any]) -> quality.Gate:
    """Read the checks that files to be scored must pass, the only settings that an export's scoring needs."""
    checks = {name: on for name, on in config["data"]["gate"].items() if name != "training"}
    gate: quality.Gate = _read(quality.Gate, checks, "data.gate")
    return gate


def _read_mim(config: Mapping[str, Any], measure: Mapping[str, Any]) -> typed.MimSettings:
    decision, generator = dict(config["decision"]), dict(config["generator"])
    return typed.MimSettings(
        mask=_read(typed.MaskSettings, config["mask"], "mask"),
        generator=generator.pop("name"),
        generator_options=generator,
        discriminator_width=config["discriminator"]["width"],
        loss=_read(typed.LossSettings, config["loss"], "loss"),
        measure=_read(Measure, measure, "evaluation"),
        rule=_read(Rule, {"name": decision.pop("rule"), **decision}, "decision"),
    )


def _read_features(config: Mapping[str, Any]) -> typed.FeatureSettings | None:
    detector, section = config.get("detector", "mim"), dict(config.get("features", {}))
    if not section.get("backbone"):
        if detector != "mim":
            raise ValueError(
                f"config.detector={detector} needs a frozen network: name one with "
                "--config.features.backbone=open_nsfw"
            )
        return None
    found: typed.FeatureSettings = _read(
        typed.FeatureSettings, section | {"kinds": tuple(section["kinds"])}, "features"
    )
    own, seen = config["data"]["image_size"], found.image_size
    if own > seen or (detector == "features" and own != seen):
        raise ValueError(
            f"config.data.image_size={own} and config.features.image_size={seen}: the frozen network "
            "needs images of at least MIM's size; set both to the same number (required without MIM)"
        )
    return found


def _read_classifier(section: Mapping[str, Any]) -> typed.ClassifierSettings:
    options = dict(section)
    named = {name: options.pop(name) for name in ("name", "merged", "pretrained")}
    return typed.ClassifierSettings(options=options, **named)


def _read(kind: Any, section: Mapping[str, Any], name: str) -> Any:
    """Read a section into a dataclass; ValueError if a field is missing or unknown."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    needed = {n for n, f in fields.items() if f.default is dataclasses.MISSING}
    for what, names in (
        ("lacks", needed - section.keys()),
        ("does not have", section.keys() - fields.keys()),
    ):
        if names:
            listed = ", ".join(f"config.{name}.{each}" for each in sorted(names))
            raise ValueError(f"the configuration {what} {listed}: start from a file in configs/")
    types = typing.get_type_hints(kind)
    for each, value in section.items():
        _check_type(f"{name}.{each}", value, types[each])
    return kind(**section)


_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[int, ...]: "whole numbers separated by commas",
    tuple[str, ...]: "names separated by commas",
}


def _check_type(name: str, value: Any, wanted: Any) -> None:
    if not _is_a(value, wanted):
        raise ValueError(f"config.{name} must be {_KINDS[wanted]}, got {value!r:.60}")


def _is_a(value: Any, wanted: Any) -> bool:
    """Whether a value has the `wanted` type; always True for types outside `_KINDS`."""
    if wanted in (int, float):
        return isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
    if typing.get_origin(wanted) is tuple:
        return isinstance(value, tuple) and all(_is_a(each, typing.get_args(wanted)[0]) for each in value)
    return isinstance(value, wanted) if wanted in _KINDS else True


def with_seed(settings: Settings, seed: int) -> Settings:
    """Settings of the run with one seed of `settings.seeds`."""
    return replace(settings, seed=seed, seeds=(), given={**settings.given, "seed": seed, "seeds": ()})


def build(
    settings: Settings,
    method: Method,
    *,
    clinical: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Experiment:
    """Load the images of a run and split them; `progress` is called with (images done, total images).

    The images of the clinical test are loaded only if `clinical` is true. ValueError if the images cannot be
    read, or there are too few for the folds.
    """
    dataset = images.load_dataset(settings, progress)
    splits = tuple(method.split(settings, dataset))
    smallest = min(len(split.train) for split in splits)
    batch_size = settings.training.batch_size
    if batch_size > smallest and settings.detector != "features":  # it trains no network
        raise ValueError(
            f"config.training.batch_size (={batch_size}) exceeds the {smallest} training images of a fold: "
            f"set --config.training.batch_size={smallest} or less"
        )
    return Experiment(settings, dataset, splits, images.load_clinical(settings) if clinical else None)


def recipe(settings: Settings, *, steps: int) -> str:
    """Return all settings that networks, optimiser and losses of a training of `steps` updates are made from.

    Class names are not among them: their number shows in the shapes of the state.
    """
    networks = settings.mim or settings.classifier
    return repr((networks, settings.data.image_size, settings.optimizer, settings.training, steps))


def compute_dtype(settings: Settings) -> Any:
    """Data type of convolutions and matrix products."""
    precision = settings.training.precision
    fast = precision == "bfloat16" or (precision == "auto" and jax.default_backend() == "gpu")
    return jnp.bfloat16 if fast else jnp.float32

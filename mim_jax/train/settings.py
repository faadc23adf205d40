"""The settings of a run as typed, frozen objects; `mim_jax.train.config.parse` makes them.

The fields have the names, units and meaning of configs/mim.py and configs/classifiers.py, which hold every
default. A default here stands for a field that one of the two kinds of run does not have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mim_jax.data.quality import Gate
from mim_jax.decide.thresholds import Rule
from mim_jax.measure.similarity import Measure


@dataclass(frozen=True)
class DataSettings:
    """The images of a run, and how they are read, grouped and split."""

    root: str
    sources: Mapping[str, str]  # name -> folder, those that are given
    data_dir: str
    per_class: int
    duplicates: str
    positive: str
    image_size: int
    manifest: str
    group_pattern: str
    grouped: bool
    gate: Gate
    gate_training: str
    strict: bool
    folds: int
    procedural_positives: int
    procedural_negatives: int
    min_side: int  # pixels that the shorter side of an image must have
    source_column: str = ""
    held_out: float = 0.0
    known: tuple[str, ...] = ()  # classes, besides the positive one, that a classifier trains on

    @property
    def procedural(self) -> bool:
        """Whether the images are drawn by this package."""
        return not self.root and not self.sources


@dataclass(frozen=True)
class FeatureSettings:
    """The frozen network that stands beside MIM; `backbone` is "" where there is none."""

    backbone: str
    weights: str
    image_size: int
    kinds: tuple[str, ...]
    color: bool
    inpaintings: bool


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam and the decay of its learning rate."""

    learning_rate: float
    b1: float
    b2: float
    decay: str


@dataclass(frozen=True)
class TrainingSettings:
    """The training loop."""

    epochs: int
    batch_size: int
    drop_last: bool
    flips: bool
    precision: str
    epochs_per_dispatch: int
    devices: int
    shards: int
    checkpoint_every: int
    keep: int
    autoencoder: bool = False
    panel_every: int = 0


@dataclass(frozen=True)
class EvaluationSettings:
    """The test sets and the tables made of them."""

    augmentation: str
    clinical: str
    clinical_sigma: float
    procedural_clinical: int
    resamples: int
    more_holes: int = 1
    robustness_images: int = 0


@dataclass(frozen=True)
class LossSettings:
    """The weights and targets of Eq. 5, 7, 9 and 10."""

    pixel_weight: float
    adversarial_weight: float
    generator_target: float
    real_weight: float
    fake_weight: float
    real_input: str


@dataclass(frozen=True)
class MaskSettings:
    """The hole, in pixels a side, and what is hidden around it."""

    size: int
    margin: int


@dataclass(frozen=True)
class MimSettings:
    """The networks of MIM, their losses, and how images are scored and decided on."""

    mask: MaskSettings
    generator: str
    generator_options: Mapping[str, Any]
    discriminator_width: int
    loss: LossSettings
    measure: Measure
    rule: Rule


@dataclass(frozen=True)
class ClassifierSettings:
    """The network of a classifier and its classes."""

    name: str
    options: Mapping[str, Any]
    merged: bool
    pretrained: str


@dataclass(frozen=True)
class Settings:
    """A run. One of `mim` and `classifier` is None."""

    seed: int
    seeds: tuple[int, ...]
    data: DataSettings
    optimizer: OptimizerSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    mim: MimSettings | None
    classifier: ClassifierSettings | None
    features: FeatureSettings | None  # None = no frozen network
    detector: str  # what decides: one of `mim_jax.train.config.DETECTORS`
    # the configuration as it was given, for config.json and results.json alone
    given: Mapping[str, Any] = field(repr=False, compare=False)

"""The detector without training: feature histograms of a frozen network, compared with training images."""

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.batches import Images, check_batch, collect, padded_batches
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector, describe
from mim_jax.features.backbone import Apply, Backbone
from mim_jax.features.histograms import channel_histograms, color_histogram
from mim_jax.features.one_class import Histograms, Reference, fit, score

# variables, images uint8 or float in [0, 1] [B, S, S, 3] -> score name -> [B], or [folds, B]
PureScorer = Callable[[Any, jax.Array], dict[str, jax.Array]]
Program = tuple[Callable[..., Any], Any]  # a jitted `PureScorer`, and its variables
FEATURES, COLOR, BOTH = "features", "color", "features_color"


class BatchScorer(NoveltyDetector):
    """Base class of detectors that score images by one program: `pure`, compiled for all folds."""

    @abc.abstractmethod
    def pure(self, *, each_fold: bool = False) -> tuple[PureScorer, Any]:
        """Return the scorer as `(fn, variables)`, for use inside other code's `jit`."""

    @property
    def networks(self) -> Any:
        """Weights; a calibration is tied to the detector by their hash."""
        return self.pure()[1]

    @functools.cached_property
    def program(self) -> Program:
        """Scorer of each fold and its variables; cached, so that it is compiled once."""
        fn, variables = self.pure(each_fold=True)
        return jax.jit(fn), variables

    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Compute each of `metrics` by fold, float64 `[folds, N]`; images as for `score_samples`."""
        score_batch, variables = self.program
        batches = padded_batches(images, size=self.image_size)
        found = collect(lambda batch: score_batch(variables, batch), batches)
        return {name: found[name] for name in self.metrics}  # `jax.jit` sorts names


@dataclass(frozen=True, eq=False)
class FeatureDetector(BatchScorer):
    """A frozen network, the training images' feature histograms, and a threshold.

    >>> halves = Backbone("mine", lambda weights, images: {"halves": images[:, ::2, ::2]}, image_size=8)
    >>> images = np.asarray(jax.random.uniform(jax.random.key(0), (20, 8, 8, 3)))
    >>> detector = fit_detector(halves, images, groups=np.arange(20), training=[np.arange(20)])
    >>> detector.score_samples(images[:3]).shape
    (3,)

    Attributes:
      backbone: the frozen network.
      references: reference data by component: "features", and "color" if colours are compared too.
      metric: score used for decisions: "features", or "features_color", the mean of both components.
      threshold, threshold_origin, calibration, notice: as in `mim_jax.detector.Detector`.
    """

    backbone: Backbone
    references: Mapping[str, Reference]
    metric: str = FEATURES
    threshold: float | None = None
    threshold_origin: str = ""
    calibration: Calibration | None = None
    notice: str = ""

    def __repr__(self) -> str:
        return describe(
            self,
            backbone=self.backbone.name,
            folds=self.folds,
            image_size=self.image_size,
            metric=self.metric,
        )

    @property
    def image_size(self) -> int:  # type: ignore[override]
        """Side of the input images, in pixels."""
        return self.backbone.image_size

    @property
    def folds(self) -> int:
        return len(self.references[FEATURES].joined.median)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all scores, including the one used for decisions."""
        return (FEATURES, COLOR, BOTH) if COLOR in self.references else (FEATURES,)

    def of_fold(self, fold: int) -> "FeatureDetector":
        """Return the detector of one fold, without the calibration of the ensemble."""
        references = {name: reference.of_fold(fold) for name, reference in self.references.items()}
        return FeatureDetector(self.backbone, references, self.metric)

    @staticmethod
    def join(detectors: "Sequence[FeatureDetector]") -> "FeatureDetector":
        """Join single-fold detectors into one, so that one pass of the network serves all folds."""
        first = detectors[0]
        references = {
            name: Reference.join([each.references[name] for each in detectors]) for name in first.references
        }
        return FeatureDetector(first.backbone, references, first.metric)

    def pure(self, *, each_fold: bool = False) -> tuple[PureScorer, Any]:
        """Return the scorer as `(fn, variables)`, for use inside other code's `jit`.

        `fn(variables, images)` takes uint8 or float in [0, 1], `[B, S, S, 3]`, and returns each of `metrics`
        as float32: `[B]` averaged over folds, or `[folds, B]` with `each_fold`.
        """
        backbone = self.backbone

        def fn(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
            check_batch(images, backbone.image_size)
            network = Backbone(backbone.name, backbone.apply, backbone.image_size, variables["backbone"])
            found = {
                name: score(reference, histograms(network, images, name))
                for name, reference in variables["references"].items()
            }
            scores = with_join(found)
            return scores if each_fold else {name: jnp.mean(each, axis=0) for name, each in scores.items()}

        return fn, {"backbone": backbone.weights, "references": dict(self.references)}


def fit_detector(
    backbone: Backbone,
    images: Images,
    *,
    groups: np.ndarray,
    training: Sequence[np.ndarray],
    color: bool = False,
    kinds: Sequence[str] = ("nearest", "mahalanobis"),
    seed: int = 0,
    described: Mapping[str, Histograms] | None = None,
) -> FeatureDetector:
    """Fit a detector on images of one class.

    Args:
      backbone: the frozen network.
      images: training-class images `[T, S, S, 3]`, as for `FeatureDetector.score_samples`.
      groups: group (such as the patient) of each image, `[T]`.
      training: positions of the training images, one array per fold.
      color: whether to compare colours as well.
      kinds: kinds of score, a subset of `mim_jax.features.one_class.KINDS`.
      seed: seed of the inner folds that the units are estimated from.
      described: precomputed result of `describe_images` for these images; None = compute it.

    Raises:
      ValueError: images not of the backbone's size; too few images for the folds; an unknown kind.
    """
    names = (FEATURES, COLOR) if color else (FEATURES,)
    found = described if described is not None else describe_images(backbone, images, names)
    references = {
        name: fit(found[name], groups, training, kinds=kinds if name == FEATURES else ("nearest",), seed=seed)
        for name in names
    }
    return FeatureDetector(backbone, references, BOTH if color else FEATURES)


def describe_images(
    backbone: Backbone, images: Images, components: Sequence[str] = (FEATURES,)
) -> dict[str, dict[str, np.ndarray]]:
    """Compute histograms of images by component and layer, float32 `[N, C]` each."""
    describe = functools.partial(_describe, backbone.apply, tuple(components), backbone.weights)
    found = collect(describe, padded_batches(images, size=backbone.image_size))
    return jax.tree.map(lambda leaf: np.ascontiguousarray(leaf.T, np.float32), found)


# At module level, to be compiled once per network rather than at every call of `describe_images`.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _describe(
    apply: Apply, components: tuple[str, ...], weights: Any, images: Any
) -> dict[str, dict[str, jax.Array]]:
    backbone = Backbone("", apply, images.shape[1], weights)
    # The image axis goes last, where `collect` concatenates.
    return {name: jax.tree.map(jnp.transpose, histograms(backbone, images, name)) for name in components}


def histograms(backbone: Backbone, images: jax.Array, component: str) -> dict[str, jax.Array]:
    """Compute the histograms of one component by layer; "color" has a single layer."""
    return channel_histograms(backbone, images) if component == FEATURES else {COLOR: color_histogram(images)}


def with_join(scores: dict[str, Any]) -> dict[str, Any]:
    """Add the mean of the component scores if there are both components."""
    return scores | {BOTH: (scores[FEATURES] + scores[COLOR]) / 2} if COLOR in scores else scores
